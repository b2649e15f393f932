"""Several tasks in the weights of one network: Mallya & Lazebnik 2018, PackNet, arXiv 1711.05769, section 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.space.cutting.masks import put_mask
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import SearchSpace, Widths
from autoprune.tasks.classification import ClassOutputs
from autoprune.training.terms.base import Term

_HALVINGS = 60


def shares_in_use(share: float, tasks: int) -> tuple[float, ...]:
    """Of the weights of a layer, the share that each task uses: its own, and those of all tasks before it.

    Each task keeps the same share of what is free when its turn comes, such that tasks use `share` on average.

    Args:
        share: above 0 and at most 1.
        tasks: how many.
    """
    low, high = 0.0, 1.0  # of what a task leaves free
    for _ in range(_HALVINGS):
        left = (low + high) / 2
        if sum(left**task for task in range(1, tasks + 1)) / tasks > 1 - share:
            high = left
        else:
            low = left
    return tuple(1 - low**task for task in range(1, tasks + 1))


@final
class PackedNetwork:
    """A network in which each weight belongs to one task, or to none yet; tasks are numbered from 1.

    A task uses its own weights and those of the tasks before it. Of the classifier it uses the rows of its classes, as
    if each task had one. All that has no density (biases, norms) belongs to the first task, but for rows of the
    classifier.

    Args:
        network: trained and pruned in place.
        space: of densities.
        widths: member of the space; how many weights tasks use on average.
        parts: the classes of each task.
        classifier: name of the linear layer that gives the outputs, a row for each class.

    Attributes:
        network: the network with the weights of all tasks.
        owners: name of weights -> (shape of them) the task that each belongs to, 0: none yet.
        pruned: how many tasks have kept some.
    """

    def __init__(
        self, network: nn.Module, space: SearchSpace, widths: Widths, parts: Sequence[Sequence[int]], classifier: str
    ) -> None:
        self.network, self.pruned = network, 0
        self._space, self._widths, self._parts = space, widths, parts
        self._rows = {f"{classifier}.{kind}" for kind in ("weight", "bias")}
        self.owners = {
            density.tensor: torch.zeros_like(tensor_of(network, density.tensor), dtype=torch.uint8)
            for density in space.densities
        }

    def view(self, task: int) -> ClassOutputs:
        """The network itself, as the task that is trained sees it."""
        return ClassOutputs(self.network, self._parts[task - 1])

    def of_task(self, task: int) -> ClassOutputs:
        """A copy for one task: the weights that it uses are there, all others are 0."""
        network = copy_network(self.network)
        for density in self._space.densities:
            owner = self.owners[density.tensor]
            own = owner == task if density.tensor in self._rows else (owner > 0) & (owner <= task)
            put_mask(network, density, own)
        return ClassOutputs(network, self._parts[task - 1])

    def in_use(self, task: int) -> Mapping[str, int]:
        """Name of weights -> how many of them the task uses."""
        return {
            name: int(((owner == task) if name in self._rows else (owner > 0) & (owner <= task)).sum())
            for name, owner in self.owners.items()
        }

    def trained(self, task: int) -> dict[str, Tensor]:
        """Name of each parameter -> (shape of it) what the training of a task changes.

        Before it is pruned that is all that is free, afterwards what it has kept.
        """
        found, number = {}, task if task <= self.pruned else 0
        for name, parameter in self.network.named_parameters():
            mine = torch.full_like(parameter, task == 1, dtype=torch.bool)
            if name in self._rows:
                mine = self._rows_of(task, parameter)
            elif name in self.owners:
                mine = torch.ones_like(mine)
            found[name] = mine & (self.owners[name] == number) if name in self.owners else mine
        return found

    @torch.no_grad()
    def prune(self, task: int) -> None:
        """Let the task keep the largest of the free weights of each layer; the others become 0 (section 3)."""
        for density, width in zip(self._space.densities, self._widths, strict=True):
            weight, owner = tensor_of(self.network, density.tensor), self.owners[density.tensor]
            free, share = owner == 0, density.kept(width) / owner.numel()
            if density.tensor in self._rows:
                free &= self._rows_of(task, weight)
                number = max(1, round(share * int(free.sum())))
            else:
                used = [round(part * owner.numel()) for part in shares_in_use(share, len(self._parts))]
                number = max(1, used[0]) if task == 1 else used[task - 1] - max(1, used[task - 2])
            sizes = weight.abs().masked_fill(~free, -1.0).flatten()
            chosen = sizes.argsort(descending=True, stable=True)[: max(0, number)]
            owner.view(-1)[chosen] = task
            weight.masked_fill_(free & (owner == 0), 0.0)
        self.pruned = task

    def _rows_of(self, task: int, parameter: Tensor) -> Tensor:
        """(shape of it) whether an entry of the classifier is of a class of the task."""
        mine = torch.zeros_like(parameter, dtype=torch.bool)
        mine[list(self._parts[task - 1])] = True
        return mine


@final
class Fixed(Term):
    """Trains some entries of parameters; all others stay as they are when it begins, to the last bit.

    Args:
        trained: name of a parameter -> (shape of it) which ones.
    """

    def __init__(self, trained: Mapping[str, Tensor]) -> None:
        self._trained = trained
        self._kept: list[tuple[nn.Parameter, Tensor, Tensor]] = []

    def begin(self, model: nn.Module) -> None:
        """See `Term.begin`."""
        parameters = dict(model.named_parameters())
        self._kept = [
            (parameters[name], ~mine.to(parameters[name].device), parameters[name].detach().clone())
            for name, mine in self._trained.items()
        ]

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_backward`."""
        for parameter, fixed, _ in self._kept:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(fixed, 0.0)

    @torch.no_grad()
    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        self.put_back()

    @torch.no_grad()
    def put_back(self) -> None:
        """Give what is fixed the values that it had, whoever changed it."""
        for parameter, fixed, before in self._kept:
            parameter.copy_(torch.where(fixed, before, parameter))


def classifier_of(network: nn.Module, inputs: Any) -> tuple[str, int]:
    """Name of the linear layer that gives the outputs of a network, and how many they are.

    Args:
        network: only read.
        inputs: of it.

    Raises:
        ConfigError: there is none.
    """
    copy, given = copy_network(network).eval(), dict[str, Any]()
    linear = {name: module for name, module in copy.named_modules() if isinstance(module, nn.Linear)}
    for name, module in linear.items():
        module.register_forward_hook(lambda layer, inputs, outputs, name=name: given.update({name: outputs}))
    with seeded(0), torch.no_grad():
        outputs = copy(inputs)
    found = next((name for name, made in given.items() if made is outputs), None)
    if found is None:
        raise ConfigError(
            "evaluator 'packnet' gives each task its own rows of the classifier, and the outputs of this network are "
            "not those of a linear layer; let the network return them, or choose another evaluator"
        )
    return found, linear[found].out_features
