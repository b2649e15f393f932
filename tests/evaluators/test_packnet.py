"""Several tasks in one network: against a loop written out in torch, shares against sums, and what never changes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autoprune.config.space import DensityOptions
from autoprune.config.training import Recipe
from autoprune.data import splits_from
from autoprune.errors import ConfigError
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.packed import PackedNetwork, shares_in_use
from autoprune.evaluators.packnet import PackNet
from autoprune.importance.members import rank_channels
from autoprune.space.copying import copy_network
from autoprune.space.options.density import density_space
from autoprune.space.tracing.trace import trace
from autoprune.tasks.callable import CallableTask
from autoprune.tasks.classification import ClassificationTask
from autoprune.testing.evaluators import tiny_bench, tiny_density_bench

CPU = torch.device("cpu")


def blobs(examples: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % 6
    centres = torch.randn(6, 5, generator=torch.Generator().manual_seed(7))
    return TensorDataset(centres[labels] + 0.4 * torch.randn(examples, 5, generator=generator), labels)


def perceptron() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 14), nn.BatchNorm1d(14), nn.ReLU(), nn.Linear(14, 6))


def factory_of(recipe: Recipe, model: nn.Module | None = None, **density: Any) -> CandidateFactory:
    model = perceptron() if model is None else model
    task = ClassificationTask(splits_from((blobs(60, 1), blobs(48, 2))), recipe, device=CPU)
    space = density_space(trace(model, torch.zeros(2, 5)).space, DensityOptions(**{"steps": 14, **density}))
    return CandidateFactory(model, space, rank_channels(model, space, "magnitude"), task, 1, inherit=())


PLAIN = Recipe(epochs=4, lr=0.5, batch_size=60, momentum=0.0, nesterov=False, weight_decay=0.02, schedule="constant")


def written_out(model: nn.Sequential, kept: tuple[float, float], epochs: tuple[int, int], lr: float) -> Any:
    """Three tasks of two classes, all examples of a task in each step: (values, owners, statistics after task 1)."""
    x, y = blobs(60, 1).tensors
    first, norm, _, last = model
    values = {
        name: tensor.detach().clone()
        for name, tensor in (("w", first.weight), ("b", first.bias), ("v", last.weight), ("c", last.bias))
    } | {"g": norm.weight.detach().clone(), "h": norm.bias.detach().clone()}  # type: ignore[union-attr, operator]
    owner_w, owner_v = torch.zeros(14, 5), torch.zeros(6, 14)
    fixed: tuple[Tensor, Tensor] | None = None
    left = next(q for q in np.linspace(0, 1, 200001) if (q + q**2 + q**3) / 3 >= 1 - kept[0])
    for task in (1, 2, 3):
        rows = torch.zeros(6)
        rows[2 * task - 2 : 2 * task] = 1
        mine = x[rows[y] > 0], y[rows[y] > 0] - (2 * task - 2)
        for retrains in (False, True):
            if retrains:
                number = round(70 * (1 - left**task)) - round(70 * (1 - left ** (task - 1)))
                order = sorted(
                    (-float(values["w"][i, j].abs()), i, j) for i in range(14) for j in range(5) if not owner_w[i, j]
                )
                for _, i, j in order[:number]:
                    owner_w[i, j] = task
                values["w"][owner_w == 0] = 0.0
                inside = [2 * task - 2, 2 * task - 1]
                ordered = sorted((-float(values["v"][i, j].abs()), i, j) for i in inside for j in range(14))
                for _, i, j in ordered[: round(kept[1] * 28)]:
                    owner_v[i, j] = task
                values["v"][inside] = values["v"][inside] * (owner_v[inside] == task)
            which = {
                "w": (owner_w == (task if retrains else 0)).float(),
                "v": (owner_v == task).float() if retrains else rows[:, None].expand(6, 14),
                "c": rows,
                **{name: torch.full((14,), float(task == 1)) for name in "bgh"},
            }
            for _ in range(epochs[retrains]):
                given = {name: value.clone().requires_grad_() for name, value in values.items()}
                hidden = mine[0] @ given["w"].T + given["b"]
                mean, var = (hidden.mean(0), hidden.var(0, unbiased=False)) if fixed is None else fixed
                hidden = torch.relu((hidden - mean) / torch.sqrt(var + 1e-5) * given["g"] + given["h"])
                logits = (hidden @ given["v"].T + given["c"])[:, 2 * task - 2 : 2 * task]
                (-torch.log_softmax(logits, 1)[torch.arange(len(logits)), mine[1]].mean()).backward()
                for name, one in given.items():
                    assert one.grad is not None
                    values[name] = values[name] - lr * which[name] * (one.grad + 0.02 * values[name])
        if fixed is None:
            hidden = mine[0] @ values["w"].T + values["b"]
            spread = hidden.var(0)  # unbiased, as torch keeps it
            fixed = hidden.mean(0), torch.where(spread < 1e-9, 1.0, spread)  # 1: that of the base network
    return values, {"0.weight": owner_w, "3.weight": owner_v}, fixed


def test_it_is_the_loop_of_the_paper() -> None:
    factory = factory_of(PLAIN)
    widths = factory.space.nearest([0.5 * full for full in factory.space.full])
    kept = [d.kept(w) / math.prod(d.shape) for d, w in zip(factory.space.densities, widths, strict=True)]
    made = PackNet(factory, tasks=3, epochs=6, retrain_epochs=3, lr_share=0.2)
    packed = made.packed(widths, seed=0)
    model = factory.model
    assert isinstance(model, nn.Sequential)
    values, owners, statistics = written_out(model, (kept[0], kept[1]), (6, 3), 0.1)
    found = dict(packed.network.named_parameters()) | dict(packed.network.named_buffers())
    for name, owner in owners.items():
        assert torch.equal(packed.owners[name].float(), owner)
        assert set(owner.unique().tolist()) == {0, 1, 2, 3}
    letters = {"0.weight": "w", "0.bias": "b", "1.weight": "g", "1.bias": "h", "3.weight": "v", "3.bias": "c"}
    for name, letter in letters.items():
        torch.testing.assert_close(found[name].detach(), values[letter], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["1.running_mean"], statistics[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["1.running_var"], statistics[1], rtol=1e-4, atol=1e-5)
    x, y = blobs(48, 2).tensors
    right = []
    for task in (1, 2, 3):
        weights = torch.where((owners["0.weight"] > 0) & (owners["0.weight"] <= task), values["w"], 0.0)
        hidden = (x @ weights.T + values["b"] - statistics[0]) / torch.sqrt(statistics[1] + 1e-5)
        logits = torch.relu(hidden * values["g"] + values["h"]) @ values["v"].T + values["c"]
        mine = (y == 2 * task - 2) | (y == 2 * task - 1)
        decided = logits[mine][:, 2 * task - 2 : 2 * task].argmax(1) + 2 * task - 2
        right.append(100 * float((decided == y[mine]).double().mean()))
    score = made.evaluate(widths, seed=0)
    assert float(score) == pytest.approx(sum(right) / 3)
    assert len(set(right)) > 1 or right[0] < 100  # else nothing would be told apart


@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.75, 1.0])
def test_tasks_use_on_average_what_widths_say_and_keep_the_same_share_of_what_is_free(share: float, tasks: int) -> None:
    used = np.array(shares_in_use(share, tasks))
    assert used.mean() == pytest.approx(share)
    free = np.concatenate([[1.0], 1 - used[:-1]])
    if share < 1:
        assert np.allclose(np.diff([0.0, *used]) / free, used[0])


def moving() -> Recipe:
    """What moves weights without gradients: decay, momentum, averages of weights."""
    return Recipe(epochs=2, lr=0.2, batch_size=16, weight_decay=0.05, momentum=0.9, ema=0.9, clip_norm=1.0)


def test_what_a_task_has_is_never_changed_by_later_ones() -> None:
    factory = tiny_density_bench()
    task = ClassificationTask(factory.task._data, moving(), device=CPU)  # type: ignore[attr-defined]
    factory = replace(factory, task=task)
    widths, x = factory.space.uniform(0.4), torch.randn(32, 1, 6, 6, generator=torch.Generator().manual_seed(5))
    kept: list[tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]] = []

    def look(packed: PackedNetwork, number: int) -> None:
        network = packed.of_task(number).eval()
        own = {name: (owner == number) for name, owner in packed.owners.items()}
        kept.append((copy_network(packed.network).state_dict(), network(x).detach(), own))

    packed = PackNet(factory, tasks=2, epochs=2, lr_share=1.0).packed(widths, seed=0, done=look)
    (first, outputs, own), (_, later, others) = kept
    assert torch.equal(packed.of_task(1).eval()(x), outputs)
    assert torch.equal(packed.of_task(2).eval()(x), later)
    last = packed.network.state_dict()
    for name, before in first.items():
        if name in own:
            assert torch.equal(before[own[name]], last[name][own[name]])
            assert not torch.equal(before, last[name])  # others have trained theirs
            assert not (own[name] & others[name]).any()
        elif not name.startswith("head"):
            assert torch.equal(before, last[name])  # biases, norms and their statistics
    assert torch.equal(first["head.bias"][:2], last["head.bias"][:2])


def test_masks_share_no_weight_and_use_what_was_paid_for() -> None:
    factory = tiny_density_bench()
    for ratio in (0.2, 0.6, 1.0):
        widths = factory.space.uniform(ratio)
        packed = PackNet(factory, tasks=2).packed(widths, seed=0)
        for density, width in zip(factory.space.densities, widths, strict=True):
            used = [packed.in_use(task)[density.tensor] for task in (1, 2)]
            counted = [int((packed.of_task(t).network.get_parameter(density.tensor) != 0).sum()) for t in (1, 2)]
            assert counted == used
            if density.tensor == "head.weight":
                assert max(used) <= density.kept(width)
            else:
                assert used[0] <= used[1]
                assert sum(used) / 2 == pytest.approx(density.kept(width), abs=0.5)


def test_a_channel_that_the_first_task_cuts_off_can_be_trained_by_later_ones() -> None:
    model = perceptron()
    with torch.no_grad():
        model[0].weight[3] *= 1e-3  # type: ignore[index, operator]
        model[1].running_var.fill_(0.7)  # type: ignore[union-attr, operator]
    factory, first = factory_of(PLAIN, model), []

    def look(packed: PackedNetwork, number: int) -> None:
        if number == 1:
            first.append(packed.owners["0.weight"][3].clone())

    packed = PackNet(factory, tasks=2, lr_share=0.02).packed(factory.space.uniform(0.3), seed=0, done=look)
    assert not first[0].any()
    variance = packed.network.get_buffer("1.running_var")
    assert variance[3] == 0.7
    assert (variance[packed.network.get_parameter("0.weight").abs().sum(1) > 0] > 1e-6).all()


def test_what_cannot_hold_several_tasks_is_refused() -> None:
    factory = factory_of(PLAIN)
    for settings, told in (
        ({"tasks": 1}, "tasks must be at least 2"),
        ({"tasks": 4}, "6 classes make at most 3 tasks, got 4"),
        ({"retrain_epochs": 0}, "retrain_epochs must be at least 1"),
        ({"lr_share": 0}, "lr_share must be a number above 0"),
    ):
        with pytest.raises(ConfigError, match=told):
            PackNet(factory, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="this space has no densities"):
        PackNet(tiny_bench())
    with pytest.raises(ConfigError, match="has 1x2"):
        PackNet(factory_of(PLAIN, pattern="1x2", layers=["3"]))
    with pytest.raises(ConfigError, match="compete inside their output"):
        PackNet(factory_of(PLAIN, compare="output"))
    with pytest.raises(ConfigError, match="not those of a linear layer"):
        PackNet(factory_of(PLAIN, nn.Sequential(*perceptron(), nn.LogSoftmax(dim=1))))
    other = replace(factory, task=CallableTask(lambda model: 0.0, None, device=CPU))
    with pytest.raises(ConfigError, match="choose the task classification"):
        PackNet(other)


def test_a_classifier_that_has_no_density_has_rows_for_each_task() -> None:
    factory = factory_of(PLAIN, layers=["0"])
    rows: list[Tensor] = [factory.model.get_parameter("3.weight").detach().clone()]

    def look(packed: PackedNetwork, number: int) -> None:
        rows.append(packed.network.get_parameter("3.weight").detach().clone())

    packed = PackNet(factory, tasks=3, lr_share=1.0).packed(factory.space.uniform(0.5), seed=0, done=look)
    assert set(packed.owners) == {"0.weight"}
    for task in (1, 2, 3):
        changed = (rows[task] != rows[task - 1]).any(1)
        assert changed.nonzero()[:, 0].tolist() == [2 * task - 2, 2 * task - 1]
