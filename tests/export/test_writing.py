from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune import registry
from autoprune.errors import ConfigError, ExportError, RegistryError, RunError
from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.export.checking import difference
from autoprune.export.inputs import batch_size, describe, drawn
from autoprune.export.writing import exporters, write_formats
from autoprune.testing.exporters import cut_at_random, images


class Wrong(Exporter):
    """Writes a network whose outputs are off by a share."""

    def __init__(self, *, by: float = 0.0) -> None:
        self.by, self.network = by, nn.Module()

    def write(self, source: ExportSource, folder: Path) -> WrittenFiles:
        self.network = source.network
        (folder / "model.bin").write_bytes(b"weights")
        return WrittenFiles((folder / "model.bin",))

    def read(self, folder: Path) -> Callable[..., Any]:
        assert (folder / "model.bin").read_bytes() == b"weights"
        return lambda x: self.network(x) * (1 + self.by)


class Failing(Exporter):
    """Fails half way."""

    def write(self, source: ExportSource, folder: Path) -> WrittenFiles:
        (folder / "half.bin").write_bytes(b"half")
        raise ExportError("no disk")


class Unreadable(Wrong):
    """Cannot be read back."""

    def read(self, folder: Path) -> Callable[..., Any]:
        raise ValueError("another format")


@pytest.fixture(scope="module")
def source() -> ExportSource:
    return cut_at_random(*images())


def test_what_computes_the_same_appears_and_what_does_not_leaves_nothing(source: ExportSource, tmp_path: Path) -> None:
    said: list[str] = []
    place = write_formats(source, {"mine": Wrong(by=2e-5)}, tmp_path / "new" / "net", note=said.append)
    assert [path.name for path in place.iterdir()] == ["model.bin"]
    assert said == ["mine: model.bin; outputs are PyTorch's to 2e-05 of the largest"]
    with pytest.raises(ExportError, match=r"written as mine differs from the one that was searched by 0\.001 of"):
        write_formats(source, {"mine": Wrong(by=1e-3)}, tmp_path / "off")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("exporter", "error", "message"),
    [
        (Failing(), ExportError, "no disk"),
        (Unreadable(), ExportError, "cannot be read back: ValueError: another format"),
    ],
)
def test_a_format_that_fails_takes_all_others_with_it(
    source: ExportSource, tmp_path: Path, exporter: Exporter, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_formats(source, {**exporters(["safetensors"]), "bad": exporter}, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_any_other_is_refused(source: ExportSource, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    write_formats(source, {"mine": Wrong()}, tmp_path / "net")
    with pytest.raises(RunError, match="net is not empty; give a new folder"):
        write_formats(source, {"mine": Wrong()}, tmp_path / "net")
    with pytest.raises(RunError, match=r"model\.bin is not empty"):
        write_formats(source, {"mine": Wrong()}, tmp_path / "net" / "model.bin")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["model.bin", "net"]


def test_two_formats_with_one_file_are_refused(source: ExportSource, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"the format second writes model\.bin, and so does another one"):
        write_formats(source, {"first": Wrong(), "second": Wrong()}, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["onxx"], RegistryError, "unknown exporter 'onxx'; choose one of safetensors, .*Did you mean 'onnx'"),
        ([], ConfigError, r"formats is \[\]; give a list of safetensors"),
        ("onnx", ConfigError, "formats is 'onnx'; give a list of safetensors"),
        (["module", "module"], ConfigError, "the format 'module' is given twice"),
        ([{"name": "onnx", "settings": {"opsett": 18}}], ConfigError, "no setting 'opsett'; its settings are opset"),
        (
            [{"name": "onnx", "settings": {"opset": 0}}],
            ConfigError,
            "opset must be a whole number of at least 1, got 0",
        ),
        (["builtins:dict"], ConfigError, "the exporter 'builtins:dict' is a dict; it must be a subclass of"),
    ],
)
def test_formats_that_cannot_be_are_one_clear_error(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        exporters(given)


def test_an_exporter_of_another_package_is_found_by_its_name(
    source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = EntryPoints([EntryPoint("mine", f"{__name__}:Wrong", "autoprune.exporters")])
    monkeypatch.setattr(registry, "entry_points", lambda **_: points)
    made = exporters(["safetensors", {"name": "mine", "settings": {"by": 1e-5}}])
    write_formats(source, made, tmp_path / "net")
    assert (tmp_path / "net" / "model.bin").is_file()


def test_a_missing_package_is_named_with_how_to_install_it(
    source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxscript":
            raise ModuleNotFoundError("No module named 'onnxscript'")
        return object() if name.startswith("onnx") else found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ExportError, match=r"needs the package onnxscript, .*pip install 'autoprune\[onnx\]'"):
        write_formats(source, exporters(["onnx"]), tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_differences_are_shares_of_the_largest_output() -> None:
    one = torch.tensor([100.0, -200.0, 0.0])
    assert difference([one], [one + 0.02]) == pytest.approx(1e-4, rel=1e-3)
    assert difference([one], [one.clone()]) == 0.0
    assert difference([one * 1e-4], [one * 1e-4 * 1.01]) == pytest.approx(0.01, rel=1e-3)
    assert difference([one], [one[:2]]) == difference([one], [one, one]) == np.inf
    holes = torch.tensor([1.0, torch.nan, torch.inf])
    assert difference([holes], [holes.clone()]) == 0.0
    assert difference([holes], [torch.tensor([1.0, 2.0, torch.inf])]) == np.inf
    assert difference([holes], [torch.tensor([1.0, torch.nan, 5.0])]) == np.inf
    assert difference([], []) == 0.0


def test_inputs_are_drawn_as_the_example_was() -> None:
    example = ({"ids": torch.tensor([[3, 7], [4, 5]]), "flag": True}, [torch.zeros(2, 3, dtype=torch.float64), None])
    described = describe(example)
    assert batch_size(described) == 2
    drawn_dict, (numbers, nothing) = drawn(described, seed=0, batch=50)  # type: ignore[misc]
    assert (drawn_dict["flag"], nothing) == (True, None)
    assert drawn_dict["ids"].shape == (50, 2)
    assert (int(drawn_dict["ids"].min()), int(drawn_dict["ids"].max())) == (3, 7)
    assert (numbers.shape, numbers.dtype) == ((50, 3), torch.float64)
    again: Any = drawn(described, seed=0, batch=50)
    assert torch.equal(again[0]["ids"], drawn_dict["ids"])
    with pytest.raises(ExportError, match="holds a set: give tensors, numbers"):
        describe(({1, 2},))
    with pytest.raises(ExportError, match="is damaged"):
        drawn({"tensor": [1], "dtype": "float"}, seed=0) and drawn({"tensr": [1]}, seed=0)


class Cond(nn.Module):
    """Branches on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        turned: Tensor = torch.cond(x.sum() > 0, torch.neg, torch.sin, (x,))
        return self.layer(turned)  # type: ignore[no-any-return]


class Decides(Cond):
    """Decides by Python on a value."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x if x.sum() > 0 else -x)  # type: ignore[no-any-return]


def source_of(network: nn.Module, example: Any) -> ExportSource:
    return ExportSource({}, {}, network.state_dict(), lambda: network, lambda: describe(example))


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (Cond(), "module", "no form as plain code .*; take torch_export"),
        (Decides(), "module", "torch.export refuses this Decides"),
        (Decides(), "torch_export", "torch.export refuses this Decides"),
    ],
)
def test_networks_that_have_no_such_form_are_one_clear_error(
    network: nn.Module, name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        write_formats(source_of(network, torch.zeros(2, 4)), exporters([name]), tmp_path / "net")
    assert list(tmp_path.iterdir()) == []
