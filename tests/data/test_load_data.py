import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from autoprune.data import DATA_SETS, load_data, splits_from
from autoprune.errors import ConfigError, DataError, RegistryError

SORTED = TensorDataset(torch.arange(100.0)[:, None], torch.arange(100) // 10)


def test_listing_the_names_imports_no_torch():
    code = "import sys, autoprune.data as d; d.DATA_SETS.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert "digits" in DATA_SETS.names()


def test_every_form_of_user_data_gives_the_same_splits():
    forms = [
        (SORTED, SORTED),
        [SORTED, SORTED, None],
        {"train": SORTED, "validation": SORTED, "test": None},
        splits_from((SORTED, SORTED)),
    ]
    prints = {splits_from(form).fingerprint for form in forms}
    assert len(prints) == 1
    splits = splits_from((SORTED, DataLoader(SORTED, 10), SORTED))
    assert splits.input_shape == (1,)
    assert splits.test is not None


def test_the_first_examples_of_a_validation_set_sorted_by_class_are_a_fair_sample():
    splits = splits_from((SORTED, SORTED))
    _, targets = next(splits.validation.batches(40, limit=40))
    assert len(set(targets.tolist())) >= 8
    _, targets = next(splits.train.batches(40, limit=40))
    assert len(set(targets.tolist())) == 4


def test_the_classes_a_data_set_lists_are_counted():
    named = TensorDataset(*SORTED.tensors)
    named.classes = ["a", "b", "c"]
    assert splits_from((named, SORTED)).classes == 3
    assert splits_from((DataLoader(named), SORTED)).classes == 3
    assert splits_from((SORTED, SORTED)).classes is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "got int"),
        ((SORTED,), "tuple of these two or three"),
        ({"train": SORTED}, "must have 'train' and 'validation'"),
        ({"train": SORTED, "validation": SORTED, "tset": SORTED}, "Did you mean 'test'"),
        ((SORTED, [1, 2]), "validation must be a torch Dataset"),
    ],
)
def test_anything_else_is_refused(data: object, message: str):
    with pytest.raises(DataError, match=message):
        splits_from(data)


def test_user_functions_get_their_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_data_module.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\nnumber = 3\n"
        "def make(path, n=4):\n"
        "    data = TensorDataset(torch.zeros(n, 2), torch.zeros(n).long())\n"
        "    assert path.is_dir()\n"
        "    return {'train': data, 'validation': data}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    splits = load_data("my_data_module:make", path=tmp_path, arguments={"n": 7})
    assert (len(splits.train), splits.name) == (7, "my_data_module:make")
    with pytest.raises(ConfigError, match="no argument 'm'; its arguments are path, n"):
        load_data("my_data_module:make", path=tmp_path, arguments={"m": 7})
    with pytest.raises(ConfigError, match="must be a function"):
        load_data("my_data_module:number")


def test_misspelt_names_and_arguments_get_a_suggestion():
    with pytest.raises(RegistryError, match="Did you mean 'digits'"):
        load_data("digit")
    with pytest.raises(ConfigError, match="no argument 'path'; it has no arguments"):
        load_data("digits", path=Path())
    with pytest.raises(ConfigError, match="Did you mean 'train_limit'"):
        load_data("cifar10", arguments={"train_limits": 3})
