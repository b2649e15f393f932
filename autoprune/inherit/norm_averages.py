"""Statistics of what the norms of a network are given, summed while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

COUNTER = "num_batches_tracked"

Replaced: TypeAlias = list[tuple[Tensor, Tensor]]
"""Buffers of a network, each with a copy of what it held before."""


@final
@dataclass(slots=True, eq=False)
class _Average:
    """Of one norm: its running statistics, and of each batch so far mean, variance, examples, values of a channel."""

    mean: Tensor
    variance: Tensor
    batches: list[tuple[Tensor, Tensor, int, int]] = field(default_factory=list)

    def add(self, mean: Tensor, variance: Tensor, inputs: Tensor) -> None:
        """Nothing is computed yet: a dozen operations on a few numbers each took a twentieth of the whole pass."""
        self.batches.append((mean, variance, len(inputs), inputs.numel() // inputs.shape[1]))

    def mean_and_variance(self, *, pooled: bool) -> tuple[Tensor, Tensor]:
        """The averages of those of the batches, or those of all values together, the variance unbiased."""
        means = torch.stack([mean for mean, *_ in self.batches]).double()
        variances = torch.stack([variance for _, variance, *_ in self.batches]).double()
        sizes = torch.tensor([batch[2:] for batch in self.batches], dtype=torch.float64, device=means.device)
        examples, values = (column[:, None] for column in sizes.T)
        if not pooled:
            return (examples * means).sum(0) / examples.sum(), (examples * variances).sum(0) / examples.sum()
        mean = (values * means).sum(0) / values.sum()
        squares = ((values - 1) * variances + values * means.square()).sum(0)
        return mean, (squares - values.sum() * mean.square()).clamp(min=0) / (values.sum() - 1)


_FUNCTION = ("input", "running_mean", "running_var", "weight", "bias", "{flag}", "momentum", "eps")
_OPERATOR = ("input", "weight", "bias", "running_mean", "running_var", "{flag}", "momentum", "eps", "cudnn_enabled")
_FLAGS = {"batch_norm": "training", "instance_norm": "use_input_stats"}
"""What normalises with running statistics, and its argument that says whether by those of the batch instead."""


@final
class NormAverages(TorchFunctionMode):
    """Inside, norms normalise by the batch, and the statistics of the batches are summed.

    Args:
        chosen: identities of the running statistics whose norms do so; all others run as they are.
        pooled: write mean and variance of all batches together (instance norms: averages all the same).
    """

    def __init__(self, chosen: Set[int], *, pooled: bool = False) -> None:
        super().__init__()
        self._chosen, self._pooled = chosen, pooled
        self._of_instances: set[int] = set()
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
        average = self._averages.setdefault(id(mean), _Average(mean, variance))
        average.add(batch["running_mean"], batch["running_var"], inputs)
        if name == "instance_norm":
            self._of_instances.add(id(mean))
        return outputs

    @property
    def norms(self) -> list[frozenset[int]]:
        """Identities of the statistics of each norm, in the order in which they were first called."""
        return [frozenset((id(average.mean), id(average.variance))) for average in self._averages.values()]

    def write(self, model: nn.Module) -> Replaced:
        """Put the averages into the buffers, and the number of batches into the counters that torch keeps."""
        new: list[tuple[Tensor, Tensor | int]] = []
        for key, average in self._averages.items():
            mean, variance = average.mean_and_variance(pooled=self._pooled and key not in self._of_instances)
            new += [(average.mean, mean), (average.variance, variance)]
        for module in model.modules():
            counted = self._averages.get(id(getattr(module, "running_mean", None)))
            counter = getattr(module, COUNTER, None)
            if counted is not None and isinstance(counter, Tensor):
                new.append((counter, len(counted.batches)))
        replaced = [(buffer, buffer.clone()) for buffer, _ in new]
        fill(new)
        return replaced


def fill(values: Iterable[tuple[Tensor, Tensor | int]]) -> None:
    """Write each value into its buffer."""
    with torch.no_grad():
        for buffer, value in values:
            buffer.copy_(value) if isinstance(value, Tensor) else buffer.fill_(value)
