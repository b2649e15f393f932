"""Copies of networks: nothing done to one reaches the other, and memory is taken when somebody writes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune, spectral_norm, weight_norm

from autoprune.space.copying import copy_network, copy_on_write


def is_shared(tensor: Tensor) -> bool:
    return bool(torch._C._is_cow_tensor(tensor))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3)
    tied = nn.Conv2d(8, 8, 1, bias=False)
    again = nn.Conv2d(8, 8, 1, bias=False)
    again.weight = tied.weight
    return nn.Sequential(first, nn.BatchNorm2d(8), tied, again, nn.Flatten(), nn.Linear(288, 5))


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Outputs, gradients and buffers of a step of training."""
    model.train()
    out = model(x)
    out.square().sum().backward()
    return [out.detach(), *(p.grad for p in model.parameters() if p.grad is not None), *model.buffers()]


def test_a_step_of_a_lazy_copy_is_that_of_a_full_one_and_changes_the_model_in_nothing() -> None:
    model, x = network(), torch.randn(4, 3, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lazy, full = copy_on_write(model), copy_network(model)
    assert all(torch.equal(one, other) for one, other in zip(step(lazy, x), step(full, x), strict=True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not torch.equal(lazy.get_buffer("1.running_mean"), model.get_buffer("1.running_mean"))


def test_weights_that_are_only_read_are_shared_in_memory_and_tied_ones_stay_tied() -> None:
    model = network()
    lazy = copy_on_write(model)
    step(lazy, torch.randn(4, 3, 8, 8))
    assert all(is_shared(parameter) for parameter in lazy.parameters())
    assert lazy[2].weight is lazy[3].weight
    assert lazy[2].weight is not model[2].weight


@pytest.mark.parametrize("through_data", [False, True])
def test_what_is_written_into_a_copy_stays_there_and_the_other_way_round(through_data: bool) -> None:
    model = network()
    lazy = copy_on_write(model)
    weight, known = model[0].weight, model[0].weight.detach().clone()
    with torch.no_grad():
        (lazy[0].weight.data if through_data else lazy[0].weight).mul_(2)
        assert torch.equal(weight, known)
        model[5].weight.zero_()
    assert lazy[5].weight.abs().sum() > 0
    assert torch.equal(lazy[0].weight, 2 * known)


@pytest.mark.parametrize(
    "hook", [weight_norm, spectral_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)]
)
def test_weights_that_a_hook_computes_are_copied_as_before(hook: object) -> None:
    model = nn.Sequential(hook(nn.Linear(6, 4)))  # type: ignore[operator]
    x = torch.randn(3, 6)
    model(x)  # from now on the computed weight remembers how
    lazy = copy_on_write(model).eval()
    assert torch.equal(lazy(x), copy_network(model).eval()(x))
    with torch.no_grad():
        next(lazy.parameters()).mul_(3)
    assert not torch.equal(lazy(x), model.eval()(x))


def test_flags_and_attributes_of_the_copy_are_its_own() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    model[1].register_buffer("counts", torch.zeros(2, dtype=torch.int64), persistent=False)
    lazy = copy_on_write(model.eval())
    assert not lazy[0].weight.requires_grad
    assert lazy[5].weight.requires_grad
    assert not lazy[1].training
    assert lazy.state_dict().keys() == model.state_dict().keys()
    lazy[1].eps = 7.0
    lazy[1].counts += 1  # type: ignore[operator]
    assert model[1].eps != 7.0
    assert not model[1].counts.any()  # type: ignore[operator, union-attr]
