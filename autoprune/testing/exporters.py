"""The contract of every exporter, as a test class: subclass it and give it the exporter.

class TestMine(ExporterContract):
    @pytest.fixture
    def exporter(self) -> Exporter:
        return Mine()
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.api.space import trace
from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.export.checking import TOLERANCE, difference
from autoprune.export.inputs import describe, drawn, tensors_of
from autoprune.export.writing import write_formats
from autoprune.importance.members import rank_channels
from autoprune.randomness import seeded
from autoprune.space.serial import to_json
from autoprune.space.tracing.program import Example, call_arguments
from autoprune.testing.generators import global_generators


class Images(nn.Module):
    """Convolutions with norms, one of them depthwise, and a sum; keeps its class when it is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.deep = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to (N, 5)."""
        x = torch.relu(self.norm(self.stem(x)))
        x = nn.functional.dropout(x + self.deep(x), 0.5, self.training)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Words(nn.Module):
    """Takes token numbers and a mask by name, gives two outputs by name; its forward has sizes written down."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(16, 3)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 16), persistent=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Map (N, 6) and (N, 6) to logits (N, 3) and norms (N, 6)."""
        states = torch.tanh(self.mix(self.table(tokens))).view(tokens.shape[0], 6, 16)
        states = states * self.get_buffer("scale") * mask[..., None]
        return {"logits": self.head(states.mean(1)), "norms": states.norm(dim=2)}


def images() -> tuple[nn.Module, Example]:
    """A network of module form with its example."""
    return Images(), torch.randn(1, 3, 8, 8)


def words() -> tuple[nn.Module, Example]:
    """A network of graph form with its example, which is given by name."""
    return Words(), {"mask": torch.ones(2, 6), "tokens": torch.arange(12).reshape(2, 6)}


def cut_at_random(model: nn.Module, example: Example, *, seed: int = 0) -> ExportSource:
    """What an exporter is given of a network that is cut to random widths, with norms that have seen data.

    Parameters that begin as constants (scales, biases, heads of zeros) are drawn anew: a part that adds nothing to the
    outputs could be written wrong and nobody would see it.

    Args:
        model: the full network; its weights and running statistics are changed.
        example: what it is called with.
        seed: of the widths.
    """
    with seeded(seed):
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point() and parameter.min() == parameter.max():
                    parameter.normal_(0.5, 0.2)
    space = trace(model, example)
    found, rng = space.search_space, np.random.default_rng(seed)
    widths = tuple(int(rng.choice(group.choices)) for group in found.groups)
    network = space.slice(model, widths, criterion="random", seed=seed)
    architecture = {
        "format": 1,
        "model": {"factory": f"{type(model).__module__}:{type(model).__name__}", "arguments": {}},
        "widths": {g.name: {"kept": w, "of": g.width} for g, w in zip(found.groups, widths, strict=True)},
        "form": found.form,
        "verdict": None,
    }
    ranking = rank_channels(model, found, "random", seed=seed)
    held = to_json(found) | {"ranking": [ranks.tolist() for ranks in ranking]}
    return ExportSource(architecture, held, network.state_dict(), lambda: network, lambda: describe(example))


class ExporterContract:
    """Laws that hold for every exporter; the subclass provides the fixture `exporter`."""

    @pytest.fixture
    def exporter(self) -> Exporter:
        """Return the exporter under test."""
        raise NotImplementedError("override the fixture `exporter`: it returns an Exporter")

    @pytest.fixture(params=[images, words], ids=["own class", "graph"])
    def source(self, request: pytest.FixtureRequest) -> ExportSource:
        """Return a cut network: one of its own class, one that runs as its graph."""
        return _source(request.param)

    @pytest.fixture
    def written(self, exporter: Exporter, source: ExportSource, tmp_path: Path) -> WrittenFiles:
        """Return what is written below tmp_path."""
        return exporter.write(source, tmp_path)

    def test_it_says_which_files_it_wrote(self, written: WrittenFiles, tmp_path: Path) -> None:
        assert set(written.files) == {path for path in tmp_path.rglob("*") if path.is_file()}
        assert len(written.files) == len(set(written.files)) > 0
        assert all(path.stat().st_size > 0 for path in written.files)

    def test_what_is_written_computes_what_the_network_does(
        self, exporter: Exporter, source: ExportSource, written: WrittenFiles, tmp_path: Path
    ) -> None:
        call = exporter.read(tmp_path)
        if call is None:
            pytest.skip("cannot be run here")
        for seed, batch in enumerate((None, 1, 2, 7) if written.any_batch else (None,)):
            args, kwargs = call_arguments(drawn(source.inputs, seed=seed, batch=batch))
            assert difference(outputs(source.network, args, kwargs), outputs(call, args, kwargs)) <= TOLERANCE

    def test_inputs_by_name_may_come_in_another_order(
        self, exporter: Exporter, source: ExportSource, written: WrittenFiles, tmp_path: Path
    ) -> None:
        args, kwargs = call_arguments(drawn(source.inputs, seed=3))
        call = exporter.read(tmp_path)
        if call is None or not kwargs:
            pytest.skip("cannot be run here, or takes its inputs by position")
        turned = dict(reversed(kwargs.items()))
        assert difference(outputs(source.network, args, kwargs), outputs(call, args, turned)) <= TOLERANCE

    def test_the_network_and_the_random_state_are_left_alone(
        self, exporter: Exporter, source: ExportSource, tmp_path: Path
    ) -> None:
        network = source.build().train()
        before, generators = copy.deepcopy(network.state_dict()), global_generators()
        weights = {name: tensor.clone() for name, tensor in source.weights.items()}
        write_formats(source, {"it": exporter}, tmp_path / "out")
        assert global_generators() == generators
        assert all(module.training for module in network.modules())
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
        assert all(torch.equal(weights[name], tensor) for name, tensor in source.weights.items())

    def test_writing_twice_gives_the_same_files(self, exporter: Exporter, source: ExportSource, tmp_path: Path) -> None:
        names = []
        for place in ("first", "second"):
            (tmp_path / place).mkdir()
            names.append({p.relative_to(tmp_path / place) for p in exporter.write(source, tmp_path / place).files})
        assert names[0] == names[1]


@cache
def _source(make: Callable[[], tuple[nn.Module, Example]]) -> ExportSource:
    with seeded(0):
        return cut_at_random(*make())


def outputs(call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The output tensors, without gradients."""
    with torch.no_grad():
        return tensors_of(call(*args, **kwargs))
