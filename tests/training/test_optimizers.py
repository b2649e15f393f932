from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import pytest
import torch
from torch import nn

from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, RegistryError
from autoprune.training.optimizers import check_optimizer, make_optimizer
from autoprune.training.trainer import Trainer

CPU = torch.device("cpu")


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def batches(n: int, size: int = 12) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [Batch(torch.randn(size, 5, generator=generator), torch.arange(size) % 3) for _ in range(n)]


def stepped(recipe: Recipe, steps: int = 5) -> nn.Module:
    model = network()
    trainer = Trainer(model, recipe, device=CPU, seed=0)
    for batch in batches(steps):
        trainer.step([batch], 12, done=0.0)
    return model


def by_torch(
    make: Callable[[nn.Module], torch.optim.Optimizer], steps: int = 5, clip: float | None = None
) -> nn.Module:
    model = network().train()
    optimizer = make(model)
    for batch in batches(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def recipe(name: str, settings: dict[str, Any] | None = None, **options: Any) -> Recipe:
    return Recipe(schedule="constant", lr=0.01, optimizer={"name": name, "settings": settings or {}}, **options)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (recipe("sgd"), lambda p: torch.optim.SGD(p, 0.01, 0.9, weight_decay=1e-4, nesterov=True)),
        (
            recipe("SGD", {"momentum": 0.5, "nesterov": False}),
            lambda p: torch.optim.SGD(p, 0.01, 0.5, weight_decay=1e-4),
        ),
        (recipe("adamw"), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=1e-4)),
        (
            recipe("AdamW", {"betas": [0.8, 0.9], "weight_decay": 0.1}),
            lambda p: torch.optim.AdamW(p, 0.01, betas=(0.8, 0.9), weight_decay=0.1),
        ),
        (recipe("adam", weight_decay=0.2), lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.2)),
        (
            recipe("rmsprop", {"momentum": 0.7, "alpha": 0.9}),
            lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.7, alpha=0.9, weight_decay=1e-4),
        ),
        (recipe("nadam"), lambda p: torch.optim.NAdam(p, 0.01, weight_decay=1e-4)),
        (recipe("rprop"), lambda p: torch.optim.Rprop(p, 0.01)),
        (recipe(f"{__name__}:Own", {"factor": 2.0}), lambda p: torch.optim.SGD(p, 0.02)),
    ],
)
def test_an_optimizer_is_that_of_torch(ours: Recipe, theirs: Callable[[Any], torch.optim.Optimizer]) -> None:
    check_optimizer(ours)
    assert same(stepped(ours), by_torch(lambda model: theirs(model.parameters())))


@final
class Own(torch.optim.Optimizer):
    """Gradient descent, some times as fast."""

    def __init__(self, params: Any, lr: float, *, factor: float = 1.0) -> None:
        super().__init__(params, {"lr": lr, "factor": factor})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(parameter.grad, alpha=group["lr"] * group["factor"])


class Rateless(torch.optim.SGD):
    def __init__(self, params: Any) -> None:
        super().__init__(params, 0.1)


def test_norms_and_biases_can_be_spared_the_weight_decay() -> None:
    def split_by_hand(model: nn.Module) -> torch.optim.Optimizer:
        decayed, spared = [model[0].weight, model[3].weight], [model[0].bias, *model[1].parameters(), model[3].bias]
        groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
        return torch.optim.SGD(groups, 0.01, 0.9, weight_decay=0.3, nesterov=True)

    ours = stepped(recipe("sgd", weight_decay=0.3, decay_norms=False))
    assert same(ours, by_torch(split_by_hand))
    assert not same(ours, stepped(recipe("sgd", weight_decay=0.3)))


def test_a_network_of_only_norms_or_none_has_groups_that_are_not_empty() -> None:
    for model in (nn.BatchNorm1d(3), nn.Linear(2, 2, bias=False)):
        assert [len(g["params"]) > 0 for g in make_optimizer(Recipe(decay_norms=False), model).param_groups] == [True]


@pytest.mark.parametrize("clip", [1e-3, 0.3, 100.0])
def test_clipping_is_that_of_torch(clip: float) -> None:
    plain = stepped(recipe("sgd"))
    clipped = stepped(recipe("sgd", clip_norm=clip))

    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True)

    assert same(clipped, by_torch(sgd, clip=clip))
    assert same(clipped, plain) == (clip == 100.0)


def test_gradients_of_unequal_batches_add_up_to_those_of_all_their_examples() -> None:
    models = [nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    parts = [batches(1, size)[0] for size in (12, 12, 5)]
    parts = [Batch(part.inputs.double(), part.targets) for part in parts]
    whole = Batch(torch.cat([p.inputs for p in parts]), torch.cat([p.targets for p in parts]))
    trainers = [Trainer(model, recipe("adamw", accumulate_batches=3), device=CPU, seed=0) for model in models]
    losses = [trainers[0].step(parts, 29, done=0.1), trainers[1].step([whole], 29, done=0.1)]
    torch.testing.assert_close(*losses)
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adamwx"}, r"unknown optimizer 'adamwx'; choose one of .*\badamw\b.* Did you mean 'adamw'"),
        ({"optimizer": {"name": "adamw", "settings": {"beta": 1}}}, "has no setting 'beta'.*Did you mean 'betas'"),
        ({"optimizer": {"name": "adamw", "settings": {"betas": [2, 3]}}}, "cannot be made: ValueError: Invalid beta"),
        ({"optimizer": {"name": "adamw", "settings": {"lr": 1}}}, "the learning rate is `lr` of `training`"),
        ({"optimizer": {"name": "adamw", "settings": {"params": 1}}}, "has no setting 'params'"),
        ({"optimizer": "lbfgs"}, "evaluates the loss several times"),
        ({"optimizer": "sparseadam"}, "cannot do a step: .*for dense gradients"),
        ({"optimizer": "rprop", "weight_decay": 0.1}, "weight_decay is 0.1, but optimizer 'rprop' takes none"),
        ({"optimizer": f"{__name__}:network"}, "is no class derived from torch.optim.Optimizer"),
        ({"optimizer": f"{__name__}:Rateless"}, "takes no lr"),
        ({"optimizer": f"{__name__}:Missing"}, "has no 'Missing'"),
    ],
)
def test_what_cannot_be_an_optimizer_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, RegistryError), match=message):
        check_optimizer(Recipe(**options))
