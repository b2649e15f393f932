"""What zero-cost proxies look at, and what they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.measures.base import rows_of

Looks: TypeAlias = Literal["shapes", "network", "inputs", "labels"]
"""At what a proxy looks: at shapes alone; at a network with fresh weights; at its answers to inputs; at its loss."""

_F = TypeVar("_F", bound=Callable[..., Any])


def proxy(looks: Looks) -> Callable[[_F], _F]:
    """Mark a proxy with what it looks at; one without a mark looks at shapes."""

    def mark(part: _F) -> _F:
        part.looks = looks  # type: ignore[attr-defined]
        return part

    return mark


def looks_at(part: Any) -> Looks:
    """What a proxy looks at."""
    found: Looks = getattr(part, "looks", "shapes")
    return found


@final
@dataclass(frozen=True, slots=True, eq=False)
class ProxyNetwork:
    """A network of some widths that a proxy may do with as it likes.

    Norms take their statistics from the batch, and dropout is off.

    Attributes:
        model: the network, on the device of the batch.
        batch: examples; its targets are None where the data have none.
        loss: (outputs, batch) -> mean loss; None where there are no labels.
    """

    model: nn.Module
    batch: Batch
    loss: Callable[[Any, Batch], Tensor] | None = None

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """What multiplies: all parameters with two axes and more."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.ndim > 1}

    def mean_loss(self) -> Tensor:
        """Of the batch."""
        assert self.loss is not None  # it is asked for
        return self.loss(self.batch.outputs(self.model), self.batch)

    def outputs(self, inputs: Any) -> Tensor:
        """(examples, values) all floating outputs for some inputs, side by side.

        What has no rows for examples, such as a loss beside logits, does not count.

        Raises:
            EvaluationError: there are none.
        """
        given = Batch(inputs)
        rows = rows_of(given.outputs(self.model), len(given))
        if not rows:
            raise EvaluationError(
                "the network returns no floating numbers for each example, so that a proxy finds nothing to look at"
            )
        return torch.cat([leaf.reshape(len(leaf), -1) for leaf in rows], dim=1)


def for_floats(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting with every floating tensor changed; others (tokens, masks) stay."""
    return pytree.tree_map_only(Tensor, lambda tensor: change(tensor) if tensor.is_floating_point() else tensor, values)


@contextmanager
def watching(names: frozenset[str], visit: Callable[[str, Any, Tensor], None]) -> Iterator[None]:
    """Inside, what functions of torch with these names are given first and return is shown, in either form of network.

    Args:
        names: of functions, as "conv2d".
        visit: (name, first argument, output) -> nothing.
    """

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            returned = func(*args, **(kwargs or {}))
            name = str(getattr(func, "__name__", "")).partition(".")[0]
            if name in names and isinstance(returned, Tensor):
                visit(name, args[0] if args else None, returned)
            return returned

    with Watch():
        yield
