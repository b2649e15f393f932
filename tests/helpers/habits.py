"""Habits of model code, each as a small network with the groups that it has and the parts that must stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from nets import Net, classify, conv, image, parameter
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from autoprune.testing.rules import RuleCase


def case(
    net: Net, groups: dict[str, int], frozen: dict[str, str] | None = None, inputs: Any = None, **more: Any
) -> RuleCase:
    """A network, its groups (name -> width) once verified, and what is frozen (layer -> a part of the reason)."""
    return RuleCase(net, image() if inputs is None else inputs, groups, frozen or {}, **more)


HABITS: dict[str, Callable[[], RuleCase]] = {}


def habit(build: Callable[[], RuleCase]) -> Callable[[], RuleCase]:
    HABITS[build.__name__] = build
    return build


def linear(before: int, after: int = 5) -> nn.Linear:
    return nn.Linear(before, after)


@torch.library.custom_op("autoprune_tests::reverse_channels", mutates_args=())
def reverse_channels(x: Tensor) -> Tensor:
    return x.flip(1)


@reverse_channels.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def between(step: Callable[[Net, Tensor], Tensor], width: int = 16, **parts: nn.Module | Tensor) -> Net:
    """Convolution a (3 to 16), the step, convolution b (`width` to 8), classifier."""

    def forward(n: Any, x: Tensor) -> Tensor:
        return classify(n, F.relu(n.b(step(n, F.relu(n.a(x))))))

    return Net(forward, **{"a": conv(3, 16), "b": conv(width, 8), "fc": linear(8), **parts})


def both(step: Callable[[Any, Tensor], Tensor], width: int = 16, **parts: nn.Module | Tensor) -> Net:
    """The step on the image gives `width` maps, which are classified."""
    return Net(lambda n, x: classify(n, F.relu(step(n, x))), **{"a": conv(3, 16), "fc": linear(width), **parts})


FREE = {"a": 16, "b": 8}  # nothing in between hinders


# --- sums, concatenations, products --------------------------------------------------------------------------------
@habit
def residual_sum() -> RuleCase:
    return case(both(lambda n, x: n.bn(n.a(x)) + n.b(x), b=conv(3, 16), bn=nn.BatchNorm2d(16)), {"a": 16})


@habit
def difference_in_place() -> RuleCase:
    return case(both(lambda n, x: n.a(x).sub_(n.b(x)).relu_(), b=conv(3, 16)), {"a": 16})


@habit
def in_place_whose_result_is_not_used() -> RuleCase:
    def step(n: Any, x: Tensor) -> Tensor:
        y = n.a(x)
        y.add_(n.b(x))
        y.relu_()
        return y

    return case(both(step, b=conv(3, 16)), {"a": 16})


@habit
def concat_of_concats() -> RuleCase:
    def step(n: Any, x: Tensor) -> Tensor:
        inner = torch.cat([n.a(x), n.b(x)], 1)
        return n.c(torch.cat([inner, n.a(x)], 1))  # type: ignore[no-any-return]

    return case(both(step, 12, b=conv(3, 8), c=conv(40, 12)), {"a": 16, "b": 8, "c": 12})


@habit
def sum_of_concats() -> RuleCase:
    def step(n: Any, x: Tensor) -> Tensor:
        return torch.cat([n.a(x), n.b(x)], 1) + n.c(x)

    return case(both(step, 24, b=conv(3, 8), c=conv(3, 24)), {"a": 16, "b": 8})


@habit
def squeeze_and_excitation() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        return y * torch.sigmoid(n.expand(F.relu(n.squeeze(y.mean((2, 3), keepdim=True)))))

    return case(between(step, squeeze=conv(16, 4, 1), expand=conv(4, 16, 1)), {**FREE, "squeeze": 4})


@habit
def spatial_attention_map() -> RuleCase:
    net = between(lambda n, y: y * torch.sigmoid(n.map(y)), map=conv(16, 1))  # type: ignore[operator]
    return case(net, FREE, {"map": "spreads one channel"})


@habit
def one_channel_added_to_all() -> RuleCase:
    return case(both(lambda n, x: n.a(x) + n.b(x), b=conv(3, 1)), {"a": 16}, {"b": "spreads one channel"})


@habit
def outer_sum() -> RuleCase:
    def step(n: Any, x: Tensor) -> Tensor:
        return n.c((n.a(x).mean((2, 3)).unsqueeze(2) + n.b(x).mean((2, 3)).unsqueeze(1)).unsqueeze(1))  # type: ignore[no-any-return]

    net = both(step, 6, b=conv(3, 8), c=conv(1, 6))
    return case(net, {"c": 6}, {"a": "spreads one channel", "b": "spreads one channel"})


@habit
def choice_by_where() -> RuleCase:
    return case(both(lambda n, x: torch.where(n.a(x) > 0, n.a(x), n.b(x)), b=conv(3, 16)), {"a": 16})


# --- kinds of layers -----------------------------------------------------------------------------------------------
@habit
def depthwise() -> RuleCase:
    return case(between(lambda n, y: n.d(y), d=conv(16, 16, groups=16)), FREE)  # type: ignore[operator]


@habit
def depthwise_with_multiplier() -> RuleCase:
    return case(between(lambda n, y: n.d(y), 32, d=conv(16, 32, groups=16)), FREE)  # type: ignore[operator]


@habit
def grouped() -> RuleCase:
    net = between(lambda n, y: n.g(y), 24, g=conv(16, 24, groups=4))  # type: ignore[operator]
    return case(net, {"a": 4, "g": 6, "b": 8})


@habit
def transposed() -> RuleCase:
    net = between(lambda n, y: n.t(y), 12, t=nn.ConvTranspose2d(16, 12, 2, 2))  # type: ignore[operator]
    return case(net, {**FREE, "t": 12})


@habit
def transposed_grouped() -> RuleCase:
    net = between(lambda n, y: n.t(y), 12, t=nn.ConvTranspose2d(16, 12, 2, 2, groups=2))  # type: ignore[operator]
    return case(net, {"a": 8, "t": 6, "b": 8})


@habit
def one_dimension() -> RuleCase:
    net = Net(lambda n, x: n.fc(n.a(x).mean(2)), a=nn.Conv1d(3, 8, 3), fc=linear(8))
    return case(net, {"a": 8}, inputs=torch.randn(2, 3, 9))


@habit
def three_dimensions() -> RuleCase:
    net = Net(lambda n, x: n.fc(n.a(x).mean((2, 3, 4))), a=nn.Conv3d(3, 8, 3), fc=linear(8))
    return case(net, {"a": 8}, inputs=torch.randn(2, 3, 4, 4, 4))


@habit
def module_used_twice() -> RuleCase:
    return case(between(lambda n, y: n.c(F.relu(n.c(y))), c=conv(16, 16)), FREE)  # type: ignore[operator]


@habit
def tied_weights() -> RuleCase:
    one, other = conv(16, 16), conv(16, 16)
    other.weight = one.weight
    return case(between(lambda n, y: n.q(F.relu(n.p(y))), p=one, q=other), FREE)  # type: ignore[operator]


@habit
def embedding() -> RuleCase:
    net = Net(lambda n, x: n.fc(F.relu(n.l(n.e(x)))), e=nn.Embedding(9, 16), l=nn.Linear(16, 8), fc=linear(8))
    return case(net, {"e": 16, "l": 8}, inputs=torch.tensor([[1, 5], [8, 0]]))


@habit
def embedding_tied_to_the_last_layer() -> RuleCase:
    table, last = nn.Embedding(9, 16), nn.Linear(16, 9, bias=False)
    last.weight = table.weight
    net = Net(lambda n, x: n.last(n.table(x)), table=table, last=last)
    return case(net, {"last": 16}, {"last": "the model's output"}, torch.tensor([[1, 5], [8, 0]]))


@habit
def norm_without_scale() -> RuleCase:
    return case(between(lambda n, y: n.bn(y), bn=nn.BatchNorm2d(16, affine=False)), FREE)  # type: ignore[operator]


@habit
def norm_without_statistics() -> RuleCase:
    net = between(lambda n, y: n.bn(y), bn=nn.BatchNorm2d(16, track_running_stats=False))  # type: ignore[operator]
    return case(net, FREE)


@habit
def weight_computed_in_forward() -> RuleCase:
    net = between(lambda n, y: F.conv2d(y, n.w * n.w), 6, w=parameter(6, 16, 1, 1))  # type: ignore[operator]
    return case(net, {"a": 16, "w": 6, "b": 8})


@habit
def weight_norm_parametrisation() -> RuleCase:
    net = between(lambda n, y: n.c(y), 6, c=weight_norm(conv(16, 6)))  # type: ignore[operator]
    return case(net, {"a": 16, "c": 6, "b": 8})


@habit
def fused_attention() -> RuleCase:
    def forward(n: Any, x: Tensor) -> Tensor:
        y = n.l(x)
        return n.fc(F.relu(n.out(F.scaled_dot_product_attention(y, y, y))))  # type: ignore[no-any-return]

    net = Net(forward, l=nn.Linear(7, 16), out=nn.Linear(16, 8), fc=linear(8))
    return case(net, {"l": 16, "out": 8}, {}, torch.randn(2, 4, 7))


@habit
def recurrent_layer() -> RuleCase:
    def forward(n: Any, x: Tensor) -> Tensor:
        return n.fc(F.relu(n.out(n.lstm(F.relu(n.l(x)))[0])))  # type: ignore[no-any-return]

    net = Net(forward, l=nn.Linear(7, 16), lstm=nn.LSTM(16, 6), out=nn.Linear(6, 8), fc=linear(8))
    return case(net, {"l": 16, "lstm": 6, "out": 8}, {}, torch.randn(2, 4, 7), counted=False)


@habit
def batched_product() -> RuleCase:
    def forward(n: Any, x: Tensor) -> Tensor:
        y = n.l(x)
        return n.fc(F.relu(n.out(torch.baddbmm(torch.zeros(2, 4, 4), y, y.transpose(1, 2)))))  # type: ignore[no-any-return]

    net = Net(forward, l=nn.Linear(7, 16), out=nn.Linear(4, 8), fc=linear(8))
    return case(net, {"l": 16, "out": 8}, {}, torch.randn(2, 4, 7))
