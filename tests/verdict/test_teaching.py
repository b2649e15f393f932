from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import closeness, fit, pictures, write_job
from torch import nn

import autoprune
from autoprune.config.job import load_job
from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.data import splits_from
from autoprune.errors import ConfigError
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.importance.members import rank_channels
from autoprune.pipeline.driver import start_job
from autoprune.tasks.base import Task
from autoprune.tasks.callable import CallableTask
from autoprune.tasks.classification import ClassificationTask
from autoprune.training.state import weights_as_bytes
from autoprune.verdict.finals import PlannedFinal, train_final
from autoprune.verdict.teaching import check_teaching, taught_protocols, told_protocols

CPU = torch.device("cpu")
TAUGHT, PLAIN = ({"name": "fine_tune", "settings": {"distil": distil}} for distil in (True, False))
EVERY = [NamedPart.model_validate(one) for one in ("fine_tune", TAUGHT, PLAIN, "gradual", "scratch_e", "no_training")]


def classifier(**recipe: Any) -> ClassificationTask:
    data = splits_from((pictures(64, 0), pictures(32, 1)))
    return ClassificationTask(data, Recipe(batch_size=16, **recipe), device=CPU)


def own() -> CallableTask:
    return CallableTask(closeness, lambda network, epochs, seed: fit(network, epochs, seed), device=CPU)


def factory(task: Task) -> CandidateFactory:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    space = autoprune.trace(model, torch.randn(1, 1, 8, 8), verify=False).search_space
    return CandidateFactory(model, space, rank_channels(model, space, "l2"), task, base_epochs=2)


def trained(task: Task, *, distilled: bool) -> bytes:
    """The weights of a final training."""
    piece = PlannedFinal((5,), NamedPart(name="fine_tune"), 3, 2, 0.1, True, distilled=distilled)
    weights = train_final(factory(task), piece).weights
    assert weights is not None
    return weights


def test_classifiers_learn_from_the_base_network_unless_the_job_says_otherwise() -> None:
    assert taught_protocols(EVERY, classifier()) == {"fine_tune", "fine_tune(distil=true)", "gradual"}
    smoothed = NamedPart(name="cross_entropy", settings={"label_smoothing": 0.1})
    for named in (smoothed, NamedPart(name="distillation")):
        assert taught_protocols(EVERY, classifier(objective=named)) == {"fine_tune(distil=true)"}
    assert taught_protocols(EVERY, own()) == {"fine_tune(distil=true)"}


def test_sentences_say_that_networks_were_distilled() -> None:
    slow = NamedPart(name="fine_tune", settings={"lr_share": 0.01})
    assert list(told_protocols([*EVERY, slow], classifier()).values()) == [
        "fine-tuned with distillation",
        "fine-tuned with distil=true",
        "fine-tuned with distil=false",
        "cut in steps and fine-tuned with distillation",
        "trained from scratch",
        "without training",
        "fine-tuned with lr_share=0.01 and distillation",
    ]
    assert told_protocols(EVERY[:1], own()) == {"fine_tune": "fine-tuned"}


def test_a_task_that_cannot_be_told_to_is_refused_before_the_run() -> None:
    check_teaching(EVERY, classifier())
    check_teaching([EVERY[0]], own())
    with pytest.raises(ConfigError, match=r"protocol 'fine_tune\(distil=true\)' learns from the base network, which"):
        check_teaching(EVERY, own())


def test_a_distilled_training_is_that_of_the_objective_with_the_base_network_as_teacher() -> None:
    named = classifier(objective=NamedPart(name="distillation"))
    assert trained(classifier(), distilled=True) == trained(named, distilled=False)
    assert trained(classifier(), distilled=True) != trained(classifier(), distilled=False)


def test_the_teacher_is_not_changed() -> None:
    made = factory(classifier())
    before = weights_as_bytes(made.model)
    train_final(made, PlannedFinal((5,), NamedPart(name="fine_tune"), 3, 2, 0.1, False, distilled=True))
    assert weights_as_bytes(made.model) == before


def test_trainings_with_and_without_a_teacher_are_not_taken_for_each_other() -> None:
    pieces = [PlannedFinal((5,), EVERY[0], 3, 2, 0.1, False, distilled=distilled) for distilled in (False, True)]
    assert [piece.key for piece in pieces] == ["fine_tune/3/5", "fine_tune+distillation/3/5"]


@pytest.mark.parametrize("value", [1, "yes", 0.5])
def test_distil_is_a_switch(value: object) -> None:
    with pytest.raises(ConfigError, match="distil must be true, false or null, got"):
        taught_protocols([NamedPart(name="gradual", settings={"distil": value})], own())


def test_a_run_compares_distilled_networks(tmp_path: Path) -> None:
    job = load_job(write_job(tmp_path / "job.yaml", {"verdict.protocols": ["fine_tune", PLAIN]}))
    (record,) = start_job(job, tmp_path / "run", progress="silent")
    assert record.verdict is not None
    assert "(fine-tuned with distillation, 1 seed)" in record.verdict.sentence
    assert len({final.score for final in record.finals if final.arm == "winner"}) == 2
