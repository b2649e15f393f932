from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from autoprune.config.training import Recipe
from autoprune.errors import ConfigError
from autoprune.training.schedules import SCHEDULES
from autoprune.training.schedules.base import learning_rate


def rates(places: Any, **options: Any) -> list[float]:
    at = learning_rate(Recipe(**options))
    return [at(place) for place in places]


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("warmup_epochs", [0, 3])
def test_no_schedule_exceeds_the_learning_rate_or_falls_below_nothing(name: str, warmup_epochs: int) -> None:
    found = rates([i / 1000 for i in range(1001)], epochs=10, lr=0.4, schedule=name, warmup_epochs=warmup_epochs)
    assert all(0 <= rate <= 0.4 + 1e-12 for rate in found)
    assert max(found) == pytest.approx(0.4, rel=1e-4)


def test_cosine_falls_from_lr_to_nothing() -> None:
    assert rates((0.0, 0.5, 1.0), epochs=10, lr=0.4) == pytest.approx([0.4, 0.2, 0.0])
    falling = rates([i / 50 for i in range(51)], epochs=10, lr=0.4)
    assert falling == sorted(falling, reverse=True)


def test_cosine_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs, schedule = [], torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    for _ in range(41):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates([i / 40 for i in range(41)], epochs=1, lr=0.3) == pytest.approx(theirs, abs=1e-9)


def test_one_cycle_is_that_of_torch() -> None:
    n, optimizer = 1000, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, total_steps=n, cycle_momentum=False)
    theirs = []
    for _ in range(n - 1):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    theirs.append(optimizer.param_groups[0]["lr"])
    # torch begins to fall at step 0.3 n - 1, one step early
    chosen = {"name": "one_cycle", "settings": {"pct_start": (0.3 * n - 1) / (n - 1)}}
    assert rates([i / (n - 1) for i in range(n)], epochs=1, lr=0.3, schedule=chosen) == pytest.approx(theirs, abs=1e-9)


def test_step_drops_at_half_and_at_three_quarters() -> None:
    found = rates((0, 0.499, 0.5, 0.749, 0.75, 1.0), epochs=160, lr=0.1, schedule="step")
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_step_drops_where_it_is_told_to() -> None:
    chosen = {"name": "step", "settings": {"milestones": [0.2], "gamma": 0.5}}
    assert rates((0.1, 0.2, 0.9), epochs=5, lr=1, schedule=chosen) == [1.0, 0.5, 0.5]


def test_warmup_rises_to_lr() -> None:
    assert rates((0.05, 0.1, 0.15, 0.2), epochs=10, lr=0.4, warmup_epochs=2) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates((0.1, 0.3, 1.0), epochs=10, lr=0.4, warmup_epochs=2, schedule="constant") == pytest.approx(
        [0.2, 0.4, 0.4]
    )


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_another_length_keeps_the_shape(name: str) -> None:
    recipe = Recipe(epochs=10, lr=0.4, warmup_epochs=2, schedule=name)
    long, short = learning_rate(recipe), learning_rate(recipe.over(1))
    assert [short(i / 9) for i in range(10)] == pytest.approx([long(i / 9) for i in range(10)])


def odd(done: float, warm: float, *, give: Any = math.nan) -> Any:
    """Not a number.

    Args:
        done: share.
        warm: share.
        give: what it gives.
    """
    return give


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("cosin", "unknown schedule 'cosin'.*Did you mean 'cosine'"),
        ({"name": "cosine", "settings": {"x": 1}}, "schedule 'cosine' has no setting 'x'"),
        ({"name": "step", "settings": {"milestones": [30, 60]}}, r"above 0 and below 1, got \[30, 60\]"),
        ({"name": "step", "settings": {"milestones": 0.5}}, "fails: TypeError"),
        ({"name": "step", "settings": {"gamma": -1}}, "gives -1; it must give finite numbers of at least 0"),
        ({"name": "one_cycle", "settings": {"pct_start": 1}}, "pct_start must be above 0 and below 1"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused(schedule: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learning_rate(Recipe(schedule=schedule))


@pytest.mark.parametrize("given", [math.nan, math.inf, "x", None])
def test_factors_that_are_no_numbers_are_refused(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES._table, "step", type(SCHEDULES._table["step"])(f"{__name__}:odd"))
    with pytest.raises(ConfigError, match=r"it must give finite numbers of at least 0|a number that is not finite"):
        learning_rate(Recipe(schedule={"name": "step", "settings": {"give": given}}))
