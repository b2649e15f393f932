from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from tiny import JOB

from autoprune.config import job as old
from autoprune.config.job import Job
from autoprune.config.training import Recipe
from autoprune.config.validation import validated
from autoprune.data import load_data
from autoprune.deprecation import MovedWarning
from autoprune.errors import ConfigError
from autoprune.pipeline.fingerprints import as_begun, job_fingerprint, same_job
from autoprune.tasks.classification import ClassificationTask
from autoprune.training.recipe import Recipe as FromTraining

BEFORE = (
    "Recipe(epochs=16, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0001, batch_size=64, schedule='cosine', "
    "warmup_epochs=0, label_smoothing=0.0, augment=True, amp=False, channels_last=False)"
)
PLAIN = {"model": {"factory": "x"}, "data": {"name": "d"}, "constraints": {"flops": "50%"}}
LATE: dict[str, Any] = {
    "optimizer": "adamw",
    "decay_norms": False,
    "clip_norm": 1.0,
    "accumulate_batches": 2,
    "ema": 0.99,
    "objective": {"name": "distillation", "settings": {"alpha": 0.5}},
    "terms": ["bn_l1"],
}


def job(**training: Any) -> Job:
    return validated(Job, {**PLAIN, "training": training}, "job")


def test_there_is_one_class() -> None:
    assert FromTraining is Recipe
    assert type(job().training) is Recipe
    with pytest.warns(MovedWarning):
        assert old.TrainingOptions is Recipe


@pytest.mark.parametrize(
    ("training", "fingerprint"),
    [
        ({}, "e237572a42e96b7a"),
        ({"warmup_epochs": 2.0, "lr": 1}, "8dea4ee1d8a97d2d"),
        ({"warmup_epochs": "3", "epochs": 9, "schedule": "step", "amp": True}, "99927f8ab89332b9"),
    ],
)
def test_jobs_written_before_keep_their_fingerprints(training: dict[str, Any], fingerprint: str) -> None:
    began = as_begun(job(**training), 2)  # with the allocations that were usual then
    assert same_job(fingerprint, began, job_format=2)  # as computed by the version before
    assert not same_job(fingerprint, job(**training))


def test_the_text_of_a_recipe_is_that_of_before() -> None:
    assert repr(job(epochs=16, batch_size=64).training) == BEFORE
    assert repr(job(epochs=16, batch_size=64, optimizer="sgd", terms=[]).training) == BEFORE


@pytest.mark.parametrize("name", LATE)
def test_what_came_later_is_in_fingerprints_where_it_is_set(name: str) -> None:
    set_, plain = job(**{name: LATE[name]}), job()
    assert set_.model_dump()["training"].keys() - plain.model_dump()["training"].keys() == {name}
    assert job_fingerprint(set_) != job_fingerprint(plain)
    tasks = [ClassificationTask(load_data("digits"), one.training, device=None) for one in (set_, plain)]  # type: ignore[arg-type]
    assert tasks[0].fingerprint != tasks[1].fingerprint
    assert plain.training.plain
    assert not set_.training.plain


def test_a_recipe_with_everything_survives_being_written() -> None:
    given = job(**LATE, schedule={"name": "step", "settings": {"gamma": 0.5}}, warmup_epochs=1.5)
    assert Job.model_validate(yaml.safe_load(given.text)) == given
    assert Job.model_validate({**JOB, "training": given.training}).training == given.training


def test_another_length_keeps_the_rest() -> None:
    recipe = Recipe(epochs=10, warmup_epochs=2, **LATE)
    assert recipe.over(10) == recipe
    assert recipe.over(5, lr=0.01) == Recipe(epochs=5, lr=0.01, warmup_epochs=1, **LATE)
    with pytest.raises(ConfigError, match="training: epochs: input should be greater than or equal to 1, got 0"):
        recipe.over(0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"momentum": 1.0},
        {"momentum": 0.0},
        {"weight_decay": -1.0},
        {"batch_size": 0},
        {"warmup_epochs": 5},
        {"warmup_epochs": math.nan},
        {"label_smoothing": 1.0},
        {"schedule": 3},
        {"clip_norm": 0},
        {"accumulate_batches": 0},
        {"ema": 1.0},
        {"terms": "bn_l1"},
        {"optimiser": "adamw"},
        {"momentum": 0.5, "optimizer": "adamw"},
    ],
)
def test_values_out_of_range_are_refused_alone_and_in_a_job(wrong: dict[str, object]) -> None:
    name = "nesterov" if wrong == {"momentum": 0.0} else next(iter(wrong))
    with pytest.raises(ConfigError, match=f"^training: .*{name}"):
        Recipe(**{"epochs": 5, **wrong})
    with pytest.raises(ConfigError, match=f"^job: .*training.*{name}") as caught:
        job(**{"epochs": 5, **wrong})
    assert "pydantic" not in str(caught.value)


def test_no_momentum_is_no_contradiction_for_other_optimizers() -> None:
    assert Recipe(momentum=0, optimizer="adamw").momentum == 0
