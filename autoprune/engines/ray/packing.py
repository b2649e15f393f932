"""How networks, data and the user's own code travel to workers: as bytes that any process with autoprune can read.

Three things that pickle alone cannot do. Traced graphs hold operators of torch, and nodes that refer to each other:
they travel as flat lists. Code outside installed packages travels by value, as workers may not find its files. And a
workbench is built anew where it arrives, as it looks its tensors up by their addresses.
"""

from __future__ import annotations

import copy
import io
import pickle
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, cast, final

import numpy as np
import torch
from ray import cloudpickle
from threadpoolctl import threadpool_limits
from torch import fx

from autoprune.engines.base import WorkerSetup
from autoprune.errors import ConfigError
from autoprune.evaluators.artefact import files_of, write_files
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.space.copying import copy_network
from autoprune.space.tracing.program import Program

Buffer: TypeAlias = "bytes | np.ndarray[Any, np.dtype[np.uint8]]"

_COPIES: list[tempfile.TemporaryDirectory[str]] = []
"""Folders of this worker, gone when it ends."""

_PACKAGES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_OURS = str(Path(__file__).parents[2])


def pack(thing: object, what: str) -> bytes:
    """Bytes of anything that can travel.

    Args:
        thing: to be sent.
        what: names it in messages.

    Raises:
        ConfigError: it holds something that cannot travel (an open file, a lock, a generator).
    """
    try:
        with _by_value(_own_modules()):
            return _dumps(thing)
    except Exception:  # noqa: BLE001 - whatever a module holds; by name its code may still be found where it arrives
        try:
            return _dumps(thing)
        except Exception as error:
            raise ConfigError(
                f"{what} cannot be sent to workers: {type(error).__name__}: {error}. Leave open files, locks and "
                f"generators out of it, or use engine: local"
            ) from error


def unpack(packed: Buffer) -> Any:
    """What `pack` was given, made anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about how its pytrees are pickled
        return pickle.loads(cast("bytes", packed))  # or any other buffer


def pack_setup(setup: WorkerSetup) -> bytes:
    """Bytes of a setup, on the CPU: a worker's device may be another one; raises what `pack` raises."""
    factory = setup.factory
    if factory.task.device.type != "cpu":
        factory = _on(torch.device("cpu"), factory)
    files = None if setup.artefact is None else files_of(setup.artefact)
    return pack((replace(setup, factory=factory), files), "the model, the task or the evaluator")


def unpack_setup(packed: Buffer, device: str) -> WorkerSetup:
    """A setup on a worker's device, with as many threads as the driver uses from now on."""
    setup: WorkerSetup
    setup, files = unpack(packed)
    use_threads(setup.threads)
    if files is not None:
        setup = replace(setup, artefact=_folder_of(files, setup.artefact))
    factory = setup.factory
    return setup if device == "cpu" else replace(setup, factory=_on(torch.device(device), factory))


def _folder_of(files: dict[str, bytes], made: Path | None) -> Path:
    """Where a worker finds what the evaluator has prepared: the run's own folder if it sees it, or else a copy."""
    with suppress(OSError):
        if made is not None and files_of(made) == files:
            return made
    copied = tempfile.TemporaryDirectory(prefix="autoprune-", ignore_cleanup_errors=True)
    _COPIES.append(copied)
    write_files(files, Path(copied.name))
    return Path(copied.name)


def use_threads(n: int) -> None:
    """Let torch and BLAS use `n` threads for what this thread of the worker computes: torch counts them for each."""
    torch.set_num_threads(n)
    threadpool_limits(n, user_api="blas")


def _on(device: torch.device, factory: CandidateFactory) -> CandidateFactory:
    """A copy of a factory whose networks and task are on another device."""
    task = copy.copy(factory.task)
    task.device = device
    model = copy_network(factory.model).to(device)
    starts = {n: replace(start, model=copy_network(start.model).to(device)) for n, start in factory.starts.items()}
    return replace(factory, model=model, task=task, starts=starts)


def _dumps(thing: object) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(thing)
    return buffer.getvalue()


@final
class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # ray has no types
    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, torch._ops.OpOverload):
            namespace, _, name = thing._schema.name.partition("::")
            return _operator, (namespace, name, thing._overloadname)
        if isinstance(thing, Program):
            return _program, (_flat(thing.graph), {f.name: getattr(thing, f.name) for f in fields(thing)[1:]})
        if isinstance(thing, CandidateFactory):
            return CandidateFactory, tuple(getattr(thing, field.name) for field in fields(thing) if field.init)
        return super().reducer_override(thing)


@final
class _Place:
    """A node of a graph, by its position."""

    def __init__(self, position: int) -> None:
        self.position = position


def _flat(graph: fx.Graph) -> list[tuple[Any, ...]]:
    """(operation, target, name, arguments, keyword arguments, what the graph form reads of its notes) of each node."""
    position = {node: _Place(i) for i, node in enumerate(graph.nodes)}
    rows = []
    for node in graph.nodes:
        args, kwargs = cast("Any", fx.node.map_arg)((node.args, node.kwargs), position.__getitem__)
        stack = {key: (path, str(kind)) for key, (path, kind) in (node.meta.get("nn_module_stack") or {}).items()}
        notes = {"shapes": node.meta.get("shapes"), "nn_module_stack": stack}
        notes |= {key: node.meta[key] for key in ("function", "grad") if key in node.meta}
        rows.append((node.op, node.target, node.name, _plain(args), _plain(kwargs), notes))
    return rows


def _plain(value: Any) -> Any:
    """The same without torch.fx's own collections, which know only nodes."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else [_plain(inner) for inner in value]
    return value


def _program(rows: Sequence[tuple[Any, ...]], others: dict[str, Any]) -> Program:
    graph = fx.Graph()
    made: list[fx.Node] = []

    def at(value: Any) -> Any:
        if isinstance(value, _Place):
            return made[value.position]
        if isinstance(value, dict):
            return {key: at(inner) for key, inner in value.items()}
        return type(value)(map(at, value)) if isinstance(value, list | tuple) else value

    for op, target, name, args, kwargs, notes in rows:
        node = graph.create_node(op, target, at(args), at(kwargs), name)
        node.meta.update(notes)
        made.append(node)
    return Program(graph, **others)


def _operator(namespace: str, name: str, overload: str) -> Any:
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def _own_modules() -> list[ModuleType]:
    """Modules of the user's own: neither ours, nor of an installed package or the standard library."""
    loaded = [(name, module, getattr(module, "__file__", None)) for name, module in list(sys.modules.items())]
    return [
        module
        for name, module, file in loaded
        if isinstance(module, ModuleType) and name != "__main__" and isinstance(file, str) and module.__name__ == name
        if not file.startswith((*_PACKAGES, _OURS, "<"))
    ]


@contextmanager
def _by_value(modules: Sequence[ModuleType]) -> Iterator[None]:
    already = set(cloudpickle.list_registry_pickle_by_value())
    fresh = [module for module in modules if module.__name__ not in already]
    try:
        for module in fresh:
            cloudpickle.register_pickle_by_value(module)
        yield
    finally:
        for module in fresh:
            with suppress(ValueError):
                cloudpickle.unregister_pickle_by_value(module)
