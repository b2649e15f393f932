"""AutoPruner: Luo & Wu 2018, AutoPruner: An End-to-End Trainable Filter Pruning Method, arXiv 1805.08941."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.importance.reading import Read
from autoprune.importance.reads import Reads
from autoprune.sparsity.bar import channel_widths
from autoprune.sparsity.base import SparsityTraining, Subject, check_number
from autoprune.sparsity.channels import GroupChannels, weights_of
from autoprune.sparsity.soft_costs import SoftFlops
from autoprune.sparsity.within_loss import WithinLoss
from autoprune.training.objectives.base import Objective
from autoprune.training.objectives.features import Around


@final
class CodedNetwork(Around):
    """A network whose channels are multiplied by codes that layers of their own read off the batch.

    Section 3.2: the mean over the batch of what reads a group's channels, max-pooled 2 x 2, a linear layer, σ(α · x).
    A group that several layers read takes its code from the first. In eval mode codes are moving averages.

    Args:
        network: trained in place.
        channels: of it.
        seen: (number of the part, elements of its descriptor) of each part that is read.
        decay: of the averages, as codes of batches may disagree.
    """

    averages: Tensor

    def __init__(self, network: nn.Module, channels: GroupChannels, seen: dict[int, int], decay: float) -> None:
        super().__init__()
        self.network, self._channels, self._decay = network, channels, decay
        self.alpha = 0.1
        self.codes = torch.ones(channels.number, device=channels.slots.device)
        self.register_buffer("averages", torch.ones_like(self.codes))
        widths = {number: (part := channels.parts[number]).stop - part.start for number in seen}
        self.layers = nn.ModuleDict({str(n): nn.Linear(k * widths[n], widths[n]) for n, k in seen.items()})
        for layer in self.layers.values():
            nn.init.normal_(layer.weight, std=10 * math.sqrt(2 / layer.in_features))  # type: ignore[arg-type, operator]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.layers.to(channels.slots.device)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network gives with its channels times the codes."""
        made: dict[int, Tensor] = {}
        codes = torch.ones_like(self.averages)

        def change(read: Read) -> Tensor:
            nonlocal codes
            for number, part in enumerate(self._channels.parts):
                if str(number) in self.layers and number not in made and _inside(read, part):
                    made[number] = self._code(number, descriptor(read, part))
                    codes = torch.cat([codes[: part.start], made[number], codes[part.stop :]])
            shape = [1] * read.inputs.ndim
            shape[read.dim] = -1
            factors = torch.cat([codes, codes.new_ones(1)])[read.slots].reshape(shape)
            return read.inputs * factors.to(read.inputs.dtype)

        reads = Reads(self.network, self._channels.space, self._channels.slots)
        with reads.batch(change=change):
            outputs = self.network(*args, **kwargs)
        if self.training:
            self.codes = codes
            with torch.no_grad():
                self.averages.lerp_(codes.detach(), 1 - self._decay)
        return outputs

    def _code(self, number: int, found: Tensor) -> Tensor:
        if not self.training:
            return self.averages[self._channels.parts[number]]
        layer = self.layers[str(number)]
        code: Tensor = torch.sigmoid(self.alpha * layer(found.flatten().float()))
        return code


@final
class AutoPruner(SparsityTraining):
    """Codes near 0 or 1 for all channels, whose sum is drawn to what the budget leaves.

    α grows linearly, so that codes become binary (section 3.2). The loss is that of the task plus
    λ (share of the codes - r)², λ = 100 · |share - r| (section 3.3).

    Args:
        per: "network": the share is that of the FLOPs, and groups find theirs by themselves; "group": as in the paper,
            each group keeps the given share of its channels (that of uniform widths), and only which ones is found.
        alpha: α at the end; it begins at a tenth of it.
        decay: of the moving averages of codes.
    """

    inherits: ClassVar[bool] = True

    def __init__(self, *, per: Literal["network", "group"] = "network", alpha: float = 2.0, decay: float = 0.9) -> None:
        if per not in ("network", "group"):
            raise ConfigError(f"sparsity training 'autopruner': per must be network or group, got {per!r}")
        check_number("autopruner", "alpha", alpha)
        check_number("autopruner", "decay", decay, most=0.9999)
        self._per, self._alpha, self._decay = per, alpha, decay

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        self.subject, channels = subject, subject.channels
        seen = _sizes(subject)
        if not seen:
            raise ConfigError(
                "sparsity training 'autopruner': no convolution or matrix product is seen that reads a group; choose "
                "one that works on weights, as group_lasso"
            )
        self._cost = SoftFlops(subject.space, subject.network)
        self._share = float(self._cost.share(list(subject.target)))
        self._model = CodedNetwork(subject.network, channels, seen, self._decay)
        self._model.alpha = self._alpha * 0.1
        return self._model

    def begin(self, model: nn.Module) -> None:
        """See `Term.begin`."""
        self._model = _coded(model)

    def objective(self) -> Objective:
        """See `SparsityTraining.objective`; the codes that are drawn belong to the pass that made them."""
        return WithinLoss(self.subject.goal(), self._drawn)

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """α of the next step."""
        _coded(model).alpha = self._alpha * (0.1 + 0.9 * done)

    def _drawn(self) -> Tensor:
        channels, target, codes = self.subject.channels, self.subject.target, self._model.codes
        if self._per == "network":
            return drawn_to(self._cost.share(channel_widths(channels, codes, target)), self._share)
        pulls = []
        for index, parts in channels.of_groups:
            ratio = target[index] / channels.space.groups[index].width
            pulls += [drawn_to(codes[part].mean(), ratio) for part in parts]
        return torch.stack(pulls).sum()

    def scores(self, model: nn.Module) -> Tensor:
        """See `SparsityTraining.scores`."""
        return _coded(model).averages.clone()

    @torch.no_grad()
    def settle(self, model: nn.Module) -> nn.Module:
        """The network with its codes, as averaged, in the weights that read the channels."""
        coded = _coded(model)
        self.subject.channels.scale_(weights_of(coded.network), coded.averages, self.subject.channels.read)
        return coded.network

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`; codes are averaged in the network."""
        return {"alpha": self._model.alpha}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._model.alpha = state["alpha"]


def descriptor(read: Read, part: slice) -> Tensor:
    """(width, k) what stands for each channel of a part: the mean over the batch, maps max-pooled 2 x 2."""
    mean = read.inputs.movedim(read.dim, 1).mean(dim=0) if read.inputs.ndim > 1 else read.inputs
    if mean.ndim == 3 and min(mean.shape[1:]) >= 2:
        mean = F.max_pool2d(mean, 2)
    elif mean.ndim == 2:
        mean = mean.mean(dim=1, keepdim=True)  # tokens, which may be as many as they like
    rows = mean.reshape(len(read.slots), -1)
    inside = (read.slots >= part.start) & (read.slots < part.stop)
    owner = read.slots[inside] - part.start
    width = part.stop - part.start
    counts = torch.bincount(owner, minlength=width).clamp(min=1).to(rows.dtype)
    found: Tensor = rows.new_zeros(width, rows.shape[1]).index_add(0, owner, rows[inside]) / counts[:, None]
    return found


def _inside(read: Read, part: slice) -> bool:
    return bool(((read.slots >= part.start) & (read.slots < part.stop)).any())


def drawn_to(share: Tensor, ratio: float) -> Tensor:
    """λ (share - ratio)² with λ = 100 · |share - ratio|, which takes no gradient."""
    weight = 100 * (share.detach() - ratio).abs()
    return weight * (share - ratio).square()


def _sizes(subject: Subject) -> dict[int, int]:
    """Number of each part that is read -> elements of its descriptor, by a pass over a batch."""
    channels, seen = subject.channels, dict[int, int]()

    def note(read: Read) -> Tensor:
        for number, part in enumerate(channels.parts):
            if number not in seen and _inside(read, part):
                seen[number] = descriptor(read, part).shape[1]
        return read.inputs

    batch = next(iter(subject.batches(1)), None)
    if batch is None:
        return {}
    reads = Reads(subject.network, subject.space, channels.slots)
    with torch.no_grad(), reads.batch(change=note):
        batch.first(2).outputs(subject.network.eval())
    return seen


def _coded(model: nn.Module) -> CodedNetwork:
    if not isinstance(model, CodedNetwork):
        raise ConfigError("sparsity training 'autopruner' trains the network that it has set up, and no other")
    return model
