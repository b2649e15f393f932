"""The contract of every rule that follows channels, as a test class: subclass it and give it small models.

class TestMine(RuleContract):
    cases = {"plain": lambda: RuleCase(MyNet(), torch.randn(2, 3, 8, 8), groups={"conv": 16})}

Each model uses the operator between layers that can be cut. Every cut is held against the model's own module with cut
channels masked (`autoprune.testing.masking`), never against the reference that `verify` uses.
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, TypeAlias, final

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from autoprune.config.space import SpaceOptions
from autoprune.cost import METRICS
from autoprune.space.cutting.graph_form import GraphNetwork
from autoprune.space.cutting.slicing import Ranking, random_ranking, slice_model
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.tracing.program import Example, run_model
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.flop_check import counted_by_fvcore, counted_by_torch, multiply_adds
from autoprune.space.verification.verify import verify
from autoprune.testing.generators import global_generators
from autoprune.testing.masking import Statistics, difference, largest_error, outputs, randomised

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest accepted relative difference, by the type of the outputs."""


@final
@dataclass(frozen=True, eq=False)
class RuleCase:
    """A small model that uses an operator, and what is expected of it.

    Attributes:
        model: any module; made anew for every case.
        example: one tensor, a tuple of positional inputs, or a mapping of keyword inputs.
        groups: width group -> width once verified; None leaves it open.
        frozen: layer -> a part of the reason why (some of) its channels stay; complete where `groups` is given, but
            for layers that make the model's output.
        form: what a cut network is; None leaves it open.
        statistics: modules of the model that take statistics over channels, beside torch's own norms.
        options: of the space.
        counted: False where torch's flop counter does not see a product (recurrent layers).
    """

    model: nn.Module
    example: Example
    groups: Mapping[str, int] | None = None
    frozen: Mapping[str, str] = field(default_factory=dict)
    form: str | None = None
    statistics: Statistics = field(default_factory=dict)
    options: SpaceOptions | None = None
    counted: bool = True


@final
@dataclass(frozen=True, eq=False)
class Tried:
    """A case after tracing and verification.

    Attributes:
        case: the case, with the model that was traced and verified.
        model: a copy in evaluation mode, without constant tensors.
        network: the same in the form of the space.
        space: the verified space.
        changed: what tracing, verification and a cut changed of what belongs to the caller.
    """

    case: RuleCase
    model: nn.Module
    network: nn.Module
    space: SearchSpace
    changed: Sequence[str]


_LAYERS = (_ConvNd, nn.Linear, nn.RNNBase)

Build: TypeAlias = Callable[[], RuleCase]
"""Makes a case; called with a fixed seed."""


@cache
def tried(build: Build) -> Tried:
    """Trace and verify a case as the caller would, once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        case = build()
    changed = _changes(case.model, case.example)
    verified = verify(case.model, trace(case.model, case.example, options=case.options))
    slice_model(verified.network, verified.space, *next(cuts(verified.space, number=0)))
    model = randomised(case.model)
    network: nn.Module = model
    if isinstance(verified.network, GraphNetwork):
        graph, copied = verified.network, copy.deepcopy(model)
        network = GraphNetwork(copied, graph.graph_plan, verified.space.full, kind=graph.traced_class)
    return Tried(case, model, network, verified.space, changed())


def _changes(model: nn.Module, example: Example) -> Callable[[], list[str]]:
    """Return a function that names what has changed since now of what belongs to the caller."""

    def met() -> dict[str, Any]:
        return {
            "the global generators": global_generators(),
            "the training flags": [m.training for m in model.modules()],
            "which tensors are its parameters": [id(t) for t in model.parameters()],
            "its class": type(model),
            "its hooks": [len(hooks) for m in model.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks)],
        }

    before, state, inputs = met(), _state(model), [leaf.clone() for leaf in _tensors(example)]

    def changed() -> list[str]:
        after, left = met(), _state(model)
        found = [what for what, value in before.items() if after[what] != value]
        found += [name for name in state if not torch.equal(state[name], left[name])]
        same = (torch.equal(one, other) for one, other in zip(inputs, _tensors(example), strict=True))
        return found if all(same) else [*found, "the example input"]

    return changed


def cuts(space: SearchSpace, *, number: int, seed: int = 0) -> Iterator[tuple[Widths, Ranking]]:
    """Yield random widths of all groups, each group cut alone, and the smallest widths, all with random rankings."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        yield tuple(int(rng.choice(group.choices)) for group in space.groups), random_ranking(space, rng)
    for index, group in enumerate(space.groups):
        alone = list(space.full)
        alone[index] = int(rng.choice(group.choices[:-1] or group.choices))
        yield tuple(alone), random_ranking(space, rng)
    yield space.smallest, random_ranking(space, rng)


class RuleContract:
    """Laws that hold for every operator; the subclass provides `cases`.

    Attributes:
        cases: name -> a function that makes the case.
        random_cuts: how many random widths are tried for each case.
    """

    cases: ClassVar[Mapping[str, Build]] = {}
    random_cuts: ClassVar[int] = 6

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run every test for every case."""
        if "build" in metafunc.fixturenames:
            metafunc.parametrize("build", list(self.cases.values()), ids=list(self.cases))

    def test_groups_and_frozen_parts_are_as_expected(self, build: Build) -> None:
        case, space = tried(build).case, tried(build).space
        assert space.groups, "nothing can be cut; a rule that freezes everything cannot be tested"
        if case.form is not None:
            assert space.form == case.form
        if case.groups is not None:
            assert {group.name: group.width for group in space.groups} == dict(case.groups)
            reasons = {part.name: part.reason for part in space.frozen}
            assert all(why in reasons.get(layer, "nothing is frozen") for layer, why in case.frozen.items()), reasons
            unexpected = {layer: why for layer, why in reasons.items() if layer not in case.frozen}
            assert all(why == "the model's output" for why in unexpected.values()), unexpected

    def test_nothing_is_frozen_without_a_reason(self, build: Build) -> None:
        space = tried(build).space
        assert all(part.reason and part.channels > 0 for part in space.frozen)
        accounted = {part.name for part in space.frozen} | {layer for g in space.groups for layer in g.members}
        modules = {name for name, module in tried(build).model.named_modules() if isinstance(module, _LAYERS)}
        assert {op.layer for op in space.operations} & modules <= accounted

    def test_a_cut_network_computes_what_the_masked_one_does(self, build: Build) -> None:
        t = tried(build)
        tolerance = max(TOLERANCE.get(output.dtype, 0.0) for output in outputs(t.model, t.case.example))
        for widths, ranking in cuts(t.space, number=self.random_cuts):
            error = largest_error(t.model, t.network, t.space, t.case.example, widths, ranking, t.case.statistics)
            assert error < tolerance, t.space.by_name(widths)

    def test_the_outputs_show_what_was_cut(self, build: Build) -> None:
        t = tried(build)
        *_, (widths, ranking) = cuts(t.space, number=0)
        narrow = slice_model(t.network, t.space, widths, ranking)
        assert difference(outputs(narrow, t.case.example), outputs(t.model, t.case.example)) > 1e-3

    def test_parameters_in_closed_form_are_those_of_the_cut_network(self, build: Build) -> None:
        t = tried(build)
        params = METRICS.get("params")(t.space)
        for widths, ranking in cuts(t.space, number=2):
            cut = slice_model(t.network, t.space, widths, ranking)
            assert params(np.array([widths]))[0] == sum(p.numel() for p in cut.parameters())

    def test_flops_in_closed_form_are_those_of_the_cut_network(self, build: Build) -> None:
        t = tried(build)
        flops = METRICS.get("flops")(t.space)
        whole = t.space.full, random_ranking(t.space, np.random.default_rng(0))
        for widths, ranking in (whole, *cuts(t.space, number=1)):
            cut = slice_model(t.network, t.space, widths, ranking)
            assert multiply_adds(t.space, widths) == counted_by_fvcore(cut, t.case.example)
            if t.case.counted and (
                min(widths) > 1 or widths == t.space.full
            ):  # torch sees no product of single columns
                assert flops(np.array([widths]))[0] == counted_by_torch(cut, t.case.example)

    def test_a_cut_network_trains(self, build: Build) -> None:
        t = tried(build)
        cut = slice_model(t.network, t.space, *next(cuts(t.space, number=1))).train()
        try:
            reached = _reached_by_gradients(copy.deepcopy(t.model).train(), t.case.example)
        except RuntimeError as error:
            pytest.skip(f"the full model has no gradients: {error}")
        assert _reached_by_gradients(cut, t.case.example) == reached
        wanted = {name: p.requires_grad for name, p in t.model.named_parameters()}
        assert {name: p.requires_grad for name, p in cut.named_parameters()} == wanted

    def test_the_model_is_left_as_it_was(self, build: Build) -> None:
        assert not tried(build).changed


def _reached_by_gradients(model: nn.Module, example: Example) -> set[str]:
    """Names of the parameters that a backward pass reaches."""
    found = [leaf for leaf in _tensors(run_model(model, example)) if leaf.requires_grad]
    torch.autograd.backward([leaf.double().sum() for leaf in found])
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _state(model: nn.Module) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
