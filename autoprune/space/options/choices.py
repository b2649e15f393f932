"""What a space file allows: minimum, granularity, explicit ratios; groups that stay whole; groups that are tied."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from autoprune.config.space import KindRules, SpaceOptions, WidthRule
from autoprune.errors import SpaceError, suggest
from autoprune.space.groups import FrozenPart, SearchSpace, WidthGroup, Widths
from autoprune.space.kinds import KINDS
from autoprune.space.options.regroup import Place, regroup
from autoprune.space.options.ties import matching, partition, tie, tied_sets


@final
@dataclass(frozen=True, slots=True)
class Allowed:
    """What holds for one group, in channels (or heads).

    Attributes:
        min_ratio: no width below this share of the full one.
        min_channels: no width below this number.
        divisor: widths are multiples of it.
        ratios: explicit choices as shares of the full width; None allows every multiple.
    """

    min_ratio: float = 0.1
    min_channels: int = 1
    divisor: int = 1
    ratios: tuple[float, ...] | None = None


def apply_options(space: SearchSpace, options: SpaceOptions) -> SearchSpace:
    """Return the space that a space file describes, given one in which every width is allowed.

    In this order: exclusions, `inner_only`, ties, choices (kinds, then overrides).

    Raises:
        SpaceError: a pattern matches no layer, or tied widths have no common divisor.
    """
    for place, patterns in _patterns(options):
        _check_patterns(space, place, patterns)
    less = exclude(space, options.exclude)
    if options.inner_only:
        residual = [index for index, group in enumerate(less.groups) if group.residual]
        less = freeze_groups(less, dict.fromkeys(residual, "inner_only: it feeds a residual sum"))
    rules = _rules(less, options)
    sets = tied_sets(less, options)
    tied = tie(less, sets)
    parts = [[(less.groups[old].width, rules[old]) for old in indices] for indices in partition(len(less.groups), sets)]
    groups = [replace(g, choices=width_choices(p)) for g, p in zip(tied.groups, parts, strict=True)]
    notes = (*space.notes, *_unused(less, options), *_unchanging(groups, parts), *_uneven(groups, parts))
    return replace(tied, groups=tuple(groups), notes=notes)


def width_choices(parts: Sequence[tuple[int, Allowed]]) -> Widths:
    """Allowed widths of one group, ascending, in units; always ends with the full width.

    A full width that is no multiple of the divisor stays allowed; a group narrower than the divisor has no other.
    Where no common ratio makes every tied set a multiple of its divisor, it holds for the narrowest.

    Args:
        parts: (channels, what is allowed) of each tied set; a single one where nothing is tied.
    """
    width = math.gcd(*(channels for channels, _ in parts))
    per_unit = [channels // width for channels, _ in parts]
    steps = [rule.divisor // math.gcd(rule.divisor, k) for k, (_, rule) in zip(per_unit, parts, strict=True)]
    step = math.lcm(*steps)
    if step >= width:
        step = steps[per_unit.index(min(per_unit))]
    least = max(
        math.ceil(max(rule.min_channels, math.ceil(channels * rule.min_ratio - 1e-9)) / k)
        for k, (channels, rule) in zip(per_unit, parts, strict=True)
    )
    explicit = [set(rule.ratios) for _, rule in parts if rule.ratios is not None]
    if explicit:
        candidates = {_to_multiple(width * ratio, step, width) for ratio in set.intersection(*explicit)}
    else:
        candidates = set(range(step, width, step))
    return (*sorted(c for c in candidates if least <= c < width), width)


def exclude(space: SearchSpace, patterns: tuple[str, ...]) -> SearchSpace:
    """Freeze every group with a layer whose name matches one of the shell-style patterns.

    Raises:
        SpaceError: a pattern matches no layer of any group.
    """
    _check_patterns(space, "exclude", patterns)
    reasons = {index: f"excluded by {pattern!r}" for pattern in patterns for index in matching(space, pattern)}
    return freeze_groups(space, reasons)


def freeze_groups(space: SearchSpace, reasons: Mapping[int, str]) -> SearchSpace:
    """Return the space without these groups (index -> reason): their channels stay, and are listed as frozen."""
    if not reasons:
        return space
    left = [index for index in range(len(space.groups)) if index not in reasons]
    new_index = {old: new for new, old in enumerate(left)}
    places = [Place(new_index[old], 0) if old in new_index else None for old in range(len(space.groups))]
    frozen = [
        FrozenPart(layer, _channels(space, index, layer), reason)
        for index, reason in reasons.items()
        for layer in space.groups[index].members
    ]
    less = regroup(space, tuple(space.groups[index] for index in left), places)
    return replace(less, frozen=(*space.frozen, *frozen))


def kinds_of(space: SearchSpace) -> list[str]:
    """Which of the kinds of a space file each group is; see `KindRules`."""
    own = [KINDS[group.kind].rule for group in space.groups]
    inner, residual = ("mlp", "embedding") if any(own) else ("channels", "channels")
    return [rule or (residual if g.residual else inner) for rule, g in zip(own, space.groups, strict=True)]


def _rules(space: SearchSpace, options: SpaceOptions) -> list[Allowed]:
    """What is allowed for each group; of the general keys, those that count channels do not hold for other units."""
    general = Allowed(options.min_ratio, options.min_channels, options.divisor, options.ratios)
    of_units = Allowed(options.min_ratio, ratios=options.ratios)
    matched = [(override, set(matching(space, override.match))) for override in options.overrides]
    rules = []
    for index, kind in enumerate(kinds_of(space)):
        other_units = KINDS[space.groups[index].kind].rule is not None
        rule = _changed(of_units if other_units else general, getattr(options.kinds, kind))
        for override, indices in matched:
            rule = _changed(rule, override) if index in indices else rule
        rules.append(rule)
    return rules


def _changed(rule: Allowed, by: WidthRule) -> Allowed:
    given = {name: getattr(by, name) for name in WidthRule.model_fields}
    return replace(rule, **{name: value for name, value in given.items() if value is not None})


def _patterns(options: SpaceOptions) -> Iterable[tuple[str, tuple[str, ...]]]:
    yield "exclude", options.exclude
    for patterns in options.tie:
        yield "tie", patterns
    yield "overrides", tuple(override.match for override in options.overrides)


def _check_patterns(space: SearchSpace, place: str, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        if not matching(space, pattern):
            layers = sorted({layer for group in space.groups for layer in group.members})
            raise SpaceError(
                f"{place}: {pattern!r} matches no layer that could be cut.{suggest(pattern, layers)} "
                f"`autoprune space MODEL` lists the layers of every group"
            )


def _unused(space: SearchSpace, options: SpaceOptions) -> list[str]:
    """What the options say that changes nothing."""
    present = kinds_of(space)
    notes = [
        f"kinds.{kind}: this model has no groups of this kind; the rule changes nothing"
        for kind in KindRules.model_fields
        if getattr(options.kinds, kind) != WidthRule() and kind not in present
    ]
    for patterns in options.tie:
        if len({index for pattern in patterns for index in matching(space, pattern)}) < 2:
            notes.append(f"tie: {', '.join(patterns)} matches fewer than two groups that are cut; nothing is tied")
    if options.per != "layer" and not tied_sets(space, options):
        notes.append(f"per: no two groups are in one {options.per}; each has a ratio of its own")
    return notes


def _unchanging(groups: Sequence[WidthGroup], parts: Sequence[Sequence[tuple[int, Allowed]]]) -> list[str]:
    """Which groups have no width but the full one, a line for each reason."""
    stay: dict[str, list[str]] = defaultdict(list)
    for group, tied in zip(groups, parts, strict=True):
        if len(group.choices) == 1:
            channels, rule = min(tied, key=lambda part: part[0])
            narrow = channels <= rule.divisor > 1
            reason = f"no wider than the divisor {rule.divisor}" if narrow else "minimum and ratios allow no other"
            stay[reason].append(_with_widths(group))
    return [f"these groups stay whole, {reason}: {', '.join(names)}" for reason, names in stay.items()]


def _uneven(groups: Sequence[WidthGroup], parts: Sequence[Sequence[tuple[int, Allowed]]]) -> list[str]:
    """Which tied groups cannot keep the divisor in every set."""
    notes = []
    for group, tied in zip(groups, parts, strict=True):
        cut = group.choices[:-1]
        missed = {r.divisor for n, r in tied if any(n // group.width * units % r.divisor for units in cut)}
        if missed:
            divisors = " and ".join(map(str, sorted(missed)))
            notes.append(f"{_with_widths(group)}: no common ratio gives every width a multiple of {divisors}")
    return notes


def _with_widths(group: WidthGroup) -> str:
    return f"{group.name} ({' and '.join(map(str, group.sets or (group.width,)))})"


def _channels(space: SearchSpace, index: int, layer: str) -> int:
    """How many channels of a group a layer writes: a unit of the group may be several (a head, tied ones)."""
    group = space.groups[index]
    written = [
        int((axis.group == index).sum())
        for tensor in space.tensors
        if layer in {name.rpartition(".")[0] for name in (tensor.name, *tensor.names)}
        for dim, axis in enumerate(tensor.axes)
        if axis is not None and dim not in tensor.reads
    ]
    return max(written, default=0) or group.slots


def _to_multiple(value: float, divisor: int, full: int) -> int:
    nearest = max(divisor, round(value / divisor) * divisor)
    return min(full, nearest)
