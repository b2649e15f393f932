"""Networks put together from what survives: like a copy in everything but the tensors' sizes, and nothing shared."""

from __future__ import annotations

import copy
import gc
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from autoprune.config.space import SpaceOptions
from autoprune.errors import SpaceError
from autoprune.space.cutting.parts import Parts
from autoprune.space.cutting.scissors import Scissors
from autoprune.space.cutting.slicing import Slicer, random_ranking, slice_model
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.tracing.trace import trace
from autoprune.zoo import build_model

IMAGE = torch.zeros(1, 3, 16, 16)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.data(),
    st.sampled_from([torch.float32, torch.float64, torch.int64]),
    st.sampled_from([0, 20, 1000]),
)
def test_what_is_cut_is_what_indexing_gives(
    shape: list[int], data: st.DataObject, dtype: torch.dtype, large: int
) -> None:
    full, scissors = torch.arange(np.prod(shape)).reshape(shape).to(dtype), Scissors(large=large)
    for _ in range(2):  # the second time on a factory that is there already
        along, expected = [], full
        for dim in data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)):
            kept = sorted(data.draw(st.sets(st.integers(0, shape[dim] - 1), min_size=1)))
            along.append((dim, torch.tensor(kept)))
            expected = expected.index_select(dim, torch.tensor(kept))
        given_tensor = full.transpose(0, -1).contiguous().transpose(0, -1)  # the same values, other strides
        for tensor in (full, given_tensor):
            cut = scissors.cut(tensor, sorted(along, key=lambda pair: pair[0]))
            assert torch.equal(cut, expected)
            assert cut.untyped_storage().nbytes() == expected.numel() * expected.element_size(), "a part of the factory"


class Curious(nn.Module):
    """Attributes of many kinds; two names for one layer; a layer that is copied its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 1, bias=False)
        self.again = self.second
        self.listed = [self.norm]
        self.settings: dict[str, Any] = {"deep": {"list": [1, 2]}}
        self.names = ["a", "b"]
        self.flags = {1, 2}
        self.pair = (1, (2, "three"))
        self.unregistered = torch.ones(3)
        self.nothing = None
        self.recurrent = nn.GRU(8, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(torch.relu(self.listed[0](self.first(x))))
        out: Tensor = self.head(self.recurrent(x.flatten(2).transpose(1, 2))[0][:, -1])
        return out


def test_everything_a_module_holds_is_copied_as_deepcopy_does() -> None:
    model = Curious().eval()
    model.norm.register_forward_hook(lambda *_: None)
    model.norm.weight.requires_grad_(False)
    made: dict[int, Any] = {id(t): t.detach().clone() for t in model.buffers()}
    made |= {id(p): nn.Parameter(p.detach().clone(), p.requires_grad) for p in model.parameters()}
    one, other = Parts(model).assemble(made, []), copy.deepcopy(model)
    assert type(one) is type(other)
    assert [(n, type(m)) for n, m in one.named_modules()] == [(n, type(m)) for n, m in other.named_modules()]
    assert one.again is one.second
    assert one.listed[0] is one.norm is not model.norm
    assert not one.norm.weight.requires_grad
    for name in ("settings", "names", "flags", "pair", "nothing"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("settings", "names", "flags", "listed", "unregistered"):
        assert getattr(one, name) is not getattr(model, name), "shared with the full network"
    assert one.settings["deep"]["list"] is not model.settings["deep"]["list"]
    assert len(one.norm._forward_hooks) == 1
    assert torch.equal(one(torch.ones(2, 3, 8, 8)), model(torch.ones(2, 3, 8, 8)))
    assert torch.equal(one.unregistered, model.unregistered)


def test_nothing_is_shared_with_the_full_network_or_among_the_cut_ones() -> None:
    model = build_model("resnet20")
    space = trace(model, IMAGE).space
    slicer = Slicer(model, space, random_ranking(space, np.random.default_rng(0)))
    widths = space.uniform(0.5)
    networks = [model, slicer(widths), slicer(widths), slicer(space.full)]
    tensors = [[*n.parameters(), *n.buffers()] for n in networks]
    storages = [{t.untyped_storage().data_ptr() for t in of} for of in tensors]
    tables = [
        {id(v) for m in n.modules() for v in vars(m).values() if isinstance(v, dict | OrderedDict | set | list)}
        for n in networks
    ]
    for held in (storages, tables, [set(map(id, n.modules())) for n in networks]):
        assert sum(map(len, held)) == len(set().union(*held))
    networks[1].register_forward_hook(lambda *_: None)
    assert not model._forward_hooks
    assert not networks[2]._forward_hooks


def test_a_slicer_sees_the_weights_and_flags_as_they_are_now() -> None:
    model = build_model("resnet20").eval()
    space = trace(model, IMAGE).space
    ranking = random_ranking(space, np.random.default_rng(0))
    slicer, widths = Slicer(model, space, ranking), space.uniform(0.4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    model.train()
    next(model.parameters()).requires_grad_(False)
    now, anew = slicer(widths), slice_model(model, space, widths, ranking)
    assert all(torch.equal(a, b) for a, b in zip(now.state_dict().values(), anew.state_dict().values(), strict=True))
    assert now.training
    assert [p.requires_grad for p in now.parameters()] == [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("blocks", [False, True])
def test_cut_networks_train_and_are_the_models_class(blocks: bool) -> None:
    model = build_model("mobilenetv2")
    space: SearchSpace = trace(model, IMAGE, options=SpaceOptions(blocks=blocks)).space
    rng = np.random.default_rng(1)
    slicer = Slicer(model, space, random_ranking(space, rng))
    for _ in range(2):
        widths: Widths = tuple(int(rng.choice(group.choices)) for group in space.groups)
        network = slicer(widths)
        assert type(network) is type(model)
        network.train()(torch.randn(2, 3, 16, 16)).sum().backward()
        assert all(p.grad is not None for p in network.parameters())
        assert all(p.grad is None for p in model.parameters())


def test_parameters_of_a_cut_network_are_its_own_and_trainable_as_before() -> None:
    torch.manual_seed(0)
    model = build_model("resnet20")
    model.get_parameter("linear.weight").requires_grad_(False)
    space = trace(model, torch.randn(1, 3, 32, 32)).space
    cut = Slicer(model, space, random_ranking(space, np.random.default_rng(0)))(space.uniform(0.5))
    theirs = dict(model.named_parameters())
    for name, parameter in cut.named_parameters():
        assert type(parameter) is nn.Parameter
        assert parameter.is_leaf
        assert parameter.requires_grad == theirs[name].requires_grad == (name != "linear.weight")
        assert parameter.untyped_storage().data_ptr() != theirs[name].untyped_storage().data_ptr()
    assert not any(isinstance(buffer, nn.Parameter) for buffer in cut.buffers())
    before = {name: parameter.detach().clone() for name, parameter in cut.named_parameters()}
    optimizer = torch.optim.SGD(cut.parameters(), lr=0.1)
    cut.train()(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {name for name, parameter in cut.named_parameters() if not torch.equal(parameter, before[name])}
    assert before.keys() - changed == {"linear.weight"}
    again = copy.deepcopy(cut)
    again.load_state_dict(cut.state_dict())
    assert [type(parameter) for parameter in again.parameters()] == [nn.Parameter] * len(before)


@pytest.mark.parametrize("enabled", [True, False])
def test_collections_of_garbage_wait_for_the_cut_and_are_left_as_they_were(
    enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model("resnet20")
    space = trace(model, torch.zeros(1, 3, 32, 32)).space
    slicer = Slicer(model, space, random_ranking(space, np.random.default_rng(0)))
    seen = []
    whole = Parts.assemble
    monkeypatch.setattr(Parts, "assemble", lambda *given: (seen.append(gc.isenabled()), whole(*given))[1])
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        slicer(space.smallest)
        assert seen == [False]
        assert gc.isenabled() is enabled
        with pytest.raises(SpaceError):
            slicer((0,) * len(space.groups))
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
