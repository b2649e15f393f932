from __future__ import annotations

import gc
import html
import importlib
import importlib.util
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TextIO

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from autoprune.report import drawing

torch.set_num_threads(1)  # pytest-xdist starts a worker per core; they must not fight

SEED = 20
FIGURES_ARE_LOOKED_AT = ("cli", "report", "studies")
"""Rooms whose tests need figures that are really drawn, which take longer than all else in a small run."""
MEMORY = Path("/dev/shm")
ROOM = 4 << 30
"""Bytes; the tests of a whole run leave less than a tenth of it at once."""


def pytest_configure() -> None:
    """Temporary folders lie in memory where it has room: a run syncs every file, on a disk milliseconds each."""
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_finish() -> None:
    """What is there before the first test stays: looking through all of it again and again took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Iterator[None]:
    """What several tests share is made from one seed, whichever of them comes first, and leaves no trace."""
    if request.scope == "function":
        return (yield)
    with _one_seed():
        return (yield)


@pytest.fixture(autouse=True)
def _nothing_global_stays() -> Iterator[None]:
    """Each test starts from one seed, and leaves generators, the default type and the gradient mode as it met them."""
    with _one_seed():
        yield


@contextmanager
def _one_seed() -> Iterator[None]:
    numbers, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    try:
        yield
    finally:
        random.setstate(numbers)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)


@pytest.fixture(autouse=True, scope="module")
def _figures_are_drawn_where_they_are_looked_at(request: pytest.FixtureRequest) -> Iterator[None]:
    """Elsewhere everything is put on the axes, and the page has what they say, but not how it looks."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.relative_to(Path(__file__).parent).parts[0] not in FIGURES_ARE_LOOKED_AT:
            patch.setattr(drawing.Figure, "savefig", _blank)
        yield


def _blank(figure: Figure, file: TextIO, **settings: object) -> None:
    """What the figure says, without a place."""
    said = [axis.get_label_text() for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    said += [text.get_text() for part in (*figure.axes, *figure.legends) for text in _texts(part)]
    texts = "".join(f"<text>{html.escape(text)}</text>" for text in said)
    file.write(f'<svg viewBox="0 0 1 1">{texts}</svg>')


def _texts(part: Axes | Legend) -> Sequence[Text]:
    return part.get_texts() if isinstance(part, Legend) else part.texts


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the original files of the public data sets."""
    root = os.environ.get("AUTOPRUNE_DATA", "")
    if not Path(root or "missing").is_dir():
        pytest.skip("needs real data: set AUTOPRUNE_DATA to the folder with the original files of the data sets")
    return Path(root)


@pytest.fixture(scope="session")
def import_torchvision() -> Callable[[], ModuleType]:
    """A function that imports torchvision, and skips the test where it is not installed."""

    def load() -> ModuleType:
        if importlib.util.find_spec("torchvision") is None:
            pytest.skip("needs torchvision, which is not installed")
        return _torchvision()

    return load


_SCHEMAS: list[torch.library.Library] = []
"""Kept alive: a schema lives as long as its library."""


def _torchvision() -> ModuleType:
    """Import torchvision, also one that was built for another torch.

    Such a one lacks its compiled operators, and its import fails for want of two schemas; its models need neither.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _SCHEMAS.append(library)
    return importlib.import_module("torchvision")


if importlib.util.find_spec("torchvision") is not None:
    _torchvision()  # torchmetrics imports it where it is installed
