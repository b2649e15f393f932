"""mean_fold, merge, reuse and thinet_scale against numpy, scikit-learn and masked full networks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from autoprune.config.space import SpaceOptions
from autoprune.errors import ConfigError, EvaluationError
from autoprune.importance.members import rank_channels
from autoprune.inherit.base import Chain, Statistics
from autoprune.inherit.merge import cluster
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import Ranking, Slicer
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify

CPU = torch.device("cpu")
FITTED = ("mean_fold", "reuse", "thinet_scale")


def traced(model: nn.Module, example: Tensor, **options: object) -> tuple[nn.Module, SearchSpace]:
    verified = verify(model.eval(), trace(model, example, options=SpaceOptions.model_validate(options)))
    return verified.network, verified.space


def cut_of(dense: nn.Module, space: SearchSpace, ratio: float = 0.5) -> Cut:
    return Slicer(dense, space, rank_channels(dense, space, "l2")).cut(space.uniform(ratio))


def inherited(chosen: Sequence[object], dense: nn.Module, cut: Cut, inputs: Sequence[Tensor]) -> nn.Module:
    return Chain(chosen).apply(cut, dense, Statistics(lambda n: list(inputs)[:n], CPU)).eval()  # type: ignore[arg-type]


class Pair(nn.Module):
    """One layer that is cut, and one that reads it."""

    def __init__(self, first: nn.Module, second: nn.Module, *, flat: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.flat = first, second, flat

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        out: Tensor = self.second(x.flatten(1) if self.flat else x)
        return out

    def read(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return x.flatten(1) if self.flat else x


def pair(kind: str, dtype: torch.dtype = torch.float32) -> tuple[Pair, Tensor]:
    torch.manual_seed(1)
    maps, rows, lines = torch.randn(24, 3, 7, 7), torch.randn(24, 5, 6), torch.randn(24, 3, 9)
    made: dict[str, Callable[[], tuple[Pair, Tensor]]] = {
        "conv2d": lambda: (Pair(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3, stride=2, padding=1)), maps),
        "conv2d without bias": lambda: (Pair(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1, bias=False)), maps),
        "conv1d": lambda: (Pair(nn.Conv1d(3, 8, 3), nn.Conv1d(8, 5, 3, dilation=2)), lines),
        "grouped": lambda: (Pair(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, groups=2)), maps),
        "transposed": lambda: (Pair(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 5, 3, stride=2)), maps),
        "grouped transposed": lambda: (Pair(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 6, 2, groups=2)), maps),
        "linear": lambda: (Pair(nn.Linear(6, 8), nn.Linear(8, 5)), rows),
        "flattened": lambda: (Pair(nn.Conv2d(3, 8, 3, stride=3), nn.Linear(8 * 4, 5), flat=True), maps),
    }
    model, inputs = made[kind]()
    return model.to(dtype).eval(), inputs.to(dtype)


KINDS = ["conv2d", "conv1d", "grouped", "transposed", "grouped transposed", "linear", "flattened"]


def changed_by(kind: str, method: object, dtype: torch.dtype = torch.float32) -> tuple[Pair, Cut, Pair, Tensor]:
    model, inputs = pair(kind, dtype)
    dense, space = traced(model, inputs[:2])
    cut = cut_of(dense, space)
    assert cut.widths != space.full
    return model, cut, inherited([method], dense, cut, [inputs[:16], inputs[16:]]), inputs  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_mean_folding_gives_each_output_the_mean_that_it_had(kind: str, dtype: torch.dtype) -> None:
    model, _, network, inputs = changed_by(kind, "mean_fold", dtype)
    with torch.no_grad():
        wrong, right = network(inputs), model(inputs)
    dims = [d for d in range(right.ndim) if d != (right.ndim - 1 if kind in ("linear", "flattened") else 1)]
    assert torch.allclose(wrong.mean(dims), right.mean(dims), atol=1e-5)
    assert not torch.allclose(wrong, right, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_mean_folding_is_exact_where_cut_channels_are_constant(kind: str) -> None:
    """The masked full network: cut channels replaced by their constants."""
    model, inputs = pair(kind)
    gone = [1, 4, 5, 6] if "grouped" not in kind else [1, 2, 5, 6]
    with torch.no_grad():
        model.first.get_parameter("weight")[gone] = 0.0
        model.first.get_parameter("bias")[gone] = torch.linspace(0.1, 2.0, len(gone))
        if isinstance(model.second, nn.Conv2d):  # zeros of the padding are no constant
            model.second.padding = (0, 0)
        if isinstance(model.second, nn.ConvTranspose2d):  # every position has one tap, and all taps are the same
            model.second.stride = tuple(model.second.kernel_size)
            weight = model.second.weight
            weight.copy_(weight.mean(dim=(2, 3), keepdim=True).expand_as(weight))
    dense, space = traced(model, inputs[:2])
    cut = Slicer(dense, space, order_of(gone, space)).cut(space.uniform(0.5))
    network = inherited(["mean_fold"], dense, cut, [inputs])
    with torch.no_grad():
        assert torch.allclose(network(inputs), model(inputs), atol=1e-5)


def order_of(gone: Sequence[int], space: SearchSpace) -> Ranking:
    """ChannelInputs that go come last."""
    (group,) = space.groups
    last = [i for i in gone if i < group.width]
    return (np.argsort(np.array([i for i in range(group.width) if i not in last] + last)),)


def test_mean_folding_of_dead_batch_norm_channels_is_folding_their_relu_of_beta() -> None:
    torch.manual_seed(2)
    first = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
    model = Pair(first, nn.Conv2d(8, 5, 3)).eval()
    norm = first[1]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight[:4], norm.bias[:4] = 0.0, torch.tensor([0.7, -0.5, 1.2, 0.1])
    dense, space = traced(model, torch.randn(2, 3, 7, 7))
    cut = Slicer(dense, space, rank_channels(dense, space, "bn_scale")).cut(space.uniform(0.5))
    network = inherited(["mean_fold"], dense, cut, [torch.randn(8, 3, 7, 7)])
    second = model.second
    assert isinstance(second, nn.Conv2d)
    assert second.bias is not None
    by_hand = second.bias + second.weight[:, :4].sum(dim=(2, 3)) @ norm.bias[:4].relu()
    assert torch.allclose(network.get_parameter("second.bias"), by_hand, atol=1e-6)
    with torch.no_grad():
        inputs = torch.randn(4, 3, 7, 7)
        assert torch.allclose(network(inputs), model(inputs), atol=1e-5)


def test_without_a_bias_the_mean_comes_out_of_the_running_mean_of_the_norm_right_behind() -> None:
    torch.manual_seed(3)
    second = nn.Sequential(nn.Conv2d(8, 5, 1, bias=False), nn.BatchNorm2d(5))
    model = Pair(nn.Conv2d(3, 8, 3), second).eval()
    with torch.no_grad():
        second[1].running_mean.uniform_(-1, 1)  # type: ignore[union-attr, operator]
        second[1].running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    inputs = torch.randn(32, 3, 7, 7)
    dense, space = traced(model, inputs[:2])
    network = inherited(["mean_fold"], dense, cut_of(dense, space), [inputs])
    with torch.no_grad():
        assert torch.allclose(network(inputs).mean((0, 2, 3)), model(inputs).mean((0, 2, 3)), atol=1e-5)


def test_what_has_neither_bias_nor_norm_is_left_alone_and_named() -> None:
    model, inputs = pair("conv2d without bias")
    dense, space = traced(model, inputs[:2])
    chain, cut = Chain(["mean_fold"]), cut_of(dense, space)
    before = copy.deepcopy(cut.network.state_dict())
    chain.apply(cut, dense, Statistics(lambda n: [inputs], CPU))
    assert chain.left_alone == {"second.weight": "mean_fold: it has no bias, and no batch norm right behind it"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in cut.network.state_dict().items())


def unfolded(kind: str, values: Tensor) -> np.ndarray:
    """(samples, channels) of what the second layer reads, each position a sample."""
    if kind == "linear":
        return values.reshape(-1, values.shape[-1]).double().numpy()
    return values.movedim(1, -1).reshape(-1, values.shape[1]).double().numpy()


def mixture(read: np.ndarray[Any, Any], kept: list[int] | np.ndarray[Any, Any]) -> Tensor:
    """(kept, channels): Y ≈ Y' mixture by least squares, with as many more rows in which a cut channel is nothing."""
    own, gone = read[:, kept], np.setdiff1d(np.arange(read.shape[1]), kept)
    more = np.sqrt(own.shape[1] / len(own) * (own**2).sum(axis=0).mean()) * np.eye(own.shape[1])
    found = np.zeros((own.shape[1], read.shape[1]))
    found[np.arange(own.shape[1]), kept] = 1
    rows, sides = np.concatenate([own, more]), np.concatenate([read[:, gone], np.zeros((own.shape[1], len(gone)))])
    found[:, gone] = np.linalg.lstsq(rows, sides, rcond=None)[0]
    return torch.from_numpy(found)


@pytest.mark.parametrize("kind", ["conv2d", "conv1d", "transposed", "linear", "flattened"])
def test_reuse_is_the_least_squares_of_numpy_folded_into_the_weights(kind: str) -> None:
    model, cut, network, inputs = changed_by(kind, "reuse", torch.float64)
    with torch.no_grad():
        maps = torch.relu(model.first(inputs))
    read = unfolded(kind, maps)
    kept = cut.kept["first.weight"][0]
    assert kept is not None
    mixed = mixture(read, kept.numpy())
    rebuilt = torch.relu(network.first(inputs)).detach()  # type: ignore[operator]
    dim = rebuilt.ndim - 1 if kind == "linear" else 1
    rebuilt = torch.tensordot(rebuilt, mixed, dims=([dim], [0])).movedim(-1, dim)
    with torch.no_grad():
        expected = model.second(rebuilt.flatten(1) if kind == "flattened" else rebuilt)
        assert torch.allclose(network(inputs), expected, atol=1e-9)


def test_reuse_mixes_only_within_the_groups_of_a_grouped_convolution() -> None:
    model, cut, network, inputs = changed_by("grouped", "reuse", torch.float64)
    with torch.no_grad():
        read = torch.relu(model.first(inputs))
        kept = cut.kept["second.weight"][1]
        assert kept is not None
        outputs = []
        for block in range(2):
            own = read[:, 4 * block : 4 * block + 4]
            rows = unfolded("grouped", own)
            mixed = mixture(rows, kept.numpy())
            rebuilt = torch.tensordot(own[:, kept], mixed, dims=([1], [0])).movedim(-1, 1)
            bias = model.second.bias[3 * block : 3 * block + 3]  # type: ignore[index]
            outputs.append(F.conv2d(rebuilt, model.second.weight[3 * block : 3 * block + 3], bias))  # type: ignore[index, arg-type]
        assert torch.allclose(network(inputs), torch.cat(outputs, dim=1), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_reuse_then_mean_fold_is_never_worse_than_slicing_at_single_positions(kind: str) -> None:
    """Where each output reads one position, fitting the inputs is fitting the outputs."""
    errors = {}
    for chosen in ((), ("reuse",), ("reuse", "mean_fold")):
        model, inputs = pair(kind)
        dense, space = traced(model, inputs[:2])
        network = inherited(chosen, dense, cut_of(dense, space), [inputs])
        with torch.no_grad():
            errors[chosen] = (network(inputs) - model(inputs)).square().mean().item()
    assert errors["reuse", "mean_fold"] < errors["reuse",] < errors[()]


def sampled(kind: str, samples: int) -> tuple[Pair, Cut, nn.Module, Tensor]:
    method = {"name": "thinet_scale", "settings": {"samples": samples}}
    return changed_by(kind, method, torch.float64)


@pytest.mark.parametrize("kind", ["linear", "flattened"])
def test_the_scales_of_thinet_are_those_of_numpy_once_samples_are_many(kind: str) -> None:
    """All outputs at all positions instead of samples: the same expectation, so that many samples come near."""
    model, cut, network, inputs = sampled(kind, 3000)
    with torch.no_grad():
        read = model.read(inputs)
        kept = cut.kept["second.weight"][1]
        assert kept is not None
        rows = read.reshape(-1, read.shape[-1])
        weight = model.second.weight
        assert isinstance(weight, Tensor)
        channels = 8
        parts = (rows[:, None, :] * weight[None]).reshape(len(rows) * 5, channels, -1).sum(-1).numpy()
        own = sorted({int(i) // (weight.shape[1] // channels) for i in kept})
        scales, *_ = np.linalg.lstsq(parts[:, own], parts.sum(1), rcond=None)
        found = network.get_parameter("second.weight") / weight[:, kept]
    by_channel = found.reshape(5, len(own), -1)
    assert (by_channel - by_channel[:1, :, :1]).abs().max() < 1e-9
    assert np.allclose(by_channel[0, :, 0].detach().numpy(), scales, rtol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scales_of_thinet_are_the_least_squares_of_numpy_on_its_own_samples(kind: str) -> None:
    from autoprune.inherit.gathering import gather
    from autoprune.inherit.thinet_scale import _combine, _contributions

    model, inputs = pair(kind, torch.float64)
    dense, space = traced(model, inputs[:2])
    cut, generator = cut_of(dense, space), torch.Generator().manual_seed(0)
    gathered = gather(
        dense,
        space,
        [inputs],
        device=CPU,
        measure=lambda c, x, w: _contributions(c, x, w, 10, generator),
        combine=_combine,
        tensors=lambda samples: samples[:1],
    )
    consumer, (parts, _) = next(iter(gathered.calls.values()))
    with torch.no_grad():  # what the parts add up to is the output itself
        right = model(inputs) - model.second(torch.zeros_like(model.read(inputs)))
    assert all((right - value).abs().min() < 1e-9 for value in parts.flatten(1).sum(dim=1)[:: max(1, len(parts) // 12)])
    before = consumer.matrix(cut.network.get_parameter("second.weight").detach().clone())
    network = inherited(["thinet_scale"], dense, cut, [inputs])
    scales = (consumer.matrix(network.get_parameter("second.weight").detach()) / before).numpy()
    kept = consumer.kept(cut)
    assert kept is not None
    own = parts[:, :, consumer.channels.kept(kept)[0]].flatten(1).numpy()
    power = np.sqrt(own.shape[1] / len(own) * (own**2).sum(axis=0).mean())  # as many more samples with scales of 1
    expected, *_ = np.linalg.lstsq(
        np.concatenate([own, power * np.eye(own.shape[1])]),
        np.concatenate([parts.flatten(1).sum(dim=1).numpy(), power * np.ones(own.shape[1])]),
        rcond=None,
    )
    repeated = np.repeat(expected, consumer.channels.places)
    assert np.allclose(scales, repeated.reshape(consumer.blocks, -1, 1), atol=1e-9)


@pytest.mark.parametrize("method", ["thinet_scale", "reuse"])
def test_few_samples_are_not_fitted_exactly_so_that_unseen_inputs_are_no_worse(method: str) -> None:
    torch.manual_seed(0)
    if method == "reuse":
        model = Pair(nn.Sequential(nn.Linear(6, 32), nn.ReLU()), nn.Linear(32, 4)).eval()
        few, unseen = torch.randn(16, 6), torch.randn(256, 6)  # as many rows as kept channels
    else:
        model = Pair(nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()), nn.Conv2d(32, 4, 3, padding=1)).eval()
        few, unseen = torch.randn(2, 3, 8, 8), torch.randn(64, 3, 8, 8)
    dense, space = traced(model, few)
    cut = Slicer(dense, space, (np.arange(32),)).cut(space.uniform(0.5))
    with torch.no_grad():
        target = model(unseen)
        sliced = (cut.network.eval()(unseen) - target).square().mean()
        fitted = (inherited([method], dense, cut, [few])(unseen) - target).square().mean()
    assert fitted < sliced


def test_merging_equal_channels_changes_nothing() -> None:
    torch.manual_seed(4)
    first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    model = Pair(first, nn.Conv2d(8, 5, 3)).eval()
    with torch.no_grad():
        for tensor in first.state_dict().values():
            if tensor.ndim:
                tensor[4:] = tensor[:4]
        model.second.weight.uniform_(-1, 1)  # type: ignore[operator, union-attr]
    inputs = torch.randn(4, 3, 7, 7)
    dense, space = traced(model, inputs)
    cut = Slicer(dense, space, (np.array([0, 1, 2, 3, 4, 5, 6, 7]),)).cut(space.uniform(0.5))
    with torch.no_grad():
        assert not torch.allclose(cut.network.eval()(inputs), model(inputs), atol=1e-2)
        assert torch.allclose(inherited(["merge"], dense, cut, [])(inputs), model(inputs), atol=1e-5)


def test_clusters_are_those_of_scikit_learn_from_the_same_beginning() -> None:
    rows = torch.randn(40, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    first = np.arange(0, 40, 5)
    peer = KMeans(len(first), init=rows[first].numpy(), n_init=1, max_iter=300, tol=0.0).fit(rows.numpy())
    assert np.array_equal(cluster(rows, first, 300), peer.labels_)


def test_dead_channels_that_are_kept_beside_each_other_stay_finite() -> None:
    """Zeroed filters are equal, so all of them are nearest to one centre, and the others end empty."""
    torch.manual_seed(6)
    first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    model = Pair(first, nn.Conv2d(8, 5, 3)).eval()
    with torch.no_grad():
        for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
            first.state_dict()[name][2:] = 0.0
    inputs = torch.randn(4, 3, 7, 7)
    dense, space = traced(model, inputs)
    cut = Slicer(dense, space, (np.arange(8),)).cut(space.uniform(0.5))
    with torch.no_grad():
        assert torch.allclose(inherited(["merge"], dense, cut, [])(inputs), model(inputs), atol=1e-5)


def test_no_cluster_is_empty_and_each_has_the_row_that_it_began_at_or_others() -> None:
    rows = torch.tensor([[0.0], [0.0], [0.0], [5.0], [5.0], [1.0]], dtype=torch.float64)
    for first in ([0, 1, 2], [1, 3, 4], [0, 1, 2, 3, 4, 5], [2, 4], [3, 4]):
        labels = cluster(rows, np.array(first), 20)
        assert set(labels.tolist()) == set(range(len(first)))


def test_a_network_without_data_merges_and_what_needs_data_says_so() -> None:
    assert not Chain(["merge"]).needs_data
    assert Chain(["merge", "bn_recalibration"]).needs_data


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["bn_recalibration", "mean_fold"], "mean_fold must stand before bn_recalibration"),
        (["mean_fold", "reuse"], "reuse must stand before mean_fold"),
        (["reuse", "thinet_scale"], "both fit weights"),
        (["least_squares", "mean_fold"], "least_squares fits constants with the weights; leave mean_fold out"),
        (["sequential_least_squares", "mean_fold", "bn_recalibration"], "fits constants with the weights"),
        (["merge", "mean_fold"], "leaves no channel as it was"),
        (["mean_fold", "merge"], "merge leaves no channel as it was, and mean_fold needs those"),
    ],
)
def test_an_order_in_which_one_method_would_undo_another_is_refused(chosen: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Chain(chosen)


@pytest.mark.parametrize("method", FITTED)
def test_a_batch_that_is_not_finite_is_left_out(method: str) -> None:
    results = []
    for spoilt in (False, True):
        model, inputs = pair("conv2d")
        dense, space = traced(model, inputs[:2])
        bad = torch.full_like(inputs[:4], float("nan"))
        results.append(inherited([method], dense, cut_of(dense, space), [bad, inputs] if spoilt else [inputs]))
    clean, other = (network.state_dict() for network in results)
    assert all(torch.equal(tensor, other[name]) for name, tensor in clean.items())


@pytest.mark.parametrize("method", [*FITTED, "bn_recalibration"])
def test_only_batches_that_are_not_finite_are_an_error(method: str) -> None:
    model, inputs = pair("conv2d")
    dense, space = traced(model, inputs[:2])
    with pytest.raises(EvaluationError, match="each of 1 calibration batches holds values that are not finite"):
        inherited([method], dense, cut_of(dense, space), [torch.full_like(inputs, float("inf"))])
