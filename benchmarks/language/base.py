"""The trained language model: made once with a plain loop of torch, kept as a file, read the next time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autoprune.data.base import DataSplits
from autoprune.data.python_manual import load
from autoprune.files import read_json
from autoprune.zoo.llama import char_llama

CONTEXT, VOCABULARY = 128, 128
EPOCHS, BATCH, LR, WARMUP, DECAY = 10, 16, 3e-3, 0.05, 0.1


@final
@dataclass(frozen=True, eq=False)
class LanguageBase:
    """A trained network in eval mode, and what it is measured on.

    Attributes:
        model: only read.
        splits: the text.
        seconds: CPU time of the training.
    """

    model: nn.Module
    splits: DataSplits
    seconds: float

    @property
    def example(self) -> Tensor:
        """Two blocks of tokens."""
        return next(self.splits.train.batches(2))[0]


def trained(folder: Path, *, seed: int = 0, epochs: int = EPOCHS, limit: int | None = None) -> LanguageBase:
    """Read the network, or train it and keep it.

    Args:
        folder: where it is kept.
        seed: of everything random.
        epochs: passes over the text.
        limit: only so many of its first characters.
    """
    splits = load(context=CONTEXT, limit=limit)
    torch.manual_seed(seed)
    model = char_llama(vocabulary=VOCABULARY, context=CONTEXT)
    place = folder / f"char-llama-{epochs}-{limit or 'all'}-{seed}.safetensors"
    about = place.with_suffix(".json")
    if not about.exists():
        folder.mkdir(parents=True, exist_ok=True)
        seconds = _train(model, splits, seed=seed, epochs=epochs)
        partial = place.with_suffix(".part")
        save_file({name: value.clone() for name, value in model.state_dict().items()}, partial)
        partial.rename(place)
        about.write_text(json.dumps({"seconds": seconds}))
    model.load_state_dict(load_file(place))
    return LanguageBase(model.eval(), splits, float(read_json(about)["seconds"]))


def perplexity(model: nn.Module, splits: DataSplits) -> float:
    """Exp of the mean cross entropy per character of the test part, by torch alone."""
    assert splits.test is not None
    total = count = 0.0
    with torch.inference_mode():
        for inputs, targets in splits.test.batches(32):
            total += float(F.cross_entropy(model(inputs).flatten(0, 1).double(), targets.flatten(), reduction="sum"))
            count += targets.numel()
    return float(torch.tensor(total / count, dtype=torch.float64).exp())


def _train(model: nn.Module, splits: DataSplits, *, seed: int, epochs: int) -> float:
    started, step = time.process_time(), 0
    optimizer = torch.optim.AdamW(model.parameters(), LR, betas=(0.9, 0.95), weight_decay=DECAY)
    steps = epochs * -(-len(splits.train) // BATCH)
    model.train()
    for epoch in range(epochs):
        loss = torch.zeros(())
        for inputs, targets in splits.train.batches(BATCH, seed=1000 * seed + epoch, augment=True):
            step += 1
            warm = min(1.0, step / (WARMUP * steps))
            cosine = 0.05 + 0.95 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item())
            optimizer.param_groups[0]["lr"] = LR * warm * cosine
            loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        print(
            f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}, {time.process_time() - started:.0f} s", flush=True
        )
    return time.process_time() - started
