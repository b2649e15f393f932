"""Recurrent layers: the hidden width of a module is one group, and states, directions and layers follow it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention_nets import tokens
from nets import Net
from torch import Tensor, nn

import autoprune
from autoprune.cost import METRICS
from autoprune.testing.rules import Build, RuleCase, RuleContract, tried

HIDDEN = 6


def around(recurrent: nn.RNNBase, **settings: Any) -> RuleCase:
    """Linear (12 to 8), the recurrent layer over five steps, linear, mean over steps, classifier."""
    first = recurrent.batch_first

    def forward(n: Any, x: Tensor) -> Tensor:
        y = F.relu(n.a(x))
        y = n.r(y if first else y.transpose(0, 1))[0]
        return n.fc(F.relu(n.b(y if first else y.transpose(0, 1))).mean(1))  # type: ignore[no-any-return]

    width = HIDDEN * (2 if recurrent.bidirectional else 1)
    net = Net(forward, a=nn.Linear(12, 8), r=recurrent, b=nn.Linear(width, 7), fc=nn.Linear(7, 5))
    return RuleCase(net, tokens(), {"a": 8, "r": HIDDEN, "b": 7}, counted=False, **settings)


def last_state(kind: type[nn.RNNBase]) -> RuleCase:
    """Only the last hidden states of both layers are used."""

    def forward(n: Any, x: Tensor) -> Tensor:
        states = n.r(n.a(x))[1]
        hidden = states[0] if isinstance(states, tuple) else states
        return n.fc(hidden[-1] + hidden[0])  # type: ignore[no-any-return]

    net = Net(forward, a=nn.Linear(12, 8), r=kind(8, HIDDEN, 2, batch_first=True), fc=nn.Linear(HIDDEN, 5))
    return RuleCase(net, tokens(), {"a": 8, "r": HIDDEN}, counted=False)


def given_state() -> RuleCase:
    """The first hidden state is computed from the input."""

    def forward(n: Any, x: Tensor) -> Tensor:
        state = torch.tanh(n.s(x[:, 0])).unsqueeze(0)
        return n.fc(n.r(n.a(x), state)[0].mean(1))  # type: ignore[no-any-return]

    net = Net(
        forward,
        a=nn.Linear(12, 8),
        s=nn.Linear(12, HIDDEN),
        r=nn.GRU(8, HIDDEN, batch_first=True),
        fc=nn.Linear(HIDDEN, 5),
    )
    return RuleCase(net, tokens(), {"a": 8, "s": HIDDEN}, counted=False)


def zero_state() -> RuleCase:
    """The module makes its own first states, with its hidden width baked in."""

    def forward(n: Any, x: Tensor) -> Tensor:
        zeros = torch.zeros(1, x.shape[0], HIDDEN)
        return n.fc(n.r(n.a(x), (zeros, zeros))[0].mean(1))  # type: ignore[no-any-return]

    net = Net(forward, a=nn.Linear(12, 8), r=nn.LSTM(8, HIDDEN, batch_first=True), fc=nn.Linear(HIDDEN, 5))
    return RuleCase(net, tokens(), counted=False)


def two_in_a_row() -> RuleCase:
    def forward(n: Any, x: Tensor) -> Tensor:
        return n.fc(n.q(n.p(x)[0])[0].mean(1))  # type: ignore[no-any-return]

    net = Net(
        forward,
        p=nn.GRU(12, 8, batch_first=True, bidirectional=True),
        q=nn.LSTM(16, HIDDEN, batch_first=True),
        fc=nn.Linear(HIDDEN, 5),
    )
    return RuleCase(net, tokens(), {"p": 8, "q": HIDDEN}, counted=False)


def cells() -> RuleCase:
    """A loop over steps around a cell."""

    def forward(n: Any, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), HIDDEN)
        for step in range(x.shape[1]):
            state = n.r(n.a(x[:, step]), state)
        return n.fc(state)  # type: ignore[no-any-return]

    net = Net(forward, a=nn.Linear(12, 8), r=nn.GRUCell(8, HIDDEN), fc=nn.Linear(HIDDEN, 5))
    return RuleCase(net, tokens(), counted=False)


def projected() -> RuleCase:
    """A projection of the hidden state has no rule."""
    net = Net(
        lambda n, x: n.fc(F.relu(n.b(n.r(n.a(x))[0])).mean(1)),
        a=nn.Linear(12, 8),
        r=nn.LSTM(8, HIDDEN, proj_size=4, batch_first=True),
        b=nn.Linear(4, 7),
        fc=nn.Linear(7, 5),
    )
    frozen = {"a": "projections of the hidden state", "r": "projections of the hidden state"}
    return RuleCase(net, tokens(), {"b": 7}, frozen, counted=False)


CASES: dict[str, Build] = {
    "lstm": lambda: around(nn.LSTM(8, HIDDEN, batch_first=True)),
    "lstm, steps first": lambda: around(nn.LSTM(8, HIDDEN)),
    "lstm, two layers": lambda: around(nn.LSTM(8, HIDDEN, 2, batch_first=True)),
    "lstm, both directions": lambda: around(nn.LSTM(8, HIDDEN, batch_first=True, bidirectional=True)),
    "lstm, two layers, both directions": lambda: around(nn.LSTM(8, HIDDEN, 2, batch_first=True, bidirectional=True)),
    "lstm, without biases": lambda: around(nn.LSTM(8, HIDDEN, batch_first=True, bias=False)),
    "lstm, dropout": lambda: around(nn.LSTM(8, HIDDEN, 2, batch_first=True, dropout=0.5)),
    "gru": lambda: around(nn.GRU(8, HIDDEN, batch_first=True)),
    "gru, two layers, both directions": lambda: around(nn.GRU(8, HIDDEN, 2, bidirectional=True)),
    "rnn": lambda: around(nn.RNN(8, HIDDEN, batch_first=True)),
    "rnn, relu, two layers": lambda: around(nn.RNN(8, HIDDEN, 2, nonlinearity="relu")),
    "last state of an lstm": lambda: last_state(nn.LSTM),
    "last state of a gru": lambda: last_state(nn.GRU),
    "given state": given_state,
    "zero state": zero_state,
    "two in a row": two_in_a_row,
    "cells": cells,
    "projected": projected,
}


class TestRecurrent(RuleContract):
    cases = CASES


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("lstm", 4 * HIDDEN * (8 + HIDDEN)),
        ("gru", 3 * HIDDEN * (8 + HIDDEN)),
        ("rnn", HIDDEN * (8 + HIDDEN)),
        ("lstm, two layers", 4 * HIDDEN * (8 + HIDDEN) + 4 * HIDDEN * (HIDDEN + HIDDEN)),
        ("lstm, both directions", 2 * 4 * HIDDEN * (8 + HIDDEN)),
    ],
)
def test_multiply_adds_of_a_recurrent_layer_by_hand(name: str, cell: int) -> None:
    """Torch and fvcore count recurrent layers as zero; every gate multiplies input and hidden state at each step."""
    space = tried(CASES[name]).space
    steps, after = 2 * 5, 12 if "both" in name else HIDDEN
    around_it = steps * (12 * 8 + after * 7) + 2 * 7 * 5
    assert METRICS.get("flops")(space)(np.array([space.full]))[0] == steps * cell + around_it


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_packed_sequences_are_cut_as_padded_ones(kind: type[nn.RNNBase]) -> None:
    def forward(n: Any, tokens: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(n.a(tokens), lengths, batch_first=True, enforce_sorted=False)
        steps, state = n.r(packed)
        padded, ends = nn.utils.rnn.pad_packed_sequence(steps, batch_first=True)
        last = padded[torch.arange(len(padded)), ends - 1]
        return n.fc(last + torch.cat([*(state[0] if isinstance(state, tuple) else state)], -1))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    recurrent = kind(8, 6, batch_first=True, bidirectional=True)
    net = Net(forward, a=nn.Linear(3, 8), r=recurrent, fc=nn.Linear(12, 5))
    space = autoprune.trace(net, (torch.randn(3, 5, 3), torch.tensor([5, 2, 4])))
    assert {group.name: group.width for group in space.groups} == {"a": 8, "r": 6}
    cut = space.slice(net, space.uniform(0.5))
    assert cut(torch.randn(2, 7, 3), torch.tensor([7, 3])).shape == (2, 5)
