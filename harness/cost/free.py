"""Operators without matrix work: free by convention. What neither this list nor a handler knows is printed as
unknown. Torch-free."""

from __future__ import annotations

__all__ = ["FREE"]

_NAMES = """
IntImplicit __and__ __or__ __xor__ _shape_as_tensor _unique2 _upsample_bicubic2d_aa _upsample_bilinear2d_aa
abs abs_ add add_ addcmul alias all amax amin any argmax argmin argsort atan2 bernoulli bitwise_and
bitwise_not bitwise_or cat ceil celu chunk clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clone copy_ cos
count_nonzero cumsum detach div div_ dropout elu empty_like eq erf exp exp_ expand expand_as expm1 eye fill_
flatten flip floor floor_divide frobenius_norm full_like ge gelu ger glu gt hardsigmoid hardswish hardswish_
hardtanh hardtanh_ hypot index_add index_copy index_fill index_put index_put_ index_select isfinite isinf
isnan item le leaky_relu_ lift_fresh log log1p log2 log_sigmoid log_softmax logical_not logical_or logsumexp
lt masked_fill masked_fill_ masked_scatter masked_select max max_pool1d maximum mean meshgrid min minimum
movedim mul mul_ ne neg new_empty new_ones new_tensor norm normal_ not_equal numpy_T one_hot ones_like outer
pad pixel_shuffle pixel_unshuffle pow prelu prod rand randn randn_like reciprocal reflection_pad2d remainder_
repeat repeat_interleave replication_pad2d result_type round rsqrt rsub rsub_ scalar_tensor scatter scatter_
scatter_add scatter_add_ sigmoid sigmoid_ sign silu silu_ sin softmax softplus sort split_with_sizes sqrt
square std sub sub_ sum swapaxes tanh tensor_split threshold tile to_dense topk tril triu true_divide
unflatten unfold unique unique_dim upsample_bicubic2d upsample_linear1d upsample_trilinear3d var var_mean
view_as where zero_
"""

FREE = frozenset(f"aten::{name}" for name in _NAMES.split()) | {"torchvision::nms", "torchvision::roi_align"}
