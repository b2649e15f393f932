"""Databases as storage: any URL of Optuna, with the driver that is there, shared by jobs that start together."""

from __future__ import annotations

import importlib.util
import random
import shlex
import time
from collections.abc import Callable
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

T = TypeVar("T")

DRIVERS = {
    "postgresql": {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "pg8000": "pg8000"},
    "mysql": {"mysqldb": "mysqlclient", "pymysql": "pymysql", "mysqlconnector": "mysql-connector-python"},
}
"""Database -> its drivers by SQLAlchemy's name, the preferred one first, and the package to install for each."""

_MODULES = {"mysqldb": "MySQLdb", "mysqlconnector": "mysql.connector"}
_ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}

_CONNECT = 10
"""Seconds that a server has to take a connection; drivers wait for minutes where packets vanish."""

_CONNECT_OPTION = {"psycopg": "connect_timeout", "psycopg2": "connect_timeout", "pg8000": "timeout"} | dict.fromkeys(
    ("mysqldb", "pymysql"), "connect_timeout"
)

_LOCKED = 60
"""Seconds that a writer waits for another one of the same SQLite file; 5 by default."""

_ATTEMPTS, _PAUSE = 12, 0.1
"""Of making the tables, which several jobs may do at the same time; each attempt finds more of them there, and waits
for another time, so that two do not meet again."""


def open_database(url: str) -> RDBStorage:
    """The storage at a URL, with its tables; raises whatever the driver raises.

    Raises:
        ModuleNotFoundError: its driver is not installed; `name` is the driver's.
        ValueError: no URL of a database.
    """
    try:
        place = make_url(url)
    except ArgumentError as error:
        raise ValueError("it is no URL of a database") from error
    chosen = with_driver(place)
    _check_answers(chosen)
    text = chosen.render_as_string(hide_password=False) if chosen != place else url
    return _together(lambda: RDBStorage(text, engine_kwargs={"connect_args": _connect_args(chosen)}))


def with_driver(url: URL) -> URL:
    """The same URL, with a driver that is installed where it names none.

    Raises:
        ModuleNotFoundError: there is none, or not the one that it names.
    """
    kind, _, driver = url.drivername.partition("+")
    known = DRIVERS.get(_ALIASES.get(kind, kind))
    if known is None or (driver and driver not in known):
        return url  # SQLAlchemy may know it
    kind = _ALIASES[kind] if kind == "postgres" else kind  # a name that SQLAlchemy does not take any more
    installed = [name for name in known if importlib.util.find_spec(_MODULES.get(name, name).partition(".")[0])]
    if driver and driver not in installed:
        raise ModuleNotFoundError(_missing(kind, known, driver, installed), name=driver)
    if not driver and not installed:
        raise ModuleNotFoundError(_missing(kind, known, next(iter(known)), []), name=next(iter(known)))
    return url.set(drivername=f"{kind}+{driver or installed[0]}")


def _missing(kind: str, known: dict[str, str], driver: str, installed: list[str]) -> str:
    package = shlex.quote(known[driver])
    told = f"the driver {driver} of this database is not installed; install it with `pip install {package}`"
    return f"{told}, or write {kind}://… for {installed[0]}, which is installed" if installed else told


def _check_answers(url: URL) -> None:
    """Raise what the driver raises where nothing can be made of the address or the password: waiting is in vain."""
    from sqlalchemy import create_engine

    try:
        engine = create_engine(url, connect_args=_connect_args(url))
    except NoSuchModuleError as error:
        raise ValueError(f"no kind of database is called {url.drivername!r}") from error
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _connect_args(url: URL) -> dict[str, Any]:
    kind, _, driver = url.drivername.partition("+")
    option, seconds = ("timeout", _LOCKED) if kind == "sqlite" else (_CONNECT_OPTION.get(driver), _CONNECT)
    return {} if option is None or option in url.query else {option: seconds}


def _together(make: Callable[[], T]) -> T:
    """Make the tables although others do so, too: what another one has just made raises errors of many kinds."""
    for attempt in range(_ATTEMPTS):
        try:
            return make()
        except (SQLAlchemyError, StorageInternalError):
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE * (1 + random.random()))
    raise AssertionError
