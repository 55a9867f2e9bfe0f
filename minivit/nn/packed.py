"""The parts of a trained binary network on bits: what ``minivit.nn.binary`` computes in evaluation, digit for digit.

Weights are words of 64 signs. Activations become signs, and words, where a product needs them, and are floats only in
between. There are no gradients, and no way back to the latent weights.
"""

import numpy as np

from minivit import ops
from minivit.kernels import binary_unit as kernel
from minivit.kernels.bits import pack_bits, pack_columns, pack_signs
from minivit.kernels.xnor import BinaryMatrix, binary_attention_values, binary_scores, pack_filters, patches_2x2
from minivit.nn.binary import pool_cells, repeat_cells
from minivit.nn.module import Buffer, Module
from minivit.tensor import Tensor


class PackedUnit(Module):
    """A ``BinaryUnit`` on bits: tokens (B, N, in_features) -> (B, N, out_features), or on half the grid.

    Args:
        unit: a BinaryUnit.
    """

    def __init__(self, unit):
        weight = unit.layer.binary_weight().data  # in each row a scale times signs
        rows = weight.reshape(len(weight), -1)
        matrix = BinaryMatrix(pack_signs(rows), rows.shape[1]) if weight.ndim == 2 else pack_filters(weight)
        norm, act = unit.norm, unit.act
        rstd = (1 / np.sqrt(norm.running_var.data + norm.eps)).astype(np.float32)
        table = np.empty((7, len(weight)), np.float32)
        table[kernel.SCALE] = np.abs(rows).max(axis=1)
        table[kernel.MEAN], table[kernel.SLOPE] = norm.running_mean.data, rstd * norm.weight.data
        table[kernel.BIAS], table[kernel.SHIFT_IN] = norm.bias.data, act.shift_in.data
        table[kernel.PRELU], table[kernel.SHIFT_OUT] = act.slope.data, act.shift_out.data
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

    def signs(self, x):
        """Words of the signs of x + shift, for an array x (..., in_features): a matrix (R, words)."""
        words = pack_signs(x, self.shift.data)
        return words.reshape(-1, words.shape[-1])

    def forward(self, x):
        if self.grid is None:
            words, shortcut = self.signs(x.data), x.data
        else:
            words = patches_2x2(pack_signs(x.data, self.shift.data), self.grid)
            shortcut = pool_cells(x, self.grid, 2).data
        out = kernel.unit(words, self.matrix, rows_of(shortcut), self.table.data)
        return Tensor(out.reshape(*shortcut.shape[:-1], out.shape[1]))

    def add_to(self, total, words, shortcut, affine):
        """Add ``affine`` (None: nothing more) of this unit's result to ``total`` (B, N, out_features), in place."""
        alpha, beta = affine if affine is not None else (np.ones_like(self.table.data[0]), 0 * self.table.data[0])
        kernel.unit_residual(words, self.matrix, rows_of(shortcut), self.table.data, alpha, beta, rows_of(total))


class PackedAttention(Module):
    """A ``BinaryAttention`` on bits: tokens (B, N, dim) -> (B, N, dim)."""

    def __init__(self, attention):
        self.num_heads, self.grid, self.reduction = attention.num_heads, attention.grid, attention.reduction
        self.reduce = None if attention.reduce is None else PackedUnit(attention.reduce)
        self.q, self.k, self.v = (PackedUnit(unit) for unit in (attention.q, attention.k, attention.v))
        self.q_shift, self.k_shift, self.v_shift, self.att_prob_clip = (
            Buffer(p.data.copy())
            for p in (attention.q_shift, attention.k_shift, attention.v_shift, attention.att_prob_clip)
        )
        self.norm, self.act = attention.norm, attention.act

    def forward(self, x):
        u = x if self.reduce is None else self.reduce(pool_cells(x, self.grid, self.reduction))
        q, k, v = self.q(x), self.k(u), self.v(u)
        context = Tensor(self.attend(q.data, k.data, v.data))
        coarse = k + v
        if self.reduce is not None:
            coarse = repeat_cells(coarse, self.grid, self.reduction)
        return self.act(self.norm(context) + q + coarse)

    def attend(self, q, k, v):
        """Queries (B, N, dim), keys and values (B, M, dim), arrays -> context (B, N, dim)."""
        (b, n, dim), m, h = q.shape, k.shape[1], self.num_heads
        d = dim // h
        q, k = (
            pack_signs(x.reshape(b, -1, h, d), shift.data.reshape(h, d))
            for x, shift in ((q, self.q_shift), (k, self.k_shift))
        )
        scores = binary_scores(q, k, d).astype(np.float32) * np.float32(d**-0.5)
        probabilities, _ = ops.softmax.raw(scores)
        mask = pack_bits(probabilities / self.att_prob_clip.data > 0.5)
        values = pack_columns(v, self.v_shift.data).reshape(b, h, d, -1)
        assert values.shape[3] == mask.shape[3], m
        return binary_attention_values(mask, values).astype(np.float32).reshape(b, n, dim) * self.att_prob_clip.data


class PackedBlock(Module):
    """A ``BinaryBlock`` on bits, (B, N, dim) -> (B, N, dim)."""

    def __init__(self, block):
        self.norm1, self.norm2, self.pool = block.norm1, block.norm2, block.pool
        self.affine1, self.affine2 = block.affine1, block.affine2
        self.attn = PackedAttention(block.attn)
        self.proj, self.fc1, self.fc2 = (PackedUnit(u) for u in (block.proj, block.mlp.fc1, block.mlp.fc2))

    def forward(self, x):
        attended = self.attn(self.norm1(x)).data
        total = x.data.copy()
        self.proj.add_to(total, self.proj.signs(attended), attended, _constants(self.affine1))
        z = self.norm2(Tensor(total))
        hidden, means = kernel.unit_to_bits(
            self.fc1.signs(z.data), self.fc1.matrix, rows_of(z.data), self.fc1.table.data, self.fc2.shift.data,
            self.fc2.table.shape[1],
        )  # fmt: skip
        self.fc2.add_to(total, hidden, means, _constants(self.affine2))
        return Tensor(total) if self.pool is None else Tensor(total) + self.pool(z)


def rows_of(x):
    """An array (..., C) as a matrix (R, C), without copying."""
    return x.reshape(-1, x.shape[-1])


def _constants(affine):
    return None if affine is None else (affine.scale.data, affine.shift.data)
