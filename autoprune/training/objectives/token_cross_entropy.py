"""Cross entropy of logits wherever they lie."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.training.objectives.base import Objective
from autoprune.training.objectives.logits import LogitLayout, logits_of


@final
class TokenCrossEntropy(Objective):
    """Mean over examples of the mean cross entropy of an example's targets, without those that are -100.

    Logits are (N, T, V) for tokens (N, T) or (N, C) for class numbers (N,): the tensor that the network returns,
    `logits` of what it returns, or the first of several. Where every example has equally many targets, as blocks of one
    text have, it is the mean over tokens.

    Args:
        label_smoothing: share of the target spread over all classes; that of the recipe where it is not given.

    Raises:
        ConfigError: a share outside of 0 to 1.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"token_cross_entropy: label_smoothing must be at least 0 and below 1, got {label_smoothing!r}"
            )
        self._smoothing = label_smoothing

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        logits = logits_of(batch.outputs(model), what="token_cross_entropy")
        return LogitLayout.of(logits, batch.targets).loss(logits, batch.targets, smoothing=self._smoothing)
