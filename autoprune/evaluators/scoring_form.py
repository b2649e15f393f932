"""The form in which candidates run where they are scored: as they are, or the fastest with the same outputs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch, channels_last
from autoprune.errors import is_interrupted
from autoprune.files import read_json
from autoprune.inherit.bn_recalibration import recalibrate_batch_norm
from autoprune.statistics.folding import Fold, Folded, foldable
from autoprune.tasks.scoring import BATCH

FILE = "scoring_form.json"

TOLERANCE = 1e-4
"""How far outputs of another form may be off, relative to the largest output of the batch: rounding in single
precision through a hundred layers. What is further off is not the same network."""

_PIECES = (BATCH, 128, 64)
"""Examples per pass that are tried: many, or so few that what a layer gives is still in the cache when it is read."""

_OF_STATISTICS = 1e-2
"""The same of statistics by the batch: channels that hardly vary are divided by next to nothing, and so is rounding."""

_ROUNDS = 3
_WORTH = 0.97
"""A plainer form is taken where it is nearly as fast as the fastest: the clock is no more exact."""


@final
@dataclass(frozen=True, slots=True)
class ScoringForm:
    """A form.

    Attributes:
        folded: batch norms are folded into the weights before them.
        channels_last: images lie in memory with their channels last.
        piece: examples per pass.
        calibrated_last: batch norms are recalibrated with channels last; that pass cannot be folded.
    """

    folded: bool = False
    channels_last: bool = False
    piece: int = BATCH
    calibrated_last: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """Of images and of what is convolved with them."""
        return torch.channels_last if self.channels_last else torch.preserve_format

    def laid_out(self, batch: Batch) -> Batch:
        """The same values, as this form reads them."""
        return batch if not self.channels_last else Batch(channels_last(batch.inputs), batch.targets)

    def running(self, network: nn.Module, folds: Sequence[Fold]) -> Callable[[nn.Module, Batch], Any]:
        """What runs a network in this form; its weights are moved there once, its values stay."""
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        if not (self.folded and folds):
            return lambda model, batch: self._run(nullcontext(), model, batch)
        folded = Folded(network, folds, memory_format=self.memory_format)

        def run(model: nn.Module, batch: Batch) -> Any:
            outputs = self._run(folded, model, batch)
            folded.check()
            return outputs

        return run

    @staticmethod
    def _run(mode: AbstractContextManager[Any], model: nn.Module, batch: Batch) -> Any:
        with torch.inference_mode(), mode:
            return batch.outputs(model)

    def write(self, directory: Path) -> None:
        """Put it into a folder."""
        (directory / FILE).write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, directory: Path) -> Self:
        """What was written there."""
        return cls(**read_json(directory / FILE))


PLAIN = ScoringForm()
"""As tasks score: nothing folded, the layout that the data have."""


def fastest_form(network: nn.Module, batch: Batch) -> ScoringForm:
    """The form in which a network runs fastest among those whose outputs are those of the plain one.

    Args:
        network: a candidate on its device, in eval mode; its weights may be laid out otherwise afterwards.
        batch: on that device.
    """
    try:
        with torch.no_grad():
            state = torch.get_rng_state()
            expected = batch.outputs(network)
            if not torch.equal(state, torch.get_rng_state()):  # what it draws depends on how examples are cut
                return PLAIN
        folds = foldable(network, batch.first(2).inputs)
    except Exception as error:  # whatever a forward does under a mode of torch
        if is_interrupted(error):
            raise
        return PLAIN
    forms = [
        ScoringForm(folded, last, piece)
        for last, folded, piece in product((False, True), (False, True) if folds else (False,), _PIECES)
        if piece == BATCH or piece < len(batch)
    ]
    times = _times(forms, network, folds, batch, expected)
    least = min(times.values(), default=math.inf)
    return next((form for form, seconds in times.items() if _WORTH * seconds <= least), PLAIN)  # plainer ones first


def calibrates_faster_last(network: nn.Module, batch: Batch) -> bool:
    """Whether batch norms are recalibrated faster, to the same statistics, with channels last.

    Args:
        network: a candidate on its device; its statistics and layout are others afterwards.
        batch: on that device.
    """
    seconds, statistics = dict[bool, float](), dict[bool, list[Tensor]]()
    layouts = {False: torch.contiguous_format, True: torch.channels_last}
    try:
        for number, last in product(range(_ROUNDS + 1), (False, True)):
            network.to(memory_format=layouts[last])  # type: ignore[call-overload]  # torch's stubs lack it
            inputs = channels_last(batch.inputs) if last else batch.inputs
            _wait(batch)
            started = _now(batch)
            replaced = recalibrate_batch_norm(network, [inputs], device=_device(batch))
            _wait(batch)
            taken = _now(batch) - started
            seconds[last] = min(seconds.get(last, math.inf), taken if number else math.inf)
            statistics[last] = [buffer.clone() for buffer, _ in replaced if buffer.is_floating_point()]
    except Exception as error:  # as in `_times`
        if is_interrupted(error):
            raise
        return False
    return seconds[True] < _WORTH * seconds[False] and _same_statistics(statistics[False], statistics[True])


def _times(
    forms: Sequence[ScoringForm], network: nn.Module, folds: Sequence[Fold], batch: Batch, expected: Any
) -> dict[ScoringForm, float]:
    """Seconds of all pieces of the batch, of the forms that give the same outputs; the shortest of some rounds."""
    times: dict[ScoringForm, float] = {}
    for number in range(_ROUNDS + 1):
        for form in forms if number == 0 else tuple(times):
            try:
                pieces = [form.laid_out(piece) for piece in batch.split(form.piece)]
                network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stubs lack it
                run = form.running(network, folds)
                _wait(batch)
                started = _now(batch)
                outputs = [run(network, piece) for piece in pieces]
                _wait(batch)
                seconds = _now(batch) - started
            except Exception as error:
                if is_interrupted(error):
                    raise
                times.pop(form, None)
                continue
            if number == 0 and _same(expected, outputs):
                times[form] = math.inf  # a first pass also makes what later ones find
            elif number:
                times[form] = min(times[form], seconds)
    return times


def _same(expected: Any, outputs: Sequence[Any], *, tolerance: float = TOLERANCE) -> bool:
    """Whether outputs of pieces, put together, are the expected ones to a tolerance."""
    wanted = [leaf for leaf in pytree.tree_leaves(expected) if isinstance(leaf, Tensor)]
    given = [[leaf for leaf in pytree.tree_leaves(one) if isinstance(leaf, Tensor)] for one in outputs]
    for place, whole in enumerate(wanted):
        parts = [leaves[place] for leaves in given]
        found = torch.cat(parts) if whole.ndim else parts[0]
        if found.shape != whole.shape:
            return False
        if not whole.is_floating_point():
            if not torch.equal(found, whole):
                return False
            continue
        scale = whole[whole.isfinite()].abs().max() if whole.isfinite().any() else 1.0
        if not torch.allclose(found, whole, rtol=tolerance, atol=float(tolerance * scale), equal_nan=True):
            return False
    return True


def _same_statistics(expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether means and variances, in turns, normalise alike: a mean may be off by a share of the deviation around it.

    A mean of its own size may be nothing but rounding: behind a norm that shifts nothing, and no activation, it is 0.
    """
    pairs = zip(expected[::2], expected[1::2], found[::2], found[1::2], strict=True)
    for mean, variance, other, spread in pairs:
        if not _same(variance, [spread], tolerance=_OF_STATISTICS):
            return False
        if bool(((mean - other).abs() > _OF_STATISTICS * variance.sqrt()).any()):
            return False
    return True


def _device(batch: Batch) -> torch.device:
    return next(leaf.device for leaf in pytree.tree_leaves(batch.inputs) if isinstance(leaf, Tensor))


def _on_gpu(batch: Batch) -> bool:
    return _device(batch).type == "cuda"


def _wait(batch: Batch) -> None:
    if _on_gpu(batch):
        torch.cuda.synchronize()


def _now(batch: Batch) -> float:
    """Seconds of this thread, which other work does not disturb, where it does all; else of the clock on the wall."""
    alone = torch.get_num_threads() == 1 and not _on_gpu(batch)
    return time.thread_time() if alone else time.perf_counter()
