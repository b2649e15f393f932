"""Short texts: a score with its unit, the line of an error that says what went wrong."""

from __future__ import annotations


def score_text(value: float, unit: str) -> str:
    """A score with its unit, "%" or ""."""
    return f"{value:.2f} %" if unit == "%" else f"{value:.4g}"


def last_line(error: str | None) -> str:
    """The line of a traceback that says what went wrong; empty where there is none."""
    return next((line.strip() for line in reversed((error or "").splitlines()) if line.strip()), "")


def first_line(error: BaseException) -> str:
    """Return the first line of its text, at most 160 characters."""
    return (str(error).splitlines() or [""])[0][:160]
