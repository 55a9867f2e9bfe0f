"""RegNetY (Radosavovic et al. 2020, "Designing Network Design Spaces"): DeiT's convolutional teacher.

    x = stem(x)                                                                  3x3, stem_width channels
    for each block of each stage:  x = relu(shortcut(x) + conv3(SE(conv2(conv1(x)))))
    logits = fc(mean of x over the pixels)

conv1 (1x1) and conv2 (3x3, in groups of group_size channels) end in BatchNorm and ReLU, conv3 (1x1) and the shortcut in
BatchNorm alone. The shortcut is a 1x1 convolution in the first block of a stage, even where neither stride nor width
change, and nothing in the others. SE is squeeze-and-excitation (Hu et al. 2018): channels are weighted by what a small
network makes of their means.
"""

import math
from dataclasses import dataclass

from minivit import ops
from minivit.errors import UsageError
from minivit.models.base import ImageModel
from minivit.models.config import MAX_BLOCKS, ImageModelConfig, Ints, Size
from minivit.models.registry import register
from minivit.nn import BatchNorm2d, Conv2d, Linear, Module
from minivit.nn.init import he_normal_fan_out, normal


def stage_widths(depth, w0, wa, wm, group_size):
    """Widths and depths of the stages by the rule for RegNet (Radosavovic et al. 2020, section 3.3).

    The width of block j should grow linearly, u_j = w0 + wa j, but only take few values:

        e_j = round(log(u_j / w0) / log(wm)),   w_j = 8 round(w0 wm^e_j / 8)

    Blocks of equal w_j form a stage. Its width becomes the nearest multiple of the group size, min(group_size, w_j).

    Args:
        depth: number of blocks.
        w0, wa, wm: initial width, slope and step of the widths.
        group_size: channels of a group in the 3x3 convolutions.

    Returns:
        Two tuples of ints: widths and depths.
    """
    exponents = [round(math.log((w0 + wa * j) / w0) / math.log(wm)) for j in range(depth)]
    blocks = [8 * round(w0 * wm**e / 8) for e in exponents]
    steps = sorted(set(blocks))
    groups = [min(group_size, w) for w in steps]
    return tuple(round(w / g) * g for w, g in zip(steps, groups)), tuple(blocks.count(w) for w in steps)


@dataclass(frozen=True)
class RegNetConfig(ImageModelConfig):
    """Sizes. The network takes images of any size, whatever ``img_size`` says.

    The stages are given by the rule ``stage_widths`` (depth, w0, wa, wm), or by widths and depths; by both only if they
    agree. depth 0 stands for no rule.
    """

    replaces = {"widths": ("depth", "w0", "wa", "wm"), "depths": ("depth", "w0", "wa", "wm")}

    img_size: Size = 224
    num_classes: int = 1000
    depth: int = 0
    w0: int = 0
    wa: float = 0.0
    wm: float = 0.0
    widths: Ints = ()
    depths: Ints = ()
    group_size: int = 8
    se_ratio: float = 0.25  # width within SE to that of the block's input; 0: no SE
    stem_width: int = 32
    stem_stride: int = 2
    strides: Ints = ()  # of the first stages; that of all further ones is 2
    zero_init_last: bool = True  # whether every block starts as its shortcut

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "group_size", "stem_width", "stem_stride", "strides")
        self.require_at_least(0, "depth", "se_ratio")
        if self.depth:
            self._apply_rule()
        self.require_same_lengths("widths", "depths")
        self.require_at_least(1, "widths", "depths")
        for width in self.widths:
            if width % min(self.group_size, width):
                raise UsageError(f"width {width} does not divide into groups of group_size {self.group_size} channels")
        inputs = [self.stem_width, *self.widths[:-1]] + [w for w, d in zip(self.widths, self.depths) if d > 1]
        narrowest = min(inputs)
        if self.se_ratio and not 0.5 < self.se_ratio * narrowest < 1e6:  # NaN is neither
            raise UsageError(f"se_ratio {self.se_ratio} leaves SE no channels where a block has {narrowest}")
        if len(self.strides) > len(self.widths):
            raise UsageError(f"there are {len(self.widths)} stages, but strides {self.strides}")
        object.__setattr__(self, "strides", self.strides + (2,) * (len(self.widths) - len(self.strides)))

    @property
    def stages(self):
        return list(zip(self.depths, self.widths, strict=True))

    def least_weights(self):
        return super().least_weights() + 9 * self.in_chans * self.stem_width

    def _apply_rule(self):
        self.require_at_least(8, "w0")
        if self.depth > MAX_BLOCKS:
            raise UsageError(f"depth must be at most {MAX_BLOCKS}, got {self.depth}")
        if self.w0 % 8:
            raise UsageError(f"w0 must be a multiple of 8, got {self.w0}")
        if not (0 <= self.wa < 1e6 and 1 < self.wm < 1e3):
            raise UsageError(f"expected wa of at least 0 and wm above 1, got {self.wa} and {self.wm}")
        widths, depths = stage_widths(self.depth, self.w0, self.wa, self.wm, self.group_size)
        if (self.widths or widths, self.depths or depths) != (widths, depths):
            raise UsageError(
                f"depth {self.depth}, w0 {self.w0}, wa {self.wa} and wm {self.wm} make widths {widths} and depths "
                f"{depths}, not {self.widths} and {self.depths}: give one or the other"
            )
        object.__setattr__(self, "widths", widths)
        object.__setattr__(self, "depths", depths)


class ConvNorm(Module):
    """Convolution without bias that keeps the size but for its stride, BatchNorm, and ReLU if ``act``."""

    def __init__(self, in_chans, chans, kernel_size, *, stride=1, groups=1, act=True, zero_init=False, rng):
        self.conv = Conv2d(
            in_chans, chans, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=False,
            init=he_normal_fan_out(rng, groups),
        )  # fmt: skip
        self.bn = BatchNorm2d(chans, zero_init=zero_init)
        self.act = act

    def forward(self, x):
        x = self.bn(self.conv(x))
        return ops.relu(x) if self.act else x


class SqueezeExcite(Module):
    """x sigmoid(fc2(relu(fc1(mean of x over the pixels)))): (B, C, H, W) -> the same, by way of ``width`` channels."""

    def __init__(self, chans, width, *, rng):
        init = he_normal_fan_out(rng)
        self.fc1 = Conv2d(chans, width, 1, init=init)
        self.fc2 = Conv2d(width, chans, 1, init=init)

    def forward(self, x):
        return x * ops.sigmoid(self.fc2(ops.relu(self.fc1(x.mean((2, 3), keepdims=True)))))


class Bottleneck(Module):
    """The Y block: (B, in_chans, H, W) -> (B, chans, H / stride, W / stride).

    Args:
        first: whether it is the first block of its stage.
        group_size, se_ratio, zero_init_last: of the ``config``.
    """

    def __init__(self, in_chans, chans, *, stride, first, config, rng):
        groups = chans // min(config.group_size, chans)
        self.conv1 = ConvNorm(in_chans, chans, 1, rng=rng)
        self.conv2 = ConvNorm(chans, chans, 3, stride=stride, groups=groups, rng=rng)
        self.se = SqueezeExcite(chans, round(config.se_ratio * in_chans), rng=rng) if config.se_ratio else None
        self.conv3 = ConvNorm(chans, chans, 1, act=False, zero_init=config.zero_init_last, rng=rng)
        self.downsample = ConvNorm(in_chans, chans, 1, stride=stride, act=False, rng=rng) if first else None

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        y = self.conv3(y if self.se is None else self.se(y))
        return ops.relu(y + (x if self.downsample is None else self.downsample(x)))


class Stage(Module):
    """Blocks ``b1``, ``b2``, ... of one width, one after the other; the first has the stride."""

    def __init__(self, in_chans, chans, depth, stride, config, *, rng):
        self.b1 = Bottleneck(in_chans, chans, stride=stride, first=True, config=config, rng=rng)
        for i in range(2, depth + 1):
            setattr(self, f"b{i}", Bottleneck(chans, chans, stride=1, first=False, config=config, rng=rng))

    def forward(self, x):
        for _, block in self.named_children():
            x = block(x)
        return x


class Head(Module):
    """Mean over the pixels, then linear: (B, C, H, W) -> (B, num_classes)."""

    def __init__(self, chans, num_classes, *, rng):
        self.fc = Linear(chans, num_classes, init=normal(rng, 0.01))

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


class RegNet(ImageModel):
    """Images (B, in_chans, H, W) of any size -> logits (B, num_classes). Names are timm's.

    Args:
        config: a RegNetConfig.
        rng: draws the initial weights; ``generator`` is not used.
    """

    any_image_size = True

    def __init__(self, config, *, rng, generator):
        super().__init__(config)
        chans = config.stem_width
        self.stem = ConvNorm(config.in_chans, chans, 3, stride=config.stem_stride, rng=rng)
        for i, (width, depth, stride) in enumerate(zip(config.widths, config.depths, config.strides, strict=True)):
            setattr(self, f"s{i + 1}", Stage(chans, width, depth, stride, config, rng=rng))
            chans = width
        self.head = Head(chans, config.num_classes, rng=rng)

    def forward(self, x):
        return self.head(self.forward_features(x))

    def forward_features(self, x):
        """Maps after the last stage: (B, widths[-1], rows, columns)."""
        self.check_images(x)
        x = self.stem(x)
        for i in range(len(self.config.widths)):
            x = getattr(self, f"s{i + 1}")(x)
        return x


def _register_variants():
    variants = {
        "regnety_002": (13, 24, 36.44, 2.49, 8, "RegNetY-200MF"),
        "regnety_004": (16, 48, 27.89, 2.09, 8, "RegNetY-400MF"),
        "regnety_160": (18, 200, 106.23, 2.48, 112, "RegNetY-16GF, the teacher of DeiT"),
    }
    small = {
        "regnety_nano": (8, 16, 16.0, 1.9, 8, "RegNetY with 8 blocks for images of 32 pixels"),
        "regnety_mini": (10, 16, 12.0, 2.0, 8, "RegNetY with 10 blocks for images of 32 pixels"),
    }
    for name, (*rule, description) in (variants | small).items():
        defaults = dict(zip(("depth", "w0", "wa", "wm", "group_size"), rule, strict=True))
        if name in small:
            defaults |= {"img_size": 32, "num_classes": 10, "stem_width": 16, "stem_stride": 1, "strides": (1,)}
        register(name, RegNet, RegNetConfig, defaults, description)


_register_variants()
