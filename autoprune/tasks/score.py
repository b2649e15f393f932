"""A score with its noise, and the per-example values behind it, packed for the ledger."""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import numpy as np

from autoprune.errors import EvaluationError

Examples: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
"""(N,) one value per example, in the order of the data: truth values (right or wrong) or numbers."""


@final
@dataclass(frozen=True, slots=True)
class Score:
    """How good a network is, higher is better, and how far that number may be off; `float(score)` is the value.

    Attributes:
        value: the score.
        standard_error: of the value; None if unknown.
        paired: the standard error is that of the difference to a reference on the same examples, so that errors of two
            candidates are independent: the score model takes it as noise. False: it says how far the value may be from
            that on endless data. Most of that is common to all candidates that were scored on the same examples, and
            says little about which is better, so the score model estimates their noise itself.
        examples: the values behind it, where they are kept; two scores are compared without them.

    Raises:
        EvaluationError: a standard error that is none, or examples that are not one finite value each.
    """

    value: float
    standard_error: float | None = None
    paired: bool = False
    examples: Examples | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        error = self.standard_error
        if error is not None and not (_is_number(error) and 0 <= float(error) < math.inf):
            raise EvaluationError(f"a standard error must be a finite number of at least 0, or None, got {error!r}")
        if self.paired and error is None:
            raise EvaluationError("a paired score needs its standard error; give it, or leave paired out")
        if self.examples is not None:
            kept = np.asarray(self.examples)
            if kept.ndim != 1 or kept.dtype.kind not in "biuf" or not np.isfinite(kept).all():
                raise EvaluationError(
                    f"examples must be one finite number or truth value each, got {kept.dtype} of shape {kept.shape}"
                )
            object.__setattr__(self, "examples", kept)

    def __float__(self) -> float:
        return float(self.value)


def as_score(given: Any) -> Score:
    """What an evaluator returned, as a score: a plain number has no known noise."""
    return given if isinstance(given, Score) else Score(given)


def packed(examples: Examples) -> str:
    """Values as a short text: truth values as bits, numbers in single precision, both deflated.

    10 000 right or wrong answers take at most 1.7 kB, and 1.0 kB where nine of ten are right; as many numbers 50 kB.
    """
    bits = examples.dtype.kind == "b"
    raw = np.packbits(examples).tobytes() if bits else examples.astype("<f4").tobytes()
    return f"{'bits' if bits else 'f4'}:{len(examples)}:{base64.b64encode(zlib.compress(raw, 9)).decode()}"


def unpacked(text: str) -> Examples:
    """What `packed` was given."""
    kind, length, content = text.split(":")
    raw = zlib.decompress(base64.b64decode(content))
    if kind == "bits":
        return np.unpackbits(np.frombuffer(raw, np.uint8), count=int(length)).astype(bool)
    return np.frombuffer(raw, "<f4").copy()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
