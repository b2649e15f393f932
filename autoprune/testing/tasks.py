"""The contract of every task, as a test class: subclass it and give it the task and networks.

class TestMine(TaskContract):
    @pytest.fixture
    def task(self) -> Task:
        return Mine(…)
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch, examples_in, plain_lists
from autoprune.errors import ConfigError, EvaluationError, is_out_of_memory
from autoprune.tasks.base import Task
from autoprune.testing.evaluators import InterruptingWatch
from autoprune.testing.generators import global_generators
from autoprune.testing.objectives import same_weights
from autoprune.training.integrity import Snapshot
from autoprune.training.watch import Stopped


class TaskContract:
    """Laws that hold for every task; the subclass provides the fixtures `task`, `model` and `base`."""

    @pytest.fixture
    def task(self) -> Task:
        """Return the task under test, with examples to calibrate on."""
        raise NotImplementedError("override the fixture `task`: it returns a Task")

    @pytest.fixture
    def model(self) -> nn.Module:
        """Return a network for the task."""
        raise NotImplementedError("override the fixture `model`: it returns a network that the task can score")

    @pytest.fixture
    def base(self) -> nn.Module:
        """Return another one, that candidates are compared with."""
        raise NotImplementedError("override the fixture `base`: it returns another network than `model`")

    def test_a_score_is_finite_and_in_its_range(self, task: Task, model: nn.Module, base: nn.Module) -> None:
        low, high = task.score_range
        for split in ("validation", "test"):
            score = task.compared_with(base).scored(model, split=split)
            assert math.isfinite(score.value)
            assert low <= score.value <= high
            assert score.value == task.compared_with(base).score(model, split=split)

    def test_the_same_network_has_the_same_score(self, task: Task, model: nn.Module, base: nn.Module) -> None:
        bound = task.compared_with(base)
        first = bound.scored(model)
        bound.scored(base)
        torch.rand(1)
        assert bound.scored(model) == task.compared_with(base).scored(copy.deepcopy(model)) == first

    def test_values_of_examples_average_to_the_score(self, task: Task, model: nn.Module, base: nn.Module) -> None:
        score = task.compared_with(base).scored(model, examples=True)
        if score.examples is None:
            pytest.skip("keeps no values of single examples")
        values = 100.0 * score.examples if score.examples.dtype.kind == "b" else score.examples
        assert float(np.mean(values)) == pytest.approx(score.value, rel=1e-6)

    def test_a_score_on_fewer_examples_is_one_as_well(self, task: Task, model: nn.Module, base: nn.Module) -> None:
        score = task.compared_with(base).scored(model, limit=3, examples=True)
        assert math.isfinite(score.value)
        assert score.examples is None or len(score.examples) == 3

    def test_networks_flags_and_random_state_are_left_alone(
        self, task: Task, model: nn.Module, base: nn.Module
    ) -> None:
        model.train()
        before, generators = copy.deepcopy(model.state_dict()), global_generators()
        flags = [module.training for module in model.modules()]
        task.compared_with(base).score(model)
        task.calibration_batches(1, seed=0)
        assert global_generators() == generators
        assert [module.training for module in model.modules()] == flags
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    def test_calibration_batches_are_the_same_for_the_same_seed(self, task: Task) -> None:
        first, again = (task.calibration_batches(2, seed=4) for _ in range(2))
        assert len(first) <= 2
        for one, other in zip(first, again, strict=True):
            assert isinstance(one, Batch)
            assert len(one) > 0
            leaves = [pytree.tree_leaves((batch.inputs, batch.targets)) for batch in (one, other)]
            for a, b in zip(*leaves, strict=True):
                assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
        inputs = task.calibration_inputs(2, seed=4)
        assert [len(Batch(one)) for one in inputs] == [len(one) for one in first]
        assert len(task.calibration_examples(2, seed=4)) == len(first)

    def test_a_task_that_feeds_networks_gives_them_inputs_that_they_take(self, task: Task, model: nn.Module) -> None:
        if not task.feeds:
            pytest.skip("feeds networks by itself")
        for batch in (*task.calibration_batches(1, seed=0), Batch(task.example_input())):
            with torch.no_grad():
                batch.outputs(copy.deepcopy(model).eval())

    def test_training_changes_the_network_in_place_and_says_where_it_cannot(self, task: Task, model: nn.Module) -> None:
        if not task.trains:
            assert task.why_untrained
            with pytest.raises(ConfigError, match="this step trains networks"):
                task.train(model, epochs=1, seed=0)
            return
        before, generators = copy.deepcopy(model.state_dict()), global_generators()
        other = copy.deepcopy(model)
        task.train(model, epochs=1, seed=3)
        task.train(other, epochs=1, seed=3)
        assert global_generators() == generators
        assert not model.training
        assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        states = [network.state_dict().values() for network in (model, other)]
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
        with pytest.raises(ConfigError):
            task.train(model, epochs=0, seed=3)

    def test_a_training_that_is_interrupted_and_resumed_gives_the_same_weights(
        self, task: Task, model: nn.Module
    ) -> None:
        whole, again, watch = copy.deepcopy(model), copy.deepcopy(model), InterruptingWatch()
        if not task.trains:
            pytest.skip("trains nothing")
        task.train(whole, epochs=3, seed=5)
        with suppress(Stopped):
            task.train(model, epochs=3, seed=5, watch=watch)
        if not watch.epochs:
            pytest.skip("trains whole: it calls no watch")
        assert watch.epochs == [1]
        task.train(again, epochs=3, seed=5, watch=watch)
        assert watch.epochs == [1, 2, 3]
        assert same_weights(whole, again)

    def test_a_teacher_is_only_read(self, task: Task, model: nn.Module, base: nn.Module) -> None:
        taught = task.distilled() if task.trains else None
        if taught is None or not taught.needs_teacher:
            pytest.skip("learns from no teacher")
        base.train()
        before, untaught = Snapshot(base), copy.deepcopy(model)
        taught.train(model, epochs=1, seed=2, teacher=base)  # type: ignore[call-arg]  # of tasks that need it
        assert before.changed() is None
        assert all(parameter.grad is None for parameter in base.parameters())
        task.train(untaught, epochs=1, seed=2)
        assert not same_weights(model, untaught)  # it did learn from it

    def test_values_that_are_no_numbers_are_one_clear_error_and_nothing_is_lost(
        self, task: Task, model: nn.Module, base: nn.Module
    ) -> None:
        bound, broken = task.compared_with(base), copy.deepcopy(model)
        before = bound.scored(model)
        with torch.no_grad():
            next(iter(broken.parameters())).fill_(torch.nan)
        with pytest.raises(EvaluationError, match="no usable numbers"):
            bound.scored(broken)
        if task.trains:
            with pytest.raises(EvaluationError):
                task.train(broken, epochs=1, seed=0)
        assert bound.scored(model) == before

    def test_memory_that_does_not_suffice_halves_batches_or_is_one_clear_error_and_nothing_is_lost(
        self, task: Task, model: nn.Module, base: nn.Module
    ) -> None:
        if not task.feeds:
            pytest.skip("feeds networks by itself")
        bound = task.compared_with(base)
        before, whole = bound.scored(model), copy.deepcopy(model)
        hungry = copy.deepcopy(model)
        hungry.register_forward_pre_hook(_taking_at_most(5), with_kwargs=True)
        assert float(bound.scored(hungry)) == pytest.approx(float(before), rel=1e-4, abs=1e-6)
        starved = copy.deepcopy(model)
        starved.register_forward_pre_hook(_taking_at_most(0), with_kwargs=True)
        with pytest.raises(Exception, match="out of memory") as caught:
            bound.scored(starved)
        assert is_out_of_memory(caught.value)
        if not task.trains:
            return
        with pytest.raises(EvaluationError, match="out of memory") as failed:
            task.train(starved, epochs=1, seed=3)
        assert is_out_of_memory(failed.value)
        task.train(whole, epochs=1, seed=3)
        task.train(model, epochs=1, seed=3)
        assert same_weights(whole, model)

    def test_an_example_input_is_like_those_of_the_data(self, task: Task) -> None:
        first = next(iter(task.calibration_batches(1, seed=0)), None)
        if first is None:
            pytest.skip("has no data")
        (leaves, spec), (wanted, as_read) = (
            pytree.tree_flatten(values) for values in (task.example_input(), plain_lists(first.first(1).inputs))
        )
        assert spec == as_read
        for leaf, like in zip(leaves, wanted, strict=True):
            assert not isinstance(like, Tensor) or (leaf.shape, leaf.dtype) == (like.shape, like.dtype)

    def test_batches_fall_into_their_examples(self, task: Task) -> None:
        for batch in task.calibration_batches(1, seed=1):
            parts = [batch.part(i, i + 1) for i in range(len(batch))]
            assert [len(part) for part in parts] == [1] * len(batch)
            halves = batch.split(-(-len(batch) // 2))
            assert sum(map(len, halves)) == len(batch)
            moved = batch.to("cpu")
            assert pytree.tree_structure((moved.inputs, moved.targets)) == pytree.tree_structure(
                (batch.inputs, batch.targets)
            )

    def test_the_fingerprint_is_the_same_for_a_copy(self, task: Task) -> None:
        assert task.fingerprint == copy.copy(task).fingerprint

    def test_it_travels_to_workers(self, task: Task, model: nn.Module, base: nn.Module) -> None:
        bound = task.compared_with(base)
        expected = bound.scored(model)
        try:
            sent = pickle.dumps(bound)
        except (pickle.PicklingError, AttributeError):
            pytest.skip("holds functions of this test")
        assert pickle.loads(sent).scored(model) == expected


def _taking_at_most(most: int) -> Callable[..., None]:
    """A hook for networks that do not take more examples at once."""

    def refuse(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if (examples_in((args, kwargs)) or 0) > most:
            raise MemoryError("out of memory, as this test has it")

    return refuse
