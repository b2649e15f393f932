"""Reading a state dict from a file; no object is ever unpickled."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from autoprune.errors import ConfigError

# What the two readers raise on files that are damaged, of another format, or hold more than tensors.
_UNREADABLE = (
    *(SafetensorError, pickle.UnpicklingError, struct.error, OSError, EOFError),
    *(RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError),
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors by name from `.safetensors`, or from what `torch.save` wrote, on the CPU.

    A checkpoint may hold them under the key "state_dict" or "model".

    Raises:
        ConfigError: the file is missing, unreadable, or holds something else.
    """
    if not path.is_file():
        raise ConfigError(f"weights file {path} does not exist")
    try:
        safe = path.suffix == ".safetensors"
        found: Any = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ConfigError(
            f"weights file {path} cannot be read ({type(error).__name__}): it is damaged, or holds more than tensors; "
            f"write it anew with safetensors.torch.save_file(model.state_dict(), path)"
        ) from error
    if isinstance(found, Mapping):
        found = next((found[key] for key in ("state_dict", "model") if isinstance(found.get(key), Mapping)), found)
    if not _is_state_dict(found):
        raise ConfigError(
            f"weights file {path} holds no state dict (tensors by name), neither bare nor as 'state_dict' or 'model'; "
            f"save model.state_dict()"
        )
    return dict(found)


def is_lost(given: Tensor, into: torch.dtype) -> bool:
    """Whether numbers change by more than rounding: imaginary parts go, fractions become whole, large ones infinite."""
    if given.dtype == into or into.is_complex:
        return False
    if given.is_complex():
        return True
    wide, cast = given.to(torch.float64), given.to(into).to(torch.float64)
    if into.is_floating_point:
        return bool((wide.isfinite() & ~cast.isfinite()).any())
    return not torch.equal(cast, wide)


def _is_state_dict(found: Any) -> bool:
    return isinstance(found, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    )
