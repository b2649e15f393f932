"""The ledger: an Optuna study in which every trial is on disk the moment it starts and the moment it ends.

Any Optuna storage URL works; the default is a journal file in the run directory. `optuna-dashboard` opens both.

Longer than others, as how trials are written and how they are read back must fit each other.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from autoprune.controllers.base import Trial, TrialState
from autoprune.errors import RunError
from autoprune.files import patiently
from autoprune.redaction import masked, secrets_in
from autoprune.space.groups import SearchSpace, WidthGroup
from autoprune.tasks.score import Examples, unpacked
from autoprune.trials.assignment import Assignment, Outcome, finished_trial
from autoprune.trials.database import open_database
from autoprune.trials.journal import Journal
from autoprune.trials.mending import mend

_STATES = {
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.PRUNED: TrialState.PRUNED,
    OptunaState.FAIL: TrialState.FAILED,
}


_SELDOM: dict[str, Any] = {
    "fidelity": 1.0,
    "standard_error": None,
    "paired": False,
    "examples": None,
    "partial": (),
    "rungs": False,
}
"""What an end holds only where it is not this, so that entries are short and those of older runs are read."""

_WITHDRAWN = "withdrawn"
"""Of an entry: there is no proposal of this number any more, whatever older entries of it say."""

_NAME = "the ledger"
_PASSING = (OSError, StorageInternalError)
"""What a storage raises that is full, away or locked."""


Storage: TypeAlias = BaseStorage
"""Where trials and scores lie."""


def open_storage(url: str | None, journal: Path, *, note: Callable[[str], None] = lambda line: None) -> BaseStorage:
    """Open the storage of a run.

    Args:
        url: any Optuna storage URL; None: the journal file.
        journal: path of the journal file; a line cut short by a kill is dropped, a lock left behind is removed
            (the caller holds the run's own lock), and a damaged one is mended.
        note: told what was damaged, when writing waits, and when it goes on.

    Raises:
        RunError: the storage cannot be opened.
    """
    try:
        if url is not None:
            return open_database(url)
        told, opened = patiently(partial(_open_journal, journal.resolve()), _NAME, (OSError,), note=note)
        if told is not None:
            note(told)
        return opened
    except RunError:
        raise
    except Exception as error:  # noqa: BLE001 - each database driver raises its own kind
        known = secrets_in({"storage": url})
        reason = masked(f"{type(error).__name__}: {_reason(error)}", known=known)
        hidden = known and masked(str(error), known=known) != str(error)
        raise RunError(f"ledger {masked(url or str(journal))} cannot be opened: {reason}. {_advice(url)}") from (
            None if hidden else error
        )


def _advice(url: str | None) -> str:
    of_server = url is not None and url.startswith(("postgres", "mysql", "mariadb"))
    first = "Check that the server runs, and its host, port, user, password and database. " if of_server else ""
    return (
        f"{first}Set search.storage to an Optuna storage URL such as sqlite:///trials.db in a folder that can be "
        f"written, or leave it out for a journal in the run directory"
    )


def _open_journal(journal: Path) -> tuple[str | None, BaseStorage]:
    return mend(journal), JournalStorage(Journal(str(journal)))


def _reason(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).strip().splitlines() or [""])[0]


@final
class Ledger:
    """Trials over a space, in one study; storage that refuses writes for a while is waited for.

    Args:
        storage: of the run.
        name: of the study, unique in the storage.
        space: gives the names and choices of the parameters that a dashboard shows.
        note: told when writing waits, and when it goes on.

    Raises:
        RunError: a write has failed for several minutes.
    """

    def __init__(
        self, storage: BaseStorage, name: str, space: SearchSpace, *, note: Callable[[str], None] = lambda line: None
    ) -> None:
        self._space, self._at, self._study = space, storage, _study(storage, name, note)
        entries = self._entries()
        self._finished = sum(entry.state.is_finished() for entry in entries.values())
        self._ids: dict[int, int] = {}  # number of a proposal -> its place in the storage
        self._numbers = {number: entry.number for number, entry in entries.items()}  # -> Optuna's own number
        self._note = note

    def start(self, assignment: Assignment) -> None:
        """Write down a proposal before it is evaluated."""
        groups = self._space.groups
        template = optuna.trial.create_trial(
            state=OptunaState.RUNNING,
            params=self._space.by_name(assignment.widths),
            distributions={group.name: _distribution(group) for group in groups},
            user_attrs={
                "number": assignment.number,
                "widths": list(assignment.widths),
                "origin": assignment.origin,
                "seed": assignment.seed,
                "told": assignment.told,
                "costs": dict(assignment.costs),
            },
        )

        self._patiently(
            self._once(partial(self._create, assignment.number, template), partial(self._holds, assignment))
        )

    def finish(self, assignment: Assignment, outcome: Outcome) -> Trial:
        """Write down how the evaluation ended."""
        number = assignment.number
        end = {"order": self._finished, "seconds": outcome.seconds, "error": outcome.error}
        end |= {key: getattr(outcome, key) for key, usual in _SELDOM.items() if getattr(outcome, key) != usual}
        self._patiently(partial(self._set_end, number, end))  # one entry: each waits for the disk
        self._patiently(self._once(partial(self._tell, number, outcome), partial(self._has_ended, number)))
        self._finished += 1
        return finished_trial(assignment, outcome)

    def _create(self, number: int, template: FrozenTrial) -> None:
        self._ids[number] = self._at.create_new_trial(self._study, template)

    def _set_end(self, number: int, end: Mapping[str, Any]) -> None:
        self._at.set_trial_user_attr(self._place(number), "end", end)

    def _tell(self, number: int, outcome: Outcome) -> None:
        place = self._place(number)
        if outcome.score is None:
            self._at.set_trial_state_values(place, OptunaState.FAIL)
            return
        if outcome.pruned:  # dashboards show what such a trial reported last
            self._at.set_trial_intermediate_value(place, 0, outcome.score)
        state = OptunaState.PRUNED if outcome.pruned else OptunaState.COMPLETE
        self._at.set_trial_state_values(place, state, [outcome.score])

    def _holds(self, assignment: Assignment) -> bool:
        """Whether the newest entry is that of a proposal; then its place in the storage is noted."""
        newest = self._at.get_all_trials(self._study, deepcopy=False)[-1:]
        if not newest or newest[0].user_attrs["number"] != assignment.number:
            return False
        self._numbers[assignment.number] = newest[0].number
        return True

    def _has_ended(self, number: int) -> bool:
        return self._at.get_trial(self._place(number)).state.is_finished()

    def _place(self, number: int) -> int:
        """Where the storage keeps a proposal."""
        if number not in self._ids:
            own = self._numbers[number]
            self._ids[number] = self._at.get_trial_id_from_study_id_trial_number(self._study, own)
        return self._ids[number]

    @staticmethod
    def _once(write: Callable[[], None], written: Callable[[], bool]) -> Callable[[], None]:
        """A write that may be repeated: an attempt may have failed after it was written."""
        attempts = itertools.count()

        def attempt() -> None:
            if next(attempts) == 0 or not written():
                write()

        return attempt

    def _patiently(self, write: Callable[[], None]) -> None:
        _written(write, self._note)

    def withdraw(self, proposals: Iterable[Assignment], *, told: int) -> None:
        """Overwrite proposals one by one: those made when so many trials were told are as if not evaluated yet.

        Those made later are as if they had not been made.

        Args:
            proposals: of this ledger.
            told: how many trials are left.
        """
        for proposal in proposals:
            if proposal.told <= told:
                self.start(proposal)
                continue
            about = {"number": proposal.number, _WITHDRAWN: True}
            mark = optuna.trial.create_trial(state=OptunaState.FAIL, params={}, distributions={}, user_attrs=about)
            self._patiently(partial(self._create, proposal.number, mark))
        self._finished = told

    def proposals(self) -> list[tuple[Assignment, bool]]:
        """All proposals in order, and whether each one's evaluation has ended."""
        entries = self._entries()
        return [(_assignment(entries[number]), entries[number].state.is_finished()) for number in sorted(entries)]

    def trials(self) -> list[Trial]:
        """Ended trials in the order in which they ended."""
        ended = [entry for entry in self._entries().values() if entry.state.is_finished()]
        return [_trial(entry) for entry in sorted(ended, key=lambda entry: int(entry.user_attrs["end"]["order"]))]

    def examples(self) -> dict[int, Examples]:
        """Number of a proposal -> the values of single examples behind its score, where they were kept."""
        kept = {number: entry.user_attrs.get("end", {}).get("examples") for number, entry in self._entries().items()}
        return {number: unpacked(text) for number, text in kept.items() if text is not None}

    def _entries(self) -> dict[int, FrozenTrial]:
        with _readable():
            found = self._at.get_all_trials(self._study, deepcopy=False)
        newest = {int(entry.user_attrs["number"]): entry for entry in found}
        return {number: entry for number, entry in newest.items() if not entry.user_attrs.get(_WITHDRAWN)}


@final
class Notebook:
    """Small JSON records under string keys, in a study of their own; each is on disk the moment it is written.

    Args:
        storage: of the run.
        name: of the study.
        about: what every record that is written from now on holds beside its own.
        note: told when writing waits, and when it goes on.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        about: Mapping[str, Any] | None = None,
        *,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._at, self._study, self._note = storage, _study(storage, name, note), note
        self._about = dict(about or {})

    def write(self, key: str, score: float, record: Mapping[str, Any]) -> None:
        """Add a record with a score; a second one of the same key replaces the first.

        Raises:
            RunError: the write has failed for several minutes.
        """
        attributes = {"key": key, **self._about, **record}
        trial = optuna.trial.create_trial(value=score, user_attrs=attributes, params={}, distributions={})
        _written(lambda: self._at.create_new_trial(self._study, trial), self._note)

    def read(self) -> dict[str, dict[str, Any]]:
        """Key -> record, with its score under "score"."""
        with _readable():
            trials = self._at.get_all_trials(self._study, deepcopy=False)
        return {str(t.user_attrs["key"]): {**t.user_attrs, "score": t.value} for t in trials}


def _written(write: Callable[[], None] | Callable[[], int], note: Callable[[str], None] = lambda line: None) -> None:
    """Write as `patiently` does; a run directory that is gone does not come again.

    Raises:
        RunError: the write has failed, at once or for several minutes.
    """
    try:
        patiently(write, _NAME, _PASSING, note=note)
    except OSError as error:
        raise RunError(
            f"{_NAME} cannot be written any more: {error}. If its directory was moved, give `autoprune resume` the new "
            f"place; what was written before is kept there"
        ) from error


def _study(storage: BaseStorage, name: str, note: Callable[[str], None]) -> int:
    """Where the storage keeps the study of this name, a new one where there is none; one that is there is only read."""

    def made() -> int:
        with suppress(KeyError):
            return storage.get_study_id_from_name(name)
        try:
            make = partial(storage.create_new_study, [StudyDirection.MAXIMIZE], name)
            return patiently(make, _NAME, _PASSING, note=note)
        except DuplicatedStudyError:  # another process was faster
            return storage.get_study_id_from_name(name)

    with _quiet():
        return patiently(made, _NAME, (StorageInternalError,))  # a database that several jobs share may be locked


def has_study(storage: BaseStorage, name: str) -> bool:
    """Whether the storage keeps a study of this name; nothing is written."""
    with _quiet():
        return any(study.study_name == name for study in storage.get_all_studies())


def _assignment(entry: FrozenTrial) -> Assignment:
    note = entry.user_attrs
    widths = tuple(int(w) for w in note["widths"])
    return Assignment(note["number"], widths, note["origin"], note["seed"], note["told"], note["costs"])


def _trial(entry: FrozenTrial) -> Trial:
    assignment = _assignment(entry)
    end, state = entry.user_attrs["end"], _STATES[entry.state]
    score = None if state is TrialState.FAILED else entry.value
    seldom = {key: end.get(key, usual) for key, usual in _SELDOM.items()}
    seldom["partial"] = tuple((float(share), float(then)) for share, then in seldom["partial"])
    pruned = state is TrialState.PRUNED
    return finished_trial(assignment, Outcome(score, end["error"], end["seconds"], pruned, **seldom))


def _distribution(group: WidthGroup) -> BaseDistribution:
    steps = {b - a for a, b in zip(group.choices, group.choices[1:], strict=False)}
    if len(steps) == 1:
        return IntDistribution(group.choices[0], group.choices[-1], step=steps.pop())
    return CategoricalDistribution(group.choices)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except _PASSING as error:
        raise RunError(
            f"{_NAME} cannot be read: {masked(_reason(error.__cause__ or error))}; repair its storage or restore the "  # type: ignore[arg-type]
            f"connection, then resume the run"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's chatter out of our output without changing its settings for others."""
    logger = logging.getLogger("optuna")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
