"""CaiT (Touvron et al. 2021, arXiv 2103.17239), and the small-data version of it with SPT and LSA.

Two stages. The patch tokens x attend to each other, without a class token; then a class token c looks at them in a few
blocks of class attention, where the patch tokens stay as they are:

    x = patch_embed(image) + pos_embed
    L times:   x = x + gamma_1 TalkingHeadsAttention(LN(x)),    x = x + gamma_2 MLP(LN(x))
    L_c times: c = c + gamma_1 ClassAttention(LN([c ; x])),     c = c + gamma_2 MLP(LN(c))
    logits = Linear(LN(c))
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from minivit import ops
from minivit.errors import UsageError
from minivit.models import interop
from minivit.models.base import ImageModel
from minivit.models.config import ImageModelConfig, OptionalFloat, OptionalInt
from minivit.models.registry import register
from minivit.models.transformer import patch_embedding, transformer_block
from minivit.nn import (
    Attention,
    ClassAttention,
    ClassBlock,
    Dropout,
    LayerNorm,
    Linear,
    Mlp,
    Parameter,
)
from minivit.nn.init import normal, uniform_fan_in, xavier_normal


@dataclass(frozen=True)
class CaiTConfig(ImageModelConfig):
    """Sizes and switches. The defaults are those of the small-data paper for images of 32 or 64 pixels.

    ``small_data`` picks the conventions of that paper's code, which differ from the original in five ways: in the class
    blocks, keys and values come from the patch tokens alone, without LayerNorm, and heads talk and branches are dropped
    as in the other blocks; the mixing of heads has no bias, and starts standard normal; weights start Xavier-normal,
    tokens and positions standard normal. Without it, weights, tokens and positions start with standard deviation 0.02
    and the patch embedding uniform.

    ``diagonal`` says what the LSA of the small-data version does with a token's score for itself: "published" sets it
    to -1e-9 before the heads are mixed, which is about 0 and no mask at all, but is what the published code does;
    "masked" gives each token the weight 0 for itself, right before the softmax; "none" leaves the scores alone.
    """

    patch_size: OptionalInt = None  # None: img_size / 8, which gives the paper's 4 at 32 pixels and 8 at 64
    embed_dim: int = 192
    depth: int = 24  # blocks of self-attention
    depth_token_only: int = 2  # blocks of class attention
    num_heads: int = 4
    head_dim: OptionalInt = None  # None: embed_dim / num_heads
    mlp_ratio: float = 2.0
    mlp_ratio_token_only: OptionalFloat = None  # in the class blocks; None: mlp_ratio
    qkv_bias: bool = False
    norm_eps: float = 1e-5
    init_values: OptionalFloat = None  # what LayerScale starts with; None: by layer_scale_init
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0  # the same in every block
    small_data: bool = True
    spt: bool = False
    learnable_temperature: bool = False
    diagonal: str = "none"

    def __post_init__(self):
        if self.patch_size is None:
            object.__setattr__(self, "patch_size", max(1, min(self.image_shape) // 8))
        super().__post_init__()
        self.require_at_least(1, "patch_size", "embed_dim", "depth", "num_heads")
        self.require_at_least(0, "depth_token_only")
        self.require_one_of("diagonal", ("none", "published", "masked"))
        self.require_layer_scale()
        if self.mlp_ratio_token_only is None:
            object.__setattr__(self, "mlp_ratio_token_only", self.mlp_ratio)
        if self.head_dim is None:
            self.require_heads([self.embed_dim], [self.num_heads])
            object.__setattr__(self, "head_dim", self.embed_dim // self.num_heads)
        self.require_at_least(1, "head_dim")
        self.require_transformer([self.embed_dim], [1], self.patch_size)
        if not 0 < self.mlp_ratio_token_only < 1e3 or int(self.embed_dim * self.mlp_ratio_token_only) < 1:
            raise UsageError(f"mlp_ratio_token_only {self.mlp_ratio_token_only} leaves the MLP no sensible width")
        if self.diagonal == "masked" and prod(self.image_shape) // self.patch_size**2 < 2:
            raise UsageError("a single patch has nothing left when diagonal 'masked' hides it from itself")

    @property
    def stages(self):
        return [(self.depth + self.depth_token_only, self.embed_dim)]

    def least_weights(self):
        patch, tokens = self.in_chans * self.patch_size**2, prod(self.image_shape) // self.patch_size**2
        inner = self.depth * self.num_heads * self.head_dim
        return super().least_weights() + (patch + tokens + inner) * self.embed_dim


def layer_scale_init(number):
    """What LayerScale (gamma) starts with in block ``number``, from 1: 0.1 up to 18, 1e-5 up to 24, then 1e-6.

    In the paper a network of that depth starts so in all blocks; the small-data code starts each block by its number.
    """
    return 0.1 if number <= 18 else 1e-5 if number <= 24 else 1e-6


def head_mixing(config, init):
    """Function that makes a layer (..., H) -> (..., H) for talking heads."""
    heads = config.num_heads
    return lambda: Linear(heads, heads, bias=not config.small_data, init=init)


def draw_like_authors(attention, init):
    """Draw weights anew as the small-data code does: one layer for queries, and one for keys and values together.

    Xavier's rule looks at the number of outputs, so it matters which of them are taken as one layer.
    """
    if isinstance(attention, ClassAttention):
        keys_and_values = init((2 * len(attention.k.weight), attention.k.weight.shape[1]))
        attention.k.weight.data, attention.v.weight.data = np.split(keys_and_values, 2)
    else:
        three, dim = attention.qkv.weight.shape
        attention.qkv.weight.data = np.concatenate([init((three // 3, dim)), init((three // 3 * 2, dim))])


class CaiT(ImageModel):
    """Images (B, in_chans, height, width) -> logits (B, num_classes).

    Args:
        config: a CaiTConfig.
        rng: draws the initial weights. generator: draws masks of dropout and drop path in training.
    """

    official_names = (interop.SPT_LSA_CAIT,)
    positions = {"pos_embed": 0}

    def __init__(self, config, *, rng, generator):
        super().__init__(config)
        c = config
        init = xavier_normal(rng) if c.small_data else normal(rng, 0.02)
        table = normal(rng, 1.0 if c.small_data else 0.02)
        self.grid = tuple(side // c.patch_size for side in c.image_shape)
        self.cls_token = Parameter(table((1, 1, c.embed_dim)))
        self.pos_embed = Parameter(table((1, self.grid[0] * self.grid[1], c.embed_dim)))
        self.patch_embed = patch_embedding(c, init if c.small_data else uniform_fan_in(rng))
        self.pos_drop = Dropout(c.drop_rate, generator)
        parts = {"mixing": head_mixing(c, table), "init": init, "rng": generator}
        self.blocks = [self._block(i + 1, **parts) for i in range(c.depth)]
        self.blocks_token_only = [self._class_block(**parts) for _ in range(c.depth_token_only)]
        self.norm = LayerNorm(c.embed_dim, c.norm_eps)
        self.head = Linear(c.embed_dim, c.num_classes, init=init)

    def _block(self, number, *, mixing, init, rng):
        c = self.config
        attention = Attention(
            c.embed_dim,
            c.num_heads,
            diagonal=-1e-9 if c.diagonal == "published" else None,
            mask_after_mixing=c.diagonal == "masked",
            talking_heads=mixing,
            attn_drop=c.attn_drop_rate,
            proj_drop=c.drop_rate,
            **self._attention_options(init, rng),
        )
        if c.small_data:
            draw_like_authors(attention, init)
        scale = self._layer_scale(number if c.small_data else c.depth)
        return transformer_block(
            c, attention, c.embed_dim, drop_path=c.drop_path_rate, layer_scale=scale, init=init, rng=rng
        )

    def _class_block(self, *, mixing, init, rng):
        c = self.config
        noise = 1.0 if c.small_data else 0.0  # the original drops nothing in these blocks
        attention = ClassAttention(
            c.embed_dim,
            c.num_heads,
            talking_heads=mixing if c.small_data else None,
            attn_drop=noise * c.attn_drop_rate,
            proj_drop=noise * c.drop_rate,
            **self._attention_options(init, rng),
        )
        if c.small_data:
            draw_like_authors(attention, init)
        scale = self._layer_scale(1 if c.small_data else c.depth)
        mlp = Mlp(c.embed_dim, int(c.embed_dim * c.mlp_ratio_token_only), drop=noise * c.drop_rate, init=init, rng=rng)
        return ClassBlock(
            attention, mlp, c.embed_dim,
            norm_context=not c.small_data, norm_eps=c.norm_eps, layer_scale=scale,
            drop_path=noise * c.drop_path_rate, rng=rng,
        )  # fmt: skip

    def _layer_scale(self, number):
        given = self.config.init_values
        return layer_scale_init(number) if given is None else given

    def _attention_options(self, init, rng):
        c = self.config
        single = c.num_heads == 1 and c.head_dim == c.embed_dim  # has no output layer in the small-data code
        return {
            "head_dim": c.head_dim,
            "qkv_bias": c.qkv_bias,
            "proj": not (c.small_data and single),
            "learnable_temperature": c.learnable_temperature,
            "init": init,
            "rng": rng,
        }

    def forward(self, x):
        return self.head(self.norm(self.forward_features(x)[0][:, 0]))

    def forward_features(self, x):
        """The class token (B, 1, embed_dim) and the patch tokens (B, N, embed_dim), before the last norm."""
        self.check_images(x)
        patches = self.pos_drop(self.patch_embed(x) + self.pos_embed)
        for block in self.blocks:
            patches = block(patches)
        cls = ops.broadcast_to(self.cls_token, (x.shape[0], 1, self.config.embed_dim))
        for block in self.blocks_token_only:
            cls = block(cls, patches)
        return cls, patches


_SIZES = {  # width, heads, and the depths with what LayerScale starts with: the official code's, else the paper's rule
    "xxs": (192, 4, {24: 1e-5, 36: 1e-5}),
    "xs": (288, 6, {24: 1e-5, 36: 1e-6}),
    "s": (384, 8, {24: 1e-5, 36: 1e-6, 48: 1e-6}),
    "m": (768, 16, {24: 1e-5, 36: 1e-6, 48: 1e-6}),
}


def _register_imagenet():
    shared = {"patch_size": 16, "num_classes": 1000, "mlp_ratio": 4.0, "mlp_ratio_token_only": 4.0, "qkv_bias": True,
              "norm_eps": 1e-6, "small_data": False}  # fmt: skip
    for size, (dim, heads, depths) in _SIZES.items():
        for depth, init_values in depths.items():
            for image in (224, 384, 448) if (size, depth) == ("m", 48) else (224, 384):
                sizes = {"img_size": image, "embed_dim": dim, "num_heads": heads, "depth": depth}
                register(
                    f"cait_{size}{depth}_{image}", CaiT, CaiTConfig, {**shared, **sizes, "init_values": init_values},
                    f"CaiT-{size.upper()}-{depth} at {image} pixels",
                )  # fmt: skip


_SMALL = {"head_dim": 64}
_LSA = {"learnable_temperature": True, "diagonal": "published"}
register("cait", CaiT, CaiTConfig, _SMALL, "CaiT for small data sets")
register("sl_cait", CaiT, CaiTConfig, {**_SMALL, "spt": True, **_LSA}, "CaiT with SPT and LSA")
_register_imagenet()
