"""Kinds of groups: what one unit of width is, and how a search handles such widths; one file per kind.

A new dimension of a search (a density per layer, experts, bits) is a class in a file of its own and a row below, or in
another package, which offers the class through the entry-point group.
"""

from __future__ import annotations

from autoprune.registry import Part, Registry
from autoprune.space.kinds.base import Kind
from autoprune.space.kinds.table import KindTable

KIND_PARTS = Registry(
    "kind of group",
    {
        "channels": Part(
            "autoprune.space.kinds.channels:Channels",
            "Li et al., ICLR 2017",
            "Channels, features and whatever else a layer has many of; the default.",
        ),
        "heads": Part(
            "autoprune.space.kinds.heads:Heads",
            "Michel et al., NeurIPS 2019",
            "Whole heads of attention; where tracing finds a split into heads.",
        ),
        "blocks": Part(
            "autoprune.space.kinds.blocks:Blocks",
            "Huang et al., ECCV 2016",
            "Residual blocks that can be left out, `blocks: true` in a space.",
        ),
        "weights": Part(
            "autoprune.space.kinds.weights:Weights",
            "Han et al., NeurIPS 2015",
            "Single weights of a layer, in a pattern, `density: {…}` in a space.",
        ),
        "ranks": Part(
            "autoprune.space.kinds.ranks:Ranks",
            "Denton et al., NeurIPS 2014",
            "Low-rank factors of a layer's weights, `rank: {…}` in a space.",
        ),
        "bits": Part(
            "autoprune.space.kinds.bits:Bits",
            "Tung & Mori, CVPR 2018",
            "Bits that the weights of a layer are stored in, `bits: {…}` in a space; alone or beside widths.",
        ),
        "resolution": Part(
            "autoprune.space.kinds.resolution:Sides",
            "Tan & Le, ICML 2019",
            "The height of images before the network, `resolution: {…}` in a space; beside widths and blocks.",
        ),
    },
    group="autoprune.kinds",
)

KINDS = KindTable(KIND_PARTS)
"""Kind of a group, as `WidthGroup.kind` names it -> how it behaves."""

__all__ = ["KINDS", "KIND_PARTS", "Kind"]
