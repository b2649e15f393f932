"""Rows of texts and numbers: a table where the terminal is wide enough, else a list."""

from __future__ import annotations

from typing import final

from rich.bar import Bar
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_FOLDED = 16
"""Letters per line of a folded text; narrower is not a table any more."""


@final
class Rows:
    """A table whose texts fold and whose numbers stay whole; a list of records where it would not fit the terminal.

    Args:
        title: what the rows are.
        texts: headers of the first columns.
        numbers: headers of the next ones.
        bar: header of a last column of bars, which a list leaves out; "" for none.
    """

    def __init__(self, title: str, texts: tuple[str, ...], numbers: tuple[str, ...], *, bar: str = "") -> None:
        self._title, self._texts, self._numbers, self._bar = title, texts, numbers, bar
        self._rows: list[tuple[tuple[str, ...], Bar | None]] = []

    def add(self, *cells: str, bar: Bar | None = None) -> None:
        """Add a row: one cell for each text and number."""
        self._rows.append((cells, bar))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._table() if self._least_width() <= options.max_width else self._list()

    def _least_width(self) -> int:
        """Letters below which the table would be crowded: texts fold, numbers break between words at most."""
        words = [(word for cells, _ in self._rows for word in cells[column].split()) for column in self._number_columns]
        numbers = [max(map(len, (header, *of))) for header, of in zip(self._numbers, words, strict=True)]
        columns = len(self._texts) + len(self._numbers) + bool(self._bar)
        return _FOLDED * len(self._texts) + sum(numbers) + 4 * bool(self._bar) + 3 * columns + 1

    @property
    def _number_columns(self) -> range:
        return range(len(self._texts), len(self._texts) + len(self._numbers))

    def _table(self) -> Table:
        table = Table(title=self._title, title_justify="left")
        for header in self._texts:
            table.add_column(header, overflow="fold", min_width=8)
        for header, column in zip(self._numbers, self._number_columns, strict=True):
            several_words = any(" " in cells[column] for cells, _ in self._rows)
            table.add_column(header, justify="right", no_wrap=not several_words)
        if self._bar:
            table.add_column(self._bar, min_width=4, max_width=24)
        for cells, bar in self._rows:
            table.add_row(*map(Text, cells), *([] if bar is None else [bar]))
        return table

    def _list(self) -> Text:
        lines = [Text(self._title, style="italic")]
        for (first, *rest), _ in self._rows:
            lines.append(Text(first, style="bold"))
            texts, numbers = rest[: len(self._texts) - 1], rest[len(self._texts) - 1 :]
            lines += [Text(f"  {header}: {text}") for header, text in zip(self._texts[1:], texts, strict=True) if text]
            if numbers:
                lines.append(Text("  " + ", ".join(f"{h} {n}" for h, n in zip(self._numbers, numbers, strict=True))))
        return Text("\n", overflow="fold").join(lines)
