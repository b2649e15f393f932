"""The interface of inheritance, and lists of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, cast, final

import torch
from torch import Tensor, nn

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.data.batch import Batch, channels_last
from autoprune.errors import ConfigError, EvaluationError
from autoprune.inherit import INHERITANCE
from autoprune.space.copying import copy_network
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.masks import keep_masks
from autoprune.space.cutting.resized import put_resolution, side_of
from autoprune.space.cutting.rounded import keep_bits
from autoprune.space.groups import SearchSpace
from autoprune.statistics.running import all_finite

T = TypeVar("T")

Changes: TypeAlias = Literal["channels", "weights", "offsets", "statistics", "anything"]
"""What a method changes: which channels there are (it merges them), what weights make of those that are left, constants
that make up for those that are gone, running statistics; nothing is said of "anything"."""

_ORDER: tuple[Changes, ...] = ("channels", "weights", "offsets", "statistics")


@final
class Statistics:
    """What methods may look at besides weights; each number of batches is gathered once, when it is asked for.

    Args:
        inputs: (number of batches) -> up to that many batches of calibration inputs; none where there are no data.
        device: where networks run.
        channels_last: images lie in memory with their channels last; methods that run cut networks lay these out alike.
    """

    def __init__(
        self, inputs: Callable[[int], Sequence[Tensor]], device: torch.device, *, channels_last: bool = False
    ) -> None:
        self._inputs, self.device, self.channels_last = inputs, device, channels_last
        self._gathered: dict[int, Sequence[Tensor]] = {}
        self._made: dict[Hashable, tuple[nn.Module, Any]] = {}
        self._batch_size: int | None = None

    def inputs(self, batches: int) -> Sequence[Tensor]:
        """Up to `batches` batches (N, *input_shape); the same ones each time. Those with NaN or infinity are left out.

        Raises:
            EvaluationError: all have some.
        """
        if batches not in self._gathered:
            given = self._inputs(batches)
            finite = [batch for batch in given if all_finite(batch)]
            if given and not finite:
                raise EvaluationError(
                    f"inheritance: each of {len(given)} calibration batches holds values that are not finite; give it "
                    f"data without NaN and infinity"
                )
            self._gathered[batches] = [channels_last(one) for one in finite] if self.channels_last else finite
        return self._gathered[batches]

    def needed(self, method: str, batches: int) -> Sequence[Tensor]:
        """As `inputs`, for a method that does nothing without any.

        Raises:
            ConfigError: there are none.
        """
        found = self.inputs(batches)
        if not found:
            raise ConfigError(
                f"inherit: {method} needs calibration inputs, and there are none: give data (Python: data= or "
                f"calibration=), or leave it out"
            )
        return found

    def needed_examples(self, method: str, examples: int) -> Sequence[Any]:
        """As `needed`, as many batches as hold so many examples.

        Raises:
            ConfigError: there are no calibration inputs.
        """
        if self._batch_size is None:
            first = self._inputs(1)
            self._batch_size = max(len(Batch(first[0])), 1) if first else 1
        return self.needed(method, math.ceil(examples / self._batch_size))

    def of_dense(self, what: Hashable, dense: nn.Module, make: Callable[[], T]) -> T:
        """What was made of the dense network under this name, made when it is first asked for.

        Args:
            what: names it, with all settings that it depends on.
            dense: the network; another one than before is looked at anew.
            make: makes it.
        """
        if what not in self._made or self._made[what][0] is not dense:
            self._made[what] = dense, make()
        return cast("T", self._made[what][1])


class Inheritance(ABC):
    """Changes the weights of a cut network so that it computes more of what the dense one does.

    A network cut at full width stays as it is, the dense one is only read, and the same inputs give the same result.

    Attributes:
        changes: says where in a list it may stand, see `Chain`.
        needs_data: it does nothing without calibration inputs.
        keeps_masks: it can be used where single weights are left out, which fits of whole layers know nothing of.
        fits_constants: of one that fits weights: biases, too, so that nothing is left for constants to make up for.
        left_alone: name of a tensor -> why the last `apply` could do nothing for it.
    """

    changes: ClassVar[Changes] = "anything"
    needs_data: ClassVar[bool] = True
    keeps_masks: ClassVar[bool] = False
    fits_constants: ClassVar[bool] = False
    left_alone: Mapping[str, str] = {}

    def prepare(self, statistics: Statistics) -> None:  # noqa: B027 - many need nothing
        """Ask for what `apply` will need, so that all of it is there before candidates are made and sent anywhere."""

    @abstractmethod
    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """Change `cut.network` in place.

        Args:
            cut: the cut network, as the methods before this one left it.
            dense: the network it was cut from; only read.
            statistics: of the dense network, and calibration inputs.
        """


@final
class Chain:
    """Several methods, one after the other.

    At most one of them fits weights, as each fits those of the dense network; constants follow weights, running
    statistics follow both; nothing that looks at single channels follows a merge.

    Args:
        chosen: each a name, or {"name": …, "settings": {…}}.
        defaults: settings by the name of a method, for where the chosen one does not have them.

    Raises:
        RegistryError: no such method.
        ConfigError: a setting that it does not have, or of a wrong value; or an order in which one would undo another.
    """

    def __init__(
        self, chosen: Sequence[ChosenPart], defaults: Mapping[str, Mapping[str, object]] | None = None
    ) -> None:
        self._methods: list[Inheritance] = []
        self._names: list[str] = []
        for given in chosen:
            part = NamedPart.of(given, "inherit")
            made = bind(INHERITANCE, part.name, {**(defaults or {}).get(part.name, {}), **part.settings})()
            if not isinstance(made, Inheritance):
                raise ConfigError(f"inheritance {part.label!r} is a {type(made).__name__}: derive it from Inheritance")
            self._methods.append(made)
            self._names.append(part.label)
        self._check_order()

    @property
    def needs_data(self) -> bool:
        """Whether one of them needs calibration inputs."""
        return any(method.needs_data for method in self._methods)

    @property
    def left_alone(self) -> dict[str, str]:
        """Name of a tensor -> which method could do nothing for it, and why, of the last network."""
        named = zip(self._names, self._methods, strict=True)
        return {name: f"{label}: {why}" for label, method in named for name, why in method.left_alone.items()}

    def check_fits(self, space: SearchSpace) -> None:
        """Check that the methods can be used where something else than channels goes.

        Raises:
            ConfigError: one cannot: it fits weights that densities leave out, layers that become two, or makes up for
                what is cut where nothing is.
        """
        for name, method in zip(self._names, self._methods, strict=True):
            if space.densities and method.changes not in ("statistics", "offsets") and not method.keeps_masks:
                raise ConfigError(
                    f"inherit: {name} is for channels that are cut and would fit weights that densities leave out; "
                    f"choose sparsegpt, bn_recalibration, or leave inherit out"
                )
            if (space.factors or space.only_bits) and method.changes != "statistics":
                why = "fits the layers of the dense network, and ranks put two in the place of one"
                why = "makes up for what is cut, and bits cut nothing" if space.only_bits else why
                raise ConfigError(f"inherit: {name} {why}; choose bn_recalibration, or leave inherit out")

    def before_training(self) -> Chain:
        """The same without the last methods that only change running statistics: a training makes its own."""
        shorter = Chain(())
        last = len(self._methods)
        while last and self._methods[last - 1].changes == "statistics":
            last -= 1
        shorter._methods, shorter._names = self._methods[:last], self._names[:last]
        return shorter

    def _check_order(self) -> None:
        known = [(name, m.changes) for name, m in zip(self._names, self._methods, strict=True) if m.changes in _ORDER]
        fitting = [name for name, m in zip(self._names, self._methods, strict=True) if m.fits_constants]
        if fitting and (offsets := [name for name, change in known if change == "offsets"]):
            raise ConfigError(f"inherit: {fitting[0]} fits constants with the weights; leave {offsets[0]} out")
        for position, (later, change) in enumerate(known):
            for earlier, before in known[:position]:
                place, place_before = _ORDER.index(change), _ORDER.index(before)
                if place < 2 and place_before < 2:
                    raise ConfigError(f"inherit: {earlier} and {later} both fit weights to the dense network; keep one")
                if {before, change} == {"channels", "offsets"}:
                    merging, other = (earlier, later) if before == "channels" else (later, earlier)
                    raise ConfigError(
                        f"inherit: {merging} leaves no channel as it was, and {other} needs those of the dense "
                        f"network; keep one of them"
                    )
                if place < place_before:
                    raise ConfigError(
                        f"inherit: {later} must stand before {earlier}, which makes up for what it leaves"
                    )

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        for method in self._methods:
            method.prepare(statistics)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> nn.Module:
        """Apply all methods in their order; returns the network of the cut, its masks and bits as they were."""
        dense, statistics = _as_seen(cut, dense, statistics)
        for method in self._methods:
            method.apply(cut, dense, statistics)
            keep_masks(cut.network)
            if method.changes != "statistics":
                keep_bits(cut.network)
        return cut.network


def _as_seen(cut: Cut, dense: nn.Module, statistics: Statistics) -> tuple[nn.Module, Statistics]:
    """The dense network as it sees images of the size that the cut one sees, and what is known of it there."""
    side, resolution = side_of(cut.space, cut.widths), cut.space.resolution
    if side is None or resolution is None:
        return dense, statistics

    def make() -> tuple[nn.Module, Statistics]:
        network = copy_network(dense)
        put_resolution(network, resolution, side)
        return network, Statistics(statistics.inputs, statistics.device, channels_last=statistics.channels_last)

    return statistics.of_dense(("images", side), dense, make)
