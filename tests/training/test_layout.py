"""Memory format and precision left to measurement: equal to rounding, recorded, the same when resumed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from autoprune.config.training import Recipe
from autoprune.errors import ConfigError
from autoprune.randomness import seeded
from autoprune.testing.evaluators import InterruptingWatch, TinyNet, tiny_splits
from autoprune.testing.generators import global_generators
from autoprune.testing.objectives import same_weights
from autoprune.training import layout as layouts
from autoprune.training.layout import Layout, fastest
from autoprune.training.loop import train
from autoprune.training.watch import Stopped

CPU = torch.device("cpu")
AUTO = {"amp": "auto", "channels_last": "auto"}


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_KNOWN", {})


def choosing(monkeypatch: pytest.MonkeyPatch, chosen: Layout) -> list[list[Layout]]:
    """The measurement is taken, and its outcome is the given one."""
    asked = []

    def measured(offered: list[Layout], steps: Any, device: Any) -> Layout:
        asked.append(offered)
        for step in steps.values():
            step()
        return chosen

    monkeypatch.setattr(layouts, "_measured", measured)
    return asked


def trained(watch: Any = None, **options: Any) -> nn.Module:
    with seeded(0):
        network = TinyNet()
    network.features[6].p = 0.0  # what dropout draws follows the memory format
    recipe = Recipe(epochs=3, lr=0.05, batch_size=64, **options)
    train(network, tiny_splits().train, recipe, seed=1, device=CPU, watch=watch)
    return network


@pytest.mark.parametrize("chosen", [Layout(), Layout(True, False), Layout(False, True), Layout(True, True)])
def test_whatever_is_chosen_weights_are_the_same_to_rounding(monkeypatch: pytest.MonkeyPatch, chosen: Layout) -> None:
    asked, generators = choosing(monkeypatch, chosen), global_generators()
    plain, made = trained(), trained(**AUTO)
    assert len(asked) == 1
    assert len(asked[0]) == 4
    rounding = {"rtol": 0.1, "atol": 0.05} if chosen.amp else {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(made.state_dict(), plain.state_dict(), **rounding)
    assert chosen != Layout() or same_weights(made, plain)
    assert global_generators() == generators
    assert all(p.is_contiguous() and p.dtype == torch.float32 for p in made.parameters())


def test_a_resumed_training_computes_as_it_began_whatever_is_faster_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choosing(monkeypatch, Layout(True, True))
    whole, watch = trained(**AUTO), InterruptingWatch()
    with pytest.raises(Stopped):
        trained(watch, **AUTO)
    monkeypatch.setattr(layouts, "_KNOWN", {})
    asked = choosing(monkeypatch, Layout())
    assert same_weights(trained(watch, **AUTO), whole)
    assert not asked


def test_what_is_measured_once_holds_for_the_process() -> None:
    assert same_weights(trained(**AUTO), trained(**AUTO))
    assert len(layouts._KNOWN) == 1


@pytest.mark.parametrize(("seconds", "expected"), [((1.0, 0.5), True), ((1.0, 0.95), False), ((0.5, 1.0), False)])
def test_another_layout_is_chosen_only_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], expected: bool
) -> None:
    now = [0.0]
    monkeypatch.setattr(layouts.time, "perf_counter", lambda: now[0])

    def step(layout: Layout) -> Any:
        return lambda: now.__setitem__(0, now[0] + seconds[layout.channels_last])

    recipe = Recipe(channels_last="auto")
    assert fastest(recipe, CPU, "", step).channels_last is expected


def test_other_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="amp"):
        Recipe(amp="fast")
