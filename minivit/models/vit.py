"""Vision Transformers: ViT, DeiT, and the small-data family with SPT and LSA.

    t = [cls ; patch_embed(x)] + pos_embed                       (Dosovitskiy et al. 2020, arXiv 2010.11929)
    for each block:  t = t + Attention(LN(t)),  t = t + MLP(LN(t))
    logits = Linear(LN(t[:, 0]))

**DeiT** (Touvron et al. 2020, arXiv 2012.12877) is the same network. Distilled, it has a second token with a head of
its own, which learns from a teacher: t = [cls ; dist ; patch_embed(x)] + pos_embed.

**Small data sets** (Lee, Lee & Song 2021, arXiv 2112.13492): six models, one architecture with three switches:

    model    spt  learnable_temperature  mask_diagonal
    vit       -             -                  -
    t_vit     -             x                  -
    m_vit     -             -                  x
    l_vit     -             x                  x        (LSA)
    s_vit     x             -                  -        (SPT)
    sl_vit    x             x                  x
"""

from dataclasses import dataclass
from math import prod

from minivit import ops
from minivit.models import interop
from minivit.models.base import ImageModel
from minivit.models.config import ImageModelConfig, OptionalFloat, OptionalInt
from minivit.models.heads import check_eval_heads, join_heads
from minivit.models.registry import register
from minivit.models.transformer import attention_options, patch_embedding, transformer_block
from minivit.nn import Attention, Dropout, LayerNorm, Linear, Parameter, drop_path_rates
from minivit.nn.init import normal, uniform_fan_in, xavier_normal


@dataclass(frozen=True)
class ViTConfig(ImageModelConfig):
    """Sizes and switches. The defaults are those of the small-data paper for images of 32 or 64 pixels.

    ``small_data`` picks the conventions of that paper's code: all weights Xavier-normal, tokens and positions normal
    with standard deviation 1, no output layer after a single head, and one rate of stochastic depth for all blocks.
    Without it they are DeiT's: weights, tokens and positions normal with standard deviation 0.02, the patch embedding
    uniform, and a rate that rises from 0 in the first block to ``drop_path_rate`` in the last.
    """

    patch_size: OptionalInt = None  # None: img_size / 8, which gives the paper's 4 at 32 pixels and 8 at 64
    embed_dim: int = 192
    depth: int = 9
    num_heads: int = 12
    mlp_ratio: float = 2.0
    qkv_bias: bool = False
    norm_eps: float = 1e-5
    gelu: str = "exact"  # or "tanh", the approximation in the network that gave the AugReg weights (arXiv 2106.10270)
    init_values: OptionalFloat = None  # what LayerScale starts with; None: no LayerScale
    distilled: bool = False
    eval_heads: str = "mean"  # how the two heads of a distilled model answer in evaluation
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    small_data: bool = True
    spt: bool = False
    learnable_temperature: bool = False
    mask_diagonal: bool = False

    def __post_init__(self):
        if self.patch_size is None:
            object.__setattr__(self, "patch_size", max(1, min(self.image_shape) // 8))
        super().__post_init__()
        self.require_at_least(1, "patch_size", "embed_dim", "depth", "num_heads")
        self.require_one_of("gelu", ("exact", "tanh"))
        self.require_layer_scale()
        check_eval_heads(self)
        self.require_transformer([self.embed_dim], [self.num_heads], self.patch_size)

    @property
    def stages(self):
        return [(self.depth, self.embed_dim)]

    def least_weights(self):
        patch, tokens = self.in_chans * self.patch_size**2, prod(self.image_shape) // self.patch_size**2
        return super().least_weights() + (patch + tokens) * self.embed_dim


class VisionTransformer(ImageModel):
    """Images (B, in_chans, height, width) -> logits (B, num_classes).

    A distilled model returns in training a pair: the logits of the class head, and those of the distillation head.
    In evaluation it answers as ``config.eval_heads`` says (see ``minivit.models.heads``).

    Args:
        config: a ViTConfig.
        rng: draws the initial weights. generator: draws masks of dropout and drop path in training.
    """

    official_names = (interop.SPT_LSA_VIT, interop.BINARYVIT_DEIT, interop.TIMM_LAYER_SCALE)
    timm_names = interop.TIMM_LAYER_SCALE

    def __init__(self, config, *, rng, generator):
        super().__init__(config)
        init = xavier_normal(rng) if config.small_data else normal(rng, 0.02)
        table = normal(rng, 1.0 if config.small_data else 0.02)
        dim = config.embed_dim
        self.grid = tuple(side // config.patch_size for side in config.image_shape)
        prefix = 2 if config.distilled else 1
        self.positions = {"pos_embed": prefix}
        self.cls_token = Parameter(table((1, 1, dim)))
        self.dist_token = Parameter(table((1, 1, dim))) if config.distilled else None
        self.pos_embed = Parameter(table((1, prefix + self.grid[0] * self.grid[1], dim)))
        self.patch_embed = patch_embedding(config, init if config.small_data else uniform_fan_in(rng))
        self.pos_drop = Dropout(config.drop_rate, generator)
        rates = drop_path_rates(config.drop_path_rate, config.depth, "constant" if config.small_data else "linear")
        self.blocks = [self._block(rate, init, generator) for rate in rates]
        self.norm = LayerNorm(dim, config.norm_eps)
        self.head = Linear(dim, config.num_classes, init=init)
        self.head_dist = Linear(dim, config.num_classes, init=init) if config.distilled else None

    def _block(self, drop_path, init, generator):
        c = self.config
        attention = Attention(
            c.embed_dim, c.num_heads, proj=c.num_heads > 1 or not c.small_data, **attention_options(c, init, generator)
        )
        return transformer_block(
            c, attention, c.embed_dim,
            drop_path=drop_path, layer_scale=c.init_values, gelu=c.gelu, init=init, rng=generator,
        )  # fmt: skip

    def forward(self, x):
        tokens = self.norm(self.forward_features(x)[:, : 2 if self.config.distilled else 1])
        logits = self.head(tokens[:, 0])
        if self.head_dist is None:
            return logits
        return join_heads(logits, self.head_dist(tokens[:, 1]), self.training, self.config.eval_heads)

    def forward_features(self, x):
        """All tokens before the last norm, class token(s) first: (B, 1 + N, embed_dim), or (B, 2 + N, embed_dim)."""
        self.check_images(x)
        prefix = [self.cls_token] if self.dist_token is None else [self.cls_token, self.dist_token]
        prefix = [ops.broadcast_to(token, (x.shape[0], 1, self.config.embed_dim)) for token in prefix]
        tokens = self.pos_drop(ops.concat([*prefix, self.patch_embed(x)], axis=1) + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


def _register_small_data():
    lsa = {"learnable_temperature": True, "mask_diagonal": True}
    variants = {
        "vit": ("ViT for small data sets", {}),
        "t_vit": ("ViT with learnable temperature", {"learnable_temperature": True}),
        "m_vit": ("ViT with diagonal masking", {"mask_diagonal": True}),
        "l_vit": ("ViT with Locality Self-Attention (both)", lsa),
        "s_vit": ("ViT with Shifted Patch Tokenization", {"spt": True}),
        "sl_vit": ("ViT with SPT and LSA", {"spt": True, **lsa}),
    }
    for name, (description, switches) in variants.items():
        register(name, VisionTransformer, ViTConfig, switches, description)


_IMAGENET = {"num_classes": 1000, "mlp_ratio": 4.0, "qkv_bias": True, "norm_eps": 1e-6, "small_data": False}
_SIZES = {  # width, depth, heads
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}


def _register_imagenet():
    vits = [("tiny", 16, 224), ("tiny", 16, 384), ("small", 32, 224), ("small", 32, 384), ("small", 16, 224),
            ("small", 16, 384), ("base", 32, 224), ("base", 32, 384), ("base", 16, 224), ("base", 16, 384),
            ("base", 8, 224), ("large", 32, 384), ("large", 16, 224), ("large", 16, 384)]  # fmt: skip
    for size, patch, image in vits:
        sizes = {**_IMAGENET, **_SIZES[size], "patch_size": patch, "img_size": image}
        description = f"ViT-{size.capitalize()}/{patch} at {image} pixels"
        register(f"vit_{size}_patch{patch}_{image}", VisionTransformer, ViTConfig, sizes, description)
    for size, image in (("tiny", 224), ("small", 224), ("base", 224), ("base", 384)):
        sizes = {**_IMAGENET, **_SIZES[size], "patch_size": 16, "img_size": image}
        description = f"DeiT-{size.capitalize()} at {image} pixels"
        register(f"deit_{size}_patch16_{image}", VisionTransformer, ViTConfig, sizes, description)
        register(
            f"deit_{size}_distilled_patch16_{image}", VisionTransformer, ViTConfig, sizes | {"distilled": True},
            description + ", with a distillation token",
        )  # fmt: skip


_register_small_data()
_register_imagenet()
