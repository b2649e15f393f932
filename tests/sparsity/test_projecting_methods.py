"""Methods that cluster, project or shrink what belongs to a channel: their defining equations, computed otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from test_scale_methods import RECIPE, backward, subject_of
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.importance.members import ranking_of
from autoprune.space.copying import copy_network
from autoprune.space.cutting.slicing import slice_model
from autoprune.sparsity.admm import AdmmPruning, project
from autoprune.sparsity.base import SparsityTraining
from autoprune.sparsity.channels import weights_of
from autoprune.sparsity.csgd import CentripetalSGD
from autoprune.sparsity.energy import EnergyAware
from autoprune.sparsity.group_lasso import GroupLasso, shrink
from autoprune.sparsity.half_space import HalfSpaceProjection
from autoprune.sparsity.soft_filter import SoftFilterPruning, filter_scores
from autoprune.testing.evaluators import tiny_splits
from autoprune.training.loop import train


def arrays(model: nn.Module, *, of: str = "") -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    named = model.named_parameters()
    tensors = {name: (p.grad if of == "grad" else p) for name, p in named}
    return {name: t.detach().double().numpy().copy() for name, t in tensors.items() if t is not None}


def test_centripetal_gradients_are_equation_4() -> None:
    subject, method = subject_of(), CentripetalSGD(strength=0.05)
    model = method.set_up(subject)
    owner = method._owner.numpy()
    assert [len(set(owner[:8])), len(set(owner[8:]))] == list(subject.target)
    backward(model, subject)
    before, weights = arrays(model, of="grad"), arrays(model)
    method.after_backward(model, done=0.5)
    after = arrays(model, of="grad")
    for name, start, width, share in (
        ("features.0.weight", 0, 8, 1.0),
        ("features.3.weight", 8, 12, 1.0),
        ("features.4.weight", 8, 12, 0.1),
        ("features.1.bias", 0, 8, 0.1),
    ):
        for j in range(width):
            cluster = [k for k in range(width) if owner[start + k] == owner[start + j]]
            mean, centre = before[name][cluster].mean(0), weights[name][cluster].mean(0)
            expected = mean - share * 0.05 * (centre - weights[name][j])
            np.testing.assert_allclose(after[name][j], expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(after["head.weight"], before["head.weight"])


def test_cutting_clusters_of_equal_filters_loses_nothing() -> None:
    subject, method = subject_of(), CentripetalSGD()
    model = method.set_up(subject)
    owner, images = method._owner, subject.batches(1)[0].inputs
    with torch.no_grad():
        for name, part in (("0", owner[:8]), ("1", owner[:8]), ("3", owner[8:] - 8), ("4", owner[8:] - 8)):
            module = model.get_submodule(f"features.{name}")
            for value in [*module.parameters(), *(b for b in module.buffers() if b.ndim)]:
                value.copy_(value[part])
        outputs = model.eval()(images)
        scores = subject.channels.split(method.scores(model))
        settled = method.settle(copy_network(model))
        torch.testing.assert_close(settled.eval()(images), outputs, rtol=1e-4, atol=1e-5)
        cut = slice_model(settled, subject.space, subject.target, ranking_of(subject.space, scores)).eval()
        torch.testing.assert_close(cut(images), outputs, rtol=1e-4, atol=1e-5)


def test_the_projection_is_the_nearest_network_of_the_target_widths() -> None:
    subject = subject_of()
    found = project(subject.channels, weights_of(subject.network), subject.target)
    weights = arrays(subject.network)
    for name, width in zip(("features.0.weight", "features.3.weight"), subject.target, strict=True):
        norms = np.sqrt((weights[name] ** 2).sum((1, 2, 3)))
        kept = np.argsort(-norms)[:width]
        expected = np.zeros_like(weights[name])
        expected[kept] = weights[name][kept]
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-6)


def test_admm_adds_its_penalty_and_updates_z_and_u() -> None:
    subject, method = subject_of(), AdmmPruning(rho=0.3, updates=2, raised=1.0)
    model = method.set_up(subject)
    name = "features.3.weight"
    z = method._z[name].double().numpy()
    backward(model, subject)
    before, weight = arrays(model, of="grad")[name], arrays(model)[name]
    method.after_backward(model, done=0.1)
    np.testing.assert_allclose(arrays(model, of="grad")[name] - before, 0.3 * (weight - z), rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        method.after_step(model, done=0.1)
        assert np.array_equal(method._z[name].double().numpy(), z)  # not yet
        model.get_parameter(name).mul_(0.5).add_(0.01)
        method.after_step(model, done=0.5)
    moved = arrays(model)[name]
    norms = np.sqrt((moved**2).sum((1, 2, 3)))
    kept = np.isin(np.arange(12), np.argsort(-norms)[: subject.target[1]])[:, None, None, None]
    np.testing.assert_allclose(method._z[name].numpy(), moved * kept, rtol=1e-5)
    np.testing.assert_allclose(method._y[name].numpy(), moved * ~kept, rtol=1e-5)  # U was 0


@pytest.mark.parametrize("updates", [1, 2, 5])
def test_admm_updates_as_often_as_it_is_told(updates: int) -> None:
    subject, method = subject_of(), AdmmPruning(updates=updates)
    model, seen = method.set_up(subject), []
    for step in range(60):
        before = method._z
        with torch.no_grad():
            method.after_step(model, done=(step + 0.5) / 60)
        if method._z is not before:
            seen.append(step)
    assert len(seen) == updates
    np.testing.assert_allclose(np.diff([0, *seen, 60]), 60 / (updates + 1), atol=1)


def test_shrinking_is_the_proximal_operator_of_the_group_lasso() -> None:
    subject = subject_of()
    channels, rng = subject.channels, np.random.default_rng(0)
    before = arrays(subject.network)["features.0.weight"]
    threshold = rng.uniform(0.2, 1.5, size=8)
    shrink(channels, weights_of(subject.network), torch.tensor([*threshold, *[0.0] * 12]).float(), channels.written)
    after = arrays(subject.network)["features.0.weight"]
    for i in range(8):
        point = before[i].ravel()

        def objective(w: np.ndarray, t: float = threshold[i], v: np.ndarray = point) -> float:  # type: ignore[type-arg]
            return 0.5 * float(((w - v) ** 2).sum()) + t * float(np.sqrt((w**2).sum() + 1e-18))

        solved = minimize(objective, point, method="BFGS", options={"gtol": 1e-9}).x
        assert objective(after[i].ravel()) <= objective(solved) + 1e-6
        np.testing.assert_allclose(after[i].ravel(), solved, atol=2e-3)


def test_the_penalty_of_joint_groups_and_what_it_ranks_by() -> None:
    subject, method = subject_of(), GroupLasso(weight=0.1, step="gradient")
    model = method.set_up(subject)
    w = arrays(model)
    first, second, head = w["features.0.weight"], w["features.3.weight"], w["head.weight"]
    squares = [(first[i] ** 2).sum() + (second[:, i] ** 2).sum() for i in range(8)]
    squares += [(second[i] ** 2).sum() + (head[:, i] ** 2).sum() for i in range(12)]
    sizes = np.array([9 + 12 * 9] * 8 + [8 * 9 + 4] * 12)
    expected = 0.1 * (np.sqrt(sizes) * np.sqrt(squares)).sum()
    assert method.penalty(model, done=0.2).item() == pytest.approx(expected, rel=1e-5)  # type: ignore[union-attr]
    norms = np.sqrt(squares)
    shares = np.concatenate([norms[:8] / norms[:8].mean(), norms[8:] / norms[8:].mean()])
    np.testing.assert_allclose(method.scores(model).numpy(), shares, rtol=1e-5)
    assert GroupLasso().set_up(subject) is subject.network


def test_soft_filters_are_zero_after_an_epoch_and_not_before() -> None:
    subject, method = subject_of(), SoftFilterPruning()
    model = method.set_up(subject)
    name = "features.3.weight"
    before = arrays(model)[name]
    with torch.no_grad():
        method.after_step(model, done=0.9 / RECIPE.epochs)
        assert np.array_equal(arrays(model)[name], before)
        method.after_step(model, done=1.1 / RECIPE.epochs)
    norms = np.sqrt((before**2).sum((1, 2, 3)))
    gone = np.argsort(norms)[: 12 - subject.target[1]]
    zero = (arrays(model)[name] == 0).all((1, 2, 3))
    assert sorted(np.flatnonzero(zero)) == sorted(gone)
    rows = before.reshape(12, -1)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2).sum(1)
    found = filter_scores(subject_of().channels, weights_of(subject_of().network), "fpgm")[8:]
    np.testing.assert_allclose(found.numpy(), distances, rtol=1e-4)


def test_groups_that_leave_their_half_space_are_zero_for_good() -> None:
    subject, method = subject_of(), HalfSpaceProjection(weight=0.2, epsilon=0.5, begin=0.5)
    model = method.set_up(subject)
    names = ("features.0.weight", "features.1.weight", "features.1.bias")
    backward(model, subject)
    x, slopes = arrays(model), arrays(model, of="grad")
    method.after_backward(model, done=0.6)
    norm = np.sqrt(sum((x[name][2] ** 2).sum() for name in names))
    for name in names:
        expected = slopes[name][2] + 0.2 * x[name][2] / norm
        np.testing.assert_allclose(arrays(model, of="grad")[name][2], expected, rtol=1e-3, atol=1e-6)
    factors = {0: 0.9, 1: 0.4, 2: -1.0}
    with torch.no_grad():
        for channel, factor in factors.items():
            for name in names:
                model.get_parameter(name)[channel] *= factor
        method.after_step(model, done=0.6)
        gone = [not any(arrays(model)[name][channel].any() for name in names) for channel in factors]
        assert gone == [False, True, True]
        for name in names:
            model.get_parameter(name)[1] = 1.0
        method.after_backward(model, done=0.7)
        method.after_step(model, done=0.7)
    assert not any(arrays(model)[name][1].any() for name in names)
    whole: Tensor = method.scores(model)
    assert float(whole[1]) == 0


def test_groups_that_are_gone_are_zero_in_averages_of_weights_too() -> None:
    """An average remembers what they were, and would give them back."""
    recipe = RECIPE.model_copy(update={"epochs": 2, "ema": 0.99})
    subject = subject_of(recipe=recipe)
    before = copy_network(subject.network)
    method = HalfSpaceProjection(weight=0.05, epsilon=0.9, begin=0.2)
    model = method.set_up(subject)
    train(model, tiny_splits().train, recipe, seed=0, device=torch.device("cpu"), terms=[method])
    gone = method._gone[:8].numpy()
    assert gone.any()
    assert not gone.all()
    names = ("features.0.weight", "features.1.weight", "features.1.bias")
    assert all(arrays(model)[name][gone].any() for name in names)  # the averages
    assert np.array_equal(method.scores(model).numpy()[:8] == 0, gone)
    settled = method.settle(model)
    assert not any(arrays(settled)[name][gone].any() for name in names)
    images = subject.batches(1)[0].inputs
    keeps = [int((~method._gone[:8]).sum()), 12]
    widths = subject.space.nearest(keeps)
    ranking = ranking_of(subject.space, subject.channels.split(method.scores(settled)))
    if widths[0] == keeps[0]:
        cut = slice_model(settled, subject.space, widths, ranking).eval()
        torch.testing.assert_close(cut(images), settled.eval()(images), rtol=1e-4, atol=1e-5)
    assert not torch.equal(before.get_parameter(names[0]), settled.get_parameter(names[0]))


@pytest.mark.parametrize("make", [CentripetalSGD, SoftFilterPruning, HalfSpaceProjection, EnergyAware])
def test_what_moves_weights_beside_their_training_refuses_frozen_ones(make: type[SparsityTraining]) -> None:
    patterns = ("features.0*", "head", "network.features.0*", "network.head")  # as a sparsity training has them
    subject = subject_of(recipe=RECIPE.model_copy(update={"freeze": patterns}))
    with pytest.raises(ConfigError, match=r"training\.freeze keeps features\.0\*, head; leave freeze out"):
        make().set_up(subject)


def test_weights_that_take_no_gradients_are_not_set_to_0() -> None:
    subject, kept = subject_of(), ("features.0.weight", "features.1.weight", "head.weight")
    for name in kept:
        subject.network.get_parameter(name).requires_grad_(False)
    before = arrays(subject.network)
    half_space, energy = HalfSpaceProjection(), EnergyAware(tolerance=0.9)
    model = half_space.set_up(subject)
    half_space._gone[:] = True
    half_space.settle(model)
    energy.set_up(subject)
    energy._open[:] = 0
    energy.settle(model)
    after = arrays(model)
    for name in kept:
        assert np.array_equal(after[name], before[name])
    for name in ("features.1.bias", "features.3.weight", "features.4.weight"):
        assert not after[name].any()


def test_admm_keeps_its_multiplier_where_rho_grows() -> None:
    """Y = ρ U: the gradient of a pull that nothing updated is ρ' (W - Z) + ρ U, and so is the next update's."""
    subject, method = subject_of(), AdmmPruning(rho=0.3, updates=2, raised=100.0)
    model, name = method.set_up(subject), "features.3.weight"
    with torch.no_grad():
        method.after_step(model, done=0.5)
    z, weight = method._z[name].double().numpy(), arrays(model)[name]
    multiplier = 0.3 * 100**0.5 * (weight - z)  # U was 0
    assert np.abs(multiplier).max() > 0.1
    backward(model, subject)
    before = arrays(model, of="grad")[name]
    method.after_backward(model, done=1.0)
    expected = 0.3 * 100 * (weight - z) + multiplier
    np.testing.assert_allclose(arrays(model, of="grad")[name] - before, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        method.after_step(model, done=1.0)
    shifted = weight + multiplier / (0.3 * 100)
    kept = np.isin(np.arange(12), np.argsort(-np.sqrt((shifted**2).sum((1, 2, 3))))[: subject.target[1]])
    np.testing.assert_allclose(method._z[name].numpy(), shifted * kept[:, None, None, None], rtol=1e-4, atol=1e-6)


def test_filters_that_were_set_to_0_before_a_batch_norm_come_back_no_faster_than_the_others_move() -> None:
    subject, method = subject_of(), SoftFilterPruning()
    model = method.set_up(subject).train()
    method.settle(model)
    backward(model, subject)
    before = arrays(model, of="grad")
    kept = {"features.0.weight": method._kept[:8].numpy(), "features.3.weight": method._kept[8:].numpy()}
    method.after_backward(model, done=0.5)
    after = arrays(model, of="grad")
    for name, here in kept.items():
        was, now = (np.linalg.norm(found[name].reshape(len(here), -1), axis=1) for found in (before, after))
        assert was[~here].max() > 10 * was[here].max()  # what the method has to stand
        assert np.array_equal(now[here], was[here])
        assert now[~here].max() == pytest.approx(was[here].mean(), rel=1e-4)
