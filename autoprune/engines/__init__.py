"""Where evaluations run; an engine drives a session, a session knows no engine."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from autoprune.config.engine import EngineOptions
from autoprune.errors import ConfigError

if TYPE_CHECKING:
    from autoprune.engines.base import Engine


def make_engine(options: EngineOptions, *, device: str = "cpu") -> Engine:
    """An engine that is not open yet.

    Args:
        options: its name, and where and how it works.
        device: of the run's task, "cpu" or "cuda…".

    Raises:
        ConfigError: what it needs is not installed, or the options contradict each other.
    """
    if options.name == "local":
        from autoprune.engines.local import LocalEngine

        return LocalEngine(options.scheduler)
    try:
        importlib.import_module("ray.tune")
    except ImportError as error:
        raise ConfigError(
            f'engine: ray cannot be imported ({error}); install it with `pip install "ray[tune]"`, or use engine: local'
        ) from error
    from autoprune.engines.ray.engine import RayEngine

    return RayEngine(options, device=device)
