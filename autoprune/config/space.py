"""Which widths are allowed: the `space:` part of a job, and the files of `search_spaces/`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
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


_PATTERN = re.compile(r"unstructured|(N|\d{1,2}):(\d{1,2})|([1-9]\d?)x([1-9]\d?)", re.ASCII)


class DensityOptions(Strict):
    """A density for each layer: its single weights go, its shape stays."""

    pattern: str = Field(
        "unstructured",
        max_length=16,
        description="which weights may go: unstructured; 2:4 (2 of 4 neighbours along the inputs stay, or all), N:4 (1 "
        "to 4 of them); 1x4 (blocks: outputs x inputs). In quotes",
    )
    layers: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=RULES)] = Field(
        ("*",), description="shell-style patterns of the layers that get a density; all others stay dense"
    )
    steps: int = Field(
        64,
        ge=2,
        le=1024,
        description="at most so many densities of a layer, evenly apart; not for N:M",
    )
    min_density: Share = Field(0.02, description="no layer below this share of its weights")
    compare: Literal["layer", "output"] = Field(
        "layer",
        description="a weight competes with all of its layer, or with those of the same output (Wanda); not for N:M",
    )

    @field_validator("pattern")
    @classmethod
    def _known(cls, given: str) -> str:
        found = _PATTERN.fullmatch(given)
        if not found:
            raise ValueError('must be unstructured, N:M such as "2:4" or "N:4", or blocks such as 1x4')
        kept, of = found[1], found[2]
        if of is not None and (int(of) < 2 or (kept != "N" and not 1 <= int(kept) < int(of))):
            raise ValueError("N:M keeps at least 1 and fewer than M of every M weights")
        return given

    @property
    def kept_of(self) -> tuple[int | None, int] | None:
        """(N, M) of N:M, N None where it is searched; None for another pattern."""
        found = _PATTERN.fullmatch(self.pattern)
        if not found or found[2] is None:
            return None
        return (None if found[1] == "N" else int(found[1])), int(found[2])

    @property
    def block(self) -> tuple[int, int]:
        """(outputs, inputs) of what goes together."""
        found = _PATTERN.fullmatch(self.pattern)
        return (int(found[3]), int(found[4])) if found and found[3] is not None else (1, 1)


class RankOptions(Strict):
    """A rank for each layer: two factors take its place, or it stays as it is."""

    layers: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=RULES)] = Field(
        ("*",), description="shell-style patterns of the layers that get a rank; all others stay as they are"
    )
    steps: int = Field(64, ge=1, le=1024, description="at most so many ranks of a layer below the layer itself")
    min_ratio: Share = Field(0.05, description="no rank below this share of the highest one that saves weights")


class BitOptions(Strict):
    """How many bits the weights of each layer are stored in."""

    choices: Annotated[tuple[Annotated[int, Field(ge=2, le=8)], ...], Field(min_length=1, max_length=7)] = Field(
        (2, 3, 4, 5, 6, 7, 8), description="allowed numbers of bits, 2 to 8; a layer may always stay as it is, too"
    )
    layers: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=RULES)] = Field(
        ("*",), description="shell-style patterns of the layers that get bits; all others stay as they are"
    )
    widths: bool = Field(False, description="search widths, too, under the same budget (CLIP-Q)")

    @field_validator("choices")
    @classmethod
    def _ascending(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(given)))


class ResolutionOptions(Strict):
    """Smaller images: the network sees each one at a size that is searched."""

    min_ratio: Share = Field(0.5, description="no images below this share of their height")
    divisor: int = Field(
        4, ge=1, le=1024, description="heights are multiples of this, such as the network's stride; or as they are"
    )


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
    resolution: ResolutionOptions | None = Field(
        None, description="the size at which the network sees images is searched, too"
    )
    density: DensityOptions | None = Field(
        None, description="search the density of each layer instead of its width; with exclude, but no other key"
    )

    rank: RankOptions | None = Field(
        None, description="search the rank of each layer's weights instead of its width; with exclude, but no other key"
    )

    bits: BitOptions | None = Field(
        None,
        description="search in how many bits the weights of each layer are stored, beside its width (widths: true), "
        "or with exclude and no other key",
    )

    @model_validator(mode="after")
    def _no_widths_beside(self) -> Self:
        what = "density" if self.density is not None else "rank" if self.rank is not None else "bits"
        if what == "bits" and self.bits is not None and self.bits.widths:
            beside = "blocks" if self.blocks else "resolution" if self.resolution is not None else ""
            if beside:
                raise ValueError(f"bits cannot be searched together with {beside}; leave one of them out")
            return self
        others = sorted(self.model_fields_set - {what, "exclude"})
        changed = [name for name in others if getattr(self, name) != type(self).model_fields[name].get_default()]
        if getattr(self, what) is not None and changed:
            raise ValueError(
                f"{what} is searched at full widths, so that {', '.join(changed)} would say nothing; leave it out "
                f"(exclude keeps layers as they are)"
            )
        return self


def load_space_options(path: Path) -> SpaceOptions:
    """Read a file of `search_spaces/`.

    Raises:
        ConfigError: as for `load_job`.
    """
    return validated(SpaceOptions, read_mapping(path, empty={}), str(path))  # a file may leave out any key, even all
