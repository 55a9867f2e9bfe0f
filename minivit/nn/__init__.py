"""Floor 2: modules, the building blocks of models, named as in the papers."""

from minivit.nn.attention import Attention, ClassAttention
from minivit.nn.block import Block, ClassBlock, Mlp, drop_path_rates
from minivit.nn.convolution import BatchNorm2d, Conv2d
from minivit.nn.layers import Dropout, DropPath, Gelu, LayerNorm, Linear
from minivit.nn.module import Buffer, Module, Parameter
from minivit.nn.patches import PatchEmbed
from minivit.nn.shifted_patches import ShiftedPatchPool, ShiftedPatchTokenization, shift_patches
from minivit.nn.token_mixers import TokenPerformer, TokenTransformer
from minivit.nn.windows import PatchMerging, WindowAttention

__all__ = [
    "Attention",
    "BatchNorm2d",
    "Block",
    "Buffer",
    "ClassAttention",
    "ClassBlock",
    "Conv2d",
    "DropPath",
    "Dropout",
    "Gelu",
    "LayerNorm",
    "Linear",
    "Mlp",
    "Module",
    "Parameter",
    "PatchEmbed",
    "PatchMerging",
    "ShiftedPatchPool",
    "ShiftedPatchTokenization",
    "TokenPerformer",
    "TokenTransformer",
    "WindowAttention",
    "drop_path_rates",
    "shift_patches",
]
