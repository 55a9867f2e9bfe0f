"""Attention in shifted windows (Swin Transformer, Liu et al. 2021, section 3.2).

The grid of tokens is cut into windows of M x M tokens that attend only to each other:

    softmax(QK^T / sqrt d + B) V,   B[p, q] = T[(yp - yq + M - 1)(2M - 1) + xp - xq + M - 1]

T is a learned table, the relative position bias. Every other block first rolls the grid by half a window, so that
information crosses the borders; a mask keeps tokens apart that only the roll has made neighbours.
"""

import numpy as np

from minivit import ops
from minivit.nn.attention import Attention
from minivit.nn.layers import LayerNorm, Linear
from minivit.nn.module import Module, Parameter

MASKED = -100.0
"""Added to the scores of two tokens that are no neighbours; not -inf, as in the official code."""


class WindowAttention(Attention):
    """Self-attention within shifted windows of a grid: (B, rows * columns, dim) -> the same.

    Along an axis where the grid is not larger than the window, the window is the grid and nothing is shifted. A grid
    that does not divide into windows is padded below and on the right with zeros, which act as ordinary tokens.

    Args:
        grid: (rows, columns) of tokens.
        window: (rows, columns) of a window.
        shift: (rows, columns) to roll by.
        table_init: rule for T.
        others: of ``Attention``.
    """

    def __init__(self, dim, num_heads, grid, window, shift, *, table_init, **options):
        super().__init__(dim, num_heads, **options)
        self.grid = grid
        self.window = tuple(min(m, n) for m, n in zip(window, grid, strict=True))
        self.shift = tuple(s if n > m else 0 for s, m, n in zip(shift, window, grid, strict=True))
        self.padded = tuple(-(-n // m) * m for n, m in zip(grid, self.window, strict=True))
        rows, columns = self.window
        table_size = (2 * rows - 1) * (2 * columns - 1)
        self.relative_position_bias_table = Parameter(table_init((table_size, num_heads)))
        self.index = relative_position_index(self.window)
        self.mask = shift_mask(self.padded, self.window, self.shift) if any(self.shift) else None

    def forward(self, x):
        b, _, dim = x.shape
        (rows, columns), (height, width) = self.grid, self.padded
        x = x.reshape(b, rows, columns, dim)
        if any(self.shift):
            x = ops.roll(x, [-s for s in self.shift], (1, 2))
        if self.padded != self.grid:
            x = ops.pad(x, [(0, 0), (0, height - rows), (0, width - columns), (0, 0)])
        x = super().forward(partition(x, self.window), self.bias(b))
        x = merge(x, self.window, self.padded)[:, :rows, :columns]
        if any(self.shift):
            x = ops.roll(x, self.shift, (1, 2))
        return x.reshape(b, rows * columns, dim)

    def bias(self, batch):
        """What is added to the scores: (H, n, n), or with a mask (batch * windows, H, n, n), n tokens in a window."""
        bias = self.relative_position_bias_table[self.index].transpose(2, 0, 1)
        if self.mask is None:
            return bias
        bias = bias + np.expand_dims(self.mask, 1).astype(bias.dtype)
        windows, *scores = bias.shape
        return ops.broadcast_to(bias, (batch, *bias.shape)).reshape(batch * windows, *scores)


def partition(x, window):
    """Cut (B, rows, columns, C) into windows, row by row: (B * windows, tokens of a window, C)."""
    b, rows, columns, c = x.shape
    m, n = window
    x = x.reshape(b, rows // m, m, columns // n, n, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b * (rows // m) * (columns // n), m * n, c)


def merge(x, window, grid):
    """Undo ``partition``: (B * windows, tokens of a window, C) -> (B, rows, columns, C)."""
    (m, n), (rows, columns), c = window, grid, x.shape[-1]
    b = len(x) * m * n // (rows * columns)
    x = x.reshape(b, rows // m, columns // n, m, n, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, rows, columns, c)


def relative_position_index(window):
    """Row of the table for each pair (query, key) of tokens in a window: int array (n, n)."""
    rows, columns = window
    y, x = np.divmod(np.arange(rows * columns), columns)
    dy, dx = y[:, None] - y + rows - 1, x[:, None] - x + columns - 1
    return dy * (2 * columns - 1) + dx


def shift_mask(grid, window, shift):
    """0 where two tokens of a window come from one side of the roll, MASKED where not: (windows, n, n) float32.

    The roll brings the first ``shift`` rows behind the last: the last window along an axis then holds two regions.
    Where the rolled grid is padded, the regions are still those of the last rows of the padded grid, as in timm.
    """
    labels = []
    for size, m, s in zip(grid, window, shift, strict=True):
        place = np.arange(size)
        labels.append((place >= size - m).astype(int) + (place >= size - s))
    regions = 3 * labels[0][:, None] + labels[1]
    regions = partition(regions[None, :, :, None], window)[..., 0]
    return np.where(regions[:, :, None] == regions[:, None, :], 0, MASKED).astype(np.float32)


class PatchMerging(Module):
    """Swin's down-sampling: 2x2 tokens side by side, LayerNorm, linear: (B, rows * columns, C) -> (B, about N/4, dim).

    Odd sides of the grid are padded with zeros.
    """

    def __init__(self, in_dim, dim, grid, *, norm_eps=1e-5, init):
        self.grid = grid
        self.norm = LayerNorm(4 * in_dim, norm_eps)
        self.reduction = Linear(4 * in_dim, dim, bias=False, init=init)

    def forward(self, x):
        b, _, c = x.shape
        rows, columns = self.grid
        x = x.reshape(b, rows, columns, c)
        if rows % 2 or columns % 2:
            x = ops.pad(x, [(0, 0), (0, rows % 2), (0, columns % 2), (0, 0)])
        corners = [x[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
        merged = ops.concat(corners, axis=3)
        return self.reduction(self.norm(merged.reshape(b, merged.shape[1] * merged.shape[2], 4 * c)))
