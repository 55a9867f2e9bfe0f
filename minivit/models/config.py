"""What the configurations of all models share: kinds of values, checks, and the size of images."""

import numbers
from dataclasses import dataclass
from types import UnionType
from typing import ClassVar

import numpy as np

from minivit.errors import UsageError

Size = int | tuple[int, int]
"""One number for both sides, or (height, width)."""
Ints = tuple[int, ...]
"""One whole number for each stage."""
OptionalFloat = float | None
OptionalInt = int | None

MAX_SIDE = 1 << 14
"""Pixels of the longest side of an image."""
MAX_BLOCKS = 10_000
MAX_WEIGHTS = 1 << 33
"""What no network here exceeds: sizes beyond are mistakes, or a damaged file."""

_KINDS = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    Size: "int, or a pair of them",
    Ints: "list of ints",
    OptionalFloat: "float, or None",
    OptionalInt: "int, or None",
}


@dataclass(frozen=True)
class ImageModelConfig:
    """Base class: frozen dataclass whose fields are the keywords of ``create_model``.

    ``replaces``: keyword -> fields that a registered name sets, and that give way when the user gives that keyword,
    for sizes that can be said in two ways.
    """

    replaces: ClassVar = {}

    img_size: Size = 32
    in_chans: int = 3
    num_classes: int = 100

    def __post_init__(self):
        self.require_at_least(1, "img_size", "in_chans", "num_classes")
        if max(self.image_shape) > MAX_SIDE:
            raise UsageError(f"img_size must be at most {MAX_SIDE}, got {self.img_size}")

    @property
    def stages(self):
        """(blocks, width of their tokens or channels) for each stage."""
        raise NotImplementedError

    def check_size(self):
        """Raise UsageError for a network that no machine here could hold, before any of it is built."""
        blocks, weights = sum(count for count, _ in self.stages), self.least_weights()
        if blocks > MAX_BLOCKS:
            raise UsageError(f"a network of {blocks} blocks is more than the {MAX_BLOCKS} that are allowed")
        if weights > MAX_WEIGHTS:
            raise UsageError(f"a network of these sizes has at least {weights:,} weights; {MAX_WEIGHTS:,} are allowed")

    def least_weights(self):
        """A number of weights that a network of these sizes surely has, found without building it."""
        blocks = sum(count * width**2 for count, width in self.stages)
        return blocks + self.num_classes * self.stages[-1][1]

    @property
    def image_shape(self):
        """(height, width) of the images in pixels."""
        return pair(self.img_size)

    def require_at_least(self, least, *names):
        """Raise UsageError unless every field named, or every entry of it, is at least ``least``."""
        for name in names:
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,), default=least) < least:
                raise UsageError(f"{name} must be at least {least}, got {value}")

    def require_rates(self, *names):
        """Raise UsageError unless every field named lies in [0, 1)."""
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def require_one_of(self, name, choices):
        """Raise UsageError unless the field ``name`` is one of ``choices``."""
        if getattr(self, name) not in choices:
            raise UsageError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    def require_same_lengths(self, *names):
        """Raise UsageError unless the lists named have one entry for each of at least one stage."""
        lengths = [len(getattr(self, name)) for name in names]
        if len(set(lengths)) > 1 or min(lengths) < 1:
            raise UsageError(f"{', '.join(names)} must have one entry for each stage, got lengths {lengths}")

    def require_transformer(self, dims, heads, patch_size=1):
        """Raise UsageError unless widths divide into heads, images into patches, and the MLP has a width.

        Args:
            dims, heads: one number for each stage.
            patch_size: the patches that the image is cut into, without a rest.
        """
        self.require_rates("drop_rate", "attn_drop_rate", "drop_path_rate")
        self.require_heads(dims, heads)
        self.require_patches(patch_size)
        if not 0 < self.mlp_ratio < 1e3 or int(min(dims) * self.mlp_ratio) < 1:
            raise UsageError(f"mlp_ratio {self.mlp_ratio} leaves the MLP no sensible width")
        if not 0 < self.norm_eps < 1:
            raise UsageError(f"norm_eps must lie in (0, 1), got {self.norm_eps}")

    def require_layer_scale(self):
        """Raise UsageError unless LayerScale starts with a finite number, if it does."""
        if self.init_values is not None and not abs(self.init_values) < 1e6:
            raise UsageError(f"init_values must be a finite number, got {self.init_values}")

    def require_heads(self, dims, heads):
        """Raise UsageError unless each width divides into its number of heads."""
        for dim, count in zip(dims, heads, strict=True):
            if dim % count:
                raise UsageError(f"embed_dim {dim} does not divide into {count} heads: set a number of heads that fits")

    def require_patches(self, patch_size):
        """Raise UsageError unless the image divides into patches."""
        if any(side % patch_size for side in self.image_shape):
            raise UsageError(
                f"img_size {self.img_size} does not divide into patches of {patch_size}: set a patch_size that fits"
            )

    def derive(self, name, value):
        """Give the field ``name`` a value if it was left at None or empty."""
        if getattr(self, name) in (None, ()):
            object.__setattr__(self, name, value)


def pair(value):
    """``value`` as (rows, columns)."""
    return value if isinstance(value, tuple) else (value, value)


def convert(value, kind):
    """Return ``value`` as the ``kind`` of a field, so that JSON can hold it; a pair of equal sides is one number.

    Raises:
        TypeError: saying what was expected. ``depth="6"`` and ``num_classes=2.5`` are refused.
    """
    accepted = kind.__args__ if isinstance(kind, UnionType) else (kind,)
    for one in accepted:
        if one is bool and isinstance(value, (bool, np.bool_)):
            return bool(value)
        if one is int and _is(value, numbers.Integral):
            return int(value)
        if one is float and _is(value, numbers.Real):
            return float(value)
        if one is str and isinstance(value, str):
            return value
        if one is type(None) and value is None:
            return None
        if getattr(one, "__origin__", None) is tuple and isinstance(value, (list, tuple, np.ndarray)):
            numbers_ = tuple(int(v) for v in value if _is(v, numbers.Integral))
            if len(numbers_) == len(value) and (kind is Ints or len(value) == 2):
                return numbers_[0] if kind == Size and numbers_[0] == numbers_[1] else numbers_
    raise TypeError(f"must be of type {_KINDS[kind]}, got {value!r}")


def _is(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)
