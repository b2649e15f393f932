"""What a criterion says it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from autoprune.errors import ConfigError

Need: TypeAlias = Literal[
    "weights",  # that write the channels, and scales of batch norms
    "readers",  # weights that read them
    "activations",  # moments of what the readers get
    "inputs",  # the mean square of what each weight of a reader multiplies
    "pooled",  # means per example
    "maps",  # values of some examples, position by position
    "moments",  # second moments of all that a weight which reads the channels is multiplied with
    "gradients",  # first-order terms
    "curvature",  # second-order terms
    "outputs",  # all groups at once and the network, for runs that the criterion chooses: see `network`
    "losses",  # the same with labels
]

NETWORK: frozenset[Need] = frozenset({"outputs", "losses"})
"""Kinds for which a criterion is called once, with all groups (`network.NetworkEvidence`)."""

RUN: frozenset[Need] = frozenset({"activations", "inputs", "pooled", "maps", "moments", "gradients", "curvature"})
"""Kinds that are gathered in one pass for all groups."""

DATA: frozenset[Need] = RUN | {"outputs", "losses"}
"""Kinds that cannot do without calibration data."""

LOSS: frozenset[Need] = frozenset({"gradients", "curvature", "losses"})
"""Kinds that cannot do without a loss."""

Members: TypeAlias = Literal["filters", "norm_scales", "readers", "maps", "moments"]
"""The part of the evidence with one entry per layer of the group."""

_F = TypeVar("_F", bound=Callable[..., Any])


def criterion(
    *needs: Need, zeros_last: bool = True, members: Members | None = None, blind: bool = False, single: bool = False
) -> Callable[[_F], _F]:
    """Mark a criterion with what it needs; one without a mark needs `weights` only.

    Args:
        needs: the kinds of evidence it reads.
        zeros_last: whether a channel of zeros is the least important one (False for the geometric median).
        members: what is split where the setting `reduction` asks for scores layer by layer; None: there is nothing to
            split.
        blind: a control that looks at no evidence.
        single: it holds for single weights, too, where evidence has a row for each weight (or block of weights) of a
            layer in place of a channel: filters, readers, inputs, gradients by weights and moments, or sums over them.
    """

    def mark(part: _F) -> _F:
        part.needs, part.zeros_last = frozenset(needs or ("weights",)), zeros_last  # type: ignore[attr-defined]
        part.members, part.blind, part.single = members, blind, single  # type: ignore[attr-defined]
        return part

    return mark


def needs_of(part: object) -> frozenset[Need]:
    """What a criterion needs.

    Raises:
        ConfigError: it asks for a kind of evidence that there is not.
    """
    needs = frozenset(getattr(part, "needs", ("weights",)))
    known = get_args(Need)
    unknown = sorted(str(need) for need in needs - set(known))
    if unknown:
        raise ConfigError(f"a criterion needs {unknown[0]!r}, which is no evidence; there are {', '.join(known)}")
    return needs
