"""A score is a number that its measure can have, of outputs that fit their targets, taken on a copy."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import EvaluationError
from autoprune.training.scores import ANY, checked_score, class_outputs, scored_copy

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        np.float32(0.5),
        np.array(0.5),
        np.array([[0.5]]),
        Fraction(1, 2),
        torch.tensor(0.5),
        torch.tensor([[0.5]]),
        torch.tensor(0.5, requires_grad=True),
    ],
)
def test_what_holds_one_real_number_is_that_number(value: object) -> None:
    score = checked_score(value, (0.0, 1.0), what="it")
    assert type(score) is float
    assert score == 0.5


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        np.True_,
        torch.tensor(True),
        1j,
        torch.tensor(1j),
        "0.5",
        b"1",
        [0.5],
        (0.5,),
        {"a": 1.0},
        Decimal(1),
        float("nan"),
        float("inf"),
        -float("inf"),
        10**400,
        torch.tensor(torch.nan),
        torch.zeros(0),
        torch.zeros(2),
        np.array([np.inf]),
        np.zeros(2),
        np.array("0.5"),
        object(),
        lambda: 0.5,
        np.float64("nan"),
    ],
)
def test_nothing_else_is_a_score(value: object) -> None:
    with pytest.raises(
        EvaluationError, match=r"^score_func must return a finite number, higher is better; it returned"
    ):
        checked_score(value, ANY, what="score_func")


@pytest.mark.parametrize("value", [-1e-9, 100.001, 500.0, torch.tensor(1600)])
def test_a_score_that_the_measure_cannot_have_is_none(value: object) -> None:
    with pytest.raises(EvaluationError, match="a finite number from 0 to 100"):
        checked_score(value, (0.0, 100.0), what="accuracy")
    assert checked_score(value, ANY, what="score_func") == pytest.approx(float(value))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 1)),
        (torch.zeros(4, 3, 1), torch.zeros(4)),
        (torch.zeros(4), torch.zeros(4)),
        (torch.zeros(3, 3), torch.zeros(4)),
        (torch.zeros(1, 3), torch.zeros(4)),
        ((torch.zeros(4, 3),), torch.zeros(4)),
        ({"logits": torch.zeros(4, 3)}, torch.zeros(4)),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 3])),
        (torch.zeros(4, 3), torch.tensor([0, -1, 2, 1])),
        (torch.zeros(4, 1), torch.zeros(4)),
    ],
)
def test_outputs_that_do_not_fit_their_targets_are_refused(outputs: object, targets: Tensor) -> None:
    with pytest.raises(EvaluationError, match="outputs"):
        class_outputs(outputs, targets.long())
    assert class_outputs(torch.zeros(4, 3), torch.tensor([0, 1, 2, 2])).shape == (4, 3)


def test_a_copy_is_scored_on_the_device_in_eval_mode() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    copied = scored_copy(model, CPU)
    assert not copied.training
    assert not copied[1].training  # type: ignore[index]
    assert model.training
    copied[0].weight.data.zero_()  # type: ignore[index]
    assert model[0].weight.any()
    assert {p.device.type for p in scored_copy(model, torch.device("meta")).parameters()} == {"meta"}
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    model[0].bias.data[1] = torch.nan
    with pytest.raises(EvaluationError, match=r"'0\.bias'"):
        scored_copy(model, CPU)
