"""Methods with gates: hard-concrete gates and the barrier, codes of batches, adversarial masks, computed otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_scale_methods import subject_of
from torch import nn

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.sparsity.autopruner import AutoPruner, CodedNetwork, drawn_to
from autoprune.sparsity.bar import (
    BudgetAwareRegularization,
    HardConcreteGates,
    barrier,
    moving_budget,
)
from autoprune.sparsity.gal import GenerativeAdversarialLearning, discriminator_loss, flat_outputs
from autoprune.sparsity.own_parameters import OwnOptimizer


def test_hard_concrete_gates_open_as_often_as_they_say() -> None:
    channels = subject_of().channels
    gates = HardConcreteGates(channels, 0.5)
    rng, n = np.random.default_rng(0), 400_000
    for log_alpha in (-2.0, 0.0, 1.5):
        with torch.no_grad():
            gates.log_alpha.fill_(log_alpha)
        u = rng.uniform(size=n)
        s = 1 / (1 + np.exp(-(np.log(u) - np.log(1 - u) + log_alpha) / (2 / 3)))
        z = np.clip(s * 1.2 - 0.1, 0, 1)
        assert gates.opened()[0].item() == pytest.approx((z > 0).mean(), abs=3e-3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            drawn = torch.cat([gates.factors().detach() for _ in range(4000)]).numpy()
        assert drawn.mean() == pytest.approx(z.mean(), abs=8e-3)
        assert (drawn == 0).mean() == pytest.approx((z == 0).mean(), abs=8e-3)
        assert (drawn == 1).mean() == pytest.approx((z == 1).mean(), abs=8e-3)
    assert float(HardConcreteGates(channels, 0.9).opened()[0]) == pytest.approx(0.9, rel=1e-5)


def test_the_barrier_rises_to_the_budget_and_the_budget_moves() -> None:
    assert barrier(0.5, 0.6, 0.7) == barrier(0.6, 0.6, 0.7) == 0
    assert barrier(0.65, 0.6, 0.7) == pytest.approx(0.05**2 / (0.05 * 0.1))
    assert barrier(0.69, 0.6, 0.7) > barrier(0.66, 0.6, 0.7)
    assert barrier(0.8, 0.6, 0.7) == barrier(0.7, 0.6, 0.7) == 10
    path = [moving_budget(done, 0.4) for done in np.linspace(0, 1, 101)]
    assert path[0] == pytest.approx(1)
    assert path[-1] == path[80] == 0.4
    assert path[40] == pytest.approx(0.7)  # half of the way in the middle
    assert path == sorted(path, reverse=True)


def test_bar_presses_by_the_expected_cost_and_reads_widths_off_open_gates() -> None:
    subject, method = subject_of(), BudgetAwareRegularization(weight=2.0)
    model = method.set_up(subject)
    method.begin(model)
    with torch.no_grad():
        model.gates.log_alpha.copy_(torch.linspace(-6, 4, subject.channels.number))  # type: ignore[union-attr, operator]
    log_alpha = np.linspace(-6, 4, subject.channels.number)
    opened = 1 / (1 + np.exp(-(log_alpha - 2 / 3 * math.log(1 / 11))))
    a, b = opened[:8].sum(), opened[8:].sum()
    cost = (36 * 9 * (a + a * b) + 4 * b) / (36 * 9 * (8 + 96) + 48)
    z = 1.2 / (1 + np.exp(-log_alpha)) - 0.1
    wide = [max(1, (z[:8] > 0).sum()), (z[8:] > 0).sum()]
    volume = (36 * 9 * (wide[0] + wide[0] * wide[1]) + 4 * wide[1]) / (36 * 9 * 104 + 48)
    penalty = method.penalty(model, done=0.3)
    x, y = subject.target
    limit = moving_budget(0.3, (36 * 9 * (x + x * y) + 4 * y) / (36 * 9 * 104 + 48))
    assert float(penalty) == pytest.approx(2 * cost * barrier(volume, 0.95 * limit, limit), rel=2e-2)
    scores = subject.channels.split(method.scores(model))
    widths = method.widths(BudgetedSpace(subject.space, {"flops": "100%"}), scores)
    assert widths[0] >= wide[0]
    assert widths[1] >= wide[1]


def test_steps_with_one_second_moment_keep_the_ratios_of_gradients() -> None:
    own = nn.Parameter(torch.zeros(3))
    adam = OwnOptimizer([own], lr=0.1, shared=True)
    for _ in range(5):
        own.grad = torch.tensor([1.0, 2.0, -4.0])
        adam.take()
        assert own.grad is None
        adam.step()
    values = own.detach().numpy()
    np.testing.assert_allclose(values, -0.5 * np.array([1, 2, -4]) / math.sqrt(21 / 3), rtol=1e-4)
    plain = nn.Parameter(torch.zeros(3))
    alone, reference = OwnOptimizer([plain], lr=0.1), nn.Parameter(torch.zeros(3))
    theirs = torch.optim.Adam([reference], lr=0.1)
    for step in range(4):
        gradient = torch.tensor([1.0, -0.2 * step, 3.0])
        plain.grad, reference.grad = gradient.clone(), gradient.clone()
        alone.take()
        alone.step()
        theirs.step()
    torch.testing.assert_close(plain, reference)


def test_codes_multiply_what_reads_the_channels() -> None:
    subject, method = subject_of(), AutoPruner(alpha=3.0)
    model = method.set_up(subject)
    assert isinstance(model, CodedNetwork)
    images = subject.batches(1)[0].inputs
    features, head = subject.network.features, subject.network.head
    assert isinstance(features, nn.Sequential)
    model.alpha = 3.0
    with torch.no_grad():
        for module in subject.network.modules():
            module.training = False
        maps = features[:3](images)
        pooled = nn.functional.max_pool2d(maps.mean(0), 2).flatten()
        layer = model.layers["0"]
        first = torch.sigmoid(3.0 * (layer.weight @ pooled + layer.bias))
        second_maps = features[3:](maps * first[None, :, None, None])
        layer = model.layers["1"]
        second = torch.sigmoid(3.0 * (layer.weight @ second_maps.mean((2, 3)).mean(0) + layer.bias))  # read by the head
        expected = head(second_maps.mean((2, 3)) * second)  # type: ignore[operator]
        model.training = True
        found = model(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.codes, torch.cat([first, second]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.averages, 0.9 + 0.1 * model.codes)


def test_codes_are_drawn_by_their_distance() -> None:
    share = torch.tensor(0.8, requires_grad=True)
    found = drawn_to(share, 0.5)
    assert float(found) == pytest.approx(100 * 0.3 * 0.3**2, rel=1e-5)
    found.backward()  # type: ignore[no-untyped-call]
    assert float(share.grad) == pytest.approx(100 * 0.3 * 2 * 0.3, rel=1e-5)  # type: ignore[arg-type]


def test_the_masked_network_is_to_fool_and_to_imitate() -> None:
    subject, method = subject_of(), GenerativeAdversarialLearning(mse=0.5, adversarial=2.0)
    model = method.set_up(subject)
    goal, batch = method.objective(), subject.batches(1)[0]
    with torch.no_grad():
        model.gates.values.mul_(0.7)  # type: ignore[union-attr, operator]
    goal.teacher = subject_of().network.eval()
    model.eval()
    with torch.no_grad():
        loss = float(goal(model, batch))
        base = goal.teacher(batch.inputs).numpy().astype(np.float64)
        masked = model(batch.inputs)
        logits = method._discriminator(masked).double().numpy()
    masked = masked.double().numpy()
    fooled = -np.log(1 / (1 + np.exp(-logits))).mean()
    assert loss == pytest.approx(2 * fooled + 0.5 * ((base - masked) ** 2).sum(1).mean() / 2, rel=1e-4)
    real, fake = np.array([0.3, -1.0]), np.array([2.0, 0.1])
    expected = -np.log(1 / (1 + np.exp(-real))).mean() - np.log(1 - 1 / (1 + np.exp(-fake))).mean()
    assert float(discriminator_loss(torch.tensor(real), torch.tensor(fake))) == pytest.approx(expected)
    assert flat_outputs({"map": torch.ones(2, 3, 4, 4), "logits": torch.ones(2, 5)}).shape == (2, 8)
    sequences = torch.rand(2, 7, 5)  # as long as they like
    np.testing.assert_allclose(flat_outputs(sequences).numpy(), sequences.numpy().mean(axis=1), rtol=1e-6)
