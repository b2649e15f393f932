"""Whether the entries of a journal can be the work of one writer, for lines that have no sum: those of older runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

_ENDED = (1, 2, 3)
"""Optuna's states of a trial that is complete, pruned or failed."""

_PROPOSAL = {"widths": list, "origin": str, "seed": int, "told": int, "costs": dict}
_OF_TRIAL = ("state", "value", "values", "distributions", "params", "datetime_start", "system_attrs")


@final
@dataclass
class _Entry:
    study: int
    number: int | None  # of a proposal; None for a note
    order: int | None = None  # in which it ended, as announced
    ended: bool = False


@final
@dataclass
class Entries:
    """What the entries so far have made: studies by name, trials in their order."""

    _studies: list[str] = field(default_factory=list)
    _trials: list[_Entry] = field(default_factory=list)
    _proposed: dict[int, int] = field(default_factory=dict)
    _finished: dict[int, int] = field(default_factory=dict)

    def accept(self, line: bytes) -> bool:
        """Take a line in, or say that it cannot follow on those before; then nothing has changed."""
        try:
            log = json.loads(line)
            return self._actions()[log["op_code"]](log)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return False

    def _actions(self) -> dict[int, Callable[[dict[str, Any]], bool]]:
        about_study, about_trial = self._of_study, self._of_trial
        return {0: self._study, 2: about_study, 3: about_study, 4: self._create, 5: about_trial, 6: self._end} | {
            7: about_trial,
            8: self._attribute,
            9: about_trial,
        }

    def _study(self, log: dict[str, Any]) -> bool:
        name = log["study_name"]
        if not isinstance(name, str) or log["directions"] != [2]:
            return False
        if name not in self._studies:  # each resumption asks for it again
            self._studies.append(name)
        return True

    def _of_study(self, log: dict[str, Any]) -> bool:
        return int(log["study_id"]) in range(len(self._studies))

    def _create(self, log: dict[str, Any]) -> bool:
        study, about = log["study_id"], log["user_attrs"]
        if not self._of_study(log) or any(key not in log for key in _OF_TRIAL):
            return False
        if "key" in about:
            self._trials.append(_Entry(study, None, ended=True))
            return _is_number(log["value"])
        expected = self._proposed.get(study, 0)
        whole = all(isinstance(about[key], kind) for key, kind in _PROPOSAL.items())
        if not whole or about["number"] != expected or about["told"] > self._finished.get(study, 0):
            return False
        self._proposed[study] = expected + 1
        self._trials.append(_Entry(study, expected))
        return True

    def _of_trial(self, log: dict[str, Any]) -> bool:
        place = int(log["trial_id"])
        return place in range(len(self._trials)) and not self._trials[place].ended

    def _attribute(self, log: dict[str, Any]) -> bool:
        if not self._of_trial(log):
            return False
        trial, end = self._trials[log["trial_id"]], log["user_attr"].get("end")
        if end is not None:
            if end["order"] != self._finished.get(trial.study, 0) or not _is_number(end["seconds"]):
                return False
            trial.order = end["order"]
        return True

    def _end(self, log: dict[str, Any]) -> bool:
        if not self._of_trial(log) or log["state"] not in _ENDED:
            return False
        trial, values = self._trials[log["trial_id"]], log["values"]
        finished = self._finished.get(trial.study, 0)
        scored = log["state"] == 3 or (len(values) == 1 and _is_number(values[0]))
        if trial.order != finished or not scored:
            return False
        trial.ended, self._finished[trial.study] = True, finished + 1
        return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
