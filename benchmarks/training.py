"""Seconds per epoch of a training here, beside a plain loop of torch that does the same, in turns in one process.

    python benchmarks/training.py [--rounds 5] [--seed 0] [--threads 1]

ResNet-20 on random images of CIFAR-10's size, by SGD with Nesterov's momentum, a cosine schedule and augmentation; then
with AdamW, label smoothing, clipping and an average of weights. Both loops begin with the same weights and must end
with the same, to rounding. What counts is the processor time of each epoch, the median of ratios over rounds. Ends with
an error above LIMIT. Also told, not judged: channels last, and what `auto` chooses.
"""

from __future__ import annotations

import argparse
import copy
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from autoprune.config.training import Recipe
from autoprune.data.base import Augmentation, TensorSplit
from autoprune.training.loop import train
from autoprune.zoo import build_model

LIMIT = 1.05
IMAGES, BATCH = 512, 128
CPU = torch.device("cpu")
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"weight_decay": 5e-4},
    "adamw, smoothed, clipped, averaged": {
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "label_smoothing": 0.1,
        "clip_norm": 1.0,
        "ema": 0.99,
    },
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "channels last": {"channels_last": True},
    "auto": {"channels_last": "auto", "amp": "auto"},
}


def main() -> int:
    """Measure, print; 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    images = torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    flat = {"mean": [0.5] * 3, "std": [0.25] * 3, "augmentation": Augmentation(pad=4, flip=True)}
    split = TensorSplit(images, torch.arange(IMAGES) % 10, **flat)  # type: ignore[arg-type]
    network = build_model("resnet20")
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {options.threads} threads")
    failed = False
    for name, case in CASES.items():
        recipe = Recipe(epochs=1, lr=0.01, batch_size=BATCH, **case)
        ours, plain, ratios = [], [], []
        for _ in range(options.rounds):
            theirs = copy.deepcopy(network)
            plain.append(_seconds(partial(_plain, theirs, split, recipe)))
            own = copy.deepcopy(network)
            ours.append(_seconds(partial(train, own, split, recipe, seed=0, device=CPU)))
            ratios.append(ours[-1] / plain[-1])
        for one, other in zip(own.state_dict().values(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        ratio = statistics.median(ratios)
        failed |= ratio > LIMIT
        print(
            f"{name}: {statistics.median(ours):.2f} s an epoch, plain loop {statistics.median(plain):.2f} s; ratio "
            f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}), claimed at most {LIMIT}"
        )
    for label, extra in LAYOUTS.items():
        recipe = Recipe(epochs=1, lr=0.01, batch_size=BATCH, **extra)
        work = partial(train, split=split, recipe=recipe, seed=0, device=CPU)
        seconds = min(_seconds(partial(work, copy.deepcopy(network))) for _ in range(2))
        print(f"{label}: {seconds:.2f} s an epoch (with what `auto` measures the first time, best of two)")
    return int(failed)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _plain(model: nn.Module, split: TensorSplit, recipe: Recipe) -> None:
    """One epoch as one would write it; what is optional only where the recipe has it."""
    if recipe.optimizer.name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            model.parameters(), lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    averaged = copy.deepcopy(model) if recipe.ema is not None else None
    model.train()
    seen, total, steps = 0, torch.zeros(()), 0
    for inputs, labels in split.batches(BATCH, seed=1, augment=True):  # the order of the first epoch from seed 0
        done = (seen + len(inputs) / 2) / len(split)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * (1 + math.cos(math.pi * done)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(inputs), labels, label_smoothing=recipe.label_smoothing)
        loss.backward()
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        if averaged is not None and recipe.ema is not None:
            decay = min(recipe.ema, (1 + steps) / (10 + steps))
            with torch.no_grad():
                for one, other in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
                    if one.is_floating_point():
                        one.lerp_(other, 1 - decay)
                    else:
                        one.copy_(other)
        total += loss.detach() * len(inputs)
        seen, steps = seen + len(inputs), steps + 1
    if averaged is not None:
        model.load_state_dict(averaged.state_dict())
    if not math.isfinite(total.item()):
        raise ValueError("the loss is not finite")


if __name__ == "__main__":
    sys.exit(main())
