"""Batch norm recalibration: running statistics of another network, or of earlier weights, fit nothing.

For cut networks: EagleEye, Li et al. ECCV 2020. For trained ones, whose moving averages lag behind their weights:
Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autoprune.errors import ConfigError
from autoprune.inherit.base import Changes, Inheritance, Statistics
from autoprune.randomness import seeded
from autoprune.space.cutting.cut import Cut

CALIBRATION_BATCHES = 10
"""How many batches statistics are averaged over, where nobody asks for another number."""

_COUNTER = "num_batches_tracked"

Replaced: TypeAlias = list[tuple[Tensor, Tensor]]
"""Buffers of a network, each with a copy of what it held before."""


def recalibrate_batch_norm(
    model: nn.Module,
    inputs: Sequence[Tensor],
    *,
    device: torch.device,
    since: Mapping[str, Tensor] | None = None,
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
        inputs: training batches (N, *input_shape).
        device: where to run.
        since: what `buffers_of` gave before a training: only statistics that changed since are replaced. The others
            were frozen, and normalised by while the weights were trained.

    Returns:
        What was replaced; nothing where that is empty.
    """
    model.to(device)
    chosen = _statistics(model, since)
    if not chosen or not inputs:
        return []
    flags = [(module, module.training) for module in model.modules()]
    averages = _Averages(chosen)
    model.eval()
    try:
        with seeded(0), torch.no_grad(), averages:
            for batch in inputs:
                model(batch.to(device))
    finally:
        for module, flag in flags:
            module.training = flag
    return averages.write(model)


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
    """

    changes: ClassVar[Changes] = "statistics"

    def __init__(self, *, batches: int = CALIBRATION_BATCHES) -> None:
        self._batches = check_batches("bn_recalibration", batches, least=0)

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        statistics.inputs(self._batches)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        recalibrate_batch_norm(cut.network, statistics.inputs(self._batches), device=statistics.device)


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all buffers by name."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def restore(replaced: Replaced) -> Replaced:
    """Give the buffers what they held before; restoring what this returns takes that back."""
    now = [(buffer, buffer.clone()) for buffer, _ in replaced]
    _fill(replaced)
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
    for name in [name for name in changed if name.endswith(_COUNTER)]:  # with momentum 0 only the counter moves
        owner = name.removesuffix(_COUNTER)
        changed |= {name: buffers[name] for name in (f"{owner}running_mean", f"{owner}running_var") if name in buffers}
    return {id(b) for b in changed.values()} if any("mean" in name.rpartition(".")[2] for name in changed) else set()


@final
@dataclass(slots=True, eq=False)
class _Average:
    """Of one norm: its running statistics, and sums over the batches so far, weighted by examples."""

    mean: Tensor
    variance: Tensor
    means: Tensor
    variances: Tensor
    examples: int = 0
    calls: int = 0

    @classmethod
    def of(cls, mean: Tensor, variance: Tensor) -> _Average:
        nothing = torch.zeros_like(mean, dtype=torch.float64)
        return cls(mean, variance, nothing, nothing.clone())

    def add(self, mean: Tensor, variance: Tensor, examples: int) -> None:
        self.means += examples * mean
        self.variances += examples * variance
        self.examples += examples
        self.calls += 1


_FUNCTION = ("input", "running_mean", "running_var", "weight", "bias", "{flag}", "momentum", "eps")
_OPERATOR = ("input", "weight", "bias", "running_mean", "running_var", "{flag}", "momentum", "eps", "cudnn_enabled")
_FLAGS = {"batch_norm": "training", "instance_norm": "use_input_stats"}
"""What normalises with running statistics, and its argument that says whether by those of the batch instead."""


@final
class _Averages(TorchFunctionMode):
    """Inside, norms normalise by the batch, and the statistics of the batches are summed.

    Args:
        chosen: identities of the running statistics whose norms do so; all others run as they are.
    """

    def __init__(self, chosen: Set[int]) -> None:
        super().__init__()
        self._chosen = chosen
        self._averages: dict[int, _Average] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").partition(".")[0]
        if name not in _FLAGS:
            return func(*args, **kwargs)
        order = _FUNCTION if func in (F.batch_norm, F.instance_norm) else _OPERATOR
        names = [part.format(flag=_FLAGS[name]) for part in order]
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        inputs: Tensor = arguments["input"]
        mean, variance = arguments.get("running_mean"), arguments.get("running_var")
        if mean is None or variance is None or self._chosen.isdisjoint((id(mean), id(variance))):
            return func(*args, **kwargs)
        normalised_alone = inputs.shape[1] if name == "batch_norm" else inputs.shape[0] * inputs.shape[1]
        if inputs.numel() < 2 * normalised_alone:  # a single value has no variance
            return func(*args, **kwargs)
        batch = {"running_mean": torch.zeros_like(mean), "running_var": torch.ones_like(variance)}
        outputs = func(**{**arguments, **batch, _FLAGS[name]: True, "momentum": 1.0})
        average = self._averages.setdefault(id(mean), _Average.of(mean, variance))
        average.add(batch["running_mean"], batch["running_var"], len(inputs))
        return outputs

    def write(self, model: nn.Module) -> Replaced:
        """Put the averages into the buffers, and the number of batches into the counters that torch keeps."""
        new: list[tuple[Tensor, Tensor | int]] = []
        for average in self._averages.values():
            new.append((average.mean, average.means / average.examples))
            new.append((average.variance, average.variances / average.examples))
        for module in model.modules():
            counted = self._averages.get(id(getattr(module, "running_mean", None)))
            counter = getattr(module, _COUNTER, None)
            if counted is not None and isinstance(counter, Tensor):
                new.append((counter, counted.calls))
        replaced = [(buffer, buffer.clone()) for buffer, _ in new]
        _fill(new)
        return replaced


def _fill(values: Iterable[tuple[Tensor, Tensor | int]]) -> None:
    with torch.no_grad():
        for buffer, value in values:
            buffer.copy_(value) if isinstance(value, Tensor) else buffer.fill_(value)
