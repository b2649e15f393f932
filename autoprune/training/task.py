"""What networks are trained for and scored by: classification on a data set, or the user's own two functions."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from numbers import Real
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from autoprune.data import splits_from
from autoprune.data.base import DataSplits, LoaderSplit, Split, digest
from autoprune.errors import ConfigError, DataError, EvaluationError
from autoprune.randomness import isolated, seeded
from autoprune.training.loop import Progress, Recipe, accuracy, evaluating, placed, train

SplitName: TypeAlias = Literal["validation", "test"]
ScoreFunction: TypeAlias = Callable[[nn.Module], float]
TrainFunction: TypeAlias = Callable[[nn.Module, int, int], object]

_CALIBRATION_BATCH = 128


class Task(ABC):
    """What a network is for. Scoring leaves the network, and everything leaves the global random state, as it was."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @abstractmethod
    def train(
        self,
        model: nn.Module,
        *,
        epochs: int,
        seed: int,
        lr: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Train `model` in place; it is left on the device in eval mode.

        Args:
            model: the network.
            epochs: passes over the training data, at least 1.
            seed: of all randomness.
            lr: another learning rate than the task's own.
            progress: see `Progress`.

        Raises:
            EvaluationError: the training diverged.
            ConfigError: fewer than 1 epoch, or the task cannot train.
        """

    @abstractmethod
    def score(self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None) -> float:
        """Return how good the network is, higher is better; "test" means validation where there is no test.

        Args:
            model: the network; its weights and training flags are only read.
            split: what to score on.
            limit: only the first `limit` examples, where the task can choose.

        Raises:
            EvaluationError: the score is not a finite number.
        """

    @abstractmethod
    def calibration_inputs(self, batches: int, *, seed: int) -> list[Tensor]:
        """Return up to `batches` batches of training inputs on the device; none where there are no data."""

    @property
    @abstractmethod
    def trains(self) -> bool:
        """Whether `train` can be called."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """What a score is counted in: "%", or "" if unknown."""

    @property
    @abstractmethod
    def has_test(self) -> bool:
        """Whether "test" is anything other than validation."""

    @property
    @abstractmethod
    def test_examples(self) -> int | None:
        """How many examples a "test" score is taken on; None if unknown."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when scores would mean something else."""


@final
class ClassificationTask(Task):
    """Top-1 accuracy on labelled examples, in percent.

    Args:
        data: the splits.
        recipe: how networks are trained; a training of another length stretches it.
        device: where.
    """

    def __init__(self, data: DataSplits, recipe: Recipe, *, device: torch.device) -> None:
        super().__init__(device)
        self._data, self._recipe = data, recipe

    def train(
        self,
        model: nn.Module,
        *,
        epochs: int,
        seed: int,
        lr: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        """See `Task.train`."""
        recipe = self._recipe.over(epochs, lr=lr)
        train(model, self._data.train, recipe, seed=seed, device=self.device, progress=progress)

    def score(self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None) -> float:
        """See `Task.score`."""
        examples = self._data.test if split == "test" and self._data.test is not None else self._data.validation
        return accuracy(model, examples, device=self.device, limit=limit)

    def calibration_inputs(self, batches: int, *, seed: int) -> list[Tensor]:
        """See `Task.calibration_inputs`; not augmented, as scores are taken on images that are not."""
        drawn = self._data.train.batches(self._recipe.batch_size, seed=seed)
        return [inputs.to(self.device) for inputs, _ in islice(drawn, batches)]

    @property
    def trains(self) -> bool:
        """Always."""
        return True

    @property
    def unit(self) -> str:
        """Percent."""
        return "%"

    @property
    def has_test(self) -> bool:
        """Whether the data have a test split."""
        return self._data.test is not None

    @property
    def test_examples(self) -> int | None:
        """The size of the test split, or of validation where there is none."""
        return len(self._data.validation if self._data.test is None else self._data.test)

    @property
    def fingerprint(self) -> str:
        """Of the data and the recipe."""
        return digest(self._data.fingerprint, repr(self._recipe))


@final
class CallableTask(Task):
    """Any task, given by the user's functions; each gets the network on the device.

    Args:
        score_func: model -> score, higher is better; called with the model in eval mode.
        train_func: (model, epochs, seed) -> None; trains in place, with a learning rate of its own.
        test_func: like `score_func`, on examples that the search never saw.
        data: for batch norm recalibration: anything `splits_from` takes, a `Dataset`, or a loader or list of batches,
            each a tensor or a tuple that starts with one.
        device: where.

    Raises:
        DataError: data that can be read only once, or nothing of the above.
    """

    def __init__(
        self,
        score_func: ScoreFunction,
        train_func: TrainFunction | None = None,
        *,
        test_func: ScoreFunction | None = None,
        data: object = None,
        device: torch.device,
    ) -> None:
        super().__init__(device)
        self._score_func, self._train_func, self._test_func = score_func, train_func, test_func
        self._source = _training_source(data)

    def train(
        self,
        model: nn.Module,
        *,
        epochs: int,
        seed: int,
        lr: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        """See `Task.train`; `lr` and `progress` do not reach the user's function.

        Raises:
            ConfigError: there is no train_func, or it returned another model.
        """
        if self._train_func is None:
            raise ConfigError("this step trains networks: pass train_func(model, epochs, seed)")
        if epochs < 1:
            raise ConfigError(f"training: epochs must be at least 1, got {epochs}")
        model.to(self.device)
        with seeded(seed):
            returned = self._train_func(model, epochs, seed)
        if returned is not None and returned is not model:
            raise ConfigError(
                f"train_func must train the model in place and return None or that model, "
                f"it returned another {type(returned).__name__}"
            )
        model.eval()

    def score(self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None) -> float:
        """See `Task.score`; `limit` does not reach the user's function."""
        name, func = "score_func", self._score_func
        if split == "test" and self._test_func is not None:
            name, func = "test_func", self._test_func
        with evaluating(placed(model, self.device)) as network, seeded(0):
            returned: object = func(network)
        value = returned.item() if isinstance(returned, Tensor) and returned.numel() == 1 else returned
        if not isinstance(value, Real) or not math.isfinite(value):
            raise EvaluationError(f"{name} must return a finite number, higher is better; it returned {returned!r}")
        return float(value)

    def calibration_inputs(self, batches: int, *, seed: int) -> list[Tensor]:
        """See `Task.calibration_inputs`.

        Raises:
            DataError: a batch does not start with a tensor.
        """
        return [_first_tensor(batch).to(self.device) for batch in islice(self._batches(seed), batches)]

    def _batches(self, seed: int) -> Iterator[object]:
        if isinstance(self._source, Split):
            return self._source.batches(_CALIBRATION_BATCH, seed=seed)
        generator = getattr(self._source, "generator", None)
        own = [generator] if isinstance(generator, torch.Generator) else []
        return isolated(self._source, *own, seed=seed)

    @property
    def trains(self) -> bool:
        """Whether there is a train_func."""
        return self._train_func is not None

    @property
    def unit(self) -> str:
        """Unknown."""
        return ""

    @property
    def has_test(self) -> bool:
        """Whether there is a test_func."""
        return self._test_func is not None

    @property
    def test_examples(self) -> int | None:
        """Unknown."""
        return None

    @property
    def fingerprint(self) -> str:
        """Of the functions' source text, and of the data if they are a `Split`."""
        functions = (self._score_func, self._train_func, self._test_func)
        data = self._source.fingerprint if isinstance(self._source, Split) else ""
        return digest(*(_source_text(function) for function in functions), data)


def _training_source(data: object) -> Split | Iterable[object]:
    """The training part of `data`, readable any number of times; empty for None."""
    if data is None:
        return ()
    roles = isinstance(data, tuple | list) and all(isinstance(part, Split | Dataset | DataLoader) for part in data)
    if isinstance(data, DataSplits | Mapping) or (roles and data):
        return splits_from(data).train
    if isinstance(data, Split):
        return data
    if isinstance(data, Dataset):
        return LoaderSplit(data)
    if isinstance(data, Iterable) and not isinstance(data, Iterator | Tensor | str):
        return data
    raise DataError(
        f"data for calibration must be data splits, a loader or a list of batches, got {type(data).__name__}; "
        f"a generator can be read only once: make it a list"
    )


def _first_tensor(batch: object) -> Tensor:
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(first, Tensor):
        raise DataError(
            f"a calibration batch must be a tensor or a tuple that starts with one, got {type(first).__name__}; "
            f"leave data out to go without batch norm recalibration"
        )
    return first


def _source_text(function: Callable[..., Any] | None) -> str:
    """The function's source, or its name where Python cannot find the source (typed into a prompt, compiled)."""
    try:
        return inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):
        return getattr(function, "__qualname__", type(function).__qualname__)
