"""One row per operator: what it does to channel labels, how its sizes follow the widths, what zeros do to it.

Data movement runs on the labels themselves, pointwise operators unite their operands, and the few compute operators
each have a rule in this folder. An operator without a row freezes the channels that reach it and is named: never
wrong, at worst smaller. To support another operator, write a function `(graph, call) -> labels` and add an
`OperatorRule` to `RULES`, with the other columns that it needs; another package offers its `OperatorRule` under the
operator's name through the entry-point group `autoprune.operator_rules`.

Longer than others, as it is one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from torch import fx

from autoprune.errors import RegistryError
from autoprune.registry import Registry
from autoprune.space.tracing.rules.along import (
    all_or_one,
    along,
    compared,
    cross_dim,
    distances,
    first_dim,
    fourier_dims,
    searched,
    select_scatter,
    sparse_product,
    unpooling,
)
from autoprune.space.tracing.rules.base import OperatorRule, Rule, always, unknown
from autoprune.space.tracing.rules.convolution import convolution, deformable, resize_depthwise
from autoprune.space.tracing.rules.elementwise import (
    complex_of_parts,
    constant,
    glu,
    is_pointwise,
    like,
    parts_of_complex,
    pointwise,
    prelu,
    same,
)
from autoprune.space.tracing.rules.experts import grouped_product
from autoprune.space.tracing.rules.indexing import index_put, lookup
from autoprune.space.tracing.rules.moved_sizes import (
    note_pad,
    note_select,
    note_slice,
    note_split,
    resize_narrow,
    resize_pad,
    resize_repeat,
    resize_repeats,
    resize_select,
    resize_shape,
    resize_slice,
    resize_unflatten,
    run_joined,
    run_split,
    run_view,
)
from autoprune.space.tracing.rules.movement import (
    as_other,
    broadcast,
    expand,
    expand_as,
    fold,
    index_select,
    joined,
    movement,
    pad,
    select,
    strided_slice,
)
from autoprune.space.tracing.rules.norms import (
    along_dim,
    batch_norm,
    group_norm,
    layer_norm,
    reduction,
    resize_group_norm,
    resize_norm,
)
from autoprune.space.tracing.rules.pooling import embedding, pooling, resampling
from autoprune.space.tracing.rules.products import (
    attention,
    bilinear,
    einsum,
    linear,
    matmul,
    plus_product,
    resize_attention,
)
from autoprune.space.tracing.rules.recurrent import packing, recurrent, recurrent_cell, resize_states
from autoprune.space.tracing.rules.weights import (
    computed_weight,
    normalised_weight,
    quantised,
    reduced_weight,
    same_weight,
    spread_over_weight,
    weight_norm,
)

__all__ = ["RULES", "OperatorRule", "Rule", "computed_weight", "rule_of"]

_MOVEMENT = """permute transpose t numpy_T mT mH adjoint unsqueeze squeeze flatten roll flip rot90 pixel_shuffle
pixel_unshuffle channel_shuffle native_channel_shuffle movedim moveaxis swapaxes unfold
reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d _pad_circular
im2col diagonal tril triu"""
_SAME = """feature_dropout alpha_dropout feature_alpha_dropout contiguous detach detach_ alias to _to_copy type_as
lift_fresh lift_fresh_copy zero_ fill_"""
_FOURIER = """fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_hfft2
fft_ihfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_hfftn fft_ihfftn fft_fftshift fft_ifftshift _fft_r2c _fft_c2r
_fft_c2c"""
_POINTWISE = """hardswish hardswish_ hardtanh_ relu6 relu6_ dropout dropout_ selu_ clone max.other max.out min.other
min.out where.ScalarOther where.ScalarSelf where.Scalar complex polar real imag conj conj_physical resolve_conj
resolve_neg angle frexp log_sigmoid_forward nan_to_num masked_fill_ celu celu_ rrelu rrelu_ copy_
fake_quantize_per_tensor_affine"""  # beside those that torch tags; these it does not tag, or not with every overload
_POOLING = """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool1d_with_indices
max_pool2d_with_indices max_pool3d_with_indices"""
_RESAMPLING = """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d grid_sampler_3d upsample_linear1d
upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler
grid_sampler_2d"""


def _rows(names: str, labels: Rule, **columns: Any) -> dict[str, OperatorRule]:
    return dict.fromkeys(names.split(), OperatorRule(labels, **columns))


def _standardises(node: fx.Node) -> bool:
    """True for a batch norm with the statistics of its input: of a weight, as its own are those of a batch."""
    return bool(node.args[5])


_moves = partial(_rows, labels=movement, moves=True)
_reduces = partial(_rows, labels=reduction, of_weight=reduced_weight)

RULES: dict[str, OperatorRule] = {
    **_moves(_MOVEMENT),
    **_moves("view _unsafe_view", run=run_view),
    **_moves("reshape", resize=resize_shape),
    **_rows("expand broadcast_to", expand, resize=resize_shape, moves=True, adopts=True),
    **_rows("repeat tile", expand, resize=resize_repeat, moves=True),
    **_rows("cat concat concatenate stack", joined, run=run_joined, moves=True),
    **_moves("unflatten", resize=resize_unflatten),
    **_rows("repeat_interleave", expand, resize=resize_repeats, moves=True),
    **_moves("narrow", resize=resize_narrow, note=note_slice),
    **_moves("split split_with_sizes chunk tensor_split", run=run_split, note=note_split),
    **_rows("slice", strided_slice, resize=resize_slice, note=note_slice, moves=True),
    **_rows("select", select, resize=resize_select, note=note_select, moves=True),
    **_rows("unbind", select, moves=True),
    **_rows("constant_pad_nd pad", pad, resize=resize_pad, note=note_pad, moves=True),
    **_rows("expand_as", expand_as, moves=True, of_weight=spread_over_weight),
    **_rows("view_as reshape_as", as_other, moves=True),
    **_rows("broadcast_tensors", broadcast, moves=True),
    **_rows(_SAME, same, moves=True, adopts=True),
    **_rows("index_select", index_select),
    **_rows("index _unsafe_index", lookup),
    **_rows("index_put index_put_ _unsafe_index_put", index_put),
    **_rows("col2im", fold),
    **_rows(_POINTWISE, pointwise),
    **_rows("prelu", prelu),  # tagged as pointwise, but its weight runs along dimension 1
    **_rows("glu", glu),
    **_rows("zeros ones full empty new_zeros new_ones new_full new_empty", constant, resize=resize_shape, adopts=True),
    **_rows("zeros_like ones_like full_like empty_like", like, adopts=True),
    **_rows("rand randn", unknown, resize=resize_shape),
    **_rows(_POOLING, pooling),
    **_rows(_RESAMPLING, resampling),
    **_rows("conv1d conv2d conv3d convolution", convolution, resize=resize_depthwise, reads=True),
    **_rows("conv_transpose1d conv_transpose2d conv_transpose3d", convolution, reads=True),
    **_rows("deform_conv2d", deformable, resize=resize_depthwise, reads=True),
    **_rows("_weight_norm", weight_norm, reads=True),
    **_rows("fake_quantize_per_channel_affine fused_moving_avg_obs_fake_quant", quantised, reads=True),
    **_rows("linear", linear, reads=True),
    **_rows("grouped_mm_fallback _grouped_mm", grouped_product, reads=True),  # of transformers, and of torch
    **_rows("matmul mm bmm mv dot vdot", matmul, reads=True),
    **_rows("addmm baddbmm", plus_product, reads=True),
    **_rows("einsum", einsum, reads=True),
    **_rows("embedding", embedding, reads=True),
    **_rows("scaled_dot_product_attention", attention, resize=resize_attention),
    **_rows("lstm gru rnn_tanh rnn_relu", recurrent, resize=resize_states, reads=True),
    **_rows("_pack_padded_sequence _pad_packed_sequence", packing),
    **_rows("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell", recurrent_cell, resize=resize_states, reads=True),
    **_rows("batch_norm", batch_norm, of_weight=normalised_weight, statistic=_standardises),
    **_rows("instance_norm", batch_norm, of_weight=normalised_weight),
    **_rows("layer_norm rms_norm", layer_norm, resize=resize_norm, statistic=always),
    **_rows("group_norm", group_norm, resize=resize_group_norm, statistic=always),
    **_reduces("mean amax amin var std var_mean std_mean norm linalg_vector_norm", statistic=always),
    **_reduces("sum"),  # zeros add nothing
    **_reduces("max min logsumexp nanmean all aminmax", statistic=always),
    **_reduces("any nansum count_nonzero"),
    **_rows("softmax _softmax log_softmax _log_softmax cumprod", along_dim, statistic=always, of_weight=same_weight),
    **_rows("cumsum", along_dim),
    **_rows("sort argsort topk kthvalue mode cummax cummin diff", along("self prepend append")),
    **_rows("logcumsumexp", along("self")),
    **_rows("median nanmedian argmax argmin", along("self", all_or_one)),
    **_rows("quantile nanquantile", along("self", all_or_one)),
    **_rows("trapezoid trapz cumulative_trapezoid", along("y x")),
    **_rows("gather", along("self index")),
    **_rows("take_along_dim", along("self indices", all_or_one, broadcasts=True)),
    **_rows("index_add index_copy index_fill index_reduce", along("self source")),
    **_rows("index_add_ index_copy_ index_fill_ index_reduce_", along("self source")),
    **_rows("scatter scatter_add scatter_reduce scatter_ scatter_add_ scatter_reduce_", along("self index src")),
    **_rows("slice_scatter", along("self src", first_dim)),
    **_rows("segment_reduce", along("data", first_dim)),
    **_rows("linalg_cross", along("self other", broadcasts=True)),
    **_rows("cross", along("self other", cross_dim, broadcasts=True)),
    **_rows("select_scatter", select_scatter),
    **_rows("searchsorted", searched),
    **_rows("bucketize isin", same),
    **_rows("_sparse_mm", sparse_product),
    **_rows("bilinear", bilinear, reads=True),
    **_rows("view_as_real", parts_of_complex),
    **_rows("view_as_complex", complex_of_parts),
    **_rows(_FOURIER, along("self", fourier_dims)),
    **_rows("cosine_similarity linalg_vecdot", compared),
    **_rows("pairwise_distance", compared, statistic=always),
    **_rows("cdist _cdist_forward", distances),
    **_rows("max_unpool2d max_unpool3d", unpooling),
    **_rows("renorm renorm_", same),  # norms of slices, to which zeros add nothing
    **_rows("prod", along("self", all_or_one)),
    **_rows("_assert_tensor_metadata", lambda graph, call: None),  # a check that the exporter adds
}
"""Operator name, without namespace, and without overload unless one differs from the others -> what is known of it."""

OFFERED = Registry("operator rule", {}, group="autoprune.operator_rules")
"""Rules of other packages, for operators that have none here."""

_TAGGED, _UNKNOWN = OperatorRule(pointwise), OperatorRule(unknown)


def rule_of(target: Any) -> OperatorRule:
    """The row of an operator: of its overload, else of its name; without one it is pointwise by its tag, or unknown.

    Raises:
        RegistryError: a package offers what is no rule, or a rule for an operator that has one.
    """
    name = str(getattr(target, "__name__", target))
    plain = name.split(".")[0]
    offered = offered_rules()
    row = RULES.get(name) or RULES.get(plain) or offered.get(name) or offered.get(plain)
    return row or (_TAGGED if is_pointwise(target) else _UNKNOWN)


@cache
def offered_rules() -> Mapping[str, OperatorRule]:
    """Operator -> its rule, of all packages; they are looked up once."""
    found = {name: OFFERED.get(name) for name in OFFERED.names()}
    for name, row in found.items():
        if not isinstance(row, OperatorRule):
            raise RegistryError(
                f"operator rule {name!r} is {row!r}; offer an OperatorRule of autoprune.space.tracing.rules"
            )
        if name in RULES or name.split(".")[0] in RULES:
            raise RegistryError(
                f"operator rule {name!r} is offered by a package, but autoprune has one; remove the package's"
            )
    return found
