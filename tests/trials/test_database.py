"""Databases as storage: drivers, several jobs on a fresh one at the same time, and a real PostgreSQL."""

from __future__ import annotations

import importlib.util
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from fake_search import ROOMY, Fake, gist, noisy, session
from postgres import DATABASE, PASSWORD, USER, Server, binaries
from sqlalchemy.engine import make_url

from autoprune.engines import local
from autoprune.errors import RunError
from autoprune.trials import database
from autoprune.trials.assignment import Assignment, Outcome
from autoprune.trials.database import open_database, with_driver
from autoprune.trials.ledger import Ledger, Notebook, open_storage

JOBS = 4


def only(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    """Pretend that of all drivers only these are installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in installed else None)


@pytest.mark.parametrize(
    ("url", "installed", "expected"),
    [
        ("postgresql://h/d", ("psycopg", "psycopg2"), "postgresql+psycopg"),
        ("postgresql://h/d", ("psycopg2",), "postgresql+psycopg2"),
        ("postgres://h/d", ("pg8000",), "postgresql+pg8000"),
        ("postgresql+psycopg2://h/d", ("psycopg", "psycopg2"), "postgresql+psycopg2"),
        ("mysql://h/d", ("pymysql",), "mysql+pymysql"),
        ("mariadb://h/d", ("MySQLdb",), "mariadb+mysqldb"),
        ("sqlite:///d", (), "sqlite"),
        ("oracle://h/d", (), "oracle"),
    ],
)
def test_a_url_without_a_driver_takes_the_one_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, url: str, installed: tuple[str, ...], expected: str
) -> None:
    only(monkeypatch, *installed)
    assert with_driver(make_url(url)).drivername == expected


@pytest.mark.parametrize(
    ("url", "installed", "told"),
    [
        ("postgresql://h/d", (), r"pip install 'psycopg\[binary\]'`\. Check that"),
        ("postgres://h/d", (), "the driver psycopg "),
        ("postgresql+psycopg2://h/d", ("psycopg",), "psycopg2-binary`, or write postgresql://… for psycopg"),
        ("mysql://h/d", (), "install it with `pip install mysqlclient`"),
        ("mysql+pymysql://h/d", (), "pip install pymysql`"),
    ],
)
def test_a_driver_that_is_missing_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, installed: tuple[str, ...], told: str
) -> None:
    only(monkeypatch, *installed)
    with pytest.raises(RunError, match=told):
        open_storage(url, tmp_path / "journal.log")


def at_once(work: Callable[[int], object]) -> list[object]:
    """What several threads return that begin at the same moment."""
    barrier = threading.Barrier(JOBS)

    def begin(number: int) -> object:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(begin, range(JOBS)))


def keep_a_trial(url: str, folder: Path, number: int) -> tuple[float | None, ...]:
    """One job: open the storage, write a trial and a note, and read them back."""
    storage = open_storage(url, folder / "journal.log")
    ledger = Ledger(storage, f"job {number}", ROOMY.space)
    proposal = Assignment(0, ROOMY.space.uniform(0.5), "controller", 1, 0, {"flops": 10.0})
    ledger.start(proposal)
    ledger.finish(proposal, Outcome(float(number)))
    Notebook(storage, f"notes {number}").write("key", number, {})
    return tuple(trial.score for trial in ledger.trials())


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory where there is one: SQLite waits for the disk at every write."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def test_jobs_that_start_together_on_a_fresh_sqlite_file_wait_for_each_other(quick: Path) -> None:
    url = f"sqlite:///{quick}/shared.db"
    assert at_once(lambda number: keep_a_trial(url, quick, number)) == [(float(n),) for n in range(JOBS)]
    with sqlite3.connect(quick / "shared.db") as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM studies").fetchone() == (2 * JOBS,)


def test_a_sqlite_file_that_another_job_holds_is_waited_for(tmp_path: Path) -> None:
    def patience(url: str) -> int:
        with open_database(url).engine.connect() as connection:
            return int(connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one())

    assert patience(f"sqlite:///{tmp_path}/shared.db") == 60_000
    assert patience(f"sqlite:///{tmp_path}/shared.db?timeout=7") == 7_000, "what the URL says holds"


def test_tables_that_can_never_be_made_are_an_error_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.db").write_text("this is no database" * 100)
    monkeypatch.setattr(database, "_PAUSE", 0.001)
    with pytest.raises(RunError, match=r"cannot be opened: DatabaseError: .*not a database"):
        open_storage(f"sqlite:///{tmp_path}/text.db", tmp_path / "journal.log")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    place = binaries()
    if place is None:
        pytest.skip("PostgreSQL is not installed here (apt-get install postgresql)")
    if not any(importlib.util.find_spec(driver) for driver in ("psycopg", "psycopg2")):
        pytest.skip("no driver of PostgreSQL is installed here (pip install 'psycopg[binary]')")
    made = Server(place)
    try:
        made.start()
        yield made
    finally:
        made.remove()


def url_of(server: Server, *, kind: str = "postgresql", password: str = PASSWORD, name: str = DATABASE) -> str:
    return f"{kind}://{USER}:{quote(password, safe='')}@127.0.0.1:{server.port}/{name}"


def test_jobs_that_start_together_on_a_fresh_postgresql_wait_for_each_other(server: Server, tmp_path: Path) -> None:
    url = url_of(server, kind="postgres")
    assert at_once(lambda number: keep_a_trial(url, tmp_path, number)) == [(float(n),) for n in range(JOBS)]


def test_a_search_resumes_from_postgresql_whose_server_was_away(server: Server, tmp_path: Path) -> None:
    url = url_of(server)
    whole, part = session(tmp_path / "whole"), session(tmp_path / "part", url=url)
    local.run(whole, Fake(noisy))
    for number in range(5):
        if number == 3:  # its connections are lost, and it is away for a moment
            server.stop()
            timer = threading.Timer(0.5, server.start)
            timer.start()
        step = part.ask()
        assert step is not None
        part.tell(step, Outcome(noisy(step.widths, step.seed)))
    timer.join()
    resumed = session(tmp_path / "part", url=url)
    local.run(resumed, Fake(noisy))
    assert gist(resumed.trials) == gist(whole.trials)


def test_what_a_server_refuses_is_one_clear_error_without_the_password(server: Server, tmp_path: Path) -> None:
    for wrong, told in (
        (url_of(server, password="not the one"), "password authentication failed"),
        (url_of(server, name="elsewhere"), 'database "elsewhere" does not exist'),
    ):
        with pytest.raises(RunError, match=rf"(?s)cannot be opened: OperationalError: .*{told}.*Check that") as caught:
            open_storage(wrong, tmp_path / "journal.log")
        assert "not the one" not in str(caught.value)
        assert quote("not the one") not in str(caught.value)
