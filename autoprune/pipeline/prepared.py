"""What a run works on, before and after its space is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from torch import nn

from autoprune.config.job import Job
from autoprune.config.parts import NamedPart
from autoprune.controllers import make_controller
from autoprune.controllers.base import Controller
from autoprune.controllers.parts.proposals import as_widths
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import make_evaluator
from autoprune.importance.evidence import EVIDENCE_BATCHES, Calibration
from autoprune.importance.members import channel_scores, ranking_of, unit_scores
from autoprune.importance.scoring import looks_at_data
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES
from autoprune.pipeline.fingerprints import JOB_FORMAT, same_job
from autoprune.progress.callbacks import Callback
from autoprune.space.groups import FloatArray, SearchSpace, Widths
from autoprune.space.origin import Origin
from autoprune.space.tracing.program import Example
from autoprune.tasks.base import Task
from autoprune.training.integrity import Snapshot
from autoprune.verdict.baselines import plan
from autoprune.verdict.rules import RuleInputs

_DRAWN = 10
"""Networks drawn at random, for evaluators that ask how far scores vary."""


@final
@dataclass(frozen=True, eq=False)
class RunInputs:
    """What a run works on.

    Attributes:
        job: every option, defaults filled in.
        model: the full network; only read.
        trained: its weights are the base network's; False: the run trains a copy first.
        example: what the model is traced with.
        task: trains and scores.
        callbacks: told what happens, beside those that the job names.
    """

    job: Job
    model: nn.Module
    trained: bool
    example: Example
    task: Task
    callbacks: tuple[Callback, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class Prepared:
    """RunInputs whose space is traced, verified and under a budget that can be reached.

    Attributes:
        run_inputs: what the run works on.
        network: the full network in the form of the space, with the tensors of the given model; only read.
        space: what can be cut, and how.
        origin: what the graph was traced from; None for a space of module form.
        domain: the space under its budget.
        fingerprints: of everything that a resumed run must find as it was.
        given: what the caller's model held, from which `network` has its tensors.
    """

    run_inputs: RunInputs
    network: nn.Module
    space: SearchSpace
    origin: Origin | None
    domain: BudgetedSpace
    fingerprints: Mapping[str, str]
    given: Snapshot

    def check_given(self) -> None:
        """Check that the caller's model is as it was; raises RunError where it is not."""
        self.given.check(
            "the given model was changed while the search ran (by a function that works on it?)",
            "let functions only use the network that they are called with",
        )

    def differing(self, recorded: Mapping[str, str], *, job_format: int = JOB_FORMAT) -> list[str]:
        """What a run found otherwise than it is now.

        Args:
            recorded: the fingerprints of that run.
            job_format: that it began with.
        """
        same = {name: recorded.get(name) == value for name, value in self.fingerprints.items()}
        same["job"] = same_job(recorded.get("job"), self.run_inputs.job, job_format=job_format)
        return [name for name in same if not same[name]]

    def controller(self, scores: Sequence[FloatArray], *, learned: Any = None, trials: int | None = None) -> Controller:
        """A new controller of the job, given the importance of the base network's channels.

        Args:
            scores: the importances.
            learned: what the controller of another budget has learned.
            trials: how many were planned when the run began, where those of the job are others by now.
        """
        chosen, job = self.run_inputs.job.search.controller, self.run_inputs.job
        return make_controller(
            chosen.name,
            self.domain,
            seed=job.seed,
            settings=chosen.settings,
            trials=trials or job.search.trials,
            importance=unit_scores(self.space, scores),
            learned=learned,
        )

    def plan(
        self,
        scores: Sequence[FloatArray],
        *,
        inputs: RuleInputs | None = None,
        skipped: Callable[[str, str], None] = lambda label, reason: None,
    ) -> list[tuple[str, Widths]]:
        """What the search scores first, given the importance of the base network's channels; see `baselines.plan`."""
        job = self.run_inputs.job
        return plan(
            self.domain,
            unit_scores(self.space, scores),
            allocations=job.search.allocations,
            random_candidates=job.verdict.random_candidates,
            seed=job.seed,
            inputs=inputs,
            skipped=skipped,
        )

    def scores(
        self, base: nn.Module, *, batches: int = EVIDENCE_BATCHES, criterion: NamedPart | None = None
    ) -> list[FloatArray]:
        """Per group, the importance of each channel.

        Args:
            base: the base network.
            batches: training batches to gather evidence on, where the criterion needs data.
            criterion: another one than the job's.
        """
        job, task = self.run_inputs.job, self.run_inputs.task
        chosen = criterion or job.search.criterion
        calibration = None
        if looks_at_data(chosen) and (examples := task.calibration_examples(batches, seed=0)):
            calibration = Calibration(examples, task.objective, task.device)
        return channel_scores(base, self.space, chosen, seed=job.seed, calibration=calibration)

    def factory(self, base: nn.Module, scores: Sequence[FloatArray]) -> CandidateFactory:
        """What candidates of this base network are made from."""
        task, job = self.run_inputs.task, self.run_inputs.job
        ranking, epochs = ranking_of(self.space, scores), job.training.epochs
        rows = self.domain.sample(_DRAWN, np.random.default_rng(job.seed))
        made = CandidateFactory(
            base,
            self.space,
            ranking,
            task,
            epochs,
            job.search.inherit,
            job.verdict.inherit,
            drawn=tuple(map(as_widths, rows)),
        )
        own = job.search.evaluator.settings if job.search.evaluator.name in ("inherited", "racing") else {}
        return made.calibrated(own.get("calibration_batches", CALIBRATION_BATCHES))

    def evaluator(self, factory: CandidateFactory) -> Evaluator:
        """A new evaluator of the job."""
        chosen = self.run_inputs.job.search.evaluator
        return make_evaluator(chosen.name, factory, chosen.settings)
