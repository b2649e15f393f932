"""The callbacks of a run: made from what a job or Python code names, and told so that none can harm the run."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias, final

from autoprune.config.parts import PartOptions
from autoprune.config.settings import bind, check_settings
from autoprune.errors import ConfigError, blame
from autoprune.progress import CALLBACKS
from autoprune.progress.callbacks import Callback, PhaseEnded, RunEnded, RunStarted, TrialEnded
from autoprune.randomness import untouched
from autoprune.redaction import masked
from autoprune.registry import load_object
from autoprune.texts import first_line

GivenCallback: TypeAlias = str | Mapping[str, Any] | PartOptions | Callback
"""How Python code gives a callback: by its name, as `{"name": …, "settings": {…}}`, or itself."""


def by_name_and_ready(given: Sequence[GivenCallback]) -> tuple[list[Any], tuple[Callback, ...]]:
    """Callbacks as Python code gives them: those that a job can name, and those that are objects.

    Raises:
        ConfigError: not a list, or an entry that is neither.
    """
    how = (
        'give a list of names, {"name": …, "settings": {…}}, or objects of a subclass of autoprune.progress.callbacks.'
        "Callback"
    )
    if isinstance(given, str | Mapping | Callback) or not isinstance(given, Iterable):
        raise ConfigError(f"callbacks is {given!r}; {how}")
    named: list[Any] = []
    ready: list[Callback] = []
    for place, one in enumerate(given):
        if isinstance(one, Callback):
            ready.append(one)
        elif isinstance(one, PartOptions):
            named.append(one.model_dump())
        elif isinstance(one, str | Mapping):
            named.append(one)
        else:
            told = f"the class {one.__name__}, not an object of it" if isinstance(one, type) else repr(one)
            raise ConfigError(f"callbacks[{place}] is {told}; {how}")
    return named, tuple(ready)


def make_callback(chosen: PartOptions) -> Callback:
    """A new callback of a job, by its name or as `module:attribute`.

    Raises:
        RegistryError: no callback has this name, or the path leads nowhere.
        ConfigError: a setting that it does not have, or cannot use; or what is made is no callback.
    """
    if ":" in chosen.name:
        part = load_object(chosen.name)
        check_settings(part, chosen.settings, what=f"callback {chosen.name!r}", place="the callback's settings")
        part = functools.partial(part, **chosen.settings) if callable(part) else part
    else:
        part = bind(CALLBACKS, chosen.name, chosen.settings)
    with blame(ConfigError, f"callback {chosen.label!r} cannot be made", then="Correct its settings or its code."):
        made = part() if callable(part) else part
    if not isinstance(made, Callback):
        raise ConfigError(
            f"callback {chosen.label!r} is a {type(made).__name__}; name a subclass of "
            f"autoprune.progress.callbacks.Callback, or a function that returns an object of one"
        )
    return made


@final
class CallbackList:
    """Tells each callback of a run, in order; one that fails is reported once and left out. Closes them all at its end.

    Callbacks get copies of what they are told, and the global generators are as before after each call: same seed, same
    trials, whoever listens.

    Args:
        named: callbacks of the job, made here.
        ready: objects.
        note: shows a line.
    """

    def __init__(
        self, named: Iterable[PartOptions], ready: Iterable[Callback] = (), *, note: Callable[[str], None]
    ) -> None:
        self._note = note
        self._told: list[tuple[str, Callback]] = []
        for chosen in named:
            self._guarded(chosen.name, "made", functools.partial(self._make, chosen))
        for one in ready:
            self._told.append((type(one).__name__, one))

    def run_started(self, event: RunStarted) -> None:
        """Tell it."""
        self._tell("the run started", lambda callback: callback.run_started(copy.deepcopy(event)))

    def trial_ended(self, event: TrialEnded) -> None:
        """Tell it."""
        self._tell(f"trial {event.number} ended", lambda callback: callback.trial_ended(copy.deepcopy(event)))

    def phase_ended(self, event: PhaseEnded) -> None:
        """Tell it."""
        self._tell(f"the phase {event.name!r} ended", lambda callback: callback.phase_ended(event))

    def run_ended(self, event: RunEnded) -> None:
        """Tell it."""
        self._tell("the run ended", lambda callback: callback.run_ended(copy.deepcopy(event)))

    def close(self) -> None:
        """Close each that is left."""
        while self._told:
            name, callback = self._told.pop(0)
            self._guarded(name, "closed", callback.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _make(self, chosen: PartOptions) -> None:
        self._told.append((chosen.name, make_callback(chosen)))

    def _tell(self, what: str, how: Callable[[Callback], None]) -> None:
        for entry in tuple(self._told):
            name, callback = entry
            if not self._guarded(name, f"told that {what}", functools.partial(how, callback)):
                self._told = [other for other in self._told if other is not entry]
                self._guarded(name, "closed", callback.close, report=False)

    def _guarded(self, name: str, when: str, work: Callable[[], None], *, report: bool = True) -> bool:
        """Do it and say whether it went well; what goes wrong is shown. An interrupt of the user passes."""
        try:
            with untouched():
                work()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a callback does, the run goes on
            if report:
                reason = ": ".join(filter(None, (type(error).__name__, first_line(error))))
                told = f"callback {name!r} failed when it was {when} and is left out from now on ({reason})"
                self._note(masked(told))
            return False
        return True
