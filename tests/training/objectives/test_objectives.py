from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.testing.objectives import ObjectiveContract
from autoprune.training.objectives import OBJECTIVES
from autoprune.training.objectives.base import Objective, make_objective

OUTPUTS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TAUGHT = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 0])


OF_OTHER_TASKS = ("binary_cross_entropy", "pixel_cross_entropy", "detection_loss")
"""Their contract is among the tests of these."""


class Given(nn.Module):
    """Gives what it is told to, whatever comes in."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Any:
        return self.outputs


def loss(
    name: str, outputs: Any = OUTPUTS, targets: Any = LABELS, taught: Tensor | None = None, **settings: Any
) -> Any:
    objective = make_objective(Recipe(objective={"name": name, "settings": settings}))
    if taught is not None:
        objective.teacher = Given(taught)
    return objective(Given(outputs), Batch(torch.zeros(7, 1), targets))


class TestEachCard(ObjectiveContract):
    @pytest.fixture(params=[name for name in OBJECTIVES.names() if name not in OF_OTHER_TASKS])
    def new(self, request: pytest.FixtureRequest) -> Callable[[], Objective]:
        return functools.partial(make_objective, Recipe(objective=request.param))


class TestWeightedCrossEntropy(ObjectiveContract):
    @pytest.fixture
    def new(self) -> Callable[[], Objective]:
        chosen = {"name": "cross_entropy", "settings": {"class_weights": [1, 2, 3, 0.5], "label_smoothing": 0.1}}
        return lambda: make_objective(Recipe(objective=chosen))


def smoothed(share: float) -> np.ndarray:
    return (1 - share) * np.eye(5)[LABELS] + share / 5


def test_cross_entropy_is_that_of_the_formula() -> None:
    by_hand = -(smoothed(0.2) * log_softmax(OUTPUTS.numpy(), axis=1)).sum(1).mean()
    assert loss("cross_entropy", label_smoothing=0.2).item() == pytest.approx(by_hand)


def test_class_weights_scale_the_loss_of_their_examples() -> None:
    weights = np.array([1.0, 2.0, 0.0, 0.5, 3.0])
    each = -(np.eye(5)[LABELS] * weights * log_softmax(OUTPUTS.numpy(), axis=1)).sum(1)
    assert loss("cross_entropy", class_weights=[*weights]).item() == pytest.approx(each.mean())


def test_mse_is_the_mean_over_all_numbers_and_takes_class_numbers_as_rows() -> None:
    numbers = TAUGHT.numpy()
    assert loss("mse", targets=TAUGHT).item() == pytest.approx(((OUTPUTS.numpy() - numbers) ** 2).mean())
    assert loss("mse").item() == pytest.approx(((OUTPUTS.numpy() - np.eye(5)[LABELS]) ** 2).mean())


@pytest.mark.parametrize(("temperature", "alpha"), [(4.0, 0.9), (1.0, 1.0), (2.0, 0.0)])
def test_distillation_is_that_of_the_formula(temperature: float, alpha: float) -> None:
    p, q = softmax(TAUGHT.numpy() / temperature, axis=1), log_softmax(OUTPUTS.numpy() / temperature, axis=1)
    divergence = (p * (np.log(p) - q)).sum(1).mean()
    hard = -(np.eye(5)[LABELS] * log_softmax(OUTPUTS.numpy(), axis=1)).sum(1).mean()
    expected = alpha * temperature**2 * divergence + (1 - alpha) * hard
    found = loss("distillation", taught=TAUGHT, temperature=temperature, alpha=alpha)
    assert found.item() == pytest.approx(expected)


def test_distillation_without_a_teacher_is_cross_entropy() -> None:
    assert torch.equal(loss("distillation"), loss("cross_entropy"))


@pytest.mark.parametrize("name", ["cross_entropy", "distillation"])
def test_label_smoothing_is_that_of_the_recipe_unless_the_settings_say_otherwise(name: str) -> None:
    own = {"name": name, "settings": {"label_smoothing": 0.0}}
    batch = Batch(torch.zeros(7, 1), LABELS)
    smooth, sharp = (make_objective(Recipe(label_smoothing=0.3, objective=chosen)) for chosen in (name, own))
    assert torch.equal(smooth(Given(OUTPUTS), batch), loss("cross_entropy", label_smoothing=0.3))
    assert torch.equal(sharp(Given(OUTPUTS), batch), loss("cross_entropy"))


class Mistaken:
    pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "cross_entrop"}, "unknown objective 'cross_entrop'.*Did you mean 'cross_entropy'"),
        ({"objective": {"name": "mse", "settings": {"x": 1}}}, "objective 'mse' has no setting 'x'"),
        ({"objective": "mse", "label_smoothing": 0.1}, "label_smoothing is 0.1, but objective 'mse' has none"),
        ({"objective": {"name": "distillation", "settings": {"alpha": 2}}}, "alpha from 0 to 1"),
        ({"objective": {"name": "distillation", "settings": {"alpha": "x"}}}, "cannot be made: TypeError"),
        ({"objective": {"name": "cross_entropy", "settings": {"label_smoothing": 1}}}, "label_smoothing must be"),
        ({"objective": {"name": "cross_entropy", "settings": {"class_weights": [-1]}}}, "class_weights must be"),
    ],
)
def test_what_cannot_be_an_objective_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_objective(Recipe(**options))


def test_what_is_no_objective_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES._table, "mse", type(OBJECTIVES._table["mse"])(f"{__name__}:Mistaken"))
    with pytest.raises(ConfigError, match="is a Mistaken: derive it from Objective"):
        make_objective(Recipe(objective=NamedPart(name="mse")))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: loss("cross_entropy", class_weights=[1.0, 2.0]), "2 class_weights for a network of 5 classes"),
        (lambda: loss("mse", outputs=OUTPUTS[:, :1], targets=TAUGHT[:, 0]), r"got \(7, 1\) and \(7,\); reshape"),
        (lambda: loss("mse", outputs=[OUTPUTS]), "the network returned list"),
        (lambda: loss("mse", targets=None), r"got \(7, 5\) and NoneType"),
        (lambda: loss("cross_entropy", targets=LABELS + 1), "class numbers from 1 to 5 for a network of 5 outputs"),
        (lambda: loss("distillation", taught=TAUGHT[:, :3]), r"outputs of shape \(7, 3\), the trained one of \(7, 5\)"),
    ],
)
def test_outputs_that_do_not_fit_are_an_error_that_says_how(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        call()
