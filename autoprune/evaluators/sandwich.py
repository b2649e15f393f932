"""Training the weights that networks of many widths share: the sandwich rule with in-place distillation.

Yu and Huang, Universally Slimmable Networks, ICCV 2019, arXiv 1903.05134, sections 3.2 and 3.3. In every step the full
network learns from the task, the narrowest and some of random widths learn from what the full one has just said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from autoprune.errors import EvaluationError
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import Ranking, Slicer
from autoprune.space.groups import SearchSpace, Widths
from autoprune.training.beside import with_loss
from autoprune.training.objectives.relative_error import relative_error


@final
@dataclass(frozen=True, slots=True)
class SharedWeights:
    """A network whose weights are shared by all widths, while it is trained.

    Inside `with shared.trained_with(network):` every forward pass of the network in training mode also runs narrower
    ones on the same inputs, with slices of its own parameters, and adds their distance to its outputs to whatever loss
    the outputs go into. So any task can train it.

    Attributes:
        space: of the network.
        rankings: which channels narrower networks keep first; each of their widths is trained once by each of these
            (BCNet, arXiv 2105.10533: those from the left and those from the right).
        narrowest: the smallest widths that are trained.
        drawn: networks of random widths in each step, beside the narrowest.
    """

    space: SearchSpace
    rankings: Sequence[Ranking]
    narrowest: Widths
    drawn: int = 2

    @contextmanager
    def trained_with(self, network: nn.Module) -> Iterator[None]:
        """Inside, training the network trains the narrower ones."""
        slicers = [Slicer(network, self.space, ranking) for ranking in self.rankings]

        def beside(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> Any:
            trains = module.training and torch.is_grad_enabled()
            if module is not network or not trains:  # narrower ones inherit the hook
                return outputs
            taught = pytree.tree_map_only(Tensor, Tensor.detach, outputs)
            parameters = dict(network.named_parameters())
            cuts = [slicer.cut(widths) for widths in self._widths() for slicer in slicers]
            losses = [distance(run(cut, parameters, args, kwargs), taught) for cut in cuts]
            return with_loss(outputs, torch.stack(losses).sum() / len(slicers))

        handle = network.register_forward_hook(beside, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _widths(self) -> list[Widths]:
        """Those of one step; drawn by the global random state, which a training keeps and restores."""
        chosen = [self.narrowest]
        for _ in range(self.drawn):
            places = torch.rand(len(self.space.groups)).tolist()
            chosen.append(
                tuple(
                    _at(tuple(c for c in group.choices if c >= least), place)
                    for group, least, place in zip(self.space.groups, self.narrowest, places, strict=True)
                )
            )
        return chosen


def run(cut: Cut, parameters: Mapping[str, Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a narrower network gives, computed from slices of the parameters of the full one.

    Args:
        cut: the narrower network; its own weights are not used, its buffers are, and change.
        parameters: name -> parameter of the full network; gradients arrive there.
        args: positional inputs.
        kwargs: keyword inputs.
    """
    kept, own = cut.kept, dict(cut.network.named_parameters())
    slices = {name: _sliced(parameters[name], kept[name]) if name in kept else parameters[name] for name in own}
    return functional_call(cut.network.train(), slices, tuple(args), dict(kwargs))


def distance(outputs: Any, taught: Any) -> Tensor:
    """How far outputs are from those of the full network, the mean over examples.

    KL(full || narrower) in nats where they are one tensor of logits (N, C), C of at least 2, as the measure
    `divergence` decides; else the mean relative error of all floating-point tensors.

    Raises:
        EvaluationError: the two have other tensors.
    """
    ours, theirs = ([t for t in pytree.tree_leaves(given) if isinstance(t, Tensor)] for given in (outputs, taught))
    shapes = [[tuple(t.shape) for t in tensors] for tensors in (ours, theirs)]
    if not theirs or shapes[0] != shapes[1]:
        raise EvaluationError(
            f"supernet: a narrower network gives outputs of shapes {shapes[0]}, the full one of {shapes[1]}; they must "
            f"be equal to learn from one another"
        )
    if isinstance(taught, Tensor) and taught.is_floating_point() and taught.ndim == 2 and taught.shape[1] > 1:
        log_p, log_q = taught.log_softmax(1), ours[0].log_softmax(1)
        return torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q)).sum(1).mean()
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b.is_floating_point()]
    return torch.stack([relative_error(a, b) for a, b in pairs]).mean()


def _sliced(parameter: Tensor, kept: Sequence[Tensor | None]) -> Tensor:
    for dim, indices in enumerate(kept):
        if indices is not None:
            parameter = parameter.index_select(dim, indices.to(parameter.device))
    return parameter


def _at(choices: Sequence[int], place: float) -> int:
    """A choice by its place from 0 to 1."""
    return choices[min(int(place * len(choices)), len(choices) - 1)]
