"""Language models: the next token of a text, or hidden ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, final, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.data.base import DataSplits
from autoprune.data.batch import Batch, as_batch
from autoprune.data.collated import paired, stacked
from autoprune.data.tokens import Masking, TokenSplit, splits_of_parts, token_splits
from autoprune.errors import ConfigError, DataError, blame
from autoprune.measures.base import Measure
from autoprune.measures.divergence import Divergence
from autoprune.measures.of_logits import OfLogits
from autoprune.measures.perplexity import Perplexity
from autoprune.space.copying import copy_network
from autoprune.tasks.base import TaskInputs
from autoprune.tasks.outputs import FIRST, outputs_for
from autoprune.tasks.trained import RecipeTask, read_splits
from autoprune.training.integrity import check_finite
from autoprune.training.objectives.logits import IGNORED, logits_of

Kind: TypeAlias = Literal["causal", "masked"]

_ROLES = ("train", "validation", "test")
_LOGITS = 2**24
"""So many logits at most are made in one forward pass where scores are taken: 128 MB in double precision."""


@final
class LanguageModelTask(RecipeTask):
    """Trained by the cross entropy of tokens, scored by their perplexity or another measure.

    Args:
        data: blocks of tokens and their targets.
        recipe: how networks are trained; its objective `cross_entropy` stands for `token_cross_entropy`.
        measure: what scores count.
        device: where.
        vocabulary: logits for each token.
    """

    usual_objective = NamedPart(name="token_cross_entropy")

    def __init__(
        self, data: DataSplits, recipe: Recipe, *, measure: Measure, device: torch.device, vocabulary: int
    ) -> None:
        super().__init__(data, recipe, measure=measure, device=device)
        length = max(1, data.input_shape[0] if data.input_shape else 1)
        self.scored_together = max(1, min(RecipeTask.scored_together, _LOGITS // (length * vocabulary)))


def language_model(
    given: TaskInputs,
    *,
    kind: Kind = "causal",
    context: int = 256,
    mask_share: float = 0.15,
    mask_token: int | None = None,
) -> LanguageModelTask:
    """The task of a job; the network is tried on the first blocks of each split.

    Data are those of the data sets `text` and `python_manual`; from Python also tokens (T,), or the parts train,
    validation and test as tokens (T,) or (N, T), or as data sets of mappings with `input_ids` and whatever else the
    network takes. There `labels` are as transformers has them: at the place of their own token, -100 where none is to
    be told; without any, every token that `attention_mask` does not leave out is. Pairs (tokens, targets) have their
    targets where they are told.

    Args:
        given: what it is made from.
        kind: "causal": each token from those before it; "masked": hidden ones from all others.
        context: tokens of a block, of one long text given in Python.
        mask_share: masked: of the tokens of a block, how many are to be told.
        mask_token: masked: the token that hides others; None: the last one that the network has logits for.

    Raises:
        ConfigError: a setting out of its range, or a network without a logit for every token.
        DataError: data that are no tokens.
    """
    if kind not in get_args(Kind):
        raise ConfigError(f"language_model: kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    data = _blocks(given, context, kind)
    vocabulary = _vocabulary(given.model, data)
    _check_tokens(data, vocabulary)
    if kind == "masked" and isinstance(data.train, TokenSplit):
        masking = Masking(mask_share, vocabulary - 1 if mask_token is None else mask_token, vocabulary)
        data = replace(data, **{role: _masked(getattr(data, role), masking) for role in _ROLES})
    measure = measure_of_tokens(given.measure)
    return LanguageModelTask(data, given.recipe, measure=measure, device=given.device, vocabulary=vocabulary).tried(
        given.model
    )


def measure_of_tokens(measure: Measure | None) -> Measure:
    """The measure of a job, settled for tokens: perplexity by default, divergence along the last axis."""
    if measure is None:
        return Perplexity()
    if isinstance(measure, Divergence) and measure.kind == "auto":
        return Divergence(kind="kl", axis=-1)
    if isinstance(measure, Perplexity | Divergence) or type(measure).combine is not Measure.combine:
        return measure
    return OfLogits(measure)


def _blocks(given: TaskInputs, context: int, kind: Kind) -> DataSplits:
    """The data of a job as splits that yield blocks with their targets."""
    data = _as_tokens(given.data)
    if isinstance(data, Tensor | str):
        return token_splits(data, context=context, name=given.data_name)  # type: ignore[arg-type]  # refuses texts
    parts = list(data.values()) if isinstance(data, Mapping) else data if isinstance(data, tuple | list) else []
    if parts and all(isinstance(part, Tensor) for part in parts):
        named = dict(data) if isinstance(data, Mapping) else dict(zip(_ROLES, parts, strict=False))
        if set(named) - set(_ROLES) or not {"train", "validation"} <= set(named):
            raise DataError(
                f"tokens must be train, validation and maybe test, got {', '.join(map(str, named))}; or give one text"
            )
        length = None if named["train"].ndim == 2 else context
        train, held_out, last = named["train"], named["validation"], named.get("test")
        return splits_of_parts(train, held_out, last, context=length, vocabulary=None, name=given.data_name)
    if isinstance(data, DataSplits) and isinstance(data.train, TokenSplit):
        return data

    def check(batch: Batch, where: str) -> Batch:
        return with_targets(batch, where, kind=kind)

    return read_splits(given, check=check, collate=_collated, drawn=_drawn)


def _as_tokens(data: Any) -> Any:
    """Arrays of numpy as tensors, alone or as parts, and no parts that are None; all else as it is."""
    if isinstance(data, np.ndarray):
        return torch.from_numpy(np.array(data)) if data.dtype.kind in "iufb" else str(data.dtype)
    if isinstance(data, list) and len(data) > len(_ROLES) and all(type(one) is int for one in data):
        return torch.tensor(data)
    if isinstance(data, Mapping):
        return {name: _as_tokens(part) for name, part in data.items() if part is not None}
    return type(data)(map(_as_tokens, data)) if type(data) in (tuple, list) and len(data) <= len(_ROLES) else data


def with_targets(batch: Batch, where: str, *, kind: Kind) -> Batch:
    """A batch whose targets are where they are told.

    Args:
        batch: tokens (N, T) or a mapping with `input_ids`, and targets (N, T), in a mapping as transformers has them;
            None for the tokens themselves.
        where: it comes from.
        kind: of a causal model, targets of mappings are moved to the token before.

    Raises:
        DataError: no tokens, or targets of another shape.
    """
    named = isinstance(batch.inputs, Mapping)
    tokens = batch.inputs.get("input_ids") if named else batch.inputs
    targets = batch.targets
    if not isinstance(tokens, Tensor) or tokens.is_floating_point() or tokens.ndim != 2:
        raise DataError(
            f"{where}: a language model reads tokens, whole numbers (N, T), alone or as `input_ids` of a mapping; give "
            f"them, or another task"
        )
    if targets is None and kind == "masked":
        raise DataError(f"{where}: of masked language models, give `labels`, or plain tokens that are hidden here")
    if targets is None or named:
        targets = _moved(tokens, batch, kind)
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.shape != tokens.shape:
        shape = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise DataError(f"{where}: targets {shape} for tokens {tuple(tokens.shape)}; give a token for each")
    inputs = batch.inputs
    if named:  # columns of text are no inputs
        inputs = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    return Batch(inputs, targets.long())


def _moved(tokens: Tensor, batch: Batch, kind: Kind) -> Any:
    """Targets at the places where they are told; None where they are no tokens."""
    there = tokens if batch.targets is None else batch.targets
    if not isinstance(there, Tensor) or there.shape != tokens.shape:
        return there
    mask = batch.inputs.get("attention_mask") if isinstance(batch.inputs, Mapping) else None
    if isinstance(mask, Tensor) and mask.shape == tokens.shape and batch.targets is None:
        there = torch.where(mask != 0, there, IGNORED)
    if kind == "masked":
        return there
    return torch.cat((there[:, 1:], torch.full_like(there[:, :1], IGNORED)), 1)


def _collated(examples: Sequence[Any]) -> Batch:
    """Mappings and tensors without targets as they are, all else in pairs."""
    first = examples[0]
    if not _without_targets(first):
        return stacked(examples)
    rows = [one[0] if isinstance(one, tuple | list) else one for one in examples]
    with blame(DataError, "examples cannot be stacked", then="Give all of them one length, padded."):
        if isinstance(first, Mapping):
            names = [name for name, value in first.items() if not isinstance(value, str)]
            rows = [{name: torch.as_tensor(one[name]) for name in names} for one in rows]
        return Batch(default_collate(rows))


def _drawn(drawn: Any) -> Batch:
    """A batch of a loader, which may be without targets, likewise."""
    if isinstance(drawn, Batch) or not _without_targets(drawn):
        return paired(drawn)
    return Batch(drawn[0] if isinstance(drawn, tuple | list) else drawn)


def _without_targets(given: Any) -> bool:
    """Whether an example or a batch is tokens, alone or in a mapping."""
    if isinstance(given, Mapping):
        return not {"labels", "targets", "target", "label"} & set(given)
    return isinstance(given, Tensor | np.ndarray) or (isinstance(given, tuple | list) and len(given) == 1)


def _masked(split: Any, masking: Masking) -> Any:
    return split.masked(masking) if isinstance(split, TokenSplit) else split


def _vocabulary(model: nn.Module, data: DataSplits) -> int:
    """Logits for each token, as the network gives them.

    Raises:
        ConfigError: it does not run on the data, or gives no logits.
    """
    check_finite(model)
    for drawn in data.train.batches(FIRST, limit=FIRST):
        batch = as_batch(drawn)
        if isinstance(data.train, TokenSplit):  # tokens that it does not know are told of below
            batch = Batch(torch.zeros_like(batch.inputs))
        with blame(ConfigError, "language_model: the network gives no logits"):
            logits = logits_of(outputs_for(copy_network(model).eval(), batch), what="language_model")
        if logits.ndim == 3:
            return int(logits.shape[2])
        raise ConfigError(
            f"the model returns a tensor of shape {tuple(logits.shape)}; a language model returns logits (N, tokens, "
            f"vocabulary), alone or as `logits`"
        )
    raise DataError(f"{data.name}: train is empty; give a text")


def _check_tokens(data: DataSplits, vocabulary: int) -> None:
    """Every token has a logit; raises ConfigError where one has none."""
    if data.classes is not None and data.classes > vocabulary:
        raise ConfigError(
            f"the data have {data.classes} tokens and the model logits for {vocabulary}; set the model's vocabulary to "
            f"at least {data.classes}"
        )
    for role in _ROLES:
        split = getattr(data, role)
        if isinstance(split, TokenSplit) and (split.largest >= vocabulary or split.smallest < 0):
            raise ConfigError(
                f"{role} has tokens from {split.smallest} to {split.largest}, and the model logits for 0 to "
                f"{vocabulary - 1}; give it a larger vocabulary, or other tokens"
            )
