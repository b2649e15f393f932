"""Bits: a width is how many of them each weight of a layer is stored in; the full width is the layer as it is."""

from __future__ import annotations

from typing import ClassVar, final

from autoprune.space.kinds.channels import Channels


@final
class Bits(Channels):
    """Bits that scale like widths: one ratio on all of them is uniform, the same number everywhere but for rounding."""

    ranked: ClassVar[bool] = False
    label: ClassVar[str] = "bits"
