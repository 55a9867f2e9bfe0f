"""What the gradient suite feeds each building block: ``CASES[block, variant]`` draws ``(module, inputs)``.

Sizes are small, odd and 1 among them; inputs have any strides. The modules' own initial values do not matter: the
suite draws all parameters, so that no scale is 1 and no bias 0.
"""

import numpy as np
from hypothesis import strategies as st

from minivit import nn
from minivit.models import pit, regnet, resnet, swin, t2t
from minivit.nn.init import normal

CASES = {}
ZEROS = normal(None)  # the rule for initial weights that draws none

BATCHES = st.sampled_from([1, 1, 2, 3])
FEW = st.integers(1, 2)
SIZES = st.sampled_from([1, 2, 2, 3])
TOKENS = st.integers(2, 4)
GRIDS = st.tuples(st.integers(1, 5), st.integers(1, 4))
RATES = st.sampled_from([0.0, 0.4])
SE_RATIOS = st.sampled_from([0.0, 1.0])
LSA = {"learnable_temperature": st.booleans(), "diagonal": st.sampled_from([None, -np.inf, 0.5])}
LAYOUTS = ["C", "every second", "reversed", "transposed"]


def case(block, *variants):
    """Register a strategy ``draw, variant -> (module, inputs)`` under each of ``variants``, or as the only one."""

    def register(make):
        for variant in variants or ("",):
            CASES[block, variant] = st.composite(make)(variant)
        return make

    return register


def array(draw, *shape):
    """Uniform values in any layout."""
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).uniform(-2, 2, shape)
    layout = draw(st.sampled_from(LAYOUTS))
    if layout == "every second":
        return np.repeat(values, 2, axis=-1)[..., ::2]
    if layout == "reversed":
        back = (slice(None, None, -1),) * values.ndim
        return np.ascontiguousarray(values[back])[back]
    return np.asarray(values, order="F" if layout == "transposed" else "C")


def options(draw, **strategies):
    return {name: draw(strategy) for name, strategy in strategies.items()}


def talking_heads(draw, heads):
    bias = draw(st.booleans())
    return lambda: nn.Linear(heads, heads, bias=bias, init=ZEROS)


# --- layers ------------------------------------------------------------------------------------------------------


@case(nn.Linear)
def _(draw, variant):
    n, m = draw(SIZES), draw(SIZES)
    return nn.Linear(n, m, draw(st.booleans()), init=ZEROS), [array(draw, *draw(st.lists(SIZES, max_size=2)), n)]


@case(nn.LayerNorm)
def _(draw, variant):
    dim = draw(st.integers(1, 4))
    return nn.LayerNorm(dim), [array(draw, *draw(st.lists(SIZES, max_size=2)), dim)]


@case(nn.Gelu)
def _(draw, variant):
    return nn.Gelu(), [array(draw, draw(SIZES), draw(SIZES))]


@case(nn.Dropout)
def _(draw, variant):
    return nn.Dropout(draw(RATES), None), [array(draw, draw(BATCHES), draw(SIZES), draw(SIZES))]


@case(nn.DropPath)
def _(draw, variant):
    return nn.DropPath(draw(RATES), None), [array(draw, draw(BATCHES), draw(SIZES), draw(SIZES))]


@case(nn.Conv2d)
def _(draw, variant):
    groups, n, m = draw(SIZES), draw(FEW), draw(FEW)
    sizes = options(draw, stride=FEW, padding=st.integers(0, 1), bias=st.booleans())
    conv = nn.Conv2d(groups * n, groups * m, draw(st.integers(1, 3)), groups=groups, init=ZEROS, **sizes)
    return conv, [array(draw, draw(FEW), groups * n, draw(st.integers(3, 4)), 3)]


@case(nn.BatchNorm2d, "train", "eval")
def _(draw, variant):
    channels = draw(SIZES)
    module = nn.BatchNorm2d(channels).train(variant == "train")
    if variant == "eval":
        module.running_mean.data, module.running_var.data = array(draw, channels), 1 + array(draw, channels) ** 2
    return module, [array(draw, draw(st.integers(2, 3)), channels, draw(SIZES), draw(SIZES))]


# --- attention ---------------------------------------------------------------------------------------------------


@case(nn.Attention, "fused", "with bias", "talking heads", "dropout")
def _(draw, variant):
    heads, n, b = draw(SIZES), draw(TOKENS), draw(BATCHES)
    dim = heads * draw(FEW)
    chosen = options(draw, head_dim=st.sampled_from([None, 1, 3]), qkv_bias=st.booleans(), proj=st.booleans(), **LSA)
    inputs = [array(draw, b, n, dim)]
    if variant == "talking heads":
        chosen |= {"talking_heads": talking_heads(draw, heads), "mask_after_mixing": draw(st.booleans())}
        chosen["diagonal"] = draw(st.sampled_from([None, -1e-9, 0.5]))
    if variant == "dropout":
        chosen |= {"attn_drop": 0.4, "proj_drop": draw(RATES)}
    if variant == "with bias" or variant != "fused" and draw(st.booleans()):
        shapes = [(n, n), (heads, n, n), (b, 1, n, n), (b, heads, n, n), (heads, 1, n), (1,)]
        inputs.append(array(draw, *draw(st.sampled_from(shapes))))
    return nn.Attention(dim, heads, init=ZEROS, rng=None, **chosen), inputs


@case(nn.ClassAttention, "fused", "talking heads", "dropout")
def _(draw, variant):
    heads, b, n = draw(SIZES), draw(BATCHES), draw(TOKENS)
    dim = heads * draw(FEW)
    chosen = options(draw, head_dim=st.sampled_from([None, 1, 3]), qkv_bias=st.booleans(), proj=st.booleans())
    chosen |= options(draw, learnable_temperature=st.booleans())
    if variant == "talking heads":
        chosen["talking_heads"] = talking_heads(draw, heads)
    if variant == "dropout":
        chosen |= {"attn_drop": 0.4, "proj_drop": draw(RATES)}
    module = nn.ClassAttention(dim, heads, init=ZEROS, rng=None, **chosen)
    return module, [array(draw, b, 1, dim), array(draw, b, n, dim)]


WINDOWS = {  # grid, window
    "divides": [((2, 4), (2, 2)), ((4, 2), (2, 1)), ((3, 3), (1, 3))],
    "padded": [((3, 4), (2, 3)), ((5, 2), (3, 2)), ((3, 3), (2, 2))],
    "shrunken": [((1, 3), (2, 2)), ((2, 5), (3, 3)), ((3, 2), (7, 7))],
}


@case(nn.WindowAttention, *WINDOWS)
def _(draw, variant):
    heads = draw(FEW)
    grid, window = draw(st.sampled_from(WINDOWS[variant]))
    shift = draw(st.sampled_from([(0, 0), tuple(m // 2 for m in window), (0, window[1] - 1)]))
    chosen = options(draw, qkv_bias=st.booleans(), attn_drop=RATES, **LSA)
    module = nn.WindowAttention(heads, heads, grid, window, shift, table_init=ZEROS, init=ZEROS, rng=None, **chosen)
    return module, [array(draw, draw(FEW), grid[0] * grid[1], heads)]


# --- blocks ------------------------------------------------------------------------------------------------------


@case(nn.Mlp)
def _(draw, variant):
    dim = draw(SIZES)
    mlp = nn.Mlp(
        dim, draw(SIZES), gelu=draw(st.sampled_from(["exact", "tanh"])), drop=draw(RATES), init=ZEROS, rng=None
    )
    return mlp, [array(draw, draw(BATCHES), 2, dim)]


def branches(draw, attention, dim, heads):
    """What a block is made of, and its options."""
    parts = attention(dim, heads, init=ZEROS, rng=None), nn.Mlp(dim, draw(SIZES), init=ZEROS, rng=None), dim
    return parts, {"drop_path": draw(RATES), "rng": None}


@case(nn.Block, "plain", "layer scale")
def _(draw, variant):
    heads = draw(FEW)
    parts, others = branches(draw, nn.Attention, 2 * heads, heads)
    block = nn.Block(*parts, layer_scale=0.1 if variant == "layer scale" else None, **others)
    return block, [array(draw, draw(BATCHES), draw(SIZES), 2 * heads)]


@case(nn.ClassBlock, "norm_context", "context as it is")
def _(draw, variant):
    b, heads = draw(BATCHES), draw(FEW)
    parts, others = branches(draw, nn.ClassAttention, 2 * heads, heads)
    others["layer_scale"] = draw(st.sampled_from([None, 0.1]))
    block = nn.ClassBlock(*parts, norm_context=variant == "norm_context", **others)
    return block, [array(draw, b, 1, 2 * heads), array(draw, b, draw(SIZES), 2 * heads)]


# --- patches -----------------------------------------------------------------------------------------------------


@case(nn.PatchEmbed, "plain", "with norm")
def _(draw, variant):
    channels, patch = draw(FEW), draw(SIZES)
    embed = nn.PatchEmbed(channels, draw(SIZES), patch, norm_eps=0.1 if variant == "with norm" else None, init=ZEROS)
    return embed, [array(draw, draw(FEW), channels, patch * draw(FEW), patch * draw(FEW))]


@case(nn.ShiftedPatchTokenization)
def _(draw, variant):
    patch, channels = draw(st.sampled_from([(1, 2), (2, 1), (3, 1)]))
    module = nn.ShiftedPatchTokenization(channels, draw(FEW), patch, init=ZEROS)
    return module, [array(draw, draw(FEW), channels, patch * draw(FEW), patch * draw(FEW))]


@case(nn.ShiftedPatchPool)
def _(draw, variant):
    class_token, channels = draw(st.booleans()), draw(FEW)
    rows, columns = grid = draw(st.sampled_from([(2, 2), (4, 4), (2, 4), (6, 2)]))
    module = nn.ShiftedPatchPool(channels, draw(FEW), class_token=class_token, grid=grid, init=ZEROS)
    return module, [array(draw, draw(FEW), class_token + rows * columns, channels)]


@case(nn.PatchMerging)
def _(draw, variant):
    grid, channels = draw(GRIDS), draw(FEW)
    module = nn.PatchMerging(channels, draw(SIZES), grid, init=ZEROS)
    return module, [array(draw, draw(FEW), grid[0] * grid[1], channels)]


@case(nn.TokenTransformer)
def _(draw, variant):
    width, dim = draw(SIZES), draw(SIZES)
    module = nn.TokenTransformer(width, dim, init=ZEROS, rng=None, **options(draw, **LSA))
    return module, [array(draw, draw(BATCHES), draw(TOKENS), width)]


@case(nn.TokenPerformer, "train", "eval")
def _(draw, variant):
    width, dim = draw(SIZES), draw(st.sampled_from([2, 4]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    module = nn.TokenPerformer(width, dim, init=ZEROS, rng=rng, generator=None).train(variant == "train")
    return module, [array(draw, draw(FEW), draw(SIZES), width)]


# --- blocks of single architectures ------------------------------------------------------------------------------


@case(pit.TokenPool)
def _(draw, variant):
    grid, channels, prefix = draw(GRIDS), draw(FEW), draw(FEW)
    dim = channels * draw(FEW)
    module = pit.TokenPool(channels, dim, grid, prefix, pointwise=draw(st.booleans()), init=ZEROS)
    return module, [array(draw, draw(FEW), prefix + grid[0] * grid[1], channels)]


@case(pit.ConvEmbed)
def _(draw, variant):
    channels, patch, side = draw(FEW), draw(SIZES), draw(st.integers(3, 5))
    module = pit.ConvEmbed(channels, draw(SIZES), patch, draw(FEW), init=ZEROS)
    return module, [array(draw, draw(FEW), channels, side, 3)]


def stage(draw, block):
    first = draw(st.sampled_from([None, nn.Linear(2, 3, init=ZEROS)]))
    width = 2 if first is None else 3
    mlps = [nn.Mlp(width, 2, init=ZEROS, rng=None) for _ in range(draw(FEW))]
    return block(first, mlps), [array(draw, draw(BATCHES), draw(SIZES), 2)]


@case(pit.Stage)
def _(draw, variant):
    return stage(draw, pit.Stage)


@case(swin.Stage)
def _(draw, variant):
    return stage(draw, swin.Stage)


@case(swin.Head)
def _(draw, variant):
    return swin.Head(3, 2, ZEROS), [array(draw, draw(BATCHES), 3)]


@case(t2t.TokensToToken, "transformer", "performer")
def _(draw, variant):
    size = (draw(st.sampled_from([2, 4])), 3)
    spt = variant == "transformer" and draw(st.booleans())
    config = t2t.T2TConfig(
        img_size=size, in_chans=1, embed_dim=1, num_heads=1, token_dim=2, tokens_type=variant, spt=spt
    )
    return t2t.TokensToToken(config, ZEROS, np.random.default_rng(0), None), [array(draw, 1, 1, *size)]


@case(t2t.AttentionWithInput)
def _(draw, variant):
    return t2t.AttentionWithInput(4, 2, init=ZEROS, rng=None, **options(draw, **LSA)), [array(draw, 2, draw(TOKENS), 4)]


@case(resnet.BasicBlock, "projection", "padding")
def _(draw, variant):
    before, after = draw(st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 3)]))
    stride = draw(FEW)
    block = resnet.BasicBlock(before, after, stride, shortcut=variant, zero_init=False, init=ZEROS)
    return block.train(draw(st.booleans())), [array(draw, 2, before, draw(st.integers(2, 4)), 3)]


def regnet_config(draw):
    return regnet.RegNetConfig(widths=(4,), depths=(2,), group_size=draw(FEW), se_ratio=draw(SE_RATIOS))


@case(regnet.Bottleneck)
def _(draw, variant):
    first = draw(st.booleans())
    before = 2 if first else 4
    stride = draw(FEW) if first else 1
    block = regnet.Bottleneck(before, 4, stride=stride, first=first, config=regnet_config(draw), rng=None)
    return block.train(draw(st.booleans())), [array(draw, 2, before, 3, draw(FEW))]


@case(regnet.Stage)
def _(draw, variant):
    config = regnet_config(draw)
    return regnet.Stage(1, 2, 2, draw(FEW), config, rng=None).eval(), [array(draw, 1, 1, 3, 1)]


@case(regnet.ConvNorm)
def _(draw, variant):
    chosen = options(draw, stride=FEW, groups=FEW, act=st.booleans())
    module = regnet.ConvNorm(2, 4, draw(st.sampled_from([1, 3])), rng=None, **chosen)
    return module.train(draw(st.booleans())), [array(draw, 2, 2, 3, draw(SIZES))]


@case(regnet.SqueezeExcite)
def _(draw, variant):
    channels = draw(SIZES)
    return regnet.SqueezeExcite(channels, draw(SIZES), rng=None), [array(draw, draw(FEW), channels, draw(SIZES), 2)]


@case(regnet.Head)
def _(draw, variant):
    return regnet.Head(2, 3, rng=None), [array(draw, draw(BATCHES), 2, draw(SIZES), draw(SIZES))]
