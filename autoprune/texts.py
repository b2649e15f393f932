"""Short texts: a score as its measure counts it, the line of an error that says what went wrong."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any, TypeVar, cast, final

T = TypeVar("T", bound=Any)


@final
@dataclass(frozen=True, slots=True)
class ScoreScale:
    """What scores count, for whoever reads them. Inside, a score is always such that higher is better.

    Attributes:
        name: of the measure ("accuracy"); "" where nobody said.
        unit: "%", "nats", …; "" for a bare number.
        higher_is_better: False: scores are held with the other sign, and shown with their own.
    """

    name: str = ""
    unit: str = ""
    higher_is_better: bool = True

    def turned(self, value: T) -> T:
        """From the sign of the measure to that of scores, or back; differences likewise."""
        return value if self.higher_is_better else cast("T", 0.0 - value)  # never a negative zero

    @property
    def told(self) -> str:
        """Name, unit and direction: "divergence in nats, lower is better"."""
        better = "higher is better" if self.higher_is_better else "lower is better"
        return f"{self.name or 'score'}{f' in {self.unit}' if self.unit else ''}, {better}"

    @property
    def of_difference(self) -> str:
        """What follows a difference of scores: " points" where they are percentages."""
        return " points" if self.unit == "%" else f" {self.unit}" if self.unit else ""


def significant(value: float, digits: int, *, sign: str = "") -> str:
    """A number by so many significant digits, and by all that stand before its point up to a billion.

    Args:
        value: the number.
        digits: how many.
        sign: "+": also before numbers above zero.
    """
    text = f"{value:{sign}.{digits}g}"
    return f"{value:{sign},.0f}" if "e+" in text and abs(value) < 1e9 else text


def score_text(score: float, scale: ScoreScale) -> str:
    """A score as its measure counts it, with its unit."""
    value = scale.turned(score)
    return f"{value:.2f} %" if scale.unit == "%" else f"{significant(value, 4)}{scale.unit and f' {scale.unit}'}"


def difference_text(difference: float, scale: ScoreScale) -> str:
    """A difference of two scores as their measure counts it, with its sign and without its unit."""
    value = scale.turned(difference)
    return f"{value:+.2f}" if scale.unit == "%" else significant(value, 3, sign="+")


def interval_text(low: float, high: float, scale: ScoreScale) -> str:
    """An interval of differences, from its lower to its higher end as their measure counts them."""
    ends = (low, high) if scale.higher_is_better else (high, low)
    return " to ".join(difference_text(end, scale) for end in ends)


def last_line(error: str | None) -> str:
    """The line of a traceback that says what went wrong; empty where there is none."""
    return printable(next((line.strip() for line in reversed((error or "").splitlines()) if line.strip()), ""))


def first_line(error: BaseException) -> str:
    """Return the first line of its text, at most 160 characters."""
    return printable((str(error).splitlines() or [""])[0][:160])


def printable(text: str, most: int | None = None) -> str:
    """The text without what a terminal or a browser obeys: control, direction and invisible characters as escapes.

    Args:
        text: from a file or a user.
        most: so many characters at most.
    """
    if most is not None and len(text) > most:
        text = f"{text[: most - 1]}…"
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or character in "\t\n" or unicodedata.category(character) == "Zs":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
