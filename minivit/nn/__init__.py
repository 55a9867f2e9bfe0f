"""Floor 2: modules, the building blocks of models, named as in the papers."""

from minivit.nn.attention import Attention
from minivit.nn.block import Block, Mlp
from minivit.nn.layers import Dropout, DropPath, LayerNorm, Linear
from minivit.nn.module import Module, Parameter
from minivit.nn.patches import PatchEmbed
from minivit.nn.shifted_patches import ShiftedPatchPool, ShiftedPatchTokenization, shift_patches

__all__ = [
    "Attention",
    "Block",
    "DropPath",
    "Dropout",
    "LayerNorm",
    "Linear",
    "Mlp",
    "Module",
    "Parameter",
    "PatchEmbed",
    "ShiftedPatchPool",
    "ShiftedPatchTokenization",
    "shift_patches",
]
