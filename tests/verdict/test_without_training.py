"""Final networks that nothing trains: refitted on a draw for each seed, scored on test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from tiny import Convolutions, pictures
from torch import Tensor, nn

import autoprune
from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.importance.members import rank_channels
from autoprune.tasks.base import TaskInputs, make_task
from autoprune.training.integrity import Snapshot
from autoprune.verdict.finals import PlannedFinal, train_final

IMAGES = pictures(60, 0).tensors[0]
DATA = {"train": IMAGES[:40], "validation": IMAGES[40:50], "test": IMAGES[50:]}
CHAIN = ({"name": "least_squares", "settings": {"images": 8}},)


@pytest.fixture
def network() -> Convolutions:
    torch.manual_seed(0)
    return Convolutions(classes=4).eval()


@pytest.fixture
def factory(network: Convolutions) -> CandidateFactory:
    space = autoprune.trace(network, IMAGES[:1], verify=False).search_space
    given = TaskInputs(network, DATA, Recipe(batch_size=8), torch.device("cpu"))
    task = make_task("unlabelled", {}, given)
    ranking = rank_channels(network, space, "l2")
    return CandidateFactory(network, space, ranking, task, base_epochs=9, final_inherit=CHAIN)


def final(factory: CandidateFactory, seed: int) -> tuple[float, dict[str, Tensor]]:
    widths = factory.space.nearest([group.width / 2 for group in factory.space.groups])
    done = train_final(factory, PlannedFinal(widths, NamedPart(name="no_training"), seed, 5, 0.1, True))
    assert (done.epochs, done.as_trained) == (0, None)
    assert done.weights is not None
    return done.score, load(done.weights)


def test_each_seed_refits_on_a_draw_of_its_own_and_none_on_that_of_the_search(
    factory: CandidateFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Snapshot(factory.model)
    drawn: list[int] = []
    own = factory.task.calibration_inputs

    def noted(batches: int, *, seed: int) -> list[Tensor]:
        drawn.append(seed)
        return own(batches, seed=seed)

    factory = replace(factory)
    monkeypatch.setattr(factory.task, "calibration_inputs", noted)
    (one, first), (again, same), (other, second) = (final(factory, seed) for seed in (0, 0, 1))
    assert (one, first.keys()) == (again, second.keys())
    assert one != other
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert set(drawn) == {1, 2}
    assert before.changed() is None


def test_a_verdict_without_labels_has_an_interval(network: nn.Module, tmp_path: Path) -> None:
    result = autoprune.search(
        network,
        IMAGES[:1],
        constraints={"flops": "50%"},
        data=DATA,
        measure="divergence",
        inherit=CHAIN,
        trials=2,
        allocations=[],
        training={"batch_size": 8},
        verdict={"protocols": ["no_training"], "seeds": 3, "latency": False, "random_candidates": 1},
        callbacks=[],
        threads=1,
        run_dir=tmp_path / "run",
        progress="silent",
    )
    assert result.verdict is not None
    assert "without training, 3 seeds" in result.verdict.sentence
    finals = [one for one in result.record.finals if one.arm == "uniform_all"]
    assert {one.epochs for one in finals} == {0}
    assert len({one.score for one in finals}) == 3
