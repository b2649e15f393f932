"""The state of the global generators, to be compared before and after."""

from __future__ import annotations

import random

import numpy as np
import torch


def global_generators() -> tuple[object, ...]:
    """Return the states of Python's, numpy's and torch's global generators as values that compare by `==`."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), name, tuple(keys), tuple(rest), torch.get_rng_state().numpy().tobytes()
