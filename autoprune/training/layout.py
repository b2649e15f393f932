"""Memory format and precision of a training, as the recipe says or as is faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch

from autoprune.config.training import Recipe

_ROUNDS = 3
_FASTER = 0.9
"""A layout is chosen where its step takes at most so much of a plain one."""


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """How a training computes.

    Attributes:
        channels_last: the memory format of maps and filters.
        amp: mixed precision: bfloat16, or on GPUs that have none float16 with loss scaling.
    """

    channels_last: bool = False
    amp: bool = False

    @classmethod
    def of(cls, recipe: Recipe, device: torch.device) -> Layout:
        """What a recipe says; nothing is measured, and what is `auto` is off."""
        return cls(recipe.channels_last is True, recipe.amp is True and device.type == "cuda")

    @property
    def format(self) -> torch.memory_format:
        """As torch names it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def plain(self) -> list[bool]:
        """As a state keeps it."""
        return [self.channels_last, self.amp]

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(device.type, dtype=self._precision(device), enabled=self.amp)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Of losses; it does nothing where the precision needs none."""
        return torch.amp.GradScaler(device.type, enabled=self.amp and self._precision(device) is torch.float16)

    def _precision(self, device: torch.device) -> torch.dtype:
        bfloat16 = device.type != "cuda" or (self.amp and torch.cuda.is_bf16_supported(including_emulation=False))
        return torch.bfloat16 if bfloat16 else torch.float16


_KNOWN: dict[str, Layout] = {}
"""What was measured in this process: the same training computes in the same way each time."""


def fastest(recipe: Recipe, device: torch.device, key: str, step: Callable[[Layout], Callable[[], Any]]) -> Layout:
    """The layout of a training: where the recipe says `auto` the faster one, measured once for each key.

    Args:
        recipe: says what there is to choose from.
        device: where.
        key: names network, recipe and batch.
        step: layout -> a function that does a step of a training with it.
    """
    said = Layout.of(recipe, device)
    if "auto" not in (recipe.channels_last, recipe.amp):
        return said
    if key not in _KNOWN:
        formats = (False, True) if recipe.channels_last == "auto" else (said.channels_last,)
        precisions = (False, True) if recipe.amp == "auto" else (said.amp,)
        layouts = [Layout(last, amp) for last in formats for amp in precisions]
        _KNOWN[key] = _measured(layouts, {layout: step(layout) for layout in layouts}, device)
    return _KNOWN[key]


def _measured(layouts: list[Layout], steps: dict[Layout, Callable[[], Any]], device: torch.device) -> Layout:
    """The first one, unless another is faster by more than what measuring varies; in turns, the best of each counts."""
    for step in steps.values():
        step()
    best = dict.fromkeys(layouts, float("inf"))
    for _ in range(_ROUNDS):
        for layout in layouts:
            started = time.perf_counter()
            steps[layout]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best[layout] = min(best[layout], time.perf_counter() - started)
    winner = min(layouts, key=best.__getitem__)
    return winner if best[winner] <= _FASTER * best[layouts[0]] else layouts[0]
