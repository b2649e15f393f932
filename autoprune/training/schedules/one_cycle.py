"""The one-cycle schedule."""

from __future__ import annotations

import math

from autoprune.errors import ConfigError


def one_cycle(
    done: float, warm: float, *, pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4
) -> float:
    """Up to the highest learning rate and down to nearly nothing, both along half a cosine; settings as in torch.

    Departs from the paper: the momentum does not move the other way, which few optimizers let it.

    Args:
        done: share of the training that is over.
        warm: share of the warm-up; the cycle is what comes after it.
        pct_start: share of the cycle that goes up, above 0 and below 1.
        div_factor: it begins at 1 / div_factor.
        final_div_factor: it ends at 1 / (div_factor · final_div_factor).

    Raises:
        ConfigError: a setting out of its range.
    """
    if not 0 < pct_start < 1 or div_factor < 1 or final_div_factor <= 0:
        raise ConfigError(
            f"schedule 'one_cycle': pct_start must be above 0 and below 1, div_factor at least 1 and final_div_factor "
            f"above 0, got {pct_start!r}, {div_factor!r} and {final_div_factor!r}"
        )
    place = (done - warm) / (1 - warm)
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    if place < pct_start:
        return _between(first, 1.0, place / pct_start)
    return _between(1.0, last, (place - pct_start) / (1 - pct_start))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
