"""Rows of files: JSON lines or parquet, a column of targets and columns of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from torch.utils.data import Dataset

from autoprune.data.pairs import as_tensors
from autoprune.data.parts import held_out, parts_of
from autoprune.data.rows import ENDINGS, TableRows, read_rows

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
        DataError: a file or a column is missing, or a line cannot be read.
    """
    names = [inputs] if isinstance(inputs, str) else list(inputs)

    def of(file: Path, role: str) -> Dataset[Any]:
        return Columns(read_rows(file, columns=[*names, target]), names, target)

    if not path.is_dir():
        return held_out({"train": of(path, "train")}, _WHAT)
    return parts_of(path, of, what=_WHAT, endings=ENDINGS)
