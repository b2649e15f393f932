"""A network whose channels are read in every way, and what its layers read, from hooks: the oracle of evidence."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.importance.evidence import Calibration
from autoprune.importance.members import channel_scores
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.testing.once import made_once

WIDTHS = {"stem": 6, "inner": 8, "grouped": 8, "wide": 5}


class Reading(nn.Module):
    """A residual sum read by two layers, a grouped and a transposed convolution, a reader of flattened maps.

    Args:
        baked: reshape to a size that only a graph can follow.
    """

    def __init__(self, baked: bool = False) -> None:
        super().__init__()
        self.baked = baked
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner, self.back = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 6, 3, padding=1, stride=1, bias=False)
        self.grouped = nn.Conv2d(6, 8, 3, padding=1)
        self.apart = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.wide = nn.ConvTranspose2d(8, 5, 2, stride=2)
        self.head = nn.Linear(5 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, 5, 5) to (N, 3)."""
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.back(F.relu(self.inner(x))))
        x = F.relu(self.apart(F.relu(self.grouped(x))))
        x = F.adaptive_avg_pool2d(F.relu(self.wide(x)), 2)
        x = x.reshape(len(x), 20) if self.baked else x.flatten(1)
        return self.head(x)  # type: ignore[no-any-return]


@made_once
def reading(baked: bool = False) -> tuple[nn.Module, SearchSpace, Reading]:
    """The network in the form of its space, in double precision; its space; and the same in module form."""
    plain = Reading(baked).eval()
    with torch.no_grad():
        for tensor in (*plain.parameters(), *plain.buffers()):
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(0.1 + torch.rand_like(tensor))
    verified = verify(plain, trace(plain, torch.randn(2, 2, 5, 5)))
    reference = Reading().eval()
    reference.load_state_dict(plain.state_dict())
    return verified.network.double(), verified.space, reference.double()


def inputs_of(model: nn.Module, names: Sequence[str], batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Layer -> all that it reads."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    model = copy.deepcopy(model)
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: found[name].append(args[0]))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    return {name: torch.cat(values) for name, values in found.items()}


def images(batches: int = 3, size: int = 7) -> list[Tensor]:
    """Batches for it."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 2, 5, 5, generator=generator).double() for _ in range(batches)]


def scored(model: nn.Module, space: SearchSpace, name: str, group: str, **settings: object) -> FloatArray:
    """Scores of one group by a criterion, on `images`."""
    calibration = Calibration([(batch, None) for batch in images()])
    scores = channel_scores(model, space, {"name": name, "settings": settings}, calibration=calibration)
    index = next(i for i, found in enumerate(space.groups) if group in (found.name, *found.members))
    return scores[index]
