"""The parts of a binary network: layers whose weights and inputs are signs, and what makes up for it around them.

    Wb = mean|W| sign(W - mean W),   y = sign(x) Wb^T                       (binary linear layer)

BinaryViT (Le & Li 2023, arXiv 2306.16678) puts each of them into a *unit* with a shortcut of its own, after Bi-Real
Net (Liu et al. 2018) and ReActNet (Liu et al. 2020):

    unit(x) = RPReLU(BatchNorm(layer(sign(x + shift))) + shortcut(x))

The weights W that training changes ("latent" ones) are plain floats; there is no bias.
"""

import numpy as np

from minivit import ops
from minivit.errors import UsageError
from minivit.nn.convolution import BatchNorm2d
from minivit.nn.module import Module, Parameter
from minivit.nn.patches import split_patches


class BinaryLinear(Module):
    """Signs (..., in_features) -> (..., out_features), by weights of one bit and one scale for each output.

    Args:
        in_features, out_features: widths.
        init: a rule of ``minivit.nn.init`` for the latent weight (out_features, in_features).
    """

    def __init__(self, in_features, out_features, *, init):
        self.weight = Parameter(init((out_features, in_features)))

    def binary_weight(self):
        """The weight that the product uses: in each row a scale times signs."""
        return ops.binary_weight(self.weight, centred=True)

    def forward(self, x):
        return ops.binary_linear(x, self.binary_weight())


class BinaryConv2d(Module):
    """Signs (B, in_chans, H, W) -> (B, out_chans, H / 2, W / 2): filters of 2x2 at stride 2, not centred.

    Args:
        in_chans, out_chans: channels.
        init: a rule of ``minivit.nn.init`` for the latent weight (out_chans, in_chans, 2, 2).

    Raises:
        ValueError: an odd number of rows or columns.
    """

    def __init__(self, in_chans, out_chans, *, init):
        self.weight = Parameter(init((out_chans, in_chans, 2, 2)))

    def binary_weight(self):
        """The weight that the product uses: in each filter a scale times signs."""
        return ops.binary_weight(self.weight, centred=False)

    def forward(self, x):
        patches = split_patches(x, 2).transpose(0, 2, 4, 1, 3, 5)  # B, rows, columns, C, 2, 2
        weight = self.binary_weight()
        out = ops.binary_linear(patches.reshape(*patches.shape[:3], 4 * x.shape[1]), weight.reshape(len(weight), -1))
        return out.transpose(0, 3, 1, 2)


class TokenBatchNorm(BatchNorm2d):
    """BatchNorm of the channels of (..., C) over images and tokens. Binary networks have it in place of LayerNorm."""

    def forward(self, x):
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class RPReLU(Module):
    """max(t, 0) + slope min(t, 0) + shift_out with t = x - shift_in, for each channel of (..., dim) (ReActNet)."""

    def __init__(self, dim):
        self.shift_in = Parameter(np.zeros(dim, np.float32))
        self.slope = Parameter(np.full(dim, 0.25, np.float32))
        self.shift_out = Parameter(np.zeros(dim, np.float32))

    def forward(self, x):
        return ops.rprelu(x, self.shift_in, self.slope, self.shift_out)


class Affine(Module):
    """x * scale + shift for each channel of (..., dim): BinaryViT's "LayerScale", before the residual is added.

    Args:
        dim: channels.
        scale: what all scales start with; shifts start with 0.
    """

    def __init__(self, dim, scale):
        self.scale = Parameter(np.full(dim, scale, np.float32))
        self.shift = Parameter(np.zeros(dim, np.float32))

    def forward(self, x):
        return ops.affine(x, self.scale, self.shift)


def repeat_cells(x, grid, size):
    """Every token as a cell of size x size: (B, N / size^2, C) -> (B, N, C) on ``grid``, that of the result."""
    b, _, c = x.shape
    rows, columns = (n // size for n in grid)
    cells = ops.broadcast_to(x.reshape(b, rows, 1, columns, 1, c), (b, rows, size, columns, size, c))
    return cells.reshape(b, rows * columns * size**2, c)


def on_grid(layer, x, grid):
    """Apply a layer of images to tokens: (B, N, C) as (B, C, rows, columns), and its result as tokens again."""
    b, _, c = x.shape
    image = layer(x.reshape(b, *grid, c).transpose(0, 3, 1, 2))
    _, c, rows, columns = image.shape
    return image.transpose(0, 2, 3, 1).reshape(b, rows * columns, c)


class BinaryUnit(Module):
    """RPReLU(BatchNorm(layer(sign(x + shift))) + shortcut(x)): tokens (B, N, in_features) -> (B, N, out_features).

    The shortcut has no weights: a wider result gets copies of x side by side, a narrower one the means of neighbouring
    channels (``ops.add_shortcut``).

    With ``grid`` the layer is a convolution that halves it, and the shortcut takes the mean of 2x2 tokens:
    (B, N, in_features) -> (B, N / 4, out_features).

    Args:
        in_features, out_features: widths, one a multiple of the other.
        grid: (rows, columns) of tokens to be halved, both even; None: a linear layer.
        init: a rule of ``minivit.nn.init`` for the latent weight.

    Raises:
        UsageError: widths of which neither is a multiple of the other.
    """

    def __init__(self, in_features, out_features, *, grid=None, init):
        narrow, wide = sorted((in_features, out_features))
        if narrow < 1 or wide % narrow:
            raise UsageError(f"of the widths {in_features} and {out_features} one must be a multiple of the other")
        self.grid = grid
        self.shift = Parameter(np.zeros(in_features, np.float32))
        layer = BinaryLinear if grid is None else BinaryConv2d
        self.layer = layer(in_features, out_features, init=init)
        self.norm = TokenBatchNorm(out_features)
        self.act = RPReLU(out_features)

    def forward(self, x):
        signs = ops.sign(x, self.shift)
        if self.grid is None:
            y = self.layer(signs)
        else:
            y, x = on_grid(self.layer, signs, self.grid), ops.pool_cells(x, self.grid, 2)
        return self.act(ops.add_shortcut(self.norm(y), x))
