"""sequential_least_squares: no other weights would do better, sums are made up for, norms keep doing what they did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from least_squares_reference import columns
from torch import Tensor, nn

import autoprune.inherit.sequential_least_squares as sequential
from autoprune.data.batch import Ragged
from autoprune.importance.members import rank_channels
from autoprune.inherit.base import Chain, Statistics
from autoprune.inherit.sequential_least_squares import SequentialLeastSquares, together
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.statistics.running import examples_of

CPU = torch.device("cpu")
METHOD = "sequential_least_squares"


def norm_of(channels: int) -> nn.BatchNorm2d:
    """Running statistics, scales and shifts that have nothing to do with any data."""
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        for tensor in (norm.running_mean, norm.bias):
            assert tensor is not None
            tensor.uniform_(-1, 1)
        for tensor in (norm.running_var, norm.weight):
            assert tensor is not None
            tensor.uniform_(0.5, 2)
    return norm


class Net(nn.Module):
    """A branch with a depthwise layer, a shortcut that is a layer of its own, and a norm behind their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), norm_of(8)
        self.short, self.short_norm = nn.Conv2d(8, 10, 1, bias=False), norm_of(10)
        self.inner, self.inner_norm = nn.Conv2d(8, 12, 3, padding=1, bias=False), norm_of(12)
        self.depth, self.depth_norm = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), norm_of(12)
        self.back, self.back_norm = nn.Conv2d(12, 10, 1, bias=False), norm_of(10)
        self.after, self.head = norm_of(10), nn.Conv2d(10, 4, 1)

    def summed(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        short = self.short_norm(self.short(x))
        inner = torch.relu(self.inner_norm(self.inner(x)))
        branch: Tensor = self.back_norm(self.back(torch.relu(self.depth_norm(self.depth(inner)))))
        return short + branch

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.after(self.summed(x))))
        return out


def traced(model: nn.Module, inputs: Tensor) -> tuple[nn.Module, SearchSpace]:
    verified = verify(model.eval(), trace(model, inputs))
    return verified.network, verified.space


def net() -> tuple[Net, SearchSpace, Tensor]:
    torch.manual_seed(0)
    model, inputs = Net().double(), torch.randn(64, 3, 6, 6, dtype=torch.float64)
    dense, space = traced(model, inputs[:2])
    assert isinstance(dense, Net)
    return dense, space, inputs


def cut_of(dense: nn.Module, space: SearchSpace, **kept: float) -> Cut:
    """Groups that produce the named layers keep this share, all others everything; without names half of all."""
    widths = space.uniform(0.5)
    if kept:
        share = {
            int(axis.group[0]): kept[t.name.removesuffix(".weight")]
            for t in space.tensors
            if t.name.removesuffix(".weight") in kept and (axis := t.axes[0]) is not None
        }
        widths = tuple(int(g.width * share.get(index, 1.0)) for index, g in enumerate(space.groups))
    return Slicer(dense, space, rank_channels(dense, space, "l2")).cut(widths)


def fitted(dense: nn.Module, cut: Cut, inputs: Tensor, *after: str) -> Net:
    network = Chain([METHOD, *after]).apply(cut, dense, Statistics(lambda n: [inputs], CPU)).eval()
    assert isinstance(network, Net)
    return network


def values(network: nn.Module, inputs: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Name of each layer -> what it reads and gives."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [
        module.register_forward_hook(lambda m, args, out, name=name: found.update({name: (args[0], out)}))
        for name, module in network.named_children()
    ]
    with torch.no_grad():
        network(inputs)
    for handle in handles:
        handle.remove()
    return found


@pytest.fixture
def no_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing holds a fit to the sliced weights; how much does is tested with `least_squares`."""
    monkeypatch.setattr(
        "autoprune.inherit.sequential_least_squares.ridge",
        lambda second, count: 1e-9 * second.diagonal(dim1=-2, dim2=-1).mean(dim=-1) + 1e-9,
    )


@pytest.mark.parametrize("layer", ["stem", "short", "inner", "depth", "head"])
def test_no_other_weights_would_come_nearer_to_what_the_layer_gave(layer: str, no_ridge: None) -> None:
    dense, space, inputs = net()
    cut = cut_of(dense, space)
    network = fitted(dense, cut, inputs)
    read, gave = values(network, inputs)[layer]
    wanted, kept = values(dense, inputs)[layer][1], cut.kept[f"{layer}.weight"][0]
    wanted = wanted if kept is None else wanted[:, kept]
    design = columns(network.get_submodule(layer), "weight", read, 1)
    difference = (gave - wanted).movedim(1, 0).flatten(1)
    for output, error in enumerate(difference):
        own = design[:, output].T
        own = own[:, own.abs().sum(0) > 0].numpy()
        target = wanted[:, output].flatten().numpy()
        constant = np.hstack([own, np.ones((len(own), 1))])
        best = target - constant @ np.linalg.lstsq(constant, target, rcond=None)[0]
        scatter = (error - error.mean()).square().mean().item()  # a norm behind takes the mean
        assert scatter <= 1.01 * (best**2).mean() + 1e-9


def test_a_branch_makes_up_for_what_its_shortcut_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, space, inputs = net()
    errors = []
    for lacking in (True, False):
        if not lacking:
            monkeypatch.setattr(sequential._Fitting, "_lacking", lambda self, name, chosen: 0.0)
        cut = cut_of(dense, space, stem=0.25)
        network = fitted(dense, cut, inputs)
        with torch.no_grad():
            errors.append((network.summed(inputs) - dense.summed(inputs)).square().mean().item())
    assert errors[0] < 0.99 * errors[1]


def test_what_a_branch_adds_is_the_least_squares_of_what_the_sum_lacks(no_ridge: None) -> None:
    dense, space, inputs = net()
    network = fitted(dense, cut_of(dense, space, stem=0.25), inputs)
    mine = values(network, inputs)
    with torch.no_grad():
        missing = dense.summed(inputs) - mine["short_norm"][1]
    read = mine["back"][0].movedim(1, -1).flatten(0, -2).numpy()
    design = np.hstack([read, np.ones((len(read), 1))])
    target = missing.movedim(1, -1).flatten(0, -2).numpy()
    best = design @ np.linalg.lstsq(design, target, rcond=None)[0]
    got = mine["back_norm"][1].movedim(1, -1).flatten(0, -2).numpy()
    np.testing.assert_allclose(got, best, atol=0.02 * target.std())
    assert ((got - target) ** 2).mean() <= 1.001 * ((best - target) ** 2).mean()


def test_every_layer_and_norm_that_reads_what_it_did_keeps_doing_what_it_did() -> None:
    dense, space, inputs = net()
    cut = cut_of(dense, space)
    whole = Slicer(dense, space, rank_channels(dense, space, "l2")).cut(space.full)
    network = fitted(dense, dataclasses.replace(whole, widths=cut.widths), inputs)  # all of it goes through the fit
    norm, before = network.after, dense.after
    assert not torch.allclose(norm.running_mean, before.running_mean, atol=1e-2)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(network(inputs), dense(inputs), rtol=1e-5, atol=1e-5)
        other = torch.randn_like(inputs)
        torch.testing.assert_close(network(other), dense(other), rtol=1e-5, atol=1e-5)


def test_what_lies_before_the_first_cut_is_as_it_was() -> None:
    dense, space, inputs = net()
    network = fitted(dense, cut_of(dense, space, inner=0.5), inputs)
    mine, theirs = values(network, inputs), values(dense, inputs)
    for name in ("stem_norm", "short_norm"):
        torch.testing.assert_close(mine[name][1], theirs[name][1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(mine["back_norm"][1], theirs["back_norm"][1], atol=1e-2)


@pytest.mark.parametrize("stem", [0.25, 0.5])
def test_a_norm_behind_a_sum_is_the_straight_line_of_numpy(stem: float) -> None:
    dense, space, inputs = net()
    cut = cut_of(dense, space, stem=stem, inner=0.25)
    mine, theirs = values(fitted(dense, cut, inputs), inputs)["after"], values(dense, inputs)["after"]
    kept = cut.kept["after.weight"][0]
    channels = range(theirs[1].shape[1]) if kept is None else kept.tolist()
    for here, there in enumerate(channels):
        x, wanted = mine[0][:, here].flatten().numpy(), theirs[1][:, there].flatten().numpy()
        line = np.polyval(np.polyfit(x, wanted, 1), x)
        np.testing.assert_allclose(mine[1][:, here].flatten().numpy(), line, atol=1e-3 * wanted.std())


def test_recalibrating_the_norms_afterwards_changes_next_to_nothing() -> None:
    dense, space, inputs = net()
    alone = fitted(dense, cut_of(dense, space), inputs)
    followed = fitted(dense, cut_of(dense, space), inputs, "bn_recalibration")
    with torch.no_grad():
        wanted, outputs = dense(inputs), [network(inputs) for network in (alone, followed)]
    changed = (outputs[0] - outputs[1]).square().mean()
    missed = (outputs[0] - wanted).square().mean()
    assert changed < 1e-3 * missed


class Norms(nn.Module):
    """A norm without scale, one that is called twice, one that goes by the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.plain = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False)
        self.second, self.shared = nn.Conv2d(8, 8, 1), norm_of(8)
        self.by_batch, self.head = nn.InstanceNorm2d(8), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.plain(self.first(x)))
        x = torch.relu(self.shared(torch.relu(self.shared(self.second(x)))))
        out: Tensor = self.head(self.by_batch(x))
        return out


def test_norms_that_cannot_be_set_for_one_place_stay_as_they_were() -> None:
    torch.manual_seed(1)
    inputs = torch.randn(32, 3, 6, 6)
    dense, space = traced(Norms(), inputs[:2])
    cut = cut_of(dense, space)
    before = {name: tensor.clone() for name, tensor in cut.network.state_dict().items()}
    after = Chain([METHOD]).apply(cut, dense, Statistics(lambda n: [inputs], CPU)).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("shared"))
    assert torch.equal(after["plain.running_var"], before["plain.running_var"])
    assert not torch.equal(after["head.weight"], before["head.weight"])


def test_all_batches_of_the_size_of_the_first_run_as_one() -> None:
    batches = [(torch.full((n, length), float(n)), torch.tensor(3)) for n, length in ((2, 4), (3, 5), (1, 4))]
    joined, scalar = together(batches)
    assert joined.tolist() == [[2.0] * 4, [2.0] * 4, [1.0] * 4]
    assert scalar.item() == 3


def test_the_dense_network_runs_once_for_all_candidates() -> None:
    dense, space, inputs = net()
    asked: list[int] = []
    statistics = Statistics(lambda n: asked.append(n) or [inputs], CPU)  # type: ignore[func-returns-value]
    method, runs = SequentialLeastSquares(), []
    original = sequential.DenseTargets.__init__

    def counted(self: sequential.DenseTargets, *args: object) -> None:
        runs.append(1)
        original(self, *args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sequential.DenseTargets, "__init__", counted)
        for stem in (0.25, 0.5, 0.75):
            method.apply(cut_of(dense, space, stem=stem), dense, statistics)
    assert runs == [1]
    assert len(asked) == len(set(asked)) + (asked.count(1) > 1)


def test_of_examples_of_several_sizes_one_batch_is_fitted_to() -> None:
    """Lists of images are neither joined along their channels nor padded to the largest of all batches."""
    first, second = ((Ragged([torch.zeros(3, 4 + n, 5), torch.zeros(3, 5, 4)]),) for n in (0, 3))
    assert together([first, second]) is first
    assert examples_of(first) == 2
    images = [torch.zeros(2, 3, 4, 4), torch.ones(1, 3, 4, 4)]
    assert together(images).shape == (3, 3, 4, 4)
