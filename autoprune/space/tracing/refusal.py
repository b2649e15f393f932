"""Why a model cannot be traced: which line of its forward, and what to change."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)


def explain(model: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]], refusals: Sequence[Exception]) -> str:
    """One message: the model, the inputs, the offending line, what each tracer said, and what to do."""
    args, kwargs = inputs
    given = [_describe(value) for value in args] + [f"{name}={_describe(value)}" for name, value in kwargs.items()]
    tracers = ("torch.export", "make_fx")
    said = [
        f"{tracer}: {type(e).__name__}: {_first_lines(str(e))}" for tracer, e in zip(tracers, refusals, strict=False)
    ]
    line = next((found for error in reversed(refusals) if (found := _user_line(error)) is not None), None)
    where = f" It stops at {line}." if line else ""
    return (
        f"{type(model).__name__} cannot be traced with this example input ({', '.join(given)}).{where} "
        f"{'; '.join(dict.fromkeys(said))}. "
        f"Check that model(example_input) runs; tracers also refuse `if` on tensor values, .item() and code that leaves"
        f" torch inside forward: compute such values outside, make them constants, or trace a module around the model "
        f"whose forward stops before them (raw heads before post-processing)"
    )


def _user_line(error: BaseException) -> str | None:
    """The innermost line of code that is neither torch's nor ours: `file:line, in name: code`."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        name = frame.filename
        if not name.startswith((_TORCH, _HERE)) and not name.startswith("<") and "/contextlib.py" not in name:
            code = (frame.line or linecache.getline(name, frame.lineno or 0)).strip()
            return f"{Path(name).name}:{frame.lineno}, in {frame.name}: `{code}`"
    return None


def _describe(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _first_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])[:300].rstrip(".")
