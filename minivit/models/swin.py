"""Swin Transformer (Liu et al. 2021, arXiv 2103.14030), and its small-data version with SPT and LSA.

Stages of blocks whose attention stays in windows, shifted in every other block (see ``minivit.nn.windows``); between
the stages 2x2 tokens merge into one of twice the width. The mean of all tokens answers: there is no class token.
"""

from dataclasses import dataclass
from math import prod

from minivit.errors import UsageError
from minivit.models import interop
from minivit.models.base import ImageModel
from minivit.models.config import ImageModelConfig, Ints, OptionalInt, Size, pair
from minivit.models.registry import register
from minivit.models.transformer import attention_options, patch_embedding, transformer_block
from minivit.nn import (
    Dropout,
    LayerNorm,
    Linear,
    Module,
    Parameter,
    PatchEmbed,
    PatchMerging,
    ShiftedPatchPool,
    WindowAttention,
    drop_path_rates,
)
from minivit.nn.init import normal, uniform_fan_in

MAX_TOKENS, MAX_WINDOW = 1 << 20, 1 << 12
"""Of an image and of a window: the masks of shifted windows have a number for every pair of tokens in a window."""


@dataclass(frozen=True)
class SwinConfig(ImageModelConfig):
    """Sizes and switches; a list has one entry for each stage. The defaults are the small-data paper's.

    ``small_data`` picks the conventions of that paper's code: a learned position for each patch beside the relative
    position bias, and weights and biases uniform as in PyTorch's layers. Without it there is no such table, and weights
    are normal with standard deviation 0.02.
    """

    patch_size: OptionalInt = None  # None: img_size / 16, which gives the paper's 2 at 32 pixels and 4 at 64
    embed_dim: int = 96  # stage i has width 2^i embed_dim
    depths: Ints = (2, 6, 4)
    num_heads: Ints = (3, 6, 12)
    window_size: Size = 4
    mlp_ratio: float = 2.0
    qkv_bias: bool = True
    norm_eps: float = 1e-5
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0  # of the last block; it rises from 0 in the first
    small_data: bool = True
    spt: bool = False  # at the embedding
    spt_pool: bool = False  # instead of patch merging
    learnable_temperature: bool = False
    mask_diagonal: bool = False

    def __post_init__(self):
        if self.patch_size is None:
            object.__setattr__(self, "patch_size", max(1, min(self.image_shape) // 16))
        super().__post_init__()
        self.require_at_least(1, "patch_size", "embed_dim", "depths", "num_heads", "window_size")
        self.require_same_lengths("depths", "num_heads")
        self.require_transformer(self.dims, self.num_heads, self.patch_size)
        if prod(self.grids[0]) > MAX_TOKENS:
            raise UsageError(f"images may have at most {MAX_TOKENS} patches, these have {prod(self.grids[0])}")
        windows = [prod(map(min, pair(self.window_size), grid)) for grid in self.grids]
        if max(windows) > MAX_WINDOW:
            raise UsageError(f"a window may have at most {MAX_WINDOW} tokens, window_size {self.window_size} has more")
        if self.mask_diagonal and min(windows) < 2:
            raise UsageError("a window of one token has nothing left when mask_diagonal hides that token from itself")
        for rows, columns in self.grids[:-1]:
            if self.spt_pool and (rows % 2 or columns % 2):
                raise UsageError(f"img_size {self.img_size} gives a grid of {rows}x{columns} patches, not to be halved")

    @property
    def dims(self):
        """Width of the tokens in each stage."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))

    @property
    def stages(self):
        return list(zip(self.depths, self.dims, strict=True))

    def least_weights(self):
        positions = prod(self.grids[0]) if self.small_data else 0
        return super().least_weights() + (self.in_chans * self.patch_size**2 + positions) * self.embed_dim

    @property
    def grids(self):
        """(rows, columns) of tokens in each stage: halved from stage to stage, and rounded up."""
        grids = [tuple(side // self.patch_size for side in self.image_shape)]
        for _ in self.depths[1:]:
            grids.append(tuple(-(-side // 2) for side in grids[-1]))
        return grids


class SwinTransformer(ImageModel):
    """Images (B, in_chans, height, width) -> logits (B, num_classes).

    Args:
        config: a SwinConfig.
        rng: draws the initial weights. generator: draws masks of dropout and drop path in training.
    """

    official_names = (interop.OFFICIAL_SWIN,)
    computed_names = interop.COMPUTED_SWIN

    def __init__(self, config, *, rng, generator):
        super().__init__(config)
        c = config
        init = uniform_fan_in(rng) if c.small_data else normal(rng, 0.02)
        self.grid = c.grids[0]
        self.positions = {"absolute_pos_embed": 0}
        tokens = self.grid[0] * self.grid[1]
        table = normal(rng, 0.02)
        self.absolute_pos_embed = Parameter(table((1, tokens, c.embed_dim))) if c.small_data else None
        if c.spt:
            self.patch_embed = patch_embedding(c, init)
        else:
            self.patch_embed = PatchEmbed(
                c.in_chans, c.embed_dim, c.patch_size, norm_eps=c.norm_eps, init=uniform_fan_in(rng)
            )
        self.pos_drop = Dropout(c.drop_rate, generator)
        rates = drop_path_rates(c.drop_path_rate, sum(c.depths), "linear")
        self.layers = []
        for i, depth in enumerate(c.depths):
            first = sum(c.depths[:i])
            blocks = [self._block(i, j, rates[first + j], init, table, generator) for j in range(depth)]
            self.layers.append(Stage(self._downsample(i, init) if i else None, blocks))
        self.norm = LayerNorm(c.dims[-1], c.norm_eps)
        self.head = Head(c.dims[-1], c.num_classes, init)

    def _downsample(self, i, init):
        c = self.config
        before, dim, grid = c.dims[i - 1], c.dims[i], c.grids[i - 1]
        if c.spt_pool:
            return ShiftedPatchPool(before, dim, class_token=False, grid=grid, norm_eps=c.norm_eps, init=init)
        return PatchMerging(before, dim, grid, norm_eps=c.norm_eps, init=init)

    def _block(self, i, j, drop_path, init, table_init, generator):
        c, dim, window = self.config, self.config.dims[i], pair(self.config.window_size)
        attention = WindowAttention(
            dim,
            c.num_heads[i],
            c.grids[i],
            window,
            tuple(side // 2 for side in window) if j % 2 else (0, 0),
            table_init=table_init,
            **attention_options(c, init, generator),
        )
        return transformer_block(c, attention, dim, drop_path=drop_path, init=init, rng=generator)

    def forward(self, x):
        return self.head(self.forward_features(x).mean(axis=1))

    def forward_features(self, x):
        """The tokens of the last stage after the last norm: (B, N, dim)."""
        self.check_images(x)
        tokens = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            tokens = tokens + self.absolute_pos_embed
        tokens = self.pos_drop(tokens)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)


class Stage(Module):
    """A down-sampling, except in the first stage, and blocks: tokens -> tokens."""

    def __init__(self, downsample, blocks):
        self.downsample = downsample
        self.blocks = blocks

    def forward(self, tokens):
        tokens = tokens if self.downsample is None else self.downsample(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class Head(Module):
    """The linear classifier, called ``head.fc`` as in timm."""

    def __init__(self, dim, num_classes, init):
        self.fc = Linear(dim, num_classes, init=init)

    def forward(self, x):
        return self.fc(x)


_IMAGENET = {"img_size": 224, "num_classes": 1000, "patch_size": 4, "mlp_ratio": 4.0, "window_size": 7,
             "small_data": False}  # fmt: skip
_SIZES = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}
_SL = {"spt": True, "spt_pool": True, "learnable_temperature": True, "mask_diagonal": True}

register("swin", SwinTransformer, SwinConfig, {}, "Swin Transformer for small data sets")
register("sl_swin", SwinTransformer, SwinConfig, _SL, "Swin Transformer with SPT and LSA")
for _size, _sizes in _SIZES.items():
    for _window, _image in ((7, 224), (12, 384)):
        if _window == 7 or _size in ("base", "large"):
            register(
                f"swin_{_size}_patch4_window{_window}_{_image}", SwinTransformer, SwinConfig,
                {**_IMAGENET, **_sizes, "window_size": _window, "img_size": _image},
                f"Swin-{_size.capitalize()} at {_image} pixels",
            )  # fmt: skip
