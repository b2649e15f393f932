"""Markov widths, losses inside, sampled damage and the order by cost: computed otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_scale_methods import subject_of

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.sparsity.aofp import ApproximatedOracle, damage
from autoprune.sparsity.dcp import DiscriminationAware, InnerLosses, pooled
from autoprune.sparsity.dmcp import DifferentiableMarkov
from autoprune.sparsity.energy import EnergyAware, costly_first, removal_errors
from autoprune.sparsity.reading import mean_squares, reader_outputs
from autoprune.training.freezing import begin_training
from autoprune.training.objectives.cross_entropy import CrossEntropy


def test_marginals_of_the_chain_and_its_expected_flops() -> None:
    subject, method = subject_of(), DifferentiableMarkov(weight=0.4)
    model = method.set_up(subject)
    rng = np.random.default_rng(0)
    alpha = rng.normal(2, 1, size=20)
    with torch.no_grad():
        model.gates.alpha.copy_(torch.from_numpy(alpha))  # type: ignore[union-attr, operator]
    weights = dict(subject.network.named_parameters())
    expected, widths = np.zeros(20), []
    for start, width, name in ((0, 8, "features.0.weight"), (8, 12, "features.3.weight")):
        norms = weights[name].detach().numpy().reshape(width, -1)
        order = np.argsort(-np.linalg.norm(norms, axis=1))
        stays = 1 / (1 + np.exp(-alpha[start : start + width]))
        runs = rng.uniform(size=(200_000, width)) < np.where(np.arange(width) == 0, 1.0, stays)
        alive = np.logical_and.accumulate(runs, axis=1)
        expected[start + order] = alive.mean(0)
        widths.append(alive.sum(1).mean())
    marginals = method.scores(model).numpy()
    np.testing.assert_allclose(marginals, expected, atol=6e-3)
    a, b = widths
    share = (36 * 9 * (a + a * b) + 4 * b) / (36 * 9 * 104 + 48)
    x, y = subject.target
    target = (36 * 9 * (x + x * y) + 4 * y) / (36 * 9 * 104 + 48)
    found = float(method.penalty(model, done=0.5))
    assert found == pytest.approx(0.4 * np.log(max(0.01, abs(share - target))), abs=0.05)
    domain = BudgetedSpace(subject.space, {"flops": "100%"})
    assert method.widths(domain, [marginals[:8], marginals[8:]]) == subject.space.full  # repaired up to the budget


def test_losses_inside_are_cross_entropies_of_pooled_features() -> None:
    subject, method = subject_of(), DiscriminationAware(weight=0.5, places=1)
    network, batch = method.set_up(subject), subject.batches(1)[0]
    goal = InnerLosses(CrossEntropy(), 0.5, 1)
    frozen = begin_training(network, ["features.1"])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    flags = [module.training for module in frozen.modules()]
    goal.begin(network, batch)
    assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    ((place, head),) = goal._heads.items()
    network.eval()
    kept = []
    handle = network.get_submodule(place).register_forward_hook(lambda _, args, output: kept.append(output))
    logits = network(batch.inputs)
    handle.remove()
    maps = kept[0].detach().numpy()
    inside = np.maximum(maps, 0)
    inside = inside.reshape(*inside.shape[:2], -1).mean(2) if inside.ndim > 2 else inside
    own = inside @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    log_sum = np.log(np.exp(own).sum(1))
    aside = (log_sum - own[np.arange(len(own)), batch.targets.numpy()]).mean()
    expected = float(F.cross_entropy(logits, batch.targets)) + 0.5 * aside
    assert goal(network, batch).item() == pytest.approx(expected, rel=1e-4)
    assert pooled(torch.tensor([[[-1.0, 3.0], [1.0, 1.0]]])).tolist() == [[0.5, 2.0]]


def test_damage_is_what_the_readers_lose() -> None:
    subject = subject_of()
    network, channels, batch = subject.network.eval(), subject.channels, subject.batches(1)[0]
    maps = network.features[:3](batch.inputs).detach()  # type: ignore[operator, index]
    conv = network.features[3]  # type: ignore[operator, index]
    closed = torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 1])
    whole, masked = conv(maps).detach().numpy(), conv(maps * closed[:, None, None]).detach().numpy()
    factors = torch.cat([closed, torch.ones(12)])
    one = reader_outputs(network, channels, batch, channels.parts[0])
    other = reader_outputs(network, channels, batch, channels.parts[0], factors)
    assert damage(one, other) == pytest.approx(((whole - masked) ** 2).sum() / (whole**2).sum(), rel=1e-4)
    squares = (maps.double().numpy() ** 2).mean((0, 2, 3))
    np.testing.assert_allclose(mean_squares(network, channels, [batch])[:8].numpy(), squares, rtol=1e-4)


def test_the_search_leaves_channels_last_that_the_oracle_would() -> None:
    subject, method = subject_of(), ApproximatedOracle(trials=16)
    model = method.set_up(subject)
    method._parts = method._parts[:1]
    with torch.no_grad():
        model.get_parameter("features.3.weight")[:, [2, 5]] = 0
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for _ in range(140):
            method.after_step(model, done=0.5)
    found, batch, channels = method.scores(model)[:8].numpy(), method._batches[0], subject.channels
    whole, alone = reader_outputs(model, channels, batch, channels.parts[0]), []
    for channel in range(8):  # the oracle
        factors = torch.ones(20).index_fill(0, torch.tensor([channel]), 0.0)
        alone.append(damage(whole, reader_outputs(model, channels, batch, channels.parts[0], factors)))
    order = np.argsort(found)
    assert max(np.array(alone)[order[:2]]) < np.median(alone)
    assert np.mean(np.array(alone)[order[:4]]) < 0.5 * np.mean(np.array(alone)[order[4:]])
    assert method.passes(4) == pytest.approx(4 + 140 * 2 / 3 * 32 / 256)


def test_costly_groups_are_thinned_first_by_the_error_of_their_readers() -> None:
    subject, method = subject_of(), EnergyAware(tolerance=0.4)
    model = method.set_up(subject)

    def cost(x: int, y: int) -> int:
        return 36 * 9 * (x + x * y) + 4 * y

    saved = [cost(8, 12) - cost(1, 12), cost(8, 12) - cost(8, 1)]
    assert costly_first(subject) == ([0, 1] if saved[0] > saved[1] else [1, 0])
    first = costly_first(subject)[0]
    lost = mean_squares(model, subject.channels, method._batches).double().numpy()
    reads = ("features.3.weight", "head.weight")[first]
    weight = model.get_parameter(reads).detach().double().numpy()
    part = subject.channels.parts[first]
    losses = lost[part] * (weight**2).sum(axis=tuple(d for d in range(weight.ndim) if d != 1))
    with torch.no_grad():
        method.after_step(model, done=0.0)
    expected = np.zeros(len(losses))
    for rank, i in enumerate(order := np.argsort(losses)):
        expected[i] = np.sqrt(losses[order[: rank + 1]].sum() / losses.sum())
    np.testing.assert_allclose(method.scores(model)[part].numpy(), expected, rtol=1e-4)
    closed = np.abs(model.get_parameter(reads).detach().numpy()).sum(
        axis=tuple(d for d in range(weight.ndim) if d != 1)
    )
    assert ((closed == 0) == (expected <= 0.4)).all()
    with pytest.raises(ConfigError, match=r"tolerance must be .* at most 0.9999"):
        EnergyAware(tolerance=1.0)  # would close whole groups
    assert removal_errors(torch.tensor([3.0, 1.0])).tolist() == pytest.approx([1.0, 0.5])


def test_channels_that_energy_closed_are_so_in_averages_of_weights_too() -> None:
    subject, method = subject_of(), EnergyAware(tolerance=0.4)
    model = method.set_up(subject)
    with torch.no_grad():
        method.after_step(model, done=0.6)
        for name in ("features.3.weight", "head.weight"):
            model.get_parameter(name).add_(1.0)  # as an average that remembers
    settled, closed = method.settle(model), method._open == 0
    assert closed.any()
    assert not closed.all()
    for name, part in (("features.3.weight", closed[:8]), ("head.weight", closed[8:])):
        weight = settled.get_parameter(name).transpose(0, 1).flatten(1)
        assert torch.equal(weight.eq(0).all(1), part)
