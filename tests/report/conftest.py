from __future__ import annotations

import pytest
from matplotlib.axes import Axes


@pytest.fixture
def heights(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """Label -> heights of all that is drawn from now on."""
    found: dict[str, list[float]] = {}
    for name in ("scatter", "plot", "step"):
        original = getattr(Axes, name)

        def seen(self: Axes, x: list[float], y: list[float], *args: object, _do=original, **kwargs: object) -> object:  # type: ignore[no-untyped-def]
            found[str(kwargs.get("label"))] = list(y)
            return _do(self, x, y, *args, **kwargs)

        monkeypatch.setattr(Axes, name, seen)
    return found
