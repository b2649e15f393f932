"""What travels to workers is read there by a process that knows none of the files it came from."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny import Convolutions, X, closeness, perceptron, pictures, same_weights
from torch import nn

import autoprune
from autoprune.data import splits_from
from autoprune.data.unlabelled import unlabelled_splits
from autoprune.engines.base import WorkerSetup
from autoprune.errors import ConfigError
from autoprune.evaluators.candidates import CandidateFactory, OtherStart
from autoprune.evaluators.making import make_evaluator
from autoprune.importance.members import rank_channels
from autoprune.measures.divergence import Divergence
from autoprune.tasks.base import Task
from autoprune.tasks.callable import CallableTask
from autoprune.tasks.classification import ClassificationTask
from autoprune.tasks.unlabelled import UnlabelledTask
from autoprune.training.protocols import reinitialise
from autoprune.training.recipe import Recipe

pytest.importorskip("ray")

from autoprune.engines.ray.packing import pack, pack_setup, unpack

IMAGES = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
_WORKER = """
import sys
from pathlib import Path
from autoprune.engines.ray.packing import unpack_setup
for packed in sys.argv[1:]:
    setup = unpack_setup(Path(packed).read_bytes(), "cpu")
    evaluator, space = setup.evaluator(setup.factory), setup.factory.space
    print(*[float(evaluator.evaluate(space.uniform(ratio), seed=1, full=True)).hex() for ratio in (1.0, 0.5, 0.3)])
"""


def scores_here(place: WorkerSetup) -> list[float]:
    evaluator = place.evaluator(place.factory)
    return [
        float(evaluator.evaluate(place.factory.space.uniform(ratio), seed=1, full=True)) for ratio in (1.0, 0.5, 0.3)
    ]


def scores_elsewhere(places: list[WorkerSetup], folder: Path) -> list[list[float]]:
    """Scores as another process computes them, one whose path holds installed packages only."""
    for number, place in enumerate(places):
        (folder / f"packed-{number}").write_bytes(pack_setup(place))
    command = [sys.executable, "-c", _WORKER, *(str(folder / f"packed-{number}") for number in range(len(places)))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(autoprune.__file__).parents[1], check=False)
    assert done.returncode == 0, done.stderr
    return [[float.fromhex(score) for score in line.split()] for line in done.stdout.splitlines()]


def setup(model: nn.Module, example: torch.Tensor, task: Task, folder: Path) -> WorkerSetup:
    space = autoprune.trace(model, example, verify=type(model).__name__ == "VisionTransformer")  # finds the form
    network = space._in_form(model).eval()
    factory = CandidateFactory(network, space.search_space, rank_channels(network, space.search_space, "l2"), task, 1)
    return WorkerSetup(factory, functools.partial(make_evaluator, "inherited", settings={}), "short", 1, folder)


def brightness(model: nn.Module) -> float:
    """A score that shows every bit of the outputs."""
    with torch.no_grad():
        return float(model(IMAGES).double().square().sum())


def classification() -> ClassificationTask:
    splits = splits_from((pictures(64, 0), pictures(64, 1)))
    return ClassificationTask(splits, Recipe(epochs=1, batch_size=16), device=torch.device("cpu"))


def test_a_task_that_compares_with_the_base_network_does_so_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    networks = [Convolutions(classes=4), graph_nets(monkeypatch).VisionTransformer()]
    data = unlabelled_splits(IMAGES)
    tasks = [UnlabelledTask(data, Divergence(kind="kl"), device=torch.device("cpu"), batch_size=8) for _ in networks]
    places = [setup(network, IMAGES[:1], task, tmp_path) for network, task in zip(networks, tasks, strict=True)]
    here = [scores_here(place) for place in places]
    assert all(len(set(scores)) > 1 for scores in here)
    sent = [len(pack(place.factory, "it")) for place in places]
    fresh = [len(pack(setup(n, IMAGES[:1], t, tmp_path).factory, "it")) for n, t in zip(networks, tasks, strict=True)]
    assert sent == pytest.approx(fresh, rel=0.01), "what was computed travels along"
    assert scores_elsewhere(places, tmp_path) == here


def written_module(folder: Path) -> ModuleType:
    """A module that is loaded from a file outside every path."""
    file = folder / "own_network.py"
    file.write_text(
        "import torch\n"
        "from torch import nn\n"
        "SCALE = 0.5\n"
        "class Own(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.first, self.second = nn.Conv2d(1, 6, 3), nn.Linear(6, 4)\n"
        "    def forward(self, x):\n"
        "        return self.second(SCALE * torch.relu(self.first(x)).mean((2, 3)))\n"
    )
    spec = importlib.util.spec_from_file_location("own_network", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def graph_nets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "helpers"))
    return importlib.import_module("graph_nets")


def test_networks_and_functions_that_workers_cannot_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = written_module(tmp_path)
    monkeypatch.setitem(sys.modules, "own_network", module)
    by_own_function = CallableTask(brightness, data=[IMAGES], device=torch.device("cpu"))
    torch.manual_seed(0)
    places = [
        setup(module.Own(), IMAGES[:1], by_own_function, tmp_path),
        setup(graph_nets(monkeypatch).VisionTransformer(), IMAGES[:1], by_own_function, tmp_path),
        setup(perceptron(), X[:1], CallableTask(closeness, device=torch.device("cpu")), tmp_path),
        setup(Convolutions(classes=4), IMAGES[:1], classification(), tmp_path),
    ]
    assert [place.factory.space.form for place in places] == ["module", "graph", "module", "module"]
    here = [scores_here(place) for place in places]
    assert all(len(set(scores)) > 1 for scores in here[:3])
    assert scores_elsewhere(places, tmp_path) == here


def test_a_graph_trains_as_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout and batch norm of the graph that has arrived follow its training flag."""
    torch.manual_seed(0)
    place = setup(graph_nets(monkeypatch).VisionTransformer(), IMAGES[:1], classification(), tmp_path)
    cut = place.factory.space.uniform(0.5)
    scores = []
    for factory in (place.factory, unpack(pack(place.factory, "it"))):
        network = factory.candidate(cut)
        factory.task.train(network, epochs=1, seed=3)
        scores.append(network.state_dict())
    assert all(torch.equal(scores[0][name], scores[1][name]) for name in scores[0])


class Negated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return -grads[0]


class Reversed(nn.Module):
    """Gradients that are turned round, and some that are stopped, around a view with a channel count in it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 6, 3), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = Negated.apply(self.first(x)).view(-1, 6, 36)
        with torch.no_grad():
            scale = y.abs().mean(2)
        out: torch.Tensor = self.last(y.mean(2) * scale)
        return out


def test_gradients_of_a_graph_that_has_arrived_are_those_of_before() -> None:
    torch.manual_seed(0)
    network = autoprune.trace(Reversed(), IMAGES[:1])._in_form(model := Reversed())
    assert type(network).__name__ == "GraphNetwork"
    gradients = []
    for one in (model, unpack(pack(network, "it"))):
        one(IMAGES).sum().backward()
        gradients.append(one.first.weight.grad)
    assert gradients[0].abs().max() > 0
    assert torch.allclose(gradients[0], gradients[1])


class Beginning(Reversed):
    def __init__(self) -> None:
        super().__init__()
        self.level = 0.25

    def reset_parameters(self) -> None:
        nn.init.constant_(self.first.weight, self.level)


def test_a_graph_that_has_arrived_begins_anew_as_its_class_says() -> None:
    network = unpack(pack(autoprune.trace(Beginning(), IMAGES[:1])._in_form(Beginning()), "it"))
    assert type(network).__name__ == "GraphNetwork"
    reinitialise(network, seed=0)
    assert network.first.weight.eq(0.25).all()


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(ConfigError, match=r"the score function cannot be sent to workers: TypeError: .*lock"):
        pack({"lock": threading.Lock()}, "the score function")


def test_other_weights_that_candidates_start_from_travel_too() -> None:
    network = perceptron()
    space = autoprune.trace(network, X[:1]).search_space
    ranking = rank_channels(network, space, "l2")
    other = perceptron()
    with torch.no_grad():
        other.first.weight.mul_(2)
    task = CallableTask(closeness, device=torch.device("cpu"))
    factory = CandidateFactory(
        network, space, ranking, task, 1, inherit=(), final_inherit=(), starts={"bar": OtherStart(other, ranking)}
    )
    arrived = unpack(pack(factory, "it"))
    for name in ("", "bar"):
        one, there = (made.starting_from(name).candidate(space.uniform(0.5)) for made in (factory, arrived))
        assert same_weights(one, there)
    assert (arrived.inherit, arrived.final_inherit, arrived.batches) == ((), (), None)
