"""A search ends with right numbers or with one clear error; what it was given is afterwards as it was."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import Convolutions, Counting, Perceptron, closeness, fit, perceptron, pictures, regression, same_weights
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import autoprune
from autoprune.controllers.base import TrialState
from autoprune.data import load_data
from autoprune.errors import AutopruneError, ConfigError, DataError, EvaluationError, RunError
from autoprune.evaluators import EVALUATORS
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.importance import CRITERIA
from autoprune.importance.l1 import l1
from autoprune.importance.members import GroupTensors
from autoprune.pipeline import run
from autoprune.pipeline.phases import finals
from autoprune.pipeline.prepared import Prepared
from autoprune.registry import Part
from autoprune.space.groups import Widths
from autoprune.training.watch import Watch

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def search(run_dir: Path, model: nn.Module | None = None, **changes: Any) -> autoprune.SearchResult:
    given: dict[str, Any] = {
        "constraints": {"flops": "50%"},
        "data": (pictures(48, 0), pictures(32, 1), pictures(32, 2)),
        "trials": 2,
        "controller": "random",
        "training": {"epochs": 1, "batch_size": 16},
        "verdict": {"seeds": 0, "random_candidates": 1},
        "device": "cpu",
        "progress": "silent",
        "run_dir": run_dir,
    }
    return autoprune.search(model or Convolutions(classes=4), torch.zeros(1, 1, 8, 8), **(given | changes))


def put(tensor: Tensor, row: int, value: float) -> Tensor:
    changed = tensor.clone()
    changed[row] = value
    return changed


WRONG: dict[str, tuple[Change, str]] = {
    "column": (lambda x, y: (x, y[:, None]), "targets of shape"),
    "one hot": (lambda x, y: (x, nn.functional.one_hot(y, 4)), "targets of shape"),
    "regression": (lambda x, y: (x, x.mean((1, 2, 3))), "type torch.float32"),
    "class too many": (lambda x, y: (x, put(y, 30, 4)), "row 30: class number 4; allowed are 0 to 3"),
    "no class": (lambda x, y: (x, put(y, 30, -1)), "row 30: class number -1"),
    "all nan": (lambda x, y: (x * torch.nan, y), "NaN"),
    "one infinite": (lambda x, y: (put(x, 30, torch.inf), y), "row 30: .*infinite"),
}


@pytest.mark.parametrize("role", ["train", "validation", "test"])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_examples_of_any_split_stop_a_search_before_it_writes(case: str, role: str, tmp_path: Path) -> None:
    change, message = WRONG[case]
    data = {"train": pictures(48, 0), "validation": pictures(32, 1), "test": pictures(32, 2)}
    data[role] = TensorDataset(*change(*data[role].tensors))
    with pytest.raises(DataError, match=f"^{role}.*{message}"):
        search(tmp_path / "run", data=data)
    assert not any(tmp_path.iterdir())


class Lazy(Dataset[Any]):
    """Nobody can look at its examples before they are read."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


@pytest.mark.parametrize("case", ["class too many", "no class", "one infinite"])
def test_what_only_reading_shows_is_an_error_when_it_is_read(case: str, tmp_path: Path) -> None:
    change, message = WRONG[case]
    wrong = DataLoader(Lazy(*change(*pictures(32, 1).tensors)), 12)
    with pytest.raises(DataError, match=f"^validation, batch 2 as read, {message.replace('row 30', 'row 6')}"):
        search(tmp_path / "run", data=(pictures(48, 0), wrong))
    with pytest.raises(DataError, match=r"^train, batch \d as read, row"):
        search(tmp_path / "other", data=(Lazy(*change(*pictures(48, 0).tensors)), pictures(32, 1)), trained=False)


def test_integers_of_any_kind_score_like_class_numbers(tmp_path: Path) -> None:
    model, scores = Convolutions(classes=4), set()
    for dtype in (torch.int64, torch.int32, torch.uint8):
        data = tuple(TensorDataset(x, y.to(dtype)) for x, y in (pictures(48, 0).tensors, pictures(32, 1).tensors))
        result = search(tmp_path / str(dtype), model, data=data)
        scores.add((result.record.base["validation"], *(trial.score for trial in result.trials)))
    assert len(scores) == 1


class Dense(Convolutions):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :, None, None].expand(-1, -1, 8, 8)


class Twofold(Convolutions):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


class Decided(Convolutions):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).long()


class Divided(Convolutions):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out / (out - out)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Dense, r"a tensor of shape \(8, 4, 8, 8\)"),
        (Twofold, "returns tuple"),
        (Decided, "type torch.int64"),
        (Divided, "NaN or infinite outputs"),
        (lambda classes: Convolutions(classes=1), "1 outputs, by which no classes can be told apart"),
    ],
)
def test_outputs_that_name_no_class_are_refused_before_anything_is_written(
    kind: Callable[..., nn.Module], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        search(tmp_path / "run", kind(classes=4))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm1.weight", torch.nan),
        ("norm2.running_var", torch.inf),
        ("norm1.running_mean", torch.nan),
        ("conv1.weight", torch.inf),
        ("norm1.running_var", -1.0),
    ],
)
@pytest.mark.parametrize("own_score", [False, True])
def test_a_model_that_holds_no_numbers_is_refused_by_the_name_of_its_tensor(
    name: str, value: float, own_score: bool, tmp_path: Path
) -> None:
    model = Convolutions(classes=4)
    model.state_dict()[name][0] = value
    functions = {"score_func": lambda network: 1.0} if own_score else {}
    with pytest.raises(ConfigError, match=f"'{name}', the first at"):
        search(tmp_path / "run", model, **functions)
    with pytest.raises(ConfigError, match=f"'{name}', the first at"):
        autoprune.trace(model, torch.zeros(1, 1, 8, 8))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, True, None, "1", 1j])
def test_a_candidate_without_a_score_fails_its_trial_alone(value: object, tmp_path: Path) -> None:
    calls: list[int] = []

    def score(network: nn.Module) -> Any:
        calls.append(1)
        return value if len(calls) == 5 else closeness(network)

    result = regression(tmp_path / "run", perceptron(), score_func=score, train_func=None, verdict=None)
    states = [trial.state for trial in result.trials]
    assert states.count(TrialState.FAILED) == 1
    failed = next(trial for trial in result.trials if trial.state is TrialState.FAILED)
    assert failed.score is None
    assert "must return a finite number" in str(failed.error)


def rough(network: nn.Module) -> float:
    """Scores, and does to the network, its flags and all generators whatever can be done."""
    value = closeness(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5).requires_grad_(False)
    network.register_forward_hook(lambda *_: None)
    network.train().half()
    network.last = nn.Identity()
    torch.set_grad_enabled(False)
    torch.rand(3), np.random.rand(), random.random()
    return value


def trains(network: nn.Module) -> float:
    fit(network, 1, 0)
    return closeness(network)


class Keeps:
    """A score function that has kept what it was given before."""

    def __init__(self) -> None:
        self.kept: list[nn.Module] = []

    def __call__(self, network: nn.Module) -> float:
        for earlier in self.kept:
            for parameter in earlier.parameters():
                parameter.data.zero_()
        self.kept.append(network)
        return closeness(network)


@pytest.mark.parametrize("score", [rough, trains, Keeps()])
def test_what_a_score_function_does_to_its_network_reaches_no_other(
    score: Callable[[nn.Module], float], tmp_path: Path
) -> None:
    model = perceptron()
    before = copy.deepcopy(model)
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    plain = regression(tmp_path / "plain", model)
    result = regression(tmp_path / "run", model, score_func=score)
    base = load_file(tmp_path / "run" / "base.safetensors")
    assert all(torch.equal(tensor, base[name]) for name, tensor in model.state_dict().items())
    assert same_weights(result.model, plain.model)
    if score is not trains:
        assert [trial.score for trial in result.trials] == [trial.score for trial in plain.trials]
        assert [final.score for final in result.record.finals] == [final.score for final in plain.record.finals]
    assert same_weights(model, before)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert not model._forward_hooks
    assert generators[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(generators[2], torch.get_rng_state())
    assert torch.is_grad_enabled()


def test_what_forward_counts_while_it_is_scored_is_not_in_the_base_network(tmp_path: Path) -> None:
    model = Counting()
    regression(tmp_path / "run", model, train_func=None, verdict=None)
    assert load_file(tmp_path / "run" / "base.safetensors")["calls"] == model.calls == 0


def test_a_score_function_that_works_on_the_callers_model_is_an_error_before_anything_is_written(
    tmp_path: Path,
) -> None:
    model = perceptron()

    def score(network: nn.Module) -> float:
        model.last.weight.data.mul_(0.9)
        return closeness(network)

    with pytest.raises(RunError, match=r"the given model was changed .*parameter 'last.weight'"):
        regression(tmp_path / "run", model, score_func=score)
    assert not any(tmp_path.iterdir())


def test_a_training_that_leaves_no_numbers_is_an_error(tmp_path: Path) -> None:
    def spoil(network: nn.Module, epochs: int, seed: int) -> None:
        network.second.bias.data[3] = torch.nan  # type: ignore[union-attr, operator]

    with pytest.raises(EvaluationError, match=r"after train_func holds .*'second.bias', the first at \(3,\) is nan"):
        regression(tmp_path / "run", Perceptron(), train_func=spoil, score_func=lambda network: 1.0, trained=False)


class Careless(Evaluator):
    """Works on the base network itself."""

    def __init__(self, factory: CandidateFactory, *, how: str = "scale") -> None:
        self._factory, self._how = factory, how
        if how == "build":
            next(iter(factory.model.parameters())).data.mul_(0.99)
            torch.rand(1)

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        base = next(iter(self._factory.model.parameters()))
        if self._how == "scale":
            base.data.mul_(0.99)
        elif self._how == "freeze":
            base.requires_grad_(False)
        random.random()
        answers: dict[str, Any] = {"nan": float("nan"), "above": 100.5, "text": "90", "truth": True}
        return answers.get(self._how, 50.0)  # type: ignore[no-any-return]


def test_a_change_of_the_base_network_by_whatever_way_ends_the_run_with_the_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[nn.Module] = []

    def base_network(*given: Any) -> nn.Module:
        made.append(phases_base(*given))
        return made[0]

    def score(network: nn.Module) -> float:
        if made:
            made[0].last.weight.data.mul_(0.9)  # type: ignore[union-attr, operator]
        return closeness(network)

    def scale(prepared: Any, base: nn.Module, **given: Any) -> Any:
        if made:
            base.first.bias.data.mul_(0.9)  # type: ignore[union-attr, operator]
        return scores(prepared, base, **given)

    phases_base, scores = run.base_network, Prepared.scores
    monkeypatch.setattr(run, "base_network", base_network)
    with pytest.raises(AutopruneError, match=r"changed the base network: parameter 'last.weight'"):
        regression(tmp_path / "run", perceptron(), score_func=score)
    made.clear()
    monkeypatch.setattr(Prepared, "scores", scale)
    with pytest.raises(RunError, match=r"^the criterion changed the base network: parameter 'first.bias'"):
        regression(tmp_path / "other", perceptron())


def test_a_change_between_evaluations_is_found_at_the_end_of_the_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, train_finals = [], finals.train_finals
    phases_base = run.base_network

    def base_network(*given: Any) -> nn.Module:
        made.append(phases_base(*given))
        return made[0]

    def trained(*given: Any, **options: Any) -> Any:
        found = train_finals(*given, **options)
        made[0].second.train()  # type: ignore[operator, union-attr]
        return found

    monkeypatch.setattr(run, "base_network", base_network)
    monkeypatch.setattr(finals, "train_finals", trained)
    with pytest.raises(RunError, match=r"^final trainings changed the base network: the training flag of 'second'"):
        regression(tmp_path / "run", perceptron())
    assert not (tmp_path / "run" / "result.json").exists()


def in_place(tensors: GroupTensors, rng: np.random.Generator) -> Tensor:
    """A criterion that works on the tensors it is given."""
    for rows in tensors.filters:
        rows.abs_()
    return l1(tensors, rng)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("scale", r"'careless' changed the base network: parameter 'conv1.weight' is not as it was"),
        ("build", r"'careless' changed the base network: parameter 'conv1.weight' is not as it was"),
        ("freeze", r"'careless' changed the base network: requires_grad of 'conv1.weight'"),
        ("nan", "'careless' must return a finite number from 0 to 100, .*returned nan"),
        ("above", "from 0 to 100, .*returned 100.5"),
        ("text", "returned '90'"),
        ("truth", "returned True"),
    ],
)
def test_an_evaluator_of_the_users_gives_possible_scores_of_the_base_network_as_it_was(
    how: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EVALUATORS._table, "careless", Part(f"{__name__}:Careless"))
    before = random.getstate()
    with pytest.raises(AutopruneError, match=message):
        search(tmp_path / "run", evaluator={"name": "careless", "settings": {"how": how}})
    assert before == random.getstate()


def test_a_criterion_that_works_on_what_it_is_given_reaches_neither_the_model_nor_the_base_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CRITERIA._table, "in_place", Part(f"{__name__}:in_place"))
    model = perceptron()
    before = copy.deepcopy(model)
    careless, plain = (regression(tmp_path / name, model, criterion=name) for name in ("in_place", "l1"))
    assert same_weights(model, before)
    assert [trial.score for trial in careless.trials] == [trial.score for trial in plain.trials]


def test_what_a_data_function_draws_is_the_same_every_time_and_leaves_the_generators_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawn_data.py").write_text(
        "import random, numpy, torch\nfrom torch.utils.data import TensorDataset\n"
        "def make():\n"
        "    x = torch.rand(8, 2) + random.random() + numpy.random.rand()\n"
        "    return (TensorDataset(x, torch.zeros(8).long()),) * 2\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    prints = {load_data("drawn_data:make").fingerprint for _ in range(2)}
    assert len(prints) == 1
    assert before[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(before[2], torch.get_rng_state())
