"""Texts with one class each: which module of Python a few lines of code come from, with a quarter of the parameters.

    python examples/sequence_classification.py [--trials 20] [--epochs 12] [--run runs/sequence_classification]

Rows are mappings of `input_ids`, `attention_mask` and `labels`, as tokenizers of transformers and Hugging Face's
`datasets` give them; here each token is a byte. The text ships with Python. With a network of transformers the call is
the same: `AutoModelForSequenceClassification.from_pretrained(folder)`. Under two minutes on two cores.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

import autoprune

MODULES = ("_pydecimal", "argparse", "inspect", "tarfile")
LENGTH = 96
PARTS = {"train": (0, 240), "validation": (240, 320), "test": (320, 400)}
"""Numbers of the texts of each module."""


class Excerpts(Dataset[dict[str, Tensor]]):
    """Lines of code from each module, of `LENGTH` bytes, the last ones padded."""

    def __init__(self, start: int, stop: int) -> None:
        self.rows = [
            {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor(number)}
            for number, name in enumerate(MODULES)
            for ids in excerpts(name)[start:stop]
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return self.rows[i]


def excerpts(module: str) -> list[Tensor]:
    """Texts of a module in an order drawn once, (LENGTH,) bytes each, 0 where there is none."""
    spec = find_spec(module)
    assert spec is not None
    source = Path(str(spec.origin)).read_text(encoding="utf-8")
    lines = [line.strip().encode() for line in source.splitlines() if line.strip()]
    texts = [b"\n".join(lines[i : i + 3])[:LENGTH] for i in range(0, len(lines), 3)]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    return [torch.tensor([*texts[i], *[0] * (LENGTH - len(texts[i]))]) for i in order.tolist()]


class Attention(nn.Module):
    """Each position looks at all that hold a byte, by several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.o_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, T, width) to the same."""
        shape = (*x.shape[:2], -1, self.head_dim)
        q, k, v = (proj(x).view(shape).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        joined: Tensor = self.o_proj(out.transpose(1, 2).reshape(*x.shape[:2], -1))
        return joined


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and beside what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.norm_1, self.norm_2 = Attention(width, heads), nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, T, width) to the same."""
        x = x + self.attention(self.norm_1(x), mask)
        return x + self.mlp(self.norm_2(x))


class Reader(nn.Module):
    """An encoder: mappings of (N, T) bytes and masks to (N, classes) logits."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, width), nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(MODULES))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the classes."""
        x = self.bytes(input_ids) + self.places
        mask = attention_mask[:, None, None, :].bool()
        for block in self.blocks:
            x = block(x, mask)
        there = attention_mask[..., None]
        logits: Tensor = self.head((self.norm(x) * there).sum(1) / there.sum(1))
        return logits


def main() -> None:
    """Train, search, and show the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each network that is compared")
    parser.add_argument("--run", type=Path, help="where everything is written; by default a free folder below runs/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = {role: Excerpts(*numbers) for role, numbers in PARTS.items()}
    first = parts["train"][0]
    result = autoprune.search(
        Reader(),
        {name: first[name][None] for name in ("input_ids", "attention_mask")},
        constraints={"params": "25%"},
        data=parts,
        task="sequence_classification",
        trained=False,
        training={"epochs": options.epochs, "lr": 2e-3, "batch_size": 32, "optimizer": "adamw"},
        trials=options.trials,
        threads=1,
        verdict={"seeds": options.seeds, "fine_tune_epochs": -(-options.epochs // 3), "protocols": ["fine_tune"]},
        run_dir=options.run,
    )
    assert result.verdict is not None
    print(result.verdict.sentence)
    row = parts["test"][0]
    with torch.inference_mode():
        told = result.model(input_ids=row["input_ids"][None], attention_mask=row["attention_mask"][None])
    text, module, read = bytes(row["input_ids"].tolist()[:40]), MODULES[int(row["labels"])], MODULES[int(told.argmax())]
    print(f"{text!r} is of {module}, read as {read}")
    print(f"report: {result.report()}")


if __name__ == "__main__":
    main()
