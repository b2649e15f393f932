"""Whether a network takes the data's inputs and returns what the task needs, before anything is done with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.base import DataSplits, Split
from autoprune.data.batch import Batch
from autoprune.data.labelled import OTHER_TASKS, Labelled, no_batch
from autoprune.errors import ConfigError, DataError, blame
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.training.integrity import check_finite

FIRST = 8
"""So many examples of each split are tried before anything is written."""

_CORRECT = "Correct the data set."


def check_outputs(model: nn.Module, data: DataSplits) -> int:
    """Run a copy of the model on the first examples of each split, and check all examples that lie in memory.

    Returns:
        How many classes the model tells apart.

    Raises:
        ConfigError: it does not take the data's inputs, does not return one output per class, or is not finite.
        DataError: examples cannot be read or are not as classification needs them.
    """
    check_finite(model)
    network, classes = copy_network(model).eval(), 0
    for role in ("train", "validation", "test"):
        split: Split | None = getattr(data, role)
        if split is None:
            continue
        with blame(DataError, f"{data.name}: the first examples of {role} cannot be read", then=_CORRECT):
            inputs, _ = next(split.batches(FIRST, limit=FIRST), (None, None))
        if inputs is None:
            raise no_batch(f"{data.name}: {role}")
        outputs = _class_outputs(network, inputs, data.classes)
        classes = outputs.shape[1]
        examples = Labelled(split, role, classes=classes)
        examples.check_stored()  # knows the rows by their owner's numbers
        next(examples.batches(FIRST, limit=FIRST))
        if not outputs.amax(1).isfinite().all():  # single classes may be masked by minus infinity
            raise ConfigError(
                f"the model returns NaN or infinite outputs for the first examples of {role}, which are finite; "
                f"load other weights, or correct its forward and what its buffers hold"
            )
    return classes


def outputs_for(network: nn.Module, batch: Batch) -> Any:
    """What a network returns for a batch.

    Args:
        network: a copy, in eval mode; it stays where it is.
        batch: as read.

    Raises:
        ConfigError: it does not take the inputs.
    """
    first = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    shape = f" of shape {tuple(batch.inputs.shape[1:])}" if isinstance(batch.inputs, Tensor) else ""
    with (
        blame(
            ConfigError,
            f"the model does not run on the data's inputs{shape}",
            then=_remedy(network, batch),
        ),
        seeded(0),
        torch.no_grad(),
    ):
        return batch.to(first).outputs(network)


def _remedy(network: nn.Module, batch: Batch) -> str:
    """What to do where a network does not run on inputs."""
    wanted = next((one.dtype for one in network.parameters() if one.is_floating_point()), torch.float32)
    for leaf in pytree.tree_leaves(batch.inputs):
        if (
            isinstance(leaf, Tensor)
            and leaf.dtype != wanted
            and (leaf.is_floating_point() or leaf.dtype == torch.uint8)
        ):
            return f"Convert the inputs from {leaf.dtype} to {wanted}, as the model's weights are."
    if isinstance(batch.inputs, Mapping):
        return "Give what the model's forward takes by name, leave other columns out, or set its arguments to fit them."
    return "Set the model's arguments (in_channels, …) to fit the data."


def _class_outputs(network: nn.Module, inputs: Tensor, classes: int | None) -> Tensor:
    """What a network returns for these inputs: one row for each, with a column for each class."""
    outputs: object = outputs_for(network, Batch(inputs))
    rows = isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == len(inputs)
    if not isinstance(outputs, Tensor) or not rows or not outputs.is_floating_point():
        given = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        kind = f" and type {outputs.dtype}" if isinstance(outputs, Tensor) and rows else ""
        raise ConfigError(
            f"the model returns {given}{kind} for {len(inputs)} inputs; classification needs a tensor (N, classes). "
            f"Return only that; {OTHER_TASKS}"
        )
    columns = outputs.shape[1]
    if classes is not None and columns != classes:
        raise ConfigError(
            f"the model has {columns} outputs but the data have {classes} classes; "
            f"set the model's number of classes to {classes}"
        )
    if columns < 2:
        raise ConfigError(
            f"the model has {columns} outputs, by which no classes can be told apart: give it two for two classes; "
            f"{OTHER_TASKS}"
        )
    return outputs
