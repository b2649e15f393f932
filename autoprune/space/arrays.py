"""Types of arrays, and of the widths of one network."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Widths: TypeAlias = tuple[int, ...]
IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
