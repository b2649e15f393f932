"""Weights that a hook computes before each call are cut as what they are computed from, and the hook goes on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, remove_weight_norm, spectral_norm, weight_norm

import autoprune
from autoprune.space.copying import copy_network

Hook = Callable[..., nn.Module]


def masked(layer: nn.Module, name: str = "weight") -> nn.Module:
    return prune.l1_unstructured(layer, name, 0.3)


def masked_twice(layer: nn.Module) -> nn.Module:
    return prune.ln_structured(masked(layer), "weight", 0.2, n=2, dim=0)


def scaled(layer: nn.Module) -> nn.Module:
    """An equalised learning rate, as people write it."""
    layer.register_parameter("weight_orig", layer._parameters.pop("weight"))
    layer.register_forward_pre_hook(lambda module, _: setattr(module, "weight", module.weight_orig * 0.5))
    layer.weight = layer.weight_orig * 0.5
    return layer


HOOKS: dict[str, Hook] = {
    "weight norm": weight_norm,
    "weight norm of columns": lambda layer: weight_norm(layer, dim=1),
    "weight norm of all": lambda layer: weight_norm(layer, dim=None),
    "spectral norm": spectral_norm,
    "mask": masked,
    "two masks": masked_twice,
    "one's own": scaled,
}


class Two(nn.Module):
    def __init__(self, hook: Hook, *, baked: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.baked = baked
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.a, self.b = hook(nn.Conv1d(3, 12, 3)), hook(nn.Conv1d(12, 8, 3))
        self.c = nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        return self.c(self.b(y.view(-1, 12, 8) if self.baked else y).relu())  # type: ignore[no-any-return]


def given(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 10, generator=torch.Generator().manual_seed(1))


def zeroed(space: autoprune.Space, model: nn.Module, widths: Any) -> nn.Module:
    """The oracle: the full model in which every entry that the cut drops is zero, told by numbered weights."""
    marked, full = copy_network(model).double(), copy_network(model)
    with torch.no_grad():
        for tensor in (*marked.parameters(), *marked.buffers()):
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
        left = dict(space.slice(marked, widths, criterion="random", seed=0).named_parameters())
        for name, tensor in full.named_parameters():
            gone = torch.ones(tensor.numel(), dtype=torch.bool)
            gone[left[name].flatten().long()] = False
            tensor[gone.reshape(tensor.shape)] = 0
            if name.endswith("_v"):  # what has no length has no direction; it is given the length zero
                tensor[(tensor == 0).flatten(1).all(1)] = 1
    return full


@pytest.mark.parametrize("baked", [False, True], ids=["own class", "graph"])
@pytest.mark.parametrize("name", HOOKS)
def test_a_hooked_weight_is_cut_trained_and_saved_as_before(name: str, baked: bool) -> None:
    model, x = Two(HOOKS[name], baked=baked).eval(), given()
    space = autoprune.trace(model, x)
    assert {group.name: group.width for group in space.groups} == {"a": 12, "b": 8}
    assert space.search_space.form == ("graph" if baked else "module")
    model.train()(x).sum().backward()  # from here on torch itself cannot copy a hooked layer
    model.eval()
    cut = space.slice(model, (6, 4))
    assert cut.a.weight.shape == (6, 3, 3)
    assert len(cut.a._forward_pre_hooks) == 1
    before = cut.eval()(x)
    optimiser = torch.optim.SGD(cut.parameters(), 0.1)
    cut.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in cut.parameters())
    optimiser.step()
    after = cut.eval()(x)
    assert not torch.equal(before, after)
    again = space.slice(model, (6, 4))
    again.load_state_dict(cut.state_dict())
    assert torch.equal(again.eval()(x), after)


@pytest.mark.parametrize("name", ["weight norm", "mask", "one's own"])
def test_a_cut_computes_what_the_full_model_does_without_what_was_dropped(name: str) -> None:
    model, x = Two(HOOKS[name]).eval(), given()
    space = autoprune.trace(model, x)
    cut = space.slice(model, (6, 4), criterion="random", seed=0).eval()
    torch.testing.assert_close(cut(x), zeroed(space, model, (6, 4))(x), rtol=1e-5, atol=1e-6)


def test_full_widths_take_the_same_steps_as_the_model() -> None:
    model, x = Two(spectral_norm).eval(), given()
    space = autoprune.trace(model, x)
    cut = space.slice(model, space.full)
    for network in (model, cut):
        network.train()
        optimiser = torch.optim.SGD(network.parameters(), 0.1)
        for _ in range(3):
            optimiser.zero_grad()
            network(x).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(cut.eval()(x), model.eval()(x))


def test_the_hook_of_a_cut_layer_can_be_taken_away() -> None:
    model, x = Two(weight_norm).eval(), given()
    cut = autoprune.trace(model, x).slice(model, (5, 3)).eval()
    before = cut(x)
    remove_weight_norm(cut.a)
    torch.testing.assert_close(cut(x), before)
    assert isinstance(cut.a.weight, nn.Parameter)


def test_a_copy_shares_nothing_and_leaves_the_model_as_it_is() -> None:
    model = Two(weight_norm)
    model(given())
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    weight = model.a.weight
    copied = copy_network(model)
    assert model.a.weight is weight
    assert weight.grad_fn is not None
    assert copied.a.weight.data_ptr() != weight.data_ptr()
    torch.testing.assert_close(copied(given()), model(given()))


class Words(nn.Module):
    """A table and a recurrent layer with computed weights, and a bias of its own length."""

    def __init__(self, norm: Hook) -> None:
        super().__init__()
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.table = norm(nn.Embedding(20, 12))
            self.steps = norm(norm(nn.LSTM(12, 8, batch_first=True), "weight_hh_l0"), "weight_ih_l0")
            self.dense = weight_norm(nn.Linear(8, 6), "bias", dim=None)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.dense(self.steps(self.table(tokens))[0]).relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "norm",
    [weight_norm, spectral_norm, masked, parametrizations.weight_norm],
    ids=["length", "spectral", "mask", "new"],
)
def test_tables_recurrent_layers_and_biases_too(norm: Hook) -> None:
    tokens = torch.randint(0, 20, (2, 6), generator=torch.Generator().manual_seed(0))
    space = autoprune.trace(Words(norm).eval(), tokens)
    assert sorted(group.width for group in space.groups) == [6, 8, 12]
    assert space.search_space.form == "module"
