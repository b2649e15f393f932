"""What a training of the user's own may tell on the way, and how it goes on where it was interrupted."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, final

from autoprune.training.watch import State, Stopped, Watch


@final
class TrainingCallbacks:
    """Given to a `train_func` that has the keyword `callbacks`; it need not call anything of it.

    Args:
        epochs: of the training.
        seed: of it.
        progress: (epochs done, epochs in all, loss), see `train`.
        watch: see `Watch`.
        score: of the network as it is.
    """

    def __init__(
        self,
        epochs: int,
        seed: int,
        *,
        progress: Callable[[int, int, float], None] | None = None,
        watch: Watch | None = None,
        score: Callable[[], float] | None = None,
    ) -> None:
        self._epochs, self._progress, self._watch, self._score = epochs, progress, watch, score
        self._identity = f"train_func for {epochs} epochs from seed {seed}"
        self.stopped: Stopped | None = None

    def restore(self) -> Any:
        """The state that an earlier attempt of this training gave to `epoch` last; None to begin anew."""
        kept = None if self._watch is None else self._watch.restore()
        return kept["state"] if kept is not None and kept.get("training") == self._identity else None

    def epoch(self, done: int, *, loss: float = math.nan, state: Callable[[], Any] | None = None) -> None:
        """Tell that an epoch is over: progress is shown, and a training that lags behind may be stopped.

        Args:
            done: epochs done.
            loss: its mean.
            state: gives all that the training needs to go on from here, as `State` allows.

        Raises:
            Stopped: the training is to end; let it pass.
        """
        if self._progress is not None:
            self._progress(done, self._epochs, loss)
        if self._watch is None:
            return

        def kept() -> State:
            return {"training": self._identity, "state": state()} if state is not None else {"training": ""}

        try:
            self._watch.epoch(done, self._epochs, self._score, kept)
        except Stopped as stopped:
            self.stopped = stopped
            raise


def keywords_of(function: object) -> frozenset[str]:
    """Names of the arguments of a function beyond those that it is given by position."""
    try:
        parameters = list(inspect.signature(function).parameters.values())  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return frozenset()
    named = (p for p in parameters[3:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    own = (p for p in parameters[:3] if p.kind is p.KEYWORD_ONLY)
    return frozenset(p.name for p in (*named, *own))
