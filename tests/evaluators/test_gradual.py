"""Cutting in steps: the schedule, nested cuts, the optimizer's state, resuming at any epoch, a whole final training."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.errors import ConfigError
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.gradual import GradualCuts, stages
from autoprune.space.copying import copy_network
from autoprune.space.cutting.graph_form import graph_network
from autoprune.space.cutting.narrowed import narrowed
from autoprune.space.cutting.slicing import Slicer, random_ranking
from autoprune.space.options.choices import SpaceOptions
from autoprune.space.tracing.trace import trace
from autoprune.tasks.classification import ClassificationTask
from autoprune.testing.evaluators import TinyNet, tiny_bench, tiny_splits
from autoprune.testing.generators import global_generators
from autoprune.testing.objectives import same_weights
from autoprune.training.integrity import Snapshot
from autoprune.training.loop import train
from autoprune.training.protocols import make_protocol
from autoprune.training.trainer import Trainer
from autoprune.training.watch import State, Stopped, Watch
from autoprune.verdict.finals import PlannedFinal, train_final
from autoprune.zoo.resnet import resnet20

CPU = torch.device("cpu")


class EndingAfter(Watch):
    """Stops after an epoch, the first time; afterwards it goes on from there."""

    def __init__(self, epoch: int) -> None:
        self._after, self._kept = epoch, b""

    def restore(self) -> State | None:
        state: State | None = torch.load(io.BytesIO(self._kept), weights_only=True) if self._kept else None
        return state

    def epoch(self, done: int, total: int, score: Any, state: Any) -> None:
        if done == self._after and not self._kept:
            buffer = io.BytesIO()
            torch.save(state(), buffer)
            self._kept = buffer.getvalue()
            raise Stopped


def test_widths_follow_the_cubic_schedule_and_end_where_they_are_to_end() -> None:
    space = trace(resnet20(), torch.zeros(1, 3, 32, 32)).space
    final = space.nearest([g.width / 4 for g in space.groups])
    found = stages(space, final, steps=4, share=0.5, epochs=40)
    assert [epochs for epochs, _ in found] == [0, 5, 10, 15]
    for i, (_, widths) in enumerate(found, start=1):
        full, end = np.array(space.full), np.array(final)
        sparsity = 1 - (1 - i / 4) ** 3  # s_t of equation 1 with s_i = 0, as a share of s_f
        np.testing.assert_allclose(widths, full - (full - end) * sparsity, atol=0.5)
    assert found[-1][1] == final


@pytest.mark.parametrize(("steps", "epochs", "expected"), [(4, 1, [0]), (4, 2, [0]), (4, 6, [0, 1]), (1, 9, [0])])
def test_there_are_no_more_steps_than_epochs_for_them(steps: int, epochs: int, expected: list[int]) -> None:
    space = tiny_bench().space
    found = stages(space, space.smallest, steps=steps, share=0.5, epochs=epochs)
    assert [at for at, _ in found] == expected
    assert found[-1][1] == space.smallest


def test_the_full_network_is_never_cut() -> None:
    space = tiny_bench().space
    assert stages(space, space.full, steps=4, share=0.5, epochs=40) == ((0, space.full),)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 4
        self.stem, self.norm, self.qkv, self.proj = (
            nn.Linear(4, 16),
            nn.LayerNorm(16),
            nn.Linear(16, 48),
            nn.Linear(16, 16),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.transpose(-2, -1), dim=-1) @ v
        return x + self.proj(mixed.transpose(1, 2).reshape(n, t, self.num_heads * self.head_dim))


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", ["tiny", "resnet", "blocks", "attention", "lstm"])
def test_a_cut_of_a_cut_network_is_the_cut_of_the_whole_one(name: str, graph: bool) -> None:
    torch.manual_seed(0)
    model: nn.Module = {"tiny": TinyNet, "attention": Attention, "lstm": Recurrent}.get(name, resnet20)()
    example = {"tiny": torch.randn(2, 1, 6, 6), "attention": torch.randn(2, 5, 4), "lstm": torch.randn(2, 5, 4)}.get(
        name, torch.randn(2, 3, 32, 32)
    )
    traced = trace(model, example, options=SpaceOptions(blocks=name == "blocks"))
    space = traced.space
    if graph:
        model = graph_network(model, traced.program, space, example)
        space = type(space)(**{f: getattr(space, f) for f in space.__dataclass_fields__} | {"form": "graph"})
    model.eval()
    rng = np.random.default_rng(1)
    ranking = random_ranking(space, rng)
    first = space.nearest([0.4 if g.kind == "blocks" and i % 2 else 0.7 * g.width for i, g in enumerate(space.groups)])
    second = tuple(min(a, b) for a, b in zip(first, space.nearest([0.3 * w for w in space.full]), strict=True))
    once = Slicer(model, space, ranking).cut(first).network
    twice = Slicer(once, *narrowed(space, ranking, first)).cut(second).network
    direct = Slicer(model, space, ranking).cut(second).network
    assert list(twice.state_dict()) == list(direct.state_dict())
    assert same_weights(twice, direct)
    assert str(twice) == str(direct)
    torch.testing.assert_close(twice(example), direct(example))
    twice.train()(example).sum().backward()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.lstm(x)[0][:, -1])
        return logits


def bench(**options: Any) -> CandidateFactory:
    """Like `tiny_bench`, trained by another recipe from the base network on."""
    base = tiny_bench()
    recipe = Recipe(epochs=6, lr=0.05, batch_size=64, **options)
    task = ClassificationTask(tiny_splits(), recipe, device=CPU)
    return CandidateFactory(base.model, base.space, base.ranking, task, base_epochs=6)


def gradual(factory: CandidateFactory, watch: Watch | None = None, **options: Any) -> tuple[nn.Module, list[Any]]:
    space = factory.space
    made = GradualCuts(factory, stages(space, space.smallest, steps=3, share=0.5, epochs=6))
    network, recipe = made.start(), factory.task.recipe
    assert recipe is not None
    records = train(
        network, tiny_splits().train, recipe, seed=3, device=CPU, watch=watch, cuts=made.cuts, teacher=factory.model
    )
    return network, records


RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw with an average": {"optimizer": "adamw", "ema": 0.9, "decay_norms": False},
    "adafactor": {"optimizer": "adafactor"},
    "features": {"objective": "feature_distillation", "augment": False},
    "sparse": {"terms": ["bn_l1"], "clip_norm": 1.0},
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_in_steps_resumes_at_any_epoch_to_the_same_weights(name: str) -> None:
    factory = bench(**RECIPES[name])
    before, generators = Snapshot(factory.model), global_generators()
    whole, records = gradual(factory)
    assert [record.epoch for record in records] == [1, 2, 3, 4, 5, 6]
    for epoch in (1, 2, 4):
        watch = EndingAfter(epoch)
        with pytest.raises(Stopped):
            gradual(factory, watch)
        assert same_weights(gradual(factory, watch)[0], whole)
    assert before.changed() is None
    assert global_generators() == generators


def test_the_optimizer_keeps_what_is_left_of_its_state_and_the_network_stays_the_same_object() -> None:
    factory = bench()
    space = factory.space
    made = GradualCuts(factory, ((0, space.full), (1, space.smallest)))
    network = made.start()
    trainer = Trainer(network, Recipe(epochs=2, lr=0.05, batch_size=64), device=CPU, seed=0)
    trainer.run_epoch(tiny_splits().train, 1, seed=0)
    before = {name: trainer._optimizer.state[p]["momentum_buffer"].clone() for name, p in network.named_parameters()}
    direct = copy_network(network)
    with torch.no_grad():  # the momentum as weights: cut by what cuts weights
        for name, parameter in direct.named_parameters():
            parameter.copy_(before[name])
    expected = dict(Slicer(direct, space, factory.ranking)(space.smallest).named_parameters())
    trainer.cut(made.cuts.make(network, 0, True))
    assert network is trainer._model
    for name, parameter in network.named_parameters():
        assert parameter.shape == expected[name].shape
        assert torch.equal(trainer._optimizer.state[parameter]["momentum_buffer"], expected[name])
    trainer.run_epoch(tiny_splits().train, 2, seed=1)


class Odd(torch.optim.SGD):
    """Keeps one number for each parameter beside as many as there are."""

    def step(self, closure: Any = None) -> None:
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["odd"] = torch.zeros(7)


def test_a_state_that_nothing_is_known_of_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"Odd keeps for .*'odd' of shape \(7,\).*choose another optimizer"):
        gradual(bench(optimizer={"name": f"{__name__}:Odd", "settings": {"momentum": 0.9}}))


def test_a_final_training_in_steps_takes_as_many_epochs_as_fine_tuning_and_ends_at_the_same_widths() -> None:
    factory = bench()
    widths = factory.space.nearest([g.width / 2 for g in factory.space.groups])
    trained = {}
    for name in ("fine_tune", "gradual"):
        piece = PlannedFinal(widths, NamedPart(name=name), 0, 6, 0.1, True)
        trained[name] = train_final(factory, piece)
    assert trained["gradual"].epochs == trained["fine_tune"].epochs == 6
    one, other = (trained[name].weights for name in trained)
    assert one is not None
    assert other is not None
    assert len(one) == len(other)
    assert one != other
    again = train_final(factory, PlannedFinal(widths, NamedPart(name="gradual"), 0, 6, 0.1, True))
    assert again.weights == other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number of at least 1, got 2.5"),
        ({"cutting": 1}, "cutting must be a number above 0 and below 1, got 1"),
        ({"lr_share": 0}, "lr_share must be a number above 0, got 0"),
        ({"step": 3}, "Did you mean 'steps'"),
    ],
)
def test_wrong_settings_of_gradual_are_one_clear_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_protocol(NamedPart(name="gradual", settings=settings))
