"""A PostgreSQL server of one's own, from the binaries that Debian or others install; it ends with the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER, PASSWORD, DATABASE = "me", "pass word/1", "postgres"


_TOOLS = ("initdb", "postgres", "pg_isready")


def binaries() -> Path | None:
    """Where the server and its tools lie; None where there are none."""
    found = shutil.which("postgres")
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), *([Path(found).parent] if found else [])]
    return next((place for place in reversed(places) if all((place / tool).exists() for tool in _TOOLS)), None)


@dataclass
class Server:
    """One server on a free port of 127.0.0.1; root runs it as another user, as it must not be root's."""

    bin: Path
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="postgres-test-")))
    process: subprocess.Popen[bytes] | None = None
    port: int = 0

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (self.folder / "password").write_text(PASSWORD)
        for path in (self.folder, self.folder / "password"):
            if os.getuid() == 0:
                shutil.chown(path, self._user)
        made = ["-D", self.folder / "data", "-U", USER, "-A", "scram-sha-256", "--pwfile", self.folder / "password"]
        subprocess.run(
            [self.bin / "initdb", *made, "--no-sync", "-E", "UTF8", "--locale", "C"],
            check=True,
            capture_output=True,
            **self._as,
        )

    @property
    def _user(self) -> str:
        names = {entry.pw_name for entry in pwd.getpwall()}
        return "postgres" if "postgres" in names else "nobody"

    @property
    def _as(self) -> dict[str, Any]:
        return {"cwd": self.folder} | ({"user": self._user} if os.getuid() == 0 else {})

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        listens = ["-h", "127.0.0.1", "-p", str(self.port), "-k", self.folder]
        self.process = subprocess.Popen(
            [self.bin / "postgres", "-D", "data", *listens, "-c", "fsync=off"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )
        deadline = time.monotonic() + 60
        ready = [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode != 0:
            assert time.monotonic() < deadline, "the server has not started"
            assert self.process.poll() is None, "the server has ended"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it at once, with all connections."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)
            self.process = None

    def remove(self) -> None:
        """Stop it and delete what it has written."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
