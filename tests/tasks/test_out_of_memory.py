from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.engines.local import evaluate
from autoprune.errors import EvaluationError, is_out_of_memory
from autoprune.evaluators.making import make_evaluator
from autoprune.measures.loss import Loss
from autoprune.space.groups import Widths
from autoprune.tasks.scoring import scored_by
from autoprune.testing.evaluators import tiny_bench

CPU = torch.device("cpu")
ERRORS: dict[str, Exception] = {
    "of a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "of torch on the CPU": RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    "of Python": MemoryError(),
}


class Hungry(nn.Module):
    """Takes no more than so many examples at once."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.most, self.error = nn.Linear(5, 3), most, error

    def forward(self, x: Tensor) -> Tensor:
        SIZES.append(len(x))
        if len(x) > self.most:
            raise self.error
        return self.linear(x)  # type: ignore[no-any-return]


SIZES: list[int] = []


def _batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(50, 5, generator=generator), torch.arange(50) % 3
    return Batch(inputs, labels).split(20)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_memory_that_does_not_suffice_halves_the_batch_for_all_that_follow(error: Exception) -> None:
    SIZES.clear()
    scores = [
        scored_by(Loss(), Hungry(most, error), _batches(), split="validation", device=CPU, examples=True)
        for most in (50, 6)
    ]
    assert float(scores[0]) == pytest.approx(float(scores[1]), rel=1e-6)
    assert scores[0].examples is not None
    assert scores[1].examples is not None
    assert scores[0].examples.tolist() == pytest.approx(scores[1].examples.tolist(), rel=1e-5)
    assert SIZES == [20, 20, 10, 20, 10, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]


def test_a_single_example_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(MemoryError):
        scored_by(Loss(), Hungry(0, MemoryError()), _batches(), split="validation", device=CPU)


def test_other_errors_are_raised_at_once() -> None:
    SIZES.clear()
    with pytest.raises(RuntimeError, match="shapes"):
        scored_by(Loss(), Hungry(6, RuntimeError("shapes differ")), _batches(), split="validation", device=CPU)
    assert SIZES == [20]


def test_an_error_that_was_caused_by_want_of_memory_counts() -> None:
    error = EvaluationError("the measure fails")
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)
    assert not is_out_of_memory(ValueError("out of memory"))


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError("in the user's own forward")


@pytest.mark.parametrize("name", ["inherited", "racing"])
@pytest.mark.parametrize("fault", ["crash", "NaN", "NaN weights"])
def test_a_candidate_that_crashes_or_gives_nan_fails_with_its_traceback(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = tiny_bench()
    evaluator = make_evaluator(name, factory, {"calibration_batches": 0})
    widths = factory.space.uniform(0.5)
    usual = type(factory.heirs("search")).__call__

    def broken(self: Any, widths: Widths) -> nn.Module:
        network: Any = usual(self, widths)
        if fault == "NaN weights":
            network.head.weight.data[0, 0] = torch.nan
        else:
            network.head = Broken() if fault == "crash" else nn.Sequential(network.head, Dividing())
        return network  # type: ignore[no-any-return]

    with monkeypatch.context() as patch:
        patch.setattr(type(factory.heirs("search")), "__call__", broken)
        outcome = evaluate(evaluator, widths, seed=0)
    assert outcome.score is None
    assert outcome.error is not None
    assert "Traceback" in outcome.error
    told = {"crash": "in the user's own forward", "NaN": "NaN or infinite", "NaN weights": "no usable numbers"}
    assert told[fault] in outcome.error
    assert evaluate(evaluator, widths, seed=0).score is not None


class Dividing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.zeros(())
