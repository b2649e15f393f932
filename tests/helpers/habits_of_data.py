"""More habits: moving, padding, splitting and writing into maps; parameters outside of layers; inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from habits import FREE, between, both, case, habit, linear
from nets import Net, classify, conv, image, parameter
from torch import Tensor, nn

from autoprune.testing.rules import RuleCase


# --- moving data ---------------------------------------------------------------------------------------------------
@habit
def flatten_before_linear() -> RuleCase:
    net = Net(lambda n, x: n.fc(torch.flatten(F.relu(n.a(x)), 1)), a=conv(3, 16), fc=linear(16 * 36))
    return case(net, {"a": 16})


@habit
def padding_around_maps() -> RuleCase:
    return case(between(lambda n, y: F.pad(y, (1, 1, 0, 2), value=2.0)), FREE)


@habit
def reflected_padding() -> RuleCase:
    return case(between(lambda n, y: F.pad(y, (1, 1, 1, 1), mode="reflect")), FREE)


@habit
def circular_padding() -> RuleCase:
    return case(
        between(lambda n, y: n.c(y), c=nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular")), {**FREE, "c": 16}
    )  # type: ignore[operator]


@habit
def padding_with_channels() -> RuleCase:
    """The module's own numbers of channels to add are baked; the graph's follow the widths."""
    net = both(lambda n, x: F.pad(n.a(x), (0, 0, 0, 0, 4, 4)) + n.b(x), a=conv(3, 8), b=conv(3, 16))
    return case(net, {"a": 8, "b": 4, "b#2": 4}, form="graph")


@habit
def product_of_two_halves() -> RuleCase:
    def step(n: Any, x: Tensor) -> Tensor:
        value, gate = n.a(x).chunk(2, 1)
        return value * torch.sigmoid(gate)

    return case(both(step, 8), {"a": 8})


@habit
def two_halves_to_two_layers() -> RuleCase:
    """Each half alone moves the border between them, which only the graph can follow."""

    def step(n: Any, y: Tensor) -> Tensor:
        one, other = y.chunk(2, 1)
        return n.c(one) + n.d(other)  # type: ignore[no-any-return]

    return case(between(step, 6, c=conv(8, 6), d=conv(8, 6)), {"a": 8, "a#2": 8, "c": 6, "b": 8}, form="graph")


@habit
def half_by_a_number() -> RuleCase:
    net = between(lambda n, y: n.c(y[:, :8]) + n.d(y[:, 8:]), 6, c=conv(8, 6), d=conv(8, 6))  # type: ignore[operator]
    return case(net, {"a": 8, "a#2": 8, "c": 6, "b": 8}, form="graph")


@habit
def repeated_channels() -> RuleCase:
    return case(between(lambda n, y: y.repeat(1, 2, 1, 1), 32), FREE)


@habit
def channels_repeated_in_place() -> RuleCase:
    return case(between(lambda n, y: y.repeat_interleave(2, 1), 32), FREE)


@habit
def channels_to_pixels() -> RuleCase:
    return case(between(lambda n, y: F.pixel_shuffle(y, 2), 4), {"a": 4, "b": 8})


@habit
def channels_rolled_by_a_number() -> RuleCase:
    return case(between(lambda n, y: y.roll(3, 1)), {"b": 8}, {"a": "differs"})


@habit
def view_with_a_baked_channel_count() -> RuleCase:
    return case(between(lambda n, y: y.view(2, 16, 36).view(2, 16, 6, 6)), FREE, form="graph")


@habit
def view_that_asks_for_the_channel_count() -> RuleCase:
    return case(between(lambda n, y: y.view(2, y.shape[1], 36).view(2, -1, 6, 6)), FREE)


@habit
def casts() -> RuleCase:
    return case(between(lambda n, y: y.to(torch.float64).float()), FREE)


@habit
def resized_maps() -> RuleCase:
    return case(between(lambda n, y: F.interpolate(F.avg_pool2d(y, 2), scale_factor=2.0)), FREE)


# --- what runs over channels ---------------------------------------------------------------------------------------
class Over(nn.Module):
    """A function of channels as a module, so that a reference can take its place."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


def mean_of_survivors(_: nn.Module, x: Tensor, kept: Tensor) -> Tensor:
    return x[:, kept].sum(1, keepdim=True) / kept.sum()


def softmax_of_survivors(_: nn.Module, x: Tensor, kept: Tensor) -> Tensor:
    return torch.zeros_like(x).index_copy(1, kept.nonzero().flatten(), x[:, kept].softmax(1))


@habit
def mean_over_channels() -> RuleCase:
    net = between(lambda n, y: n.mean(y), 1, mean=Over(lambda y: y.mean(1, keepdim=True)))
    return case(net, FREE, statistics={"mean": ("a.bias", mean_of_survivors)})


@habit
def softmax_over_channels() -> RuleCase:
    net = between(lambda n, y: n.softmax(y), softmax=nn.Softmax(1))
    return case(net, FREE, statistics={"softmax": ("a.bias", softmax_of_survivors)})


@habit
def cumulative_sum_over_channels() -> RuleCase:
    return case(between(lambda n, y: y.cumsum(1)), FREE)


@habit
def cumulative_sum_over_positions() -> RuleCase:
    return case(between(lambda n, y: y.cumsum(2)), FREE)


@habit
def operator_without_a_rule() -> RuleCase:
    net = between(lambda n, y: torch.fft.rfft(y, dim=1).real, 9)
    return case(net, {"b": 8}, {"a": "fft_rfft"})


@habit
def custom_operator() -> RuleCase:
    net = between(lambda n, y: torch.ops.autoprune_tests.reverse_channels(y))
    return case(net, {"b": 8}, {"a": "autoprune_tests.reverse_channels"})


@habit
def channels_picked_by_number() -> RuleCase:
    return case(between(lambda n, y: y[:, [0, 2, 4]], 3), {"b": 8}, {"a": "index"})


# --- writing into maps ---------------------------------------------------------------------------------------------
@habit
def assigned_to_a_slice_of_zeros() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        out = torch.zeros(2, 20, 6, 6)
        out[:, :16] = y
        return out

    return case(between(step, 20), {"b": 8}, {"a": "copy_"})


@habit
def added_to_zeros_that_a_view_sees() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        out = torch.zeros_like(y)
        maps = out.transpose(2, 3)
        out.add_(y)
        return maps

    return case(between(step), FREE)


@habit
def some_channels_set_to_zero() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        y[:, :4] = 0
        return y

    return case(between(step), {"a": 4, "a#2": 12, "b": 8}, form="graph")


@habit
def view_changed_in_place() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        y[:, :4].mul_(2)
        return y

    return case(between(step), {"a": 4, "a#2": 12, "b": 8}, form="graph")


@habit
def constant_of_a_fixed_size() -> RuleCase:
    """The module's own number of zeros is baked; the graph's follows what they are added to."""
    return case(between(lambda n, y: y + torch.zeros(1, 16, 1, 1)), FREE, form="graph")


# --- parameters outside of layers ----------------------------------------------------------------------------------
@habit
def layer_scale() -> RuleCase:
    net = both(lambda n, x: n.s * n.a(x) + n.b(x), b=conv(3, 16), s=parameter(16, 1, 1))  # type: ignore[operator]
    return case(net, {"a": 16})


@habit
def positional_parameter() -> RuleCase:
    return case(both(lambda n, x: n.p + n.a(x), p=parameter(1, 16, 6, 6)), {"a": 16})  # type: ignore[operator]


@habit
def scalar_parameter() -> RuleCase:
    return case(both(lambda n, x: n.s * n.a(x * n.s), s=parameter()), {"a": 16})  # type: ignore[operator]


@habit
def buffer_of_channels() -> RuleCase:
    return case(both(lambda n, x: n.k * n.a(x), k=torch.rand(1, 16, 1, 1)), {"a": 16})  # type: ignore[operator]


# --- inputs and outputs --------------------------------------------------------------------------------------------
@habit
def several_outputs() -> RuleCase:
    def forward(n: Any, x: Tensor) -> dict[str, Any]:
        return {"maps": n.a(x), "logits": [classify(n, n.b(x)), None]}

    net = Net(forward, a=conv(3, 16), b=conv(3, 8), fc=linear(8))
    return case(net, {"b": 8}, {"a": "the model's output"})


@habit
def two_inputs() -> RuleCase:
    net = Net(lambda n, x, y: classify(n, F.relu(n.a(x) + n.b(y))), a=conv(3, 16), b=conv(3, 16), fc=linear(16))
    return case(net, {"a": 16}, inputs=(image(), image() + 1))


@habit
def image_added_to_maps() -> RuleCase:
    picture = image()
    return case(between(lambda n, y: n.c(y) + picture, 3, c=conv(16, 3)), FREE, {"c": "fixed"})  # type: ignore[operator]


@habit
def without_a_batch() -> RuleCase:
    net = Net(lambda n, x: n.fc(n.a(x).mean((1, 2))), a=conv(3, 16), fc=linear(16))
    return case(net, {"a": 16}, inputs=image()[0])


@habit
def layer_that_is_never_called() -> RuleCase:
    return case(both(lambda n, x: n.a(x), unused=nn.Linear(4, 9)), {"a": 16})  # type: ignore[operator]
