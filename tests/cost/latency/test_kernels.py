from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import autoprune
from autoprune.cost.latency.kernels import DeviceKernel, Operand, distinct_kernels, timed_calls
from autoprune.space.groups import SearchSpace
from autoprune.zoo import build_model


class Mixed(nn.Module):
    """Every way in which sizes follow widths: plain, depthwise, concatenated, flattened with its positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.left, self.right = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 10, 1)
        self.both = nn.Conv2d(16, 4, 1)
        self.head = nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depthwise(F.relu(self.first(x))))
        x = F.relu(self.both(torch.cat([self.left(x), self.right(x)], 1)))
        out: Tensor = self.head(torch.flatten(x, 1))
        return out


def space_of(model: nn.Module, shape: tuple[int, ...]) -> SearchSpace:
    return autoprune.trace(model, torch.randn(*shape), verify=False).search_space


def kernels(space: SearchSpace) -> dict[str, DeviceKernel]:
    """Layer and operator -> kernel."""
    return {f"{call.layer}:{call.kernel.operator}": call.kernel for call in timed_calls(space)}


def test_equal_layers_share_a_kernel_and_others_do_not() -> None:
    calls = timed_calls(space_of(build_model("resnet20"), (1, 3, 32, 32)))
    shared = distinct_kernels(calls)
    assert len(shared) < len(calls) / 2
    assert len({kernel.name for kernel, _ in shared.values()}) == len(shared)
    sets = [{call.layer for call in own} for kernel, own in shared.values() if kernel.kind == "convolution"]
    inner = next(layers for layers in sets if "stages.stage3.1.conv1" in layers)
    assert "stages.stage3.2.conv2" in inner
    assert "stages.stage3.0.conv1" not in inner  # its stride is another
    assert "stages.stage2.1.conv1" not in inner  # its images are larger


def test_the_batch_is_no_part_of_a_kernel() -> None:
    model = build_model("resnet20")
    one, four = (space_of(model, (n, 3, 32, 32)) for n in (1, 4))
    assert list(distinct_kernels(timed_calls(one))) == list(distinct_kernels(timed_calls(four)))
    kernel = kernels(one)["conv:conv2d"]
    assert kernel.shapes((16,), batch=4)[0] == (4, 3, 32, 32)
    assert [call.read for call in timed_calls(one)] == [call.read for call in timed_calls(four)]


def test_sizes_follow_the_widths_as_in_the_network_itself() -> None:
    model = Mixed()
    traced = autoprune.trace(model, torch.randn(1, 3, 8, 8), verify=False)
    space = traced.search_space
    widths = space.nearest([0.5 * group.width for group in space.groups])
    cut = traced.slice(model, widths)
    shapes = {name: tuple(p.shape) for name, p in cut.named_parameters() if name.endswith("weight")}
    for call in timed_calls(space):
        if call.kernel.kind in ("convolution", "depthwise", "product"):
            sizes = [size(widths) for size in call.sizes]
            assert call.kernel.shapes(sizes)[1] == shapes[f"{call.layer}.weight"]


def test_kinds_and_axes() -> None:
    found = kernels(space_of(Mixed(), (1, 3, 8, 8)))
    assert [found[f"{layer}:conv2d"].kind for layer in ("first", "depthwise", "left")] == [
        "convolution",
        "depthwise",
        "convolution",
    ]
    assert ("groups", "every channel") in found["depthwise:conv2d"].settings
    assert [found[f"{layer}:conv2d"].axes for layer in ("first", "depthwise", "left", "both")] == [1, 1, 2, 2]
    assert found["head:linear"].kind == "product"
    assert not any(name.endswith(":flatten") for name in found)  # a view takes no time


def test_many_sizes_become_one_axis_of_elements() -> None:
    operands = tuple(o for n in range(3) for o in _rows(n))
    kernel = DeviceKernel("cat", (("dim", 1),), operands, 3)
    assert kernel.table_axes == 1
    assert kernel.elements([np.array([2.0]), np.array([3.0]), np.array([4.0])]).tolist() == [7.0 * (2 + 3 + 4)]


def _rows(axis: int) -> list[Operand]:
    return [Operand((1, (axis, 1), 7), "float32", "batched")]
