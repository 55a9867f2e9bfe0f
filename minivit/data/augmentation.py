"""The pipeline from stored images to a batch to learn from: which augmentations, and in which order.

    uint8    flip -> crop -> colours (a policy, else jitter)
    float32  normalise -> random erasing -> Mixup or CutMix, which also makes soft targets

The order is that of timm and of the small-data paper's code; a flip and a random crop may change places. Each step
stands in a file of its own in this folder.
"""

import re
from dataclasses import dataclass

from minivit.data.augment import normalize, random_crop, random_flip
from minivit.data.auto_augment import POLICIES, auto_augment
from minivit.data.color_jitter import color_jitter
from minivit.data.erasing import random_erasing
from minivit.data.mixing import MODES, PARTNERS, mix
from minivit.data.rand_augment import parse_rand_augment, rand_augment, tf_rand_augment
from minivit.data.resizing import FILTERS, random_resized_crop, resize
from minivit.errors import UsageError, suggest

ERASE_MODES = ("const", "rand", "pixel", "mean")
TF_RAND = re.compile(r"tf-rand-l(\d{1,2})-m(\d{1,3})")
SMALL_DATA_ERASING = {"area": (0.02, 0.4), "log_aspect": False, "tries": 100}


@dataclass(frozen=True)
class Augmentation:
    """What is done to the images of a training batch. The default is nothing but normalisation.

    Args:
        flip: mirror half of the images.
        crop_padding: pixels of black border for the random crop (He et al. 2016), 0 for none.
        resized_crop: smallest share of the image that a random resized crop shows (Szegedy et al. 2015), 0 for none;
            ``interpolation`` resizes it, ``bicubic`` or ``bilinear``.
        color_jitter: brightness, contrast and saturation change by factors up to this far from 1. A policy replaces it,
            as in timm.
        auto_augment: an AutoAugment policy (``cifar``, ``svhn``, ``imagenet`` ...), timm's RandAugment such as
            ``rand-m9-mstd0.5-inc1``, the original one of AugReg such as ``tf-rand-l2-m15``, or "" for none.
        erase: share of the images that lose a rectangle (Zhong et al. 2017), and ``erase_mode`` what fills it:
            ``const`` 0, ``rand`` one random colour, ``pixel`` noise, ``mean`` what the small-data paper's code does.
        mixup, cutmix: parameters of their Beta distributions, 0 for never.
        mix_prob: share of the batches that are mixed; ``mix_switch``: share of CutMix among them, where both can be.
        mix_mode, mix_partner: see :func:`minivit.data.mixing.mix`.

    Raises:
        UsageError: a value that makes no sense.
    """

    flip: bool = False
    crop_padding: int = 0
    resized_crop: float = 0.0
    interpolation: str = "bicubic"
    color_jitter: float = 0.0
    auto_augment: str = ""
    erase: float = 0.0
    erase_mode: str = "pixel"
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    mix_switch: float = 0.5
    mix_mode: str = "batch"
    mix_partner: str = "reversed"

    def __post_init__(self):
        for name in ("resized_crop", "erase", "mix_prob", "mix_switch"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        for name, most in (("crop_padding", 512), ("color_jitter", 10), ("mixup", 1e6), ("cutmix", 1e6)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"{name} must be from 0 to {most:g}, not {getattr(self, name)}")
        for name, known in (
            ("interpolation", FILTERS), ("erase_mode", ERASE_MODES), ("mix_mode", MODES), ("mix_partner", PARTNERS)
        ):  # fmt: skip
            value = getattr(self, name)
            if value not in known:
                raise UsageError(f"unknown {name} {value!r}{suggest(value, known)}; known: {', '.join(known)}")
        if self.crop_padding and self.resized_crop:
            raise UsageError("crop_padding and resized_crop are two ways to crop: set one of them to 0")
        if self.mix_mode == "pair" and self.mix_partner != "reversed":
            raise UsageError(f"mix_mode 'pair' needs mix_partner 'reversed', not {self.mix_partner!r}")
        check_policy(self.auto_augment)

    @property
    def mixes(self):
        """Whether targets are probabilities of all classes instead of labels."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)

    @property
    def is_random(self):
        """Whether an image looks different every time."""
        return self.mixes or any(
            (self.flip, self.crop_padding, self.resized_crop, self.color_jitter, self.auto_augment, self.erase)
        )

    def __call__(self, images, labels, rng, *, size, mean, std, num_classes):
        """Make a batch to learn from.

        Args:
            images: uint8 (B, 3, H, W), changed. labels: int64 (B,).
            rng: np.random.Generator.
            size: pixels a side of the result. mean, std: of the normalisation, three floats each.
            num_classes: length of soft targets.

        Returns:
            (float32 images (B, 3, size, size), targets): labels (B,), or where images are mixed, float32
            (B, num_classes).
        """
        images = self._crop(random_flip(images, rng) if self.flip else images, (size, size), rng)
        x = normalize(self._color(images, mean, rng), mean, std)
        if self.erase:
            small_data = {"values": mean, **SMALL_DATA_ERASING} if self.erase_mode == "mean" else {}
            mode = "const" if small_data else self.erase_mode
            random_erasing(x, rng, probability=self.erase, mode=mode, **small_data)
        if not self.mixes:
            return x, labels
        return mix(
            x, labels, num_classes, rng, mixup=self.mixup, cutmix=self.cutmix, probability=self.mix_prob,
            switch_probability=self.mix_switch, mode=self.mix_mode, partner=self.mix_partner,
            keep_larger=self.mix_partner == "rolled",
        )  # fmt: skip

    def _crop(self, images, size, rng):
        if self.resized_crop:
            return random_resized_crop(
                images, size, rng, scale=(self.resized_crop, 1.0), interpolation=self.interpolation
            )
        if self.crop_padding:
            images = random_crop(images, self.crop_padding, rng)
        return fit(images, size)

    def _color(self, images, mean, rng):
        policy = self.auto_augment
        if not policy and not self.color_jitter:
            return images
        if not policy:
            strength = self.color_jitter
            return color_jitter(images, rng, brightness=strength, contrast=strength, saturation=strength)
        if policy in POLICIES:
            return auto_augment(images, policy, rng)
        if original := TF_RAND.fullmatch(policy):
            layers, magnitude = map(int, original.groups())
            return tf_rand_augment(images, rng, layers=layers, magnitude=magnitude)
        fill = tuple(round(255 * channel) for channel in mean)
        return rand_augment(images, rng, fill=fill, **parse_rand_augment(policy))


def fit(images, size):
    """uint8 images (B, 3, H, W) at ``size`` (height, width), resized by cubic interpolation if they are not."""
    return images if images.shape[2:] == size else resize(images, size)


def check_policy(policy):
    """Raise UsageError unless ``policy`` is something for :attr:`Augmentation.auto_augment`."""
    if policy.startswith("rand-"):
        parse_rand_augment(policy)
    elif policy and policy not in POLICIES and not TF_RAND.fullmatch(policy):
        raise UsageError(
            f"unknown policy {policy!r}{suggest(policy, POLICIES)}; known: {', '.join(POLICIES)}, and RandAugment as "
            "in rand-m9-mstd0.5-inc1 (timm's) or tf-rand-l2-m15 (the original one)"
        )
