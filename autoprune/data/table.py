"""Rows of files: JSON lines or parquet, a column of targets and columns of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from torch.utils.data import Dataset

from autoprune.data.pairs import as_tensors
from autoprune.data.parts import held_out, parts_of
from autoprune.data.rows import ENDINGS, TableRows, read_rows
from autoprune.errors import ConfigError, DataError, shortened

_WHAT = "table"


@final
class Columns(Dataset[Any]):
    """Rows as pairs: one column, or a mapping of several, and the target; numbers and lists of them as tensors.

    Args:
        rows: of dictionaries.
        inputs: names of columns.
        target: name of a column.
    """

    def __init__(self, rows: TableRows, inputs: Sequence[str], target: str) -> None:
        self._rows, self._inputs, self._target = rows, tuple(inputs), target

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        row = self._rows[number]
        values = {name: as_tensors(row[name]) for name in self._inputs}
        return (next(iter(values.values())) if len(values) == 1 else values), as_tensors(row[self._target])


def load(*, path: Path, inputs: str | list[str], target: str) -> dict[str, Dataset[Any]]:
    """Rows with numbers, or lists of numbers, in memory.

    Args:
        path: a folder with `train.jsonl` or `train.parquet`, and likewise `validation` (or `val`) and `test`; or one
            such file, of which every tenth row, drawn once, is for validation.
        inputs: name of the column of inputs, or names of several, which are keyword inputs of the network.
        target: name of the column of targets.

    Raises:
        DataError: a file or a column is missing, a line cannot be read, or a value is missing or no finite number.
        ConfigError: names that are no texts, or that stand twice.
    """
    names = _names(inputs, target)

    def of(file: Path, role: str) -> Dataset[Any]:
        rows = read_rows(file, columns=[*names, target])
        for number in range(len(rows)):
            for name, value in rows[number].items():
                problem = _problem(value)
                if problem:
                    raise DataError(f"{_WHAT}: {file}, row {number}: {name} {problem}; correct it or leave the row out")
        return Columns(rows, names, target)

    if not path.is_dir():
        return held_out({"train": of(path, "train")}, _WHAT)
    return parts_of(path, of, what=_WHAT, endings=ENDINGS)


def _names(inputs: object, target: object) -> list[str]:
    """Names of the columns of inputs; raises ConfigError where these, or that of the target, are none."""
    given = [inputs] if isinstance(inputs, str) else inputs
    names = [name for name in given if isinstance(name, str) and name] if isinstance(given, list | tuple) else []
    if not names or not isinstance(given, list | tuple) or len(names) < len(given):
        told = shortened(repr(inputs), 80)
        raise ConfigError(f"{_WHAT}: inputs must be the name of a column or a list of names, got {told}")
    if len(set(names)) < len(names):
        raise ConfigError(f"{_WHAT}: inputs has a name twice: {shortened(', '.join(names), 80)}; give each once")
    if not isinstance(target, str) or not target:
        raise ConfigError(f"{_WHAT}: target must be the name of a column, got {shortened(repr(target), 80)}")
    return names


def _problem(value: Any) -> str:
    """Why a value of a row cannot be used; empty where it can: a text, a finite number, a list or mapping of these."""
    if value is None:
        return "is missing (null)"
    if isinstance(value, int | float) and not abs(value) < 2**63:  # nor is what is not a number
        return f"has {shortened(str(value), 40)}, which is no finite number below 2^63"
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((problem for one in inner if (problem := _problem(one))), "")
