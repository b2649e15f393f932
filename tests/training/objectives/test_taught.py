"""Learning from the base network: formulas by hand, features in both forms, one forward pass, nothing exported."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autoprune.config.training import Recipe
from autoprune.data.base import LoaderSplit
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.space.copying import copy_network
from autoprune.space.cutting.graph_form import graph_network
from autoprune.space.cutting.slicing import slice_model
from autoprune.space.tracing.trace import trace
from autoprune.testing.evaluators import InterruptingWatch, TinyNet, tiny_bench, tiny_splits
from autoprune.testing.objectives import ObjectiveContract, same_weights
from autoprune.training.integrity import Snapshot
from autoprune.training.loop import train
from autoprune.training.objectives.base import Objective, make_objective
from autoprune.training.objectives.features import observed, stage_ends
from autoprune.training.objectives.memory import TeacherMemory
from autoprune.training.watch import Stopped
from autoprune.zoo.resnet import resnet20

CPU = torch.device("cpu")


def objective(name: str, **settings: Any) -> Objective:
    return make_objective(Recipe(objective={"name": name, "settings": settings}))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Given(nn.Module):
    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Any:
        return self.outputs


def loss(made: Objective, outputs: Any, targets: Any, taught: Any) -> float:
    made.teacher = Given(taught)
    return float(made(Given(outputs), Batch(torch.zeros(2, 1), targets)))


class TestCombined(ObjectiveContract):
    @pytest.fixture
    def new(self) -> Callable[[], Objective]:
        parts = ["distillation", {"name": "feature_distillation", "weight": 0.5}]
        return functools.partial(objective, "combined", parts=parts)


def test_distillation_of_tokens_counts_those_that_have_a_target() -> None:
    outputs, taught, targets = numbers(2, 3, 5), numbers(2, 3, 5, seed=1), torch.tensor([[1, -100, 4], [0, 2, -100]])
    p, q = softmax(taught.numpy() / 2, -1), log_softmax(outputs.numpy() / 2, -1)
    kl, hard = (p * (np.log(p) - q)).sum(-1), -log_softmax(outputs.numpy(), -1)
    soft = ((kl[0, 0] + kl[0, 2]) / 2 + (kl[1, 0] + kl[1, 1]) / 2) / 2
    given = ((hard[0, 0, 1] + hard[0, 2, 4]) / 2 + (hard[1, 0, 0] + hard[1, 1, 2]) / 2) / 2
    found = loss(objective("distillation", temperature=2.0, alpha=0.3), outputs, targets, taught)
    assert found == pytest.approx(0.3 * 4 * soft + 0.7 * given)


def test_distillation_of_maps_has_its_classes_along_the_second_axis() -> None:
    outputs, taught = numbers(2, 5, 3, 4), numbers(2, 5, 3, 4, seed=1)
    targets = torch.randint(5, (2, 3, 4), generator=torch.Generator().manual_seed(2))
    p, q = softmax(taught.numpy(), 1), log_softmax(outputs.numpy(), 1)
    soft = (p * (np.log(p) - q)).sum(1).mean()
    hard = -np.take_along_axis(log_softmax(outputs.numpy(), 1), targets.numpy()[:, None], 1).mean()
    found = loss(objective("distillation", temperature=1.0, alpha=0.5), {"out": outputs}, targets, {"out": taught})
    assert found == pytest.approx(0.5 * soft + 0.5 * hard)


def test_distillation_of_labels_is_one_sigmoid_for_each() -> None:
    outputs, taught = numbers(2, 4), numbers(2, 4, seed=1)
    targets = (numbers(2, 4, seed=2) > 0).double()
    p, q = expit(taught.numpy() / 3), expit(outputs.numpy() / 3)
    soft = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    y, s = targets.numpy(), expit(outputs.numpy())
    hard = -(y * np.log(s) + (1 - y) * np.log(1 - s)).mean()
    found = loss(objective("distillation", temperature=3.0, alpha=0.9), outputs, targets, taught)
    assert found == pytest.approx(0.9 * 9 * soft + 0.1 * hard)


def test_without_targets_the_teacher_is_all_that_counts() -> None:
    outputs, taught = numbers(2, 4), numbers(2, 4, seed=1)
    p, q = softmax(taught.numpy(), 1), log_softmax(outputs.numpy(), 1)
    found = loss(objective("distillation", temperature=1.0, alpha=0.2), outputs, None, taught)
    assert found == pytest.approx((p * (np.log(p) - q)).sum(1).mean())


def test_relative_error_is_a_share_of_each_examples_own_size() -> None:
    outputs, taught, targets = numbers(2, 6), numbers(2, 6, seed=1), numbers(2, 6, seed=2)
    y, t = outputs.numpy(), taught.numpy()
    soft = (((y - t) ** 2).sum(1) / (t**2).sum(1)).mean()
    hard = ((y - targets.numpy()) ** 2).mean()
    assert loss(objective("relative_error", alpha=0.25), outputs, targets, taught) == pytest.approx(
        0.25 * soft + 0.75 * hard
    )
    assert loss(objective("relative_error"), outputs * 10, None, taught * 10) == pytest.approx(soft)


def test_a_loss_on_the_targets_of_ones_own_is_used_in_place_of_the_usual_one() -> None:
    weights = [1.0, 2.0, 0.5, 0.0]
    made = objective("distillation", alpha=0.0, hard={"name": "cross_entropy", "settings": {"class_weights": weights}})
    outputs, targets = numbers(2, 4), torch.tensor([1, 2])
    alone = objective("cross_entropy", class_weights=weights)
    expected = float(alone(Given(outputs), Batch(torch.zeros(2, 1), targets)))
    assert loss(made, outputs, targets, numbers(2, 4, seed=1)) == pytest.approx(expected)


def test_stage_ends_of_a_residual_network_are_the_last_places_before_the_resolution_changes() -> None:
    batch = Batch(torch.zeros(2, 3, 32, 32))
    network = resnet20()
    before = Snapshot(network)
    ends = stage_ends(network, batch)
    sizes = [tuple(value.shape[1:]) for value in observed(network.eval(), batch, ends)[1].values()]
    assert sizes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    network.train()
    assert before.changed() is None


def test_stage_ends_of_a_transformer_are_its_blocks() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    network = nn.Sequential(
        nn.Linear(4, 8), nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(8, 2)
    )
    assert stage_ends(network, Batch(torch.zeros(2, 5, 4))) == tuple(f"1.layers.{i}" for i in range(3))


def test_features_are_the_same_in_module_form_and_in_graph_form() -> None:
    network = TinyNet()
    example = torch.randn(2, 1, 6, 6)
    traced = trace(network, example)
    graph = graph_network(network, traced.program, traced.space, example)
    places = ("features.0", "features.5", "features")
    batch = Batch(torch.randn(3, 1, 6, 6))
    for training in (False, True):
        torch.manual_seed(0)
        plain = observed(copy_network(network).train(training), batch, places)
        torch.manual_seed(0)
        followed = observed(copy_network(graph).train(training), batch, places)
        torch.testing.assert_close(followed, plain)


def narrow() -> tuple[nn.Module, nn.Module]:
    """The base network and a cut one."""
    bench = tiny_bench()
    widths = bench.space.nearest([g.width / 2 for g in bench.space.groups])
    return bench.model, slice_model(bench.model, bench.space, widths, bench.ranking)


@pytest.mark.parametrize("name", ["distillation", "feature_distillation", "combined"])
def test_a_cut_network_learns_with_projections_that_are_no_part_of_it_and_resumes_to_the_same_weights(
    name: str,
) -> None:
    teacher, cut = narrow()
    settings = {"parts": ["distillation", "feature_distillation"]} if name == "combined" else {}
    recipe = Recipe(epochs=3, lr=0.02, batch_size=32, augment=False, objective={"name": name, "settings": settings})
    before, names = Snapshot(teacher), list(cut.state_dict())

    def trained(watch: InterruptingWatch | None = None) -> nn.Module:
        network = copy_network(cut)
        records = train(network, tiny_splits().train, recipe, seed=4, device=CPU, watch=watch, teacher=teacher)
        assert records[-1].loss < records[0].loss
        return network

    whole, watch = trained(), InterruptingWatch()
    with pytest.raises(Stopped):
        trained(watch)
    resumed = trained(watch)
    assert same_weights(whole, resumed)
    assert list(whole.state_dict()) == names
    assert before.changed() is None


def test_projections_make_features_of_a_cut_network_nearer_to_the_teachers_and_go_on_learning() -> None:
    teacher, cut = narrow()
    made = objective("feature_distillation", at=["features.2"])
    made.teacher = teacher.eval().requires_grad_(False)
    batch = Batch(*next(tiny_splits().train.batches(64)))
    made.begin(cut, batch)
    (weight,) = made.parameters()
    known = observed(teacher, batch, ["features.2"])[1]["features.2"]
    given = observed(copy_network(cut).eval(), batch, ["features.2"])[1]["features.2"]
    mapped = torch.einsum("oc,nchw->nohw", weight, given)
    assert (mapped - known).square().sum() < 0.9 * known.square().sum()
    made(cut.train(), batch).backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


class Counting(TinyNet):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += len(x)
        return super().forward(x)


@pytest.mark.parametrize("name", ["distillation", "feature_distillation", "combined"])
def test_weights_are_the_same_whether_answers_of_the_teacher_are_kept_or_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = LoaderSplit(TensorDataset(*next(tiny_splits().train.batches(150))))  # the last batch is a small one
    torch.manual_seed(1)
    teacher, start, calls, made = Counting(), TinyNet(), [], []
    for limit in (2**20, 0):
        monkeypatch.setattr("autoprune.training.trainer.TeacherMemory", functools.partial(TeacherMemory, limit=limit))
        Counting.calls = 0
        network = copy_network(start)
        train(
            network,
            split,
            Recipe(epochs=4, lr=0.02, batch_size=64, objective=name),
            seed=0,
            device=CPU,
            teacher=teacher,
        )
        made.append(network)
        calls.append(Counting.calls)
    assert same_weights(*made)
    assert calls[0] < calls[1] / 2


def test_the_memory_keeps_to_its_limit_and_gives_up_on_examples_that_never_come_again() -> None:
    asked = []

    def ask(batch: Batch) -> Tensor:
        asked.append(len(batch))
        return batch.inputs * 2

    small, fresh = TeacherMemory(8, limit=8 * 3 * 4 - 1), TeacherMemory(8)
    same = Batch(torch.arange(24.0).reshape(8, 3))
    for _ in range(3):
        assert torch.equal(small.recall(same, ask), same.inputs * 2)
    assert len(asked) == 3
    assert not small.open
    for number in range(4):
        fresh.recall(Batch(same.inputs + 100 * number), ask)
    assert not fresh.open
    known = TeacherMemory(8)
    shuffled = Batch(same.inputs.flip(0))
    assert torch.equal(known.recall(same, ask), same.inputs * 2)
    before = len(asked)
    assert torch.equal(known.recall(shuffled, ask), shuffled.inputs * 2)
    assert len(asked) == before


def test_each_network_runs_once_per_batch_however_many_parts_learn_from_it() -> None:
    made = objective("combined", parts=["cross_entropy", "distillation", "feature_distillation"])
    made.teacher = Counting().eval().requires_grad_(False)
    batch, student = Batch(*next(tiny_splits().train.batches(8))), Counting()
    made.begin(student, batch)
    Counting.calls = 0
    made(student, batch)
    assert Counting.calls == 16


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("feature_distillation", {"at": "features"}, "at must be a list of names"),
        ("feature_distillation", {"weight": 0}, "weight must be a finite number above 0, got 0"),
        ("relative_error", {"alpha": 2}, "alpha must be a number from 0 to 1, got 2"),
        ("distillation", {"hard": "distillation"}, "learns from the base network itself"),
        ("distillation", {"hard": "cross_entrop"}, "Did you mean 'cross_entropy'"),
        ("combined", {"parts": []}, "list of at least one objective"),
        ("combined", {"parts": [{"name": "mse", "weight": -1}]}, "weight must be a finite number above 0, got -1"),
        ("combined", {"parts": [{"name": "mse", "settings": {"x": 1}}]}, "objective 'mse' has no setting 'x'"),
        ("combined", {"parts": [3]}, "must be a name"),
    ],
)
def test_settings_that_cannot_be_are_one_clear_error(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        objective(name, **settings)


def test_modules_that_are_not_there_are_named_with_the_nearest_one() -> None:
    made = objective("feature_distillation", at=["feature.5"])
    made.teacher = TinyNet().eval()
    with pytest.raises(ConfigError, match=r"no module 'feature\.5'.*Did you mean 'features\.5'"):
        made.begin(TinyNet(), Batch(*next(tiny_splits().train.batches(4))))


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (numbers(2, 4), torch.tensor([[1, 2, 3]]), "do not fit"),
        (numbers(2, 4), numbers(2, 3), "choose relative_error"),
        ({"scores": numbers(2, 4)}, torch.tensor([0, 1]), "dict of scores, in which no logits are known"),
    ],
)
def test_outputs_in_which_nothing_is_known_are_one_clear_error(outputs: Any, targets: Tensor, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        loss(objective("distillation"), outputs, targets, outputs)
