"""The parts of a trained binary network on bits: what ``minivit.nn.binary`` computes in evaluation, digit for digit.

Weights are words of 64 signs. Activations become signs, and words, where a product needs them, and are floats only in
between, always float32. There are no gradients, and no way back to the latent weights.
"""

import math

import numpy as np

from minivit import ops
from minivit.kernels import binary_block, pooling, xnor
from minivit.kernels import binary_unit as kernel
from minivit.kernels.bits import pack_columns, pack_signs
from minivit.kernels.tokens import mean_neighbours
from minivit.kernels.xnor import BinaryMatrix, binary_attention_values, binary_scores, pack_filters, patches_2x2
from minivit.nn.binary import repeat_cells
from minivit.nn.module import Buffer, Module
from minivit.tensor import Tensor

_CACHED = 1 << 20  # numbers of tokens that go through a block together: their intermediate results fit the cache


class PackedUnit(Module):
    """A ``BinaryUnit`` on bits: tokens (B, N, in_features) -> (B, N, out_features), or on half the grid.

    Args:
        unit: a BinaryUnit.

    Raises:
        TypeError: in ``forward``, tokens that are not float32.
    """

    def __init__(self, unit):
        weight = unit.layer.binary_weight().data  # in each row a scale times signs
        rows = weight.reshape(len(weight), -1)
        matrix = BinaryMatrix(pack_signs(rows), rows.shape[1]) if weight.ndim == 2 else pack_filters(weight)
        table = np.empty((7, len(weight)), np.float32)
        table[xnor.SCALE] = np.abs(rows).max(axis=1)
        table[[xnor.MEAN, xnor.SLOPE, xnor.BIAS]] = norm_table(unit.norm)
        table[[xnor.SHIFT_IN, xnor.PRELU, xnor.SHIFT_OUT]] = act_table(unit.act)
        self.grid, self.k = unit.grid, matrix.k
        self.words = Buffer(matrix.words)
        self.shift = Buffer(unit.shift.data.copy())
        self.table = Buffer(table)

    @property
    def matrix(self):
        """The weight as the kernels want it, arranged once."""
        known = self.__dict__.get("_matrix")
        if known is None or known.words is not self.words.data:
            known = self.__dict__["_matrix"] = BinaryMatrix(self.words.data, self.k)
        return known

    def forward(self, x):
        require_float32(x)
        words, shortcut = pack_signs(x.data, self.shift.data), x
        if self.grid is None:
            words = rows_of(words)
        else:
            words, shortcut = patches_2x2(words, self.grid), ops.pool_cells(x, self.grid, 2)
        return Tensor(self.apply(words, shortcut.data))

    def apply(self, words, shortcut):
        """The result (B, N, out_features), given the words (B N, W) of the input's signs and the shortcut (B, N, C)."""
        rows, width = rows_of(shortcut), self.table.shape[1]
        if rows.shape[1] > width:
            rows = mean_neighbours(rows, width)
        out = kernel.unit(words, self.matrix, rows, self.table.data)
        return out.reshape(*shortcut.shape[:-1], out.shape[1])

    def add_to(self, total, words, shortcut, affine):
        """Add the result times ``affine[0]`` plus ``affine[1]`` to ``total`` (B, N, out_features), in place."""
        kernel.unit_residual(words, self.matrix, rows_of(shortcut), self.table.data, *affine, rows_of(total))


class PackedAttention(Module):
    """A ``BinaryAttention`` on bits, with the BatchNorm before it: tokens (B, N, dim) -> (B, N, dim).

    Args:
        norm: a TokenBatchNorm.
        attention: a BinaryAttention.
    """

    def __init__(self, norm, attention):
        self.num_heads, self.grid, self.reduction = attention.num_heads, attention.grid, attention.reduction
        self.norm = Buffer(norm_table(norm))
        self.reduce = None if attention.reduce is None else PackedUnit(attention.reduce)
        self.q, self.k, self.v = (PackedUnit(unit) for unit in (attention.q, attention.k, attention.v))
        self.q_shift, self.k_shift, self.v_shift, self.att_prob_clip = (
            Buffer(p.data.copy())
            for p in (attention.q_shift, attention.k_shift, attention.v_shift, attention.att_prob_clip)
        )
        self.table = Buffer(np.concatenate([norm_table(attention.norm), act_table(attention.act)]))
        d = self.norm.shape[1] // self.num_heads
        self.exponentials = np.exp(-np.arange(2 * d + 1, dtype=np.float32) * np.float32(d**-0.5))
        self.cells = None  # which key each token shares with its neighbours
        if self.reduce is not None:
            cells = np.arange(self.grid[0] * self.grid[1] // self.reduction**2).reshape(1, -1, 1)
            self.cells = repeat_cells(Tensor(cells), self.grid, self.reduction).data.ravel()

    def forward(self, x, shift):
        """The result, and the words (B N, W) of its signs after ``shift`` (dim,)."""
        units = [self.q] if self.reduce is not None else [self.q, self.k, self.v]
        z, words = binary_block.normalize_to_bits(
            rows_of(x.data), self.norm.data, np.array([unit.shift.data for unit in units])
        )
        z = z.reshape(x.shape)
        q = self.q.apply(words[0], z)
        if self.reduce is None:
            k, v = self.k.apply(words[1], z), self.v.apply(words[2], z)
        else:
            u = self.reduce(ops.pool_cells(Tensor(z), self.grid, self.reduction))
            k, v = self.k(u).data, self.v(u).data
        context = self.attend(q, k, v)
        cells = np.arange(x.shape[1]) if self.cells is None else self.cells
        return binary_block.join(context, q, k, v, cells, self.table.data, shift)

    def attend(self, q, k, v):
        """Queries (B, N, dim), keys and values (B, M, dim), arrays -> context (B, N, dim)."""
        (b, n, dim), h = q.shape, self.num_heads
        d = dim // h
        queries, keys = (
            pack_signs(x.reshape(b, -1, h, d), shift.data.reshape(h, d))
            for x, shift in ((q, self.q_shift), (k, self.k_shift))
        )
        level = self.att_prob_clip.data
        mask = binary_block.probability_bits(binary_scores(queries, keys, d), self.exponentials, level[()])
        values = pack_columns(v, self.v_shift.data).reshape(b, h, d, -1)
        scale = np.full(dim, level)
        return binary_attention_values(mask, values, scale, np.zeros_like(scale)).reshape(b, n, dim)


class PackedBlock(Module):
    """A ``BinaryBlock`` on bits, (B, N, dim) -> (B, N, dim).

    Args:
        block: a BinaryBlock.

    Raises:
        TypeError: in ``forward``, tokens that are not float32.
    """

    def __init__(self, block):
        self.attn = PackedAttention(block.norm1, block.attn)
        self.proj, self.fc1, self.fc2 = (PackedUnit(u) for u in (block.proj, block.mlp.fc1, block.mlp.fc2))
        self.norm2 = Buffer(norm_table(block.norm2))
        dim = self.norm2.shape[1]
        self.affine1, self.affine2 = (Buffer(affine_table(a, dim)) for a in (block.affine1, block.affine2))
        self.pool, self.grid = None, None
        if block.pool is not None:
            branches = (block.pool.h3, block.pool.w3, block.pool.h5, block.pool.w5)
            weights = pooling.branch_weights(np.stack([b.scale.data for b in branches]))
            self.pool = Buffer(np.concatenate([weights, [np.stack([b.shift.data for b in branches]).sum(axis=0)]]))
            self.grid = block.pool.grid

    def forward(self, x):
        require_float32(x)
        total = x.data.copy()
        images = max(1, _CACHED // max(1, math.prod(total.shape[1:])))
        for start in range(0, len(total), images):
            self._update(total[start : start + images])
        return Tensor(total)

    def _update(self, total):
        """Turn tokens (B, N, dim), an array, into the block's result, in place."""
        attended, words = self.attn(Tensor(total), self.proj.shift.data)
        self.proj.add_to(total, words, attended, self.affine1.data)
        z, words = binary_block.normalize_to_bits(rows_of(total), self.norm2.data, self.fc1.shift.data[None])
        hidden, means = kernel.unit_to_bits(
            words[0], self.fc1.matrix, z, self.fc1.table.data, self.fc2.shift.data, self.fc2.table.shape[1]
        )
        self.fc2.add_to(total, hidden, means, self.affine2.data)
        if self.pool is not None:
            image = (len(total), *self.grid, total.shape[2])
            pooling.cross(z.reshape(image), self.pool.data[:5], self.pool.data[5], out=total.reshape(image))


def require_float32(x):
    """Raise TypeError unless the tokens are float32: a packed network turned to float64 must not go on."""
    if x.dtype != np.float32:
        raise TypeError(f"packed networks are float32, not {x.dtype}: turn the network and its images to float32")


def rows_of(x):
    """An array (..., C) as a matrix (R, C), without copying."""
    return x.reshape(-1, x.shape[-1])


def norm_table(norm):
    """Mean, slope and bias (3, C) of a BatchNorm in evaluation, y = (x - mean) slope + bias."""
    rstd = (1 / np.sqrt(norm.running_var.data + norm.eps)).astype(np.float32)
    return np.stack([norm.running_mean.data, rstd * norm.weight.data, norm.bias.data])


def act_table(act):
    """Shift before, slope and shift after (3, C) of an RPReLU."""
    return np.stack([act.shift_in.data, act.slope.data, act.shift_out.data])


def affine_table(affine, dim):
    """Scale and shift (2, dim) of an affine layer, those that change nothing for None."""
    if affine is None:
        return np.stack([np.ones(dim, np.float32), np.zeros(dim, np.float32)])
    return np.stack([affine.scale.data, affine.shift.data])
