"""Floor 2: modules, the building blocks of models, named as in the papers."""

from minivit.nn.attention import Attention, ClassAttention
from minivit.nn.binary import Affine, BinaryConv2d, BinaryLinear, BinaryUnit, RPReLU, TokenBatchNorm
from minivit.nn.binary_attention import BinaryAttention, BinaryBlock, BinaryMlp
from minivit.nn.block import Block, ClassBlock, Mlp, drop_path_rates
from minivit.nn.convolution import BatchNorm2d, Conv2d
from minivit.nn.layers import Dropout, DropPath, Gelu, LayerNorm, Linear
from minivit.nn.module import Buffer, Module, Parameter
from minivit.nn.patches import PatchEmbed
from minivit.nn.pooling import PoolingBranches
from minivit.nn.shifted_patches import ShiftedPatchPool, ShiftedPatchTokenization, shift_patches
from minivit.nn.token_mixers import TokenPerformer, TokenTransformer
from minivit.nn.windows import PatchMerging, WindowAttention

__all__ = [
    "Affine",
    "Attention",
    "BatchNorm2d",
    "BinaryAttention",
    "BinaryBlock",
    "BinaryConv2d",
    "BinaryLinear",
    "BinaryMlp",
    "BinaryUnit",
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
    "PoolingBranches",
    "RPReLU",
    "ShiftedPatchPool",
    "ShiftedPatchTokenization",
    "TokenBatchNorm",
    "TokenPerformer",
    "TokenTransformer",
    "WindowAttention",
    "drop_path_rates",
    "shift_patches",
]
