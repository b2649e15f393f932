"""Which questions about values make a graph that of its example only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attention_nets import DIM, Tokens, tokens
from nets import Net, classify, conv, image, parameter
from torch import Tensor, nn

from autoprune.space.tracing.program import record
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify


def halved_if(question: Callable[[Any, Tensor], Any]) -> Net:
    def forward(n: Any, x: Tensor) -> Tensor:
        y = n.a(x)
        return classify(n, y / 2 if bool(question(n, x)) else y)

    parts = {"a": conv(3, 8), "fc": nn.Linear(8, 5), "w": parameter(2, 2), "flag": torch.ones(())}
    return Net(forward, mask=torch.ones(4, 4).triu(1), **parts)


def counted(n: Any, x: Tensor) -> Tensor:
    n.mask[:2].add_(1)
    return n.mask.sum() > 3


QUESTIONS: dict[str, tuple[Callable[[Any, Tensor], Any], bool]] = {
    "a constant": (lambda n, x: (torch.arange(4) >= 2).all(), False),
    "a mask that the model keeps": (lambda n, x: (n.mask[:3, :3] == torch.ones(3, 3).triu(1)).all(), False),
    "a copy of it that is written into": (lambda n, x: torch.zeros_like(n.mask).add_(1).all(), False),
    "the shape of the input": (lambda n, x: torch.tensor(x.shape[1]) == 3, False),
    "the input": (lambda n, x: x.sum() > 0, True),
    "a weight": (lambda n, x: n.w.sum() > 0, True),
    "a switch": (lambda n, x: n.flag > 0, True),
    "a table that forward writes into": (counted, True),
    "chance": (lambda n, x: torch.rand(()) > 0.5, True),
}


@pytest.mark.parametrize(("question", "decides"), QUESTIONS.values(), ids=QUESTIONS)
def test_a_graph_decides_by_what_could_have_been_another_value(question: Any, decides: bool) -> None:
    assert record(halved_if(question), image()).decides == decides


class Encoder(nn.Module):
    """Torch's encoder, which looks through its mask, with the padding spread over heads."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(DIM, 4, 24, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.layers(x, mask=mask.isinf(), src_key_padding_mask=x.mean(-1) > 0.5)  # type: ignore[no-any-return]


def test_an_encoder_with_masks_is_cut_as_without() -> None:
    model = Tokens(Encoder())
    space = verify(model, trace(model, tokens())).space
    groups = {g.name.removeprefix("part.layers.layers.0."): (g.kind, g.width) for g in space.groups}
    assert groups == {"embed": ("channels", DIM), "self_attn": ("heads", 4), "linear1": ("channels", 24)}
    assert {part.reason for part in space.frozen} == {"the model's output"}
