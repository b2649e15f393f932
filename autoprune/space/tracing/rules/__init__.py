"""One rule per kind of operator: what it does to channel labels.

Data movement runs on the labels themselves, pointwise operators unite their operands, and the few compute operators
each have a rule in this folder. An operator without a rule freezes the channels that reach it and is named: never
wrong, at worst smaller. To support another operator, write a function `(graph, call) -> labels` and add it to `RULES`.
"""

from __future__ import annotations

from autoprune.space.tracing.rules.base import Rule, unknown
from autoprune.space.tracing.rules.convolution import convolution
from autoprune.space.tracing.rules.elementwise import constant, glu, is_pointwise, pointwise, prelu, same
from autoprune.space.tracing.rules.movement import (
    expand_as,
    fold,
    index_select,
    lookup,
    movement,
    pad,
    select,
    strided_slice,
)
from autoprune.space.tracing.rules.norms import along_dim, batch_norm, group_norm, layer_norm, reduction
from autoprune.space.tracing.rules.pooling import embedding, pooling, resampling
from autoprune.space.tracing.rules.products import attention, einsum, linear, matmul, plus_product
from autoprune.space.tracing.rules.recurrent import recurrent, recurrent_cell
from autoprune.space.tracing.rules.weights import computed_weight

__all__ = ["MOVERS", "READERS", "RULES", "Rule", "computed_weight", "is_pointwise", "pointwise", "unknown"]

_MOVEMENT = """view _unsafe_view reshape permute transpose t numpy_T mT mH adjoint unsqueeze squeeze flatten
unflatten expand
narrow split split_with_sizes chunk tensor_split cat concat concatenate stack repeat tile repeat_interleave roll flip
pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle movedim moveaxis swapaxes unfold view_as reshape_as
reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d broadcast_to im2col tril triu"""
_SAME = """dropout feature_dropout alpha_dropout feature_alpha_dropout contiguous clone detach detach_ alias to _to_copy
type_as lift_fresh lift_fresh_copy zero_ fill_"""
_POOLING = """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d max_pool2d_with_indices"""
_RESAMPLING = """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d upsample_linear1d
upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler
grid_sampler_2d"""
_CONSTANT = "zeros ones full empty zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty"

RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVEMENT.split(), movement),
    **dict.fromkeys(_SAME.split(), same),
    **dict.fromkeys(_POOLING.split(), pooling),
    **dict.fromkeys(_RESAMPLING.split(), resampling),
    **dict.fromkeys(_CONSTANT.split(), constant),
    **dict.fromkeys(["conv1d", "conv2d", "conv3d", "convolution"], convolution),
    **dict.fromkeys(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], convolution),
    **dict.fromkeys(["mean", "sum", "amax", "amin", "max", "min", "logsumexp"], reduction),
    **dict.fromkeys(["var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm"], reduction),
    **dict.fromkeys(["softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod"], along_dim),
    **dict.fromkeys(["matmul", "mm", "bmm"], matmul),
    **dict.fromkeys(["addmm", "baddbmm"], plus_product),
    **dict.fromkeys(["lstm", "gru", "rnn_tanh", "rnn_relu"], recurrent),
    **dict.fromkeys(["lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"], recurrent_cell),
    **dict.fromkeys(["batch_norm", "instance_norm"], batch_norm),
    **dict.fromkeys(["layer_norm", "rms_norm"], layer_norm),
    **dict.fromkeys(["constant_pad_nd", "pad"], pad),
    **dict.fromkeys(["select", "unbind"], select),
    **dict.fromkeys(["index_select", "gather", "take_along_dim"], index_select),
    "slice": strided_slice,
    "expand_as": expand_as,
    "index": lookup,
    "col2im": fold,
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    "group_norm": group_norm,
    "prelu": prelu,
    "glu": glu,
    "linear": linear,
    "embedding": embedding,
    "_assert_tensor_metadata": lambda graph, call: None,  # a check that the exporter adds
}
"""Operator name (without namespace and overload) -> rule; whatever is missing is pointwise or unknown."""

READERS: frozenset[Rule] = frozenset(
    {convolution, linear, matmul, plus_product, einsum, embedding, recurrent, recurrent_cell}
)
"""Rules that know a weight's axes."""

MOVERS: frozenset[Rule] = frozenset({movement, same, select, strided_slice, pad, expand_as})
"""Rules that move labels and tie nothing."""
