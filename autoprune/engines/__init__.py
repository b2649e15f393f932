"""Where evaluations run; an engine drives a session, a session knows no engine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoprune.config.engine import EngineOptions
from autoprune.config.stopping import NEVER, StoppingOptions
from autoprune.errors import ConfigError

if TYPE_CHECKING:
    from autoprune.engines.base import Engine

STOPS: Mapping[str, tuple[str, ...]] = {
    "local": ("early_stopping",),  # in this process: nothing could end an evaluation that reports nothing
    "ray": ("early_stopping", "time_limit", "memory_limit"),
}
"""What ends evaluations before their time on each engine, as keys of `StoppingOptions`."""


def beyond(engine: str, stopping: StoppingOptions) -> list[str]:
    """What is asked for that an engine cannot do."""
    return [key for key in stopping.other_than(NEVER) if key not in STOPS[engine]]


def make_engine(options: EngineOptions, *, stopping: StoppingOptions = NEVER, device: str = "cpu") -> Engine:
    """An engine that is not open yet.

    Args:
        options: its name, and where and how it works.
        stopping: what the job asks for; workers get it with their setup.
        device: of the run's task, "cpu" or "cuda…".

    Raises:
        ConfigError: what it needs is not installed, the options contradict each other, or it cannot do what the job
            asks for.
    """
    if unable := beyond(options.name, stopping):
        others = ", ".join(name for name in STOPS if not beyond(name, stopping))
        whole = " (time_limit is of one evaluation; of the whole search it is time_budget)" * ("time_limit" in unable)
        raise ConfigError(
            f"search has {stopping.told(unable)}, which the {options.name} engine cannot keep to, as it evaluates in "
            f"this process: set engine: {others} (--engine {others}), or leave {', '.join(unable)} out{whole}"
        )
    if options.name == "local":
        from autoprune.engines.local import LocalEngine

        return LocalEngine()
    try:
        importlib.import_module("ray.tune")
    except ImportError as error:
        raise ConfigError(
            f'engine: ray cannot be imported ({error}); install it with `pip install "ray[tune]"`, or use engine: local'
        ) from error
    from autoprune.engines.ray.engine import RayEngine

    return RayEngine(options, device=device)
