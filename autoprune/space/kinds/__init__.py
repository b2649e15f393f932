"""Kinds of groups: what one unit of width is, and how a search handles such widths; one file per kind.

A new dimension of a search (a density per layer, experts, bits) is a class in a file of its own and a row below.
"""

from __future__ import annotations

from autoprune.space.kinds.base import Kind
from autoprune.space.kinds.blocks import Blocks
from autoprune.space.kinds.channels import Channels
from autoprune.space.kinds.heads import Heads

KINDS: dict[str, Kind] = {"channels": Channels(), "heads": Heads(), "blocks": Blocks()}
"""Kind of a group, as `WidthGroup.kind` names it -> how it behaves."""

__all__ = ["KINDS", "Kind"]
