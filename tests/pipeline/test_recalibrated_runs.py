"""Whole runs with trainings too short for their running statistics."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from right_answers import share_right
from tiny import Convolutions, pictures
from torch import nn

import autoprune
from autoprune.data import splits_from
from autoprune.data.base import DataSplits
from autoprune.errors import ConfigError
from autoprune.zoo import load_weights

IMAGES = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def splits() -> DataSplits:
    return splits_from((pictures(160, 0), pictures(48, 1), pictures(300, 2)))


def searched(run_dir: Path, **changes: Any) -> autoprune.SearchResult:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Convolutions()
    given: dict[str, Any] = {
        "constraints": {"flops": "60%"},
        "data": splits(),
        "trained": False,
        "training": {"epochs": 1, "batch_size": 64, "lr": 0.1},
        "trials": 2,
        "controller": "random",
        "verdict": {"seeds": 1, "fine_tune_epochs": 1, "random_candidates": 1, "protocols": ["fine_tune", "scratch_e"]},
        "device": "cpu",
        "run_dir": run_dir,
        "progress": "silent",
    }
    return autoprune.search(model, torch.zeros(1, 1, 8, 8), **(given | changes))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def result(run_dir: Path) -> autoprune.SearchResult:
    return searched(run_dir)


def by_torch(network: nn.Module) -> nn.Module:
    """A copy, recalibrated by torch's own cumulative average, on the training data as they are stored."""
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    twin.train()
    with torch.no_grad():
        for inputs, _ in splits().train.batches(160):
            twin(inputs)
    return twin.eval()


def test_recalibrating_what_is_exported_changes_little(result: autoprune.SearchResult, run_dir: Path) -> None:
    with torch.no_grad():
        exported = autoprune.load(run_dir / "export", model=Convolutions()).eval()
        before, after = exported(IMAGES), by_torch(exported)(IMAGES)
    assert (before - after).norm() < 0.1 * after.norm()


def test_what_is_exported_is_the_network_that_was_scored(result: autoprune.SearchResult, run_dir: Path) -> None:
    first = result.record.finals[0]
    assert (first.arm, first.protocol) == ("winner", "fine_tune")
    test = splits().test
    assert test is not None
    assert share_right(autoprune.load(run_dir / "export", model=Convolutions()), test) == first.score


def test_every_arm_by_every_protocol_was_recalibrated_and_keeps_both_scores(result: autoprune.SearchResult) -> None:
    finals = result.record.finals
    assert len({(f.arm, f.protocol) for f in finals}) == 2 * len(result.record.arms)
    assert all(f.as_trained is not None and f.noise is not None and 0 < f.noise < 100 for f in finals)
    assert any(f.as_trained != f.score for f in finals)
    assert result.record.base["as_trained"] is not None


def test_the_base_network_is_recalibrated_before_candidates_inherit_from_it(
    result: autoprune.SearchResult, run_dir: Path
) -> None:
    base = Convolutions()
    load_weights(base, run_dir / "base.safetensors")
    with torch.no_grad():
        before, after = base.eval()(IMAGES), by_torch(base)(IMAGES)
    assert (before - after).norm() < 0.1 * after.norm()


def test_without_finals_the_export_is_the_network_that_the_search_scored(tmp_path: Path) -> None:
    evaluator = {"name": "inherited", "settings": {"calibration_batches": 1}}
    result = searched(tmp_path / "run", verdict={"seeds": 0}, evaluator=evaluator)
    network = autoprune.load(tmp_path / "run" / "export", model=Convolutions())
    assert share_right(network, splits().validation) == result.record.winner.search_score


def test_data_that_do_not_fit_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    def never(network: nn.Module, epochs: int, seed: int) -> None:
        raise AssertionError("trained")

    with pytest.raises(ConfigError, match=r"batch norms cannot be recalibrated on data.*leave data out"):
        searched(
            tmp_path / "run",
            data=[torch.zeros(4, 3, 8, 8)],
            score_func=lambda network: 0.0,
            train_func=never,
            training={"epochs": 1},
            evaluator={"name": "scratch", "settings": {"epochs": 1}},
        )
    assert not (tmp_path / "run").exists()
