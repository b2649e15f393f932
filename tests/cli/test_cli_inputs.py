"""What `--input` can say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from autoprune.cli.inputs import example_of
from autoprune.cli.main import app
from autoprune.errors import ConfigError


class Tokens(nn.Module):
    """Embeds token ids and positions, and takes a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 8), nn.Embedding(16, 8)
        self.inner, self.head = nn.Linear(8, 32), nn.Linear(32, 50)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.words(input_ids) + self.places.weight[: input_ids.shape[1]]
        if attention_mask is not None:
            x = x * attention_mask[:, :, None]
        out: Tensor = self.head(torch.relu(self.inner(x)))
        return out


def described(text: str) -> Any:
    """The example as (type, shape), nested as it is."""

    def told(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: told(inner) for name, inner in value.items()}
        if isinstance(value, tuple):
            return tuple(map(told, value))
        return str(value.dtype).removeprefix("torch."), tuple(value.shape)

    return told(example_of(text, Tokens()))


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("1,3,32,32", ("float32", (1, 3, 32, 32))),
        (" 2 , 5 ", ("float32", (2, 5))),
        ("float:7", ("float32", (7,))),
        ("ids:1,64", ("int64", (1, 64))),
        ("ids:1,8;ones:1,8", (("int64", (1, 8)), ("int64", (1, 8)))),
        ("input_ids:1,8", {"input_ids": ("int64", (1, 8))}),
        ("input_ids:1,8; attention_mask:1,8", {"input_ids": ("int64", (1, 8)), "attention_mask": ("int64", (1, 8))}),
        (
            "input_ids=ids:1,8;attention_mask=1,8",
            {"input_ids": ("int64", (1, 8)), "attention_mask": ("float32", (1, 8))},
        ),
    ],
)
def test_shapes_kinds_and_names_are_read(text: str, example: Any) -> None:
    assert described(text) == example


def test_ids_are_rows_of_every_embedding_and_always_the_same() -> None:
    first, again = (example_of("ids:4,1000", Tokens()) for _ in range(2))
    assert isinstance(first, Tensor)
    assert isinstance(again, Tensor)
    assert torch.equal(first, again)
    assert (int(first.min()), int(first.max())) == (0, 15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "give positive sizes with commas"),
        ("1,3,32,x", "give positive sizes with commas, batch first"),
        ("1,0,4", "give positive sizes"),
        ("1,-3", "give positive sizes"),
        ("1,,3", "give positive sizes"),
        ("1,99999999999", "give positive sizes"),
        ("ids:", "ids:1,64 for token ids"),
        ("id:1,64", "'id' is neither a kind .*Did you mean 'ids'"),
        ("inputs_ids:1,64", "parameter of the model's forward .*Did you mean 'input_ids'"),
        ("input_ids=ids:1,8;1,8", "give either no input a name, or each one"),
        ("input_ids:1,8;input_ids:1,8", "a name of its own"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        example_of(text, Tokens())


def test_a_network_of_tokens_is_shown_and_priced_by_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    for described_as in ("ids:1,12", "input_ids:1,12;attention_mask:1,12"):
        shown = CliRunner().invoke(app, ["space", f"{Path(__file__).stem}:Tokens", "--input", described_as, "--json"])
        assert shown.exit_code == 0, shown.output
        assert "inner" in shown.stdout
