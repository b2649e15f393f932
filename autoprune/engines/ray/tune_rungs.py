"""Ray Tune's scheduler for evaluators with rungs: the driver decides, as on the local engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, final

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from autoprune.engines.ray.tune_feed import Dispatcher

Judge: TypeAlias = Callable[[str, float, float], bool]
"""(key of a piece, share of its steps that is done in percent, score) -> whether it goes on."""


@final
class RungScheduler(FIFOScheduler):  # type: ignore[misc]  # ray has no types
    """Hands every score that a worker reports to a judge.

    Args:
        judge: decides.
        dispatcher: is told what goes wrong in it.
    """

    def __init__(self, judge: Judge, dispatcher: Dispatcher) -> None:
        super().__init__()
        self._judge, self._dispatcher = judge, dispatcher

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its arguments down; this one is of the driver's process only

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """A worker reports; only at rungs there is a score."""
        if "score" not in result:
            return str(TrialScheduler.CONTINUE)
        try:
            goes_on = self._judge(trial.config["piece"].key, result["share"], result["score"])
        except BaseException as error:  # noqa: BLE001 - raised again by the lane, not through Tune
            self._dispatcher.failure = error
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)
