from __future__ import annotations

import io
import subprocess
import sys
from itertools import pairwise

import pytest

from autoprune.controllers.base import Trial, TrialState
from autoprune.errors import ConfigError
from autoprune.progress import make_progress
from autoprune.progress.base import Progress, SilentProgress, result
from autoprune.progress.live import RichProgress
from autoprune.progress.plain import PlainProgress
from autoprune.texts import ScoreScale, last_line


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def complete(number: int, score: float = 70.0) -> Trial:
    return Trial(number, (1,), TrialState.COMPLETE, score)


def failed(number: int, error: str | None = "Traceback\n  File [x]\nValueError: [bold]nan[/bold]\n") -> Trial:
    return Trial(number, (1,), TrialState.FAILED, None, error=error)


def tell_a_run(progress: Progress) -> None:
    with progress:
        progress.phase("base network", 3)
        for epoch in range(3):
            progress.advance(f"epoch {epoch}")
        progress.start(4, ScoreScale(unit="%"))
        progress.trial(complete(0), None, 70.0, 1, 4)
        progress.trial(complete(1, 71.5), 71.5, 70.0, 2, 4)
        progress.trial(failed(2), 71.5, 70.0, 3, 4)
        progress.trial(Trial(3, (1,), TrialState.PRUNED, 12.0), 71.5, 70.0, 4, 4)
        progress.phase("final trainings", None)
        progress.advance("winner, seed 0")
    progress.close()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("mode", ["auto", "rich", "plain", "silent"])
def test_every_display_lives_through_a_run(mode: str, stream: type[io.StringIO]) -> None:
    out = stream()
    tell_a_run(make_progress(mode, out))  # type: ignore[arg-type]
    text = out.getvalue()
    for said in ("base network", "ValueError: [bold]nan[/bold]", "best 71.50 %", "uniform 70.00 %", "final trainings"):
        assert (said in text) == (mode != "silent")


def test_auto_is_live_only_in_a_terminal() -> None:
    live = make_progress("auto", Terminal())
    live.close()
    assert isinstance(live, RichProgress)
    assert isinstance(make_progress("auto", io.StringIO()), PlainProgress)
    assert isinstance(make_progress("silent"), SilentProgress)
    with pytest.raises(ConfigError, match="Did you mean 'plain'"):
        make_progress("plian")  # type: ignore[arg-type]


def test_the_live_display_ends_with_an_error_and_shows_its_cursor_again() -> None:
    out = Terminal()

    def interrupted() -> None:
        with make_progress("rich", out) as progress:
            progress.start(3, ScoreScale(unit=""))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")


def test_plain_lines_hold_no_control_codes() -> None:
    out = io.StringIO()
    tell_a_run(PlainProgress(out))
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()


def test_routine_trials_are_rate_limited_and_news_is_not() -> None:
    out, clock = io.StringIO(), Clock()
    progress = PlainProgress(out, every=10, clock=clock)
    progress.start(100, ScoreScale(unit="%"))
    news = {1: 60.0, 40: 61.0}
    best, shown = None, []
    for done in range(1, 101):
        clock.now += 1
        best = news.get(done, best)
        progress.trial(failed(done) if done == 55 else complete(done), best, None, done, 100)
    shown = [int(line.split()[1].split("/")[0]) for line in out.getvalue().splitlines()[1:]]
    assert {1, 40, 55, 100} <= set(shown)
    assert len(shown) <= 100 / 10 + 4
    assert all(later - earlier <= 10 for earlier, later in pairwise(shown))


def test_time_left_is_extrapolated_from_this_sitting() -> None:
    out, clock = io.StringIO(), Clock()
    progress = PlainProgress(out, every=0, clock=clock)
    progress.start(100, ScoreScale(unit="%"))
    for done in range(61, 71):  # resumed after 60
        clock.now += 2
        progress.trial(complete(done), 70.0, None, done, 100)
    assert out.getvalue().splitlines()[-1].endswith("60 s left")


def test_steps_show_the_first_the_last_and_some_between() -> None:
    out, clock = io.StringIO(), Clock()
    progress = PlainProgress(out, every=10, clock=clock)
    progress.phase("base network", 60)
    for epoch in range(1, 61):
        clock.now += 1
        progress.advance(f"loss {epoch}")
    lines = out.getvalue().splitlines()
    assert lines[0] == "base network: 60 steps"
    assert lines[1] == "base network 1/60  loss 1"
    assert lines[-1] == "base network 60/60  loss 60"
    assert 6 <= len(lines) <= 9


@pytest.mark.parametrize("error", [None, "", " \n\n"])
def test_a_failure_without_a_traceback_is_still_shown(error: str | None) -> None:
    out = io.StringIO()
    PlainProgress(out).trial(failed(3, error), None, None, 1, 9)
    assert "failed" in out.getvalue()
    assert last_line(error) == ""


def test_a_trial_that_was_stopped_early_says_when() -> None:
    early = Trial(0, (1,), TrialState.PRUNED, 12.0, fidelity=1 / 9)
    assert result(early, ScoreScale("accuracy", "%")).endswith("(stopped at 11% of its training)")
    assert result(Trial(0, (1,), TrialState.PRUNED, 12.0), ScoreScale("accuracy", "%")).endswith("(stopped early)")


def test_rich_is_imported_only_for_the_live_display() -> None:
    code = "import sys, autoprune.progress as p; p.make_progress('plain'); print('rich' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_the_search_tells_its_pace_and_how_many_workers_are_busy() -> None:
    plain, clock = io.StringIO(), Clock()
    progress = PlainProgress(plain, clock=clock)
    progress.start(40, ScoreScale(unit="%"), 4)
    for done in range(1, 4):
        clock.now += 2
        progress.trial(complete(done, 70.0 + done), 70.0 + done, 69.0, done, 40, 3)
    first, *_, last = plain.getvalue().splitlines()
    assert first == "search: 40 trials on 4 workers"
    assert last == "trial 3/40  73.00 %  best 73.00 %, uniform 69.00 %  30/min  3 of 4 workers busy  74 s left"


def test_the_live_table_has_the_search_and_goes_with_it() -> None:
    out, clock = Terminal(), Clock()
    progress = RichProgress(out, clock=clock)
    progress.start(40, ScoreScale(unit="%"), 4)
    clock.now += 2
    progress.trial(complete(1, 71.0), 71.0, 69.0, 1, 40, 3)
    clock.now += 2
    progress.trial(complete(2, 72.0), 72.0, 69.0, 2, 40, 3)
    progress._bars.refresh()
    progress.close()
    table, _, after = out.getvalue().rpartition("└")
    for cell in ("trials", "2 of 40", "72.00 %", "69.00 %", "per minute", "30", "workers busy", "3 of 4"):
        assert cell in table
    assert "best 72.00 %, uniform 69.00 %" in after, "the last standing stays on the bar"
