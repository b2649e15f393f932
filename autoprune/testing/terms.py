"""The contract of every term, as a test class: subclass it and give it the term.

class TestMine(TermContract):
    @pytest.fixture
    def new(self) -> Callable[[], Term]:
        return Mine
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autoprune.config.training import Recipe
from autoprune.data.base import LoaderSplit, Split
from autoprune.errors import EvaluationError
from autoprune.testing.evaluators import InterruptingWatch, TinyNet, tiny_splits
from autoprune.testing.generators import global_generators
from autoprune.testing.objectives import same_weights
from autoprune.training.loop import train
from autoprune.training.terms.base import Term
from autoprune.training.watch import Stopped, Watch

_CPU = torch.device("cpu")


class TermContract:
    """Laws that hold for every term; the subclass provides the fixture `new`."""

    @pytest.fixture
    def new(self) -> Callable[[], Term]:
        """Return what makes the term under test, anew with each call."""
        raise NotImplementedError("override the fixture `new`: it returns a function that makes a Term")

    @pytest.fixture
    def model(self) -> Callable[[], nn.Module]:
        """Return what makes the network that is trained with it: logits of 4 classes for images (N, 1, 6, 6)."""
        return _network

    def test_it_takes_part_in_the_training(self, new: Callable[[], Term], model: Callable[[], nn.Module]) -> None:
        with_it, without = _trained(model, [new()]), _trained(model, [])
        assert not same_weights(with_it, without)

    def test_the_same_seed_gives_the_same_weights_also_after_an_interruption(
        self, new: Callable[[], Term], model: Callable[[], nn.Module]
    ) -> None:
        whole, again, watch = _trained(model, [new()]), _trained(model, [new()]), InterruptingWatch()
        with pytest.raises(Stopped):
            _trained(model, [new()], watch=watch)
        resumed = _trained(model, [new()], watch=watch)
        assert same_weights(whole, again)
        assert same_weights(whole, resumed)
        assert watch.epochs == [1, 2, 3]

    def test_the_network_keeps_its_form_and_the_generators_their_state(
        self, new: Callable[[], Term], model: Callable[[], nn.Module]
    ) -> None:
        generators = global_generators()
        assert _form(_trained(model, [new()])) == _form(model().eval())
        assert global_generators() == generators

    def test_its_state_goes_through_a_file(self, new: Callable[[], Term], model: Callable[[], nn.Module]) -> None:
        first, second, file = new(), new(), io.BytesIO()
        _trained(model, [first])
        torch.save(first.state_dict(), file)
        file.seek(0)
        second.begin(model())
        second.load_state_dict(torch.load(file, weights_only=True))
        torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)

    def test_numbers_that_are_none_are_an_error_with_a_remedy(
        self, new: Callable[[], Term], model: Callable[[], nn.Module]
    ) -> None:
        inputs, targets = next(tiny_splits().train.batches(64))
        broken = LoaderSplit(TensorDataset(torch.full_like(inputs, torch.nan), targets))
        with pytest.raises(EvaluationError, match=r"the loss is nan in epoch 1 .*lower lr"):
            _trained(model, [new()], split=broken)


def _network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TinyNet()


def _trained(
    model: Callable[[], nn.Module], terms: list[Term], *, split: Split | None = None, watch: Watch | None = None
) -> nn.Module:
    network, recipe = model(), Recipe(epochs=3, lr=0.05, batch_size=32)
    train(network, split or tiny_splits().train, recipe, seed=4, device=_CPU, watch=watch, terms=terms)
    return network


def _form(network: nn.Module) -> list[object]:
    """Names, shapes, types, what trains, training flags and hooks."""
    modules = [(name, type(m), m.training, len(m._forward_hooks)) for name, m in network.named_modules()]
    tensors = [(name, tensor.shape, tensor.dtype) for name, tensor in network.state_dict().items()]
    return [modules, tensors, [p.requires_grad for p in network.parameters()]]
