"""The step schedule."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.errors import ConfigError


def step(done: float, warm: float, *, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1) -> float:
    """`gamma` to the power of how many milestones are passed.

    Args:
        done: share of the training that is over, the warm-up included.
        warm: not looked at.
        milestones: shares of the training, each between 0 and 1.
        gamma: factor at each of them.

    Raises:
        ConfigError: milestones that are no such shares.
    """
    if not all(0 < milestone < 1 for milestone in milestones):
        raise ConfigError(
            f"schedule 'step': milestones must be shares of the training, above 0 and below 1, got {list(milestones)}"
        )
    return gamma ** sum(done >= milestone for milestone in milestones)
