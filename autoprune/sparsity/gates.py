"""Gates: factors on the channels of a network, without a change of its class; its weights are scaled where it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from autoprune.sparsity.channels import GroupChannels, weights_of
from autoprune.training.objectives.features import Around


class Gates(nn.Module, ABC):
    """What takes the place of some weights of a network in each pass; a module, so that it trains and is saved."""

    @abstractmethod
    def forward(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name -> what the network runs with in place of the parameter of this name.

        Args:
            weights: the parameters of the network by name.
        """


class ChannelGates(Gates, ABC):
    """Gates that multiply each channel by a factor, where it is read: behind norms, activations and residual sums.

    Scaling the weights that read a channel is the same as scaling the channel. In front of a batch norm a factor would
    be divided out again. At 0 the network is that from which the channel is cut.

    Args:
        channels: of the network.
    """

    def __init__(self, channels: GroupChannels) -> None:
        super().__init__()
        self.channels = channels

    @abstractmethod
    def factors(self) -> Tensor:
        """(number of channels,) the factors of this pass."""

    def forward(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Gates.forward`."""
        return self.channels.scaled(weights, self.factors(), self.channels.gated)


@final
class PlainGates(ChannelGates):
    """One free factor for each channel, 1 at the beginning.

    Args:
        channels: of the network.
    """

    def __init__(self, channels: GroupChannels) -> None:
        super().__init__(channels)
        self.values = nn.Parameter(torch.ones(channels.number, device=channels.slots.device))

    def factors(self) -> Tensor:
        """See `ChannelGates.factors`."""
        return self.values


@final
class GatedNetwork(Around):
    """A network that runs with gates; called as the network itself.

    Args:
        network: trained in place.
        gates: trained with it.
    """

    def __init__(self, network: nn.Module, gates: Gates) -> None:
        super().__init__()
        self.network, self.gates = network, gates

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network gives with the weights as the gates make them."""
        return functional_call(self.network, self.gates(weights_of(self.network)), args, kwargs)

    @torch.no_grad()
    def settle(self) -> nn.Module:
        """The network itself, its weights as the gates make them in eval mode."""
        self.eval()
        weights = weights_of(self.network)
        for name, tensor in self.gates(weights).items():
            weights[name].copy_(tensor)
        return self.network


def inner(model: nn.Module) -> nn.Module:
    """The network that is inside, where there are gates around it; else the model itself."""
    return model.network if isinstance(model, GatedNetwork) else model
