"""Cutting a network while it trains: in place, and what the optimizer has gathered is cut as the weights are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autoprune.errors import ConfigError
from autoprune.space.cutting.cut import Cut, Kept


@final
@dataclass(frozen=True, slots=True, eq=False)
class TrainingCuts:
    """The cuts that are made while a network trains; it begins as the first one left it.

    Attributes:
        epochs: for each, how many epochs are done when it is made, ascending, at least 1.
        make: (network as it is now, number of the cut, whether weights are to make up for what is lost) -> the cut of
            that network; the network is only read.
        label: what they are, so that states of other trainings are known.
    """

    epochs: tuple[int, ...]
    make: Callable[[nn.Module, int, bool], Cut]
    label: str


def become(model: nn.Module, cut: nn.Module) -> None:
    """Let a network be its cut, in place: whoever holds it holds the cut one."""
    if type(model) is not type(cut):
        raise ConfigError(f"a {type(model).__name__} cannot become a {type(cut).__name__} while it trains")
    model.__dict__.clear()
    model.__dict__.update(cut.__dict__)


def carry_over(before: Optimizer, after: Optimizer, old: Mapping[str, Tensor], model: nn.Module, cut: Cut) -> None:
    """Give an optimizer of the cut network what that of the network before had gathered.

    Args:
        before: of the network before.
        after: of the cut one, new.
        old: the parameters before, by name.
        model: the cut network.
        cut: of it.

    Raises:
        ConfigError: it keeps tensors of another form than the parameters, which nothing can be said of.
    """
    names = {name: layout.name for layout in cut.space.tensors for name in (layout.names or (layout.name,))}
    for name, parameter in model.named_parameters():
        state: Mapping[str, Any] = before.state.get(old[name], {})
        if state:
            kept = cut.kept[names[name]]
            what = f"{type(before).__name__} keeps for {name!r}"
            after.state[parameter] = {
                key: _left(value, old[name], kept, f"{what} {key!r}") if isinstance(value, Tensor) else value
                for key, value in state.items()
            }


def _left(value: Tensor, parameter: Tensor, kept: Kept, what: str) -> Tensor:
    """What is left of a tensor that is as large as the parameter, or has 1 where that has several."""
    if value.numel() == 1:
        return value
    if value.ndim != parameter.ndim or any(n not in (1, m) for n, m in zip(value.shape, parameter.shape, strict=True)):
        raise ConfigError(
            f"optimizer {what} of shape {tuple(value.shape)} for a parameter of shape {tuple(parameter.shape)}, which "
            f"cannot be cut with it; choose another optimizer (sgd, adamw), or the protocol fine_tune"
        )
    left = value
    for dim, indices in enumerate(kept):
        if indices is not None and value.shape[dim] > 1:
            left = torch.index_select(left, dim, indices.to(value.device))
    return left.clone() if left is value else left
