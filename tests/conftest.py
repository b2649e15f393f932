from __future__ import annotations

import importlib
import importlib.util
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # pytest-xdist starts a worker per core; they must not fight


@pytest.fixture(autouse=True, scope="session")
def _disks_are_not_waited_for() -> Iterator[None]:
    """No test pulls the plug, and a run waits for the disk a hundred times; tests of that put their own in place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def _nothing_global_stays() -> Iterator[None]:
    """Each test leaves the global generators, the default type and the gradient mode as it met them."""
    numbers, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    yield
    random.setstate(numbers)
    np.random.set_state(arrays)
    torch.set_rng_state(tensors)
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(gradients)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the original files of the public data sets."""
    root = os.environ.get("AUTOPRUNE_DATA", "")
    if not Path(root or "missing").is_dir():
        pytest.skip("needs real data: set AUTOPRUNE_DATA to the folder with the original files of the data sets")
    return Path(root)


@pytest.fixture(scope="session")
def import_torchvision() -> Callable[[], ModuleType]:
    """A function that imports torchvision, and skips the test where it is not installed.

    Built for another torch, torchvision lacks its compiled operators, and then its import fails for want of two
    schemas; its models need neither operator.
    """
    kept_alive: list[torch.library.Library] = []

    def load() -> ModuleType:
        if importlib.util.find_spec("torchvision") is None:
            pytest.skip("needs torchvision, which is not installed")
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms does not exist" not in str(error):
                raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        kept_alive.append(library)  # a schema lives as long as its library
        return importlib.import_module("torchvision")

    return load
