"""Job files: YAML to validated models; an unknown key is an error with a suggestion.

Longer than others, as it is a job from top to bottom, every key in its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from autoprune.config.bounded_files import found_path
from autoprune.config.bounds import EPOCHS, PARTS, TRIALS, Name, Settings, Text, check_plain
from autoprune.config.engine import EngineOptions
from autoprune.config.environment import Reference, expanded, written
from autoprune.config.latency import LatencyOptions
from autoprune.config.limits import RangeError, ends_of, limit_number, limit_text
from autoprune.config.overrides import overridden
from autoprune.config.parts import AllocationOptions, NamedPart, PartOptions, stands_once
from autoprune.config.space import SpaceOptions, load_space_options
from autoprune.config.sparsity import SparsityOptions
from autoprune.config.stopping import MOVED, Seconds, StoppingOptions, moved_to_search
from autoprune.config.training import Recipe
from autoprune.config.validation import Strict, read_mapping, validated
from autoprune.config.yaml_reader import dump_yaml
from autoprune.deprecation import moved_names
from autoprune.errors import shortened


def _found(path: Path, info: ValidationInfo) -> Path:
    """A path as given where that is there, else beside the job file or in the folder above it; as given if nowhere."""
    return found_path(path, [Path(), *(info.context or {}).get("folders", ())])


FoundPath: TypeAlias = Annotated[Path, AfterValidator(_found)]
"""Relative to the current folder, or to that of the job file."""


DEFAULT_CRITERION = "l2"
"""Ranks the channels inside a group where nothing else is said."""


_BUDGETS = 100
"""Searches in one family."""


class ModelOptions(Strict):
    """The network to prune."""

    factory: Name = Field(description="a name that `autoprune parts models` lists, or module:factory")
    arguments: Settings = Field(default_factory=dict, description="keyword arguments of the factory")
    weights: FoundPath | None = Field(None, description=".safetensors or state dict; None: the base network is trained")
    trained: bool = Field(False, description="the factory returns trained weights, which are the base network's")

    @model_serializer(mode="wrap")
    def _without_defaults_of_late(self, handler: SerializerFunctionWrapHandler) -> Any:
        written = handler(self)
        if not self.trained:
            written.pop("trained")
        return written


class DataOptions(Strict):
    """The data set; the search scores on validation, the verdict touches test once."""

    name: Name = Field(description="a name that `autoprune parts data` lists, or module:function")
    path: FoundPath | None = Field(None, description="folder of the original files; None: AUTOPRUNE_DATA")
    arguments: Settings = Field(default_factory=dict, description="keyword arguments of the data set")


class TaskOptions(PartOptions):
    """What networks are for; a plain string is its name."""

    name: Name = "classification"
    measure: NamedPart | None = Field(None, description="what scores count; None: what the task counts by itself")


class EvaluatorOptions(PartOptions):
    """How a candidate is scored; a plain string is its name."""

    name: Name = "inherited"


class ControllerOptions(PartOptions):
    """What proposes candidates; a plain string is its name."""

    name: Name = "surrogate"


_WITHOUT_DATA = ("stagewise", "isomorphic", "log_width", "erk")


class SearchOptions(StoppingOptions):
    """The search itself."""

    trials: int = Field(
        100, ge=1, le=TRIALS, description="proposals of the controller, beside those of the allocations"
    )
    controller: ControllerOptions = ControllerOptions()
    evaluator: EvaluatorOptions = EvaluatorOptions()
    criterion: NamedPart = Field(NamedPart(name=DEFAULT_CRITERION), description="ranks the channels inside a group")
    inherit: tuple[NamedPart, ...] | None = Field(
        None,
        max_length=PARTS,
        description="what is done to the weights of cut networks before they are scored, in order; None: least_squares "
        "and bn_recalibration, the latter alone where there are no calibration inputs",
    )
    allocations: tuple[AllocationOptions, ...] = Field(
        tuple(AllocationOptions(name=name) for name in ("global_threshold", *_WITHOUT_DATA)),
        max_length=PARTS,
        description="one-shot proposals scored first; each may have a `criterion` of its own beside `settings`",
    )
    rescore: int = Field(5, ge=1, le=TRIALS, description="how many of the best are re-scored on all validation data")
    storage: Text | None = Field(None, description="Optuna storage URL; None: a journal file in the run directory")
    time_budget: Seconds | None = Field(
        None,
        description="of the whole search, over all resumptions: seconds, or 90s, 10min, 2h; past it nothing new is "
        "proposed, and verdict, export and report are of the trials so far",
    )

    @field_validator("allocations")
    @classmethod
    def _width_files(cls, value: tuple[AllocationOptions, ...], info: ValidationInfo) -> tuple[AllocationOptions, ...]:
        return tuple(
            chosen.model_copy(update={"settings": {**chosen.settings, "file": str(_found(Path(file), info))}})
            if isinstance(file := chosen.settings.get("file"), str)
            else chosen
            for chosen in value
        )

    @model_serializer(mode="wrap")
    def _without_defaults_of_late(self, handler: SerializerFunctionWrapHandler) -> Any:
        """Options that came later are left out where nobody set them, so that the fingerprints of jobs stay."""
        written = handler(self)
        if self.inherit is None:
            written.pop("inherit", None)
        for key in (*StoppingOptions.model_fields, "time_budget"):
            if getattr(self, key) == type(self).model_fields[key].default:
                written.pop(key, None)
        return written


class VerdictOptions(Strict):
    """The final comparison with uniform pruning."""

    protocols: Annotated[tuple[NamedPart, ...], AfterValidator(stands_once)] = Field(
        (NamedPart(name="fine_tune"), NamedPart(name="scratch_e")),
        min_length=1,
        max_length=PARTS,
        description="the first one decides",
    )
    seeds: int = Field(3, ge=0, le=1000, description="final trainings per network and protocol; 0 skips the verdict")
    fine_tune_epochs: int = Field(40, ge=1, le=EPOCHS)
    inherit: tuple[NamedPart, ...] | None = Field(
        None,
        max_length=PARTS,
        description="the same as search: inherit, for all that is compared at the end: scores on all validation data, "
        "networks before their final training, and the exported one; None: that of the search, and where that names "
        "none, sequential_least_squares and bn_recalibration",
    )
    random_candidates: int = Field(
        9, ge=1, le=10_000, description="random widths scored; the one with the median score is trained"
    )
    flops_search: bool = Field(
        True, description="under a latency budget, search under the FLOPs of equal latency as well, and compare"
    )

    latency: LatencyOptions | None = Field(
        LatencyOptions(), description="winner, uniform and unpruned network are measured for the report; false: not"
    )

    @model_validator(mode="before")
    @classmethod
    def _switched(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(switch := value.get("latency"), bool):
            return {**value, "latency": LatencyOptions() if switch else None}
        return value

    @model_serializer(mode="wrap")
    def _without_defaults_of_late(self, handler: SerializerFunctionWrapHandler) -> Any:
        """See `SearchOptions`."""
        written = handler(self)
        if self.inherit is None:
            written.pop("inherit", None)
        if self.latency == LatencyOptions():
            written.pop("latency", None)
        elif self.latency is None:
            written["latency"] = False
        return written


Limits: TypeAlias = str | float | dict[str, str | float]
"""What one budget says about a metric: an upper end, or a range as `{"min": …, "max": …}`."""


def _limits(value: object) -> Limits | tuple[Limits, ...]:
    if not isinstance(value, list | tuple):
        return _limit(value)
    if not 2 <= len(value) <= _BUDGETS:
        raise ValueError(f"a list of budgets has 2 to {_BUDGETS}; a range is {{min: …, max: …}}")
    return tuple(_limit(one) for one in value)


def _limit(value: object) -> Limits:
    try:
        ends = {key: _end(end) for key, end in ends_of(value).items()}
    except RangeError as error:
        raise ValueError(f"{error} A range has min and max") from None
    return ends if isinstance(value, Mapping) else ends["max"]


def _end(value: object) -> str | float:
    if isinstance(value, str):
        return limit_text(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return limit_number(value)
    raise ValueError('a limit must be a text such as "50%" or a number, a range {min: …, max: …}, or a list of budgets')


class Job(Strict):
    """One search job: everything a run depends on."""

    name: str = Field("search", max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, le=2**63 - 1)
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; None leaves what is set")
    model: ModelOptions
    data: DataOptions
    task: TaskOptions = Field(TaskOptions(), description="what networks are for, and what scores count")
    training: Recipe = Recipe()
    space: SpaceOptions = SpaceOptions()
    constraints: dict[Name, Annotated[Limits | tuple[Limits, ...], BeforeValidator(_limits)]] = Field(
        max_length=PARTS,
        description="metric -> limit; a list of limits makes a family of searches, one for each",
    )
    metrics: dict[Name, dict[Name, Any]] = Field(
        default_factory=dict, max_length=PARTS, description="metric -> its settings"
    )
    search: SearchOptions = SearchOptions()
    sparsity: SparsityOptions = Field(SparsityOptions(), description="trainings that find widths, beside the search")
    verdict: VerdictOptions = VerdictOptions()
    engine: EngineOptions = Field(
        EngineOptions(), exclude=True, description="where trials are evaluated; a run may be resumed on another one"
    )
    callbacks: tuple[NamedPart, ...] = Field(
        (NamedPart(name="tensorboard"),),
        max_length=PARTS,
        exclude=True,
        description="told what happens: names that `autoprune parts callbacks` lists, or module:attribute; they change "
        "no trial, and a run may be resumed with others",
    )
    _references: dict[tuple[str | int, ...], Reference] = PrivateAttr(default_factory=dict)
    _space_read_from: Path | None = PrivateAttr(None)

    @property
    def space_file(self) -> Path | None:
        """The file that the space was read from; None where its keys are written in the job."""
        return self._space_read_from

    @model_serializer(mode="wrap")
    def _without_defaults_of_late(self, handler: SerializerFunctionWrapHandler) -> Any:
        """See `SearchOptions._without_defaults_of_late`."""
        written = handler(self)
        if self.task == TaskOptions():
            written.pop("task", None)
        if not self.sparsity.methods:
            written.pop("sparsity", None)
        return written

    @property
    def text(self) -> str:
        """The job as a file, engine and callbacks included; paths and defaults as they were found, no secrets."""
        engine = {"name": self.engine.name, **self.engine.model_dump(mode="json", exclude_defaults=True)}
        told = [chosen.model_dump(mode="json") for chosen in self.callbacks]
        data = written({**self.model_dump(mode="json"), "engine": engine, "callbacks": told}, self._references)
        return dump_yaml(data)

    @property
    def family(self) -> tuple[Job, ...]:
        """One job for each budget, in order; only this one where no constraint is a list."""
        budgets = max((len(given) for given in self.constraints.values() if isinstance(given, tuple)), default=1)
        rows: list[dict[str, Limits]] = [
            {metric: given[i] if isinstance(given, tuple) else given for metric, given in self.constraints.items()}
            for i in range(budgets)
        ]
        return (self,) if budgets == 1 else tuple(self.model_copy(update={"constraints": row}) for row in rows)

    @model_validator(mode="before")
    @classmethod
    def _as_written_now(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        engine, search = moved_to_search(value.get("engine"), value.get("search"))
        parts = {"engine": engine, "search": search}
        return {**value, **{name: part for name, part in parts.items() if part is not value.get(name)}}

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu(:\d{1,4})?|cuda(:\d{1,4})?", value, re.ASCII):
            raise ValueError(f"{shortened(value, 60)!r} cannot be used; allowed: auto, cpu, cuda, cuda:N")
        return value

    @model_validator(mode="after")
    def _equally_long(self) -> Job:
        lengths = {metric: len(given) for metric, given in self.constraints.items() if isinstance(given, tuple)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{length} for {metric}" for metric, length in lengths.items())
            raise ValueError(f"lists of budgets go together and must be equally long ({told})")
        return self

    @field_validator("space", mode="before")
    @classmethod
    def _space_file(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        return load_space_options(_found(Path(value), info)).model_dump()

    @field_validator("metrics")
    @classmethod
    def _plain_metrics(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        check_plain(
            {metric: {k: v for k, v in own.items() if k != "profile"} for metric, own in value.items()}
        )  # a profile's content is checked by what reads it
        return value

    @field_validator("metrics")
    @classmethod
    def _profile_file(cls, value: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        return {
            metric: {
                name: str(_found(Path(given), info)) if name == "profile" and isinstance(given, str | Path) else given
                for name, given in settings.items()
            }
            for metric, settings in value.items()
        }


def load_job(path: Path, changes: Mapping[str, Any] | None = None, *, of_run: bool = False) -> Job:
    """Read a job file; `${NAME}` in any of its values is that of the environment.

    Args:
        path: of the file.
        changes: dotted key -> value, in place of what the file says.
        of_run: it is the file that a run keeps, `Job.text`.

    Raises:
        UnsetVariableError: it refers to what is not set in the environment.
        ConfigError: the file is missing, not YAML, or has an unknown key or a value out of range; all are named.
    """
    source = f"{path} with {', '.join(changes)} as set" if changes else str(path)
    data, references = expanded(overridden(read_mapping(path, dumped=of_run), changes or {}), source)
    job = validated(Job, data, source, folders=(path.parent, path.parent.parent))
    if isinstance(data.get("space"), str):
        job._space_read_from = found_path(Path(data["space"]), [Path(), path.parent, path.parent.parent])
    job._references = {_place_now(place): reference for place, reference in references.items()}
    return job


def _place_now(place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    if len(place) == 2 and place[0] == "engine" and place[1] in MOVED:
        return "search", MOVED[str(place[1])]
    return place


__getattr__ = moved_names(__name__, {"TrainingOptions": "autoprune.config.training:Recipe"})
