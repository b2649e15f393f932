"""How a network is trained, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, final, get_args

from autoprune.errors import ConfigError, suggest

Schedule: TypeAlias = Literal["cosine", "step"]


@final
@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the training examples.
        lr: highest learning rate.
        momentum: of SGD.
        nesterov: Nesterov's momentum.
        weight_decay: on all parameters, norms and biases too, as in the papers.
        batch_size: examples per step.
        schedule: "cosine" falls to 0; "step" multiplies by 0.1 at 50 % and at 75 % of the training.
        warmup_epochs: the learning rate first rises linearly over so many epochs.
        label_smoothing: share of the target spread over all classes.
        augment: use the split's augmentation.
        amp: mixed precision, on CUDA only (bfloat16 where the GPU has it, else float16 with loss scaling).
        channels_last: memory format during training.

    Raises:
        ConfigError: a value out of its range.
    """

    epochs: int
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    batch_size: int = 128
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    augment: bool = True
    amp: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[bool, str]] = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "nesterov": (not self.nesterov or self.momentum > 0, "false where momentum is 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "warmup_epochs": (0 <= self.warmup_epochs < self.epochs, "0 or more and below epochs"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "at least 0 and below 1"),
        }
        for name, (valid, allowed) in ranges.items():
            if not valid:
                raise ConfigError(f"training: {name} must be {allowed}, got {getattr(self, name)!r}")
        schedules = get_args(Schedule)
        if self.schedule not in schedules:
            raise ConfigError(
                f"training: unknown schedule {self.schedule!r}; choose one of {', '.join(schedules)}."
                f"{suggest(self.schedule, schedules)}"
            )

    def over(self, epochs: int, *, lr: float | None = None) -> Recipe:
        """The same recipe over another number of epochs, the warm-up in proportion; with another `lr` if given."""
        warmup_epochs = self.warmup_epochs * epochs / self.epochs
        return replace(self, epochs=epochs, warmup_epochs=warmup_epochs, lr=self.lr if lr is None else lr)

    def learning_rate(self, done: float) -> float:
        """The learning rate when the share `done` (0 to 1) of the training is over."""
        warm = self.warmup_epochs / self.epochs
        if done < warm:
            return self.lr * done / warm
        if self.schedule == "step":
            return self.lr * 0.1 ** ((done >= 0.5) + (done >= 0.75))
        return self.lr * (1 + math.cos(math.pi * (done - warm) / (1 - warm))) / 2
