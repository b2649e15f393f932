"""The contract of every objective, as a test class: subclass it and give it the objective.

class TestMine(ObjectiveContract):
    @pytest.fixture
    def new(self) -> Callable[[], Objective]:
        return Mine

Override `model`, `split` and `batch` too, if it takes anything else than logits and class numbers.
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.config.training import Recipe
from autoprune.data.base import Split
from autoprune.data.batch import Batch, as_batch
from autoprune.errors import EvaluationError
from autoprune.testing.evaluators import InterruptingWatch, TinyNet, tiny_splits
from autoprune.testing.generators import global_generators
from autoprune.training.integrity import Snapshot
from autoprune.training.loop import train
from autoprune.training.objectives.base import Objective
from autoprune.training.watch import Stopped, Watch

_CPU = torch.device("cpu")


class ObjectiveContract:
    """Laws that hold for every objective; the subclass provides the fixture `new`."""

    @pytest.fixture
    def new(self) -> Callable[[], Objective]:
        """Return what makes the objective under test, anew with each call."""
        raise NotImplementedError("override the fixture `new`: it returns a function that makes an Objective")

    @pytest.fixture
    def model(self) -> Callable[[int], nn.Module]:
        """Return what makes a network that the objective takes, from a seed."""
        return _network

    @pytest.fixture
    def split(self) -> Split:
        """Return training examples for it."""
        return tiny_splits().train

    @pytest.fixture
    def batch(self, split: Split) -> Batch:
        """Return a batch of at least four of them."""
        return as_batch(next(split.batches(12, seed=0)))

    def test_the_loss_is_a_finite_scalar_with_gradients(
        self, new: Callable[[], Objective], model: Callable[[int], nn.Module], batch: Batch
    ) -> None:
        network = model(0)
        loss = self._made(new, model, batch)(network, batch)
        assert loss.ndim == 0
        assert loss.isfinite()
        loss.backward()  # type: ignore[no-untyped-call]
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())

    def test_it_does_not_matter_how_examples_are_spread_over_batches(
        self, new: Callable[[], Objective], model: Callable[[int], nn.Module], batch: Batch
    ) -> None:
        network, objective, n = model(0).eval(), self._made(new, model, batch), len(batch)
        parts = [batch.part(0, 1), batch.part(1, n)]
        whole = objective(network, batch)
        mean = sum(objective(network, part) * len(part) for part in parts) / n
        torch.testing.assert_close(whole, mean)

    def test_batch_teacher_and_generators_are_only_read(
        self, new: Callable[[], Objective], model: Callable[[int], nn.Module], batch: Batch
    ) -> None:
        objective, network = self._made(new, model, batch), model(0).eval()
        taught = None if objective.teacher is None else Snapshot(objective.teacher)
        kept, weights, generators = copy.deepcopy(batch), Snapshot(network), global_generators()
        objective(network, batch).backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close((batch.inputs, batch.targets), (kept.inputs, kept.targets), rtol=0, atol=0)
        assert global_generators() == generators
        assert weights.changed() is None
        assert taught is None or taught.changed() is None
        assert objective.teacher is None or all(p.grad is None for p in objective.teacher.parameters())

    def test_training_lowers_the_loss_and_leaves_the_callers_teacher_alone(
        self, new: Callable[[], Objective], model: Callable[[int], nn.Module], split: Split
    ) -> None:
        teacher = model(1).train()
        before, generators = Snapshot(teacher), global_generators()
        losses: list[float] = []
        self._trained(new, model, split, teacher=teacher, losses=losses)
        assert losses[-1] < losses[0]
        assert before.changed() is None
        assert global_generators() == generators

    def test_the_same_seed_gives_the_same_weights_also_after_an_interruption(
        self, new: Callable[[], Objective], model: Callable[[int], nn.Module], split: Split
    ) -> None:
        teacher, watch = model(1), InterruptingWatch()
        whole, again = (self._trained(new, model, split, teacher=teacher) for _ in range(2))
        with pytest.raises(Stopped):
            self._trained(new, model, split, teacher=teacher, watch=watch)
        resumed = self._trained(new, model, split, teacher=teacher, watch=watch)
        assert same_weights(whole, again)
        assert same_weights(whole, resumed)
        assert watch.epochs == [1, 2, 3]

    def test_numbers_that_are_none_are_an_error_with_a_remedy(
        self, new: Callable[[], Objective], model: Callable[[int], nn.Module], split: Split
    ) -> None:
        with pytest.raises(EvaluationError, match=r"the loss is nan in epoch 1 .*lower lr"):
            self._trained(new, model, _Corrupted(split), teacher=model(1))

    def _made(self, new: Callable[[], Objective], model: Callable[[int], nn.Module], batch: Batch) -> Objective:
        objective = new()
        if objective.needs_teacher:
            objective.teacher = model(1).eval().requires_grad_(False)
        if objective.needs_batch:
            objective.begin(model(0), batch)
        return objective

    def _trained(
        self,
        new: Callable[[], Objective],
        model: Callable[[int], nn.Module],
        split: Split,
        *,
        teacher: nn.Module,
        watch: Watch | None = None,
        losses: list[float] | None = None,
    ) -> nn.Module:
        network, recipe = model(0), Recipe(epochs=3, lr=0.05, batch_size=32)
        records = train(
            network, split, recipe, seed=4, device=_CPU, watch=watch, teacher=teacher, objective=new(), terms=()
        )
        if losses is not None:
            losses += [record.loss for record in records]
        return network


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether all parameters and buffers are the same, bit for bit."""
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def _network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyNet()


class _Corrupted(Split):
    """The same examples, all of their inputs lost."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def batches(self, batch_size: int, **options: Any) -> Iterator[Batch]:
        for batch in map(as_batch, self._split.batches(batch_size, **options)):
            lost = pytree.tree_map_only(Tensor, lambda values: torch.full_like(values, torch.nan), batch.inputs)
            yield Batch(lost, batch.targets)

    @property
    def fingerprint(self) -> str:
        return f"corrupted {self._split.fingerprint}"
