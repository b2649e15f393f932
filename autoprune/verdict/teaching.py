"""Whether final trainings learn from the base network: all arms of a protocol do, or none."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.config.parts import PartOptions
from autoprune.errors import ConfigError
from autoprune.tasks.base import Task
from autoprune.training.protocols import Protocol, make_protocol


def learns(protocol: Protocol, task: Task) -> bool:
    """Whether trainings by this protocol are distilled; what the job's own objective does is another matter."""
    return protocol.trains and (task.distils if protocol.distil is None else protocol.distil)


def taught_protocols(protocols: Sequence[PartOptions], task: Task) -> frozenset[str]:
    """Labels of those whose trainings learn from the base network."""
    return frozenset(chosen.label for chosen in protocols if learns(make_protocol(chosen), task))


def told_protocols(protocols: Sequence[PartOptions], task: Task) -> dict[str, str]:
    """Label of each protocol -> how a sentence says it."""
    told = {}
    for chosen in protocols:
        protocol = make_protocol(chosen)
        unsaid = learns(protocol, task) and "distil" not in chosen.settings
        joint = "and" if chosen.settings else "with"
        told[chosen.label] = f"{protocol.told} {joint} distillation" if unsaid else protocol.told
    return told


def check_teaching(protocols: Sequence[PartOptions], task: Task) -> None:
    """Check that the task can be told to learn from the base network where a protocol does.

    Raises:
        ConfigError: it cannot; names the protocol.
    """
    for chosen in protocols:
        if learns(make_protocol(chosen), task) and task.distilled() is None:
            raise ConfigError(
                f"protocol {chosen.label!r} learns from the base network, which this task cannot be told to; leave "
                f"distil out, or let your own train_func learn from its teacher"
            )
