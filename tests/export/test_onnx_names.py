"""Names in ONNX graphs: those that forward has, each once."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ExportError
from autoprune.export.base import ExportSource
from autoprune.export.inputs import describe
from autoprune.export.onnx_names import distinct, name_of
from autoprune.export.torch_export import TorchExport
from autoprune.export.writing import exporters, write_formats
from autoprune.randomness import seeded

needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the packages of autoprune[onnx]",
)


class Scores(nn.Module):
    """A mapping among its inputs, whose place sounds like another input; a mapping among its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, batch: dict[str, Tensor], batch_x: Tensor) -> dict[str, Any]:
        logits = self.head(batch["x"]) + batch_x
        return {"logits": logits, "more": (logits.relu(), None, batch_x.exp())}


class Repeated(nn.Module):
    """Gives an input back, and one output twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        output = self.head(x)
        return x, output, output, output.argmax(1)


class Noisy(nn.Module):
    """Draws numbers, in evaluation mode as well."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) + torch.rand_like(x[:, :1])  # type: ignore[no-any-return]


class Largest(nn.Module):
    """Returns a class that torch cannot save."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(x).max(1)


def source(network: nn.Module, example: Any) -> ExportSource:
    network.eval()
    return ExportSource({}, {}, network.state_dict(), lambda: network, lambda: describe(example))


def written(network: nn.Module, example: Any, folder: Path) -> Any:
    """The graph that the package onnx reads."""
    write_formats(source(network, example), exporters(["onnx"]), folder)
    return importlib.import_module("onnx").load(str(folder / "model.onnx")).graph


def shown(values: Any) -> dict[str, list[str | int]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def test_a_name_that_is_taken_gets_a_number() -> None:
    assert name_of("batch['mask'][0]") == "batch_mask_0"
    assert distinct(["a", "b", "a", "a_2", "a"], taken=["b"]) == ["a", "b_2", "a_2", "a_2_2", "a_3"]


@needs_onnx
def test_inputs_and_outputs_have_the_names_of_forward_and_batch_is_free(tmp_path: Path) -> None:
    graph = written(Scores(), {"batch": {"x": torch.randn(2, 4)}, "batch_x": torch.randn(2, 3)}, tmp_path / "net")
    assert shown(graph.input) == {"batch_x": ["batch", 4], "batch_x_2": ["batch", 3]}
    assert list(shown(graph.output)) == ["logits", "more_0", "more_2"]
    assert all(sizes[0] == "batch" for sizes in shown(graph.output).values())


@needs_onnx
def test_outputs_that_are_inputs_or_come_twice_have_names_of_their_own(tmp_path: Path) -> None:
    graph = written(Repeated(), torch.randn(1, 4), tmp_path / "net")
    assert shown(graph.input) == {"x": ["batch", 4]}
    assert list(shown(graph.output)) == ["output_0", "output_1", "output_2", "output_3"]


@needs_onnx
def test_a_network_that_draws_numbers_is_told_from_one_that_was_written_wrong(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Noisy draws random numbers in evaluation mode, two calls of it differ by"):
        write_formats(source(Noisy(), torch.randn(1, 4)), exporters(["onnx"]), tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_formats_of_pytorch_draw_the_numbers_that_the_network_draws(tmp_path: Path) -> None:
    with seeded(0):
        given = source(Noisy(), torch.randn(1, 4))
    assert write_formats(given, exporters(["torch_export", "module"]), tmp_path / "net").is_dir()


def test_classes_among_the_outputs_become_tuples_so_that_pytorch_alone_loads_the_program(tmp_path: Path) -> None:
    with seeded(0):
        given, x = source(Largest(), torch.randn(1, 4)), torch.randn(3, 4)
    folder = write_formats(given, exporters(["torch_export", "module"]), tmp_path / "net")
    loaded = torch.export.load(folder / "model.pt2").module()(x)
    assert type(loaded) is tuple
    assert all(map(torch.equal, loaded, given.network(x)))


def test_what_torch_cannot_save_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*given: Any) -> None:
        raise NotImplementedError("no name for <class 'Pair'>")

    monkeypatch.setattr(torch.export, "save", refuses)
    with pytest.raises(ExportError, match=r"cannot save this Largest .*; take the format module or onnx, or let forw"):
        TorchExport().write(source(Largest(), torch.randn(1, 4)), tmp_path)
