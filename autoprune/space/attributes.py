"""Sizes that modules remember as attributes, made to match their sliced tensors."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.rules.norms import whole_groups

_HEADS = ("num_heads", "n_heads", "n_head", "heads", "num_attention_heads", "nhead")
_HEADS_WIDTH = ("all_head_size", "attn_dim", "inner_dim", "attention_dim", "dim_attn", "attn_embed_dim")


def adapt_attributes(full: nn.Module, sliced: nn.Module, space: SearchSpace, widths: Widths) -> None:
    """Make the attributes of a sliced copy match its tensors.

    Args:
        full: the network before the cut; only read.
        sliced: the copy with cut tensors; changed in place.
        space: the space of `full`.
        widths: what was cut.
    """
    for module in sliced.modules():
        _adapt(module)
    if space.form == "module":
        _adapt_heads(full, sliced, space, widths)


def _adapt(module: nn.Module) -> None:
    if isinstance(module, _ConvNd):
        _adapt_convolution(module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _NormBase):
        known = module.weight if module.weight is not None else module.running_mean
        if known is not None:
            module.num_features = len(known)
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm) and module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm) and module.weight is not None:
        if whole_groups(module.num_groups, module.num_channels):
            module.num_groups = len(module.weight) * module.num_groups // module.num_channels
        module.num_channels = len(module.weight)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.RNNBase):
        rows, columns = getattr(module, module._flat_weights_names[0]).shape
        module.hidden_size, module.input_size = rows * module.hidden_size // _traced_rows(module), columns
        module._init_flat_weights()
    elif isinstance(module, nn.RNNCellBase):
        module.hidden_size, module.input_size = module.weight_hh.shape[1], module.weight_ih.shape[1]


def _traced_rows(module: nn.RNNBase) -> int:
    """Rows of an input matrix before the cut: one per gate and hidden unit."""
    return {"LSTM": 4, "GRU": 3}.get(module.mode, 1) * module.hidden_size


def _adapt_convolution(conv: _ConvNd) -> None:
    first, second = conv.weight.shape[:2]
    if conv.transposed:
        conv.in_channels, conv.out_channels = first, second * conv.groups
        return
    if conv.groups == conv.in_channels and conv.groups > 1:  # depthwise: as many groups as channels that are left
        conv.groups = first * conv.groups // conv.out_channels
    conv.out_channels, conv.in_channels = first, second * conv.groups


def _adapt_heads(full: nn.Module, sliced: nn.Module, space: SearchSpace, widths: Widths) -> None:
    """Attention modules count their heads in attributes of well-known names; whether that suffices is verified."""
    there = {name for name, _ in sliced.named_modules(remove_duplicate=False)}  # blocks may be left out
    for group, width in zip(space.groups, widths, strict=True):
        if group.kind != "heads" or width == group.width:
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
