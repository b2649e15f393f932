"""One trial of a space: cut networks of a scrambled model are built and compared with masked ones.

Longer than others, as it is one class: a cut and what it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from autoprune.config.space import SpaceOptions
from autoprune.errors import AutopruneError, SpaceError
from autoprune.space.cutting.graph_form import graph_network
from autoprune.space.cutting.slicing import Ranking, random_ranking, slice_model
from autoprune.space.groups import SearchSpace, Widths, with_all_blocks
from autoprune.space.options.choices import freeze_groups
from autoprune.space.tracing.program import Example, Program, plain_attention, run_model, tensors
from autoprune.space.tracing.trace import Traced, trace
from autoprune.space.verification.blueprint import Blueprint
from autoprune.space.verification.comparison import TOLERANCE, in_double, relative, varied
from autoprune.space.verification.cuts import common_widths, halves
from autoprune.space.verification.flop_check import (
    counted_by_fvcore,
    counted_by_torch,
    multiply_adds,
    multiply_adds_for_torch,
)
from autoprune.space.verification.longer import carried_over, lengthened
from autoprune.space.verification.masked import run_masked
from autoprune.space.verification.scramble import runs_in_training, silences
from autoprune.space.verification.telling import telling
from autoprune.texts import first_line

_RANDOM_CUTS = 3

_NUDGED, _SHAKEN = 1.0 + 2.0**-16, 0.1
"""What inputs are multiplied by, and the relative change of outputs that says a network blows errors up."""

_Count: TypeAlias = Callable[[SearchSpace, Widths, Ranking], tuple[int, int]]


class _NotCountedError(Exception):
    """fvcore cannot trace a network."""


@final
class CutTrial:
    """Builds cut networks of one scrambled model and compares them with masked ones."""

    def __init__(self, model: nn.Module, traced: Traced, seed: int) -> None:
        self.model = model
        self._program: Program = traced.program
        self._rng = np.random.default_rng(seed)
        self._graphs: dict[int, nn.Module] = {}
        self._traced = traced
        self._own_problem, self._graph_problem = "", ""  # what is wrong with each form
        self._double: CutTrial | None = None  # made where rounding errors must be told from wrong cuts
        self._dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        self._tolerance = TOLERANCE.get(self._dtype, 1e-4)
        self.example: Example = telling(model, self._program, traced.example, self._tolerance)
        self._blueprint = Blueprint(model, self._program, self.example, self._tolerance)

    def run(self, space: SearchSpace) -> tuple[SearchSpace, float | None]:
        """Try cuts until one fails; return the space to try next, or the largest error where none failed."""
        worst = 0.0
        telling = with_all_blocks(space, space.smallest)
        for number, (widths, ranking) in enumerate(self._cuts(space)):
            inside = number == 0 or widths == telling
            error, problem = self._compare(space, widths, ranking, inside=inside)
            if problem and self._turns_to_graph(space, problem):
                return replace(space, form="graph"), None
            if problem:
                found = self._culprits(space, widths, ranking, inside=inside)
                return freeze_groups(space, self._in_both_forms(space, found)), None
            worst = max(worst, error)
        self._check_sight(space)
        if space.form == "module":
            if not self._trains(space) and self._turns_to_graph(space, "a cut network does not run in training mode"):
                return replace(space, form="graph"), None
            wrong = self._wrong_when_longer(space)
            if wrong and self._turns_to_graph(space, next(iter(wrong.values()))):
                return replace(space, form="graph"), None
            if wrong:
                return freeze_groups(space, self._in_both_forms(space, wrong)), None
        return space, worst

    def _turns_to_graph(self, space: SearchSpace, problem: str) -> bool:
        """True where the graph takes over from the model's own class, which has this problem; remembers both."""
        if space.form == "graph":
            return False
        self._own_problem, self._graph_problem = problem, self._why_no_graph(space)
        return not self._graph_problem

    @property
    def own_problem(self) -> str:
        """What is wrong with cuts in the model's own class; empty where they are right."""
        return self._own_problem

    def own_class_passes(self, space: SearchSpace) -> bool:
        """True where cuts of the model's own class are right in this space, of module form; a few are tried."""
        for widths in (self._cut(space, set(range(len(space.groups)))), with_all_blocks(space, space.smallest)):
            if self._compare(space, widths, random_ranking(space, self._rng), inside=True)[1] is not None:
                return False
        return self._trains(space) and not self._wrong_when_longer(space)

    def _in_both_forms(self, space: SearchSpace, reasons: dict[int, str]) -> dict[int, str]:
        """The reasons, each with what is wrong in the other form."""
        if space.form == "module":
            return {
                index: f"{reason} (nor as its traced graph: {self._graph_problem})" for index, reason in reasons.items()
            }
        if not self._own_problem:
            return reasons
        own = f"in its own class, {self._own_problem}"
        return {index: f"as its traced graph, {reason}; {own}" for index, reason in reasons.items()}

    def _wrong_when_longer(self, space: SearchSpace) -> dict[int, str]:
        """The groups whose cut is right for this example and wrong for one with longer axes, each with a reason."""
        if space.presence.blocks:
            return {}
        for example in lengthened(self.model, self.example, self._tolerance):
            whole = self._wrong_for(space, example, "heads")
            inside = self._wrong_for(space, example, "head_dim") if whole else {}  # a trace anew takes long
            if inside:
                return min(whole, inside, key=len)
        return {}

    def _wrong_for(self, space: SearchSpace, example: Example, attention: str) -> dict[int, str]:
        options = SpaceOptions.model_validate({"attention": attention})
        try:
            traced = trace(self.model, example, options=options)
        except AutopruneError:
            return {}  # what no tracer can follow cannot be held against anything
        longer = carried_over(space, traced.space)
        if longer is None:
            where = "its channels lie otherwise where an axis of one of the example input is longer"
            return dict.fromkeys(range(len(space.groups)), f"{where}; trace with a longer example")
        trial = CutTrial(self.model, replace(traced, space=longer), 0)
        for _ in range(2):
            ranking = random_ranking(longer, self._rng)
            if trial._compare(longer, longer.smallest, ranking, inside=True)[1] is not None:
                return trial._culprits(longer, longer.smallest, ranking, inside=True)
        return {}

    def _trains(self, space: SearchSpace) -> bool:
        """False where the full network runs in training mode and a cut one does not: a part that only training runs."""
        cut = self._sliced(space, space.smallest, random_ranking(space, self._rng))
        return not runs_in_training(self.model, self.example) or runs_in_training(cut, self.example)

    def _check_sight(self, space: SearchSpace) -> None:
        """A network whose output does not change when everything is cut verifies nothing."""
        if space.smallest == space.full:
            return
        ranking = random_ranking(space, self._rng)
        cut = self._masked(space, space.smallest, ranking)
        if all(relative(a, b) <= self._tolerance for a, b in zip(cut, self._outputs(self.model), strict=True)):
            raise SpaceError(
                "the outputs for this example input do not change when channels are cut, so no cut can be verified; "
                "give an example input to which the network responds"
            )

    def _masked(self, space: SearchSpace, widths: Widths, ranking: Ranking) -> list[Tensor]:
        return tensors(run_masked(self.model, self._program, space, self.example, widths, ranking))

    def is_finite(self) -> bool:
        """True where all outputs are numbers."""
        try:
            return all(bool(output.isfinite().all()) for output in self._outputs(self.model))
        except Exception:  # noqa: BLE001 - a forward may ask about values that are no longer what they were
            return False

    def is_steady(self) -> bool:
        """False where a small change of the inputs comes out so large that rounding errors may pass for a wrong cut."""
        nudged = tree_map(lambda v: v * _NUDGED if isinstance(v, Tensor) and v.is_floating_point() else v, self.example)
        try:
            with torch.no_grad():
                changed = tensors(run_model(self.model, nudged))
        except Exception:  # noqa: BLE001 - a forward may ask about values that are no longer what they were
            return True
        before = self._outputs(self.model)
        return all(relative(a, b) <= _SHAKEN for a, b in zip(changed, before, strict=True) if a.shape == b.shape)

    def follows_graph(self) -> bool:
        """False where forward decides by a value that is no longer what it was."""
        space = self._traced.space
        try:
            full = self._masked(space, space.full, random_ranking(space, self._rng))
        except Exception:  # noqa: BLE001 - sizes that follow values are those of the traced ones
            return False
        found = self._outputs(self.model)
        return all(a.shape == b.shape and relative(a, b) <= self._tolerance for a, b in zip(found, full, strict=True))

    def check_repeatable(self) -> None:
        """Two passes of the same network must agree, and so must its graph, or no comparison means anything."""
        once, again = (self._outputs(self.model) for _ in range(2))
        if any(relative(a, b) > self._tolerance for a, b in zip(once, again, strict=True)):
            if not all(bool(output.isfinite().all()) for output in once):
                raise SpaceError(
                    "the model gives infinity or NaN for the example input, so that no two networks can be compared; "
                    "give another example, and let masked outputs be a large negative number (-1e4) instead of -inf"
                )
            raise SpaceError(
                "the model gives two different outputs for the same input in evaluation mode; "
                "switch off what is random in its forward, or what remembers earlier inputs"
            )

    def check_flops(self, space: SearchSpace) -> None:
        """Hold what cutting saves in closed form against fvcore's counts on networks really built.

        Products that fvcore cannot see (fused attention, recurrent layers) are left out on both sides. Where fvcore
        cannot trace a network, or counts otherwise (it takes a matrix by a batch for one product), torch's counter
        counts it, at widths of which none is one: it sees no such products.
        """
        smallest = with_all_blocks(space, space.smallest)
        try:
            self._hold_flops(space, (smallest, space.smallest), self._by_fvcore, "fvcore")
        except (_NotCountedError, SpaceError) as by_fvcore:
            wide = space.nearest([max(2.0, g.width / 2) for g in space.groups])
            try:
                self._hold_flops(space, (with_all_blocks(space, wide),), self._by_torch, "torch")
            except SpaceError:
                if isinstance(by_fvcore, SpaceError):
                    raise by_fvcore from None
                raise

    def _hold_flops(self, space: SearchSpace, tried: Sequence[Widths], count: _Count, counter: str) -> None:
        ranking = random_ranking(space, self._rng)
        full, ours_full = count(space, space.full, ranking)
        for widths in dict.fromkeys(tried):
            cut, ours_cut = count(space, widths, ranking)
            if ours_full - ours_cut != full - cut or ours_full < full:
                raise SpaceError(
                    f"closed-form FLOPs {ours_full:,} and, at the widths that were tried, {ours_cut:,} differ from "
                    f"{counter}'s {full:,} and {cut:,}; a budget cannot be kept on a wrong count. "
                    f"Please report this model"
                )

    def _by_fvcore(self, space: SearchSpace, widths: Widths, ranking: Ranking) -> tuple[int, int]:
        """Multiply-adds by fvcore and in closed form."""
        network = self._sliced(space, widths, ranking)
        try:
            return counted_by_fvcore(network, self.example), multiply_adds(space, widths)
        except Exception as error:
            raise _NotCountedError from error

    def _by_torch(self, space: SearchSpace, widths: Widths, ranking: Ranking) -> tuple[int, int]:
        """Multiply-adds by torch's counter and in closed form."""
        network = self._sliced(space, widths, ranking)
        try:
            return counted_by_torch(network, self.example), multiply_adds_for_torch(space, widths, self.model)
        except Exception as error:
            raise SpaceError(
                f"neither fvcore nor torch can count the FLOPs of this model ({type(error).__name__}: "
                f"{first_line(error)}), so the closed form cannot be held against them. Please report this model"
            ) from error

    def _cuts(self, space: SearchSpace) -> Iterator[tuple[Widths, Ranking]]:
        """All groups cut at random, then every two groups apart (one cut, one full), then the smallest widths.

        Where groups are apart, the order of channels is also reversed, so that every channel is cut once. Blocks are
        left out last: every two of them apart, then all (what is cut inside a block that is not there shows nothing).
        """
        blocks = set(space.presence.blocks)
        groups = set(range(len(space.groups))) - blocks
        for _ in range(_RANDOM_CUTS):
            yield self._cut(space, groups), random_ranking(space, self._rng)
        for apart in halves(groups):
            widths = self._cut(space, apart)
            ranking = random_ranking(space, self._rng)
            yield widths, ranking
            yield widths, tuple(rank.max() - rank for rank in ranking)
        for channels in common_widths(space):  # a forward that asks whether two shapes are equal must show itself
            yield with_all_blocks(space, channels), random_ranking(space, self._rng)
        yield with_all_blocks(space, space.smallest), random_ranking(space, self._rng)
        for apart in halves(blocks):
            yield self._cut(space, groups | apart), random_ranking(space, self._rng)
        if blocks:
            yield space.smallest, random_ranking(space, self._rng)

    def _cut(self, space: SearchSpace, indices: set[int]) -> Widths:
        return tuple(
            int(self._rng.choice(group.choices[:-1] or group.choices)) if index in indices else group.width
            for index, group in enumerate(space.groups)
        )

    def _culprits(self, space: SearchSpace, widths: Widths, ranking: Ranking, *, inside: bool) -> dict[int, str]:
        """The groups without which these widths pass, and what goes wrong with each; found by halving."""
        reasons: dict[int, str] = {}
        good: set[int] = set()

        def search(suspects: list[int]) -> None:
            cut = good.union(suspects)
            only = tuple(w if i in cut else full for i, (w, full) in enumerate(zip(widths, space.full, strict=True)))
            problem = self._compare(space, only, ranking, inside=inside)[1]
            if problem is None:
                good.update(suspects)
            elif len(suspects) == 1:
                reasons[suspects[0]] = problem
            else:
                search(suspects[: len(suspects) // 2])
                search(suspects[len(suspects) // 2 :])

        search(list(range(len(space.groups))))
        return reasons

    def _compare(
        self, space: SearchSpace, widths: Widths, ranking: Ranking, *, inside: bool
    ) -> tuple[float, str | None]:
        """Return the relative error of the sliced network, and what is wrong with it (None: nothing).

        With `inside`, every value in it is compared, not only its outputs.
        """
        try:
            expected = self._masked(space, widths, ranking)
        except Exception as error:  # noqa: BLE001 - a graph whose sizes depend on values runs on the traced ones only
            return math.inf, f"sizes inside the model depend on values: {first_line(error)}"
        try:
            cut = self._sliced(space, widths, ranking)
            found = self._outputs(cut)
        except Exception as error:  # noqa: BLE001 - user code on a cut network may fail in any way; it is frozen then
            return math.inf, f"the cut network does not run: {type(error).__name__}: {first_line(error)}"
        if [o.shape for o in found] != [o.shape for o in expected]:
            return math.inf, "the cut network's output has another shape"
        worst = max((relative(f, e) for f, e in zip(found, expected, strict=True)), default=0.0)
        problem = f"the cut network's output differs by {worst:.1e}" if worst > self._tolerance else None
        if problem is None and inside and space.form == "module":
            problem = self._blueprint.problem(cut, space, widths, ranking)
        exact = self._in_double(space, widths, ranking, inside=inside) if problem else None
        return (exact, None) if exact is not None else (worst, problem)

    def _in_double(self, space: SearchSpace, widths: Widths, ranking: Ranking, *, inside: bool) -> float | None:
        """The error in double precision, if it vanishes there: some deep networks blow rounding errors up."""
        if self._dtype != torch.float32:
            return None
        if self._double is None:
            model, example = in_double(self.model, self.example)
            self._double = CutTrial(model, replace(self._traced, example=example), 0)
            self._double._tolerance = self._tolerance  # a wrong cut is blown up as much as a rounding error
        error, problem = self._double._compare(space, widths, ranking, inside=inside)
        return None if problem else error

    def _sliced(self, space: SearchSpace, widths: Widths, ranking: Ranking) -> nn.Module:
        if space.form == "module":
            return slice_model(self.model, space, widths, ranking)
        if id(space) not in self._graphs:
            self._graphs = {id(space): graph_network(self.model, self._program, space, self.example, trained=False)}
        return slice_model(self._graphs[id(space)], space, widths, ranking)

    def _why_no_graph(self, space: SearchSpace) -> str:
        """Why the graph does not give what the model gives, whatever forward decides by values; empty where it does."""
        if self._program.decides:
            return "its forward decides by values, and the graph holds what it decided for this example"
        if silences(self._program):
            return "a constant of zero multiplies a part of it, which the graph would never open"
        examples = [self.example]
        if self._program.tracer == "make_fx":
            examples += [tree_map(partial(varied, factor=factor), self.example) for factor in (-1.0, 3.0)]
        try:
            graph = graph_network(self.model, self._program, space, self.example, trained=False)
            with plain_attention():  # torch's fused one leaves no numbers where a mask leaves nothing
                pairs = [
                    pair
                    for example in examples
                    for pair in zip(self._outputs(graph, example), self._outputs(self.model, example), strict=True)
                ]
        except Exception as error:  # noqa: BLE001 - a graph that does not run is no form of the model
            return f"it does not run, {type(error).__name__}: {first_line(error)}"
        return "" if all(_same(a, b, self._tolerance) for a, b in pairs) else "it gives other outputs than the model"

    def _outputs(self, model: nn.Module, example: Example | None = None) -> list[Tensor]:
        with torch.no_grad():
            return tensors(run_model(model, self.example if example is None else example))


def _same(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """True for equal outputs, what is no number (a row that a mask leaves nothing of) in the same places."""
    if one.shape != other.shape or not torch.equal(one.isnan(), other.isnan()):
        return False
    return relative(one.nan_to_num(0), other.nan_to_num(0)) <= tolerance
