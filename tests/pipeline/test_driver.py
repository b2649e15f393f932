from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Convolutions, Counting, Named, closeness, perceptron, pictures, regression, same_weights
from torch import Tensor, nn

import autoprune
from autoprune.config.latency import LatencyOptions
from autoprune.data import splits_from
from autoprune.errors import ConfigError, EvaluationError
from autoprune.pipeline.inputs import pick_device
from autoprune.pipeline.phases.measured_latency import conditions_of
from autoprune.tasks.outputs import check_outputs
from autoprune.verdict.record import read_record


def test_what_a_score_function_does_to_the_full_network_stays_with_it(tmp_path: Path) -> None:
    def rough(network: nn.Module) -> float:
        network.half().float()
        return closeness(network)

    model = Counting()
    before = copy.deepcopy(model)
    regression(tmp_path / "run", model, score_func=rough, train_func=None, verdict=None, trials=1)
    assert same_weights(model, before)


def test_a_score_function_that_fails_does_so_before_anything_is_written(tmp_path: Path) -> None:
    def score(network: nn.Module) -> float:
        raise LookupError("no labels")

    line = score.__code__.co_firstlineno + 1
    words = rf"score_func failed: LookupError: no labels \({__file__}:{line}\)"
    with pytest.raises(EvaluationError, match=words):
        regression(tmp_path / "run", perceptron(), score_func=score)
    assert not any(tmp_path.iterdir())


class Flat(Convolutions):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten()


class Moving(Convolutions):
    def forward(self, x: Tensor) -> Tensor:
        self.norm1.running_mean += 1  # type: ignore[operator]
        return super().forward(x)


@pytest.mark.parametrize(("kind", "given"), [(Named, "dict"), (Flat, r"a tensor of shape \(32,\)")])
def test_what_is_not_a_row_of_outputs_is_refused_before_anything_is_written(
    kind: type[Convolutions], given: str, tmp_path: Path
) -> None:
    data = (pictures(8, 0), pictures(8, 1))
    assert splits_from(data).classes is None
    job: dict[str, Any] = {"constraints": {"flops": "50%"}, "device": "cpu", "run_dir": tmp_path / "run"}
    with pytest.raises(ConfigError, match=rf"returns {given} .*score_func and train_func"):
        autoprune.search(kind(classes=4), torch.zeros(1, 1, 8, 8), data=data, **job)
    assert not any(tmp_path.iterdir())


def test_checking_the_outputs_only_reads_the_model() -> None:
    model = Moving(classes=4)
    before = copy.deepcopy(model)
    check_outputs(model, splits_from((pictures(8, 0), pictures(8, 1))))
    assert same_weights(model, before)
    assert model.training


@pytest.mark.parametrize("name", ["mps", "meta", "tpu", "cuda:99", ""])
def test_only_the_cpu_and_cuda_devices_that_are_there_can_be_used(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device {name!r} .*cpu"):
        pick_device(name)
    assert pick_device("cpu").type == "cpu"


def test_there_is_one_cpu_whatever_its_number() -> None:
    assert str(pick_device("cpu:0")) == "cpu"
    conditions_of(LatencyOptions(), torch.device("cpu:0"))  # of a task that was made from Python


def test_the_largest_seed_sees_a_run_through(tmp_path: Path) -> None:
    data = (pictures(32, 0), pictures(16, 1))
    result = autoprune.search(
        Convolutions(classes=4),
        torch.zeros(1, 1, 8, 8),
        data=data,
        constraints={"flops": "50%"},
        seed=2**63 - 1,
        trained=False,
        trials=1,
        training={"epochs": 2, "batch_size": 16},
        verdict={"seeds": 1, "fine_tune_epochs": 1, "random_candidates": 1},
        device="cpu",
        run_dir=tmp_path / "run",
        progress="silent",
    )
    assert result.verdict is not None
    record = read_record(tmp_path / "run")
    uniform = [arm.name for arm in record.arms if arm.name.startswith("uniform") and arm.widths != record.winner.widths]
    assert sorted(record.chances) == sorted(uniform)
    assert all(0 < chance < 1 for chance in record.chances.values())
