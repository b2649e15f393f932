"""The contract of every measure, as a test class: subclass it and give it the measure.

class TestMine(MeasureContract):
    @pytest.fixture
    def measure(self) -> Measure:
        return Mine()
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch, Ragged
from autoprune.errors import EvaluationError
from autoprune.measures.base import Measure
from autoprune.tasks.score import Score
from autoprune.tasks.scoring import BaseOutputs, scored_by
from autoprune.testing.generators import global_generators

_CLASSES, _FEATURES, _EXAMPLES = 3, 5, 40
_CPU = torch.device("cpu")


class _Drawing(nn.Module):
    """A classifier that counts its calls and draws random numbers, also where it is evaluated."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layer = nn.Linear(_FEATURES, _CLASSES)
        self.norm = nn.BatchNorm1d(_FEATURES)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        torch.rand(3)
        return self.layer(self.norm(x))  # type: ignore[no-any-return]


class _Broken(nn.Module):
    """Overflows for examples whose first feature is positive."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.inner(x).clone()
        outputs[x[:, 0] > 0] = torch.nan
        return outputs


class MeasureContract:
    """Laws that hold for every measure; the subclass provides the fixture `measure`.

    Measures of other outputs than those of a classifier need `model`, `base` and `examples` of their own, too: networks
    that take (N, 5) numbers and give tensors.
    """

    @pytest.fixture
    def measure(self) -> Measure:
        """Return the measure under test."""
        raise NotImplementedError("override the fixture `measure`: it returns a Measure")

    @pytest.fixture
    def model(self) -> nn.Module:
        """Return a network that the measure can be taken of."""
        return _Drawing(0)

    @pytest.fixture
    def base(self) -> nn.Module:
        """Return the base network that it is compared with."""
        return _Drawing(1)

    @pytest.fixture
    def examples(self) -> Batch:
        """Return 40 examples with targets."""
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(_EXAMPLES, _FEATURES, generator=generator)
        return Batch(inputs, torch.randint(_CLASSES, (_EXAMPLES,), generator=generator))

    def score(self, measure: Measure, model: nn.Module, base: nn.Module, *batches: Batch) -> Score:
        """The score on these batches, with the values of all examples."""
        return scored_by(
            measure, model, batches, split="validation", device=_CPU, base=BaseOutputs(base), examples=True
        )

    def test_it_says_what_it_counts(self, measure: Measure) -> None:
        assert measure.name
        assert isinstance(measure.unit, str)
        assert measure.lowest < measure.highest
        assert measure.name in measure.scale.told

    def test_same_inputs_give_the_same_values(
        self, measure: Measure, model: nn.Module, base: nn.Module, examples: Batch
    ) -> None:
        first, again = (self.score(measure, model, base, examples) for _ in range(2))
        assert first == again
        assert measure.wide or _values(first).tolist() == _values(again).tolist()

    def test_values_of_single_examples_average_to_the_score(
        self, measure: Measure, model: nn.Module, base: nn.Module, examples: Batch
    ) -> None:
        if type(measure).combine is not Measure.combine:
            pytest.skip("a measure that is no mean")
        score = self.score(measure, model, base, examples)
        values = _values(score)
        scaled = 100.0 * values if values.dtype.kind == "b" else values
        assert len(values) == len(examples)
        assert score.value == pytest.approx(float(np.mean(scaled)), rel=1e-6)
        assert score.standard_error is not None
        plain = float(np.std(scaled, ddof=1)) / math.sqrt(len(scaled))
        assert score.standard_error == pytest.approx(plain, rel=0.1)  # a share has one right and one wrong more

    def test_a_score_is_one_that_there_can_be(
        self, measure: Measure, model: nn.Module, base: nn.Module, examples: Batch
    ) -> None:
        low, high = measure.score_range
        assert low <= self.score(measure, model, base, examples).value <= high

    def test_neither_the_order_of_examples_nor_the_size_of_batches_matters(
        self, measure: Measure, model: nn.Module, base: nn.Module, examples: Batch
    ) -> None:
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(1))
        whole = self.score(measure, model, base, examples)
        targets = examples.targets
        mixed = Batch(
            examples.inputs[order], Ragged(targets[i] for i in order) if isinstance(targets, Ragged) else targets[order]
        )
        split = self.score(measure, model, base, *mixed.split(7))
        assert split.value == pytest.approx(whole.value, rel=1e-5, abs=1e-7)
        if measure.wide:  # groups of a jackknife depend on the order
            assert (split.standard_error is None) == (whole.standard_error is None)
            return
        assert split.standard_error == pytest.approx(whole.standard_error, rel=1e-5)
        np.testing.assert_allclose(
            _values(split).astype(float), _values(whole)[order.numpy()].astype(float), rtol=1e-4, atol=1e-6
        )

    def test_rows_of_a_wide_measure_give_a_score_that_repeated_examples_do_not_change(
        self, measure: Measure, model: nn.Module, base: nn.Module, examples: Batch
    ) -> None:
        if not measure.wide:
            pytest.skip("a mean over examples, or one value for each")
        twice = self.score(measure, model, base, examples, examples)
        assert twice.examples is None
        assert twice.value == pytest.approx(self.score(measure, model, base, examples).value, rel=0.05, abs=0.5)

    def test_networks_flags_and_random_state_are_left_alone(
        self, measure: Measure, model: nn.Module, base: nn.Module, examples: Batch
    ) -> None:
        model.train()
        kept = [copy.deepcopy(network.state_dict()) for network in (model, base)]
        flags = [module.training for network in (model, base) for module in network.modules()]
        inputs, before = examples.inputs.clone(), global_generators()
        self.score(measure, model, base, examples)
        assert global_generators() == before
        assert [module.training for network in (model, base) for module in network.modules()] == flags
        for network, state in zip((model, base), kept, strict=True):
            assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
        assert torch.equal(examples.inputs, inputs)

    def test_outputs_that_are_no_numbers_are_one_clear_error(
        self, measure: Measure, model: nn.Module, base: nn.Module, examples: Batch
    ) -> None:
        with pytest.raises(EvaluationError, match="outputs are NaN or infinite"):
            self.score(measure, _Broken(model), base, examples)

    def test_the_base_network_is_as_good_as_a_network_can_be_that_is_compared_with_it(
        self, measure: Measure, base: nn.Module, examples: Batch
    ) -> None:
        if not measure.needs_base:
            pytest.skip("compares with no base network")
        best = measure.highest if measure.higher_is_better else measure.lowest
        assert measure.scale.turned(self.score(measure, base, base, examples).value) == best

    def test_without_a_base_network_one_that_compares_is_one_clear_error(
        self, measure: Measure, model: nn.Module, examples: Batch
    ) -> None:
        if not measure.needs_base:
            pytest.skip("compares with no base network")
        with pytest.raises(EvaluationError, match="compares with a base network, and here is none"):
            scored_by(measure, model, [examples], split="validation", device=_CPU)


def _values(score: Score) -> np.ndarray:
    assert score.examples is not None
    return score.examples
