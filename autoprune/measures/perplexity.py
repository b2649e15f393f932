"""How surprised a language model is by each token."""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.measures.base import Measure, Values, with_jackknife
from autoprune.training.objectives.logits import IGNORED, LogitLayout, logits_of


@final
class Perplexity(Measure):
    """exp of the mean cross entropy in nats of all tokens that are to be told, whatever example they are in.

    Needs logits (N, T, V), or an output with `logits`, and tokens (N, T) as targets, -100 where nothing is to be told;
    (N, V) and class numbers (N,) are texts of one token. Computed in double precision. A network that knows nothing has
    V, one that is always right and sure has 1.
    """

    name, higher_is_better, lowest, wide = "perplexity", False, 1.0, True

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N, 2): nats of an example, and how many tokens they are of; see `Measure.values`.

        Raises:
            EvaluationError: outputs that are no logits of the targets.
        """
        nats, counts = token_nats(outputs, batch.targets)
        return torch.stack((nats.sum(1), counts.sum(1).double()), 1)

    def combine(self, values: Values) -> tuple[float, float | None]:
        """See `Measure.combine`; the standard error is that of the jackknife over examples.

        Raises:
            EvaluationError: no example has a token that is to be told.
        """
        if not values[:, 1].any():
            raise EvaluationError("no token of the data is to be told: all targets are -100; give other data")
        return with_jackknife(_perplexity, values)


def token_nats(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """(N, T) cross entropy of each token in double precision, 0 where it does not count, and (N, T) where it does.

    Args:
        outputs: logits (N, T, V), or something that has `logits`.
        targets: (N, T) tokens, -100 where nothing is to be told; of (N, V) also class numbers (N,).

    Raises:
        EvaluationError: they do not fit, or a token is not one of V.
    """
    logits = logits_of(outputs, what="perplexity")
    there = targets.to(logits.device) if isinstance(targets, Tensor) else targets
    if logits.ndim == 2 and isinstance(there, Tensor) and there.ndim == 1:
        logits, there = logits[:, None], there[:, None]
    layout = LogitLayout.of(logits, there)
    if layout.axis != logits.ndim - 1 or logits.ndim != 3 or layout.counts is None:
        given = f"targets of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else "no targets"
        raise EvaluationError(
            f"perplexity needs logits (N, tokens, vocabulary) and tokens (N, tokens), got {tuple(logits.shape)} and "
            f"{given}; take another measure, such as loss or accuracy"
        )
    largest = int(there.max())
    if largest >= logits.shape[2] or bool(((there < 0) & (there != IGNORED)).any()):
        raise EvaluationError(
            f"tokens up to {largest} for a network of {logits.shape[2]} tokens (0 to {logits.shape[2] - 1}, and "
            f"{IGNORED} for none); give the network a larger vocabulary, or other tokens"
        )
    known = torch.where(layout.counts, there, 0)
    nats = -logits.double().log_softmax(2).gather(2, known[..., None])[..., 0]
    return torch.where(layout.counts, nats, 0.0), layout.counts


def _perplexity(values: Values) -> float:
    nats, tokens = values.sum(0)
    if not tokens:
        return math.nan  # of a group that a jackknife leaves
    return math.exp(nats / tokens) if nats / tokens < _MOST else float(np.inf)


_MOST = math.log(np.finfo(np.float64).max)
