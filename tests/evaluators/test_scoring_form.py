from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.evaluators import scoring_form
from autoprune.evaluators.artefact import prepared
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import make_evaluator, prepares_something
from autoprune.evaluators.resident import ResidentScorer
from autoprune.evaluators.scoring_form import PLAIN, ScoringForm, calibrates_faster_last, fastest_form
from autoprune.measures.divergence import Divergence
from autoprune.measures.loss import Loss
from autoprune.space.cutting.graph_form import graph_network
from autoprune.space.tracing.trace import trace
from autoprune.tasks.classification import ClassificationTask
from autoprune.testing.evaluators import tiny_bench, tiny_splits

FORMS = [
    ScoringForm(),
    ScoringForm(folded=True),
    ScoringForm(channels_last=True),
    ScoringForm(folded=True, channels_last=True, piece=50, calibrated_last=True),
    ScoringForm(folded=True, calibrated_last=True),
]


@pytest.fixture(scope="module")
def factory() -> CandidateFactory:
    return tiny_bench()


def _by_loss(factory: CandidateFactory) -> CandidateFactory:
    recipe = Recipe(epochs=3, lr=0.1, batch_size=32, weight_decay=5e-4)
    return replace(factory, task=ClassificationTask(tiny_splits(), recipe, device=torch.device("cpu"), measure=Loss()))


def _evaluator(factory: CandidateFactory, form: ScoringForm, folder: Path, **settings: Any) -> Any:
    form.write(folder)
    made = make_evaluator("inherited", factory, {"form": "fast", **settings})
    made.load(folder)
    return made


@pytest.mark.parametrize("form", FORMS)
def test_every_form_scores_as_the_task_does(factory: CandidateFactory, form: ScoringForm, tmp_path: Path) -> None:
    """The loss, which shows rounding; the evaluator's own way of reading examples is the task's, value by value."""
    by_loss = _by_loss(factory)
    made = _evaluator(by_loss, form, tmp_path, keep_examples=True)
    for widths in (by_loss.space.full, by_loss.space.uniform(0.5), by_loss.space.smallest):
        expected = by_loss.task.scored(by_loss.heirs("search")(widths), examples=True)
        found = made.evaluate(widths, seed=0)
        assert float(found) == pytest.approx(float(expected), rel=1e-5)
        assert expected.examples is not None
        np.testing.assert_allclose(found.examples, expected.examples, rtol=1e-4, atol=1e-5)
        if form == PLAIN:
            assert (found, found.examples.tolist()) == (expected, expected.examples.tolist())


def test_the_plain_form_is_the_default_and_prepares_nothing(factory: CandidateFactory, tmp_path: Path) -> None:
    assert not prepares_something("inherited", {})
    assert not prepares_something("inherited", {"form": "plain"})
    assert prepares_something("inherited", {"form": "fast"})


def test_graphs_are_folded_and_score_as_their_modules(factory: CandidateFactory, tmp_path: Path) -> None:
    traced = trace(factory.model, torch.zeros(2, 1, 6, 6))
    space = replace(traced.space, form="graph")
    network = graph_network(factory.model, traced.program, space, traced.example)
    graph = replace(_by_loss(factory), model=network, space=space)
    form = ScoringForm(folded=True, channels_last=True)
    widths = space.uniform(0.5)
    scores = [_evaluator(one, form, tmp_path).evaluate(widths, seed=0) for one in (_by_loss(factory), graph)]
    assert float(scores[0]) == pytest.approx(float(scores[1]), rel=1e-6)


def test_the_form_is_measured_once_and_kept_for_resumptions_and_workers(
    factory: CandidateFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def measured(network: nn.Module, batch: Batch) -> ScoringForm:
        asked.append("once")
        return ScoringForm(folded=True, piece=7)

    monkeypatch.setattr("autoprune.evaluators.scored_heirs.fastest_form", measured)
    monkeypatch.setattr("autoprune.evaluators.scored_heirs.calibrates_faster_last", lambda *_: True)
    for _ in range(2):
        made = make_evaluator("inherited", factory, {"form": "fast"})
        folder = prepared(made, tmp_path, seed=0)
        made.load(folder)
    assert asked == ["once"]
    assert ScoringForm.read(folder) == ScoringForm(folded=True, piece=7, calibrated_last=True)


def test_the_faster_of_two_equal_forms_is_taken(factory: CandidateFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that we turn: a pass takes as long as we say for its form."""
    slow = {ScoringForm(): 1.0, ScoringForm(folded=True): 0.99}
    network = factory.candidate(factory.space.full).eval()
    batch = Batch(torch.randn(8, 1, 6, 6))
    for seconds, expected in ((0.2, ScoringForm(channels_last=True)), (0.98, PLAIN)):
        times = {**slow, ScoringForm(channels_last=True): seconds}
        monkeypatch.setattr(scoring_form, "_times", lambda forms, *rest, times=times: times)
        assert fastest_form(network, batch) == expected


def test_recalibration_takes_a_layout_of_its_own_by_the_clock_and_the_statistics(
    factory: CandidateFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(torch.randn(16, 1, 6, 6))
    network = factory.candidate(factory.space.full)
    for slow_one, expected in (("last", False), ("first", True)):
        ticks = iter(_ticks(slow_one))
        monkeypatch.setattr(scoring_form, "_now", lambda batch, ticks=ticks: next(ticks))
        assert calibrates_faster_last(network, batch) is expected
    monkeypatch.setattr(scoring_form, "recalibrate_batch_norm", _other_statistics)
    ticks = iter(_ticks("first"))
    monkeypatch.setattr(scoring_form, "_now", lambda batch, ticks=ticks: next(ticks))
    assert not calibrates_faster_last(network, Batch(torch.randn(16, 3, 6, 6)))


def _ticks(slow: str) -> list[float]:
    """Of a clock by which every second pass, of channels last, takes longer than the others, or shorter."""
    now, ticks = 0.0, list[float]()
    for number in range(2 * (scoring_form._ROUNDS + 1)):
        last = number % 2 == 1
        ticks += [now, now := now + (2.0 if last == (slow == "last") else 1.0)]
    return ticks


def _other_statistics(network: nn.Module, inputs: Any, device: Any) -> list[tuple[Tensor, Tensor]]:
    """Means of the same norm that are another in channels last, by a standard deviation; its variances."""
    last = inputs[0].is_contiguous(memory_format=torch.channels_last)
    return [(torch.full((3,), float(last)), torch.zeros(3)), (torch.ones(3), torch.zeros(3))]


def test_means_that_are_nothing_but_rounding_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a norm that shifts nothing, a convolution without activations before it gives means of 0."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)]
    network = nn.Sequential(*layers).eval()
    ticks = iter(_ticks("first"))
    monkeypatch.setattr(scoring_form, "_now", lambda batch: next(ticks))
    assert calibrates_faster_last(network, Batch(torch.randn(64, 3, 8, 8)))
    assert network[3].running_mean.abs().max() < 1e-6


class Drawing(nn.Module):
    """Draws at random in eval mode, too."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(())


class Viewing(nn.Module):
    """Takes the layout of its inputs for granted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).view(len(x), -1)


class Batchwise(nn.Module):
    """What it gives for an example depends on the others."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


@pytest.mark.parametrize(("model", "form"), [(Drawing(), {}), (Viewing(), {}), (Batchwise(), {"piece": 512})])
def test_a_form_that_gives_other_outputs_or_none_is_never_taken(model: nn.Module, form: dict[str, Any]) -> None:
    chosen = fastest_form(model.eval(), Batch(torch.randn(128, 3, 4, 4)))
    assert not chosen.folded
    assert not (chosen.channels_last and isinstance(model, Viewing | Drawing))
    assert chosen.piece == form.get("piece", chosen.piece)


def test_a_candidate_that_a_form_does_not_suit_is_scored_as_it_is(factory: CandidateFactory) -> None:
    assert isinstance(factory.task, ClassificationTask)
    scorer = ResidentScorer(factory.task, factory.space, ScoringForm(folded=True))
    network = factory.candidate(factory.space.full)
    network.head.register_forward_pre_hook(_refuse_inference)  # type: ignore[union-attr, operator]
    expected = factory.task.scored(factory.candidate(factory.space.full))
    assert factory.task.score_of(scorer.values(network, factory.space.full)) == expected


def _refuse_inference(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if any(type(mode).__name__ == "Folded" for mode in torch.overrides._get_current_function_mode_stack()):
        raise ValueError("not under a mode")


def test_examples_beyond_the_room_are_read_again(factory: CandidateFactory) -> None:
    task = factory.task
    assert isinstance(task, ClassificationTask)
    network = factory.candidate(factory.space.full).eval()
    whole = ResidentScorer(task, factory.space)
    none = ResidentScorer(task, factory.space, kept_bytes=0)
    for start, stop in ((0, None), (0, 7), (5, 7), (3, None), (0, None)):
        parts = [scorer.values(network, factory.space.full, start=start, stop=stop) for scorer in (whole, none)]
        assert parts[0].tolist() == parts[1].tolist()
        assert len(parts[0]) == (128 if stop is None else stop) - start


def test_divergence_from_the_base_network_is_a_score_of_any_form(factory: CandidateFactory, tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, lr=0.1, batch_size=32, weight_decay=5e-4)
    task = ClassificationTask(tiny_splits(), recipe, device=torch.device("cpu"), measure=Divergence(kind="kl"))
    other = replace(factory, task=task)
    made = _evaluator(other, FORMS[-1], tmp_path, calibration_batches=0)
    assert float(made.evaluate(other.space.full, seed=0)) == pytest.approx(0.0, abs=1e-9)
    half = other.heirs("search")(other.space.uniform(0.5))
    again = _evaluator(other, FORMS[-1], tmp_path)
    assert float(again.evaluate(other.space.uniform(0.5), seed=0)) == pytest.approx(
        float(other.task.scored(half)), rel=1e-4
    )


def test_another_form_is_refused(factory: CandidateFactory) -> None:
    with pytest.raises(ConfigError, match=r"form must be plain or fast, got 'fest'\. Did you mean 'fast'\?"):
        make_evaluator("inherited", factory, {"form": "fest"})
