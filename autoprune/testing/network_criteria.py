"""The contract of every criterion on whole networks, as a test class: subclass it and give it a criterion by name.

class TestMine(NetworkCriterionContract):
    @pytest.fixture
    def criterion(self) -> ChosenPart:
        return {"name": "mine", "settings": {"examples": 32}}
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.errors import ConfigError
from autoprune.importance import CRITERIA
from autoprune.importance.evidence import DATA, LOSS, Calibration, needs_of
from autoprune.importance.members import channel_scores
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.testing.generators import global_generators
from autoprune.testing.once import made_once

_CHANNELS, _PRUNED = 6, 2


class ExampleNetwork(nn.Module):
    """Two convolutions, a depthwise one, and a linear layer on flattened maps, of 2x6x6 images in three classes.

    Args:
        norm: batch norms after the convolutions.
        relu: ReLUs after them.
        width: channels of the first convolution.
    """

    def __init__(self, *, norm: bool = True, relu: bool = True, width: int = _CHANNELS) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, width, 3, padding=1), nn.Conv2d(width, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.depthwise, self.head = nn.Conv2d(5, 5, 3, padding=1, groups=5), nn.Linear(5 * 4, 3)
        self.between = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, 6, 6) images to (N, 3) logits."""
        x = self.between(self.norm(self.first(x)))
        x = self.between(self.depthwise(self.between(self.second(x))))
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))  # type: ignore[no-any-return]


@made_once
def example_network(**changes: Any) -> tuple[nn.Module, SearchSpace]:
    """A network with random weights in double precision, none of them constant, and its space."""
    model = ExampleNetwork(**changes).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(0.5 + torch.rand_like(tensor))
    verified = verify(model, trace(model, torch.randn(2, 2, 6, 6)))
    return verified.network.double(), verified.space


def example_batches(number: int = 2, *, size: int = 6, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Any]]:
    """Labelled batches for it."""
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 2, 6, 6, generator=generator).to(dtype), torch.randint(3, (size,), generator=generator))
        for _ in range(number)
    ]


class NetworkCriterionContract:
    """Laws that hold for every criterion; the subclass provides the fixture `criterion`.

    Attributes:
        reads_weights: False for a control that looks at no weight.
    """

    reads_weights = True

    @pytest.fixture
    def criterion(self) -> ChosenPart:
        """Return the criterion under test."""
        raise NotImplementedError("override the fixture `criterion`: it returns the name of a criterion")

    def scores(self, criterion: ChosenPart, model: nn.Module, space: SearchSpace, **changes: Any) -> list[FloatArray]:
        seed = changes.pop("seed", 0)
        objective = changes.get("objective", F.cross_entropy)
        given = Calibration(changes.get("batches") or example_batches(), objective)
        return channel_scores(model, space, criterion, seed=seed, calibration=given)

    def needs(self, criterion: ChosenPart) -> frozenset[str]:
        return frozenset(needs_of(CRITERIA.get(NamedPart.of(criterion, "criterion").name)))

    @pytest.mark.parametrize("changes", [{}, {"norm": False}, {"norm": False, "relu": False}, {"width": 1}], ids=str)
    def test_one_finite_number_of_at_least_zero_per_channel_of_every_network(
        self, criterion: ChosenPart, changes: dict[str, Any]
    ) -> None:
        model, space = example_network(**changes)
        scores = self.scores(criterion, model, space)
        assert [len(s) for s in scores] == [group.width for group in space.groups]
        assert all(np.isfinite(s).all() and (s >= 0).all() for s in scores)

    def test_single_precision_and_batches_of_one_do_too(self, criterion: ChosenPart) -> None:
        model, space = example_network()
        batches = example_batches(3, size=1, dtype=torch.float32)
        assert all(np.isfinite(s).all() for s in self.scores(criterion, model.float(), space, batches=batches))

    def test_the_order_of_channels_carries_no_meaning(self, criterion: ChosenPart) -> None:
        """An estimate, known by other scores with another seed, may move by as much as such estimates differ."""
        if not self.reads_weights:
            pytest.skip("a control that looks at no weight")
        model, space = example_network()
        order = torch.randperm(_CHANNELS, generator=torch.Generator().manual_seed(1))
        moved = _reordered(model, order)
        expected, found = self.scores(criterion, model, space), self.scores(criterion, moved, space)
        other = self.scores(criterion, model, space, seed=1)
        expected[0], other[0] = expected[0][order.numpy()], other[0][order.numpy()]
        for one, same, redrawn in zip(found, expected, other, strict=True):
            noise = np.linalg.norm(redrawn - same)
            assert noise <= 0.3 * np.linalg.norm(same)
            assert np.linalg.norm(one - same) <= 4 * noise + 1e-6 * np.linalg.norm(same)

    def test_a_channel_of_zeros_is_the_least_important(self, criterion: ChosenPart) -> None:
        if not self.reads_weights:
            pytest.skip("a control that looks at no weight")
        if not getattr(CRITERIA.get(NamedPart.of(criterion, "criterion").name), "zeros_last", True):
            pytest.skip("says that it need not hold: zeros_last = False")
        model, space = example_network()
        with torch.no_grad():
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                if name.startswith(("first.", "norm.")) and tensor.is_floating_point() and "var" not in name:
                    tensor[_PRUNED] = 0.0
        scores = self.scores(criterion, model, space)[0]
        assert scores[_PRUNED] == scores.min()
        assert scores[_PRUNED] < np.median(scores)

    def test_a_layer_of_zeros_is_scored(self, criterion: ChosenPart) -> None:
        model, space = example_network()
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                if name.startswith(("second.", "depthwise.")):
                    tensor.zero_()
        assert all(np.isfinite(s).all() for s in self.scores(criterion, model, space))

    def test_a_batch_that_is_not_finite_is_left_out(self, criterion: ChosenPart) -> None:
        model, space = example_network()
        (inputs, labels), *others = example_batches()
        mixed = [(inputs, labels), (torch.full_like(inputs, torch.nan), labels), *others]
        whole, found = self.scores(criterion, model, space), self.scores(criterion, model, space, batches=mixed)
        assert all(np.array_equal(one, other) for one, other in zip(whole, found, strict=True))

    def test_the_network_and_the_global_generators_are_only_read(self, criterion: ChosenPart) -> None:
        model, space = example_network()
        model.train()
        next(model.parameters()).requires_grad_(False)
        before, generators = copy.deepcopy(model.state_dict()), global_generators()
        one, same = (self.scores(criterion, model, space, seed=3) for _ in range(2))
        assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
        assert global_generators() == generators
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert all(module.training for module in model.modules())
        assert [p.requires_grad for p in model.parameters()] == [False] + [True] * (len([*model.parameters()]) - 1)
        assert all(p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_missing_data_and_a_missing_loss_are_named(self, criterion: ChosenPart) -> None:
        model, space = example_network()
        needs, name = self.needs(criterion), NamedPart.of(criterion, "criterion").name
        if not needs & DATA:
            pytest.skip("needs no data")
        with pytest.raises(ConfigError, match=f"{name}.* needs .*give it data"):
            channel_scores(model, space, criterion)
        if needs & LOSS:
            with pytest.raises(ConfigError, match=f"{name}.* needs .* and so a loss.*give batches of .inputs, targets"):
                self.scores(criterion, model, space, objective=None)
        else:
            unlabelled = [(inputs, None) for inputs, _ in example_batches()]
            found = self.scores(criterion, model, space, batches=unlabelled, objective=None)
            whole = self.scores(criterion, model, space)
            assert all(np.array_equal(one, other) for one, other in zip(whole, found, strict=True))


def _reordered(model: nn.Module, order: Tensor) -> nn.Module:
    """The same function with the channels of the first layer in another order."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in (*moved.named_parameters(), *moved.named_buffers()):
            if name.startswith(("first.", "norm.")) and tensor.ndim:
                tensor.copy_(tensor[order])
            if name == "second.weight":
                tensor.copy_(tensor[:, order])
    return moved
