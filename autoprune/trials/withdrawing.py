"""A search that goes on tries again what failed last: the cause may have been the machine's, or is gone."""

from __future__ import annotations

from autoprune.controllers.base import Trial, TrialState
from autoprune.trials.ledger import Ledger

_LIMITS = ("the time_limit of ", "the memory_limit of ")
"""In what is said of an evaluation that met a limit; it would meet it again."""


def withdraw_last_failures(ledger: Ledger) -> int:
    """Take back the trials that failed last, with no evaluation that went well after them, and proposals made since.

    The search then goes on as if it had been stopped before them. Entries are overwritten from the last proposal to
    the first: a kill in between leaves a shorter search, of which the rest is taken back the next time.

    Returns:
        How many trials were taken back.
    """
    ended = ledger.trials()
    told = place = len(ended)
    while place and (_may_go_better(ended[place - 1]) or _was_known(ended[place - 1])):
        place -= 1
        told = place if _may_go_better(ended[place]) else told
    again = {trial.number for trial in ended[told:]}
    if again:
        ledger.withdraw(
            [one for one, _ in reversed(ledger.proposals()) if one.told > told or one.number in again], told=told
        )
    return sum(trial.state is TrialState.FAILED for trial in ended[told:])


def _was_known(trial: Trial) -> bool:
    """Whether it has the score of other widths alike: nothing was evaluated."""
    return trial.state is TrialState.COMPLETE and trial.seconds == 0


def _may_go_better(trial: Trial) -> bool:
    last = (trial.error or "").strip().rpartition("\n")[2]
    return trial.state is TrialState.FAILED and not any(limit in last for limit in _LIMITS)
