"""BinaryViT, a pyramid of binary transformer blocks (Le & Li 2023, arXiv 2306.16678).

    t = BatchNorm(patch_embed(x)) + pos_embed
    for each stage:  t = downsample(t), except in the first;   t = block(t) for each of its blocks
    logits = Linear(mean of BatchNorm(t))

Between stages the grid is halved, and the width grows:

    binary_vit        t = unit(BatchNorm(t)) + pos_embed             unit: a binary 2x2 convolution and its shortcut
    binary_vit_star   t = BatchNorm(Conv(BatchNorm(t))) + pos_embed  in full precision

Patch embedding and head are in full precision. The early stages take keys and values from fewer tokens.
"""

from dataclasses import dataclass

from minivit.errors import UsageError
from minivit.models import binary_sizes, interop
from minivit.models.base import ImageModel
from minivit.models.config import ImageModelConfig, Ints, OptionalFloat, OptionalInt, Size
from minivit.models.registry import register
from minivit.nn import (
    BinaryAttention,
    BinaryBlock,
    BinaryUnit,
    Conv2d,
    Linear,
    Module,
    Parameter,
    PatchEmbed,
    TokenBatchNorm,
)
from minivit.nn.binary import on_grid
from minivit.nn.init import normal, uniform_fan_in


@dataclass(frozen=True)
class BinaryViTConfig(ImageModelConfig):
    """Sizes; a list has one entry for each stage. What is None or empty follows from ``img_size`` by the rule of
    ``minivit.models.binary_sizes``."""

    img_size: Size = 224
    num_classes: int = 1000
    patch_size: OptionalInt = None
    embed_dims: Ints = ()
    depths: Ints = (3, 4, 8, 4)
    num_heads: Ints = ()
    mlp_ratios: Ints = (8, 8, 4, 4)
    reductions: Ints = ()  # by how much each side of the grid is divided for keys and values
    full_precision_downsampling: bool = False
    att_prob_clip: OptionalFloat = None  # what the level of attention probabilities starts with

    def __post_init__(self):
        self.derive("patch_size", binary_sizes.patch_size(self.image_shape, 16, 4))
        self.derive("embed_dims", tuple(binary_sizes.width(64 << i, self.image_shape) for i in range(len(self.depths))))
        self.derive("num_heads", tuple(binary_sizes.heads(dim) for dim in self.embed_dims))
        super().__post_init__()
        self.require_at_least(1, "patch_size", "embed_dims", "depths", "num_heads", "mlp_ratios", "reductions")
        self.require_same_lengths("embed_dims", "depths", "num_heads", "mlp_ratios")
        self.require_heads(self.embed_dims, self.num_heads)
        unit = self.patch_size << (len(self.depths) - 1)
        if any(side % unit for side in self.image_shape):
            stages = f"patch_size {self.patch_size} and {len(self.depths)} stages"
            raise UsageError(f"img_size must be a multiple of {unit} with {stages}, got {self.img_size}")
        self.derive("reductions", tuple(
            binary_sizes.reduction(grid) if i < len(self.grids) - 2 else 1 for i, grid in enumerate(self.grids)
        ))  # fmt: skip
        self.require_same_lengths("embed_dims", "reductions")
        for (rows, columns), factor in zip(self.grids, self.reductions, strict=True):
            if rows % factor or columns % factor:
                raise UsageError(f"a grid of {rows}x{columns} tokens does not divide by reduction {factor}")
        for before, after in zip(self.embed_dims, self.embed_dims[1:], strict=False):
            if after % before:
                raise UsageError(f"the width of a stage must be a multiple of that before it, got {self.embed_dims}")
        self.derive("att_prob_clip", binary_sizes.att_prob_clip(self.grids[0], 56))
        if not 0 < self.att_prob_clip < 1e3:
            raise UsageError(f"att_prob_clip must be positive and finite, got {self.att_prob_clip}")

    @property
    def grids(self):
        """(rows, columns) of tokens in each stage."""
        return [tuple(side // (self.patch_size << i) for side in self.image_shape) for i in range(len(self.depths))]

    @property
    def stages(self):
        return list(zip(self.depths, self.embed_dims, strict=True))

    def least_weights(self):
        tables = sum(rows * columns * dim for (rows, columns), dim in zip(self.grids, self.embed_dims, strict=True))
        mlp = sum(2 * n * ratio * dim**2 for n, ratio, dim in zip(self.depths, self.mlp_ratios, self.embed_dims))
        return super().least_weights() + mlp + tables + self.in_chans * self.patch_size**2 * self.embed_dims[0]


class BinaryViT(ImageModel):
    """Images (B, in_chans, height, width) -> logits (B, num_classes).

    Blocks are numbered through all stages, as in the authors' code.

    Args:
        config: a BinaryViTConfig.
        rng: draws the initial weights; ``generator`` is not used.
    """

    official_names = (interop.BINARYVIT,)

    def __init__(self, config, *, rng, generator):
        super().__init__(config)
        c, init, table = config, uniform_fan_in(rng), normal(rng, 0.02)
        dims, grids = c.embed_dims, c.grids
        self.grid = grids[0]
        self.patch_embed = PatchEmbed(c.in_chans, dims[0], c.patch_size, init=init)
        self.norm_pre = TokenBatchNorm(dims[0])
        self.pos_embed = Parameter(table((1, grids[0][0] * grids[0][1], dims[0])))
        self.blocks, self.downsamples = [], []
        for i, depth in enumerate(c.depths):
            self.blocks += [self._block(i, init) for _ in range(depth)]
            if i + 1 < len(dims):
                self.downsamples.append(
                    Downsample(
                        dims[i], dims[i + 1], grids[i], binary=not c.full_precision_downsampling, init=init, table=table
                    )
                )
        self.norm = TokenBatchNorm(dims[-1])
        self.head = Linear(dims[-1], c.num_classes, init=init)
        self.positions = {name: 0 for name, _ in self.named_parameters() if name.endswith("pos_embed")}

    def _block(self, stage, init):
        c, dim, grid = self.config, self.config.embed_dims[stage], self.config.grids[stage]
        attention = BinaryAttention(
            dim, c.num_heads[stage], grid=grid, reduction=c.reductions[stage], att_prob_clip=c.att_prob_clip, init=init
        )
        return BinaryBlock(attention, dim, c.mlp_ratios[stage], pooling_grid=grid, init=init)

    def position_grid(self, name):
        return self.grid if name == "pos_embed" else self.config.grids[int(name.split(".")[1]) + 1]

    def forward(self, x):
        return self.head(self.norm(self.forward_features(x)).mean(1))

    def forward_features(self, x):
        """All tokens of the last stage before the last norm: (B, N, embed_dims[-1])."""
        self.check_images(x)
        tokens = self.norm_pre(self.patch_embed(x)) + self.pos_embed
        first = 0
        for i, depth in enumerate(self.config.depths):
            tokens = tokens if i == 0 else self.downsamples[i - 1](tokens)
            for block in self.blocks[first : first + depth]:
                tokens = block(tokens)
            first += depth
        return tokens


class Downsample(Module):
    """A layer that halves the grid, between a BatchNorm and new positions: (B, N, in_dim) -> (B, N / 4, dim).

    Args:
        in_dim, dim: widths, the second a multiple of the first.
        grid: (rows, columns) of the tokens, both even.
        binary: whether the layer is a binary unit, or a convolution in full precision.
        init, table: rules of ``minivit.nn.init`` for weights and positions.
    """

    def __init__(self, in_dim, dim, grid, *, binary, init, table):
        self.norm0 = TokenBatchNorm(in_dim)
        self.unit = BinaryUnit(in_dim, dim, grid=grid, init=init) if binary else ConvUnit(in_dim, dim, grid, init=init)
        self.pos_embed = Parameter(table((1, grid[0] * grid[1] // 4, dim)))

    def forward(self, x):
        return self.unit(self.norm0(x)) + self.pos_embed


class ConvUnit(Module):
    """BatchNorm of a 2x2 convolution of stride 2, without bias: (B, N, in_dim) -> (B, N / 4, dim) on half the grid."""

    def __init__(self, in_dim, dim, grid, *, init):
        self.grid = grid
        self.layer = Conv2d(in_dim, dim, 2, stride=2, bias=False, init=init)
        self.norm = TokenBatchNorm(dim)

    def forward(self, x):
        return self.norm(on_grid(self.layer, x, self.grid))


register("binary_vit", BinaryViT, BinaryViTConfig, {}, "BinaryViT, a pyramid of binary transformer blocks")
register(
    "binary_vit_star", BinaryViT, BinaryViTConfig, {"full_precision_downsampling": True},
    "BinaryViT with full-precision down-sampling",
)  # fmt: skip
