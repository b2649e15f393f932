"""Jobs that say how networks are trained: parts of other packages, teachers, averages; and what is refused early."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import write_job

from autoprune import registry
from autoprune.config.job import load_job
from autoprune.errors import AutopruneError
from autoprune.evaluators import trained
from autoprune.pipeline import driver
from autoprune.training.objectives.distillation import Distillation
from autoprune.training.trainer import Trainer

OBJECTIVE = '''
"""Hinge losses of all wrong classes, and how often the teacher was there."""
import torch
from autoprune.training.objectives.base import Objective

CALLS = {True: 0, False: 0}


class Hinge(Objective):
    """Multi-class hinge loss.

    Args:
        margin: to keep.
    """

    needs_teacher = True

    def __init__(self, *, margin=1.0):
        self.margin = margin

    def __call__(self, model, batch):
        CALLS[self.teacher is not None] += 1
        if self.teacher is not None:
            assert not self.teacher.training
            with torch.no_grad():
                batch.outputs(self.teacher)
        return torch.nn.functional.multi_margin_loss(batch.outputs(model), batch.targets, margin=self.margin)
'''
TERM = '''
"""Weights of convolutions that stay short."""
import torch
from autoprune.training.terms.base import Term

NORMS = []


class MaxNorm(Term):
    """Keeps the filters of convolutions below a norm.

    Args:
        limit: of the norm.
    """

    source = "Srebro & Shraibman 2005"

    def __init__(self, *, limit=1.0):
        self.limit = limit

    def after_step(self, model, *, done):
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.copy_(module.weight.renorm(2, 0, self.limit))
                NORMS.append(float(module.weight.flatten(1).norm(dim=1).max()))
'''
SCHEDULE = '''
def linear(done, warm):
    """Falls along a line."""
    return 1 - done
'''


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Three files outside of the package, each with one part that its entry point offers."""
    for name, text in (("own_hinge", OBJECTIVE), ("own_max_norm", TERM), ("own_linear", SCHEDULE)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    offered = {
        "autoprune.objectives": EntryPoints([EntryPoint("hinge", "own_hinge:Hinge", "autoprune.objectives")]),
        "autoprune.terms": EntryPoints([EntryPoint("max_norm", "own_max_norm:MaxNorm", "autoprune.terms")]),
        "autoprune.schedules": EntryPoints([EntryPoint("linear", "own_linear:linear", "autoprune.schedules")]),
    }
    monkeypatch.setattr(registry, "entry_points", lambda group: offered.get(group, ()))


def run(tmp_path: Path, training: dict[str, Any], **options: Any) -> Any:
    changes = {f"training.{name}": value for name, value in training.items()} | options
    job = load_job(write_job(tmp_path / "job.yaml", changes))
    return driver.start_job(job, tmp_path / "run", progress="silent")


def test_parts_of_other_packages_train_the_networks_of_a_job(plug_ins: None, tmp_path: Path) -> None:
    training = {
        "objective": {"name": "hinge", "settings": {"margin": 0.5}},
        "terms": [{"name": "max_norm", "settings": {"limit": 0.3}}],
        "schedule": "linear",
    }
    run(tmp_path, training, **{"verdict.seeds": 1, "verdict.protocols": ["fine_tune"]})
    import own_hinge
    import own_max_norm

    assert own_hinge.CALLS[False] > 0  # the base network
    assert own_hinge.CALLS[True] > 0  # final networks
    assert max(own_max_norm.NORMS) == pytest.approx(0.3, abs=1e-5)
    written = yaml.safe_load((tmp_path / "run/job.yaml").read_text())["training"]
    assert {name: written[name] for name in training} == training


def test_scratch_and_final_trainings_are_taught_by_the_base_network_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers: list[dict[str, torch.Tensor] | None] = []
    called = Distillation.__call__

    def noted(self: Distillation, model: Any, batch: Any) -> torch.Tensor:
        teachers.append(None if self.teacher is None else self.teacher.state_dict())
        return called(self, model, batch)

    monkeypatch.setattr(Distillation, "__call__", noted)
    search = {"search.evaluator": {"name": "scratch", "settings": {"epochs": 1}}, "search.trials": 2}
    run(tmp_path, {"objective": "distillation", "ema": 0.9}, **search, **{"verdict.seeds": 1})
    base = load_file(tmp_path / "run/base.safetensors")
    taught = [teacher for teacher in teachers if teacher is not None]
    assert 0 < len(taught) < len(teachers)
    assert all(torch.equal(tensor, base[name]) for name, tensor in taught[-1].items())


def test_averages_are_what_is_recalibrated_scored_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    averages: list[dict[str, torch.Tensor]] = []
    last: list[dict[str, torch.Tensor]] = []
    finish, recalibrated, seen = Trainer.finish, trained.recalibrate_batch_norm, []

    def noted_end(self: Trainer) -> None:
        last.append(weights(self._model))
        averages.append({name: tensor.clone() for name, tensor in self._average._averages.items()})  # type: ignore[union-attr]
        finish(self)

    def noted(network: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(weights(network))
        return recalibrated(network, *args, **kwargs)

    monkeypatch.setattr(Trainer, "finish", noted_end)
    monkeypatch.setattr(trained, "recalibrate_batch_norm", noted)
    run(tmp_path, {"ema": 0.9}, **{"verdict.seeds": 0})
    base = load_file(tmp_path / "run/base.safetensors")
    for name, tensor in seen[0].items():
        assert torch.equal(tensor, averages[0][name])
        assert torch.equal(tensor, base[name])
        assert not torch.equal(tensor, last[0][name])


def weights(network: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"optimizer": "adamwx"}, "unknown optimizer 'adamwx'"),
        ({"optimizer": "muon"}, "optimizer 'muon' cannot be made"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'"),
        ({"objective": "mse", "label_smoothing": 0.1}, "objective 'mse' has none"),
        ({"objective": {"name": "cross_entropy", "settings": {"class_weights": [1, 2]}}}, "2 class_weights"),
        ({"terms": ["bn_l2"]}, "unknown term 'bn_l2'"),
        ({"ema": 2}, "training.ema: input should be less than 1"),
        ({"optimiser": "sgd"}, "unknown key 'training.optimiser'. Did you mean 'optimizer'"),
    ],
)
def test_what_cannot_train_is_refused_before_anything_is_written(
    training: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AutopruneError, match=message):
        run(tmp_path, training)
    assert not (tmp_path / "run").exists()
