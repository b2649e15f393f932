"""What a network gives inside: the outputs of modules by name, and which of them are the ends of its stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.space.cutting.graph_form import GraphNetwork
from autoprune.training.objectives.answers import Answers

_MOST = 8
"""Of more ends than these, so many are taken at even distances."""

_FEW = 2
"""Examples that show the sizes of features."""


class Around(nn.Module):
    """A module that runs another one, `network`, with something around it; modules are named as in that one."""

    network: nn.Module


def observed(model: nn.Module, batch: Batch, places: Collection[str]) -> tuple[Any, dict[str, Tensor]]:
    """Outputs of a network, and what the modules of these names gave when they were called last.

    Names that the network does not have, or whose modules are not called or give no tensor, are absent.

    Args:
        model: run once; of a network whose answers are known already these are read.
        batch: its inputs.
        places: names of modules.
    """
    if isinstance(model, Answers):
        outputs = batch.outputs(model)
        return outputs, {place: model.features[place] for place in places if place in model.features}
    found: dict[str, Tensor] = {}

    def note(place: str, value: Any) -> None:
        tensor = _first_tensor(value)
        if tensor is not None:
            found[place] = tensor

    with _noted(model, places, note):
        outputs = batch.outputs(model)
    return outputs, found


def stage_ends(model: nn.Module, batch: Batch) -> tuple[str, ...]:
    """Names of the modules at the ends of stages, in the order in which they are reached.

    Of maps (N, C, H, W): the last module before each change of resolution. Of sequences: each of the like modules in a
    list, as the blocks of transformers are. Where there is neither: the last module before the output.

    Args:
        model: only read; a copy runs in eval mode.
        batch: some examples.
    """
    network, few = copy_network(model).eval(), batch.first(_FEW)
    events: list[tuple[str, Tensor]] = []

    def note(place: str, value: Any) -> None:
        tensor = _first_tensor(value)
        if tensor is not None and tensor.is_floating_point() and tensor.ndim >= 2 and len(tensor) == len(few):
            events.append((place, tensor))

    with seeded(0), torch.no_grad(), _noted(network, None, note):
        results = [leaf for leaf in pytree.tree_leaves(few.outputs(network)) if isinstance(leaf, Tensor)]
    last: dict[str, Tensor] = {}
    for place, tensor in events:  # in the order of the last calls
        last.pop(place, None)
        last[place] = tensor
    inside = [(p, t.shape) for p, t in last.items() if p and not any(t is one for one in results)]
    ends = _blocks(network, inside) or _before_changes(inside) or [place for place, _ in inside[-1:]]
    if len(ends) > _MOST:
        ends = [ends[round(i * (len(ends) - 1) / (_MOST - 1))] for i in range(_MOST)]
    return tuple(ends)


def _before_changes(events: Sequence[tuple[str, torch.Size]]) -> list[str]:
    """The last place at each resolution; single pixels, as squeezed ones of attention, are passed over."""
    ends: list[str] = []
    before: tuple[int, ...] | None = None
    for place, shape in events:
        now = tuple(shape[2:])
        if len(shape) != 4 or max(now) <= 1:
            continue
        if now == before:
            ends[-1] = place
        else:
            ends.append(place)
        before = now
    return ends


def _blocks(network: nn.Module, events: Sequence[tuple[str, torch.Size]]) -> list[str]:
    """Places of at least two siblings of one class that give sequences, outermost ones."""
    kinds: dict[tuple[str, type], list[str]] = {}
    for place, shape in events:
        owner, _, number = place.rpartition(".")
        if len(shape) == 3 and number.isdigit():
            kinds.setdefault((owner, type(network.get_submodule(place))), []).append(place)
    several = [place for places in kinds.values() if len(places) > 1 for place in places]
    outermost = {p for p in several if not any(p.startswith(f"{other}.") for other in several)}
    return [place for place, _ in events if place in outermost]


@contextmanager
def _noted(model: nn.Module, places: Collection[str] | None, note: Callable[[str, Any], None]) -> Iterator[None]:
    """Inside, `note` is called with name and output of each module of these names (None: of every one)."""
    while isinstance(model, Around):
        model = model.network
    if isinstance(model, GraphNetwork):  # its submodules only hold tensors

        def see(node: fx.Node, value: Any) -> None:
            stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
            for path in reversed(stack):
                if places is None or path in places:
                    note(path, value)

        with model.watched_by(see):
            yield
        return
    named = dict(model.named_modules())
    chosen = named if places is None else {place: named[place] for place in places if place in named}
    handles = [
        module.register_forward_hook(lambda _, args, output, place=place: note(place, output))
        for place, module in chosen.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    return next((leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)), None)
