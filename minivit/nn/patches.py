"""Patch embedding: an image as a sequence of tokens (Dosovitskiy et al. 2020)."""

from math import prod

from minivit import ops
from minivit.nn.layers import LayerNorm
from minivit.nn.module import Module, Parameter


def split_patches(x, patch_size):
    """View images (B, C, H, W) as patches: (B, C, rows, P, columns, P), P = ``patch_size``.

    Raises:
        ValueError: the image is not a whole number of patches high and wide.
    """
    b, c, h, w = x.shape
    p = patch_size
    if h % p or w % p:
        raise ValueError(f"images of {h}x{w} pixels do not divide into patches of {p}x{p}")
    return x.reshape(b, c, h // p, p, w // p, p)


class PatchEmbed(Module):
    """One linear map for every patch: (B, C, H, W) -> (B, N, dim), N = (H / P)(W / P), row by row.

    The weight has the layout of the equivalent convolution with stride P, (dim, C, P, P), as in timm. With
    ``norm_eps`` a LayerNorm follows, as in Swin.
    """

    def __init__(self, in_chans, dim, patch_size, *, norm_eps=None, init):
        self.patch_size = patch_size
        self.proj = _ConvParameters(in_chans, dim, patch_size, init)
        self.norm = None if norm_eps is None else LayerNorm(dim, norm_eps)

    def forward(self, x):
        patches = split_patches(x, self.patch_size).transpose(0, 2, 4, 1, 3, 5)  # B, rows, columns, C, P, P
        b, rows, columns, *patch = patches.shape
        weight = self.proj.weight.reshape(-1, prod(patch))
        tokens = ops.linear(patches.reshape(b, rows * columns, prod(patch)), weight, self.proj.bias)
        return tokens if self.norm is None else self.norm(tokens)


class _ConvParameters(Module):
    """The weight (dim, C, P, P) and bias (dim,) of a convolution, drawn as for the linear map that it is."""

    def __init__(self, in_chans, dim, patch_size, init):
        fan_in = in_chans * patch_size**2
        self.weight = Parameter(init((dim, fan_in)).reshape(dim, in_chans, patch_size, patch_size))
        self.bias = Parameter(init((dim,), fan_in))
