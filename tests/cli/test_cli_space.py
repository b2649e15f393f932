"""`autoprune space`: what a person reads, what a program reads, what is saved."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoprune.api.search import Space
from autoprune.cli import main as cli
from autoprune.cli.tables import cost_tables, space_tables
from autoprune.config.space import SpaceOptions
from autoprune.space.groups import SearchSpace
from autoprune.space.options.choices import apply_options
from autoprune.space.serial import from_json
from autoprune.testing.spaces import chain_space

HELPERS = Path(__file__).parents[1] / "helpers"
TINY = ("space", "tiny:Convolutions", "--input", "1,1,8,8")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Call the command line in this process; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(HELPERS), *sys.path])

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["autoprune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def printed(parts: list[Any], columns: int) -> str:
    console = Console(width=columns, file=io.StringIO())
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get()


def chain(widths: tuple[int, ...] = (64, 128, 256), **keys: Any) -> Space:
    return Space(apply_options(chain_space(widths), SpaceOptions.model_validate(keys)))


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_every_number_is_whole_at_every_width_of_the_terminal(columns: int) -> None:
    space = chain(divisor=8, tie=("conv[12]",))
    text = printed(space_tables(space), columns)
    assert max(map(len, text.splitlines())) <= columns
    words = set(re.split(r"[\s,│]+", text))
    assert {"conv0", "64", "8–64", "128", "16–128", "128+256"} <= words
    assert {"20.4%", "20.2%", "99.5%"} <= words  # conv0: (27 * 64 + 9 * 64 * 128) * 64 of 23,706,112 FLOPs
    assert "…" not in text


@pytest.mark.parametrize("columns", [40, 80])
def test_costs_are_whole_at_every_width_of_the_terminal(columns: int) -> None:
    space = chain()
    text = printed(cost_tables(space, space.full), columns)
    assert max(map(len, text.splitlines())) <= columns
    assert {"4,718,592", "73,728"} <= set(re.split(r"[\s│]+", text.replace(", ", " ")))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "7–64"),
        ({"divisor": 8}, "8–64 by 8"),
        ({"ratios": (0.25, 0.5)}, "16, 32, 64"),
        ({"divisor": 40}, "40, 64"),
        ({"divisor": 9}, "9, 18, …, 64 (8)"),
        ({"min_ratio": 1.0}, "64"),
    ],
)
def test_choices_are_short(keys: dict[str, Any], expected: str) -> None:
    row = next(line for line in printed(space_tables(chain((64,), **keys)), 120).splitlines() if "conv0" in line)
    assert row.split("│")[4].strip() == expected


def test_groups_that_stay_are_noted_and_brackets_are_no_markup() -> None:
    text = printed(space_tables(chain((6, 64), divisor=8, tie=("conv[a0]",))), 200)
    assert "Note: these groups stay whole, no wider than the divisor 8: conv0 (6)." in text
    assert "Note: tie: conv[a0] matches fewer than two groups that are cut; nothing is tied." in text


def test_a_person_reads_groups_frozen_parts_and_totals(run: Run) -> None:
    code, out, err = run(*TINY)
    assert (code, err) == (0, "")
    for part in ("Width groups", "conv1", "conv2", "Frozen", "the model's output", "2 groups;", "one multiply-add"):
        assert part in out


def test_a_program_reads_json(run: Run) -> None:
    code, out, _ = run(*TINY, "--json", "--no-verify")
    found = json.loads(out)
    assert code == 0
    assert [(g["name"], g["width"], g["kind"], g["tied"]) for g in found["groups"]] == [
        ("conv1", 8, "channels", []),
        ("conv2", 12, "channels", []),
    ]
    assert found["groups"][0]["choices"] == list(range(1, 9))
    # conv1: 9*8*16 products; conv2: 9*8*12*4; head: 12*10
    assert found["groups"][0]["flops_share"] == pytest.approx((1152 + 3456) / (1152 + 3456 + 120))
    assert found["prunable"] == pytest.approx({"flops": 1.0, "params": 1096 / 1106})  # all but the head's 10 biases
    assert found["frozen"] == [{"name": "head", "channels": 10, "reason": "the model's output"}]
    assert found["notes"] == []
    assert found["cost"]["flops"] == 1152 + 3456 + 120


def test_a_space_file_is_applied(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("divisor: 4\nper: model\nkinds: {mlp: {divisor: 8}}\n")
    _, out, _ = run(*TINY, "--json", "--no-verify", "--space", "file.yaml")
    found = json.loads(out)
    assert [(g["tied"], g["width"], g["choices"]) for g in found["groups"]] == [([8, 12], 4, [2, 4])]
    assert [note.partition(":")[0] for note in found["notes"]] == ["kinds.mlp", "conv1 (8 and 12)"]


@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
def test_verification_can_be_skipped(verify: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import autoprune.api.space as api

    ran: list[bool] = []
    real: Any = api.verify_space  # type: ignore[attr-defined]
    monkeypatch.setattr(api, "verify_space", lambda *a, **k: (ran.append(True), real(*a, **k))[1])
    assert run(*TINY, verify)[0] == 0
    assert ran == [True] * (verify == "--verify")


def test_the_space_is_saved(run: Run, tmp_path: Path) -> None:
    assert run(*TINY, "--no-verify", "--save", "space.json")[0] == 0
    saved: SearchSpace = from_json(json.loads((tmp_path / "space.json").read_text()))
    assert [(group.name, group.width) for group in saved.groups] == [("conv1", 8), ("conv2", 12)]
    code, out, err = run(*TINY, "--no-verify", "--save", "no/folder/space.json")
    assert (code, out) == (2, "")
    assert re.match(r"error: --save no/folder/space\.json: cannot be written: .*give a file in a folder", err)
