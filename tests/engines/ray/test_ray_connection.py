"""Coming to a Ray instance and losing it: what listens where, tokens, faults at the start, a node that ends."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_search import session
from fake_work import calls, setup, slow

from autoprune.config.engine import EngineOptions
from autoprune.errors import ConfigError, RunError

ray = pytest.importorskip("ray")

from autoprune.engines.ray import connection  # noqa: E402
from autoprune.engines.ray.cluster import Cluster, run_name  # noqa: E402
from autoprune.engines.ray.connection import check_answers, reach, told_as_notes  # noqa: E402
from autoprune.engines.ray.engine import RayEngine  # noqa: E402

DRIVER = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from fake_search import session
from fake_work import slow, setup
from autoprune.config.engine import EngineOptions
from autoprune.engines import make_engine
from autoprune.errors import RunError
from autoprune.signals import ended_by_signals

@ended_by_signals
def work(folder):
    with make_engine(EngineOptions(name="ray", workers=1)) as engine:
        engine.equip(setup(folder, slow))
        engine.search(session(folder / "run", trials=10_000))

try:
    work(Path({folder!r}))
except RunError as error:
    print(type(error).__name__, error)
    sys.exit(7)
"""


def descendants(pid: int) -> set[int]:
    """Processes that a process has started, and those that they have."""
    found = {pid}
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


def listening(pids: set[int]) -> dict[str, str]:
    """Address and port -> process, of every TCP port on which one of them listens, as the kernel tells."""
    owners = {}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                owners[str(entry.readlink())] = pid
            except OSError:
                continue
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            (
                _,
                local,
                _,
                state,
                *_,
            ) = line.split()[:4]
            owner = owners.get(f"socket:[{line.split()[9]}]")
            if state == "0A" and owner is not None:
                found[local] = command(owner)[:60]
    return found


def is_loopback(local: str) -> bool:
    """Of an address as /proc/net writes it: 127.0.0.1, the same in IPv6, or ::1."""
    address = local.partition(":")[0]
    return address in ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    "end",
    ["SIGTERM", *(pytest.param(end, marks=pytest.mark.slow) for end in ("raylet", "gcs_server", "directory"))],
)
def test_a_local_run_listens_on_loopback_only_and_says_how_it_ended(tmp_path: Path, end: str) -> None:
    here = Path(__file__).parents[2] / "helpers"
    script = DRIVER.format(paths=[str(here)], folder=str(tmp_path))
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    output, told_errors = tmp_path.with_name("output"), tmp_path.with_name("errors")
    with output.open("w") as out, told_errors.open("w") as err:  # Ray's processes may hold them for longer
        driver = subprocess.Popen([sys.executable, "-c", script], env=given, stdout=out, stderr=err)
    while len(calls(tmp_path)) < 3:
        time.sleep(0.02)
        assert driver.poll() is None, told_errors.read_text()
    processes = descendants(driver.pid)
    ports = listening(processes)
    assert len(ports) >= 5, "the head, the node, its agent, the driver and a worker"
    assert [place for place in ports if not is_loopback(place)] == []
    kept = len(calls(tmp_path))
    if end == "SIGTERM":
        os.kill(driver.pid, signal.SIGTERM)
    elif end == "directory":
        tmp_path.rename(tmp_path.with_name("moved"))
    else:
        os.kill(next(pid for pid in processes if command(pid).partition("\0")[0].endswith(f"/{end}")), signal.SIGKILL)
    try:
        driver.wait(timeout=60)  # seconds, on a machine that is not busy
    finally:
        driver.kill()
    told, errors = output.read_text(), told_errors.read_text()
    assert driver.returncode == (143 if end == "SIGTERM" else 7), errors
    assert "state-dump" not in told + errors
    assert "Traceback" not in told + errors
    expected = {"SIGTERM": "", "directory": "RunError "}
    assert told.startswith(expected.get(end, "EngineLostError Ray has ended: nothing answers any more at 127.0.0.1:"))
    place = tmp_path.with_name("moved") if end == "directory" else tmp_path
    assert len(session(place / "run", trials=10_000).trials) >= kept - 1, "what had ended is on disk"


@pytest.fixture
def web_server() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign,assignment]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_what_listens_and_is_not_ray_is_an_error_within_seconds(
    web_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (web_server, silent.getsockname()[1]):
            with pytest.raises(ConfigError, match=f"what listens at '127.0.0.1:{port}' is not Ray. Give the address"):
                check_answers(f"127.0.0.1:{port}")


def test_an_address_in_the_environment_is_looked_at_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"nothing answers at '127\.0\.0\.1:1'"):
        check_answers("auto")
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(ConfigError, match="Ray Tune cannot be driven from outside a cluster"):
        check_answers("auto")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "this process sends none, as RAY_AUTH_MODE is not set"),
        ({"RAY_AUTH_MODE": "tokn"}, "this process sends none, as RAY_AUTH_MODE is 'tokn'"),
        ({"RAY_AUTH_MODE": "token"}, "this process has none"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "hunter2"}, "it refuses the one in RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "{here}/no"}, "{here}/no .RAY_AUTH_TOKEN_PATH. cannot be"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "{here}/file"}, "it refuses the one in {here}/file"),
    ],
)
def test_an_instance_that_asks_for_a_token_is_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    environment: dict[str, str],
    told: str,
) -> None:
    (tmp_path / "file").write_text("hunter2")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(here=tmp_path))

    def refuse(**_: object) -> None:
        os.write(2, b"Failed to get cluster ID from GCS server: Unauthenticated: RPC error: InvalidAuthToken")
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(connection, "check_answers", lambda address: None)
    with pytest.raises(ConfigError, match=f"asks for a token, and {told.format(here=tmp_path)}") as caught:
        reach("10.0.0.1:6379")
    assert "hunter2" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_cluster_with_a_token_is_used_with_it_and_explained_without(tmp_path: Path) -> None:
    token, start = tmp_path / "token", [sys.executable, "-m", "ray.scripts.scripts"]
    token.write_text("x" * 40)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    clean |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    keyed = clean | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    head = subprocess.Popen(
        [*start, "start", "--head", "--block", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"],
        env=keyed,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    code = (
        "import sys; from autoprune.config.engine import EngineOptions; from autoprune.engines import make_engine\n"
        "from autoprune.errors import AutopruneError\n"
        "try:\n  with make_engine(EngineOptions(name='ray', address=sys.argv[1])) as engine: print(engine.workers)\n"
        "except AutopruneError as error: print(error)"
    )
    try:
        address = f"{_own_address()}:{port}"
        while not _answers(address):
            assert head.poll() is None
            time.sleep(0.1)
        for given, expected in (
            (keyed, "1\n"),
            (clean, "asks for a token, and this process sends none, as RAY_AUTH_MODE is not set."),
            (clean | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "y" * 40}, "it refuses the one in RAY_AUTH_TOKEN."),
        ):
            run = [sys.executable, "-c", code, address]
            ended = subprocess.run(run, env=given, capture_output=True, text=True, timeout=120)
            assert expected in ended.stdout
            assert "Unauthenticated" not in ended.stderr
    finally:
        head.terminate()
        head.wait(timeout=60)


def _own_address() -> str:
    """The address that Ray finds for this machine."""
    return str(ray.util.get_node_ip_address())


def _answers(address: str) -> bool:
    try:
        check_answers(address)
    except ConfigError:
        return False
    return True


def test_a_fault_of_rays_start_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OSError("no room in /dev/shm\nmore")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(ConfigError, match=r"does not start here \(OSError: no room in /dev/shm\)\. Its logs lie in"):
        Cluster(EngineOptions(name="ray", workers=1)).open()


@pytest.mark.parametrize(
    "address",
    [
        f"{'a' * 70}.example:6379",
        "127.0.0.1:²",
        "127.0.0.1:٣",
        "127.0.0\0.1:6379",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        ":6379",
        "http://127.0.0.1",
        "localhost",
        "127.0.0.1:6379 ",
        "no.such.host.invalid:6379",
        "[::1:6379",
    ],
)
def test_no_address_is_more_than_one_clear_error(address: str) -> None:
    with pytest.raises(ConfigError, match=r"engine: (nothing answers at|address .* cannot be read)"):
        check_answers(address)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({"ray_version": "2.9.3"}, "runs ray 2.9.3 on Python {python}, this process has ray {ray} on Python {python}"),
        ({"python_version": "3.9.1"}, "runs ray {ray} on Python 3.9.1, this process has ray {ray} on Python {python}"),
    ],
)
def test_an_instance_of_other_versions_is_told_with_both(
    monkeypatch: pytest.MonkeyPatch, there: dict[str, str], told: str
) -> None:
    from ray._private.utils import check_version_info, compute_version_info

    here = dict(zip(("ray_version", "python_version"), compute_version_info(), strict=False))

    def refuse(**_: object) -> None:
        check_version_info({**here, **there}, "node 10.0.0.2:7")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(connection, "check_answers", lambda address: None)
    expected = told.format(ray=here["ray_version"], python=here["python_version"])
    with pytest.raises(ConfigError, match=f"at '10.0.0.1:6379' {expected}: both must be equal"):
        reach("10.0.0.1:6379")


def test_an_instance_of_its_own_without_room_for_its_workers_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = {"Alive": True, "Resources": {"CPU": 2.0}}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    cluster = Cluster(EngineOptions(name="ray", workers=2, gpus_per_worker=1), device="cuda")
    with pytest.raises(ConfigError, match="a worker needs CPU 1, GPU 1, but no node of the cluster has that"):
        cluster.open()


def test_more_workers_than_this_machine_could_hold_are_refused_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray is started"))
    with pytest.raises(ConfigError, match=r"workers is 100000, .* cores; at most \d+ start here\. Lower workers"):
        Cluster(EngineOptions(name="ray", workers=100_000)).open()


@pytest.mark.parametrize(
    "error", [ray.exceptions.ObjectStoreFullError("full"), ray.exceptions.OutOfDiskError("full"), MemoryError()]
)
def test_a_setup_that_the_object_store_cannot_take_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "put", refuse)
    with pytest.raises(RunError, match=r"are \d+ MB, which Ray's object store cannot take .*\. Free room"):
        RayEngine(EngineOptions(name="ray")).equip(setup(tmp_path, slow))


@pytest.mark.parametrize("name", ["CPU", "GPU", "memory", "object_store_memory"])
def test_resources_that_ray_counts_itself_are_no_custom_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"Ray counts {name} itself; use cpus_per_worker"):
        Cluster(EngineOptions(name="ray", resources={name: 1}))


def test_what_ray_prints_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    from ray._private import worker

    told: list[str] = []
    before = worker.print_to_stdstream
    with told_as_notes(told.append):
        lines = ["Raylet is terminated. Possible reasons include: …\n[state-dump] NodeManager:"]
        worker.print_to_stdstream({"lines": lines, "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert told == ["Ray says: Raylet is terminated"]
    assert worker.print_to_stdstream is before
    assert capsys.readouterr() == ("", "")


def test_the_name_of_a_run_is_that_of_its_directory_and_its_family(tmp_path: Path) -> None:
    part = tmp_path / "family" / "1-flops-50"
    part.mkdir(parents=True)
    assert run_name(part) == "1-flops-50"
    (tmp_path / "family" / "run.json").write_text("{}")
    assert run_name(part) == "family/1-flops-50"
