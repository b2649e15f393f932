"""Which widths are allowed: the `space:` part of a job, and the files of `search_spaces/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
)

from autoprune.config.bounds import CHANNELS, RULES, Name, number
from autoprune.config.validation import Strict, read_mapping, validated

Share: TypeAlias = Annotated[float, Field(gt=0, le=1), BeforeValidator(number)]
Ratios: TypeAlias = Annotated[tuple[Share, ...], Field(min_length=1, max_length=1000)]
Pattern: TypeAlias = Name


class WidthRule(Strict):
    """What holds for some of the groups only; None leaves what holds otherwise."""

    min_ratio: Share | None = Field(None, description="no group below this share of its full width")
    min_channels: int | None = Field(
        None, ge=1, le=CHANNELS, description="no group below this many channels (or heads)"
    )
    divisor: int | None = Field(None, ge=1, le=CHANNELS, description="widths are multiples of this")
    ratios: Ratios | None = Field(None, description="explicit choices, shares of full width")


class Override(WidthRule):
    """A rule for the groups with a layer whose name matches."""

    match: Pattern = Field(description="shell-style pattern of layer names")


class KindRules(Strict):
    """A rule for every kind of group."""

    channels: WidthRule = Field(WidthRule(), description="all groups of a space without attention heads")
    heads: WidthRule = Field(WidthRule(), description="groups whose unit is a whole attention head")
    embedding: WidthRule = Field(WidthRule(), description="residual groups of a space with heads")
    mlp: WidthRule = Field(WidthRule(), description="inner channels of a space with heads")


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Tied: TypeAlias = Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=RULES), BeforeValidator(_listed)]


class SpaceOptions(Strict):
    """Which widths are allowed (the content of a file in `search_spaces/`)."""

    min_ratio: float = Field(0.1, gt=0, le=1, description="no group below this share of its full width")
    min_channels: int = Field(
        1, ge=1, le=CHANNELS, description="no group below this many channels; heads have their own in kinds"
    )
    divisor: int = Field(
        1,
        ge=1,
        le=CHANNELS,
        description="widths are multiples of this (the full width always stays allowed); heads have their own in kinds",
    )
    ratios: Ratios | None = Field(
        None, description="explicit choices as shares of the full width, instead of every multiple"
    )
    per: Literal["layer", "block", "stage", "model"] = Field(
        "layer", description="what has one ratio in common; residual and inner groups are never tied with each other"
    )
    inner_only: bool = Field(False, description="groups that feed a residual sum stay whole")
    exclude: tuple[Pattern, ...] = Field(
        (), max_length=RULES, description="shell-style patterns of layer names that stay whole"
    )
    tie: tuple[Tied, ...] = Field(
        (),
        max_length=RULES,
        description="one or several patterns each; the groups that match have one ratio in common",
    )
    overrides: tuple[Override, ...] = Field(
        (), max_length=RULES, description="rules for groups by name; later ones win"
    )
    kinds: KindRules = Field(KindRules(), description="rules for groups by kind; overrides win over them")
    attention: Literal["heads", "head_dim"] = Field("heads", description="cut whole heads, or inside every head")
    blocks: bool = Field(False, description="whole residual blocks may go, too")


def load_space_options(path: Path) -> SpaceOptions:
    """Read a file of `search_spaces/`.

    Raises:
        ConfigError: as for `load_job`.
    """
    return validated(SpaceOptions, read_mapping(path, empty={}), str(path))  # a file may leave out any key, even all
