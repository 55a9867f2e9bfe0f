"""BinaryViT's pooling branches: neighbours along rows and columns, averaged beside the MLP (Le & Li 2023).

    out = sum over k in {3x1, 1x3, 5x1, 1x5} of scale_k * mean_k(x) + shift_k

Averages of real numbers cost no products, and carry what signs have lost from token to token.
"""

from minivit import ops
from minivit.nn.binary import Affine
from minivit.nn.module import Module


class PoolingBranches(Module):
    """Four averages of tokens on a grid, each with its affine layer, added up: (B, N, dim) -> (B, N, dim).

    Args:
        dim: width of the tokens.
        grid: (rows, columns) of the tokens; beyond it all is 0, and counts.
        scale: what the affine layers' scales start with: at 0, the branches start as nothing.
    """

    def __init__(self, dim, grid, scale=0.0):
        self.grid = grid
        self.h3 = Affine(dim, scale)
        self.w3 = Affine(dim, scale)
        self.h5 = Affine(dim, scale)
        self.w5 = Affine(dim, scale)

    def forward(self, x):
        branches = (self.h3, self.w3, self.h5, self.w5)
        scale, shift = ops.stack([b.scale for b in branches]), ops.stack([b.shift for b in branches])
        return ops.pooling_branches(x, scale, shift, grid=self.grid)
