"""ResNet for images of 32 pixels (He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2).

    x = relu(bn1(conv1(x)))                                     3x3, stride 1, channels[0]
    for each block of each stage:  x = relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))))
    logits = fc(mean of x over the pixels)

The first block of every stage but the first has stride 2. ResNet-(6n + 2) has 3 stages of n blocks with 16, 32 and 64
channels. Where stride or channels change, the shortcut is a 1x1 convolution with BatchNorm ("projection", option B of
the paper), or takes every other pixel and adds channels of zeros ("padding", option A, without parameters).
"""

from dataclasses import dataclass

from minivit import ops
from minivit.errors import UsageError
from minivit.models.base import ImageModel
from minivit.models.config import ImageModelConfig, Ints
from minivit.models.registry import register
from minivit.nn import BatchNorm2d, Conv2d, Linear, Module
from minivit.nn.init import he_normal_fan_out, uniform_fan_in


@dataclass(frozen=True)
class ResNetConfig(ImageModelConfig):
    """Sizes and switches. The network takes images of any size, whatever ``img_size`` says."""

    num_classes: int = 10
    layers: Ints = (3, 3, 3)  # blocks of each stage
    channels: Ints = (16, 32, 64)  # and their width
    shortcut: str = "projection"
    zero_init_last: bool = False  # whether every block starts as its shortcut

    def __post_init__(self):
        super().__post_init__()
        self.require_same_lengths("layers", "channels")
        self.require_at_least(1, "layers", "channels")
        self.require_one_of("shortcut", ("projection", "padding"))
        if self.shortcut == "padding" and list(self.channels) != sorted(self.channels):
            raise UsageError(f"shortcut 'padding' adds channels, so they cannot shrink: channels {self.channels}")

    @property
    def stages(self):
        return list(zip(self.layers, self.channels, strict=True))

    def least_weights(self):
        return super().least_weights() + 9 * self.in_chans * self.channels[0]


class BasicBlock(Module):
    """Two 3x3 convolutions beside a shortcut: (B, in_chans, H, W) -> (B, chans, H / stride, W / stride)."""

    def __init__(self, in_chans, chans, stride, *, shortcut, zero_init, init):
        self.conv1 = Conv2d(in_chans, chans, 3, stride=stride, padding=1, bias=False, init=init)
        self.bn1 = BatchNorm2d(chans)
        self.conv2 = Conv2d(chans, chans, 3, padding=1, bias=False, init=init)
        self.bn2 = BatchNorm2d(chans, zero_init=zero_init)
        self.stride, self.new_chans = stride, chans - in_chans
        changes = stride != 1 or in_chans != chans
        self.downsample = None
        if changes and shortcut == "projection":
            self.downsample = [Conv2d(in_chans, chans, 1, stride=stride, bias=False, init=init), BatchNorm2d(chans)]

    def forward(self, x):
        y = ops.relu(self.bn1(self.conv1(x)))
        return ops.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    def shortcut(self, x):
        if self.downsample is not None:
            conv, bn = self.downsample
            return bn(conv(x))
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return ops.pad(x, [(0, 0), (0, self.new_chans), (0, 0), (0, 0)]) if self.new_chans else x


class ResNet(ImageModel):
    """Images (B, in_chans, H, W) of any size -> logits (B, num_classes). Names are timm's.

    Args:
        config: a ResNetConfig.
        rng: draws the initial weights; ``generator`` is not used.
    """

    any_image_size = True

    def __init__(self, config, *, rng, generator):
        super().__init__(config)
        init = he_normal_fan_out(rng)
        chans = config.channels[0]
        self.conv1 = Conv2d(config.in_chans, chans, 3, padding=1, bias=False, init=init)
        self.bn1 = BatchNorm2d(chans)
        self.stages = [f"layer{i + 1}" for i in range(len(config.layers))]
        for name, depth, width in zip(self.stages, config.layers, config.channels, strict=True):
            blocks = []
            for i in range(depth):
                stride = 2 if i == 0 and name != "layer1" else 1
                blocks.append(
                    BasicBlock(
                        chans, width, stride, shortcut=config.shortcut, zero_init=config.zero_init_last, init=init
                    )
                )
                chans = width
            setattr(self, name, blocks)
        self.fc = Linear(chans, config.num_classes, init=uniform_fan_in(rng))

    def forward(self, x):
        return self.fc(self.forward_features(x).mean((2, 3)))

    def forward_features(self, x):
        """Maps after the last stage: (B, channels[-1], rows, columns)."""
        self.check_images(x)
        x = ops.relu(self.bn1(self.conv1(x)))
        for name in self.stages:
            for block in getattr(self, name):
                x = block(x)
        return x


for _n in (3, 5, 9, 18):
    register(
        f"resnet{6 * _n + 2}", ResNet, ResNetConfig, {"layers": (_n,) * 3},
        f"CIFAR ResNet with 3 stages of {_n} basic blocks",
    )  # fmt: skip
