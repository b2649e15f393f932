"""How the driver comes to its Ray instance: one that it starts on loopback, or one that answers at an address.

Longer than others, as each way in which Ray does not come up is told apart here.
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray

from autoprune.config.engine import EngineOptions
from autoprune.engines.ray.machine import check_machine
from autoprune.errors import ConfigError

_PATIENCE = 5.0
"""Seconds that an address has to answer; ray itself would wait for minutes."""

_PER_CORE = 16
"""Workers on one core of this machine, from which on they would only take its memory."""

_OWN_NAMES = ("CPU", "GPU", "memory", "object_store_memory")
"""Resources that Ray counts itself."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What an HTTP/2 client says first: the preface and a frame of no settings (RFC 9113, sections 3.4 and 6.5)."""

_SETTINGS = 4
"""Type of the frame that a server of HTTP/2, which gRPC is, answers with."""


_VERSIONS = re.compile(r"started with:\s+Ray: (\S+)\s+Python: (\S+)")
"""In what Ray says of an instance of another version: first the cluster's, then this process's."""


def check_resources(resources: Collection[str]) -> None:
    """Refuse custom resources that have the name of one of Ray's own.

    Raises:
        ConfigError: there is one.
    """
    taken = [name for name in resources if name in _OWN_NAMES]
    if taken:
        raise ConfigError(
            f"engine: resources are custom ones, and Ray counts {taken[0]} itself; use cpus_per_worker or "
            f"gpus_per_worker, or leave it out"
        )


def start(options: EngineOptions) -> None:
    """Start an instance that ends with this process and listens on loopback only.

    Raises:
        ConfigError: Ray does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about this machine leaves it
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else each start warns
    cores, wanted = os.cpu_count() or 1, options.workers or 1
    if wanted > (most := _PER_CORE * cores):
        raise ConfigError(
            f"engine: workers is {wanted}, each a process, and this machine has {cores} cores; at most {most} start "
            f"here. Lower workers, or give the address of a cluster"
        )
    check_machine(max(wanted, cores))
    try:
        with _loopback(), _signals_kept():
            ray.init(
                address="local",
                num_cpus=max(cores, math.ceil(wanted * options.cpus_per_worker)),
                resources={name: share * wanted for name, share in options.resources.items()} or None,
                dashboard_host=options.dashboard,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"engine: Ray does not start here ({_reason(error)}). Its logs lie in {_logs()}; correct the cause, give "
            f"the address of an instance that runs, or use engine: local"
        ) from error


def reach(address: str) -> None:
    """Connect to the instance at an address.

    Raises:
        ConfigError: it cannot be used.
    """
    check_answers(address)
    said: list[str] = []
    try:
        with _signals_kept(), _overheard(said):
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (Exception, SystemExit) as error:  # ray ends the process where the other side is no ray
        raise ConfigError(_unreached(address, error, " ".join(said))) from error


def check_answers(address: str) -> None:
    """Raise where the address is malformed, or nothing that could be Ray listens there."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address  # which Ray would take
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise ConfigError(
            f"engine: Ray Tune cannot be driven from outside a cluster, as {address!r} would; start the run on the "
            f"cluster (`ray job submit`, or on a node with --address auto)"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"engine: address {address!r} cannot be read; allowed: auto, HOST:PORT")
    try:
        speaks = _speaks_grpc(host.strip("[]"), int(port))
    except (OSError, OverflowError, ValueError) as error:  # ValueError: of names that cannot be one, of other digits
        raise ConfigError(
            f"engine: nothing answers at {address!r} ({error}). Start Ray there with `ray start --head`, correct the "
            f"address, or leave it out for an instance of its own"
        ) from error
    if not speaks:
        raise ConfigError(
            f"engine: what listens at {address!r} is not Ray. Give the address that `ray start --head` printed (port "
            f"6379 unless told otherwise, not the dashboard's 8265), or leave it out for an instance of its own"
        )


def _speaks_grpc(host: str, port: int) -> bool:
    with socket.create_connection((host, port), timeout=_PATIENCE) as connection:
        connection.sendall(_PREFACE)
        answer = b""
        with suppress(OSError):
            while len(answer) < 4 and (more := connection.recv(9)):
                answer += more
    return len(answer) >= 4 and answer[3] == _SETTINGS


def _unreached(address: str, error: BaseException, said: str) -> str:
    """What to do about an instance that cannot be used, by the error and what Ray said to the terminal."""
    if type(error).__name__ == "AuthenticationError" or "Unauthenticated" in said:
        return (
            f"engine: the Ray instance at {address!r} asks for a token, and {_token()}. Set RAY_AUTH_MODE=token, and "
            f"the cluster's token as RAY_AUTH_TOKEN, in a file named by RAY_AUTH_TOKEN_PATH, or in ~/.ray/auth_token "
            f"(`ray get-auth-token` prints it on the head node)"
        )
    versions = _VERSIONS.findall(str(error))
    if len(versions) == 2:
        (ray_there, python_there), (ray_here, python_here) = versions
        return (
            f"engine: the Ray instance at {address!r} runs ray {ray_there} on Python {python_there}, this process has "
            f"ray {ray_here} on Python {python_here}: both must be equal. Start the run in the cluster's environment, "
            f"install its versions here, or leave address out for an instance of its own"
        )
    return (
        f"engine: no Ray instance can be used at {address!r} ({_reason(error)}). Start one with `ray start --head`, of "
        f"the same versions of ray and Python, or leave address out for an own one"
    )


def _token() -> str:
    """What this process has to show, without showing it."""
    mode = os.environ.get("RAY_AUTH_MODE")
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if mode is None:
        return "this process sends none, as RAY_AUTH_MODE is not set"
    if mode != "token":
        return f"this process sends none, as RAY_AUTH_MODE is {mode!r}"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "it refuses the one in RAY_AUTH_TOKEN"
    if named:
        usable = os.access(named, os.R_OK) and os.path.getsize(named) > 0  # noqa: PTH202 - what Ray itself looks at
        return f"it refuses the one in {named}" if usable else f"{named} (RAY_AUTH_TOKEN_PATH) cannot be read"
    there = os.path.exists(os.path.expanduser("~/.ray/auth_token"))  # noqa: PTH110, PTH111
    return "it refuses the one in ~/.ray/auth_token" if there else "this process has none"


def _reason(error: BaseException) -> str:
    """Kind and first line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _logs() -> str:
    return f"{os.environ.get('RAY_TMPDIR', '/tmp')}/ray/session_latest/logs"


@contextmanager
def _overheard(said: list[str]) -> Iterator[None]:
    """Inside, what this process writes to its standard error is put into a list: Ray's errors hold no reason.

    Its own code writes past Python's `sys.stderr`.
    """
    try:
        before = os.dup(2)
    except OSError:  # there is none
        yield
        return
    with tempfile.TemporaryFile() as heard:
        os.dup2(heard.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            heard.seek(0)
            said.append(heard.read().decode(errors="replace"))


@contextmanager
def _loopback() -> Iterator[None]:
    """Inside, the address of this node is 127.0.0.1, with which all of Ray's servers listen there and nowhere else.

    Ray does so by itself where it builds no clusters (macOS, Windows), and has no option for it elsewhere.
    """
    from ray._private import ray_constants

    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    if before is None:  # another version of Ray; docs/cluster.md says how to see where it listens
        yield
        return
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Inside, Ray cannot put its own handler of SIGTERM in place of the caller's."""
    from ray._private import utils

    kept = getattr(utils, "set_sigterm_handler", None)
    if threading.current_thread() is not threading.main_thread() or kept is None:
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = kept
        signal.signal(signal.SIGTERM, before)  # where another version sets it in another way


@contextmanager
def told_as_notes(note: Callable[[str], None]) -> Iterator[None]:
    """Inside, what Ray would print about its nodes (20 lines of a log, say) is told in its first sentence.

    Args:
        note: told in a line.
    """
    from ray._private import worker

    before = getattr(worker, "print_to_stdstream", None)
    if before is None:
        yield
        return

    def told(data: dict[str, Any], *_: Any, **__: Any) -> None:
        for text in data.get("lines", ()):
            note(f"Ray says: {str(text).strip().partition(chr(10))[0].partition('. ')[0]}")

    worker.print_to_stdstream = told
    try:
        yield
    finally:
        worker.print_to_stdstream = before
