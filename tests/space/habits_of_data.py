"""More habits: moving, padding, splitting and writing into maps; parameters outside of layers; inputs and outputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from habits import FREE, Habit, between, both, habit, linear
from nets import Net, classify, conv, image, parameter
from torch import Tensor, nn


# --- moving data ---------------------------------------------------------------------------------------------------
@habit
def flatten_before_linear() -> Habit:
    net = Net(lambda n, x: n.fc(torch.flatten(F.relu(n.a(x)), 1)), a=conv(3, 16), fc=linear(16 * 36))
    return Habit(net, {"a": 16})


@habit
def padding_around_maps() -> Habit:
    return Habit(between(lambda n, y: F.pad(y, (1, 1, 0, 2), value=2.0)), FREE)


@habit
def reflected_padding() -> Habit:
    return Habit(between(lambda n, y: F.pad(y, (1, 1, 1, 1), mode="reflect")), FREE)


@habit
def circular_padding() -> Habit:
    return Habit(
        between(lambda n, y: n.c(y), c=nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular")), {**FREE, "c": 16}
    )  # type: ignore[operator]


@habit
def padding_with_channels() -> Habit:
    """The module's own numbers of channels to add are baked, so only the middle can be cut."""
    net = both(lambda n, x: F.pad(n.a(x), (0, 0, 0, 0, 4, 4)) + n.b(x), a=conv(3, 8), b=conv(3, 16))
    return Habit(net, {"a": 8}, {"b": "does not run"})


@habit
def product_of_two_halves() -> Habit:
    def step(n: Any, x: Tensor) -> Tensor:
        value, gate = n.a(x).chunk(2, 1)
        return value * torch.sigmoid(gate)

    return Habit(both(step, 8), {"a": 8})


@habit
def two_halves_to_two_layers() -> Habit:
    """Each half alone would move the border between them."""

    def step(n: Any, y: Tensor) -> Tensor:
        one, other = y.chunk(2, 1)
        return n.c(one) + n.d(other)  # type: ignore[no-any-return]

    return Habit(between(step, 6, c=conv(8, 6), d=conv(8, 6)), {"c": 6, "b": 8}, {"a": "does not run"})


@habit
def half_by_a_number() -> Habit:
    """y[:, 8:] goes on to the end, wherever that is; y[:, :8] does not."""
    net = between(lambda n, y: n.c(y[:, :8]) + n.d(y[:, 8:]), 6, c=conv(8, 6), d=conv(8, 6))  # type: ignore[operator]
    return Habit(net, {"a#2": 8, "c": 6, "b": 8}, {"a": "does not run"})


@habit
def repeated_channels() -> Habit:
    return Habit(between(lambda n, y: y.repeat(1, 2, 1, 1), 32), FREE)


@habit
def channels_repeated_in_place() -> Habit:
    return Habit(between(lambda n, y: y.repeat_interleave(2, 1), 32), FREE)


@habit
def channels_to_pixels() -> Habit:
    return Habit(between(lambda n, y: F.pixel_shuffle(y, 2), 4), {"a": 4, "b": 8})


@habit
def channels_rolled_by_a_number() -> Habit:
    return Habit(between(lambda n, y: y.roll(3, 1)), {"b": 8}, {"a": "differs"})


@habit
def view_with_a_baked_channel_count() -> Habit:
    return Habit(between(lambda n, y: y.view(2, 16, 36).view(2, 16, 6, 6)), {"b": 8}, {"a": "does not run"})


@habit
def view_that_asks_for_the_channel_count() -> Habit:
    return Habit(between(lambda n, y: y.view(2, y.shape[1], 36).view(2, -1, 6, 6)), FREE)


@habit
def casts() -> Habit:
    return Habit(between(lambda n, y: y.to(torch.float64).float()), FREE)


@habit
def resized_maps() -> Habit:
    return Habit(between(lambda n, y: F.interpolate(F.avg_pool2d(y, 2), scale_factor=2.0)), FREE)


# --- what needs all channels ---------------------------------------------------------------------------------------
@habit
def mean_over_channels() -> Habit:
    return Habit(between(lambda n, y: y.mean(1, keepdim=True), 1), {"b": 8}, {"a": "a reduction over channels"})


@habit
def softmax_over_channels() -> Habit:
    return Habit(between(lambda n, y: y.softmax(1)), {"b": 8}, {"a": "a softmax over channels"})


@habit
def cumulative_sum_over_channels() -> Habit:
    return Habit(between(lambda n, y: y.cumsum(1)), {"b": 8}, {"a": "a cumsum over channels"})


@habit
def cumulative_sum_over_positions() -> Habit:
    return Habit(between(lambda n, y: y.cumsum(2)), FREE)


@habit
def operator_without_a_rule() -> Habit:
    net = between(lambda n, y: torch.fft.rfft(y, dim=1).real, 9)
    return Habit(net, {"b": 8}, {"a": "fft_rfft"})


@habit
def custom_operator() -> Habit:
    net = between(lambda n, y: torch.ops.autoprune_tests.reverse_channels(y))
    return Habit(net, {"b": 8}, {"a": "autoprune_tests.reverse_channels"})


@habit
def channels_picked_by_number() -> Habit:
    return Habit(between(lambda n, y: y[:, [0, 2, 4]], 3), {"b": 8}, {"a": "index"})


# --- writing into maps ---------------------------------------------------------------------------------------------
@habit
def assigned_to_a_slice_of_zeros() -> Habit:
    def step(n: Any, y: Tensor) -> Tensor:
        out = torch.zeros(2, 20, 6, 6)
        out[:, :16] = y
        return out

    return Habit(between(step, 20), {"b": 8}, {"a": "copy_"})


@habit
def added_to_zeros_that_a_view_sees() -> Habit:
    def step(n: Any, y: Tensor) -> Tensor:
        out = torch.zeros_like(y)
        maps = out.transpose(2, 3)
        out.add_(y)
        return maps

    return Habit(between(step), {"b": 8}, {"a": "a tensor whose size is fixed"})


@habit
def some_channels_set_to_zero() -> Habit:
    """The first four stay in front, so the others may go."""

    def step(n: Any, y: Tensor) -> Tensor:
        y[:, :4] = 0
        return y

    return Habit(between(step), {"a": 12, "b": 8}, {"a": "fill_"})


@habit
def view_changed_in_place() -> Habit:
    def step(n: Any, y: Tensor) -> Tensor:
        y[:, :4].mul_(2)
        return y

    return Habit(between(step), {"b": 8}, {"a": "differs"})


@habit
def constant_of_a_fixed_size() -> Habit:
    return Habit(between(lambda n, y: y + torch.zeros(1, 16, 1, 1)), {"b": 8}, {"a": "does not run"})


# --- parameters outside of layers ----------------------------------------------------------------------------------
@habit
def layer_scale() -> Habit:
    net = both(lambda n, x: n.s * n.a(x) + n.b(x), b=conv(3, 16), s=parameter(16, 1, 1))  # type: ignore[operator]
    return Habit(net, {"a": 16})


@habit
def positional_parameter() -> Habit:
    return Habit(both(lambda n, x: n.p + n.a(x), p=parameter(1, 16, 6, 6)), {"a": 16})  # type: ignore[operator]


@habit
def scalar_parameter() -> Habit:
    return Habit(both(lambda n, x: n.s * n.a(x * n.s), s=parameter()), {"a": 16})  # type: ignore[operator]


@habit
def buffer_of_channels() -> Habit:
    return Habit(both(lambda n, x: n.k * n.a(x), k=torch.rand(1, 16, 1, 1)), {"a": 16})  # type: ignore[operator]


# --- inputs and outputs --------------------------------------------------------------------------------------------
@habit
def several_outputs() -> Habit:
    def forward(n: Any, x: Tensor) -> dict[str, Any]:
        return {"maps": n.a(x), "logits": [classify(n, n.b(x)), None]}

    net = Net(forward, a=conv(3, 16), b=conv(3, 8), fc=linear(8))
    return Habit(net, {"b": 8}, {"a": "the model's output"})


@habit
def two_inputs() -> Habit:
    net = Net(lambda n, x, y: classify(n, F.relu(n.a(x) + n.b(y))), a=conv(3, 16), b=conv(3, 16), fc=linear(16))
    return Habit(net, {"a": 16}, inputs=(image(), image() + 1))


@habit
def image_added_to_maps() -> Habit:
    return Habit(between(lambda n, y: n.c(y) + image(), 3, c=conv(16, 3)), FREE, {"c": "fixed"})  # type: ignore[operator]


@habit
def without_a_batch() -> Habit:
    net = Net(lambda n, x: n.fc(n.a(x).mean((1, 2))), a=conv(3, 16), fc=linear(16))
    return Habit(net, {"a": 16}, inputs=(image()[0],))


@habit
def layer_that_is_never_called() -> Habit:
    return Habit(both(lambda n, x: n.a(x), unused=nn.Linear(4, 9)), {"a": 16})  # type: ignore[operator]
