"""Cuts that would pass an unwatchful verification: each model computes something else when cut in its own class."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import autoprune
from autoprune.errors import SpaceError


def conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.aux = conv(3, 16), conv(16, 24), nn.Linear(16, 5)
        self.fc, self.flat = nn.Linear(24, 5), nn.Linear(24 * 64, 5)


class SumsEqualShapes(Layers):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        z = F.relu(self.b(y))
        return self.fc((z + y if z.shape == y.shape else z).mean((2, 3)))  # type: ignore[no-any-return]


class MoreInTraining(Layers):
    def forward(self, x: Tensor) -> Any:
        y = F.relu(self.a(x))
        z = self.fc(F.relu(self.b(y)).mean((2, 3)))
        return (z, self.aux(y.mean((2, 3)))) if self.training else z


class DividesByTheBatch(Layers):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b(F.relu(self.a(x)))).view(x.shape[0], 24 * 64)
        return self.flat(y) / x.shape[0] ** 0.5  # type: ignore[no-any-return]


class Heads(nn.Module):
    """Splits into heads by an attribute that nobody adapts."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.table, self.out = 4, nn.Embedding(50, 32), nn.Linear(32, 50)
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        n, length, _ = x.shape
        q, k, v = (f(x).view(n, length, self.parts, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        attended = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.out(attended.transpose(1, 2).reshape(n, length, -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [SumsEqualShapes, MoreInTraining])
def test_what_only_some_cuts_show_moves_a_model_to_the_graph_form(kind: type[nn.Module]) -> None:
    model = kind()
    space = autoprune.trace(model, torch.randn(2, 3, 8, 8))
    assert space.search_space.form == "graph"
    assert space.slice(model, space.uniform(0.5)).train()(torch.randn(2, 3, 8, 8)).shape == (2, 5)


def test_an_example_of_equal_tokens_does_not_hide_attention() -> None:
    assert autoprune.trace(Heads(), torch.zeros(1, 16, dtype=torch.int64)).search_space.form == "graph"


def test_a_graph_that_computes_with_the_batch_size_takes_no_other() -> None:
    model = DividesByTheBatch()
    space = autoprune.trace(model, torch.randn(1, 3, 8, 8))
    cut = space.slice(model, space.uniform(0.5))
    assert cut(torch.randn(1, 3, 8, 8)).shape == (1, 5)
    with pytest.raises(SpaceError, match=r"no other batch size.*trace the model with a batch of 2"):
        cut(torch.randn(4, 3, 8, 8))


class TakesHalves(nn.Module):
    """A stage of YOLO: one half goes on, both are joined; where one is cut more, equal pieces are not the halves."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(24, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.a(x).relu().chunk(2, 1)
        return self.c(torch.cat([first, second, self.b(second).relu()], 1)).mean((2, 3))  # type: ignore[no-any-return]


def test_a_space_says_what_made_a_graph_of_it_and_which_ties_would_not() -> None:
    model, example = TakesHalves(), torch.randn(1, 3, 8, 8)
    space = autoprune.trace(model, example)
    assert space.search_space.form == "graph"
    assert "does not run" in space.search_space.why_graph
    assert "tie: [a] keeps its own class" in space.search_space.why_graph
    tied = autoprune.trace(model, example, options={"tie": ["a"]})
    assert (tied.search_space.form, tied.search_space.why_graph) == ("module", "")
    with pytest.raises(autoprune.AutopruneError, match="save its state_dict"):
        pickle.dumps(space.slice(model, space.uniform(0.5)))
