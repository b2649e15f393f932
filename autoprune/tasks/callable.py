"""A task given by the user's own functions: anything that can be scored can be searched.

Longer than others, as what is read of the user's data and asked of the user's functions is checked beside its use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset

from autoprune.data import splits_from
from autoprune.data.base import DataSplits, LoaderSplit, Split, digest
from autoprune.data.batch import Batch
from autoprune.data.labelled import check_inputs
from autoprune.errors import ConfigError, DataError, EvaluationError, blame
from autoprune.randomness import isolated, seeded
from autoprune.registry import load_object
from autoprune.space.copying import copy_network
from autoprune.space.cutting.cut import Cut
from autoprune.tasks.base import SplitName, Task, TaskInputs
from autoprune.tasks.identity import function_identity
from autoprune.tasks.score import Score
from autoprune.training.callbacks import TrainingCallbacks, keywords_of
from autoprune.training.integrity import check_finite
from autoprune.training.loop import EpochProgress
from autoprune.training.scores import ANY, checked_score, scored_copy
from autoprune.training.watch import Watch

ScoreFunction: TypeAlias = Callable[[nn.Module], float]
TrainFunction: TypeAlias = Callable[..., object]

_CALIBRATION_BATCH = 128


@final
class CallableTask(Task):
    """Any task, given by the user's functions; each gets a network on the device, to score a copy of its own.

    Args:
        score_func: model -> score, higher is better; called with the model in eval mode.
        train_func: (model, epochs, seed) -> None; trains in place, with a learning rate of its own. It is given those
            of these keywords that it has: `teacher` (the base network, only to be read; None where that is trained),
            `cut` (the `Cut` that the network is; None where it is whole), `callbacks` (see `TrainingCallbacks`).
        test_func: like `score_func`, on examples that the search never saw.
        data: for batch norm recalibration: anything `splits_from` takes, a `Dataset`, or a loader or list of batches,
            each the inputs (a tensor, or a mapping of keyword inputs) or a tuple or list that starts with them (several
            positional inputs are a tuple in it, `((first, second), targets)`).
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
        self._keywords = keywords_of(train_func)
        self._source = _training_source(data)

    def train(
        self,
        model: nn.Module,
        *,
        epochs: int,
        seed: int,
        lr: float | None = None,
        progress: EpochProgress | None = None,
        watch: Watch | None = None,
        score: Callable[[], float] | None = None,
        teacher: nn.Module | None = None,
        cut: Cut | None = None,
    ) -> None:
        """See `Task.train`; besides epochs and seed the user's function is given the keywords that it has.

        Raises:
            ConfigError: there is no train_func, or it returned another model.
        """
        if self._train_func is None:
            raise ConfigError("this step trains networks: pass train_func(model, epochs, seed)")
        if epochs < 1:
            raise ConfigError(f"training: epochs must be at least 1, got {epochs}")
        model.to(self.device)
        kept_mode = torch.set_grad_enabled(torch.is_grad_enabled())
        callbacks = TrainingCallbacks(epochs, seed, progress=progress, watch=watch, score=score)
        known: dict[str, Any] = {"teacher": teacher, "cut": cut, "callbacks": callbacks}
        wanted = {name: known[name] for name in known if name in self._keywords}
        if teacher is not None and "teacher" in wanted:
            wanted["teacher"] = copy_network(teacher).to(self.device).eval().requires_grad_(False)
        try:
            with blame(EvaluationError, "train_func failed"), seeded(seed), kept_mode:
                returned = self._train_func(model, epochs, seed, **wanted)
        except EvaluationError:
            if callbacks.stopped is not None:
                raise callbacks.stopped from None
            raise
        if returned is not None and returned is not model:
            raise ConfigError(
                f"train_func must train the model in place and return None or that model, "
                f"it returned another {type(returned).__name__}"
            )
        model.eval()
        check_finite(model, what="the network after train_func", kind=EvaluationError, then="lower its learning rate")

    def scored(
        self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None, examples: bool = False
    ) -> Score:
        """See `Task.scored`; `limit` does not reach the user's function, and nothing is known of its noise."""
        name, func = "score_func", self._score_func
        if split == "test" and self._test_func is not None:
            name, func = "test_func", self._test_func
        network = scored_copy(model, self.device)
        with blame(EvaluationError, f"{name} failed"), seeded(0), torch.set_grad_enabled(torch.is_grad_enabled()):
            return Score(checked_score(func(network), ANY, what=name))

    def calibration_batches(self, batches: int, *, seed: int) -> list[Batch]:
        """See `Task.calibration_batches`; without targets.

        Raises:
            DataError: a batch does not start with inputs, or they are not finite.
        """
        found, batches_read = [], islice(self._batches(seed), batches)
        for number in count():
            what = f"data, batch {number} for calibration,"
            with blame(DataError, f"{what} cannot be read", then="Correct the data set."):
                batch = next(batches_read, None)
            if batch is None:
                break
            inputs = _inputs_of(batch)
            for leaf in pytree.tree_leaves(inputs):
                if isinstance(leaf, Tensor):
                    check_inputs(leaf, what)
            found.append(Batch(inputs).to(self.device))
        return found

    def _batches(self, seed: int) -> Iterator[object]:
        if isinstance(self._source, LoaderSplit):
            return self._source.read(_CALIBRATION_BATCH, seed=seed)
        if isinstance(self._source, Split):
            return self._source.batches(_CALIBRATION_BATCH, seed=seed)
        generator = getattr(self._source, "generator", None)
        own = [generator] if isinstance(generator, torch.Generator) else []
        return isolated(self._source, *own, seed=seed)

    @property
    def needs_teacher(self) -> bool:
        """Whether train_func has the keyword."""
        return "teacher" in self._keywords

    @property
    def wants_cut(self) -> bool:
        """Whether train_func has the keyword."""
        return "cut" in self._keywords

    @property
    def trains(self) -> bool:
        """Whether there is a train_func."""
        return self._train_func is not None

    @property
    def takes_lr(self) -> bool:
        """No: train_func has a learning rate of its own."""
        return False

    @property
    def why_untrained(self) -> str:
        """See `Task.why_untrained`."""
        return "there is no train_func: pass train_func(model, epochs, seed)"

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
        """Of the functions (see `function_identity`) and of the first batch of data."""
        functions = (self._score_func, self._train_func, self._test_func)
        data = _fingerprint(self._source) if isinstance(self._source, Split) else ""
        first = [part for inputs in self.calibration_inputs(1, seed=0) for part in _digestible(inputs)]
        return digest(*map(function_identity, functions), data, *first)


def by_functions(
    given: TaskInputs,
    *,
    score: ScoreFunction | str,
    train: TrainFunction | str | None = None,
    test: ScoreFunction | str | None = None,
) -> CallableTask:
    """The task of a job, whose functions are named as module:function.

    Args:
        given: what every task is made from; its data serve calibration.
        score: model -> score, higher is better.
        train: (model, epochs, seed) -> None, trains in place; None: nothing is trained.
        test: like `score`, on examples that the search never saw.

    Raises:
        ConfigError: one of them is no function, or the recipe asks for what the user's training cannot be told.
    """
    functions = {"score": score, "train": train, "test": test}
    found: dict[str, Any] = {role: load_object(one) if isinstance(one, str) else one for role, one in functions.items()}
    if found["train"] is not None and (unused := given.recipe.beyond_epochs):
        raise ConfigError(
            f"training: {', '.join(unused)} cannot be used: train_func trains in a way of its own and is told the "
            f"epochs only; leave it out, and do it in train_func"
        )
    for role, function in found.items():
        if function is not None and not callable(function):
            raise ConfigError(f"task 'callable': {role} must be a function or module:function, got {functions[role]!r}")
    return CallableTask(found["score"], found["train"], test_func=found["test"], data=given.data, device=given.device)


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


def _fingerprint(split: Split) -> str:
    try:
        return split.fingerprint
    except DataError:  # its batches are no pairs, and need not be
        return str(len(split))


def _inputs_of(batch: object) -> Any:
    """The inputs of a batch, in any nesting; what follows them is dropped."""
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not any(isinstance(leaf, Tensor) and leaf.ndim for leaf in pytree.tree_leaves(first)):
        raise DataError(
            f"a calibration batch must be inputs (a tensor, or a mapping of them) or a tuple that starts with inputs, "
            f"got {type(first).__name__}; leave data out to go without batch norm recalibration"
        )
    return first


def _digestible(inputs: Any) -> list[Tensor | str]:
    """Tensors, each after its place where they are nested."""
    if isinstance(inputs, Tensor):
        return [inputs]
    leaves, _ = pytree.tree_flatten_with_path(inputs)
    named = ((pytree.keystr(path), leaf) for path, leaf in leaves)
    return [part for name, leaf in named for part in (name, leaf if isinstance(leaf, Tensor) else repr(leaf))]
