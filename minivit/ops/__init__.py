"""Floor 1: every differentiable operation, by family. An op is its forward and its VJP side by side."""

from minivit.ops import methods as methods  # installs the operators on Tensor
from minivit.ops.attention import attention, self_attention
from minivit.ops.binary import (
    add_shortcut,
    affine,
    binary_linear,
    binary_matmul,
    binary_weight,
    quantize_probabilities,
    rprelu,
    sign,
)
from minivit.ops.convolution import avg_pool2d, conv2d, max_pool2d, unfold
from minivit.ops.elementwise import (
    abs,
    add,
    astype,
    clip,
    div,
    drop_path,
    dropout,
    erf,
    exp,
    gelu,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    relu,
    sigmoid,
    sqrt,
    sub,
    tanh,
    where,
)
from minivit.ops.linalg import einsum, linear, matmul
from minivit.ops.loss import cross_entropy, log_softmax, softmax
from minivit.ops.normalization import batch_norm, layer_norm
from minivit.ops.pooling import pool_cells, pooling_branches
from minivit.ops.reduction import logsumexp, max, mean, min, std, sum, var
from minivit.ops.shape import (
    broadcast_to,
    concat,
    expand_dims,
    flip,
    getitem,
    pad,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    swapaxes,
    transpose,
)

__all__ = sorted(name for name in dir() if not name.startswith("_"))
