"""Rows of dictionaries as a data set: objects of Hugging Face's `datasets`, JSON lines, parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from torch.utils.data import Dataset

from autoprune.config.json_reader import no_key_twice
from autoprune.errors import DataError, blame

_LONGEST = 2**26
"""Characters of a line."""

ENDINGS = (".jsonl", ".ndjson", ".parquet")


@final
class TableRows(Dataset[Any]):
    """Rows as a torch data set of dictionaries.

    Args:
        rows: has a length and gives a dictionary for each number from 0 on.
        columns: names that are kept; None: all of them.
    """

    def __init__(self, rows: Any, columns: Sequence[str] | None = None) -> None:
        self._rows, self._columns = rows, columns

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Any:
        row = self._rows[int(number)]
        if self._columns is None or not isinstance(row, Mapping):
            return row
        missing = [name for name in self._columns if name not in row]
        if missing:
            raise DataError(f"row {number} has no {missing[0]!r}; its columns are {', '.join(map(str, row))}")
        return {name: row[name] for name in self._columns}


def is_rows(given: object) -> bool:
    """Whether it is a data set of Hugging Face's `datasets`, by what it can do; the package need not be there."""
    return not isinstance(given, Dataset) and all(
        hasattr(given, name) for name in ("__len__", "__getitem__", "set_format", "column_names")
    )


def read_rows(file: Path, *, columns: Sequence[str] | None = None) -> TableRows:
    """Rows of a file, read into memory.

    Args:
        file: JSON lines (`.jsonl`, `.ndjson`), one object a line; or `.parquet`, read by pyarrow.
        columns: names that are kept; None: all of them.

    Raises:
        DataError: the file is not there or of another kind, a line is no JSON object, a column is missing, or there
            are no rows.
    """
    if file.suffix not in ENDINGS:
        raise DataError(f"{file} is none of {', '.join(ENDINGS)}; write its rows as one of them")
    if not file.is_file():
        raise DataError(f"{file} is not there; give the path of a file of {', '.join(ENDINGS)}")
    found = _parquet(file, columns) if file.suffix == ".parquet" else _json_lines(file)
    if not found:
        raise DataError(f"{file} has no rows; give at least one")
    rows = TableRows(found, columns)
    rows[0]  # a column that is missing is known before anything is done
    return rows


def _json_lines(file: Path) -> list[dict[str, Any]]:
    found = []
    with (
        blame(DataError, f"{file} cannot be read", then="Write it again as UTF-8."),
        file.open(encoding="utf-8-sig") as lines,
    ):
        for number, line in enumerate(iter(lambda: lines.readline(_LONGEST + 1), ""), 1):
            if len(line) > _LONGEST:
                raise DataError(f"{file}, line {number}: longer than {_LONGEST:,} characters; each line is one row")
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=no_key_twice)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}, line {number}: not JSON ({error}); each line must be one object") from None
            if not isinstance(row, dict):
                raise DataError(f"{file}, line {number}: a {type(row).__name__}; each line must be one JSON object")
            found.append(row)
    return found


def _parquet(file: Path, columns: Sequence[str] | None) -> list[dict[str, Any]]:
    with blame(DataError, f"{file} cannot be read as parquet", then="Install pyarrow, or write it as JSON lines."):
        from pyarrow import parquet

        known = parquet.read_schema(file).names
        missing = [name for name in columns or () if name not in known]
        if missing:
            raise DataError(f"{file} has no column {missing[0]!r}; it has {', '.join(known)}")
        rows: list[dict[str, Any]] = parquet.read_table(
            file, columns=None if columns is None else [*columns]
        ).to_pylist()
        return rows
