"""Networks that blow rounding errors up are compared on a copy that does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.space.tracing.trace import trace
from autoprune.space.verification.scramble import scrambled
from autoprune.space.verification.trial import CutTrial
from autoprune.space.verification.verify import verify


class Chaotic(nn.Module):
    """Layers of small weights whose sines are steep: tame as they are, and chaotic once their weights have grown."""

    def __init__(self, depth: int = 24) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 12), nn.Linear(12, 3)
        self.inner = nn.ModuleList(nn.Linear(12, 12) for _ in range(depth))
        with torch.no_grad():
            for layer in self.inner:
                layer.weight.mul_(0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 4) to (N, 3)."""
        x = self.first(x)
        for layer in self.inner:
            x = torch.sin(30 * layer(x))
        made: Tensor = self.last(x)
        return made


@pytest.fixture
def network() -> Chaotic:
    torch.manual_seed(0)
    return Chaotic().eval()


def test_what_a_small_change_comes_to_tells_networks_apart(network: Chaotic) -> None:
    traced = trace(network, torch.randn(2, 4))
    assert not CutTrial(scrambled(network, seed=0), traced, 0).is_steady()
    assert CutTrial(scrambled(network, seed=0, loud=False), traced, 0).is_steady()


def test_a_network_that_growing_weights_make_chaotic_keeps_its_own_class(network: Chaotic) -> None:
    verified = verify(network, trace(network, torch.randn(2, 4)))
    assert verified.network is network
    assert verified.space.form == "module"
    assert len(verified.space.groups) == 25
    assert verified.largest_error < 1e-5
