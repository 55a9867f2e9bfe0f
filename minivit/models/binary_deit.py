"""Binary DeiT-S, the flat network from which BinaryViT is built up rung by rung (Le & Li 2023, arXiv 2306.16678).

    t = patch_embed(x) + pos_embed;   t = block(t) for each block;   logits = Linear(mean of BatchNorm(t))

    rung  name                   class_token  pooling_branches  affine
    0     binary_deit_cls             x              -             -      ReActNet-style DeiT-S, the baseline
    1     binary_deit_gap             -              -             -      + global average pooling
    2     binary_deit_branches        -              x             -      + pooling branches
    3     binary_deit_affine          -              x             x      + affine layers

``binary_deit`` is the last. With a class token the head sees that one, else the mean of all. Patch embedding and head
are in full precision.
"""

from dataclasses import dataclass

from minivit import ops
from minivit.errors import UsageError
from minivit.models import binary_sizes, interop
from minivit.models.base import ImageModel
from minivit.models.config import ImageModelConfig, OptionalFloat, OptionalInt, Size
from minivit.models.registry import register
from minivit.nn import BinaryAttention, BinaryBlock, Linear, Parameter, PatchEmbed, TokenBatchNorm
from minivit.nn.init import normal, uniform_fan_in


@dataclass(frozen=True)
class BinaryDeiTConfig(ImageModelConfig):
    """Sizes and rungs. What is None follows from ``img_size`` by the rule of ``minivit.models.binary_sizes``."""

    img_size: Size = 224
    num_classes: int = 1000
    patch_size: OptionalInt = None
    embed_dim: OptionalInt = None
    depth: int = 12
    num_heads: OptionalInt = None
    mlp_ratio: int = 4
    class_token: bool = False
    pooling_branches: bool = True
    affine: bool = True
    att_prob_clip: OptionalFloat = None  # what the level of attention probabilities starts with

    def __post_init__(self):
        self.derive("patch_size", binary_sizes.patch_size(self.image_shape, 8, 16))
        self.derive("embed_dim", binary_sizes.width(384, self.image_shape))
        self.derive("num_heads", binary_sizes.heads(self.embed_dim))
        super().__post_init__()
        self.require_at_least(1, "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
        self.require_heads([self.embed_dim], [self.num_heads])
        self.require_patches(self.patch_size)
        self.derive("att_prob_clip", binary_sizes.att_prob_clip(self.grid, 14))
        if not 0 < self.att_prob_clip < 1e3:
            raise UsageError(f"att_prob_clip must be positive and finite, got {self.att_prob_clip}")
        if self.class_token and self.pooling_branches:
            raise UsageError("class_token and pooling_branches exclude each other: pooling needs tokens on a grid")

    @property
    def grid(self):
        """(rows, columns) of patches."""
        return tuple(side // self.patch_size for side in self.image_shape)

    @property
    def stages(self):
        return [(self.depth, self.embed_dim)]

    def least_weights(self):
        patch, tokens = self.in_chans * self.patch_size**2, self.grid[0] * self.grid[1]
        mlp = 2 * self.depth * self.mlp_ratio * self.embed_dim**2
        return super().least_weights() + mlp + (patch + tokens) * self.embed_dim


class BinaryDeiT(ImageModel):
    """Images (B, in_chans, height, width) -> logits (B, num_classes).

    Args:
        config: a BinaryDeiTConfig.
        rng: draws the initial weights; ``generator`` is not used.
    """

    official_names = (interop.BINARYVIT,)

    def __init__(self, config, *, rng, generator):
        super().__init__(config)
        c, init, table = config, uniform_fan_in(rng), normal(rng, 0.02)
        self.grid = c.grid
        prefix = int(c.class_token)
        self.positions = {"pos_embed": prefix}
        self.cls_token = Parameter(normal(rng, 1e-6)((1, 1, c.embed_dim))) if c.class_token else None
        self.pos_embed = Parameter(table((1, prefix + self.grid[0] * self.grid[1], c.embed_dim)))
        self.patch_embed = PatchEmbed(c.in_chans, c.embed_dim, c.patch_size, init=init)
        self.blocks = [self._block(init) for _ in range(c.depth)]
        self.norm = TokenBatchNorm(c.embed_dim)
        self.head = Linear(c.embed_dim, c.num_classes, init=init)

    def _block(self, init):
        c = self.config
        attention = BinaryAttention(c.embed_dim, c.num_heads, att_prob_clip=c.att_prob_clip, init=init)
        grid = self.grid if c.pooling_branches else None
        return BinaryBlock(attention, c.embed_dim, c.mlp_ratio, affine=c.affine, pooling_grid=grid, init=init)

    def forward(self, x):
        tokens = self.norm(self.forward_features(x))
        return self.head(tokens.mean(1) if self.cls_token is None else tokens[:, 0])

    def forward_features(self, x):
        """All tokens before the last norm, the class token first if there is one: (B, N, embed_dim)."""
        self.check_images(x)
        tokens = self.patch_embed(x)
        if self.cls_token is not None:
            cls = ops.broadcast_to(self.cls_token, (x.shape[0], 1, self.config.embed_dim))
            tokens = ops.concat([cls, tokens], axis=1)
        tokens = tokens + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


_RUNGS = {
    "binary_deit_cls": ("class token", {"class_token": True, "pooling_branches": False, "affine": False}),
    "binary_deit_gap": ("global average pooling", {"pooling_branches": False, "affine": False}),
    "binary_deit_branches": ("pooling branches", {"affine": False}),
    "binary_deit_affine": ("pooling branches and affine layers", {}),
}
register("binary_deit", BinaryDeiT, BinaryDeiTConfig, {}, "Binary DeiT-S, its rungs as options")
for _name, (_what, _rung) in _RUNGS.items():
    register(_name, BinaryDeiT, BinaryDeiTConfig, _rung, f"Binary DeiT-S with {_what}")
