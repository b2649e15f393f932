"""Watching a training: after each epoch it reports, offers its state, and may be told to stop.

Evaluations that do not train by epochs report in steps of their own, such as blocks of examples.

A later attempt of the same training, given the state that the earlier one offered last, goes on bitwise as if it had
not been interrupted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

State: TypeAlias = Mapping[str, Any]
"""Tensors, numbers, texts, and lists, tuples and dicts of them: what `torch.load(weights_only=True)` reads."""


class Stopped(Exception):  # noqa: N818 - a signal, not an error
    """A watch raises it to end the training it watches; not an error of the training."""


class Watch(ABC):
    """Told about one training, in order."""

    @abstractmethod
    def restore(self) -> State | None:
        """Return the state that an earlier attempt of this training offered last, None to begin anew."""

    @abstractmethod
    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        """An epoch is over, or another step of an evaluation.

        Args:
            done: epochs done.
            total: epochs in all.
            score: the score so far, of the network as it is on validation data; None where that cannot be told. It is
                called only where somebody wants to know.
            state: everything the training needs to go on from here, copied to the CPU; to be called, if at all, before
                this call returns.

        Raises:
            Stopped: the training is to end here.
        """
