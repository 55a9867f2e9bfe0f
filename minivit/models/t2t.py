"""T2T-ViT (Yuan et al. 2021, arXiv 2101.11986), and its small-data version with SPT and LSA.

Instead of cutting the image into patches once, the tokens-to-token module makes tokens step by step. A *soft split*
takes overlapping windows of the image as tokens; a small transformer mixes them; they are laid out as an image again,
and so on:

    x0 = unfold(image),  x1 = unfold(image_of(TokenTransformer(x0))),  ...,  t = Linear(x_last)

Then comes a plain vision transformer on [cls ; t] with a fixed sinusoidal position table.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from minivit import ops
from minivit.errors import UsageError
from minivit.models.base import ImageModel
from minivit.models.config import ImageModelConfig
from minivit.models.registry import register
from minivit.models.transformer import attention_options, transformer_block
from minivit.nn import (
    Attention,
    Buffer,
    Dropout,
    LayerNorm,
    Linear,
    Module,
    Parameter,
    TokenPerformer,
    TokenTransformer,
    drop_path_rates,
    shift_patches,
)
from minivit.nn.init import normal

SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))
"""(kernel, stride, padding) of the soft splits of T2T-ViT."""
SMALL_SPLIT = (3, 2, 1)
"""Those of the small-data version are all alike; there is one for each halving from the image to 8 x 8 tokens."""


@dataclass(frozen=True)
class T2TConfig(ImageModelConfig):
    """Sizes and switches. The defaults are those of the small-data paper for images of 32 or 64 pixels.

    ``small_data`` picks the conventions of that paper's code: soft splits of 3x3 with stride 2 down to about 8 x 8
    tokens, attention in the blocks that adds its own input, t = t + (LN(t) + Attention(LN(t))), and a LayerNorm
    ``tokens_to_token.norm`` that is stored and never used.
    """

    embed_dim: int = 256
    depth: int = 12
    num_heads: int = 4
    mlp_ratio: float = 2.0
    qkv_bias: bool = False
    norm_eps: float = 1e-5
    tokens_type: str = "transformer"  # what mixes tokens between the soft splits, or "performer"
    token_dim: int = 64
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0  # of the last block; it rises from 0 in the first
    small_data: bool = True
    spt: bool = False  # shift the image before the first soft split
    learnable_temperature: bool = False
    mask_diagonal: bool = False

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "embed_dim", "depth", "num_heads", "token_dim")
        self.require_one_of("tokens_type", ("transformer", "performer"))
        self.require_transformer([self.embed_dim], [self.num_heads])
        if self.tokens_type == "performer" and self.token_dim < 2:
            raise UsageError(f"a token performer needs a token_dim of at least 2, got {self.token_dim}")
        if self.tokens_type == "performer" and (self.learnable_temperature or self.mask_diagonal):
            raise UsageError("a token performer has no softmax that LSA could change: take tokens_type transformer")
        for grid in self.grids:
            if min(grid) < 1:
                raise UsageError(f"img_size {self.img_size} is too small for the soft splits")
        if self.mask_diagonal and any(prod(grid) < 2 for grid in self.grids[:-1]):
            raise UsageError("a single token has nothing left when mask_diagonal hides it from itself")

    @property
    def splits(self):
        """(kernel, stride, padding) of each soft split."""
        if not self.small_data:
            return SPLITS
        halvings = max(2, round(np.log2(min(self.image_shape) / 8)))
        return (SMALL_SPLIT,) * halvings

    @property
    def stages(self):
        return [(self.depth, self.embed_dim)]

    def least_weights(self):
        first = self.in_chans * self.splits[0][0] ** 2 * self.token_dim
        return super().least_weights() + prod(self.grids[-1]) * self.embed_dim + first + self.token_dim**2

    @property
    def grids(self):
        """(rows, columns) of tokens after each soft split."""
        grids, size = [], self.image_shape
        for kernel, stride, padding in self.splits:
            size = tuple((side + 2 * padding - kernel) // stride + 1 for side in size)
            grids.append(size)
        return grids


class T2TViT(ImageModel):
    """Images (B, in_chans, height, width) -> logits (B, num_classes).

    Args:
        config: a T2TConfig.
        rng: draws the initial weights. generator: draws masks of dropout and drop path in training.
    """

    fixed_tables = ("pos_embed",)

    def __init__(self, config, *, rng, generator):
        super().__init__(config)
        init, dim = normal(rng, 0.02), config.embed_dim
        self.grid = config.grids[-1]
        self.cls_token = Parameter(init((1, 1, dim)))
        self.pos_embed = Buffer(sinusoids(1 + prod(self.grid), dim))
        self.tokens_to_token = TokensToToken(config, init, rng, generator)
        self.pos_drop = Dropout(config.drop_rate, generator)
        rates = drop_path_rates(config.drop_path_rate, config.depth, "linear")
        self.blocks = [self._block(rate, init, generator) for rate in rates]
        self.norm = LayerNorm(dim, config.norm_eps)
        self.head = Linear(dim, config.num_classes, init=init)

    def _block(self, drop_path, init, generator):
        c = self.config
        attention = (AttentionWithInput if c.small_data else Attention)(
            c.embed_dim, c.num_heads, **attention_options(c, init, generator)
        )
        return transformer_block(c, attention, c.embed_dim, drop_path=drop_path, init=init, rng=generator)

    def forward(self, x):
        return self.head(self.norm(self.forward_features(x))[:, 0])

    def forward_features(self, x):
        """All tokens before the last norm, the class token first: (B, 1 + N, embed_dim)."""
        self.check_images(x)
        cls = ops.broadcast_to(self.cls_token, (x.shape[0], 1, self.config.embed_dim))
        tokens = self.pos_drop(ops.concat([cls, self.tokens_to_token(x)], axis=1) + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class TokensToToken(Module):
    """Images (B, C, height, width) -> tokens (B, N, embed_dim) through soft splits and token transformers."""

    def __init__(self, config, init, rng, generator):
        c = config
        self.config = c
        channels = c.in_chans * (5 if c.spt else 1)
        widths = [channels * c.splits[0][0] ** 2, *(c.token_dim * kernel**2 for kernel, _, _ in c.splits[1:])]
        for i, width in enumerate(widths[:-1]):
            if c.tokens_type == "performer":
                mixer = TokenPerformer(width, c.token_dim, norm_eps=c.norm_eps, init=init, rng=rng, generator=generator)
            else:
                mixer = TokenTransformer(
                    width, c.token_dim,
                    norm_eps=c.norm_eps,
                    learnable_temperature=c.learnable_temperature,
                    diagonal=-np.inf if c.mask_diagonal else None,
                    init=init, rng=generator,
                )  # fmt: skip
            setattr(self, f"attention{i + 1}", mixer)
        self.norm = LayerNorm(widths[-1], c.norm_eps) if c.small_data else None  # stored by the authors, never used
        self.project = Linear(widths[-1], c.embed_dim, init=init)

    def forward(self, x):
        x = shift_patches(x, 2) if self.config.spt else x
        for i, (split, grid) in enumerate(zip(self.config.splits, self.config.grids, strict=True)):
            tokens = soft_split(x, *split)
            if i + 1 < len(self.config.splits):
                tokens = getattr(self, f"attention{i + 1}")(tokens)
                x = tokens.swapaxes(1, 2).reshape(len(tokens), self.config.token_dim, *grid)
        return self.project(tokens)


def soft_split(x, kernel, stride, padding):
    """Overlapping windows as tokens: (B, C, H, W) -> (B, N, C kernel^2), channels slowest, N row by row."""
    return ops.unfold(x, kernel, stride, padding).swapaxes(1, 2)


def sinusoids(positions, dim):
    """Fixed position table (1, positions, dim), float32: sin(p / 10000^(2 floor(j / 2) / dim)) for even j, else cos."""
    j = np.arange(dim)
    angle = np.arange(positions)[:, None] / 10000 ** (2 * (j // 2) / dim)
    return np.where(j % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)[None]


class AttentionWithInput(Attention):
    """Self-attention plus its own input, which is normalised: how the small-data code writes the blocks of T2T-ViT."""

    def forward(self, x):
        return x + super().forward(x)


_SIZES = {  # width, depth, heads, MLP ratio
    "7": (256, 7, 4, 2.0),
    "10": (256, 10, 4, 2.0),
    "12": (256, 12, 4, 2.0),
    "14": (384, 14, 6, 3.0),
    "19": (448, 19, 7, 3.0),
    "24": (512, 24, 8, 3.0),
}


def _register_imagenet():
    for size, (dim, depth, heads, ratio) in _SIZES.items():
        sizes = {"img_size": 224, "num_classes": 1000, "small_data": False, "embed_dim": dim, "depth": depth,
                 "num_heads": heads, "mlp_ratio": ratio}  # fmt: skip
        performer = sizes | {"tokens_type": "performer"}
        register(f"t2t_vit_{size}", T2TViT, T2TConfig, performer, f"T2T-ViT-{size} at 224 pixels, token performer")
        if int(size) >= 14:
            register(f"t2t_vit_t_{size}", T2TViT, T2TConfig, sizes, f"T2T-ViT_t-{size} at 224 pixels")


register("t2t", T2TViT, T2TConfig, {}, "T2T-ViT for small data sets")
_SL = {"spt": True, "learnable_temperature": True, "mask_diagonal": True}
register("sl_t2t", T2TViT, T2TConfig, _SL, "T2T-ViT with SPT and LSA")
_register_imagenet()
