"""least_squares against numpy on matrices that share no code with it, and what it must leave as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from least_squares_reference import Problem
from small_networks import TransformerLayer
from torch import Tensor, nn

import autoprune.inherit.fitting
from autoprune.config.space import SpaceOptions
from autoprune.errors import ConfigError, EvaluationError
from autoprune.importance.members import rank_channels
from autoprune.inherit.base import Chain, Statistics
from autoprune.inherit.least_squares import LeastSquares
from autoprune.inherit.moment_fit import MomentFit
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.testing.generators import global_generators

CPU = torch.device("cpu")
METHODS = ["least_squares", "sequential_least_squares"]


def traced(model: nn.Module, example: Any, **options: object) -> tuple[nn.Module, SearchSpace]:
    verified = verify(model.eval(), trace(model, example, options=SpaceOptions.model_validate(options)))
    return verified.network, verified.space


def cut_of(dense: nn.Module, space: SearchSpace, widths: Widths | float = 0.5) -> Cut:
    chosen = space.uniform(widths) if isinstance(widths, float) else widths
    return Slicer(dense, space, rank_channels(dense, space, "l2")).cut(chosen)


def fitted(chosen: Sequence[Any], dense: nn.Module, cut: Cut, batches: Sequence[Any]) -> nn.Module:
    return Chain(chosen).apply(cut, dense, Statistics(lambda n: list(batches)[:n], CPU)).eval()


class Pair(nn.Module):
    """One layer that is cut, and one that reads it, maybe with a norm behind."""

    def __init__(
        self, first: nn.Module, second: nn.Module, *, flat: bool = False, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.first, self.second, self.flat, self.norm = first, second, flat, norm

    def read(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return x.flatten(1) if self.flat else x

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.read(x))
        return out if self.norm is None else self.norm(out)


class Product(nn.Module):
    """A matrix that is multiplied from the right."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def other_statistics(norm: nn.Module) -> nn.Module:
    """Running statistics that are not those of any data."""
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr, operator]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
        norm.weight.uniform_(-1, 1)  # type: ignore[union-attr, operator]
        norm.bias.uniform_(-1, 1)  # type: ignore[union-attr, operator]
    return norm


def pair(kind: str, dtype: torch.dtype = torch.float64) -> tuple[Pair, Tensor]:
    torch.manual_seed(1)
    maps, rows, lines = torch.randn(24, 3, 6, 6), torch.randn(64, 5, 6), torch.randn(40, 3, 9)
    volumes = torch.randn(24, 2, 4, 4, 4)

    def conv(**settings: Any) -> Pair:
        return Pair(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3, **settings))

    def transposed(outputs: int, kernel: int, **settings: Any) -> Pair:
        return Pair(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, outputs, kernel, **settings))

    with_norm = nn.Conv2d(8, 4, 2, bias=False)
    made: dict[str, Callable[[], tuple[Pair, Tensor]]] = {
        "plain": lambda: (conv(), maps),
        "strided and padded": lambda: (conv(stride=2, padding=1), maps),
        "dilated": lambda: (conv(dilation=2, padding=2), maps),
        "no bias": lambda: (conv(bias=False, padding=1), maps),
        "norm behind": lambda: (Pair(nn.Conv2d(3, 8, 3), with_norm, norm=other_statistics(nn.BatchNorm2d(4))), maps),
        "grouped": lambda: (conv(groups=2, padding=1), maps),
        "transposed": lambda: (transposed(3, 3, stride=2, padding=1, output_padding=1), maps),
        "grouped transposed": lambda: (transposed(6, 2, groups=2), maps),
        "1d": lambda: (Pair(nn.Conv1d(3, 8, 3), nn.Conv1d(8, 5, 3)), lines),
        "3d": lambda: (Pair(nn.Conv3d(2, 8, 2), nn.Conv3d(8, 3, (2, 1, 2))), volumes),
        "linear": lambda: (Pair(nn.Linear(6, 8), nn.Linear(8, 5)), rows),
        "flattened": lambda: (Pair(nn.Conv2d(3, 8, 3, stride=3), nn.Linear(8 * 4, 5), flat=True), maps),
        "product": lambda: (Pair(nn.Linear(6, 8), Product()), rows),
    }
    model, inputs = made[kind]()
    return model.to(dtype).eval(), inputs.to(dtype)


KINDS = ["plain", "strided and padded", "dilated", "no bias", "norm behind", "grouped", "transposed"]
KINDS += ["grouped transposed", "1d", "3d", "linear", "flattened", "product"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_consumer_gives_is_the_least_squares_of_numpy(kind: str, method: str) -> None:
    model, inputs = pair(kind)
    dense, space = traced(model, inputs[:2])
    sliced = cut_of(dense, space).network.eval()
    network = fitted([method], dense, cut_of(dense, space), [inputs[:16], inputs[16:]])
    assert isinstance(sliced, Pair)
    assert isinstance(network, Pair)
    dim = -1 if kind in ("linear", "flattened", "product") else 1
    with torch.no_grad():
        read, cut_read, wanted = model.read(inputs), sliced.read(inputs), model.second(model.read(inputs))
        problem = Problem(
            sliced.second,
            cut_read,
            wanted,
            dim,
            (model.second, read) if method == "least_squares" else (sliced.second, cut_read),
            constant=kind not in ("no bias", "product"),
        )
        best = torch.from_numpy(problem.outputs())
        expected = best.reshape(wanted.movedim(dim, 0).shape).movedim(0, dim)
        expected = expected if model.norm is None else model.norm(expected)
        exact = 1e-6 if method == "least_squares" else 1e-4  # the ridge holds the first layer, too, but not quite
        torch.testing.assert_close(network(inputs), expected, rtol=exact, atol=exact)
        assert not torch.allclose(network(inputs), sliced(inputs), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_never_further_from_the_dense_one_on_its_own_data_than_the_slice(kind: str) -> None:
    model, inputs = pair(kind, torch.float32)
    dense, space = traced(model, inputs[:2])
    slopes: Tensor | float = 1.0
    if isinstance(model.norm, nn.BatchNorm2d):  # what is fitted is what the norm reads
        slopes = (model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()).reshape(-1, 1, 1)  # type: ignore[operator]
    errors = []
    for chosen in ([], ["least_squares"], ["sequential_least_squares"]):
        network = fitted(chosen, dense, cut_of(dense, space), [inputs])
        with torch.no_grad():
            errors.append(((network(inputs) - model(inputs)) / slopes).square().mean().item())
    assert errors[1] < errors[0]
    assert errors[2] < errors[0]
    assert errors[2] < 1.02 * errors[1]  # the same problem but for the strength of the ridge


@pytest.mark.parametrize("kind", ["plain", "flattened", "linear"])
def test_one_factor_in_order_of_importance_serves_every_width(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = pair(kind)
    dense, space = traced(model, inputs[:2])
    slicer = Slicer(dense, space, rank_channels(dense, space, "l2"))
    statistics = Statistics(lambda n: [inputs], CPU)
    factors: list[int] = []
    original = torch.linalg.cholesky

    def counted(matrix: Tensor) -> Tensor:
        factors.append(len(matrix))
        return original(matrix)

    monkeypatch.setattr(torch.linalg, "cholesky", counted)
    method = LeastSquares()
    for width in space.groups[0].choices[:-1]:
        by_prefix, other = slicer.cut((width,)), slicer.cut((width,))
        method.apply(by_prefix, dense, statistics)
        before = len(factors)
        anew = Cut(other.network, space, other.widths, other.kept)  # no order: each width is solved by itself
        method.apply(anew, dense, statistics)
        assert len(factors) == before + 1
        found, expected = (some.network.get_parameter("second.weight") for some in (by_prefix, anew))
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-6)
    assert len(factors) == len(space.groups[0].choices)  # one of all, and one for each width


def test_another_order_of_channels_is_not_taken_for_the_first_one() -> None:
    model, inputs = pair("plain")
    dense, space = traced(model, inputs[:2])
    statistics, method = Statistics(lambda n: [inputs], CPU), LeastSquares()
    for order in (np.arange(8), np.arange(8)[::-1].copy()):
        cut, alone = (Slicer(dense, space, (order,)).cut(space.uniform(0.5)) for _ in range(2))
        method.apply(cut, dense, statistics)
        LeastSquares().apply(alone, dense, Statistics(lambda n: [inputs], CPU))
        assert torch.equal(cut.network.get_parameter("second.weight"), alone.network.get_parameter("second.weight"))


def test_moments_of_channels_mix_them_in_the_same_way_for_each_tap() -> None:
    model, inputs = pair("no bias")
    dense, space = traced(model, inputs[:2])
    cut = cut_of(dense, space)
    kept = cut.kept["second.weight"][1]
    assert kept is not None
    fitted([{"name": "least_squares", "settings": {"moments": "channel"}}], dense, cut, [inputs])
    with torch.no_grad():
        pixels = model.read(inputs).movedim(1, -1).reshape(-1, 8).numpy()
    ridge = np.sqrt(8 * (pixels**2).mean())  # eight more rows, of the mean power in each channel
    rows = np.vstack([pixels, ridge * np.eye(8)])
    mixed, *_ = np.linalg.lstsq(rows[:, kept], rows, rcond=None)
    expected = torch.einsum("ocij,kc->okij", model.second.weight.detach(), torch.from_numpy(mixed))  # type: ignore[arg-type, union-attr, operator]
    torch.testing.assert_close(cut.network.get_parameter("second.weight").detach(), expected, rtol=1e-6, atol=1e-8)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer, self.head = nn.Linear(6, 16), TransformerLayer(16, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(self.embed(x)).mean(1))
        return out


def test_the_projections_of_attention_are_refitted_as_numpy_would() -> None:
    torch.manual_seed(0)
    model, inputs = Classifier().double(), torch.randn(64, 5, 6, dtype=torch.float64)
    dense, space = traced(model, inputs[:2])
    with torch.no_grad():
        rows = model.layer.norm1(model.embed(inputs)).reshape(-1, 16)
    cut, name, bias = cut_of(dense, space), "layer.attention.in_proj_weight", "layer.attention.in_proj_bias"
    outputs, kept = cut.kept[name]
    assert kept is not None
    outputs = torch.arange(48) if outputs is None else outputs
    wanted = (rows @ dense.get_parameter(name).T + dense.get_parameter(bias))[:, outputs].detach()
    sliced = cut.network.get_parameter(name).detach().clone()
    network = fitted(["least_squares"], dense, cut, [inputs])
    got = rows[:, kept] @ network.get_parameter(name).T + network.get_parameter(bias)
    strength = (16 * (rows - rows.mean(0)).square().mean()).sqrt().item()  # sixteen rows more
    top, below = np.hstack([rows[:, kept], np.ones((len(rows), 1))]), np.eye(len(kept), len(kept) + 1)
    design = np.vstack([top, strength * below])
    solved, *_ = np.linalg.lstsq(design, np.vstack([wanted, strength * sliced.T]), rcond=None)
    np.testing.assert_allclose(got.detach().numpy(), top @ solved, atol=1e-7)


class Residual(nn.Module):
    """A stem, a shortcut with a depthwise layer, and norms whose statistics are not those of the data."""

    def __init__(self, *, baked: bool = False, norms: bool = True) -> None:
        super().__init__()
        self.baked = baked
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), self._norm(8, norms)
        self.inner, self.inner_norm = nn.Conv2d(8, 12, 3, padding=1, bias=False), self._norm(12, norms)
        self.depth, self.depth_norm = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), self._norm(12, norms)
        self.back, self.back_norm = nn.Conv2d(12, 8, 1, bias=False), self._norm(8, norms)
        self.before, self.beside = self._norm(8, norms), nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(14 * 4, 3)

    @staticmethod
    def _norm(channels: int, norms: bool) -> nn.Module:
        return other_statistics(nn.BatchNorm2d(channels)) if norms else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        inner = torch.relu(self.inner_norm(self.inner(x)))
        x = x + self.back_norm(self.back(torch.relu(self.depth_norm(self.depth(inner)))))
        x = torch.relu(self.before(x))
        x = torch.cat([x, torch.relu(self.beside(x))], dim=1)
        x = nn.functional.adaptive_avg_pool2d(x, 2)
        return self.head(x.reshape(len(x), 56) if self.baked else x.flatten(1))  # type: ignore[no-any-return]


def residual(*, baked: bool = False, norms: bool = True) -> tuple[nn.Module, SearchSpace, Tensor]:
    torch.manual_seed(2)
    inputs = torch.randn(48, 3, 6, 6)
    return *traced(Residual(baked=baked, norms=norms), inputs[:2]), inputs


def distance(network: nn.Module, dense: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        wanted = dense.eval()(inputs)
        return ((network.eval()(inputs) - wanted).square().mean() / wanted.var(dim=0).mean()).item()


@pytest.mark.parametrize("norms", [True, False])
def test_tied_groups_sums_and_concatenations_come_nearer_to_what_they_were(norms: bool) -> None:
    dense, space, inputs = residual(norms=norms)
    found = [
        distance(fitted(chosen, dense, cut_of(dense, space), [inputs]), dense, inputs)
        for chosen in ([], ["least_squares"], ["sequential_least_squares"])
    ]
    assert found[2] < found[1] < found[0]


def test_module_form_and_graph_form_are_refitted_alike() -> None:
    for method in METHODS:
        outputs = []
        for baked in (False, True):
            dense, space, inputs = residual(baked=baked)
            assert space.form == ("graph" if baked else "module")
            network = fitted([method], dense, cut_of(dense, space), [inputs])
            with torch.no_grad():
                outputs.append(network(inputs))
        torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_of_zeros_and_a_single_channel_are_no_obstacle(method: str) -> None:
    dense, space, inputs = residual()
    with torch.no_grad():
        dense.get_parameter("inner.weight").zero_()
    for widths in (space.uniform(0.5), space.smallest):
        network = fitted([method], dense, cut_of(dense, space, widths), [inputs])
        assert all(tensor.isfinite().all() for tensor in network.state_dict().values())
        with torch.no_grad():
            assert network(inputs).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_constant_inputs_leave_the_slice_where_nothing_is_to_be_learnt(method: str) -> None:
    model, inputs = pair("no bias")
    dense, space = traced(model, inputs[:2])
    with torch.no_grad():  # the consumer reads zeros only
        dense.get_parameter("first.weight").zero_()
        dense.get_parameter("first.bias").fill_(-1.0)
    sliced = cut_of(dense, space).network.get_parameter("second.weight")
    network = fitted([method], dense, cut_of(dense, space), [inputs])
    torch.testing.assert_close(network.get_parameter("second.weight"), sliced)


@pytest.mark.parametrize("method", METHODS)
def test_the_dense_network_flags_and_generators_are_only_read_and_dtypes_stay(method: str) -> None:
    model, inputs = pair("norm behind", torch.float64)
    dense, space = traced(model, inputs[:2])
    dense.train()
    before, generators = copy.deepcopy(dense.state_dict()), global_generators()
    cut = cut_of(dense, space)
    Chain([method]).apply(cut, dense, Statistics(lambda n: [inputs], CPU))
    assert global_generators() == generators
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
    assert all(module.training for some in (dense, cut.network) for module in some.modules())
    assert cut.network.get_parameter("second.weight").dtype == torch.float64
    assert all(p.requires_grad and p.grad is None for p in cut.network.parameters())


class Shared(nn.Module):
    """One layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.again(torch.relu(self.again(torch.relu(self.first(x)))))))
        return out


def test_a_layer_that_is_called_twice_is_left_alone_by_the_sequential_form_and_named() -> None:
    torch.manual_seed(3)
    inputs = torch.randn(64, 6)
    dense, space = traced(Shared(), inputs[:2])
    cut, chain = cut_of(dense, space), Chain(["sequential_least_squares"])
    sliced = cut.network.get_parameter("again.weight").detach().clone()
    chain.apply(cut, dense, Statistics(lambda n: [inputs], CPU))
    assert chain.left_alone == {"again.weight": "sequential_least_squares: it is called several times"}
    assert torch.equal(cut.network.get_parameter("again.weight"), sliced)


def test_a_layer_with_too_many_inputs_is_left_alone_and_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = pair("plain")
    dense, space = traced(model, inputs[:2])
    monkeypatch.setattr(autoprune.inherit.fitting, "MOST_INPUTS", 30)
    for method, hint in ((METHODS[0], "choose moments: channel"), (METHODS[1], "inputs would take")):
        chain = Chain([method])
        chain.apply(cut_of(dense, space), dense, Statistics(lambda n: [inputs], CPU))
        assert hint in chain.left_alone["second.weight"]
    by_channel = Chain([{"name": "least_squares", "settings": {"moments": "channel"}}])
    by_channel.apply(cut_of(dense, space), dense, Statistics(lambda n: [inputs], CPU))
    assert by_channel.left_alone == {}


class Named(nn.Module):
    """Token ids and a factor, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.first, self.head = nn.Embedding(11, 8), nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, tokens: Tensor, factor: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.first(self.embed(tokens) * factor[:, None, None])))
        return out


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", ["mapping", "tuple"])
def test_inputs_may_be_token_ids_in_a_tuple_or_a_mapping(form: str, method: str) -> None:
    torch.manual_seed(4)
    batches: list[Any] = [{"tokens": torch.randint(11, (16, 5)), "factor": torch.rand(16)} for _ in range(3)]
    if form == "tuple":
        batches = [tuple(batch.values()) for batch in batches]
    model = Named()
    dense, space = traced(model, batches[0])
    errors = []
    for chosen in ([], [method]):
        network = fitted(chosen, dense, cut_of(dense, space), batches)
        with torch.no_grad():
            results = [[n(**b) if isinstance(b, dict) else n(*b) for b in batches] for n in (network, dense)]
        errors.append(sum((a - b).square().mean().item() for a, b in zip(*results, strict=True)))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("method", METHODS)
def test_batches_of_other_sizes_and_a_first_one_that_is_not_finite_are_no_obstacle(method: str) -> None:
    torch.manual_seed(5)
    model = Pair(nn.Linear(6, 8), nn.Linear(8, 5))
    batches = [torch.full((8, 4, 6), float("nan")), torch.randn(8, 4, 6), torch.randn(8, 7, 6), torch.randn(5, 4, 6)]
    dense, space = traced(model, batches[1][:2])
    spoilt = fitted([method], dense, cut_of(dense, space), batches)
    clean = fitted([method], dense, cut_of(dense, space), batches[1:])
    assert all(torch.equal(tensor, clean.state_dict()[name]) for name, tensor in spoilt.state_dict().items())


class Block(nn.Module):
    """A residual block that may go as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(torch.relu(self.first(x)))
        return out


@pytest.mark.parametrize("method", METHODS)
def test_blocks_that_are_left_out_are_no_obstacle(method: str) -> None:
    torch.manual_seed(6)
    inputs = torch.randn(32, 3, 6, 6)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Block(), Block(), nn.Flatten(), nn.Linear(128, 3))
    dense, space = traced(model, inputs[:2], blocks=True)
    gone = min(space.presence.blocks)
    widths = tuple(0 if index == gone else width for index, width in enumerate(space.uniform(0.5)))
    assert "1.first.weight" not in cut_of(dense, space, widths).kept
    errors = [
        distance(fitted(chosen, dense, cut_of(dense, space, widths), [inputs]), dense, inputs)
        for chosen in ([], [method])
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("method", METHODS)
def test_settings_that_cannot_be_and_missing_data_are_refused(method: str) -> None:
    for images in (0, 2.5, True, "512"):
        with pytest.raises(ConfigError, match=f"{method}: images must be at least 1"):
            Chain([{"name": method, "settings": {"images": images}}])
    model, inputs = pair("plain")
    dense, space = traced(model, inputs[:2])
    with pytest.raises(ConfigError, match=f"{method} needs calibration inputs"):
        fitted([method], dense, cut_of(dense, space), [])
    with pytest.raises(EvaluationError, match="not finite"):
        fitted([method], dense, cut_of(dense, space), [torch.full_like(inputs, float("inf"))])


def test_moments_of_another_kind_are_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"moments must be patch or channel, got 'chanel'.*channel"):
        LeastSquares(moments="chanel")  # type: ignore[arg-type]


def test_fits_are_made_once_for_all_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = pair("plain")
    dense, space = traced(model, inputs[:2])
    made: list[str] = []
    original = MomentFit.__init__

    def counted(self: MomentFit, moments: Any, weight: Tensor) -> None:
        made.append(moments.consumer.name)
        original(self, moments, weight)

    monkeypatch.setattr(MomentFit, "__init__", counted)
    statistics, method = Statistics(lambda n: [inputs], CPU), LeastSquares()
    for ratio in (0.25, 0.5, 0.75):
        method.apply(cut_of(dense, space, ratio), dense, statistics)
    assert made == ["second.weight"]
