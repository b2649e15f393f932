"""How networks are trained, as values: the `training` section of a job, and what every training is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, final

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from autoprune.config.bounds import EPOCHS, PARTS, Name
from autoprune.config.parts import NamedPart
from autoprune.config.validation import Strict, refusal, validated

_SGD = "sgd"


def _whole(value: float) -> float:
    """Whole numbers as integers: fingerprints of jobs are made from the text."""
    return int(value) if value == int(value) else value


def _plainly(value: Any) -> Any:
    """As a job file would have it."""
    if isinstance(value, tuple):
        return [_plainly(one) for one in value]
    return value.model_dump() if isinstance(value, Strict) else value


@final
class RandAugmentOptions(Strict):
    """RandAugment: Cubuk et al. 2020, arXiv 1909.13719, as torchvision has it."""

    num_ops: int = Field(2, ge=1, le=14, description="changes of each image")
    magnitude: int = Field(9, ge=0, le=30, description="how strong they are")


@final
class Recipe(Strict):
    """How a network is trained: the base network, and every network after it.

    `momentum` and `nesterov` belong to `sgd`; `weight_decay` is given to every optimizer that takes one, and
    `label_smoothing` to every objective that does, where their own settings do not say otherwise.

    Raises:
        ConfigError: a value out of its range.
    """

    epochs: int = Field(160, ge=1, le=EPOCHS, description="passes over the training examples")
    lr: float = Field(0.1, gt=0, le=1e6, allow_inf_nan=False, description="highest learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    nesterov: bool = Field(True, description="Nesterov's momentum, of sgd")
    weight_decay: float = Field(
        1e-4, ge=0, le=1e6, allow_inf_nan=False, description="of every optimizer that takes one"
    )
    batch_size: int = Field(128, ge=1, le=1_000_000, description="examples per forward pass")
    schedule: NamedPart = Field(NamedPart(name="cosine"), description="a name that `autoprune parts schedules` lists")
    warmup_epochs: Annotated[int | float, AfterValidator(_whole)] = Field(
        0,
        ge=0,
        le=EPOCHS,
        allow_inf_nan=False,
        description="the learning rate first rises linearly over so many epochs",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    augment: bool = Field(True, description="use the split's augmentation")
    amp: bool | Literal["auto"] = Field(
        False,
        description="mixed precision, on GPU only (bfloat16 where it has that, else float16 with loss scaling); auto: "
        "bfloat16 on any device where a step is faster, measured at the start",
    )
    channels_last: bool | Literal["auto"] = Field(
        False, description="memory format during training; auto: where a step is faster, measured at the start"
    )
    optimizer: NamedPart = Field(
        NamedPart(name=_SGD), description="a class of torch.optim in any case (sgd, adamw, …), or module:Class"
    )
    decay_norms: bool = Field(True, description="weight decay on norms and biases, too, as in the pruning papers")
    clip_norm: float | None = Field(
        None, gt=0, le=1e12, allow_inf_nan=False, description="gradients are scaled down to this norm"
    )
    accumulate_batches: int = Field(1, ge=1, le=1_000_000, description="gradients of so many batches make one step")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of a moving average of the weights, which is what training gives"
    )
    objective: NamedPart = Field(
        NamedPart(name="cross_entropy"), description="the loss: a name that `autoprune parts objectives` lists"
    )
    terms: tuple[NamedPart, ...] = Field(
        (), max_length=PARTS, description="added to it: names that `autoprune parts terms` lists"
    )

    mixup: float = Field(
        0.0, ge=0, le=1e3, allow_inf_nan=False, description="alpha of mixup: pairs of examples are blended"
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        le=1e3,
        allow_inf_nan=False,
        description="alpha of CutMix: a box of one image is put into another; with mixup, half of the batches each",
    )
    rand_augment: RandAugmentOptions | None = Field(
        None, description="RandAugment of torchvision, before the data set's own: {num_ops: 2, magnitude: 9}"
    )
    freeze: tuple[Name, ...] = Field(
        (),
        max_length=PARTS,
        description="patterns of names of parameters or modules that are not trained: [features.*]",
    )

    def over(self, epochs: int, *, lr: float | None = None) -> Recipe:
        """The same recipe over another number of epochs, the warm-up in proportion; with another `lr` if given.

        Raises:
            ConfigError: a value out of its range.
        """
        warmup_epochs = self.warmup_epochs * epochs / self.epochs
        given = {name: getattr(self, name) for name in type(self).model_fields}
        lr = self.lr if lr is None else lr
        return validated(Recipe, {**given, "epochs": epochs, "warmup_epochs": warmup_epochs, "lr": lr}, "training")

    @property
    def beyond_epochs(self) -> tuple[str, ...]:
        """Names of what it says besides the epochs."""
        fields = type(self).model_fields.items()
        return tuple(name for name, field in fields if name != "epochs" and getattr(self, name) != field.default)

    @property
    def late(self) -> tuple[str, ...]:
        """Names of what it uses beyond SGD and cross entropy by batches."""
        return tuple(name for name, default in _LATE.items() if getattr(self, name) != default)

    @property
    def plain(self) -> bool:
        """Whether it uses nothing but SGD and cross entropy by batches."""
        return not self.late

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What came later is left out where nobody set it: fingerprints of tasks are made from this text."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name not in _LATE or value != _LATE[name]:
                yield name, _plainly(value)

    @model_serializer(mode="wrap")
    def _without_defaults_of_late(self, handler: SerializerFunctionWrapHandler) -> Any:
        """As for `SearchOptions`: fingerprints of jobs stay."""
        written = handler(self)
        return {
            name: value for name, value in written.items() if name not in _LATE or getattr(self, name) != _LATE[name]
        }

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs ({self.epochs})")
        plain_sgd = self.optimizer.name.lower() == _SGD and not self.optimizer.settings
        if plain_sgd and self.nesterov and not self.momentum:
            raise ValueError("nesterov must be false where momentum is 0")
        usual = type(self).model_fields["momentum"].default
        if self.optimizer.name.lower() != _SGD and self.momentum not in (0, usual):
            raise ValueError(
                f"momentum is of sgd, and the optimizer is {self.optimizer.name}: leave it out, or where it has one "
                f"give {{name: {self.optimizer.name}, settings: {{momentum: {self.momentum:g}}}}}"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _clearly(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            if info.context is not None:  # read as a part of a job, which tells all that is wrong with it
                raise
            raise refusal(cls, error, "training") from None


_LATE = {
    name: Recipe.model_fields[name].default
    for name in (
        *("optimizer", "decay_norms", "clip_norm", "accumulate_batches", "ema", "objective", "terms"),
        *("mixup", "cutmix", "rand_augment", "freeze"),
    )
}
"""Fields that came after runs had been recorded, with their defaults."""
