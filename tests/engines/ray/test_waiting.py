"""What is said of workers that do not come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autoprune.errors import RunError

pytest.importorskip("ray")

from autoprune.engines.ray import waiting
from autoprune.engines.ray.waiting import Waiting, told


def instance(nodes: list[dict[str, float]], free: dict[str, float]) -> Any:
    """What Ray answers for these nodes."""
    whole: dict[str, float] = {}
    for node in nodes:
        for name, share in node.items():
            whole[name] = whole.get(name, 0) + share
    return SimpleNamespace(
        nodes=lambda: [{"Resources": node, "Alive": True} for node in nodes],
        available_resources=lambda: free,
        cluster_resources=lambda: whole,
    )


@pytest.mark.parametrize(
    ("nodes", "free", "why"),
    [
        ([{"CPU": 4}, {"CPU": 4}], {"CPU": 8}, "no node has so much"),
        ([{"CPU": 4, "spot": 1}], {"CPU": 4}, "taken by other work, or by workers that start"),
        ([{"CPU": 4, "spot": 1}], {"CPU": 4, "spot": 1}, "there is room: it takes long to start"),
        ([], {}, "no node has so much"),
    ],
)
def test_what_is_free_and_why_it_does_not_suffice(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], free: dict[str, float], why: str
) -> None:
    monkeypatch.setattr(waiting, "ray", instance(nodes, free))
    line = told({"CPU": 2, "spot": 1})
    assert line.startswith("each needs CPU 2, spot 1; free on ")
    assert f"{len(nodes)} node" in line
    assert f"CPU {free.get('CPU', 0):g} of {sum(node['CPU'] for node in nodes):g}" in line
    assert line.endswith(f"({why})")


def test_it_is_said_in_time_and_again_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    lines: list[str] = []
    monkeypatch.setattr(waiting, "ray", instance([{"CPU": 1}], {}))
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: now[0]))
    wait = Waiting({"CPU": 1}, 1800, lines.append)
    said = []
    for second in range(1800):
        now[0] = 100.0 + second
        before = len(lines)
        wait.check()
        said += [second] * (len(lines) - before)
    assert said == [31, 332, 633, 934, 1235, 1536]
    assert lines[0].startswith("waiting for a worker for 31 s: each needs CPU 1; free on 1 node: CPU 0 of 1")
    assert "the run ends in 29 minutes" in lines[0]
    now[0] += 2
    with pytest.raises(RunError, match=r"for 30 minutes: each needs CPU 1.* wait_for_workers says how long"):
        wait.check()
    wait.seen()
    wait.check()
    assert len(lines) == 6


def test_a_short_patience_is_told_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    lines: list[str] = []
    monkeypatch.setattr(waiting, "ray", SimpleNamespace())  # does not answer
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: now[0]))
    wait = Waiting({"CPU": 1}, 10, lines.append)
    now[0] = 5.5
    wait.check()
    assert lines == ["waiting for a worker for 6 s: each needs CPU 1; without one the run ends in 4 s"]
