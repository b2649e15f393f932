"""Allocation x criterion x inheritance under several budgets, on the user's model and data: no search, no training.

Each combination of a criterion and an inheritance list is one setup of the engine; what the list gathers on data is
gathered once for all widths. Every score is on disk the moment it is known, so a comparison that was stopped goes on.

Longer than others, as it is the study from its door to its last row, on one page.
"""

from __future__ import annotations

import functools
import inspect
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import nn

from autoprune.config.job import Job
from autoprune.config.parts import NamedPart
from autoprune.engines.base import Scoring, WorkerSetup
from autoprune.errors import AutopruneError, BudgetError, ConfigError, RunError
from autoprune.evaluators import EVALUATORS
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import kind_of, make_evaluator, prepares_something, scale_of
from autoprune.files import read_json
from autoprune.importance.members import ranking_of, unit_scores
from autoprune.pipeline.checks import check_scoring
from autoprune.pipeline.driver import ready
from autoprune.pipeline.phases.base_network import base_network
from autoprune.pipeline.phases.context import RunContext
from autoprune.pipeline.prepare import prepare
from autoprune.pipeline.prepared import Prepared, RunInputs
from autoprune.pipeline.provenance import provenance
from autoprune.pipeline.restoring import made_whole, restored
from autoprune.pipeline.rules import rule_inputs
from autoprune.pipeline.run_engine import RunEngine
from autoprune.progress import make_progress
from autoprune.progress.callback_list import CallbackList
from autoprune.space.groups import FloatArray, Widths
from autoprune.space.serial import to_json
from autoprune.studies.compared_parts import ComparedParts, own_chain, usable
from autoprune.studies.comparison import CompareResult, Row
from autoprune.studies.comparison_pages import write_pages
from autoprune.studies.options import CompareOptions, chain_label
from autoprune.texts import first_line, last_line, score_text
from autoprune.trials.ledger import open_storage
from autoprune.trials.run_directory import COMPARISON, RunDirectory
from autoprune.trials.run_files import has_begun, read_run
from autoprune.verdict.rules import called


def compare(run_inputs: RunInputs, options: CompareOptions, path: Path, *, progress: str = "auto") -> CompareResult:
    """Score every combination, write the pages, and return what was found.

    Args:
        run_inputs: model, data and job; the job's own budget is replaced by those of the options.
        options: what is compared.
        path: a new directory, or that of the same comparison, which then goes on.
        progress: how it is shown.

    Raises:
        AutopruneError: something cannot be used; then nothing has been written. Or `path` holds something else.
    """
    path = path.absolute()  # what is called may change the current folder
    begun = has_begun(path)
    if not begun:
        RunDirectory.check_free(path)
    run_inputs = replace(run_inputs, job=options.family(run_inputs.job))
    _check_evaluator(run_inputs.job)
    parts = ComparedParts.of(options, run_inputs.job.search, run_inputs.task)
    with ready(run_inputs, run_inputs.job.threads, progress) as engine, ExitStack() as stack:
        runs = prepare(run_inputs)
        check_scoring(runs[0])
        parts, notes = usable(parts, runs)
        directory = stack.enter_context(RunDirectory.reopen(path) if begun else RunDirectory.create(path))
        shown = stack.enter_context(make_progress(progress))
        directory.note = shown.note
        if begun:
            restored(directory, shown.note)
        _begin(directory, runs, parts, begun=begun)
        if begun:
            made_whole(runs[0], directory)
        if not begun:
            shown.note(
                f"comparison in {path}; if it is stopped, the same command with --to {shlex.quote(str(path))} goes on"
            )
        told = stack.enter_context(CallbackList((), (), note=shown.note))
        storage = open_storage(None, directory / "journal.log", note=shown.note)
        context = RunContext(
            runs[0], directory, shown, RunEngine(engine, runs[0], directory, shown), storage, None, told
        )
        found = _Study(context, runs, options, parts, notes).carry_out()
        directory.list_files(write_pages(found))
    return found


@final
class _Study:
    """The work of one comparison.

    Args:
        run: the first budget's run; the engine is open.
        runs: one for each budget.
        options: what is compared.
        parts: the parts of it.
        notes: what was left out, and why.
    """

    def __init__(
        self,
        run: RunContext,
        runs: Sequence[Prepared],
        options: CompareOptions,
        parts: ComparedParts,
        notes: Sequence[str],
    ) -> None:
        self._run, self._runs, self._options, self._parts = run, runs, options, parts
        self._book = run.notebook(COMPARISON)
        self._notes = [*notes]

    def carry_out(self) -> CompareResult:
        """Everything that is not on disk yet, then all of it."""
        run, job = self._run, self._run.job
        base = base_network(run)
        combined = {part.label: self._proposed(base, part) for part in self._parts.criteria}
        widths = {label: proposed for label, proposed in combined.items() if proposed is not None}
        missing = self._missing(widths)
        run.progress.phase("comparison", sum(len(rows) for _, _, rows in missing))
        for criterion, chain, rows in missing:
            self._score(base, widths[criterion][0], criterion, chain, rows)
        return CompareResult.of(
            self._rows(widths),
            metric=self._options.metric,
            scale=run.task.scale,
            full=float(read_json(run.directory / "base.json")["validation"]),
            usual=(job.search.criterion.label, chain_label(self._own_chain())),
            notes=tuple(dict.fromkeys(self._notes)),
            directory=run.directory.path,
        )

    def _proposed(
        self, base: nn.Module, criterion: NamedPart
    ) -> tuple[list[FloatArray], dict[tuple[float, str], Widths]] | None:
        """Channel scores, and (budget, allocation) -> widths; None where it cannot be used and nobody asked for it."""
        space = self._runs[0].space
        try:
            scores = self._runs[0].scores(base, criterion=criterion)
        except AutopruneError as error:
            if "criteria" in self._parts.named:
                raise
            self._notes.append(f"{criterion.label} is left out: {first_line(error)}")
            return None
        given = unit_scores(space, scores)
        found: dict[tuple[float, str], Widths] = {}
        by = functools.partial(_scores_by, self._runs[0], base)
        inputs = rule_inputs(space, base, by, functools.partial(self._probed, base, scores, criterion))
        for budget, prepared in zip(self._options.budgets, self._runs, strict=True):
            for rule in self._parts.allocations:
                try:
                    found[budget, rule.label] = called(rule, prepared.domain, given, inputs)
                except BudgetError as error:
                    self._notes.append(f"{rule.label} at {budget:g} % is left out: {first_line(error)}")
        return scores, found

    def _probed(
        self, base: nn.Module, scores: Sequence[FloatArray], criterion: NamedPart, rows: Sequence[Widths]
    ) -> FloatArray:
        """What a rule wants to have scored, with the job's own inheritance; on disk as every score is."""
        chain = self._own_chain()
        keys, known = [_key(widths, criterion.label, chain) for widths in rows], self._book.read()
        missing = list(dict.fromkeys(w for w, key in zip(rows, keys, strict=True) if key not in known))
        if missing:
            self._run.progress.phase("allocation tables", len(missing))
            self._score(base, scores, criterion.label, chain, missing)
            known = self._book.read()
        return np.array([np.nan if known[key]["failed"] else known[key]["score"] for key in keys])

    def _own_chain(self) -> tuple[NamedPart, ...]:
        """What a search of this job does to the weights of candidates."""
        return own_chain(self._run.job.search, self._run.task)

    def _missing(
        self, widths: Mapping[str, tuple[list[FloatArray], dict[tuple[float, str], Widths]]]
    ) -> list[tuple[str, tuple[NamedPart, ...], list[Widths]]]:
        """(criterion, inheritance, widths that are not scored yet, each once)."""
        done = self._book.read()
        missing: list[tuple[str, tuple[NamedPart, ...], list[Widths]]] = []
        for (criterion, (_, proposed)), chain in product(widths.items(), self._parts.inherit):
            rows = [w for w in dict.fromkeys(proposed.values()) if _key(w, criterion, chain) not in done]
            if rows:
                missing.append((criterion, chain, rows))
        return missing

    def _score(
        self,
        base: nn.Module,
        scores: Sequence[FloatArray],
        criterion: str,
        chain: tuple[NamedPart, ...],
        rows: Sequence[Widths],
    ) -> None:
        """Score widths with one criterion and one inheritance list, on the engine."""
        run = self._run
        space, task, job = run.prepared.space, run.task, run.job
        factory = CandidateFactory(base, space, ranking_of(space, scores), task, job.training.epochs, chain)
        run.engine.engine.equip(_setup(factory, run), run.progress.note)
        for number, outcome in run.engine.engine.score([Scoring(w, seed=job.seed) for w in rows]):
            failed = outcome.score is None
            about = {
                "failed": failed,
                "error": last_line(outcome.error) or None,
                "seconds": outcome.seconds,
                "standard_error": outcome.standard_error,
                "examples": outcome.examples,
            }
            self._book.write(_key(rows[number], criterion, chain), outcome.score or 0.0, about)
            told = "failed" if outcome.score is None else score_text(outcome.score, task.scale)
            run.progress.advance(f"{criterion}, {chain_label(chain)}: {told}")

    def _rows(self, widths: Mapping[str, tuple[list[FloatArray], dict[tuple[float, str], Widths]]]) -> list[Row]:
        done, prepared = self._book.read(), self._runs[0]
        full = prepared.domain.budget.costs_of(prepared.space.full)[self._options.metric]
        rows = []
        for (criterion, (_, proposed)), chain in product(widths.items(), self._parts.inherit):
            for (budget, allocation), chosen in proposed.items():
                known = done[_key(chosen, criterion, chain)]
                cost = prepared.domain.budget.costs_of(chosen)[self._options.metric]
                rows.append(
                    Row(
                        budget,
                        allocation,
                        criterion,
                        chain_label(chain),
                        prepared.space.by_name(chosen),
                        100 * cost / full,
                        None if known["failed"] else known["score"],
                        known["standard_error"],
                        known["seconds"],
                        known["error"],
                        known["examples"],
                    )
                )
        return rows


def _check_evaluator(job: Job) -> None:
    """Check that scores can stand beside that of the unpruned network.

    Raises:
        ConfigError: the evaluator counts something else than the task, or has to prepare something.
    """
    chosen = job.search.evaluator
    plain = {key: value for key, value in chosen.settings.items() if key != "form"}
    if scale_of(chosen.name, plain) is None and not prepares_something(chosen.name, plain):
        return
    raise ConfigError(
        f"search.evaluator is {chosen.name!r}, and compare scores networks right after the cut, beside the unpruned "
        f"one and for all budgets alike: set search.evaluator to inherited for it"
    )


def _setup(factory: CandidateFactory, run: RunContext) -> WorkerSetup:
    """What workers evaluate with: the job's evaluator, told to keep the values of examples where it can."""
    chosen = run.job.search.evaluator
    settings = dict(chosen.settings)
    if "keep_examples" in inspect.signature(EVALUATORS.get(chosen.name)).parameters:
        settings.setdefault("keep_examples", True)
    make = functools.partial(make_evaluator, chosen.name, settings=settings)
    kind = kind_of(chosen.name, settings)
    return WorkerSetup(factory, make, kind, torch.get_num_threads(), run.directory.path)


def _begin(directory: RunDirectory, runs: Sequence[Prepared], parts: ComparedParts, *, begun: bool) -> None:
    """Write what a comparison is, or check that the one in the directory is the same.

    Raises:
        RunError: the directory holds a search, or a comparison of something else.
    """
    now = {"parts": parts.text, "budgets": [prepared.fingerprints["job"] for prepared in runs]}
    about = {**runs[0].fingerprints, "job": json.dumps(now)}
    if not begun:
        directory.write_text("job.yaml", runs[0].run_inputs.job.text)
        directory.write_json("space.json", to_json(runs[0].space, origin=runs[0].origin))
        directory.update_run(id=directory.path.name, kind=COMPARISON, **provenance(), fingerprints=about)
        return
    known = read_run(directory.path)
    if known.get("kind") != COMPARISON:
        raise RunError(f"{directory.path} holds a search, no comparison; give another directory with --to")
    differing = [name for name, value in about.items() if known["fingerprints"].get(name) != value]
    if differing:
        told = ", ".join("budgets, parts or job" if name == "job" else name for name in differing)
        raise RunError(
            f"{directory.path} holds another comparison: {told} differ; give the same ones, or another directory"
        )


def _scores_by(prepared: Prepared, base: nn.Module, criterion: NamedPart) -> list[FloatArray]:
    return prepared.scores(base, criterion=criterion)


def _key(widths: Widths, criterion: str, chain: tuple[NamedPart, ...]) -> str:
    return json.dumps([list(widths), criterion, chain_label(chain)])
