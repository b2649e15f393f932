"""A network whose channels are chosen anew for each example.

Gao et al. 2019, Dynamic Channel Pruning: Feature Boosting and Suppression, arXiv 1810.05331, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError, EvaluationError
from autoprune.space.arrays import IntArray
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import Ranking, tensor_of
from autoprune.space.groups import SearchSpace, WidthGroup, Widths

_READERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)

Reading: TypeAlias = tuple[tuple[int, Tensor, Tensor], ...]
"""Of the inputs of a layer, for each group in them: the group, the indices of its channels, and which ones they are."""


@final
class ChannelSaliency(nn.Module):
    """How salient each channel of a group is for an example: g = (φ·s + ρ)₊, s the means of |inputs| (equations 6, 7).

    It begins with φ = 0, ρ = 1 for the most important channels and 0.9 for all others, so that before any training it
    is the cut network. (In the paper φ is random and ρ = 1, and the network not yet trained; where all are 1, a first
    step would put channels in place of those that the weights were fitted to.)

    Args:
        inputs: channels of the layer that makes the group.
        ranks: (channels,) of the group, 0 is the best.
        width: how many are chosen.
        sparsity: λ of the penalty on g.
    """

    def __init__(self, inputs: int, ranks: IntArray, width: int, *, sparsity: float) -> None:
        super().__init__()
        self.phi = nn.Parameter(torch.zeros(len(ranks), inputs))
        self.rho = nn.Parameter(torch.where(torch.from_numpy(ranks) < width, 1.0, 0.9))
        self._width, self._sparsity = width, sparsity

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, inputs) means to (N, channels) factors, at most `width` of which are not 0 (the winners, equation 5)."""
        salient = torch.relu(nn.functional.linear(pooled, self.phi, self.rho))
        if salient.requires_grad:  # the gradient of λ · mean over examples of |g|₁, which is no part of the loss
            salient.register_hook(lambda gradient: gradient + self._sparsity / len(gradient))  # type: ignore[no-untyped-call]
        winners = salient.detach().topk(self._width, dim=1).indices
        return salient * torch.zeros_like(salient).scatter_(1, winners, 1.0)


@final
class BoostedNetwork(nn.Module):
    """A network of full width, of which each example uses as many channels of every group as some widths say.

    Whatever reads channels is given them times their factors. One that is not chosen is 0 for all that read it, which
    is the cut network for that example; so every example takes the multiply-adds of the cut network, and those of the
    saliencies.

    Args:
        network: trained in place.
        space: of channels, in module form.
        widths: member of the space.
        ranking: which channels to begin with.
        sparsity: λ of the penalty on saliencies.

    Raises:
        ConfigError: the space has other groups than plain ones of channels, or their readers are no plain layers.
    """

    def __init__(
        self, network: nn.Module, space: SearchSpace, widths: Widths, ranking: Ranking, *, sparsity: float
    ) -> None:
        super().__init__()
        self.network = network
        self._reading = readings(network, space)
        self._makers = {group.name: index for index, group in enumerate(space.groups)}
        self.saliencies = nn.ModuleList(
            ChannelSaliency(_inputs(network, group), ranks, width, sparsity=sparsity)
            for group, ranks, width in zip(space.groups, ranking, widths, strict=True)
        )

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Whatever the network gives."""
        open_now: dict[int, Tensor] = {}
        names = dict.fromkeys((*self._reading, *self._makers))
        handles = [
            self.network.get_submodule(name).register_forward_pre_hook(self._before(name, open_now)) for name in names
        ]
        try:
            return self.network(*inputs, **named)
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, name: str, open_now: dict[int, Tensor]) -> Callable[[nn.Module, Any], Any]:
        """What is done before a layer is called."""

        def before(layer: nn.Module, given: Any) -> Any:
            if not given:
                raise EvaluationError(f"evaluator 'fbs': layer {name!r} is called by keyword; call it as layer(x)")
            x, *rest = given
            linear = isinstance(layer, nn.Linear)
            for group, places, channels in self._reading.get(name, ()):
                factors = torch.ones(len(x), x.shape[-1] if linear else x.shape[1], dtype=x.dtype, device=x.device)
                chosen = open_now[group].to(x.dtype).index_select(1, channels.to(x.device))
                factors = factors.index_copy(1, places.to(x.device), chosen)
                x = x * factors.reshape(len(x), *([1] * (x.ndim - 2)), -1) if linear else x * _over(factors, x.ndim)
            if name in self._makers:
                group = self._makers[name]
                pooled = x.abs().reshape(len(x), -1, x.shape[-1]).mean(1) if linear else x.abs().flatten(2).mean(2)
                open_now[group] = self.saliencies[group](pooled.float())
            return (x, *rest)

        return before


def _over(factors: Tensor, dims: int) -> Tensor:
    return factors.reshape(*factors.shape, *([1] * (dims - 2)))


def readings(network: nn.Module, space: SearchSpace) -> Mapping[str, Reading]:
    """Path of each layer that reads channels -> which ones.

    Raises:
        ConfigError: as `BoostedNetwork`.
    """
    if space.form != "module":
        raise ConfigError(
            f"{_CANNOT} this one is cut as its traced graph, which has no layers; choose another evaluator"
        )
    for group in space.groups:
        if group.kind != "channels" or group.sets:
            kind = "tied channels" if group.sets else group.kind
            raise ConfigError(f"{_CANNOT} group {group.name!r} is one of {kind}; choose another evaluator")
    mixed = next((op.layer for op in space.operations if op.kind not in ("conv", "linear") and _varies(op.sizes)), None)
    if mixed is not None:
        raise ConfigError(
            f"{_CANNOT} {mixed!r} multiplies channels with channels; exclude it, or choose another evaluator"
        )
    found: dict[str, Reading] = {}
    for tensor in space.tensors:
        for axis in (tensor.axes[dim] for dim in tensor.reads):
            if axis is None:
                continue
            for path, _, attribute in (name.rpartition(".") for name in (tensor.names or (tensor.name,))):
                layer: Any = network.get_submodule(path)
                width = getattr(layer, "in_channels", getattr(layer, "in_features", 0))
                if type(layer) not in _READERS or attribute != "weight" or width != len(axis.group):
                    raise ConfigError(
                        f"{_CANNOT} {path!r} reads channels and is none (a {type(layer).__name__} with "
                        f"{len(axis.group)} of {width} inputs in a group); exclude it, or choose another evaluator"
                    )
                groups, channels = torch.from_numpy(axis.group), torch.from_numpy(axis.channel)
                here = sorted({int(group) for group in axis.group if group >= 0})
                found[path] = tuple(
                    (group, (groups == group).nonzero()[:, 0], channels[groups == group]) for group in here
                )
    read = {group for reading in found.values() for group, _, _ in reading}
    unread = next((group.name for index, group in enumerate(space.groups) if index not in read), None)
    if unread is not None:
        raise ConfigError(f"{_CANNOT} none reads the channels of group {unread!r}; exclude it")
    return found


def put_back(cut: Cut, network: nn.Module) -> None:
    """Give a network of full width what a cut one has, where it has something; all else stays.

    Args:
        cut: only read.
        network: changed in place.
    """
    with torch.no_grad():
        for name in cut.kept:
            tensor, left = tensor_of(network, name), tensor_of(cut.network, name)
            places = [
                torch.arange(n) if indices is None else indices.cpu()
                for n, indices in zip(tensor.shape, cut.kept[name], strict=True)
            ]
            if places:
                tensor[torch.meshgrid(*places, indexing="ij")] = left.to(tensor.device)
            else:
                tensor.copy_(left)


_CANNOT = "evaluator 'fbs' chooses channels that plain convolutions and linear layers read, and"


def _varies(sizes: Any) -> bool:
    return any(size.terms for size in sizes)


def _inputs(network: nn.Module, group: WidthGroup) -> int:
    """How many inputs the layer has that makes the channels of a group."""
    layer: Any = dict(network.named_modules()).get(group.name)
    if type(layer) not in _READERS:
        raise ConfigError(
            f"{_CANNOT} what makes those of group {group.name!r} is none ({type(layer).__name__}); exclude it, or "
            f"choose another evaluator"
        )
    return int(getattr(layer, "in_channels", getattr(layer, "in_features", 0)))
