"""The contract of every protocol, as a test class: subclass it and give it the protocol.

class TestMine(ProtocolContract):
    @pytest.fixture
    def protocol(self) -> PartOptions:
        return NamedPart(name="mine")
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.config.parts import PartOptions
from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.tasks.classification import ClassificationTask
from autoprune.testing.evaluators import InterruptingWatch, tiny_bench, tiny_splits
from autoprune.testing.generators import global_generators
from autoprune.training.integrity import Snapshot
from autoprune.training.objectives.base import Objective
from autoprune.training.protocols import make_protocol
from autoprune.training.watch import Stopped, Watch
from autoprune.verdict.finals import PlannedFinal, Trained, train_final

_EPOCHS, _STEPS = 3, 8
"""Of a training here, and steps of an epoch."""


class FailingLater(Objective):
    """Cross entropy, until something happens in the second epoch."""

    happens: Exception | float | None = None

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        self._calls += 1
        loss = nn.functional.cross_entropy(batch.outputs(model), batch.targets)
        if self._calls <= _STEPS or self.happens is None:
            return loss
        if isinstance(self.happens, Exception):
            raise self.happens
        return loss * self.happens


class ProtocolContract:
    """Laws that hold for every protocol; the subclass provides the fixture `protocol`."""

    @pytest.fixture
    def protocol(self) -> PartOptions:
        """Return the protocol under test."""
        raise NotImplementedError("override the fixture `protocol`: it returns PartOptions")

    def test_the_same_seed_gives_the_same_weights_also_after_an_interruption(self, protocol: PartOptions) -> None:
        factory, watch = _factory(Recipe(epochs=_EPOCHS, lr=0.05, batch_size=32)), InterruptingWatch()
        before, generators = Snapshot(factory.model), global_generators()
        whole, again = _trained(factory, protocol), _trained(factory, protocol)
        if make_protocol(protocol).trains:
            with pytest.raises(Stopped):
                _trained(factory, protocol, watch)
        assert whole.weights is not None
        assert whole.weights == again.weights == _trained(factory, protocol, watch).weights
        assert before.changed() is None
        assert global_generators() == generators

    def test_the_base_network_teaches_and_is_never_changed(self, protocol: PartOptions) -> None:
        parts = ["distillation", "feature_distillation"]
        recipe = Recipe(
            epochs=_EPOCHS, lr=0.05, batch_size=32, objective={"name": "combined", "settings": {"parts": parts}}
        )
        factory = _factory(recipe)
        before = Snapshot(factory.model)
        taught = _trained(factory, protocol)
        assert before.changed() is None
        if not make_protocol(protocol).trains:
            assert taught.epochs == 0
            return
        assert taught.weights != _trained(_factory(recipe.model_copy(update={"ema": 0.5})), protocol).weights

    @pytest.mark.parametrize("happens", [torch.OutOfMemoryError("out of memory"), MemoryError(), float("nan")])
    def test_a_failure_is_one_clear_error_and_loses_no_epoch(
        self, protocol: PartOptions, happens: Exception | float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not make_protocol(protocol).trains:
            pytest.skip("it trains nothing, so that no training can fail")
        factory, watch = _factory(_failing()), InterruptingWatch(stops=False)
        whole = _trained(factory, protocol)
        monkeypatch.setattr(FailingLater, "happens", happens)
        with pytest.raises(EvaluationError, match=r"memory|Memory|the loss is nan"):
            _trained(factory, protocol, watch)
        assert watch.epochs == (
            [] if make_protocol(protocol).rounds else [1]
        )  # rounds keep nothing: they are done anew
        monkeypatch.setattr(FailingLater, "happens", None)
        assert _trained(factory, protocol, watch).weights == whole.weights
        assert watch.epochs == [*range(1, whole.epochs + 1)]


def _failing() -> Recipe:
    objective = {"name": f"{__name__}:FailingLater"}
    return Recipe(epochs=_EPOCHS, lr=0.05, batch_size=32, objective=objective)


def _factory(recipe: Recipe) -> CandidateFactory:
    base = tiny_bench()
    task = ClassificationTask(tiny_splits(), recipe, device=torch.device("cpu"))
    return CandidateFactory(base.model, base.space, base.ranking, task, base_epochs=_EPOCHS)


def _trained(factory: CandidateFactory, protocol: PartOptions, watch: Watch | None = None) -> Trained:
    widths = factory.space.nearest([group.width / 2 for group in factory.space.groups])
    return train_final(factory, PlannedFinal(widths, protocol, 0, _EPOCHS, 0.1, True), watch)
