"""What settings of criteria may be, and what they may give."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from torch import Tensor

from autoprune.errors import ConfigError, EvaluationError, shortened, suggest
from autoprune.space.groups import FloatArray


def check_choice(setting: str, given: object, allowed: Any) -> None:
    """Check a setting against the values of a `Literal`; raises ConfigError, with the closest one."""
    names = [str(name) for name in get_args(allowed)]
    if given not in names:
        raise ConfigError(f"{setting} must be one of {', '.join(names)}, got {given!r}.{suggest(str(given), names)}")


def checked_scores(given: object, count: int, *, what: str, whose: str, cause: str) -> FloatArray:
    """What a criterion gave, as an array.

    Args:
        given: (count,) real numbers, as a tensor.
        count: how many are expected.
        what: the criterion, for messages.
        whose: what is scored, for messages.
        cause: what may not be finite, for messages.

    Raises:
        EvaluationError: it is no tensor of so many finite real numbers.
    """
    if not isinstance(given, Tensor) or given.is_complex():
        told = str(given.dtype) if isinstance(given, Tensor) else type(given).__name__
        told = shortened(told, 80)
        raise EvaluationError(f"{what} must give a tensor of {count} real numbers for {whose}, got {told}")
    values: FloatArray = given.detach().double().cpu().numpy()
    if values.shape != (count,) or not np.isfinite(values).all():
        raise EvaluationError(
            f"{what} must give {count} finite numbers for {whose}, got shape {values.shape}; {cause} that are not "
            f"finite cause this: check the base network"
        )
    return values
