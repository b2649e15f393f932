"""A machine on which Ray could not start is told so in one line, before it is tried."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune.errors import ConfigError

pytest.importorskip("ray")
resource = pytest.importorskip("resource")

from autoprune.engines.ray import machine  # noqa: E402
from autoprune.engines.ray.machine import check_machine  # noqa: E402

GIGABYTE = 10**9


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets what one limit seems to be; all others are none."""

    def limit(which: int, value: int) -> None:
        endless = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        monkeypatch.setattr(resource, "getrlimit", lambda asked: (value, value) if asked == which else endless)

    return limit


def test_this_machine_will_do() -> None:
    check_machine(1)


@pytest.mark.parametrize(
    ("store", "limit", "fits"), [(6, 7, False), (6, 12, True), (0.5, 1, False), (0.5, 7, True), (0, 1, False)]
)
def test_address_space(
    monkeypatch: pytest.MonkeyPatch, limited: Callable[[int, int], None], store: float, limit: float, fits: bool
) -> None:
    monkeypatch.setattr(machine, "object_store", lambda: int(store * GIGABYTE))
    monkeypatch.setattr(machine, "mapped", lambda: GIGABYTE)
    limited(resource.RLIMIT_AS, limit * GIGABYTE)
    if fits:
        check_machine(1)
        return
    with pytest.raises(ConfigError, match=rf"limited to {limit}.0 GB \(ulimit -v\).*Raise the limit .*engine: local"):
        check_machine(1)


@pytest.mark.parametrize(("workers", "limit", "fits"), [(1, 64, False), (1, 1024, True), (400, 1024, False)])
def test_open_files(limited: Callable[[int, int], None], workers: int, limit: int, fits: bool) -> None:
    limited(resource.RLIMIT_NOFILE, limit)
    if fits:
        check_machine(workers)
        return
    with pytest.raises(ConfigError, match=rf"may open {limit} files \(ulimit -Hn\), and with {workers} workers"):
        check_machine(workers)


def test_processes(monkeypatch: pytest.MonkeyPatch, limited: Callable[[int, int], None]) -> None:
    monkeypatch.setattr(machine, "threads", lambda user: 50)
    limited(resource.RLIMIT_NPROC, 300)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    check_machine(4)  # no such limit holds for root
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check_machine(2)
    with pytest.raises(ConfigError, match=r"may have 300 processes and threads \(ulimit -u\) and has 50; with 4 work"):
        check_machine(4)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_threads_of_this_user_are_counted() -> None:
    assert machine.threads(os.getuid()) >= 1
    assert machine.threads(4_000_000) == 0
    assert machine.mapped() > 1e8


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file" / "below"))
    with pytest.raises(ConfigError, match=r"below cannot be written \(Not a directory\).* Set RAY_TMPDIR"):
        check_machine(1)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "made"))
    check_machine(1)
    monkeypatch.setattr(machine, "ROOM", 1e18)
    with pytest.raises(ConfigError, match=r"made, where its sockets and logs lie, has \d+ MB free"):
        check_machine(1)
    monkeypatch.setattr(machine, "SHARED", tmp_path / "none")
    with pytest.raises(ConfigError, match=r"none cannot be written, where it shares memory"):
        check_machine(1)


START = """
from autoprune.config.engine import EngineOptions
from autoprune.engines.ray.connection import start
from autoprune.errors import ConfigError
try:
    start(EngineOptions(name="ray", workers=1))
except ConfigError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit of Linux")
@pytest.mark.parametrize(("limit", "told"), [("-v 2500000", "ulimit -v"), ("-n 60", "ulimit -Hn")])
def test_a_limit_of_the_shell_is_told(limit: str, told: str) -> None:
    call = ["bash", "-c", f'ulimit {limit} && exec "$0" -c "$1"', sys.executable, START]
    ended = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert len(ended.stdout.splitlines()) == 1, ended.stdout + ended.stderr
    assert told in ended.stdout
