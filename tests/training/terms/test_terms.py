from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, final

import pytest
import torch
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.space.cutting.masks import put_mask
from autoprune.space.density import LayerDensity
from autoprune.testing.inheritance import _network
from autoprune.testing.terms import TermContract
from autoprune.testing.terms import _network as tiny_network
from autoprune.training.terms import TERMS
from autoprune.training.terms.base import Term, make_terms
from autoprune.training.terms.bn_l1 import BatchNormL1
from autoprune.training.trainer import Trainer

CPU = torch.device("cpu")


class TestEachCard(TermContract):
    @pytest.fixture(params=TERMS.names())
    def new(self, request: pytest.FixtureRequest) -> Callable[[], Term]:
        settings = {"rigl": {"interval": 2}}.get(request.param, {})
        return functools.partial(lambda name: make_terms([{"name": name, "settings": settings}])[0], request.param)

    @pytest.fixture
    def model(self) -> Callable[[], nn.Module]:
        """Weights of one layer are left out: terms that move masks have something to do."""

        def made() -> nn.Module:
            network = tiny_network()
            name, weight = next((n, p) for n, p in network.named_parameters() if p.ndim > 1)
            density = LayerDensity(name.rpartition(".")[0], name, tuple(weight.shape), 2)
            put_mask(network, density, torch.arange(weight.numel()).reshape(weight.shape) % 2 == 0)
            return network

        return made


@final
class Everything(Term):
    """A pull towards the mean of earlier weights, gradients without their mean, and weights that stay small."""

    def begin(self, model: nn.Module) -> None:
        self.means = [p.detach().clone() for p in model.parameters()]
        self.calls: list[str] = []

    def penalty(self, model: nn.Module, *, done: float) -> Tensor:
        self.calls.append("penalty")
        pairs = zip(model.parameters(), self.means, strict=True)
        return done * torch.stack([(p - mean).square().sum() for p, mean in pairs]).sum()

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        self.calls.append("after_backward")
        for parameter in model.parameters():
            parameter.grad.sub_(parameter.grad.mean())  # type: ignore[union-attr]

    def after_step(self, model: nn.Module, *, done: float) -> None:
        self.calls.append("after_step")
        for parameter, mean in zip(model.parameters(), self.means, strict=True):
            parameter.clamp_(-0.4, 0.4)
            mean.lerp_(parameter, 0.1)

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.means = [mean.clone() for mean in state["means"]]


class TestATermThatDoesEverything(TermContract):
    @pytest.fixture
    def new(self) -> Callable[[], Term]:
        return Everything


def inputs() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randn(6, 2, 6, 6, generator=generator), torch.arange(6) % 3)


def test_a_step_is_that_of_torch_with_the_penalty_in_the_loss() -> None:
    ours, theirs = _network(baked=False)[0].train(), _network(baked=False)[0].train()
    initial = [p.detach().clone() for p in theirs.parameters()]
    recipe = Recipe(epochs=1, lr=0.1, nesterov=False, momentum=0.0, weight_decay=0.0, clip_norm=0.5)
    term = Everything()
    trainer = Trainer(ours, recipe, device=CPU, seed=0, terms=[term])
    trainer.step([inputs()], 6, done=0.25)
    assert term.calls == ["penalty", "after_backward", "after_step"]

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1 * (1 + 2**-0.5) / 2)
    drawn = inputs()
    pull = sum((p - q).square().sum() for p, q in zip(theirs.parameters(), initial, strict=True))
    (nn.functional.cross_entropy(theirs(drawn.inputs), drawn.targets) + 0.25 * pull).backward()
    for p in theirs.parameters():
        p.grad.sub_(p.grad.mean())  # type: ignore[union-attr]
    nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
    optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q.clamp(-0.4, 0.4))


@pytest.mark.parametrize("baked", [False, True], ids=["module", "graph"])
def test_bn_l1_adds_the_subgradient_of_the_penalty(baked: bool) -> None:
    network = _network(baked=baked)[0].train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        norms[0].weight.copy_(torch.tensor([1.0, -1, 0, 2, -2, 0.5, -0.5, 0]))
    drawn = inputs()
    nn.functional.cross_entropy(network(drawn.inputs), drawn.targets).backward()
    before = {name: p.grad.clone() for name, p in network.named_parameters()}  # type: ignore[union-attr]
    term = BatchNormL1(weight=0.01)
    term.begin(network)
    term.after_backward(network, done=0.5)
    added = {name: p.grad - before[name] for name, p in network.named_parameters() if p.grad is not None}
    signs = torch.tensor([1.0, -1, 0, 1, -1, 1, -1, 0])
    torch.testing.assert_close(added.pop("stem_norm.weight"), 0.01 * signs, rtol=0, atol=1e-8)
    torch.testing.assert_close(added.pop("inner_norm.weight"), torch.full((12,), 0.01), rtol=0, atol=1e-8)
    assert not any(change.any() for change in added.values())


def test_bn_l1_counts_a_shared_scale_once_and_passes_over_frozen_ones() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False))
    network[1].weight = network[0].weight
    network[2].weight.requires_grad_(False)
    network(torch.randn(4, 3)).square().sum().backward()
    before = network[0].weight.grad.clone()
    BatchNormL1(weight=0.25).after_backward(network, done=0.0)
    torch.testing.assert_close(network[0].weight.grad - before, torch.full((3,), 0.25))
    assert network[2].weight.grad is None


def test_bn_l1_drives_scales_to_nothing() -> None:
    from autoprune.testing.terms import _network as tiny
    from autoprune.testing.terms import _trained

    plain, sparse = (_trained(tiny, terms) for terms in ([], [BatchNormL1(weight=0.5)]))
    scales = [
        sum(m.weight.detach().abs().sum().item() for m in n.modules() if isinstance(m, nn.BatchNorm2d))
        for n in (plain, sparse)
    ]
    assert scales[1] < 0.5 * scales[0]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["bn_l2"], "unknown term 'bn_l2'.*Did you mean 'bn_l1'"),
        ([{"name": "bn_l1", "settings": {"wieght": 1}}], "term 'bn_l1' has no setting 'wieght'.*Did you mean 'weight'"),
        ([{"name": "bn_l1", "settings": {"weight": "x"}}], "weight must be a finite number above 0, got 'x'"),
        ([{"name": "bn_l1", "settings": {"weight": 0}}], "weight must be a finite number above 0, got 0"),
    ],
)
def test_what_cannot_be_a_term_is_refused(chosen: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_terms(chosen)


def test_bn_l1_without_batch_norms_says_so() -> None:
    with pytest.raises(ConfigError, match="no batch norm modules with scales"):
        Trainer(nn.Linear(2, 2), Recipe(terms=["bn_l1"]), device=CPU, seed=0)
