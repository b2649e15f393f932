"""The phases of a run: base network, search, re-scoring, final trainings, conclusion.

Each phase leaves what it did on disk, and a resumed run does only what is left.
"""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar, final

import torch
import yaml
from torch import nn

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial
from autoprune.errors import RunError
from autoprune.evaluators.base import Evaluator, Workbench, make_evaluator
from autoprune.export.architecture import write_architecture
from autoprune.importance.members import channel_scores
from autoprune.inherit.bn_recalibration import recalibrate_batch_norm
from autoprune.pipeline.prepare import Prepared, weights_fingerprint
from autoprune.report.html import write_html
from autoprune.report.markdown import write_markdown
from autoprune.search.engines import local
from autoprune.search.ledger import Ledger, Notebook, open_storage
from autoprune.search.progress import Progress
from autoprune.search.run_directory import RunDirectory, read_json
from autoprune.search.select import Posterior, shortlist, smooth
from autoprune.search.session import SearchSession
from autoprune.space.groups import Widths
from autoprune.space.serial import to_json
from autoprune.space.slicing import ranking_from_scores
from autoprune.verdict.baselines import UNIFORM, arms, plan
from autoprune.verdict.finals import FinalPlan, save_weights, train_finals
from autoprune.verdict.record import Arm, FinalTraining, RunRecord, read_record, write_record
from autoprune.verdict.statistics import judge
from autoprune.zoo import load_weights

_PACKAGES = ("autoprune", "torch", "numpy", "scipy", "optuna", "ray", "scikit-learn", "fvcore")
_FINAL_WEIGHTS = "winner.safetensors"
T = TypeVar("T")


def start(prepared: Prepared, directory: RunDirectory, progress: Progress) -> RunRecord:
    """Begin a new run in an empty directory and finish it."""
    job = prepared.ingredients.job
    directory.write_text("job.yaml", yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False))
    directory.write_json("space.json", to_json(prepared.space))
    directory.update_run(
        started=_now(),
        seed=job.seed,
        device=str(prepared.ingredients.task.device),
        versions={name: found for name in _PACKAGES if (found := _version(name))},
        python=platform.python_version(),
        platform=platform.platform(),
        threads=torch.get_num_threads(),
        fingerprints=dict(prepared.fingerprints),
        seconds={},
    )
    return _Run(prepared, directory, progress).finish()


def resume(prepared: Prepared, directory: RunDirectory, progress: Progress) -> RunRecord:
    """Go on with a run; one that had ended is only read.

    Raises:
        RunError: model code, weights, space, data or job are not the run's own; names what differs.
    """
    recorded = read_json(directory / "run.json")["fingerprints"]
    differing = [name for name, value in prepared.fingerprints.items() if recorded.get(name) != value]
    if differing:
        raise RunError(
            f"{directory.path} cannot be resumed: {', '.join(differing)} differ from the run's own; "
            f"restore what the run was started with, or start a new run"
        )
    if (directory / "result.json").is_file():
        return read_record(directory.path)
    return _Run(prepared, directory, progress).finish()


@final
class _Run:
    """One run, phase by phase."""

    def __init__(self, prepared: Prepared, directory: RunDirectory, progress: Progress) -> None:
        self._prepared = prepared
        self._job, self._task = prepared.ingredients.job, prepared.ingredients.task
        self._space, self._domain = prepared.space, prepared.domain
        self._directory, self._progress = directory, progress

    def finish(self) -> RunRecord:
        """Do what is left and return the record."""
        job = self._job
        storage = open_storage(job.search.storage, self._directory / "journal.log")
        base = self._timed("base network", self._base)
        scores = channel_scores(base, self._space, job.search.criterion, seed=job.seed)
        bench = Workbench(base, self._space, ranking_from_scores(scores), self._task, job.training.epochs)
        evaluator = make_evaluator(job.search.evaluator.name, bench, job.search.evaluator.settings)
        session = self._session(scores, Ledger(storage, "search", self._space))
        self._timed("search", lambda: self._search(session, evaluator))
        trials = tuple(sorted(session.trials, key=lambda trial: trial.number))
        rescored = self._timed("re-scoring", lambda: self._rescore(evaluator, trials, Notebook(storage, "rescore")))
        posterior = smooth(self._domain, trials, rescored)
        winner = max(rescored, key=lambda widths: posterior[widths][0])
        compared = arms(self._domain, trials, winner, rescored)
        finals = self._timed("final trainings", lambda: self._finals(bench, compared, Notebook(storage, "final")))
        return self._conclude(bench, trials, posterior, compared, finals)

    def _base(self) -> nn.Module:
        """The trained base network on the task's device, from disk where a killed run left it."""
        given, path = self._prepared.ingredients, self._directory / "base.safetensors"
        base = copy.deepcopy(given.model)
        if path.is_file():
            load_weights(base, path)
            recorded = read_json(self._directory / "base.json")["weights"]
            if weights_fingerprint(base) != recorded:
                raise RunError(f"{path} is not the base network that the run trained; start a new run")
            return base.to(self._task.device).eval()
        epochs = 0 if given.trained else self._job.training.epochs
        started = time.perf_counter()
        if epochs:
            self._progress.phase("base network", epochs)
            self._task.train(
                base,
                epochs=epochs,
                seed=self._job.seed,
                progress=lambda done, total, loss: self._progress.advance(f"loss {loss:.3f}"),
            )
        base = base.to(self._task.device).eval()
        self._directory.write_json(
            "base.json",
            {
                "validation": self._task.score(base),
                "test": self._task.score(base, split="test") if self._task.has_test else None,
                "epochs": epochs,
                "seconds": time.perf_counter() - started,
                "weights": weights_fingerprint(base),
            },
        )
        save_weights(base, path)
        return base

    def _session(self, scores: Sequence[Any], ledger: Ledger) -> SearchSession:
        job = self._job
        controller = make_controller(
            job.search.controller.name, self._domain, seed=job.seed, settings=job.search.controller.settings
        )
        proposals = plan(
            self._domain,
            scores,
            allocations=job.search.allocations,
            random_candidates=job.verdict.random_candidates,
            seed=job.seed,
        )
        return SearchSession(
            self._domain, controller, ledger, plan=proposals, trials=job.search.trials, seed=job.seed
        )

    def _search(self, session: SearchSession, evaluator: Evaluator) -> None:
        self._progress.start(session.total, self._task.unit)

        def show(trial: Trial) -> None:
            self._progress.trial(trial, session.best, session.uniform, len(session.trials), session.total)

        local.run(session, evaluator, on_trial=show)

    def _rescore(self, evaluator: Evaluator, trials: Sequence[Trial], notebook: Notebook) -> dict[Widths, float]:
        """Score the shortlist and the uniforms once more, on all validation data and with a fresh seed."""
        chosen = shortlist(smooth(self._domain, trials), self._job.search.rescore)
        chosen += [trial.widths for trial in trials if trial.origin in UNIFORM and trial.score is not None]
        distinct = list(dict.fromkeys(chosen))
        self._progress.phase("re-scoring", len(distinct))
        known = notebook.read()
        rescored = {}
        for number, widths in enumerate(distinct):
            key = "-".join(map(str, widths))
            if key not in known:
                score = evaluator.evaluate(widths, seed=self._job.seed + 1_000_003 + number, full=True)
                notebook.write(key, score, {"widths": list(widths)})
                known[key] = {"score": score}
            rescored[widths] = float(known[key]["score"])
            self._progress.advance(f"{rescored[widths]:.2f} {self._task.unit}".strip())
        return rescored

    def _finals(self, bench: Workbench, compared: Sequence[Arm], notebook: Notebook) -> list[FinalTraining]:
        options = self._job.verdict
        if not options.seeds:
            return []
        self._progress.phase("final trainings", len(compared) * len(options.protocols) * options.seeds)
        return train_finals(
            bench,
            compared,
            FinalPlan(
                options.protocols, options.seeds, options.fine_tune_epochs, self._job.training.lr, self._job.seed
            ),
            notebook=notebook,
            weights=self._directory / _FINAL_WEIGHTS,
            on_final=lambda f: self._progress.advance(f"{f.arm}, {f.protocol}, seed {f.seed}: {f.score:.2f}"),
        )

    def _conclude(
        self,
        bench: Workbench,
        trials: tuple[Trial, ...],
        posterior: Posterior,
        compared: tuple[Arm, ...],
        finals: list[FinalTraining],
    ) -> RunRecord:
        """Judge, then write export, result and report; result.json last of the data, it marks a run as ended."""
        options = self._job.verdict
        network = bench.candidate(compared[0].widths)
        if finals:
            load_weights(network, self._directory / _FINAL_WEIGHTS)
        else:
            inputs = self._task.calibration_inputs(10, seed=0)
            recalibrate_batch_norm(network, inputs, device=self._task.device)
        limits = self._domain.budget.limits
        self._directory.update_run(finished=_now())
        record = RunRecord(
            directory=self._directory.path,
            job=self._job.model_dump(mode="json"),
            provenance=read_json(self._directory / "run.json"),
            space=self._space,
            budget=tuple({**asdict(limit), "percent": limit.percent} for limit in limits),
            full_costs=self._domain.budget.costs_of(self._space.full),
            base=read_json(self._directory / "base.json"),
            unit=self._task.unit,
            test_split=self._task.has_test,
            trials=trials,
            posterior={trial.number: posterior[trial.widths] for trial in trials if trial.widths in posterior},
            arms=compared,
            finals=tuple(finals),
            verdict=judge(finals, protocols=options.protocols, budget_text=self._budget_text(), unit=self._task.unit)
            if finals
            else None,
        )
        write_architecture(record, network, self._directory / "export")
        self._directory.write_json("result.json", write_record(record))
        write_reports(record)
        return record

    def _budget_text(self) -> str:
        names = {"flops": "of the FLOPs", "params": "of the parameters"}
        return " and ".join(
            f"{limit.percent:.3g} % {names.get(limit.metric, f'of {limit.metric}')}" for limit in self._domain.budget.limits
        )

    def _timed(self, phase: str, work: Callable[[], T]) -> T:
        """Run a phase and add its seconds to run.json, over all resumptions."""
        started = time.perf_counter()
        try:
            return work()
        finally:
            seconds: Mapping[str, float] = read_json(self._directory / "run.json")["seconds"]
            spent = seconds.get(phase, 0.0) + time.perf_counter() - started
            self._directory.update_run(seconds={**seconds, phase: round(spent, 3)})


def write_reports(record: RunRecord) -> None:
    """Write report.html and report.md beside the run's data."""
    write_html(record, record.directory / "report.html")
    write_markdown(record, record.directory / "report.md")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
