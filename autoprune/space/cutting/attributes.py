"""Sizes that modules remember as attributes, made to match their sliced tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.kinds import KINDS
from autoprune.space.tracing.rules.norms import whole_groups

Adapter: TypeAlias = Callable[[Any], None]

_HEADS = ("num_heads", "n_heads", "n_head", "heads", "num_attention_heads", "nhead")
_HEADS_WIDTH = ("all_head_size", "attn_dim", "inner_dim", "attention_dim", "dim_attn", "attn_embed_dim", "split_size")


def adapters(model: nn.Module) -> list[tuple[nn.Module, Adapter]]:
    """The modules that remember sizes, each with what makes those of a copy match the tensors of the copy."""
    found = ((module, _adapter(module)) for module in model.modules())
    return [(module, adapter) for module, adapter in found if adapter is not None]


def _adapter(module: nn.Module) -> Adapter | None:
    found = next((adapter for kind, adapter in _ADAPTERS if isinstance(module, kind)), None)
    return _adapt_transposed if found is None and _is_transposed(module) else found


def _adapt_convolution(conv: Any) -> None:
    first, second = _weight(conv).shape[:2]
    groups = conv.groups
    if conv.transposed:
        _set(conv, "in_channels", first)
        _set(conv, "out_channels", second * groups)
        return
    if groups > 1 and groups == conv.in_channels:  # depthwise: as many groups as channels that are left
        groups = first * groups // conv.out_channels
        _set(conv, "groups", groups)
    _set(conv, "out_channels", first)
    _set(conv, "in_channels", second * groups)


def _adapt_linear(linear: Any) -> None:
    rows, columns = _weight(linear).shape
    _set(linear, "out_features", rows)
    _set(linear, "in_features", columns)


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is the linear layer of GPT-2 in transformers, which is not imported for it."""
    weight, sizes = module._parameters.get("weight"), (getattr(module, "nx", None), getattr(module, "nf", None))
    return type(module).__name__ == "Conv1D" and weight is not None and tuple(weight.shape) == sizes


def _adapt_transposed(linear: Any) -> None:
    columns, rows = _weight(linear).shape
    _set(linear, "nf", rows)
    _set(linear, "nx", columns)


def _adapt_bilinear(bilinear: Any) -> None:
    for name, size in zip(("out_features", "in1_features", "in2_features"), bilinear.weight.shape, strict=True):
        _set(bilinear, name, size)


def _adapt_norm(norm: Any) -> None:
    known = _weight(norm)
    if known is None:
        known = norm.running_mean
    if known is not None:
        _set(norm, "num_features", len(known))


def _adapt_layer_norm(norm: Any) -> None:
    if norm.weight is not None:
        _set(norm, "normalized_shape", tuple(norm.weight.shape))


def _adapt_group_norm(norm: Any) -> None:
    if norm.weight is None:
        return
    if whole_groups(norm.num_groups, norm.num_channels):
        _set(norm, "num_groups", len(norm.weight) * norm.num_groups // norm.num_channels)
    _set(norm, "num_channels", len(norm.weight))


def _adapt_embedding(embedding: Any) -> None:
    rows, columns = embedding.weight.shape
    _set(embedding, "num_embeddings", rows)
    _set(embedding, "embedding_dim", columns)


def _adapt_slopes(slopes: Any) -> None:
    _set(slopes, "num_parameters", len(slopes.weight))


def _adapt_recurrent(layer: Any) -> None:
    rows, columns = getattr(layer, layer._flat_weights_names[0]).shape
    layer.hidden_size, layer.input_size = rows * layer.hidden_size // _traced_rows(layer), columns
    layer._init_flat_weights()


def _adapt_cell(cell: Any) -> None:
    cell.hidden_size, cell.input_size = cell.weight_hh.shape[1], cell.weight_ih.shape[1]


_ADAPTERS: tuple[tuple[Any, Adapter], ...] = (
    (_ConvNd, _adapt_convolution),
    (nn.Linear, _adapt_linear),
    (nn.Bilinear, _adapt_bilinear),
    (_NormBase, _adapt_norm),
    ((nn.LayerNorm, nn.RMSNorm), _adapt_layer_norm),
    (nn.GroupNorm, _adapt_group_norm),
    (nn.Embedding, _adapt_embedding),
    (nn.PReLU, _adapt_slopes),
    (nn.RNNBase, _adapt_recurrent),
    (nn.RNNCellBase, _adapt_cell),
)


def _weight(module: nn.Module) -> Any:
    """Its weight, as a module looks one up in many steps; of layers that compute it, what they compute."""
    found = module._parameters.get("weight")
    return module.weight if found is None else found


_set = object.__setattr__  # a module's own looks for parameters and submodules first, which sizes never are


def _traced_rows(module: nn.RNNBase) -> int:
    """Rows of an input matrix before the cut: one per gate and hidden unit."""
    return {"LSTM": 4, "GRU": 3}.get(module.mode, 1) * module.hidden_size


def adapt_heads(full: nn.Module, sliced: nn.Module, space: SearchSpace, widths: Widths) -> None:
    """Make what attention modules count, in attributes of well-known names, match; whether it suffices is verified.

    Args:
        full: the network before the cut; only read.
        sliced: the copy with cut tensors; changed in place.
        space: the space of `full`, of module form.
        widths: what was cut.
    """
    if not any(KINDS[group.kind].counted for group in space.groups):
        return
    there = {name for name, _ in sliced.named_modules(remove_duplicate=False)}  # blocks may be left out
    for group, width in zip(space.groups, widths, strict=True):
        if not KINDS[group.kind].counted or width == group.width:
            continue
        for owner in there.intersection(name.rpartition(".")[0] for name in group.members):
            for n_heads in group.sets or (group.width,):
                _adapt_owner(
                    full.get_submodule(owner), sliced.get_submodule(owner), n_heads, n_heads * width // group.width
                )


def _adapt_owner(before: nn.Module, module: nn.Module, n_heads: int, left: int) -> None:
    head_dim = getattr(before, "head_dim", None)
    for name in _HEADS:
        if getattr(before, name, None) == n_heads:
            setattr(module, name, left)
    for name in _HEADS_WIDTH:
        if head_dim is not None and getattr(before, name, None) == n_heads * head_dim:
            setattr(module, name, left * head_dim)
