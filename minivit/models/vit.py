"""ViT for small data sets, and its SPT and LSA variants (Lee, Lee & Song 2021, arXiv 2112.13492).

    t = [cls ; patch_embed(x)] + pos_embed
    for each block:  t = t + Attention(LN(t)),  t = t + MLP(LN(t))
    logits = Linear(LN(t[:, 0]))

The six models are one architecture with three switches:

    model    spt  learnable_temperature  mask_diagonal
    vit       -             -                  -
    t_vit     -             x                  -
    m_vit     -             -                  x
    l_vit     -             x                  x        (LSA)
    s_vit     x             -                  -        (SPT)
    sl_vit    x             x                  x
"""

from dataclasses import dataclass

from minivit import ops
from minivit.errors import UsageError
from minivit.models.registry import register
from minivit.nn import (
    Attention,
    Block,
    Dropout,
    LayerNorm,
    Linear,
    Mlp,
    Module,
    Parameter,
    PatchEmbed,
    ShiftedPatchTokenization,
)
from minivit.nn.init import standard_normal, xavier_normal


@dataclass(frozen=True)
class ViTConfig:
    """Sizes and switches. The defaults are the paper's for images of 32 or 64 pixels."""

    img_size: int = 32
    patch_size: int = 0  # 0: img_size / 8, which gives the paper's 4 at 32 pixels and 8 at 64
    in_chans: int = 3
    num_classes: int = 100
    embed_dim: int = 192
    depth: int = 9
    num_heads: int = 12
    mlp_ratio: float = 2.0
    qkv_bias: bool = False
    norm_eps: float = 1e-5
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0  # the same in every block
    spt: bool = False
    learnable_temperature: bool = False
    mask_diagonal: bool = False

    def __post_init__(self):
        if self.patch_size == 0:
            object.__setattr__(self, "patch_size", max(1, self.img_size // 8))
        for name in ("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("drop_rate", "attn_drop_rate", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.img_size % self.patch_size:
            raise UsageError(f"img_size {self.img_size} does not divide into patches of {self.patch_size}")
        if self.embed_dim % self.num_heads:
            raise UsageError(f"embed_dim {self.embed_dim} does not divide into {self.num_heads} heads")
        if not 0 < self.mlp_ratio < 1e3 or int(self.embed_dim * self.mlp_ratio) < 1:
            raise UsageError(f"mlp_ratio {self.mlp_ratio} leaves the MLP no sensible width")
        if not 0 < self.norm_eps < 1:
            raise UsageError(f"norm_eps must lie in (0, 1), got {self.norm_eps}")


class VisionTransformer(Module):
    """Images (B, in_chans, img_size, img_size) -> logits (B, num_classes).

    Args:
        config: a ViTConfig.
        rng: draws the initial weights. generator: draws masks of dropout and drop path in training.
    """

    def __init__(self, config, *, rng, generator):
        init, normal = xavier_normal(rng), standard_normal(rng)
        dim = config.embed_dim
        self.config = config
        self.cls_token = Parameter(normal((1, 1, dim)))
        tokens = (config.img_size // config.patch_size) ** 2
        self.pos_embed = Parameter(normal((1, 1 + tokens, dim)))
        if config.spt:
            self.patch_embed = ShiftedPatchTokenization(
                config.in_chans, dim, config.patch_size, norm_eps=config.norm_eps, init=init
            )
        else:
            self.patch_embed = PatchEmbed(config.in_chans, dim, config.patch_size, init=init)
        self.pos_drop = Dropout(config.drop_rate, generator)
        self.blocks = [self._block(init, generator) for _ in range(config.depth)]
        self.norm = LayerNorm(dim, config.norm_eps)
        self.head = Linear(dim, config.num_classes, init=init)

    def _block(self, init, generator):
        c = self.config
        attention = Attention(
            c.embed_dim,
            c.num_heads,
            qkv_bias=c.qkv_bias,
            proj=c.num_heads > 1,  # the authors leave the output layer out when there are no heads to mix
            learnable_temperature=c.learnable_temperature,
            mask_diagonal=c.mask_diagonal,
            attn_drop=c.attn_drop_rate,
            proj_drop=c.drop_rate,
            init=init,
            rng=generator,
        )
        mlp = Mlp(c.embed_dim, int(c.embed_dim * c.mlp_ratio), drop=c.drop_rate, init=init, rng=generator)
        return Block(attention, mlp, c.embed_dim, norm_eps=c.norm_eps, drop_path=c.drop_path_rate, rng=generator)

    def forward(self, x):
        return self.head(self.forward_features(x)[:, 0])

    def forward_features(self, x):
        """All tokens after the last norm, the class token first: (B, 1 + N, embed_dim)."""
        expected = (self.config.in_chans, self.config.img_size, self.config.img_size)
        name, dtype = type(self).__name__, self.pos_embed.dtype
        if len(x.shape) != 4 or x.shape[1:] != expected:
            raise ValueError(f"{name}: expected images of shape {('B', *expected)}, got {x.shape}")
        if x.dtype != dtype:
            raise TypeError(f"{name}: expected {dtype} images, like its parameters, got {x.dtype}")
        tokens = self.patch_embed(x)
        cls = ops.broadcast_to(self.cls_token, (x.shape[0], 1, self.config.embed_dim))
        tokens = self.pos_drop(ops.concat([cls, tokens], axis=1) + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


def _register_variants():
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


_register_variants()
