"""Attention heads: a unit of width is a whole head, several channels of each of its projections."""

from __future__ import annotations

from typing import final

from autoprune.space.kinds.channels import Channels


@final
class Heads(Channels):
    """Widths that scale like channels; modules count them, and what is allowed in channels does not hold for them."""

    rule = "heads"
    counted = True
    label = "heads"
