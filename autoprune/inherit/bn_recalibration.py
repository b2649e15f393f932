"""Batch norm recalibration: running statistics of another network, or of earlier weights, fit nothing.

For cut networks: EagleEye, Li et al. ECCV 2020. For trained ones, whose moving averages lag behind their weights:
Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.inherit.base import Changes, Inheritance, Statistics
from autoprune.inherit.norm_averages import COUNTER, NormAverages, Replaced, fill
from autoprune.randomness import seeded
from autoprune.space.cutting.cut import Cut

CALIBRATION_BATCHES = 10
"""How many batches statistics are averaged over, where nobody asks for another number."""


def recalibrate_batch_norm(
    model: nn.Module,
    inputs: Sequence[Any],
    *,
    device: torch.device,
    since: Mapping[str, Tensor] | None = None,
    exact: bool = False,
) -> Replaced:
    """Re-estimate the running statistics of all norms in place; nothing happens without norms or inputs.

    The new mean and variance are the averages of those of the batches (unbiased variances, as torch keeps them),
    weighted by examples, each layer seeing what the layers below give when they normalise by the batch. EagleEye's
    code averages exponentially with momentum 0.1; the plain average does not depend on the order of the batches.

    All that has running statistics takes part: batch norms of every kind, instance norms, and those that a `forward`
    calls as functions. A norm that sees one value per channel has no statistics of that batch: it uses, and maybe
    keeps, the ones that it had. All else runs in eval mode. Afterwards training flags, momenta and the global random
    state are as before, and after an error the statistics, too.

    Args:
        model: moved to `device`.
        inputs: training batches, each a tensor (N, *input_shape), a tuple or list of positional inputs, or a mapping of
            keyword inputs.
        device: where to run.
        since: what `buffers_of` gave before a training: only statistics that changed since are replaced. The others
            were frozen, and normalised by while the weights were trained.
        exact: go through the inputs once for each norm, in the order of the forward, and take mean and variance over
            all of them together: those of what the network itself gives once it is recalibrated.

    Returns:
        What was replaced; nothing where that is empty.
    """
    model.to(device)
    chosen = _statistics(model, since)
    if not chosen or not inputs:
        return []
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return (
            _one_by_one(model, inputs, device, chosen) if exact else _seen(model, inputs, device, chosen).write(model)
        )
    finally:
        for module, flag in flags:
            module.training = flag


def _seen(
    model: nn.Module, inputs: Sequence[Any], device: torch.device, chosen: Set[int], *, pooled: bool = False
) -> NormAverages:
    averages = NormAverages(chosen, pooled=pooled)
    with seeded(0), torch.no_grad(), averages:
        for batch in inputs:
            Batch(batch).to(device).outputs(model)
    return averages


def _one_by_one(model: nn.Module, inputs: Sequence[Any], device: torch.device, chosen: Set[int]) -> Replaced:
    replaced: Replaced = []
    try:
        for norm in _seen(model, inputs[:1], device, chosen).norms:
            replaced += _seen(model, inputs, device, norm, pooled=True).write(model)
    except BaseException:
        fill(reversed(replaced))
        raise
    return replaced


def check_batches(method: str, batches: object, *, least: int = 1) -> int:
    """A number of batches; raises ConfigError if it cannot be one."""
    if not isinstance(batches, int) or isinstance(batches, bool) or batches < least:
        raise ConfigError(f"{method}: batches must be at least {least}, a whole number, got {batches!r}")
    return batches


@final
class BatchNormRecalibration(Inheritance):
    """Running statistics are averages over training batches (see `recalibrate_batch_norm`).

    Args:
        batches: over how many.
        exact: a pass over them for each norm instead of one for all, in which every layer sees what the layers below
            give when they normalise by the batch. Costs as many passes as there are norms.
    """

    changes: ClassVar[Changes] = "statistics"

    def __init__(self, *, batches: int = CALIBRATION_BATCHES, exact: bool = False) -> None:
        if not isinstance(exact, bool):
            raise ConfigError(f"bn_recalibration: exact must be true or false, got {exact!r}")
        self._exact = exact
        self._batches = check_batches("bn_recalibration", batches, least=0)

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        statistics.inputs(self._batches)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        inputs = statistics.inputs(self._batches)
        if statistics.channels_last:
            cut.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        recalibrate_batch_norm(cut.network, inputs, device=statistics.device, exact=self._exact)


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all buffers by name."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def restore(replaced: Replaced) -> Replaced:
    """Give the buffers what they held before; restoring what this returns takes that back."""
    now = [(buffer, buffer.clone()) for buffer, _ in replaced]
    fill(replaced)
    return now


def _statistics(model: nn.Module, since: Mapping[str, Tensor] | None) -> set[int]:
    """Identities of the buffers that may be replaced; none where no name says that there are means to be replaced.

    A network without norms is not run: its data need not be its inputs, and it may count its calls.
    """
    buffers = dict(model.named_buffers())
    if since is None:
        return {id(buffer) for buffer in buffers.values()} if any("running_mean" in name for name in buffers) else set()
    changed = {
        name: buffer
        for name, buffer in buffers.items()
        if name not in since or not torch.equal(since[name].to(buffer.device), buffer)
    }
    for name in [name for name in changed if name.endswith(COUNTER)]:  # with momentum 0 only the counter moves
        owner = name.removesuffix(COUNTER)
        changed |= {name: buffers[name] for name in (f"{owner}running_mean", f"{owner}running_var") if name in buffers}
    return {id(b) for b in changed.values()} if any("mean" in name.rpartition(".")[2] for name in changed) else set()
