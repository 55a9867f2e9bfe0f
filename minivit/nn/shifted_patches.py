"""Shifted Patch Tokenization, SPT (Lee et al. 2021).

    SPT(x) = LN(P([x s1 s2 s3 s4])) E

The image is joined, along its channels, with four copies of itself that are shifted diagonally by half a patch;
then it is cut into patches (P), normalised and projected (E). A token so sees a window twice as wide as its patch.
"""

from math import prod

from minivit import ops
from minivit.nn.layers import LayerNorm, Linear
from minivit.nn.module import Module
from minivit.nn.patches import split_patches


def shift_patches(x, patch_size):
    """Join an image with its four diagonal shifts by s = patch_size // 2 pixels: (B, C, H, W) -> (B, 5C, H, W).

    The order of the blocks is the original, left-up x[i-s, j-s], right-up x[i-s, j+s], left-bottom x[i+s, j-s],
    right-bottom x[i+s, j+s]; outside the image stand zeros. Not the variant of some re-implementations that
    shifts by one pixel along the axes.
    """
    s = patch_size // 2
    h, w = x.shape[2:]
    padded = ops.pad(x, [(0, 0), (0, 0), (s, s), (s, s)])
    corners = [(0, 0), (0, 2 * s), (2 * s, 0), (2 * s, 2 * s)]
    return ops.concat([x, *(padded[:, :, i : i + h, j : j + w] for i, j in corners)], axis=1)


class ShiftedPatchTokenization(Module):
    """SPT as patch embedding: images (B, C, H, W) -> tokens (B, N, dim), N = (H / P)(W / P).

    The elements of a patch are ordered row, column, channel (channel fastest), as in the authors' code.
    """

    def __init__(self, in_chans, dim, patch_size, *, norm_eps=1e-5, init):
        self.patch_size = patch_size
        self.norm = LayerNorm(5 * in_chans * patch_size**2, norm_eps)
        self.proj = Linear(5 * in_chans * patch_size**2, dim, init=init)

    def forward(self, x):
        patches = split_patches(shift_patches(x, self.patch_size), self.patch_size)
        patches = patches.transpose(0, 2, 4, 3, 5, 1)  # B, rows, columns, P, P, 5C
        b, rows, columns, *patch = patches.shape
        return self.proj(self.norm(patches.reshape(b, rows * columns, prod(patch))))


class ShiftedPatchPool(Module):
    """SPT as pooling: a grid of tokens (B, rows * columns, in_dim) -> (B, rows * columns / 4, dim), merging 2x2 tokens.

    With ``class_token`` the first token stands apart and passes through a linear layer of its own:
    (B, 1 + rows * columns, in_dim) -> (B, 1 + rows * columns / 4, dim). ``grid`` is (rows, columns), both even.
    """

    def __init__(self, in_dim, dim, *, class_token, grid, norm_eps=1e-5, init):
        self.grid = grid
        self.class_linear = Linear(in_dim, dim, init=init) if class_token else None
        self.spt = ShiftedPatchTokenization(in_dim, dim, 2, norm_eps=norm_eps, init=init)

    def forward(self, x):
        tokens = x if self.class_linear is None else x[:, 1:]
        b, n, c = tokens.shape
        rows, columns = self.grid
        if rows * columns != n:
            raise ValueError(f"expected {rows}x{columns} tokens to pool, got {n}")
        pooled = self.spt(tokens.transpose(0, 2, 1).reshape(b, c, rows, columns))
        if self.class_linear is None:
            return pooled
        return ops.concat([self.class_linear(x[:, :1]), pooled], axis=1)
