"""Attention in every form: whole heads, or the dimensions inside them, are cut; and other products of activations."""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    DIM,
    BatchedProducts,
    Cross,
    Einsum,
    FusedProjection,
    GroupedQueries,
    Multihead,
    Tokens,
    Vision,
    WindowAttention,
    tokens,
)

from autoprune.config import SpaceOptions
from autoprune.testing.rules import Build, RuleCase, RuleContract


def around(part: nn.Module, **expected: object) -> RuleCase:
    return RuleCase(Tokens(part), tokens(), **expected)  # type: ignore[arg-type]


def layer(**settings: object) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(DIM, 4, 24, batch_first=True, **settings)  # type: ignore[arg-type]


INSIDE = SpaceOptions(attention="head_dim")
CASES: dict[str, Build] = {
    "fused projection": lambda: around(FusedProjection()),
    "fused projection, products written out": lambda: around(FusedProjection(fused=False)),
    "norms inside heads": lambda: around(FusedProjection(norm=True)),
    "relative position bias": lambda: around(WindowAttention(5)),
    "heads folded into the batch": lambda: around(BatchedProducts(bias=False)),
    "scores with a bias": lambda: around(BatchedProducts(bias=True)),
    "einsum": lambda: around(Einsum()),
    "grouped queries, rotary": lambda: around(GroupedQueries()),
    "grouped queries, expanded": lambda: around(GroupedQueries(fused=False)),
    "learned queries": lambda: around(Cross()),
    "torch, batch first": lambda: around(Multihead(batch_first=True)),
    "torch, batch second": lambda: around(Multihead()),
    "torch, without weights": lambda: around(Multihead(batch_first=True, need_weights=False)),
    "torch, batch second, without weights": lambda: around(Multihead(need_weights=False)),
    "torch, without biases": lambda: around(Multihead(batch_first=True, bias=False)),
    "torch, other widths of keys": lambda: around(Multihead(batch_first=True, kdim=16, vdim=16)),
    "torch, bias for keys": lambda: around(Multihead(batch_first=True, add_bias_kv=True)),
    "encoder layer": lambda: around(layer()),
    "encoder layer, norm first": lambda: around(layer(norm_first=True)),
    "encoder layer, gelu": lambda: around(layer(activation="gelu", dropout=0.0)),
    "encoder": lambda: around(nn.TransformerEncoder(layer(norm_first=True), 2, nn.LayerNorm(DIM), False)),
    "vision transformer": lambda: RuleCase(Vision(), torch.randn(2, 3, 6, 6)),
    "inside heads: fused projection": lambda: around(FusedProjection(), options=INSIDE),
    "inside heads: written out": lambda: around(FusedProjection(fused=False), options=INSIDE),
    "inside heads: torch": lambda: around(Multihead(batch_first=True), options=INSIDE),
    "inside heads: grouped queries": lambda: around(GroupedQueries(), options=INSIDE),
    "inside heads: einsum": lambda: around(Einsum(), options=INSIDE),
    "inside heads: vision transformer": lambda: RuleCase(Vision(), torch.randn(2, 3, 6, 6), options=INSIDE),
}


class TestAttention(RuleContract):
    cases = CASES
