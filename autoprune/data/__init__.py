"""Data sets; one file per data set, one card per data set in the table below.

A data set is a function that returns `DataSplits`, or anything that `splits_from` understands. Its keyword arguments
are what a job may set; `path` among them receives the job's path. Beside it may stand `available` (see `is_there`).
Longer than others, as what data may be is said beside the table of data sets.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.config.bounded_files import given_path
from autoprune.config.settings import check_settings
from autoprune.errors import ConfigError, DataError, blame, suggest
from autoprune.registry import Part, Registry, load_object

if TYPE_CHECKING:  # torch is imported with the first data set, not with the list of their names
    from autoprune.data.base import DataSplits, Split

DATA_SETS = Registry(
    "data set",
    {
        "digits": Part(
            "autoprune.data.digits:load",
            "Alpaydin and Kaynak 1998, as scikit-learn ships it",
            "First steps and tests: nothing to fetch, trained in a minute.",
        ),
        "fashion_mnist": Part(
            "autoprune.data.fashion_mnist:load",
            "Xiao et al. 2017, arXiv 1708.07747",
            "Small grey images, when digits is too easy and CIFAR-10 too slow.",
        ),
        "cifar10": Part(
            "autoprune.data.cifar10:load",
            "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
            "To compare with the pruning papers, nearly all of which use it.",
        ),
        "image_folder": Part(
            "autoprune.data.image_folder:load",
            "your own pictures, one folder per class",
            "Classification of your own that fits into memory.",
            needs={"path": "the folder with `train` in it, as data.path of a job"},
        ),
        "image_masks": Part(
            "autoprune.data.image_masks:load",
            "your own pictures, and a mask of class numbers for each",
            "Segmentation of your own that fits into memory.",
            needs={"path": "the folder with `train` in it, as data.path of a job"},
        ),
        "coco": Part(
            "autoprune.data.coco:load",
            "your own pictures, and boxes as in the files of Lin et al. 2014, arXiv 1405.0312",
            "Detection of your own; pictures are read from disk, and may differ in size.",
            needs={"path": "the folder with `train.json` and `train` in it, as data.path of a job"},
        ),
        "tensor_files": Part(
            "autoprune.data.tensor_files:load",
            "your own tensors, as .safetensors or .npz",
            "Anything that was prepared elsewhere: inputs and targets of any shape.",
            needs={"path": "the folder with `train.npz`, or one file, as data.path of a job"},
        ),
        "table": Part(
            "autoprune.data.table:load",
            "your own rows, as JSON lines or parquet",
            "Numbers in columns; with several columns of inputs the network gets them by name.",
            needs={
                "path": "the folder with `train.jsonl` or `train.parquet`, or one file, as data.path of a job",
                "inputs": "name of the column of inputs, or a list of names",
                "target": "name of the column of targets",
            },
        ),
        "text": Part(
            "autoprune.data.text:load",
            "your own text, or tokens in an array",
            "Language models: a file in UTF-8, or whole numbers as .npz, .npy or .safetensors, in blocks.",
            needs={"path": "the file, as data.path of a job"},
        ),
        "python_manual": Part(
            "autoprune.data.python_manual:load",
            "the topics of Python's manual, as Python ships them (PSF licence)",
            "First steps with language models: 370 kB of English, nothing to fetch.",
        ),
    },
    group="autoprune.data",
)

_ROLES = ("train", "validation", "test")
_VALIDATION = ("val", "valid", "dev", "eval")


def load_data(name: str, *, path: Path | None = None, arguments: Mapping[str, Any] | None = None) -> DataSplits:
    """Return the splits of a registered data set, or those that the user's `module:function` returns.

    Arguments and errors are those of `read_data`, and what the function returns must be as `splits_from` needs it.
    """
    return splits_from(read_data(name, path=path, arguments=arguments), name=name)


def read_data(name: str, *, path: Path | None = None, arguments: Mapping[str, Any] | None = None) -> object:
    """Return what a registered data set, or the user's `module:function`, returns.

    Args:
        name: a name in `DATA_SETS`, or `module:function`.
        path: where the data lie, for data sets that take a path.
        arguments: further keyword arguments of the data set.

    Raises:
        RegistryError: unknown name, module or function.
        ConfigError: an argument that the data set does not take, or one that it misses.
        DataError: the data are missing or malformed, or the function fails.
    """
    loader = load_object(name) if ":" in name else DATA_SETS.get(name)
    given = {**(arguments or {}), **({} if path is None else {"path": path})}
    if "path" in given:
        given["path"] = given_path(given["path"], f"data set {name!r}: path")
    if not callable(loader):
        raise ConfigError(f"data set {name!r} must be a function that returns the data, got {type(loader).__name__}")
    check_settings(
        loader,
        given,
        what=f"data set {name!r}",
        needs={} if ":" in name else DATA_SETS.card(name).needs,
        place="data: `path` beside the name, all others in `arguments`",
        noun="argument",
    )
    from autoprune.randomness import seeded

    with blame(DataError, f"data set {name!r} cannot be loaded", then="Correct its arguments or its code."), seeded(0):
        data: object = loader(**given)  # what it draws is the same in every run, and the caller's generators stay
    return data


def is_there(name: str) -> bool | None:
    """Whether the files of a data set are found without a path; None where it does not say.

    A data set says so by a function `available(path: Path | None) -> bool` in the module of its loader.
    """
    says = getattr(sys.modules.get(DATA_SETS.get(name).__module__), "available", None)
    return None if says is None else bool(says(None))


def splits_from(data: object, *, name: str = "user data") -> DataSplits:
    """Turn what a user has into `DataSplits`.

    Args:
        data: `DataSplits`; or a mapping with `train`, `validation` and optionally `test`; or a tuple of these two or
            three. Each is a torch `Dataset` or `DataLoader` of (input, target) pairs, a `Split`, or a data set of
            Hugging Face's `datasets` with a column of inputs and one of targets.
        name: what to call it, unless it is `DataSplits` already.

    Raises:
        DataError: anything else.
    """
    from autoprune.data.base import DataSplits
    from autoprune.data.labelled import no_batch

    if isinstance(data, DataSplits):
        return data
    parts = _parts(data)
    train, validation = _as_split(parts["train"], "train"), _as_split(parts["validation"], "validation")
    test = None if parts.get("test") is None else _as_split(parts["test"], "test")
    with blame(DataError, f"{name}: the first training example cannot be read", then="Correct the data set."):
        example, _ = next(train.batches(1, seed=0), (None, None))
    if example is None:
        raise no_batch(f"{name}: train")
    named = getattr(getattr(parts["train"], "dataset", parts["train"]), "classes", None)  # as torchvision's have
    return DataSplits(
        name=name,
        train=train,
        validation=validation,
        test=test,
        classes=len(named) if isinstance(named, list | tuple) else None,
        input_shape=tuple(example.shape[1:]),
    )


def parts_from(data: object) -> tuple[dict[str, Any], str | None]:
    """What a user has for a task of any kind, part by part, and the name of the data where they have one.

    Args:
        data: as for `splits_from`; parts may also be data sets of Hugging Face's `datasets`.

    Returns:
        Role -> a `Split`, a torch `Dataset` or a `DataLoader`; there is no test where none was given.

    Raises:
        DataError: anything else.
    """
    from autoprune.data.base import DataSplits

    if isinstance(data, DataSplits):
        return {role: part for role in _ROLES if (part := getattr(data, role)) is not None}, data.name
    return {role: _source(part, role) for role, part in _parts(data).items() if part is not None}, None


def _source(given: object, role: str) -> Any:
    """A part as a `Split`, a `Dataset` or a `DataLoader`; raises DataError where it is none."""
    from torch.utils.data import DataLoader, Dataset

    from autoprune.data.base import LoaderSplit, Split
    from autoprune.data.rows import TableRows, is_rows

    if is_rows(given):
        return TableRows(given)
    if not isinstance(given, Split | Dataset | DataLoader):
        raise _no_part(given, role)
    if not isinstance(given, Split):
        LoaderSplit(given, role)  # refuses what has no length
    return given


def _no_part(source: object, role: str) -> DataError:
    from autoprune.data.base import holds_nothing

    if holds_nothing(source):
        return DataError(f"{role} is empty, it is {source!r}: give at least one example")
    return DataError(
        f"{role} must be a torch Dataset, a DataLoader or a Split, got {type(source).__name__}; make arrays a data "
        f"set: torch.utils.data.TensorDataset(torch.as_tensor(inputs), torch.as_tensor(class_numbers))"
    )


def _parts(data: object) -> dict[str, Any]:
    if isinstance(data, tuple | list) and 2 <= len(data) <= 3:
        return dict(zip(_ROLES, data, strict=False))
    if not isinstance(data, Mapping):
        raise DataError(
            f"data must be DataSplits, a mapping with 'train', 'validation' and optionally 'test', "
            f"or a tuple of these two or three; got {type(data).__name__}. Keep a part of one data set for validation: "
            f"data=torch.utils.data.random_split(data, [0.9, 0.1])"
        )
    unknown = [str(key) for key in data if key not in _ROLES]
    missing = [role for role in _ROLES[:2] if data.get(role) is None]
    for role in missing:
        if role in data and not unknown:
            raise DataError(f"{role} is None: give a data set or a loader; only 'test' may be left out")
    if unknown or missing:
        hint = next((f" Say 'validation' for {key!r}." for key in unknown if key in _VALIDATION), "")
        hint = hint or (suggest(unknown[0], _ROLES) if unknown else "")
        raise DataError(
            f"data must have 'train' and 'validation' and may have 'test', got {[str(key) for key in data]}.{hint}"
        )
    return dict(data)


def _as_split(source: object, role: str) -> Split:
    import torch
    from torch.utils.data import DataLoader, Dataset, Subset

    from autoprune.data.base import LoaderSplit, Split
    from autoprune.data.rows import is_rows

    if is_rows(source):
        from autoprune.data.pairs import PairedRows

        source = PairedRows(source)
    if isinstance(source, Split):
        return source
    if isinstance(source, DataLoader):
        return LoaderSplit(source, role)
    if not isinstance(source, Dataset):
        raise _no_part(source, role)
    whole = LoaderSplit(source, role)
    if role == "train":
        return whole
    # many data sets are sorted by class: after one fixed shuffle the first n are a fair sample
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    return LoaderSplit(Subset(source, order.tolist()))
