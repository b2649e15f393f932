"""Methods on the scales of batch norms: their defining equations, computed otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.space.tracing.trace import trace
from autoprune.sparsity.base import SparsityTraining, Subject
from autoprune.sparsity.channels import weights_of
from autoprune.sparsity.gates import GatedNetwork
from autoprune.sparsity.implicit import ImplicitSparsity
from autoprune.sparsity.ista import IstaOnScales, channel_memory
from autoprune.sparsity.network_slimming import NetworkSlimming
from autoprune.sparsity.variational import VariationalPruning, gaussian_divergence
from autoprune.testing.evaluators import TinyNet, tiny_splits
from autoprune.training.optimizers import make_optimizer

RECIPE = Recipe(epochs=4, lr=0.1, batch_size=32, schedule="constant")  # type: ignore[arg-type]


def subject_of(network: nn.Module | None = None, recipe: Recipe = RECIPE) -> Subject:
    """The tiny network, not trained, with scales that differ."""
    if network is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            network = TinyNet()
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.uniform_(module.weight, -1, 1)
                    nn.init.normal_(module.bias)
    space = trace(network, torch.zeros(1, 1, 6, 6)).space
    target = BudgetedSpace(space, {"flops": "50%"}).uniform()

    def batches(n: int) -> list[Batch]:
        return [Batch(*drawn) for drawn, _ in zip(tiny_splits().train.batches(32, seed=0), range(n), strict=False)]

    return Subject(network, space, target, recipe, 0, batches, 256, nn.functional.cross_entropy)


def backward(model: nn.Module, subject: Subject) -> Tensor:
    """Gradients of one batch."""
    batch = subject.batches(1)[0]
    model.train()
    model.zero_grad()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        loss: Tensor = nn.functional.cross_entropy(model(batch.inputs), batch.targets)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def gammas(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {f"features.{i}.weight": model.get_parameter(f"features.{i}.weight").detach().numpy().copy() for i in (1, 4)}


def test_slimming_adds_the_subgradient_and_ranks_by_scales() -> None:
    subject, method = subject_of(), NetworkSlimming(weight=0.03)
    model = method.set_up(subject)
    backward(model, subject)
    before = {name: model.get_parameter(name).grad.clone().numpy() for name in gammas(model)}  # type: ignore[union-attr]
    method.after_backward(model, done=0.5)
    for name, gamma in gammas(model).items():
        after = model.get_parameter(name).grad.numpy()  # type: ignore[union-attr]
        np.testing.assert_allclose(after - before[name], 0.03 * np.sign(gamma), rtol=1e-3, atol=1e-6)
    expected = np.concatenate([np.abs(gamma) for gamma in gammas(model).values()])
    np.testing.assert_allclose(method.scores(model).numpy(), expected, rtol=1e-6)


def test_slimming_keeps_the_channels_above_one_quantile() -> None:
    subject, method = subject_of(), NetworkSlimming()
    scores = subject.channels.split(method.scores(method.set_up(subject)))
    for threshold in np.sort(np.concatenate(scores))[3::4]:
        kept = tuple(max(4, int((s > threshold).sum())) for s in scores)
        if min(int((s > threshold).sum()) for s in scores) < 4:
            continue  # too narrow for this space
        cost = 36 * 9 * (kept[0] + kept[0] * kept[1]) + 4 * kept[1]
        assert method.widths(BudgetedSpace(subject.space, {"flops": cost}), scores) == kept


@pytest.mark.parametrize("make", [NetworkSlimming, IstaOnScales, ImplicitSparsity, VariationalPruning])
def test_networks_without_batch_norm_are_told_what_to_use(make: type[SparsityTraining]) -> None:
    class Plain(nn.Sequential):
        pass

    network = Plain(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(16, 4))
    with pytest.raises(ConfigError, match=r"no batch norm scales a channel.*sss, bar, group_lasso"):
        make().set_up(subject_of(network))


def test_ista_steps_by_hand_with_the_memory_of_channels() -> None:
    subject, method = subject_of(), IstaOnScales(weight=0.02, rescale=1.0)
    model = method.set_up(subject)
    memory = channel_memory(subject.channels, weights_of(model), subject.space).numpy()
    by_hand = np.concatenate([np.full(8, 1 + (9 + 12 * 9) / 36), np.full(12, 1 + (8 * 9 + 4) / 36)])
    np.testing.assert_allclose(memory, by_hand, rtol=1e-6)
    backward(model, subject)
    before = gammas(model)
    slopes = {name: model.get_parameter(name).grad.clone().numpy() for name in before}  # type: ignore[union-attr]
    method.after_backward(model, done=0.5)
    assert all(model.get_parameter(name).grad is None for name in before)
    with torch.no_grad():
        method.after_step(model, done=0.5)
    for (name, gamma), penalty in zip(before.items(), (memory[:8], memory[8:]), strict=True):
        moved = gamma - 0.1 * slopes[name]
        expected = np.sign(moved) * np.maximum(np.abs(moved) - 0.1 * 0.02 * penalty, 0)
        np.testing.assert_allclose(gammas(model)[name], expected, rtol=1e-5, atol=1e-7)


def test_rescaled_scales_are_smaller_and_outputs_stay() -> None:
    subject = subject_of()
    images = subject.batches(1)[0].inputs
    before, outputs = gammas(subject.network), subject.network.eval()(images).detach()
    model = IstaOnScales(rescale=0.1).set_up(subject)
    for name, gamma in gammas(model).items():
        np.testing.assert_allclose(gamma, 0.1 * before[name], rtol=1e-5)
    torch.testing.assert_close(model.eval()(images), outputs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frozen", ["features.1.weight", "features.4.bias", "features.3*", "head"])
def test_what_is_frozen_is_not_rescaled(frozen: str) -> None:
    by_pattern = subject_of(recipe=RECIPE.model_copy(update={"freeze": (frozen, f"network.{frozen}")}))
    by_flag = subject_of()
    for name, parameter in by_flag.network.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen.rstrip("*")))
    for subject in (by_pattern, by_flag):
        before = {name: value.clone() for name, value in subject.network.state_dict().items()}
        model = IstaOnScales(rescale=0.1).set_up(subject)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert model.get_parameter("features.0.weight").requires_grad


def test_freezing_what_is_not_rescaled_changes_nothing() -> None:
    subject = subject_of(recipe=RECIPE.model_copy(update={"freeze": ("features.0*",)}))
    before = gammas(subject.network)
    for name, gamma in gammas(IstaOnScales(rescale=0.1).set_up(subject)).items():
        np.testing.assert_allclose(gamma, 0.1 * before[name], rtol=1e-5)


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 0.2), (0.7, 0.05), (-1.2, 0.9)])
def test_the_divergence_of_gaussians_is_its_integral(mean: float, sigma: float) -> None:
    prior = 0.3

    def density(x: float, centre: float, spread: float) -> float:
        return math.exp(-0.5 * ((x - centre) / spread) ** 2) / (spread * math.sqrt(2 * math.pi))

    def log_ratio(x: float) -> float:
        return -0.5 * ((x - mean) / sigma) ** 2 - math.log(sigma) + 0.5 * (x / prior) ** 2 + math.log(prior)

    expected = quad(lambda x: density(x, mean, sigma) * log_ratio(x), mean - 12 * sigma, mean + 12 * sigma)[0]
    found = gaussian_divergence(torch.tensor(mean), torch.tensor(math.log(sigma)), prior)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_variational_scales_are_draws_and_shifts_follow_them() -> None:
    subject = subject_of()
    images, outputs = subject.batches(1)[0].inputs, subject.network.eval()(subject.batches(1)[0].inputs).detach()
    before = gammas(subject.network)
    model = VariationalPruning(sigma=0.2).set_up(subject)
    assert isinstance(model, GatedNetwork)
    torch.testing.assert_close(model.eval()(images), outputs, rtol=1e-3, atol=1e-3)
    weights = weights_of(model.network)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = [model.gates(weights) for _ in range(2000)]
    for name, gamma in before.items():
        drawn = torch.stack([one[name] for one in draws]).detach().numpy()
        np.testing.assert_allclose(drawn.mean(0), gamma, atol=0.02)
        np.testing.assert_allclose(drawn.std(0), 0.2 * np.abs(gamma), rtol=0.1)
        shift = name.replace("weight", "bias")
        tilde = weights[shift].detach().numpy()
        np.testing.assert_allclose(draws[0][shift].detach().numpy(), tilde * drawn[0], rtol=1e-5)
    torch.testing.assert_close(model.settle()(images), outputs, rtol=1e-3, atol=1e-3)


def test_a_faint_scale_does_not_throw_its_shift_about() -> None:
    """β / γ of such a channel would be hundreds, and each draw of γ as far off."""
    subject = subject_of()
    batch = subject.batches(1)[0]
    images = batch.inputs
    name = next(iter(gammas(subject.network)))
    weights = weights_of(subject.network)
    with torch.no_grad():
        weights[name][0], weights[name.replace("weight", "bias")][0] = 1e-3, -0.5
        outputs = subject.network.eval()(images)
    model = VariationalPruning().set_up(subject)
    torch.testing.assert_close(model.eval()(images), outputs, rtol=1e-3, atol=1e-3)
    plain = F.cross_entropy(outputs, batch.targets)
    model.train()
    losses = [float(F.cross_entropy(model(images), batch.targets)) for _ in range(20)]
    assert max(losses) < float(plain) + 1.0
    loss = F.cross_entropy(model(images), batch.targets)
    (slope,) = torch.autograd.grad(loss, [weights[name]])
    assert float(slope[0].abs()) < 5.0


def test_variational_training_runs_in_double_precision() -> None:
    subject = subject_of()
    subject.network.double()
    method = VariationalPruning()
    model = method.set_up(subject)
    batch = subject.batches(1)[0]
    (F.cross_entropy(model(batch.inputs.double()), batch.targets) + method.penalty(model, done=0.0)).backward()
    before = [log_sigma.detach().clone() for log_sigma in model.gates.log_sigmas]
    method.after_backward(model, done=0.0)
    with torch.no_grad():
        method.after_step(model, done=0.0)
    assert all(not torch.equal(a, b) for a, b in zip(before, model.gates.log_sigmas, strict=True))


def test_implicit_training_puts_l2_into_the_gradient_of_adam() -> None:
    method = ImplicitSparsity(lr=0.01, weight_decay=0.1)
    recipe = method.recipe(RECIPE)
    network = nn.Linear(1, 2, bias=False)
    weight = np.array([[2.0], [-1.0]])
    with torch.no_grad():
        network.weight.copy_(torch.from_numpy(weight))
    optimizer = make_optimizer(recipe, network)
    network.weight.grad = torch.tensor([[0.3], [0.1]])
    optimizer.step()
    slope = np.array([[0.3], [0.1]]) + 0.1 * weight  # the penalty is part of what Adam divides
    np.testing.assert_allclose(network.weight.detach().numpy(), weight - 0.01 * np.sign(slope), rtol=1e-4)
    with pytest.raises(ConfigError, match=r"optimizer must be one of adam, .*got 'adamw'"):
        ImplicitSparsity(optimizer="adamw")
