"""Verification: every space is tried before it is used.

A random cut of every group is built and run; its output must equal the full model with the cut channels masked (they
reach no consumer), and the closed-form FLOPs must equal fvcore's count on the cut network. Where a cut of the user's
own module does not run or differs, the graph form takes over; a group that fails there is frozen with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.errors import SpaceError
from autoprune.randomness import untouched
from autoprune.space.cutting.graph_form import GraphNetwork, graph_network
from autoprune.space.groups import SearchSpace
from autoprune.space.kinds import KINDS
from autoprune.space.options.bits import with_bits
from autoprune.space.options.resolution import with_resolution
from autoprune.space.options.ties import tie
from autoprune.space.tracing.shapes import with_shapes
from autoprune.space.tracing.trace import Traced
from autoprune.space.verification.factored import check_factored
from autoprune.space.verification.scramble import scrambled, silences
from autoprune.space.verification.training_check import check_training
from autoprune.space.verification.trial import CutTrial


@final
@dataclass(frozen=True, eq=False)
class Verified:
    """A space whose groups were all cut, built and compared.

    Attributes:
        space: without the groups that failed; those are listed as frozen. Its `form` is the one that was tried.
        network: the full network in the form of the space: the model itself, or its graph; cut networks come from it.
        largest_error: largest relative difference between sliced and masked outputs that was seen and accepted.
    """

    space: SearchSpace
    network: nn.Module
    largest_error: float


def verify(model: nn.Module, traced: Traced, *, seed: int = 0) -> Verified:
    """Cut every group at random, compare with the masked full model, and hold the FLOPs against fvcore.

    Args:
        model: the traced model; only read.
        traced: what `trace` made of it.
        seed: of the random cuts.

    Raises:
        SpaceError: fvcore counts other FLOPs than the closed form, no group is left, or the model is random.
    """
    _check_values(model, traced)
    if traced.space.densities or traced.space.only_bits:  # other weights are no other network
        return unverified(model, traced)
    verified = _verified(model, traced, seed)
    return replace(verified, space=_joined(verified.space, traced))


def _verified(model: nn.Module, traced: Traced, seed: int) -> Verified:
    if traced.space.factors:
        return replace(unverified(model, traced), largest_error=check_factored(model, traced.space, traced.example))
    with untouched():
        trial = _trial(model, traced, seed)
        trial.check_repeatable()
        # a gate that is a number of zero would stay closed in a graph: only the own class follows its owner
        space = replace(traced.space, form="module") if silences(traced.program) else traced.space
        _check_groups(space)
        space, worst = trial.run(space)
        while worst is None:  # every round but the first freezes a group
            _check_groups(space)
            space, worst = trial.run(space)
        trial.check_flops(space)
        if space.form == "graph":
            space = replace(space, why_graph=_why_graph(space, trial))
    verified = _with_network(model, traced, space, worst)
    if not isinstance(verified.network, GraphNetwork):
        return verified
    scrambled_model, example = trial.model, trial.example
    del trial  # and its graphs: gradients take as much memory again
    with untouched():
        checked = check_training(verified.space, scrambled_model, verified.network, example)
    return replace(verified, space=checked)


def _trial(model: nn.Module, traced: Traced, seed: int) -> CutTrial:
    """A trial on the loudest copy of the model that its graph still is the graph of, and that keeps rounding small."""
    unsteady: CutTrial | None = None
    for loud, single in ((True, True), (False, True), (True, False)):
        trial = CutTrial(scrambled(model, seed=seed, loud=loud, single=single), traced, seed)
        if trial.is_finite() and trial.follows_graph():
            if trial.is_steady():
                return trial
            unsteady = unsteady or trial
    if unsteady is not None:
        return unsteady
    trial = CutTrial(scrambled(model, seed=seed, single=False), traced, seed)
    return trial if trial.is_finite() else CutTrial(scrambled(model, seed=seed, loud=False, single=False), traced, seed)


def unverified(model: nn.Module, traced: Traced) -> Verified:
    """The space as it was traced, for those who only look at it."""
    seen = _with_network(model, traced, traced.space, math.nan)
    return replace(seen, space=_joined(seen.space, traced))


def _joined(space: SearchSpace, traced: Traced) -> SearchSpace:
    """With the groups whose widths change no shape of a tensor."""
    return with_resolution(with_bits(space, traced.bits), traced.resolution)


def _with_network(model: nn.Module, traced: Traced, space: SearchSpace, error: float) -> Verified:
    network = graph_network(model, traced.program, space, traced.example) if space.form == "graph" else model
    return Verified(with_shapes(space, traced.program, model), network, error)


def _why_graph(space: SearchSpace, trial: CutTrial) -> str:
    """What the model's own class does wrong when cut, and which ties would let it serve."""
    problem = trial.own_problem or "forward has a size in it that follows from the channels"
    owners = [group.name.partition("#")[0] for group in space.groups if not KINDS[group.kind].switches]
    pieces = list(dict.fromkeys(name for name in owners if owners.count(name) > 1))
    tied = _tied(space, pieces) if pieces else None
    if tied is None or not trial.own_class_passes(replace(tied, form="module")):
        return problem
    option = f"tie: [{', '.join(pieces)}]" if len(pieces) == 1 else f"tie: [{', '.join(f'[{p}]' for p in pieces)}]"
    return f"{problem}; the space option {option} keeps its own class, as pieces of a layer are then cut alike"


def _tied(space: SearchSpace, pieces: Sequence[str]) -> SearchSpace | None:
    """The space in which the groups of each of these layers are one; None where they have no ratio in common."""
    names = [group.name.partition("#")[0] for group in space.groups]
    try:
        return tie(space, [[i for i, name in enumerate(names) if name == piece] for piece in pieces])
    except SpaceError:
        return None


def _check_values(model: nn.Module, traced: Traced) -> None:
    given = [("its " + name, t) for name, t in (*model.named_parameters(), *model.named_buffers())]
    given += [("the example input", leaf) for leaf in tree_leaves(traced.example) if isinstance(leaf, Tensor)]
    without = next((name for name, tensor in given if tensor.is_meta), None)
    if without is not None:
        raise SpaceError(
            f"{without} is on the meta device and has no values, so no cut of {type(model).__name__} can be compared "
            f"with the full network: give real weights and inputs (model.to_empty(device='cpu'), initialised), or "
            f"verify=False to price widths alone"
        )


def _check_groups(space: SearchSpace) -> None:
    if not space.groups:
        reasons = "; ".join(sorted({f"{part.name}: {part.reason}" for part in space.frozen})[:3])
        reasons = reasons or "its graph has no layer whose channels another layer reads"
        raise SpaceError(f"nothing in this model can be pruned ({reasons})")
