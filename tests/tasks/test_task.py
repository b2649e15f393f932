import copy
import functools
import random

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, TensorDataset

from autoprune.data import load_data, splits_from
from autoprune.data.base import DataSplits
from autoprune.errors import ConfigError, DataError, EvaluationError
from autoprune.tasks.callable import CallableTask
from autoprune.tasks.classification import ClassificationTask
from autoprune.tasks.identity import function_identity
from autoprune.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, lr=0.1, batch_size=64, warmup_epochs=1)
PAIRS = TensorDataset(torch.arange(40.0)[:, None], torch.zeros(40).long())


class Rows(Dataset):
    def __init__(self, rows: list[object]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> object:
        return self.rows[index]


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_data("digits")


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10))


class TestClassificationTask:
    def test_trains_and_scores_digits(self, digits: DataSplits):
        task, model = ClassificationTask(digits, RECIPE, device=CPU), network()
        before = task.score(model)
        task.train(model, epochs=3, seed=0)
        assert before < 30 < 75 < task.score(model) <= 100
        assert task.score(model, split="test") != task.score(model)
        assert task.unit == "%"
        assert task.has_test

    def test_lr_reaches_the_training(self, digits: DataSplits):
        task = ClassificationTask(digits, RECIPE, device=CPU)
        still = network()
        start = copy.deepcopy(still[1].weight)
        task.train(still, epochs=1, seed=0, lr=1e-9)
        torch.testing.assert_close(still[1].weight, start, rtol=0, atol=1e-6)

    def test_without_a_test_split_test_means_validation(self):
        task = ClassificationTask(splits_from((PAIRS, PAIRS)), RECIPE, device=CPU)
        assert not task.has_test
        model = nn.Linear(1, 2)
        assert task.score(model, split="test") == task.score(model)

    def test_calibration_inputs_are_clean_training_images(self, digits: DataSplits):
        task = ClassificationTask(digits, RECIPE, device=CPU)
        inputs = task.calibration_inputs(3, seed=2)
        assert [tuple(batch.shape) for batch in inputs] == [(64, 1, 16, 16)] * 3
        clean = {image.numpy().tobytes() for batch, _ in digits.train.batches(512) for image in batch}
        assert all(image.numpy().tobytes() in clean for batch in inputs for image in batch)
        again, other = task.calibration_inputs(3, seed=2), task.calibration_inputs(3, seed=3)
        assert all(map(torch.equal, inputs, again))
        assert not torch.equal(inputs[0], other[0])
        assert len(task.calibration_inputs(99, seed=0)) == 10

    def test_the_fingerprint_is_of_data_and_recipe(self, digits: DataSplits):
        tasks = [
            ClassificationTask(digits, RECIPE, device=CPU),
            ClassificationTask(digits, RECIPE.over(5), device=CPU),
            ClassificationTask(splits_from((PAIRS, PAIRS)), RECIPE, device=CPU),
        ]
        assert len({task.fingerprint for task in tasks}) == 3
        assert tasks[0].fingerprint == ClassificationTask(load_data("digits"), RECIPE, device=CPU).fingerprint


def weight_sum(model: nn.Module) -> float:
    return sum(p.sum().item() for p in model.parameters())


class TestCallableTask:
    def test_the_score_is_the_users_in_eval_mode_and_flags_come_back(self):
        def score(model: nn.Module) -> float:
            assert not model.training
            model.train()
            return weight_sum(model)

        model = network()
        model[2].eval()
        flags = [module.training for module in model.modules()]
        task = CallableTask(score, device=CPU)
        assert task.score(model) == weight_sum(model) == task.score(model, split="test")
        assert [module.training for module in model.modules()] == flags
        assert (task.unit, task.has_test) == ("", False)

    def test_test_func_scores_the_test_split(self):
        task = CallableTask(lambda _: 1.0, test_func=lambda _: 2.0, device=CPU)
        assert task.has_test
        assert (task.score(network()), task.score(network(), split="test")) == (1.0, 2.0)

    @pytest.mark.parametrize("value", [1, 1.0, torch.tensor(1.0), torch.ones(1), torch.ones(1).numpy()[0]])
    def test_any_real_number_is_a_score(self, value: object):
        score = CallableTask(lambda _: value, device=CPU).score(network())
        assert (type(score), score) == (float, 1.0)

    @pytest.mark.parametrize("value", [None, "0.9", float("nan"), float("inf"), torch.ones(2), 1j, (1.0,)])
    def test_anything_else_is_refused(self, value: object):
        with pytest.raises(EvaluationError, match="score_func must return a finite number"):
            CallableTask(lambda _: value, device=CPU).score(network())
        with pytest.raises(EvaluationError, match="test_func must return"):
            CallableTask(lambda _: 1.0, test_func=lambda _: value, device=CPU).score(network(), split="test")

    def test_training_is_in_place_seeded_and_leaves_the_random_state_alone(self):
        def noisy(model: nn.Module, epochs: int, seed: int) -> None:
            with torch.no_grad():
                model[1].weight.normal_().mul_(epochs * random.random())

        task = CallableTask(weight_sum, noisy, device=CPU)
        models = [network() for _ in range(3)]
        before = torch.get_rng_state(), random.getstate()
        for model, seed in zip(models, (1, 1, 2), strict=True):
            task.train(model, epochs=2, seed=seed)
            assert not model.training
        assert torch.equal(models[0][1].weight, models[1][1].weight)
        assert not torch.equal(models[0][1].weight, models[2][1].weight)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]

    def test_training_that_returns_another_model_or_is_missing_is_refused(self):
        with pytest.raises(ConfigError, match="in place"):
            CallableTask(weight_sum, lambda *_: network(), device=CPU).train(network(), epochs=1, seed=0)
        with pytest.raises(ConfigError, match="pass train_func"):
            CallableTask(weight_sum, device=CPU).train(network(), epochs=1, seed=0)
        model = network()
        CallableTask(weight_sum, lambda *_: model, device=CPU).train(model, epochs=1, seed=0)

    @pytest.mark.parametrize(
        "data",
        [
            splits_from((PAIRS, PAIRS)),
            (PAIRS, PAIRS),
            {"train": PAIRS, "validation": PAIRS},
            PAIRS,
            DataLoader(PAIRS, 128, shuffle=True, generator=torch.Generator().manual_seed(0)),
            [PAIRS[:]],
            [PAIRS[:][0]],
        ],
        ids=["splits", "tuple", "mapping", "data set", "loader", "list of pairs", "list of tensors"],
    )
    def test_calibration_inputs_from_any_form_of_data(self, data: object):
        task = CallableTask(weight_sum, data=data, device=CPU)
        (inputs,) = task.calibration_inputs(2, seed=1)
        assert sorted(inputs.flatten().tolist()) == list(range(40))
        (again,) = task.calibration_inputs(2, seed=1)
        assert torch.equal(inputs, again)

    @pytest.mark.parametrize("form", ["list", "loader", "data set"])
    @pytest.mark.parametrize("kind", ["keywords", "positional", "keywords and targets"])
    def test_calibration_inputs_may_be_several(self, kind: str, form: str):
        x, y = torch.arange(8.0)[:, None], -torch.arange(8.0)[:, None]
        inputs = (x, y) if kind == "positional" else {"x": x, "y": y}
        batch = inputs if kind == "keywords" else (inputs, torch.zeros(8))
        rows = [pytree.tree_map(lambda tensor, i=i: tensor[i], batch) for i in range(8)]
        data = {"list": [batch], "loader": DataLoader(rows, 8), "data set": Rows(rows)}[form]
        task = CallableTask(weight_sum, data=data, device=CPU)
        (found,) = task.calibration_inputs(2, seed=1)
        first, second = found.values() if isinstance(found, dict) else found
        assert isinstance(found, dict) == (kind != "positional")
        assert sorted(first.flatten().tolist()) == list(range(8))
        assert torch.equal(second, -first)
        assert task.fingerprint == CallableTask(weight_sum, data=data, device=CPU).fingerprint
        other = [pytree.tree_map(lambda tensor: tensor + 1, batch)]
        assert task.fingerprint != CallableTask(weight_sum, data=other, device=CPU).fingerprint

    def test_calibration_data_that_are_no_numbers_or_cannot_be_read_are_named(self):
        def task(data: object) -> CallableTask:
            return CallableTask(weight_sum, data=data, device=CPU)

        with pytest.raises(DataError, match="batch 1 for calibration, holds NaN"):
            task([torch.zeros(2, 3), torch.full((2, 3), torch.nan)]).calibration_inputs(2, seed=0)
        with pytest.raises(DataError, match="batch 0 for calibration, holds NaN"):
            task([{"x": torch.zeros(2), "y": torch.full((2, 3), torch.nan)}]).calibration_inputs(2, seed=0)
        for wrong in (["a"], [{"x": 1}], [()], [("a", torch.zeros(2))]):
            with pytest.raises(DataError, match="must be inputs"):
                task(wrong).calibration_inputs(1, seed=0)

        class Lost(TensorDataset):
            def __getitem__(self, index: int):
                raise OSError("disk gone")

        with pytest.raises(DataError, match="batch 0 for calibration, cannot be read: OSError: disk gone"):
            task(Lost(*PAIRS.tensors)).calibration_inputs(2, seed=0)

    def test_no_data_no_calibration(self):
        assert CallableTask(weight_sum, device=CPU).calibration_inputs(3, seed=0) == []

    @pytest.mark.parametrize("data", [iter([torch.zeros(1)]), torch.zeros(3, 1), 3, "digits"])
    def test_data_that_cannot_be_read_twice_are_refused(self, data: object):
        with pytest.raises(DataError, match="must be data splits, a loader or a list of batches"):
            CallableTask(weight_sum, data=data, device=CPU)

    def test_batches_without_inputs_are_refused(self):
        with pytest.raises(DataError, match="starts with inputs, got dict"):
            CallableTask(weight_sum, data=[{"image": "0.png"}], device=CPU).calibration_inputs(1, seed=0)

    def test_the_fingerprint_is_of_the_functions_and_the_data(self):
        tasks = [
            CallableTask(weight_sum, device=CPU),
            CallableTask(lambda _: 3.0, device=CPU),
            CallableTask(weight_sum, test_func=weight_sum, device=CPU),
            CallableTask(weight_sum, data=(PAIRS, PAIRS), device=CPU),
        ]
        assert len({task.fingerprint for task in tasks}) == 4
        assert tasks[0].fingerprint == CallableTask(weight_sum, device=CPU).fingerprint
        assert CallableTask(sum, device=CPU).fingerprint  # no source text to be had


def scaled(factor: float):
    def score(model: nn.Module) -> float:
        return factor

    return score


class TestFunctionIdentity:
    def test_values_in_a_closure_count(self) -> None:
        assert function_identity(scaled(1.0)) == function_identity(scaled(1.0))
        assert function_identity(scaled(1.0)) != function_identity(scaled(2.0))

    def test_bound_arguments_and_defaults_count(self) -> None:
        assert function_identity(functools.partial(max, 1)) != function_identity(functools.partial(max, 2))
        assert function_identity(lambda x, k=1: k) != function_identity(lambda x, k=2: k)

    def test_the_owner_of_a_method_counts(self) -> None:
        class Scorer:
            def __init__(self, factor: float) -> None:
                self.factor = factor
                self.itself = self  # no endless text

            def score(self, model: nn.Module) -> float:
                return self.factor

        assert function_identity(Scorer(1.0).score) == function_identity(Scorer(1.0).score)
        assert function_identity(Scorer(1.0).score) != function_identity(Scorer(2.0).score)

    def test_calibration_data_count(self) -> None:
        one, other = (
            CallableTask(scaled(1.0), data=[torch.full((2, 3), value)], device=CPU).fingerprint for value in (0.0, 1.0)
        )
        assert one != other


def test_a_function_of_the_users_that_fails_is_named() -> None:
    def broken(*_: object) -> float:
        raise KeyError("labels")

    task = CallableTask(broken, broken, device=CPU)
    with pytest.raises(EvaluationError, match="score_func failed: KeyError: 'labels'"):
        task.score(network())
    with pytest.raises(EvaluationError, match="train_func failed: KeyError: 'labels'"):
        task.train(network(), epochs=1, seed=0)
