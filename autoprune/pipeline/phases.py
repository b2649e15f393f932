"""The phases of a run: base network, search, re-scoring, final trainings, conclusion.

Each phase leaves what it did on disk, and a resumed run does only what is left.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, final

import yaml

from autoprune.allocation import UNIFORM
from autoprune.controllers.base import Trial, TrialState
from autoprune.cost import METRICS
from autoprune.engines.base import Engine
from autoprune.errors import EvaluationError, RunError
from autoprune.evaluators.base import CandidateFactory
from autoprune.export.architecture import write_architecture
from autoprune.files import read_json
from autoprune.pipeline.base_network import base_network
from autoprune.pipeline.continuation import RECORD
from autoprune.pipeline.equal_latency import FOLDER, by_flops, by_flops_too, shared_by_both, with_flops_search
from autoprune.pipeline.exported import exported_network
from autoprune.pipeline.family import Family, ScoreCache
from autoprune.pipeline.full_scores import Shown, score_fully
from autoprune.pipeline.measured import measure_compared, measured_winner
from autoprune.pipeline.prepare import Prepared
from autoprune.pipeline.provenance import changes, now, provenance
from autoprune.pipeline.run_engine import RunEngine
from autoprune.pipeline.winners import write_winners
from autoprune.progress.base import Progress
from autoprune.progress.tensorboard import Events
from autoprune.report.pages import write_reports
from autoprune.space.groups import FloatArray, Widths
from autoprune.space.serial import to_json
from autoprune.texts import score_text
from autoprune.training.integrity import Snapshot
from autoprune.training.protocols import make_protocol
from autoprune.trials.assignment import score_of
from autoprune.trials.ledger import Ledger, Notebook, open_storage
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.selection import Posterior, probability_better, shortlist, smooth
from autoprune.trials.session import SearchSession
from autoprune.verdict.baselines import arms, curve_budgets
from autoprune.verdict.finals import FinalPlan, train_finals
from autoprune.verdict.record import Arm, CurvePoint, FinalTraining, RunRecord, Verdict, read_record, write_record
from autoprune.verdict.statistics import judge

_FINAL_WEIGHTS = "winner.safetensors"
T = TypeVar("T")


def start(
    prepared: Prepared, directory: RunDirectory, progress: Progress, engine: Engine, family: Family | None = None
) -> RunRecord:
    """Begin a new run in an empty directory and finish it on an open engine; what a `family` has is not made again."""
    job = prepared.run_inputs.job
    directory.write_text("job.yaml", job.text)
    directory.write_json("space.json", to_json(prepared.space, origin=prepared.origin))
    directory.update_run(
        id=f"{directory.path.name}-{secrets.token_hex(4)}",
        **provenance(),
        seed=job.seed,
        device=str(prepared.run_inputs.task.device),
        fingerprints=dict(prepared.fingerprints),
        begun_with=None if family is None else family.handed_on,
        seconds={},
        **{RECORD: job.engine.of_trials},
    )
    return _Run(prepared, directory, progress, engine, family).finish()


def resume(
    prepared: Prepared, directory: RunDirectory, progress: Progress, engine: Engine, family: Family | None = None
) -> RunRecord:
    """Go on with a run, maybe on another engine than it began on; one that had ended is only read.

    Raises:
        RunError: model code, weights, space, data or job are not the run's own; names what differs.
    """
    differing = prepared.differing(directory.recorded("fingerprints"))
    if differing:
        raise RunError(
            f"{directory.path} cannot be resumed: {', '.join(differing)} of the run and of this call differ"
            f"{changes(directory, prepared.run_inputs.job) if 'job' in differing else ''}; "
            f"restore what the run was started with, or start a new run"
        )
    if (directory / "result.json").is_file():
        return read_record(directory.path)
    return _Run(prepared, directory, progress, engine, family).finish()


@final
class _Run:
    """One run, phase by phase."""

    def __init__(
        self,
        prepared: Prepared,
        directory: RunDirectory,
        progress: Progress,
        engine: Engine,
        family: Family | None,
    ) -> None:
        self._prepared, self._family = prepared, family
        self._engine = RunEngine(engine, prepared, directory, progress)
        self._job, self._task = prepared.run_inputs.job, prepared.run_inputs.task
        self._space, self._domain = prepared.space, prepared.domain
        self._directory, self._progress = directory, progress
        self._storage = open_storage(self._job.search.storage, directory / "journal.log")
        self._base: Snapshot | None = None
        self._by_flops = by_flops(prepared)
        if self._by_flops is not None and family is None:
            self._family = shared_by_both(directory, self._job.search.storage)

    def finish(self) -> RunRecord:
        """Do what is left and return the record."""
        base = self._timed(
            "base network", lambda: base_network(self._prepared, self._directory, self._progress, self._family)
        )
        self._base = Snapshot(base)
        scores = self._prepared.scores(base)
        self._check_base("the criterion")
        factory = self._prepared.factory(base, scores)
        self._engine.equip(factory)
        trials = self._timed("search", lambda: self._search(scores))
        rescored = self._timed("re-scoring", lambda: self._rescore(trials))
        curve = self._timed("uniform curve", self._uniform_curve)
        beside = None
        if self._by_flops is not None:
            narrowed = self._by_flops
            beside = self._timed("search by FLOPs", lambda: self._search_by_flops(narrowed, factory))
        posterior = smooth(self._domain, trials, rescored)
        uniform = {trial.widths for trial in trials if trial.origin in UNIFORM}
        ranked = shortlist({widths: posterior[widths] for widths in rescored}, len(rescored), self._domain, uniform)
        example, run, shown = self._prepared.run_inputs.example, self._directory, self._progress
        winner = measured_winner(self._domain, ranked, factory, example, run, shown)
        if winner not in rescored:  # made to keep the latency limit, once candidates were measured
            rescored |= self._score_fully([winner], phase="measured winner", seed=3_000_003)
            posterior = smooth(self._domain, trials, rescored)
        compared = with_flops_search(arms(self._domain, trials, winner, rescored), beside, self._domain)
        latency = measure_compared(self._domain, {arm.name: arm.widths for arm in compared}, factory, example, run)
        finals = self._timed("final trainings", lambda: self._finals(compared))
        uniforms = {arm.name: arm.widths for arm in compared if arm.name in UNIFORM}
        chances = probability_better(self._domain, trials, rescored, winner, uniforms)
        return self._conclude(factory, trials, posterior, compared, finals, curve, chances, latency)

    @property
    def _cache(self) -> ScoreCache | None:
        return None if self._family is None else self._family.scores

    def _study(self, part: str) -> str:
        """The name of a study: an external storage may hold those of many runs."""
        return f"{self._directory.recorded('id')}/{part}"

    def _search(self, scores: Sequence[FloatArray]) -> tuple[Trial, ...]:
        """All trials, in the order in which they were proposed, given the importance of all channels."""
        cache, engine = self._cache, self._engine.engine

        def show(trial: Trial) -> None:
            score = score_of(trial)
            if cache is not None and trial.state is TrialState.COMPLETE and score is not None:
                cache.add(trial.widths, score, full=False)
            done, busy = len(session.trials), engine.busy
            self._progress.trial(trial, session.best, session.uniform, done, session.total, busy)
            events.trial(trial, session.best, session.uniform, done, busy)

        begun_with = read_json(self._directory / "run.json").get("begun_with")
        controller = self._prepared.controller(scores, learned=begun_with)
        session = SearchSession(
            self._domain,
            controller,
            Ledger(self._storage, self._study("search"), self._space, note=self._progress.note),
            plan=self._prepared.plan(scores),
            trials=self._job.search.trials,
            seed=self._job.seed,
            on_trial=show,
            remembered=lambda widths: cache.scored(widths, full=False) if cache is not None else None,
        )
        self._progress.start(session.total, self._task.unit, engine.workers)
        with Events(self._directory / "tensorboard") as events:
            engine.search(session)
        self._directory.update_run(learned=controller.learned())
        self._winners = write_winners(controller.winners(), self._space, self._directory)
        return tuple(sorted(session.trials, key=lambda trial: trial.number))

    def _rescore(self, trials: Sequence[Trial]) -> dict[Widths, float]:
        """Score the shortlist and the uniforms once more, on all validation data and with a fresh seed."""
        uniforms = [trial.widths for trial in trials if trial.origin in UNIFORM and trial.score is not None]
        chosen = shortlist(smooth(self._domain, trials), self._job.search.rescore, self._domain, uniforms)
        rescored = self._score_fully([*chosen, *uniforms], phase="re-scoring", seed=1_000_003)
        if not rescored:
            raise EvaluationError(
                f"none of the best {len(chosen)} candidates could be scored on all validation data, though the search "
                f"scored them; free memory or correct the score function, then resume the run"
            )
        return rescored

    def _uniform_curve(self) -> tuple[CurvePoint, ...]:
        """Score uniform pruning around the budget: at which cost is it as good as the winner?"""
        scored = self._score_fully(curve_budgets(self._domain), phase="uniform curve", seed=2_000_003)
        return tuple(CurvePoint(self._domain.budget.costs_of(widths), score) for widths, score in scored.items())

    def _search_by_flops(self, narrowed: Prepared, factory: CandidateFactory) -> RunRecord:
        """The search under the FLOPs of equal latency, a run of its own in a folder of this one."""
        place, engine = self._directory / FOLDER, self._engine.engine
        begun = (place / "run.json").is_file()
        self._progress.note(f"beside it, the search under the FLOPs of equal latency: {narrowed.domain.budget}")
        with RunDirectory.reopen(place) if begun else RunDirectory.create(place) as inside:
            inner = by_flops_too(self._family) if self._family is not None else None
            record = (resume if begun else start)(narrowed, inside, self._progress, engine, inner)
        self._engine.equip(factory)  # that run had the engine
        return record

    def _score_fully(self, chosen: Sequence[Widths], *, phase: str, seed: int) -> dict[Widths, float]:
        """Scores on all validation data of those that have one; what the study holds already is not scored again."""
        notebook = Notebook(self._storage, self._study(phase))
        shown = Shown(self._progress, phase, self._task.unit)
        return score_fully(self._engine.engine, chosen, notebook, self._cache, shown, seed=self._job.seed + seed)

    def _finals(self, compared: Sequence[Arm]) -> list[FinalTraining]:
        options = self._job.verdict
        if not options.seeds:
            return []
        self._progress.phase("final trainings", len(compared) * len(options.protocols) * options.seeds)
        return train_finals(
            self._engine.engine,
            compared,
            FinalPlan(
                options.protocols, options.seeds, options.fine_tune_epochs, self._job.training.lr, self._job.seed
            ),
            notebook=Notebook(self._storage, self._study("final trainings")),
            weights=self._directory / _FINAL_WEIGHTS,
            on_final=lambda f: self._progress.advance(
                f"{f.arm}, {f.protocol}, seed {f.seed}: {score_text(f.score, self._task.unit)}"
            ),
        )

    def _conclude(
        self,
        factory: CandidateFactory,
        trials: tuple[Trial, ...],
        posterior: Posterior,
        compared: tuple[Arm, ...],
        finals: list[FinalTraining],
        curve: tuple[CurvePoint, ...],
        chances: Mapping[str, float],
        latency: Mapping[str, Any] | None,
    ) -> RunRecord:
        """Judge, then write export, report and last result.json: it marks a run as ended."""
        weights = self._directory / _FINAL_WEIGHTS if finals else None
        network = exported_network(self._prepared, factory, compared[0].widths, weights)
        test = self._task.score(factory.model, split="test") if self._task.has_test else None
        base = {**read_json(self._directory / "base.json"), "test": test, "test_examples": self._task.test_examples}
        self._directory.update_run(finished=now())
        record = RunRecord(
            directory=self._directory.path,
            job=yaml.safe_load((self._directory / "job.yaml").read_text()),
            provenance=read_json(self._directory / "run.json"),
            space=self._space,
            budget=tuple({**asdict(limit), "percent": limit.percent} for limit in self._domain.budget.limits),
            full_costs=self._domain.budget.costs_of(self._space.full),
            base=base,
            unit=self._task.unit,
            test_split=self._task.has_test,
            trials=trials,
            posterior={trial.number: posterior[trial.widths] for trial in trials if trial.widths in posterior},
            arms=compared,
            finals=tuple(finals),
            verdict=self._verdict(finals, compared) if finals else None,
            uniform_curve=curve,
            chances=chances,
            latency=latency,
            winners=self._winners,
        )
        write_architecture(
            record, network, self._directory / "export", ranking=factory.ranking, origin=self._prepared.origin
        )
        write_reports(record)
        self._directory.write_json("result.json", write_record(record))
        return record

    def _verdict(self, finals: Sequence[FinalTraining], compared: Sequence[Arm]) -> Verdict:
        told = [(limit, METRICS.card(limit.metric).told or limit.metric) for limit in self._domain.budget.limits]
        return judge(
            finals,
            protocols={chosen.label: make_protocol(chosen).told for chosen in self._job.verdict.protocols},
            budget_text=" and ".join(f"{limit.percent:.3g} % of {metric}" for limit, metric in told),
            unit=self._task.unit,
            identical=[arm.name for arm in compared[1:] if arm.widths == compared[0].widths],
            unseen_data=self._task.has_test,
        )

    def _check_base(self, phase: str) -> None:
        """Candidates are cut from the base network: what was scored after a change of it means nothing."""
        if self._base is not None:
            self._base.check(
                f"{phase} changed the base network", "let your code work on copies of it, then start a new run"
            )

    def _timed(self, phase: str, work: Callable[[], T]) -> T:
        """Run a phase and add its seconds to run.json, over all resumptions."""
        started = time.perf_counter()
        try:
            found = work()
            self._check_base(phase)
            return found
        finally:
            seconds: Mapping[str, float] = self._directory.recorded("seconds")
            spent = seconds.get(phase, 0.0) + time.perf_counter() - started
            self._directory.update_run(seconds={**seconds, phase: round(spent, 3)}, engine=self._engine.record())
