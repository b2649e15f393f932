"""The network itself as evidence, for criteria that run it as they like: with gates, with other weights, twice derived.

A criterion that needs `outputs` or `losses` is called as `criterion(network, rng, **settings)` with a `NetworkEvidence`
of all groups at once, and returns (channels,) importances, one group after the other. It works on a copy.

*Gates* multiply what all readers of a channel get (see `evidence`); a gate of zero is the cut channel, but for
norms that take statistics over channels (layer, group norm): those still count it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Ragged
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.importance.channel_axes import ChannelAxis, channel_sums, owned_axes
from autoprune.importance.evidence import Calibration
from autoprune.importance.examples import ExampleBatch, first_examples, floating
from autoprune.importance.reads import Change, Reads, Slots, gated
from autoprune.space.copying import copy_network
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import SearchSpace
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import set_ranges
from autoprune.space.tracing.program import run_model

PER_PASS = 256
"""How many examples run at once where one batch is repeated, each time with other gates."""


@final
class NetworkEvidence:
    """A copy of the network in eval mode, with data, gates and the weights of each channel.

    Args:
        model: the network that was traced, in module or graph form; only read.
        space: its space.
        calibration: the data.
        what: who asks, for messages.

    Attributes:
        model: the copy; a criterion may change it.
        channels: how many there are, in all groups together.
        sets: where the channels of each group lie, or of each tied set of one.
        names: the name of the group of each set.
        axes: where they lie in the weights that write them.
        slots: the numbers of channels.
    """

    def __init__(self, model: nn.Module, space: SearchSpace, calibration: Calibration, *, what: str) -> None:
        self.model = copy_network(model).to(calibration.device).eval().requires_grad_(True)
        self.slots = Slots(space, calibration.device)
        self.channels = self.slots.number - 1
        ranked = [(index, group) for index, group in enumerate(space.groups) if KINDS[group.kind].ranked]
        named = [(self.slots.part(i, *of_set), group.name) for i, group in ranked for of_set in set_ranges(group)]
        self.sets = tuple(part for part, _ in named)
        self.names = tuple(name for _, name in named)
        self.axes: list[ChannelAxis] = owned_axes(self.model, space, self.slots)
        self.space, self._calibration, self._what = space, calibration, what
        self._reads = Reads(self.model, space, self.slots)
        self._loaded: dict[int | None, list[ExampleBatch]] = {}
        self._repeats: bool | None = None
        self._axes_known = False

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights and biases that write channels, by name."""
        return {axis.name: tensor_of(self.model, axis.name) for axis in self.axes}

    def sums(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(channels,) sums of tensors shaped like `weights` over the weights of each channel."""
        return channel_sums(self.axes, tensors, self.slots.number)

    def examples(self, most: int | None) -> list[ExampleBatch]:
        """At most so many examples of the calibration data, batch by batch; batches that are not finite are left out.

        Raises:
            ConfigError: `most` is below 1, or the network does not run on the data.
            EvaluationError: nothing is left.
        """
        if most is not None and most < 1:
            raise ConfigError(f"{self._what}: examples must be at least 1, or null for all, got {most}")
        if most not in self._loaded:
            self._loaded[most] = self._load(most)
        return self._loaded[most]

    def _load(self, most: int | None) -> list[ExampleBatch]:
        found, left, skipped = [], most, 0
        then = "Give batches as it takes."
        with blame(ConfigError, f"{self._what} cannot run the network on calibration data", then=then):
            for given in self._calibration.batches:
                if left == 0:
                    break
                batch = first_examples(
                    pytree.tree_map_only(Tensor, lambda t: t.to(self._calibration.device), given), left
                )
                with torch.no_grad():
                    outputs = self.run(batch)
                    values = [batch.inputs, outputs]
                    values += [] if self._calibration.objective is None else [self.loss_of(outputs, batch)]
                if all(bool(t.isfinite().all()) for t in floating(values)):
                    found.append(batch)
                    left = None if left is None else left - batch.number
                else:
                    skipped += 1
        if not found:
            none = f"all {skipped} have values that are not finite" if skipped else "there are none"
            raise EvaluationError(f"{self._what} needs data, but of the calibration batches {none}: give it others")
        return found

    def loss_of(self, outputs: Any, batch: ExampleBatch, *, temperature: float = 1.0) -> Tensor:
        """The mean loss over a batch of what the network gave for it, floating outputs divided by the temperature."""
        if temperature != 1:
            outputs = pytree.tree_map_only(Tensor, lambda t: t / temperature if t.is_floating_point() else t, outputs)
        return self._calibration.loss(outputs, batch.targets, batch.inputs)

    def run(
        self, batch: ExampleBatch, gates: Tensor | None = None, *, read: list[tuple[Tensor, Tensor]] | None = None
    ) -> Any:
        """What the network gives for a batch.

        Args:
            batch: the batch.
            gates: (channels,) or (examples, channels) factors of what the readers of each channel get.
            read: filled with (slots that it reads, its output) of each reader, in the order of the calls.

        Raises:
            EvaluationError: there are gates, and channels whose readers cannot be seen.
        """
        if gates is None and read is None:
            return run_model(self.model, batch.inputs)
        if gates is not None:
            gates = gates.expand(batch.number, self.channels)
            gates = torch.cat([gates, torch.ones_like(gates[:, :1])], dim=1)
        return self.run_changed(batch, None if gates is None else gated(gates), read=read)

    def run_changed(
        self, batch: ExampleBatch, change: Change | None, *, read: list[tuple[Tensor, Tensor]] | None = None
    ) -> Any:
        """What the network gives for a batch where the readers of channels get something else; see `run`."""
        if not self._axes_known:
            self._axes_known = True
            self._reads.learn_axes(partial(run_model, self.model), batch.inputs)
        with self._reads.batch(batch.number, change, read):
            outputs = run_model(self.model, batch.inputs)
        for part, name in zip(self.sets, self.names, strict=True):
            if not bool((self._reads.seen[part] > 0).all()):
                raise EvaluationError(
                    f"{self._what} gates channels, and no convolution or matrix product was seen that reads those of "
                    f"group {name!r} (a fused operator hides it): choose a criterion of weights, or exclude that group"
                )
        return outputs

    def gate_gradients(self, batch: ExampleBatch, gates: Tensor | None = None) -> Tensor:
        """(examples, channels) derivative of each example's own loss by the gate of each channel.

        Args:
            batch: the batch.
            gates: (channels,) where to take it; all ones where none are given.
        """
        at = self.ones() if gates is None else gates
        leaf = at.expand(batch.number, self.channels).clone().requires_grad_(True)
        with torch.enable_grad():
            loss = self.loss_of(self.run(batch, leaf), batch)
            (found,) = torch.autograd.grad(loss, [leaf])
        return found * batch.number

    def ones(self) -> Tensor:
        """(channels,) open gates."""
        return torch.ones(self.channels, dtype=torch.float64, device=self._calibration.device)

    def in_turn(self) -> list[Tensor]:
        """The channels, some at a time, so that a row of gates for each of them is no large matrix."""
        return [torch.arange(start, min(start + 64, self.channels)) for start in range(0, self.channels, 64)]

    def closed(self, channels: Tensor, *, to: float = 0.0) -> Tensor:
        """(rows, channels) gates, a row for each of these channels in which it alone is closed (or set to `to`)."""
        gates = self.ones().repeat(len(channels), 1)
        gates[torch.arange(len(channels)), channels] = to
        return gates

    def gated(self, batch: ExampleBatch, gates: Tensor) -> Iterator[Any]:
        """What the network gives for a batch under each row of gates, several rows in one pass where that is the same.

        Args:
            batch: the batch.
            gates: (rows, channels).
        """
        at_once = max(1, PER_PASS // batch.number) if len(gates) > 1 and self._may_repeat(batch) else 1
        with torch.no_grad():
            for start in range(0, len(gates), at_once):
                yield from self._pieces(batch, gates[start : start + at_once])

    def gated_losses(self, gates: Tensor, most: int | None) -> Tensor:
        """(rows,) mean loss over at most so many examples under each row of gates.

        Args:
            gates: (rows, channels).
            most: see `examples`.
        """
        batches = self.examples(most)
        total = torch.zeros(len(gates), dtype=torch.float64)
        for batch in batches:
            losses = [float(self.loss_of(outputs, batch)) for outputs in self.gated(batch, gates)]
            total += torch.tensor(losses, dtype=torch.float64) * batch.number
        return total / sum(batch.number for batch in batches)

    def _may_repeat(self, batch: ExampleBatch) -> bool:
        """Whether a repeated batch gives the repeated outputs: no output mixes examples or is one for the batch."""
        if self._repeats is None:
            with torch.no_grad():
                plain = self.run(batch)
                unlike = torch.stack([self.ones(), 0.5 * self.ones()])  # what mixes the two rows is not the first
                self._repeats = _same(self._pieces(batch, unlike)[0], plain)
        return self._repeats

    def _pieces(self, batch: ExampleBatch, gates: Tensor) -> list[Any]:
        times, number = len(gates), batch.number
        if times == 1:
            return [self.run(batch, gates[0])]

        def repeated(value: Any) -> Any:
            if isinstance(value, Ragged):
                return Ragged([*value] * times)
            fits = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == number
            return value.repeat(times, *[1] * (value.ndim - 1)) if fits else value

        inputs = pytree.tree_map(repeated, batch.inputs, is_leaf=lambda value: isinstance(value, Ragged))
        many = ExampleBatch(inputs, None, number * times)
        outputs = self.run(many, gates.repeat_interleave(number, dim=0))

        def piece(value: Tensor, row: int) -> Tensor:
            fits = value.ndim > 0 and value.shape[0] == number * times
            return value[row * number : (row + 1) * number] if fits else value

        return [pytree.tree_map_only(Tensor, partial(piece, row=row), outputs) for row in range(times)]


def _same(one: Any, other: Any) -> bool:
    ours, theirs = floating(one), floating(other)
    pairs = list(zip(ours, theirs, strict=False))
    return (
        len(ours) == len(theirs)
        and all(
            a.shape == b.shape and bool((a - b).abs().max() <= 1e-3 * b.abs().max().clamp(min=1e-6))
            for a, b in pairs
            if b.numel()
        )
        and bool(pairs)
    )
