"""What the factories share: the width multiplier and the check of the two sizes that data decides."""

from __future__ import annotations

import math

from autoprune.errors import ConfigError


def scaled(channels: int, width: float) -> int:
    """Return `channels * width`, rounded, at least 1.

    Raises:
        ConfigError: `width` is not a positive, finite number.
    """
    if not isinstance(width, int | float) or not math.isfinite(width) or width <= 0:
        raise ConfigError(f"width must be a positive number, got {width!r}; 1.0 is the published network")
    return max(1, round(channels * width))


def check_sizes(in_channels: int, classes: int) -> None:
    """Raise a ConfigError unless both are whole numbers of at least 1."""
    for name, value in (("in_channels", in_channels), ("classes", classes)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
