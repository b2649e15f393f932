"""The training loop for classification: SGD and cross entropy, as the pruning papers train their CIFAR networks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.data.base import Split
from autoprune.errors import EvaluationError
from autoprune.randomness import seeded
from autoprune.training.integrity import check_finite
from autoprune.training.recipe import Recipe
from autoprune.training.scores import LOWER, class_outputs, scored_copy
from autoprune.training.state import generator_states, on_cpu, set_generator_states
from autoprune.training.watch import State, Watch

EpochProgress: TypeAlias = Callable[[int, int, float], None]
"""Called after every epoch with (epochs done, epochs in all, mean loss of the epoch)."""


@final
@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of training.

    Attributes:
        epoch: from 1.
        loss: mean training loss.
        accuracy: on the training examples as they were seen, in percent.
        lr: learning rate of the last step.
        seconds: wall-clock time.
    """

    epoch: int
    loss: float
    accuracy: float
    lr: float
    seconds: float


def train(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    progress: EpochProgress | None = None,
    watch: Watch | None = None,
    score: Callable[[], float] | None = None,
) -> list[EpochRecord]:
    """Train `model` in place; it is left on `device` in eval mode. The global random state stays as it was.

    Where `watch` restores an earlier attempt, the training goes on bitwise as if it had not been interrupted; what a
    module keeps outside its parameters and persistent buffers is not part of that.

    Args:
        model: maps (N, *input_shape) to (N, classes).
        split: training examples with class numbers.
        recipe: how.
        seed: of the order, the augmentation and whatever the model draws (dropout).
        device: where.
        progress: see `EpochProgress`.
        watch: see `Watch`.
        score: of the model as it is, for the watch.

    Raises:
        EvaluationError: the loss is no longer a finite number, or the network holds values that are none.
        Stopped: the watch ends the training.
    """
    trainer = _Trainer(model, recipe, device, seed)
    with seeded(seed):
        earlier = None if watch is None else watch.restore()
        records = [] if earlier is None else trainer.restore(earlier)
        for epoch in range(len(records) + 1, recipe.epochs + 1):
            record = trainer.run_epoch(split, epoch, seed=(seed * recipe.epochs + epoch) % 2**63)
            records.append(record)
            if progress is not None:
                progress(epoch, recipe.epochs, record.loss)
            if watch is not None:
                watch.epoch(epoch, recipe.epochs, score, lambda: trainer.state(records))
    _move(model, device, torch.contiguous_format).eval()  # weight files want plain memory
    check_finite(model, what="training: the trained network", kind=EvaluationError, then=LOWER)
    return records


def accuracy(
    model: nn.Module, split: Split, *, device: torch.device, batch_size: int = 512, limit: int | None = None
) -> float:
    """Share of examples whose highest output is the right class, in percent (0 to 100); see `right_answers`."""
    right = right_answers(model, split, device=device, batch_size=batch_size, limit=limit)
    return 100.0 * int(right.sum()) / len(right)


def right_answers(
    model: nn.Module, split: Split, *, device: torch.device, batch_size: int = 512, limit: int | None = None
) -> Tensor:
    """Return (N,), for each example whether the highest output is the right class; on the CPU.

    A copy of the model runs, in eval mode on `device`: what `forward` itself writes down is not kept.

    Args:
        model: maps (N, *input_shape) to (N, classes).
        split: examples with class numbers.
        device: where.
        batch_size: examples per forward pass.
        limit: only the first `limit` examples.

    Raises:
        EvaluationError: weights or outputs that are no usable numbers, or outputs that are not of shape (N, classes).
    """
    network = scored_copy(model, device)
    right: list[Tensor] = []
    sound: list[Tensor] = []
    with seeded(0), torch.no_grad():
        for inputs, targets in split.batches(batch_size, limit=limit):
            outputs = class_outputs(network(inputs.to(device)), targets)
            best = outputs.max(1)
            sound.append(best.values.isfinite())  # NaN is the highest; classes may be masked by minus infinity
            right.append(best.indices == targets.to(device))
    finite = torch.cat(sound)
    broken = (~finite).nonzero()  # looked at once: a GPU is not waited for after each batch
    if len(broken):
        raise EvaluationError(
            f"the network's outputs are NaN or infinite for {len(broken)} of {len(finite)} examples, first for example "
            f"{int(broken[0])} as read; its weights and these inputs are finite: its forward overflows or divides by 0"
        )
    return torch.cat(right).cpu()


def _move(model: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    moved: nn.Module = model.to(device, memory_format=memory_format)  # type: ignore[call-overload]  # missing in torch
    return moved


@final
class _Trainer:
    """A model with its optimizer."""

    def __init__(self, model: nn.Module, recipe: Recipe, device: torch.device, seed: int) -> None:
        shapes = [tuple(parameter.shape) for parameter in model.parameters()]
        self._identity = f"{recipe} from seed {seed} of parameters {shapes}"
        self._format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self._model = _move(model, device, self._format).train()
        self._recipe, self._device = recipe, device
        self._optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self._amp = recipe.amp and device.type == "cuda"
        bfloat16 = self._amp and torch.cuda.is_bf16_supported(including_emulation=False)
        self._precision = torch.bfloat16 if bfloat16 else torch.float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._amp and not bfloat16)

    def state(self, records: Sequence[EpochRecord]) -> State:
        """Everything that the next epoch depends on, and the epochs so far."""
        return {
            "training": self._identity,
            "epochs": [list(astuple(record)) for record in records],
            "model": on_cpu(self._model.state_dict()),
            "optimizer": on_cpu(self._optimizer.state_dict()),
            "scaler": self._scaler.state_dict(),
            "generators": generator_states(self._device),
        }

    def restore(self, state: State) -> list[EpochRecord]:
        """Return to a state and give its epochs; the state of another training is left alone."""
        if state["training"] != self._identity:
            return []
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(dict(state["optimizer"]))
        self._scaler.load_state_dict(state["scaler"])
        set_generator_states(state["generators"], self._device)
        return [EpochRecord(*record) for record in state["epochs"]]

    def run_epoch(self, split: Split, epoch: int, *, seed: int) -> EpochRecord:
        started = time.perf_counter()
        loss, correct, seen, lr = torch.zeros((), device=self._device), torch.zeros((), device=self._device), 0, 0.0
        for inputs, targets in split.batches(self._recipe.batch_size, seed=seed, augment=self._recipe.augment):
            if len(targets) == 1 < self._recipe.batch_size and seen:
                continue  # a leftover of one example has no batch statistics
            # the schedule at the middle of the step: never 0, not even at the first step of a warm-up
            done = (epoch - 1 + min(1.0, (seen + len(targets) / 2) / len(split))) / self._recipe.epochs
            lr = self._recipe.learning_rate(done)
            step_loss, step_correct = self._step(inputs, targets, lr=lr)
            loss += step_loss * len(targets)
            correct += step_correct
            seen += len(targets)
        mean_loss = loss.item() / seen
        if not math.isfinite(mean_loss):
            raise EvaluationError(
                f"training: the loss is {mean_loss} in epoch {epoch} of {self._recipe.epochs} "
                f"at learning rate {lr:.3g}; lower lr (it is {self._recipe.lr:g}) or add warmup_epochs"
            )
        return EpochRecord(epoch, mean_loss, 100.0 * correct.item() / seen, lr, time.perf_counter() - started)

    def _step(self, inputs: Tensor, targets: Tensor, *, lr: float) -> tuple[Tensor, Tensor]:
        """One step; return the mean loss and the number of right answers, both still on the device."""
        labels, targets = targets, targets.to(self._device, non_blocking=True)
        inputs = inputs.to(self._device, non_blocking=True)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self._format)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(self._device.type, dtype=self._precision, enabled=self._amp):
            outputs = class_outputs(self._model(inputs), labels)
            loss = F.cross_entropy(outputs, targets, label_smoothing=self._recipe.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach(), (outputs.detach().argmax(1) == targets).sum()
