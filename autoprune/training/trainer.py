"""One network in training: its optimizer and all that goes with it, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import final

import torch
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.base import Split
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.space.copying import copy_network
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.masks import keep_masks, masks_of
from autoprune.space.cutting.rounded import RoundedTraining
from autoprune.training.averaging import WeightAverage
from autoprune.training.beside import losses_beside
from autoprune.training.cuts import TrainingCuts, become, carry_over
from autoprune.training.epochs import EpochRecord, steps
from autoprune.training.freezing import begin_training
from autoprune.training.layout import Layout
from autoprune.training.mixing import Mixing
from autoprune.training.objectives.base import Objective, make_objective
from autoprune.training.objectives.memory import TeacherMemory
from autoprune.training.optimizers import forget, make_optimizer
from autoprune.training.placing import batch_on, placed
from autoprune.training.schedules.base import learning_rate
from autoprune.training.state import generator_states, on_cpu, set_generator_states
from autoprune.training.terms.base import Term, make_terms
from autoprune.training.watch import State


@final
class Trainer:
    """A network with all that its training keeps from step to step.

    Args:
        model: trained in place.
        recipe: how.
        device: where.
        seed: of the training.
        teacher: the base network, for objectives that need it; a copy is used.
        examples: how many the training has, where it may pay to keep what the teacher answers to them.
        objective: in place of the recipe's.
        terms: in place of the recipe's.
        cuts: label of the cuts that will be made, if any.
        layout: memory format and precision; None: as the recipe says.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        device: torch.device,
        seed: int,
        teacher: nn.Module | None = None,
        examples: int | None = None,
        objective: Objective | None = None,
        terms: Sequence[Term] | None = None,
        cuts: str = "",
        layout: Layout | None = None,
    ) -> None:
        shapes = [tuple(parameter.shape) for parameter in model.parameters()]
        self._identity = f"{recipe} from seed {seed} of parameters {shapes}, states of 2026-11{cuts and ', '}{cuts}"
        self._recipe, self._device = recipe, device
        self._layout = layout = layout or Layout.of(recipe, device)
        self._mixing = Mixing(recipe.mixup, recipe.cutmix) if recipe.mixup or recipe.cutmix else None
        self._model = begin_training(placed(model, device, layout.format), recipe.freeze)
        self._objective = make_objective(recipe) if objective is None else objective
        if self._objective.needs_teacher and teacher is not None:
            taught = copy_network(teacher).requires_grad_(False)
            self._objective.teacher = placed(taught, device, self._layout.format).eval()
            keeps = examples is not None and self._mixing is None
            self._objective.memory = TeacherMemory(examples or 0) if keeps else None
        self._optimizer, self._learning_rate = make_optimizer(recipe, model), learning_rate(recipe)
        self._first: Batch | None = None
        self._terms = make_terms(recipe.terms) if terms is None else tuple(terms)
        for term in self._terms:
            term.begin(model)
        self._average = None if recipe.ema is None else WeightAverage(model, recipe.ema)
        self._masks, self._rounded = masks_of(model), RoundedTraining(model)
        self._scaler = layout.scaler(device)

    @property
    def needs_batch(self) -> bool:
        """Whether `begin` is to be called."""
        return self._objective.needs_batch

    def begin(self, batch: Batch) -> None:
        """Let the objective see the network and some training examples, before the first step and before `restore`."""
        with blame(ConfigError, f"objective {self._recipe.objective.label!r} cannot begin"):
            self._objective.begin(self._model, batch_on(batch, self._device, self._layout.format))
        beside = list(self._objective.parameters())
        if beside:
            self._optimizer.add_param_group({"params": beside})
        self._first = batch

    def cut(self, cut: Cut) -> None:
        """Go on with a cut of the network, which it becomes; the optimizer keeps what is left of its state.

        Averages of weights begin anew, as do maps of the objective, which belong to the widths.
        """
        before, old = self._optimizer, dict(self._model.named_parameters())
        become(self._model, begin_training(placed(cut.network, self._device, self._layout.format), self._recipe.freeze))
        self._optimizer = make_optimizer(self._recipe, self._model)
        carry_over(before, self._optimizer, old, self._model, cut)
        for term in self._terms:
            term.begin(self._model)
        if self._average is not None and self._recipe.ema is not None:
            self._average = WeightAverage(self._model, self._recipe.ema)
        self._masks, self._rounded = masks_of(self._model), RoundedTraining(self._model)
        if self._first is not None:
            self.begin(self._first)

    def state(self, records: Sequence[EpochRecord]) -> State:
        """Everything that the next epoch depends on, and the epochs so far."""
        return {
            "training": self._identity,
            "layout": self._layout.plain,
            "epochs": [list(astuple(record)) for record in records],
            "model": on_cpu(self._model.state_dict()),
            "optimizer": on_cpu(self._optimizer.state_dict()),
            "objective": on_cpu(self._objective.state_dict()),
            "terms": [on_cpu(term.state_dict()) for term in self._terms],
            "rounded": on_cpu(self._rounded.state_dict()),
            "average": {} if self._average is None else self._average.state_dict(),
            "scaler": self._scaler.state_dict(),
            "generators": generator_states(self._device),
        }

    def restore(self, state: State, cuts: TrainingCuts | None = None) -> list[EpochRecord]:
        """Return to a state and give its epochs; the state of another training is left alone."""
        if state["training"] != self._identity:
            return []
        for number, epochs in enumerate(() if cuts is None else cuts.epochs):
            if cuts is not None and epochs < len(state["epochs"]):
                self.cut(cuts.make(self._model, number, False))
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(dict(state["optimizer"]))
        self._objective.load_state_dict(state.get("objective", {}))
        for term, kept in zip(self._terms, state["terms"], strict=True):
            term.load_state_dict(kept)
        self._rounded.load_state_dict(state.get("rounded", {}))
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._scaler.load_state_dict(state["scaler"])
        set_generator_states(state["generators"], self._device)
        return [EpochRecord(*record) for record in state["epochs"]]

    def averaged(self, score: Callable[[], float]) -> float:
        """Score the network as the training would give it now."""
        if self._average is None:
            return score()
        with self._average.in_place():
            keep_masks(self._model)
            self._rounded.round_only()
            return score()

    def finish(self) -> None:
        """Leave the network as the training gives it."""
        if self._average is not None:
            self._average.give()
            keep_masks(self._model)  # masks may have moved while weights were averaged
            self._rounded.put_rounded()

    def run_epoch(self, split: Split, epoch: int, *, seed: int) -> EpochRecord:
        """Train on all examples once.

        Raises:
            EvaluationError: the mean loss is no finite number.
        """
        started, recipe = time.perf_counter(), self._recipe
        loss, seen, lr = torch.zeros((), device=self._device), 0, 0.0
        for batches, examples in steps(split, recipe, seed=seed):
            # the schedule at the middle of the step: never 0, not even at the first step of a warm-up
            done = (epoch - 1 + min(1.0, (seen + examples / 2) / len(split))) / recipe.epochs
            lr = self._learning_rate(done)
            with blame(EvaluationError, f"training: a step of epoch {epoch} of {recipe.epochs} failed"):
                loss += self.step(batches, examples, done=done) * examples
            seen += examples
        mean_loss = loss.item() / seen
        if not math.isfinite(mean_loss):
            raise EvaluationError(
                f"training: the loss is {mean_loss} in epoch {epoch} of {recipe.epochs} "
                f"at learning rate {lr:.3g}; lower lr (it is {recipe.lr:g}) or add warmup_epochs"
            )
        return EpochRecord(epoch, mean_loss, lr, time.perf_counter() - started)

    def step(self, batches: Sequence[Batch], examples: int, *, done: float) -> Tensor:
        """One step of the optimizer.

        Args:
            batches: whose gradients are summed, each weighted by its examples.
            examples: that they hold.
            done: share of the training that is over.

        Returns:
            The mean loss of the examples, on the device.
        """
        model = self._model
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(done)
        self._optimizer.zero_grad(set_to_none=True)
        losses = [self._backward(batch, len(batches) > 1 and len(batch) / examples) for batch in batches]
        penalties = [one for term in self._terms if (one := term.penalty(model, done=done)) is not None]
        if penalties:
            self._scaler.scale(torch.stack(penalties).sum()).backward()  # type: ignore[no-untyped-call]
        if self._terms or self._recipe.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
        for term in self._terms:
            term.after_backward(model, done=done)
        for masked in self._masks:
            if masked.weight.grad is not None:
                masked.weight.grad.masked_fill_(~masked.mask, 0.0)
        if self._recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self._recipe.clip_norm)
        self._rounded.put_exact()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        with torch.no_grad():
            for term in self._terms:
                term.after_step(model, done=done)
            for masked in self._masks:
                masked.weight.masked_fill_(~masked.mask, 0.0)
                forget(self._optimizer, masked.weight, ~masked.mask)
        if self._average is not None:
            self._average.update()
        self._rounded.put_rounded()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _backward(self, batch: Batch, share: float) -> Tensor:
        """Add the gradients of a batch; its loss, times the share of it if that is not 0."""
        there = batch_on(batch, self._device, self._layout.format)
        with self._layout.autocast(self._device), losses_beside() as others:
            if self._mixing is None:
                loss = self._objective(self._model, there)
            else:
                loss = self._mixing.loss(self._objective, self._model, there)
        if not isinstance(loss, Tensor) or loss.ndim:
            given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise EvaluationError(
                f"objective {self._recipe.objective.label!r} gives {given}; it must give the mean loss, a scalar tensor"
            )
        if others:
            loss = torch.stack([loss, *others]).sum()
        if share:
            loss = loss * share
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()
