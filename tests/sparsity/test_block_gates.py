"""Scales on whole residual blocks, against a network whose forward pass is written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.config.space import SpaceOptions
from autoprune.config.training import Recipe
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.flops import flops
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.importance.members import ranking_of
from autoprune.space.copying import copy_network
from autoprune.space.cutting.slicing import slice_model
from autoprune.space.tracing.trace import trace
from autoprune.sparsity.base import Subject
from autoprune.sparsity.block_gates import BlockGates, branch_ends
from autoprune.sparsity.channels import weights_of
from autoprune.sparsity.gates import GatedNetwork
from autoprune.sparsity.sss import SparseStructureSelection

IMAGES = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))


class PostActivation(nn.Module):
    """The batch norm behind the last convolution ends the branch."""

    end = "norm2"

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(6), nn.BatchNorm2d(8)  # not in the order of the calls
        self.conv1, self.conv2 = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)

    def branch(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return found

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.branch(x))


class PreActivation(nn.Module):
    """The last convolution does."""

    end = "conv2"

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, padding=1)

    def branch(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return found

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Residual(nn.Module):
    def __init__(self, block: type[PostActivation] | type[PreActivation]) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = (
            nn.Conv2d(2, 8, 3),
            nn.ModuleList([block() for _ in range(3)]),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@pytest.fixture(params=[PostActivation, PreActivation])
def subject(request: pytest.FixtureRequest) -> Subject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Residual(request.param)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    space = trace(network.eval(), IMAGES[:1], options=SpaceOptions(blocks=True)).space
    target = BudgetedSpace(space, {"flops": "50%"}).uniform()
    recipe = Recipe(epochs=2, lr=0.1, batch_size=6)
    return Subject(
        network, space, target, recipe, 0, lambda n: [Batch(IMAGES, torch.arange(6) % 4)], 6, F.cross_entropy
    )


def groups_of(subject: Subject) -> dict[str, int]:
    return {block.name: group for group, block in subject.space.presence.blocks.items()}


def test_the_end_of_each_branch_is_found_and_the_network_stays(subject: Subject) -> None:
    before = {name: value.clone() for name, value in subject.network.state_dict().items()}
    found = branch_ends(subject.network, subject.space, subject.batches(1)[0], method="sss")
    end = type(subject.network.blocks[0]).end  # type: ignore[index, union-attr]
    assert found == {
        group: (f"{name}.{end}.weight", f"{name}.{end}.bias") for name, group in groups_of(subject).items()
    }
    assert len(found) == 3
    assert all(torch.equal(value, before[name]) for name, value in subject.network.state_dict().items())
    assert not subject.network.training


def test_a_factor_scales_what_its_block_adds(subject: Subject) -> None:
    network: Any = subject.network
    ends = branch_ends(network, subject.space, subject.batches(1)[0], method="sss")
    gates = BlockGates(subject.channels, ends)
    factors = dict(zip(("blocks.0", "blocks.1", "blocks.2"), (0.3, 0.0, 1.7), strict=True))
    with torch.no_grad():
        for name, group in groups_of(subject).items():
            gates.values[subject.channels.number + gates.groups.index(group)] = factors[name]
        x = F.relu(network.stem(IMAGES))
        for number, block in enumerate(network.blocks):
            x = x + factors[f"blocks.{number}"] * block.branch(x)
            x = F.relu(x) if isinstance(block, PostActivation) else x
        expected = network.head(x.mean((2, 3)))
        gated = GatedNetwork(network, gates).eval()
        torch.testing.assert_close(gated(IMAGES), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gated.settle()(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_factors_of_channels_and_blocks_step_by_the_same_equation_and_leave_blocks_out(subject: Subject) -> None:
    """A block whose factor has come to 0 is cut without a loss; the step is that of section 3.3, written out."""
    method = SparseStructureSelection(weight=2.0, momentum=0.5, blocks=True)
    model: Any = method.set_up(subject)
    number = subject.channels.number
    model.train()
    F.cross_entropy(model(IMAGES), torch.arange(6) % 4).backward()
    slope = model.gates.values.grad.numpy().copy()
    assert np.abs(slope[number:]).min() > 0
    with torch.no_grad():
        method.after_backward(model, done=0.5)
        method.after_step(model, done=0.5)
        lr = subject.lr(0.5)
        moved = 1 - lr * slope
        z = np.sign(moved) * np.maximum(np.abs(moved) - lr * 2.0, 0)
        np.testing.assert_allclose([*method.block_scores(model).values()], np.abs(z[number:]), rtol=1e-5)
        np.testing.assert_allclose(method.scores(model), np.abs(z[:number]), rtol=1e-5)
        method._steps.z[:number] = 1.0
        method._steps.z[number:] = torch.tensor([0.8, 0.0, 0.9])
    scores = subject.channels.split(method.scores(model))
    for group, score in method.block_scores(model).items():
        scores[group] = np.full_like(scores[group], score)
    settled = method.settle(copy_network(model)).eval()
    gone = model.gates.groups[1]
    widths = tuple(0 if group == gone else full for group, full in enumerate(subject.space.full))
    cut = slice_model(settled, subject.space, widths, ranking_of(subject.space, scores)).eval()
    torch.testing.assert_close(cut(IMAGES), settled(IMAGES), rtol=1e-4, atol=1e-5)
    limit = 1.01 * float(flops(subject.space)(np.array([widths]))[0])
    found = method.widths(BudgetedSpace(subject.space, {"flops": limit}), scores)
    assert [found[group] for group in model.gates.groups] == [1, 0, 1]


def test_a_space_without_blocks_is_refused(subject: Subject) -> None:
    plain = trace(subject.network, IMAGES[:1]).space
    with pytest.raises(ConfigError, match=r"sparsity training 'sss' is to scale blocks, and the space offers none"):
        branch_ends(subject.network, plain, subject.batches(1)[0], method="sss")
    with pytest.raises(ConfigError, match="blocks must be true or false"):
        SparseStructureSelection(blocks=1)  # type: ignore[arg-type]


def test_without_the_setting_blocks_stay(subject: Subject) -> None:
    method = SparseStructureSelection()
    model = method.set_up(subject)
    assert method.block_scores(model) == {}
    assert method.scores(model).shape == (subject.channels.number,)
    assert not any("gates" in name for name in weights_of(subject.network))


def test_blocks_without_examples_are_one_clear_error(subject: Subject) -> None:
    with pytest.raises(ConfigError, match="the task has no inputs: give it some, or set the method's blocks to false"):
        SparseStructureSelection(blocks=True).set_up(replace(subject, batches=lambda n: []))
