"""Whole runs on networks that can only be cut as their traced graph."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_nets import OneByOne, ShuffleNet, VisionTransformer
from tiny import pictures, same_weights
from torch import Tensor, nn

import autoprune
from autoprune.engines import local
from autoprune.errors import ConfigError, RunError, SpaceError
from autoprune.export.architecture import PYTHON_MODEL
from autoprune.space.cutting.graph_form import GraphNetwork

EXAMPLE = torch.zeros(1, 1, 8, 8)
IMAGES = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def made(kind: type[nn.Module], seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind()


def searched(run_dir: Path, model: nn.Module, example: Any = EXAMPLE, **changes: Any) -> autoprune.SearchResult:
    given: dict[str, Any] = {
        "constraints": {"flops": "60%"},
        "data": (pictures(64, 0), pictures(48, 1), pictures(48, 2)),
        "training": {"epochs": 2, "batch_size": 16, "lr": 0.05},
        "trials": 2,
        "controller": "random",
        "verdict": {"seeds": 1, "fine_tune_epochs": 1, "random_candidates": 1},
        "device": "cpu",
        "run_dir": run_dir,
        "progress": "silent",
    }
    return autoprune.search(model, example, **(given | changes))


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    transformer: VisionTransformer = made(VisionTransformer)
    transformer.blocks[0].eval()
    return transformer


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, model: VisionTransformer) -> autoprune.SearchResult:
    return searched(tmp_path_factory.mktemp("runs") / "run", model, trained=False)


def test_a_transformer_is_searched_to_its_verdict(result: autoprune.SearchResult, model: VisionTransformer) -> None:
    space = result.space
    assert space.search_space.form == "graph"
    assert {group.kind for group in space.groups} == {"channels", "heads"}
    assert result.verdict is not None
    assert space.cost(result.widths)["flops"] <= 0.6 * space.cost(space.full)["flops"]
    assert not model.blocks[0].training
    assert model.blocks[1].training
    assert same_weights(model, made(VisionTransformer))


def test_the_loaded_network_is_the_one_that_was_found(result: autoprune.SearchResult, tmp_path: Path) -> None:
    loaded = autoprune.load(result.save(tmp_path / "network"), model=made(VisionTransformer, seed=1))
    assert isinstance(loaded, GraphNetwork)
    assert not loaded.training
    assert torch.equal(loaded(IMAGES), result.model(IMAGES))
    kept = sum(parameter.numel() for parameter in loaded.parameters())
    assert kept == result.space.cost(result.widths)["params"]
    first = next(final for final in result.record.finals if final.arm == "winner")
    images, labels = (torch.stack(column) for column in zip(*pictures(48, 2), strict=True))
    assert 100 * float((loaded(images).argmax(1) == labels).float().mean()) == pytest.approx(first.score)


def test_the_loaded_network_still_trains(result: autoprune.SearchResult) -> None:
    network = autoprune.load(result.directory / "export", model=made(VisionTransformer)).train()
    before = [buffer.clone() for buffer in network.buffers()]
    assert not torch.equal(network(IMAGES), network(IMAGES)), "dropout is on"
    network(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert not all(map(torch.equal, network.buffers(), before)), "batch norm keeps statistics"


def test_the_run_and_a_new_trace_cut_the_same_network(result: autoprune.SearchResult) -> None:
    other = made(VisionTransformer, seed=2).eval()
    traced = autoprune.trace(made(VisionTransformer), EXAMPLE)
    cuts = [space.slice(other, result.widths) for space in (result.space, traced)]
    assert torch.equal(cuts[0](IMAGES), cuts[1](IMAGES))
    whole = traced.slice(other, traced.full)
    torch.testing.assert_close(whole(IMAGES), other(IMAGES))
    with pytest.raises(SpaceError, match="in the network that was traced"):
        traced.slice(VisionTransformer(dim=8), traced.full)


def test_a_killed_run_goes_on(
    result: autoprune.SearchResult, model: VisionTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(result.directory, tmp_path / "run")
    (copy / "result.json").unlink()
    monkeypatch.setattr(local, "evaluate", lambda *_, **__: pytest.fail("evaluated again"))
    again = searched(copy, model, trained=False, resume=True)
    assert again.widths == result.widths
    assert again.record.verdict == result.record.verdict
    assert torch.equal(again.model(IMAGES), result.model(IMAGES))
    with pytest.raises(RunError, match=r"resumed: model code of the run and"):
        searched(copy, made(Rectified), trained=False, resume=True)


class Rectified(VisionTransformer):
    """The same tensors, other code."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Wider(VisionTransformer):
    def __init__(self) -> None:
        super().__init__(dim=32)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (Rectified, RunError, r"traced to another graph than the network that was searched \(with torch .*restore"),
        (Wider, SpaceError, "in the network that was traced"),
    ],
)
def test_another_network_is_refused_at_loading(
    result: autoprune.SearchResult, kind: type[nn.Module], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        autoprune.load(result.directory / "export", model=made(kind))


@pytest.mark.parametrize(
    "origin", [None, {}, {"fingerprint": "x"}, {"fingerprint": "x", "example": {"tensor": [1], "dtype": "no"}}, 3]
)
def test_a_graph_without_its_origin_is_one_clear_error(
    result: autoprune.SearchResult, tmp_path: Path, origin: object
) -> None:
    folder = result.save(tmp_path / "network")
    space = json.loads((folder / "space.json").read_text())
    (folder / "space.json").write_text(json.dumps(space | {"origin": origin}))
    with pytest.raises(SpaceError, match="does not say what its graph was traced from"):
        autoprune.load(folder, model=made(VisionTransformer))


def brightness(call: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[nn.Module], float]:
    """A score: how well the first output follows the brightness of an image."""

    def score(network: nn.Module) -> float:
        with torch.no_grad():
            return -float((call(network, IMAGES)[:, 0] - IMAGES.mean((1, 2, 3))).square().mean())

    return score


@pytest.mark.parametrize(
    ("kind", "example", "call"),
    [
        (ShuffleNet, EXAMPLE, lambda network, x: network(x)),
        (VisionTransformer, {"x": EXAMPLE}, lambda network, x: network(x=x)),
    ],
)
def test_a_score_function_is_enough(
    kind: type[nn.Module], example: Any, call: Callable[[nn.Module, Tensor], Tensor], tmp_path: Path
) -> None:
    full = made(kind)
    score = brightness(call)
    result = searched(tmp_path / "run", full, example, data=None, score_func=score, verdict=None)
    assert result.space.search_space.form == "graph"
    loaded = autoprune.load(result.directory / "export", model=full)
    assert torch.equal(call(loaded, IMAGES), call(result.model, IMAGES))
    assert score(loaded) in {trial.score for trial in result.trials}


def test_a_network_with_a_factory_is_loaded_from_its_folder_alone(
    result: autoprune.SearchResult, tmp_path: Path
) -> None:
    folder = result.save(tmp_path / "network")
    text = (folder / "architecture.yaml").read_text()
    (folder / "architecture.yaml").write_text(text.replace(PYTHON_MODEL, "graph_nets:VisionTransformer"))
    before = torch.get_rng_state()
    assert torch.equal(autoprune.load(folder, packages=["graph_nets"])(IMAGES), result.model(IMAGES))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_graph_for_one_batch_size_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"only be cut as its traced graph.*batch of 16 .*Let forward take the batch"):
        searched(tmp_path / "run", made(OneByOne))
    assert not any(tmp_path.iterdir())
