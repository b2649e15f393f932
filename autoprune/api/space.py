"""A traced model from Python: what can be cut, what that costs, and the networks themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import nn

from autoprune.api.calibration import as_calibration, calibration_batches, device_of
from autoprune.config.job import DEFAULT_CRITERION
from autoprune.config.space import SpaceOptions, load_space_options
from autoprune.config.validation import validated
from autoprune.cost.polynomial import CostFunction
from autoprune.cost.pricing import MetricSettings, price
from autoprune.errors import ConfigError
from autoprune.importance.evidence import Objective
from autoprune.importance.given import named_criterion
from autoprune.importance.members import rank_channels
from autoprune.inherit import FINAL_DEFAULT, OF_DENSITIES, WITHOUT_INPUTS
from autoprune.inherit.base import Chain, Statistics
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.groups import FrozenPart, SearchSpace, WidthGroup, Widths
from autoprune.space.origin import InForm, in_form
from autoprune.space.tracing.program import Example
from autoprune.space.tracing.trace import trace as trace_graph
from autoprune.space.verification.verify import unverified
from autoprune.space.verification.verify import verify as verify_space
from autoprune.training.integrity import check_finite


@final
@dataclass(frozen=True, eq=False)
class Space:
    """A traced model's width groups: what can be cut, what it costs, and the networks themselves."""

    search_space: SearchSpace
    _in_form: InForm = field(default=lambda model: model, repr=False)

    @property
    def groups(self) -> tuple[WidthGroup, ...]:
        """Width groups, each with `.name`, `.width`, `.choices`, `.members` and `.residual`."""
        return self.search_space.groups

    @property
    def frozen(self) -> tuple[FrozenPart, ...]:
        """What stays as it is, each with `.name`, `.channels` and `.reason`."""
        return self.search_space.frozen

    @property
    def full(self) -> Widths:
        """The unpruned widths."""
        return self.search_space.full

    def uniform(self, ratio: float) -> Widths:
        """The member nearest to this ratio in every group; raises SpaceError outside (0, 1]."""
        return self.search_space.uniform(ratio)

    def nearest(self, widths: Iterable[float]) -> Widths:
        """The member of the space nearest to these numbers; raises SpaceError for a wrong count."""
        return self.search_space.nearest(widths)

    def cost(self, widths: Iterable[int], *, metrics: MetricSettings | None = None) -> dict[str, int | float]:
        """Metric -> cost of a member of the space, in closed form; all metrics that can be computed.

        `flops` counts one multiply-add as one FLOP, for one pass of the example input.

        Args:
            widths: member of the space.
            metrics: metric -> its settings, for example `{"peak_memory_mb": {"batch": 8}}`.

        Raises:
            SpaceError: the widths are not in the space; names the group.
            ConfigError: settings that a metric does not take, or for one that does not exist.
        """
        row = np.array([self.search_space.check(widths)])
        priced = price(self.search_space, metrics, wanted=metrics) if metrics else self._metrics
        costs = {name: float(cost(row)[0]) for name, cost in priced.items()}
        return {name: int(cost) if cost.is_integer() else cost for name, cost in costs.items()}

    @cached_property
    def _metrics(self) -> dict[str, CostFunction]:
        return price(self.search_space)

    def slice(
        self,
        model: nn.Module,
        widths: Iterable[int],
        *,
        criterion: str | Mapping[str, Any] | Callable[..., Any] = DEFAULT_CRITERION,
        seed: int = 0,
        inherit: Sequence[str | Mapping[str, Any]] | None = None,
        calibration: Any = None,
        objective: Objective | None = None,
    ) -> nn.Module:
        """A new network of these widths with inherited weights, the best channels by `criterion`; `model` is only read.

        It is of the model's class, or runs the traced graph where only that can be cut (`search_space.form`): with
        inputs as in the example, any batch size, and trainable as ever.

        Args:
            model: the network that was traced, with any weights.
            widths: member of the space.
            criterion: ranks channels inside a group: a name, {"name": …, "settings": {…}}, or a function of your own
                (evidence, generator) -> scores.
            seed: of the criterion, where it is random.
            inherit: what is done to the weights that stay, in order: names, or mappings as above. None: what a search
                does to the network that it exports (sequential_least_squares, bn_recalibration); nothing where there is
                no calibration.
            calibration: data for criterion and inheritance: a batch of inputs (a tensor), or a loader or list of
                batches, each the inputs or (inputs, targets).
            objective: (outputs, targets) -> loss, for criteria that need one; None: cross entropy, if targets are
                whole numbers.

        Raises:
            SpaceError: the widths are not in the space, or `model` is not the one that was traced.
            ConfigError: an unknown criterion or inheritance, wrong settings, or data that they need are missing.
        """
        batches, device = calibration_batches(calibration), device_of(model)
        usual: Sequence[str] = OF_DENSITIES if self.search_space.densities else FINAL_DEFAULT
        usual = WITHOUT_INPUTS if self.search_space.factors or self.search_space.only_bits else usual
        chain = Chain(inherit if inherit is not None else usual if batches else ())
        chain.check_fits(self.search_space)
        given = as_calibration(batches, objective, device) if batches else None
        if chain.needs_data and given is None:
            raise ConfigError("inherit needs data: give calibration=, a batch of inputs or a loader of batches")
        ranking = rank_channels(model, self.search_space, named_criterion(criterion), seed=seed, calibration=given)
        dense, full = self._in_form(model), self.search_space.check(widths)
        cut = Slicer(dense, self.search_space, ranking).cut(full)
        statistics = Statistics(lambda number: [inputs for inputs, _ in batches[:number]], device)
        return chain.apply(cut, dense, statistics)


def trace(
    model: nn.Module,
    example_input: Example,
    *,
    options: SpaceOptions | Mapping[str, Any] | Path | str | None = None,
    verify: bool = True,
) -> Space:
    """Find what can be cut in a model; the model is only read.

    Args:
        model: any module that `torch.export` or `make_fx` can trace.
        example_input: a tensor, a tuple of positional inputs, or a mapping of keyword inputs; a batch of 1 gives costs
            per image.
        options: width choices and exclusions: `SpaceOptions`, a mapping, or a file of `search_spaces/`.
        verify: build random cuts and compare them with the masked model; groups that fail are frozen. Without it,
            a cut network may fail to run or compute something else.

    Raises:
        TraceError: the model cannot be traced.
        SpaceError: nothing can be pruned.
        ConfigError: the model holds NaN or infinite weights.
    """
    check_finite(model)
    traced = trace_graph(model, example_input, options=space_options(options))
    verified = verify_space(model, traced) if verify else unverified(model, traced)
    return Space(verified.space, in_form(verified))


def space_options(given: SpaceOptions | Mapping[str, Any] | Path | str | None) -> SpaceOptions:
    """Space options given as an object, a mapping, a file of `search_spaces/`, or not at all."""
    if given is None or isinstance(given, SpaceOptions):
        return given or SpaceOptions()
    if isinstance(given, Mapping):
        return validated(SpaceOptions, dict(given), "space")
    return load_space_options(Path(given))
