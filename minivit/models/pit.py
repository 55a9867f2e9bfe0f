"""PiT, the pooling-based vision transformer (Heo et al. 2021, arXiv 2103.16302), and its small-data version.

Stages of transformer blocks with a pooling between them that halves the grid of tokens and widens the tokens:

    patches through a depth-wise 3x3 convolution of stride 2, class token(s) through a linear layer

With SPT (Lee, Lee & Song 2021, arXiv 2112.13492) both patch embedding and pooling are shifted patch tokenizations.
"""

from dataclasses import dataclass
from math import prod

from minivit import ops
from minivit.errors import UsageError
from minivit.models import interop
from minivit.models.base import ImageModel
from minivit.models.config import ImageModelConfig, Ints, OptionalInt
from minivit.models.heads import check_eval_heads, join_heads
from minivit.models.registry import register
from minivit.models.transformer import attention_options, transformer_block
from minivit.nn import (
    Attention,
    Conv2d,
    Dropout,
    LayerNorm,
    Linear,
    Module,
    Parameter,
    ShiftedPatchPool,
    ShiftedPatchTokenization,
    drop_path_rates,
)
from minivit.nn.init import normal, uniform_fan_in, xavier_normal


@dataclass(frozen=True)
class PiTConfig(ImageModelConfig):
    """Sizes and switches; a list has one entry for each stage. The defaults are the small-data paper's.

    ``small_data`` picks the conventions of that paper's code: positions for the class token too, a 1x1 convolution
    after each pooling, no output layer after a single head, one rate of stochastic depth for all blocks, weights
    Xavier-normal, tokens and positions standard normal. Without it the weights are uniform as in PyTorch's layers,
    tokens and positions have standard deviation 0.02, and the rate rises from 0 to ``drop_path_rate``.
    """

    patch_size: OptionalInt = None  # None: img_size / 16, which gives the paper's 2 at 32 pixels and 4 at 64
    stride: OptionalInt = None  # from patch to patch; None: patch_size, so that patches do not overlap
    base_dims: Ints = (48, 48, 48)  # width of a head; stage i has width base_dims[i] * heads[i]
    depth: Ints = (2, 6, 4)
    heads: Ints = (2, 4, 8)
    mlp_ratio: float = 2.0
    qkv_bias: bool = False
    norm_eps: float = 1e-5
    distilled: bool = False
    eval_heads: str = "mean"  # how the two heads of a distilled model answer in evaluation
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    small_data: bool = True
    spt: bool = False  # at the embedding
    spt_pool: bool = False  # in the poolings
    learnable_temperature: bool = False
    mask_diagonal: bool = False

    def __post_init__(self):
        if self.patch_size is None:
            object.__setattr__(self, "patch_size", max(1, min(self.image_shape) // 16))
        if self.stride is None:
            object.__setattr__(self, "stride", self.patch_size)
        super().__post_init__()
        self.require_at_least(1, "patch_size", "stride", "base_dims", "depth", "heads")
        self.require_same_lengths("base_dims", "depth", "heads")
        check_eval_heads(self)
        self.require_transformer(self.dims, self.heads, self.patch_size if self.spt else 1)
        if min(self.image_shape) < self.patch_size:
            raise UsageError(f"img_size {self.img_size} is smaller than a patch of {self.patch_size}")
        if self.spt and self.stride != self.patch_size or (self.spt or self.spt_pool) and self.distilled:
            raise UsageError("SPT takes patches that do not overlap, stride None, and one class token, distilled False")
        for before, after in zip(self.dims, self.dims[1:], strict=False):
            if after % before:
                raise UsageError(f"the width of a stage must be a multiple of that before it, got {self.dims}")
        for rows, columns in self.grids[:-1]:
            if self.spt_pool and (rows % 2 or columns % 2):
                raise UsageError(f"img_size {self.img_size} gives a grid of {rows}x{columns} patches, not to be halved")

    @property
    def dims(self):
        """Width of the tokens in each stage."""
        return tuple(base * heads for base, heads in zip(self.base_dims, self.heads, strict=True))

    @property
    def stages(self):
        return list(zip(self.depth, self.dims, strict=True))

    def least_weights(self):
        return super().least_weights() + (self.in_chans * self.patch_size**2 + prod(self.grids[0])) * self.dims[0]

    @property
    def grids(self):
        """(rows, columns) of patch tokens in each stage."""
        sides = [[(side - self.patch_size) // self.stride + 1] for side in self.image_shape]
        for side in sides:
            for _ in self.depth[1:]:
                side.append((side[-1] - 1) // 2 + 1)
        return list(zip(*sides, strict=True))


class PoolingTransformer(ImageModel):
    """Images (B, in_chans, height, width) -> logits (B, num_classes).

    A distilled model returns in training a pair, as ``minivit.models.vit.VisionTransformer`` does.

    Args:
        config: a PiTConfig.
        rng: draws the initial weights. generator: draws masks of dropout and drop path in training.
    """

    official_names = (interop.SPT_LSA_PIT, interop.POOLS_PIT)

    def __init__(self, config, *, rng, generator):
        super().__init__(config)
        c = config
        init = xavier_normal(rng) if c.small_data else uniform_fan_in(rng)
        table = normal(rng, 1.0 if c.small_data else 0.02)
        prefix = 2 if c.distilled else 1
        dim, (rows, columns) = c.dims[0], c.grids[0]
        self.grid = (rows, columns)
        self.positions = {"pos_embed": prefix if c.small_data else 0}
        self.cls_token = Parameter(table((1, prefix, dim)))
        shape = (1, prefix + rows * columns, dim) if c.small_data else (1, dim, rows, columns)
        self.pos_embed = Parameter(table(shape))
        if c.spt:
            self.patch_embed = ShiftedPatchTokenization(
                c.in_chans, dim, c.patch_size, norm_eps=c.norm_eps, init=init
            )
        else:
            self.patch_embed = ConvEmbed(c.in_chans, dim, c.patch_size, c.stride, init=init)
        self.pos_drop = Dropout(c.drop_rate, generator)
        rates = drop_path_rates(c.drop_path_rate, sum(c.depth), "constant" if c.small_data else "linear")
        self.transformers = []
        for i in range(len(c.depth)):
            pool = self._pool(i, prefix, init) if i else None
            stage_rates = rates[sum(c.depth[:i]) : sum(c.depth[: i + 1])]
            self.transformers.append(Stage(pool, [self._block(i, rate, init, generator) for rate in stage_rates]))
        self.norm = LayerNorm(c.dims[-1], c.norm_eps)
        self.head = Linear(c.dims[-1], c.num_classes, init=init)
        self.head_dist = Linear(c.dims[-1], c.num_classes, init=init) if c.distilled else None

    def _pool(self, i, prefix, init):
        c = self.config
        before, dim, grid = c.dims[i - 1], c.dims[i], c.grids[i - 1]
        if c.spt_pool:
            return ShiftedPatchPool(before, dim, class_token=True, grid=grid, norm_eps=c.norm_eps, init=init)
        return TokenPool(before, dim, grid, prefix, pointwise=c.small_data, init=init)

    def _block(self, i, drop_path, init, generator):
        c, dim, heads = self.config, self.config.dims[i], self.config.heads[i]
        options = attention_options(c, init, generator)
        attention = Attention(dim, heads, proj=heads > 1 or not c.small_data, **options)
        return transformer_block(c, attention, dim, drop_path=drop_path, init=init, rng=generator)

    def forward(self, x):
        tokens = self.norm(self.forward_features(x)[:, : self.cls_token.shape[1]])
        logits = self.head(tokens[:, 0])
        if self.head_dist is None:
            return logits
        return join_heads(logits, self.head_dist(tokens[:, 1]), self.training, self.config.eval_heads)

    def forward_features(self, x):
        """All tokens of the last stage, class token(s) first, before the last norm: (B, 1 + N, dim)."""
        self.check_images(x)
        cls = ops.broadcast_to(self.cls_token, (x.shape[0], *self.cls_token.shape[1:]))
        patches = self.patch_embed(x)
        if self.config.small_data:
            tokens = self.pos_drop(ops.concat([cls, patches], axis=1) + self.pos_embed)
        else:  # a map of positions, none for the class token
            tokens = ops.concat([cls, self.pos_drop(patches + as_tokens(self.pos_embed))], axis=1)
        for stage in self.transformers:
            tokens = stage(tokens)
        return tokens


class Stage(Module):
    """A pooling, except in the first stage, and blocks: tokens -> tokens."""

    def __init__(self, pool, blocks):
        self.pool = pool
        self.blocks = blocks

    def forward(self, tokens):
        tokens = tokens if self.pool is None else self.pool(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class ConvEmbed(Module):
    """Patches that may overlap, by a convolution: (B, C, H, W) -> (B, N, dim), N = rows * columns, row by row."""

    def __init__(self, in_chans, dim, patch_size, stride, *, init):
        self.conv = Conv2d(in_chans, dim, patch_size, stride=stride, init=init)

    def forward(self, x):
        return as_tokens(self.conv(x))


class TokenPool(Module):
    """PiT's pooling: (B, P + rows * columns, in_dim) -> (B, P + about a quarter of them, dim), P class tokens.

    Each input channel of the 3x3 convolution of stride 2 gives dim / in_dim output channels. With ``pointwise`` a 1x1
    convolution follows.
    """

    def __init__(self, in_dim, dim, grid, prefix, *, pointwise, init):
        self.grid, self.prefix = grid, prefix
        self.conv = Conv2d(in_dim, dim, 3, stride=2, padding=1, groups=in_dim, init=init)
        self.pointwise = Conv2d(dim, dim, 1, init=init) if pointwise else None
        self.fc = Linear(in_dim, dim, init=init)

    def forward(self, x):
        cls, patches = x[:, : self.prefix], x[:, self.prefix :]
        b, _, c = patches.shape
        image = self.conv(patches.swapaxes(1, 2).reshape(b, c, *self.grid))
        image = image if self.pointwise is None else self.pointwise(image)
        return ops.concat([self.fc(cls), as_tokens(image)], axis=1)


def as_tokens(image):
    """(B, C, rows, columns) -> (B, rows * columns, C), row by row."""
    b, c, rows, columns = image.shape
    return image.reshape(b, c, rows * columns).swapaxes(1, 2)


_LSA = {"learnable_temperature": True, "mask_diagonal": True}
_IMAGENET = {"img_size": 224, "num_classes": 1000, "patch_size": 16, "stride": 8, "depth": (2, 6, 4), "mlp_ratio": 4.0,
             "qkv_bias": True, "norm_eps": 1e-6, "small_data": False}  # fmt: skip
_SIZES = {
    "ti": {"base_dims": (32, 32, 32), "heads": (2, 4, 8)},
    "xs": {"base_dims": (48, 48, 48), "heads": (2, 4, 8)},
    "s": {"base_dims": (48, 48, 48), "heads": (3, 6, 12)},
    "b": {"base_dims": (64, 64, 64), "heads": (4, 8, 16), "depth": (3, 6, 4), "patch_size": 14, "stride": 7},
}

register("pit", PoolingTransformer, PiTConfig, {}, "PiT for small data sets")
register("sl_pit", PoolingTransformer, PiTConfig, {"spt": True, "spt_pool": True, **_LSA}, "PiT with SPT and LSA")
for _size, _sizes in _SIZES.items():
    _all = {**_IMAGENET, **_sizes}
    register(f"pit_{_size}_224", PoolingTransformer, PiTConfig, _all, f"PiT-{_size.upper()} at 224 pixels")
    register(
        f"pit_{_size}_distilled_224", PoolingTransformer, PiTConfig, _all | {"distilled": True},
        f"PiT-{_size.upper()} at 224 pixels, with a distillation token",
    )  # fmt: skip
