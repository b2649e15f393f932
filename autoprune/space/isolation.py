"""Running the caller's code without moving the global generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def same_randomness(model: nn.Module) -> Iterator[None]:
    """Python's, numpy's and torch's global generators (also of the model's devices) are afterwards as before."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
