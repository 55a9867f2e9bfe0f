"""What the suite of binary gradients feeds each binary building block, in the manner of ``module_cases``."""

from hypothesis import strategies as st
from module_cases import FEW, GRIDS, ZEROS, array

from minivit import nn
from minivit.models import binary_vit

BINARY = {}


def case(block, *variants):
    """Register ``draw, variant -> (module, inputs)``, as for the suite of all other blocks."""

    def register(make):
        for variant in variants or ("",):
            BINARY[block, variant] = st.composite(make)(variant)
        return make

    return register


def tokens(draw, n, dim):
    return [array(draw, draw(FEW), n, dim)]


WIDTHS = {"equal": (4, 4), "wider": (2, 6), "narrower": (6, 2)}


@case(nn.BinaryLinear)
def _(draw, variant):
    return nn.BinaryLinear(4, 3, init=ZEROS), [array(draw, draw(FEW), 3, 4)]


@case(nn.BinaryConv2d)
def _(draw, variant):
    return nn.BinaryConv2d(2, 3, init=ZEROS), [array(draw, draw(FEW), 2, 4, 2)]


@case(nn.TokenBatchNorm, "train", "eval")
def _(draw, variant):
    return nn.TokenBatchNorm(3).train(variant == "train"), [array(draw, 2, 3, 3)]


@case(nn.RPReLU)
def _(draw, variant):
    return nn.RPReLU(3), tokens(draw, 2, 3)


@case(nn.Affine)
def _(draw, variant):
    return nn.Affine(3, 1.0), tokens(draw, 2, 3)


@case(nn.PoolingBranches)
def _(draw, variant):
    grid = draw(GRIDS)
    return nn.PoolingBranches(2, grid), tokens(draw, grid[0] * grid[1], 2)


@case(nn.BinaryUnit, *WIDTHS, "halving")
def _(draw, variant):
    if variant == "halving":
        return nn.BinaryUnit(2, 4, grid=(2, 4), init=ZEROS), tokens(draw, 8, 2)
    return nn.BinaryUnit(*WIDTHS[variant], init=ZEROS).train(draw(st.booleans())), tokens(draw, 3, WIDTHS[variant][0])


@case(nn.BinaryMlp)
def _(draw, variant):
    return nn.BinaryMlp(2, draw(FEW), init=ZEROS), tokens(draw, 3, 2)


def attention(draw, dim, reduction):
    return nn.BinaryAttention(dim, draw(FEW), grid=(2, 4), reduction=reduction, att_prob_clip=0.3, init=ZEROS)


@case(nn.BinaryAttention, "all tokens", "reduced")
def _(draw, variant):
    module = attention(draw, 4, 2 if variant == "reduced" else 1)
    return module.train(draw(st.booleans())), tokens(draw, 8, 4)


# Reduction, affine, pooling: of the rungs of binary DeiT, 0 and 1, 2, 3; and of BinaryViT's early stages.
BLOCKS = {"plain": (1, False, False), "branches": (1, False, True), "affine": (1, True, True),
          "reduced": (2, True, True)}  # fmt: skip


@case(nn.BinaryBlock, *BLOCKS)
def _(draw, variant):
    reduction, affine, pooling = BLOCKS[variant]
    grid = (2, 4) if pooling else None
    module = nn.BinaryBlock(attention(draw, 2, reduction), 2, 2, affine=affine, pooling_grid=grid, init=ZEROS)
    return module, tokens(draw, 8, 2)


@case(binary_vit.Downsample, "binary", "full precision")
def _(draw, variant):
    module = binary_vit.Downsample(2, 4, (4, 2), binary=variant == "binary", init=ZEROS, table=ZEROS)
    return module.train(draw(st.booleans())), tokens(draw, 8, 2)


@case(binary_vit.ConvUnit)
def _(draw, variant):
    return binary_vit.ConvUnit(2, 3, (2, 4), init=ZEROS), tokens(draw, 8, 2)
