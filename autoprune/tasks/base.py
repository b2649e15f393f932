"""What networks are trained for and scored by.

Longer than others, as it is one interface, whose every member says what it promises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.config.parts import ChosenPart
from autoprune.config.settings import bind
from autoprune.config.training import Recipe
from autoprune.data import splits_from
from autoprune.data.base import DataSplits
from autoprune.data.batch import Batch, plain_lists
from autoprune.errors import ConfigError, blame
from autoprune.measures.base import Measure, make_measure
from autoprune.tasks import TASKS
from autoprune.tasks.score import Score
from autoprune.texts import ScoreScale
from autoprune.training.loop import EpochProgress
from autoprune.training.scores import ANY
from autoprune.training.watch import Watch

SplitName: TypeAlias = Literal["validation", "test"]


@final
@dataclass(frozen=True, eq=False)
class TaskInputs:
    """What a task is made from.

    Attributes:
        model: the full network; only read, to see whether data fit it.
        data: what the data set's function returned, or what was given in Python; None for nothing.
        recipe: how networks are trained, as the job says.
        device: where networks run.
        measure: what the job has scores count; None: what the task counts by itself.
        data_name: names the data in messages and reports.
    """

    model: nn.Module
    data: Any
    recipe: Recipe
    device: torch.device
    measure: Measure | None = None
    data_name: str = "user data"

    def splits(self) -> DataSplits:
        """The data as labelled splits.

        Raises:
            DataError: they are something else.
        """
        return splits_from(self.data, name=self.data_name)


class Task(ABC):
    """What a network is for. Scoring leaves the network, and everything leaves the global random state, as it was.

    A job builds it as `Factory(given, **settings)` with `TaskInputs`. `device` may be set anew on a copy: on workers it
    is another one.

    Args:
        device: where networks run.
    """

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
        progress: EpochProgress | None = None,
        watch: Watch | None = None,
        score: Callable[[], float] | None = None,
    ) -> None:
        """Train `model` in place; it is left on the device in eval mode.

        Args:
            model: the network.
            epochs: passes over the training data, at least 1.
            seed: of all randomness.
            lr: another learning rate than the task's own.
            progress: see `EpochProgress`.
            watch: see `Watch`; a task that cannot be watched trains whole.
            score: of the network as it is, for the watch.

        Raises:
            EvaluationError: the training diverged.
            ConfigError: fewer than 1 epoch, or the task cannot train.
            Stopped: the watch ends the training.
        """

    @abstractmethod
    def scored(
        self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None, examples: bool = False
    ) -> Score:
        """Return how good the network is, higher is better, with its standard error where it is known.

        Args:
            model: the network; its weights and training flags are only read.
            split: what to score on; "test" means validation where there is no test.
            limit: only the first `limit` examples, where the task can choose.
            examples: also keep the values of single examples, where the task has some.

        Raises:
            EvaluationError: the score is not a finite number, or one that cannot be.
            DataError: an example is not as it must be.
        """

    def score(self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None) -> float:
        """As `scored`, the number alone."""
        return float(self.scored(model, split=split, limit=limit))

    def compared_with(self, base: nn.Module) -> Task:
        """This task, its scores taken in comparison with a base network; itself where they need none.

        Args:
            base: the trained base network; only read.
        """
        return self

    def shortened(self, examples: int) -> Task | None:
        """This task, whose trainings read only so many examples in each epoch, others each time; None: it cannot."""
        return None

    @property
    def distils(self) -> bool:
        """Whether final trainings from inherited weights learn from the base network where nothing is said of it."""
        return False

    def distilled(self) -> Task | None:
        """This task, whose trainings learn from the base network, too; None where it has no recipe to say so."""
        return None

    @abstractmethod
    def calibration_batches(self, batches: int, *, seed: int) -> list[Batch]:
        """Return up to `batches` batches of training examples on the device; none where there are no data."""

    def calibration_inputs(self, batches: int, *, seed: int) -> list[Any]:
        """The inputs of `calibration_batches`: tensors, or tuples or mappings of them."""
        return [batch.inputs for batch in self.calibration_batches(batches, seed=seed)]

    def calibration_examples(self, batches: int, *, seed: int) -> list[tuple[Any, Any]]:
        """Inputs and targets of `calibration_batches`; targets are None where there are none."""
        return [(batch.inputs, batch.targets) for batch in self.calibration_batches(batches, seed=seed)]

    def example_input(self) -> Any:
        """One input as the network gets it, to trace it with; by default the first one for calibration.

        Raises:
            ConfigError: there are no data to take it from.
        """
        first = next(iter(self.calibration_batches(1, seed=0)), None)
        if first is None:
            raise ConfigError("there is no example input: give the task data with inputs of the network")
        alone = plain_lists(first.first(1).inputs)
        return pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().cpu().clone(), alone)

    @property
    def objective(self) -> Callable[[Any, Any], Tensor] | None:
        """(outputs, targets) -> loss, the mean over examples; None where the task has none that can be called."""
        return None

    @property
    def recipe(self) -> Recipe | None:
        """How `train` trains, where a recipe says so; None where the task trains in a way of its own, or not at all."""
        return None

    @property
    def takes_lr(self) -> bool:
        """Whether `train` goes by the keyword `lr`."""
        return True

    @property
    def needs_teacher(self) -> bool:
        """Whether `train` wants the keyword `teacher`: the base network, to be only read."""
        return False

    @property
    def wants_cut(self) -> bool:
        """Whether `train` wants the keyword `cut`: of what the network kept which indices, None where it is whole."""
        return False

    @property
    def cuts_in_training(self) -> bool:
        """Whether `train` takes the keyword `cuts`: what is cut of the network while it trains."""
        return False

    @property
    def training_examples(self) -> int | None:
        """How many examples a pass over the training data reads; None if unknown."""
        return None

    @property
    def takes_terms(self) -> bool:
        """Whether `train` takes the keywords `recipe`, `terms` and `objective`, in place of those of the task."""
        return False

    @property
    @abstractmethod
    def trains(self) -> bool:
        """Whether `train` can be called."""

    @property
    def why_untrained(self) -> str:
        """Where `train` cannot be called: why, and what to do, to complete "this job trains networks, but …"."""
        return "its task cannot train"

    @property
    def feeds(self) -> bool:
        """Whether networks run on the inputs of calibration batches as they are, also when they are scored."""
        return False

    @property
    def scale(self) -> ScoreScale:
        """What scores count, how they are read."""
        return ScoreScale()

    @property
    def unit(self) -> str:
        """What a score is counted in: "%", or "" if unknown."""
        return self.scale.unit

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

    @property
    def score_range(self) -> tuple[float, float]:
        """The lowest and the highest score there can be."""
        return ANY


def make_task(name: str, settings: Mapping[str, Any], given: TaskInputs, *, measure: ChosenPart | None = None) -> Task:
    """Build a task by name; the one place where job files and Python calls come by theirs.

    Args:
        name: a name in `TASKS`.
        settings: of the task; from Python also objects that no job file can hold.
        given: what it is made from.
        measure: what scores count, in place of what the task counts by itself.

    Raises:
        RegistryError: unknown name of a task or measure.
        ConfigError: a setting that it does not have, or of a wrong value; or a measure that it does not take.
    """
    make = bind(TASKS, name, settings)
    chosen = None if measure is None else make_measure(measure)
    with blame(ConfigError, f"task {name!r} cannot be made", then="Correct its settings or its code."):
        task = make(replace(given, measure=chosen))
    if not isinstance(task, Task):
        raise ConfigError(f"task {name!r} is a {type(task).__name__}: derive it from autoprune's Task")
    if chosen is not None and task.scale.name != chosen.name:
        raise ConfigError(f"task {name!r} has its own measure and takes no other; leave measure {chosen.name!r} out")
    return task
