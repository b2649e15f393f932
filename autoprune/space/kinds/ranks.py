"""Ranks: a width is the rank of the two factors of a layer's weights; the full width is the layer as it is."""

from __future__ import annotations

from typing import ClassVar, final

from autoprune.space.kinds.channels import Channels


@final
class Ranks(Channels):
    """Ranks that scale like widths: one ratio on all of them is uniform."""

    label: ClassVar[str] = "rank"
