"""What all networks in graph form of one space share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import torch
from torch.utils import _pytree as pytree

from autoprune.space.cutting.training_form import TrainingForm
from autoprune.space.groups import Widths
from autoprune.space.presence import Presence
from autoprune.space.sizes import AffineSize
from autoprune.space.tracing.blocks import without
from autoprune.space.tracing.program import Example, Program


@final
@dataclass(frozen=True, eq=False)
class GraphPlan:
    """What all networks of one space share; never copied.

    Attributes:
        program: the traced graph.
        example: the inputs it was traced with.
        batch: batch size of the example; None where the graph cannot take another one.
        growing: value name -> dimensions that grow with the batch.
        counts: node name -> positions among its flat arguments of integers that grow with the batch.
        sizes: value name -> (dimension, size) of what follows the widths.
        signature: of the model's forward.
        training: how training differs from the graph.
        presence: which blocks some widths leave out.
        whole: the plan with all blocks; None: it is this one.
    """

    program: Program
    example: Example
    batch: int | None
    growing: Mapping[str, tuple[int, ...]]
    counts: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, tuple[tuple[int, AffineSize], ...]]
    signature: inspect.Signature
    training: TrainingForm
    presence: Presence
    whole: GraphPlan | None = None

    def at(self, widths: Widths) -> GraphPlan:
        """The plan without the blocks that these widths leave out, whatever is left out already."""
        off, whole = self.presence.left_out(widths), self.whole or self
        if not off:
            return whole
        training = whole.training
        if training.program is not None:
            training = replace(training, program=without(training.program, off))
        return replace(whole, program=without(whole.program, off), training=training, whole=whole)

    @cached_property
    def placed(self) -> frozenset[str]:
        """Names of the nodes that say on which device they make something."""
        programs = (self.program, *([self.training.program] if self.training.program else []))
        calls = (node for program in programs for node in program.nodes if node.op == "call_function")
        return frozenset(
            node.name
            for node in calls
            if any(isinstance(leaf, torch.device) for leaf in pytree.tree_leaves((tuple(node.args), dict(node.kwargs))))
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphPlan:
        return self
