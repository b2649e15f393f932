from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import EvaluationError
from autoprune.space.groups import SearchSpace, TensorLayout
from autoprune.statistics.calls import WeightCall, WeightCalls
from autoprune.statistics.consumers import consumers
from autoprune.statistics.moments import gather_moments
from autoprune.statistics.norms import norm_arguments
from autoprune.statistics.rows import input_rows, matrix_weight, output_rows, weight_matrix
from autoprune.testing.generators import global_generators


class Wrapped(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


class Spy(WeightCalls):
    def called(self, call: WeightCall, run: Any) -> Tensor:
        self.call, self.outputs = call, run()
        return self.outputs


CASES = {
    "plain": (nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2), (3, 4, 11, 9)),
    "grouped, same": (nn.Conv2d(4, 6, (3, 1), padding="same", groups=2), (3, 4, 11, 9)),
    "1d, depthwise": (nn.Conv1d(4, 8, 3, groups=4), (3, 4, 11)),
    "3d": (nn.Conv3d(2, 3, (2, 1, 3), stride=(1, 2, 2), padding=(1, 0, 2)), (3, 2, 5, 6, 7)),
    "transposed, grouped": (
        nn.ConvTranspose2d(4, 6, (3, 4), stride=(2, 3), padding=(1, 2), output_padding=1, groups=2),
        (3, 4, 5, 6),
    ),
    "transposed, cropped": (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=3, dilation=2), (3, 4, 9)),
    "no batch": (nn.Conv2d(3, 3, 3), (3, 6, 6)),
    "reflected": (nn.Conv2d(3, 3, 3, padding=1, groups=3, padding_mode="reflect"), (2, 3, 6, 6)),
    "linear": (nn.Linear(5, 7), (6, 5)),
    "tokens": (nn.Linear(5, 7), (3, 50, 5)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_call_is_a_matrix_product_of_its_rows(case: str) -> None:
    layer, shape = CASES[case]
    model, x = Wrapped(layer), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    spy = Spy(model, ("layer.weight",))
    with spy:
        model(x)
    rows = input_rows(spy.call, len(x), positions=7)
    matrix = weight_matrix(spy.call, layer.weight)
    made = torch.einsum("ngd,god->ngo", rows, matrix).flatten(1) + layer.bias
    torch.testing.assert_close(made, output_rows(spy.call, spy.outputs, len(x), positions=7), rtol=1e-4, atol=1e-5)
    assert torch.equal(matrix_weight(spy.call, matrix, layer.weight), layer.weight)
    assert spy.call.bias == "layer.bias"


@pytest.mark.parametrize("case", CASES)
def test_a_call_can_be_run_again_on_other_inputs_and_another_weight(case: str) -> None:
    layer, shape = CASES[case]
    model, x = Wrapped(layer), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    spy = Spy(model, ("layer.weight",))
    with spy:
        model(x)
        expected = -2 * model(2 * x)
    bias = layer.bias if spy.call.kind == "product" else layer.bias.reshape(-1, *[1] * len(spy.call.kernel))
    made = spy.call.run(spy.call.inputs, -2 * layer.weight)  # the last call: its inputs are doubled
    torch.testing.assert_close(made - 2 * bias, expected, rtol=1e-4, atol=1e-4)
    assert spy.call.without_inputs().inputs.numel() == 0


def test_products_are_seen_however_the_matrix_is_turned_and_the_arguments_are_named() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))

    model, x = Turned(), torch.randn(5, 3)
    runs = {
        "t": lambda w: x @ w.t(),
        "T": lambda w: torch.mm(x, w.T),
        "transpose": lambda w: torch.matmul(input=x, other=w.transpose(0, 1)),
        "addmm": lambda w: torch.addmm(torch.zeros(4), x, w.t()),
        "aten": lambda w: torch.ops.aten.mm(x, torch.ops.aten.t(w)),
        "aten, by name": lambda w: torch.ops.aten.mm(self=x, mat2=torch.ops.aten.t(w)),
    }
    for name, run in runs.items():
        spy = Spy(model, ("weight",))
        with spy:
            outputs = run(model.weight)
        assert not spy.call.by_columns, name
        torch.testing.assert_close(spy.call.run(x, model.weight), outputs)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_norms_say_whether_they_go_by_the_batch(kind: type[nn.Module]) -> None:
    seen: list[Any] = []

    class Norms(WeightCalls):
        def called(self, call: WeightCall, run: Any) -> Tensor:
            raise AssertionError("a norm is no call that multiplies channels")

        def other(self, func: Any, args: Any, kwargs: Any, run: Any) -> Any:
            found = norm_arguments(func, args, kwargs)
            seen.extend([] if found is None else [found])
            return run()

    norm = kind(3, affine=True, track_running_stats=True)
    alone = kind(3, affine=True, track_running_stats=False)
    with Norms(norm, ()):
        for module, training in ((norm, False), (norm, True), (alone, False)):
            module.train(training)(torch.randn(4, 3, 5, 5))
    assert [found["training"] for found in seen] == [False, True, True]
    assert seen[0]["running_mean"] is norm.running_mean
    assert seen[0]["weight"] is norm.weight


def bare_space(model: nn.Module) -> SearchSpace:
    """A space in which nothing is cut."""
    return SearchSpace(
        (),
        tensors=tuple(
            TensorLayout(n, tuple(p.shape), "parameter", (None,) * p.ndim) for n, p in model.named_parameters()
        ),
    )


def everything(_: object) -> bool:
    return True


def test_moments_are_those_of_all_patches_where_no_position_is_left_out() -> None:
    model, batches = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)), [torch.randn(4, 2, 5, 5), torch.randn(2, 2, 5, 5)]
    found = gather_moments(model, bare_space(model), batches, positions=25, only=everything)["0.weight"]
    patches = torch.cat(
        [nn.functional.unfold(b, 3, padding=1).transpose(1, 2).reshape(-1, 18) for b in batches]
    ).double()
    assert found.count == len(patches) == 150
    np.testing.assert_allclose(found.second[0], (patches.T @ patches / 150).numpy(), atol=1e-6)
    np.testing.assert_allclose(found.mean[0], patches.mean(0).numpy(), atol=1e-6)
    np.testing.assert_allclose(found.centred[0], np.cov(patches.numpy().T, bias=True), atol=1e-6)


def test_moments_of_channels_are_those_of_pixels() -> None:
    model, batch = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)), torch.randn(4, 2, 5, 5)
    found = gather_moments(model, bare_space(model), [batch], "channel", positions=25, only=everything)["0.weight"]
    pixels = batch.permute(0, 2, 3, 1).reshape(-1, 2).double()
    np.testing.assert_allclose(found.second[0], (pixels.T @ pixels / 100).numpy(), atol=1e-6)


def test_batches_that_are_not_finite_are_left_out_and_counted() -> None:
    model, good = nn.Sequential(nn.Conv2d(2, 3, 3)), torch.randn(4, 2, 5, 5)
    bad = good.clone()
    bad[1, 0, 2, 2] = float("nan")
    found, alone = (
        gather_moments(model, bare_space(model), b, only=everything)["0.weight"] for b in ([good, bad], [good])
    )
    assert torch.equal(found.second, alone.second)
    assert found.skipped == 1
    with pytest.raises(EvaluationError, match="all 1 calibration batches"):
        gather_moments(model, bare_space(model), [bad], only=everything)
    with pytest.raises(EvaluationError, match="there are none"):
        gather_moments(model, bare_space(model), [], only=everything)


class Uses(nn.Module):
    """A norm that follows alone, an output read twice, a shared layer, attention, tied embedding, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.normed, self.norm = nn.Conv1d(8, 8, 1), nn.BatchNorm1d(8)
        self.twice, self.other_norm = nn.Conv1d(8, 8, 1), nn.BatchNorm1d(8)
        self.shared = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.matrix = nn.Parameter(torch.randn(8, 8))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens).transpose(1, 2)
        x = torch.relu(self.norm(self.normed(x)))
        y = self.twice(x)
        x = (self.other_norm(y) + y).transpose(1, 2)
        x = self.shared(torch.relu(self.shared(x)))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.recurrent(x)[0] @ self.matrix
        return x @ self.embedding.weight.T


def test_consumers_are_told_with_bias_norm_and_number_of_calls() -> None:
    model, tokens = Uses().eval(), torch.randint(7, (3, 5))
    found = {c.name: c for c in consumers(model, bare_space(model), tokens)}
    assert list(found) == [
        *("normed.weight", "twice.weight", "shared.weight"),
        *("attention.in_proj_weight", "attention.out_proj.weight", "matrix"),
    ]
    assert {name: c.calls for name, c in found.items() if c.calls > 1} == {"shared.weight": 2}
    norm = found["normed.weight"].norm
    assert norm is not None
    assert (norm.mean, norm.variance) == ("norm.running_mean", "norm.running_var")
    assert (norm.weight, norm.bias, norm.eps) == ("norm.weight", "norm.bias", 1e-5)
    assert found["twice.weight"].norm is None
    assert found["attention.in_proj_weight"].bias == "attention.in_proj_bias"
    assert found["matrix"].call.by_columns
    assert found["matrix"].bias is None


def test_the_model_and_the_generators_are_only_read() -> None:
    model, tokens = Uses().train(), torch.randint(7, (3, 5))
    before, generators = copy.deepcopy(model.state_dict()), global_generators()
    gather_moments(model, bare_space(model), [tokens], only=everything)
    assert global_generators() == generators
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
