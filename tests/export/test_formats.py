"""The formats on whole networks, and where autoprune is not installed."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from composed_parts import Reversal
from graph_nets import OneByOne, ShuffleNet, VisionTransformer
from reconstruction.vit import SmallViT
from run_alone import run_alone
from torch import Tensor, nn

from autoprune.export.base import ExportSource
from autoprune.export.inputs import describe
from autoprune.export.module import PlainModule
from autoprune.export.writing import exporters, write_formats
from autoprune.randomness import seeded
from autoprune.testing.exporters import cut_at_random, words
from autoprune.zoo import ZOO, build_model

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
FORMATS = ["torch_export", "module", *(["onnx"] if ONNX else [])]
LONG = ("densenet40", "mobilenetv2", "resnet110", "preresnet164", "resnet56", "vgg19")


class Block(nn.Module):
    """Of ConvNeXt: depthwise 7x7, layer norm over channels, a perceptron, a scale per channel, a shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm, self.widen, self.narrow = nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(nn.functional.gelu(self.widen(y)))
        return x + y.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class ConvNeXt(nn.Module):
    """Two stages of ConvNeXt on 3 x 16 x 16 images (Liu et al. 2022, arXiv 2201.03545)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 4, 4), Block(8)
        self.down, self.second = nn.Conv2d(8, 16, 2, 2), Block(16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.down(self.first(self.stem(x))))
        return self.head(self.norm(x.mean((2, 3))))  # type: ignore[no-any-return]


NETWORKS: dict[str, Any] = {
    "convnext": (ConvNeXt, (1, 3, 16, 16)),
    "vit": (lambda: SmallViT(3, 16, dim=16, depth=2), (1, 3, 16, 16)),
    "vit as a graph": (VisionTransformer, (1, 1, 8, 8)),
    "shuffle as a graph": (ShuffleNet, (1, 1, 8, 8)),
    **{
        name: (lambda name=name: build_model(name, {"width": 0.25}), (1, 3, 32, 32))
        for name in ZOO.names()
        if name != "char_llama"  # reads tokens
    },
}


@cache
def cut(name: str) -> ExportSource:
    build, shape = NETWORKS[name]
    with seeded(1):
        return cut_at_random(build(), torch.randn(shape), seed=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[str]]]:
    """Writes a network in every format, once; returns the folder and what was said."""

    @cache
    def write(name: str) -> tuple[Path, list[str]]:
        said: list[str] = []
        place = tmp_path_factory.mktemp("exports") / "net"
        return write_formats(cut(name), exporters(FORMATS), place, note=said.append), said

    return write


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in NETWORKS])
def test_networks_cut_at_random_compute_the_same_in_every_format(name: str, written: Any) -> None:
    _, said = written(name)
    assert len(said) == len(FORMATS)
    assert all("outputs are PyTorch's to" in line and "only the batch size" not in line for line in said)


def test_where_autoprune_is_not_installed_the_networks_run_as_before(written: Any) -> None:
    names = ("resnet20", "convnext", "vit as a graph", "shuffle as a graph")
    exports = {written(name)[0]: cut(name) for name in names}
    assert all("autoprune." not in (folder / "module" / "model.py").read_text() for folder in exports)
    assert run_alone(exports) == f"{len(names) * len(FORMATS)} runs alone"


class Odd(nn.Module):
    """Lists and numbers in, nested outputs, a region without gradients, tied weights, a recurrence, a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.mix = nn.Linear(4, 6), nn.Linear(4, 6), nn.GRU(6, 6, batch_first=True)
        self.two.weight = self.one.weight
        self.back = nn.ConvTranspose1d(6, 6, 3, groups=2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, parts: list[Tensor], add: float, add_1: Tensor, deep: bool = True) -> Any:
        self.get_buffer("calls").add_(1)
        with torch.no_grad():
            bias = add_1.mean(-1, keepdim=True) + torch.arange(2, device=add_1.device)
        a = self.one(parts[0]) + self.two(parts[1]) + add
        b, _ = self.mix(a[:, None].expand(-1, 5, -1))
        c = self.back(b.transpose(1, 2)) if deep else b
        return {"first": (a, None), "rest": [Reversal.apply(c), bias]}


def test_all_kinds_of_inputs_and_outputs_are_taken(tmp_path: Path) -> None:
    with seeded(0):
        network = Odd().eval()
        parts = [torch.randn(2, 4), torch.randn(2, 4)]
    example = {"add_1": torch.randn(2, 3), "deep": True, "parts": parts, "add": 0.5}
    source = ExportSource({}, {}, network.state_dict(), lambda: network, lambda: describe(example))
    folder = write_formats(source, exporters(FORMATS), tmp_path / "net")
    written = PlainModule().read(folder)
    with torch.no_grad():
        given, expected = (call(**example) for call in (written, network))
    assert torch.equal(given["first"][0], expected["first"][0])
    assert given["first"][1] is None
    assert all(map(torch.equal, given["rest"], expected["rest"]))
    with pytest.raises(ValueError, match=r"add is 0\.25; this graph was made for 0\.5"):
        written(**example | {"add": 0.25})
    with pytest.raises(ValueError, match=r"parts\[1\] is of shape \(2, 5\); this graph takes \(any, 4\)"):
        written(**example | {"parts": [parts[0], torch.zeros(2, 5)]})


def test_a_written_module_can_be_trained_on(tmp_path: Path) -> None:
    folder = write_formats(cut("convnext"), exporters(["module"]), tmp_path / "net")
    network: Any = PlainModule().read(folder)
    assert network.state_dict().keys() == cut("convnext").weights.keys()
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    known = copy.deepcopy(cut("convnext").network)
    for one in (known, network):
        one(x).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in known.named_parameters()}
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_a_graph_with_inputs_by_name_takes_any_batch_also_that_of_the_example(tmp_path: Path) -> None:
    said: list[str] = []
    with seeded(0):
        source = cut_at_random(*words())
    assert (source.architecture["form"], source.inputs["mapping"]["tokens"]["tensor"]) == ("graph", [2, 6])
    write_formats(source, exporters(FORMATS), tmp_path / "net", note=said.append)
    assert not any("only the batch size" in line for line in said)


def test_a_graph_that_takes_one_batch_size_is_written_for_it(tmp_path: Path) -> None:
    said: list[str] = []
    source = cut_at_random(OneByOne(), torch.randn(1, 1, 8, 8))
    write_formats(source, exporters(FORMATS), tmp_path / "net", note=said.append)
    assert all("takes only the batch size of the example input" in line for line in said)


def test_double_precision_stays(tmp_path: Path) -> None:
    network = ConvNeXt().double()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    source = ExportSource({}, {}, network.state_dict(), lambda: network, lambda: describe(x))
    folder = write_formats(source, exporters(["module"]), tmp_path / "net")
    assert "torch.float64" in (folder / "module" / "model.py").read_text()
