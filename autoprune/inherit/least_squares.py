"""Least squares: the consumers of cut channels are refitted, so that they still give what they gave.

The idea is that of He, Zhang and Sun 2017, Channel Pruning, arXiv 1707.06168, section 3.1 (ii), and of AMC's code (He
et al. 2018): W' minimises the error of the outputs. Here it is solved from second moments of the dense network, so
that a candidate costs triangular solves and no pass over data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final, get_args

import torch
from torch import nn

from autoprune.errors import ConfigError, suggest
from autoprune.inherit.base import Changes, Inheritance, Statistics
from autoprune.inherit.fitting import IMAGES, calibration, check_images, lost_inputs, too_wide
from autoprune.inherit.moment_fit import MomentFit
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import SearchSpace
from autoprune.statistics.consumers import Consumer
from autoprune.statistics.moments import MomentKind, gather_moments

_METHOD = "least_squares"


@final
class LeastSquares(Inheritance):
    """Refit every consumer on the inputs that the dense network gives it, with those of the cut channels left out.

    With second moments S of the inputs, kept inputs k and a ridge l (see `fitting.ridge`) the weights are

        W' = W (S + l I)[:, k] ((S + l I)[k, k])^-1,

    the minimiser of E |W u - W' u[k]|^2 + l |W' - W[:, k]|^2: never worse than the plain slice on its own data, and the
    slice itself where all inputs stay. S is centred where a bias, or the batch norm right behind, takes the constant.
    Channels are kept in the order of their importance, so one Cholesky factor of S in that order serves every width.

    Convolutions (plain, grouped, transposed), linear layers, matrix products and projections of attention are refitted.
    Depthwise convolutions read no other channel than their own: nothing is missing. Recurrent layers are left alone.

    Data: inputs. Cost: one pass of the dense network, once; a candidate costs a triangular solve of kept x kept inputs
    for each consumer. Memory, in float64: twice D^2 numbers for each consumer of D inputs (C k^2 of a patch), so that
    4,608 inputs (512 channels, 3 x 3) take 0.3 GB; layers of more than 20,000 are left alone.

    Args:
        moments: "patch": moments of all inputs of an output, (C k^2)^2 numbers for each k x k convolution, the exact
            fit. "channel": of the channels of single pixels, C^2 numbers, the same map for each tap of the kernel.
        images: calibration examples that the moments are gathered on, once; no labels.

    Raises:
        ConfigError: other moments than these, or no number of images; or no calibration inputs.
        EvaluationError: no batch with finite values only.
    """

    changes: ClassVar[Changes] = "weights"
    fits_constants: ClassVar[bool] = True

    def __init__(self, *, moments: MomentKind = "patch", images: int = IMAGES) -> None:
        if moments not in get_args(MomentKind):
            kinds = " or ".join(get_args(MomentKind))
            raise ConfigError(
                f"{_METHOD}: moments must be {kinds}, got {moments!r}.{suggest(str(moments), get_args(MomentKind))}"
            )
        self._moments, self._images = moments, check_images(_METHOD, images)

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        calibration(_METHOD, statistics, self._images)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        key = (_METHOD, self._moments, self._images)
        fits = statistics.of_dense(key, dense, lambda: self._gather(cut.space, dense, statistics))
        left_alone = dict.fromkeys(
            lost_inputs(cut), "no call is seen that multiplies by it alone, or it reads no even part of each group"
        )
        with torch.no_grad():
            for name in list(left_alone):
                fit = fits.get(name)
                if isinstance(fit, str):
                    left_alone[name] = f"{fit}; choose moments: channel, or exclude the group that it reads"
                elif fit is not None and fit.refit(cut):
                    del left_alone[name]
        self.left_alone = left_alone

    def _gather(self, space: SearchSpace, dense: nn.Module, statistics: Statistics) -> Mapping[str, MomentFit | str]:
        """Name of a weight -> its fit, or why there is none."""
        batches, positions = calibration(_METHOD, statistics, self._images)
        read = {layout.name for layout in space.tensors if any(layout.axes[dim] is not None for dim in layout.reads)}
        made: dict[str, MomentFit | str] = {}

        def wanted(consumer: Consumer) -> bool:
            if consumer.name not in read:
                return False
            reason = too_wide(consumer.call, dense, taps=self._moments == "patch")
            if reason:
                made[consumer.name] = reason
            return not reason

        found = gather_moments(
            dense, space, batches, self._moments, positions=positions, device=statistics.device, only=wanted
        )
        while found:  # one by one: moments and fits of all layers need not be held at once
            name, moments = found.popitem()
            made[name] = MomentFit(moments, tensor_of(dense, name))
        return made
