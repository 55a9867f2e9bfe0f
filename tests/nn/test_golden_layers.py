"""Layers, one by one, against the official code."""

import re

import numpy as np
import pytest

from minivit import Tensor, nn
from minivit.errors import UsageError
from minivit.models.pit import TokenPool

TOLERANCE = {np.float64: 1e-6, np.float32: 1e-4}  # relative to the largest entry of each tensor
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)


def no_init(shape, fan_in=None):
    return np.full(shape, np.nan, np.float32)  # whatever the golden file leaves out would show


def assert_close(found, expected, dtype, what):
    assert found.shape == expected.shape and found.dtype == dtype, what
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCE[dtype], f"{what}: relative error {error:.2e}"


def check(module, file, names, dtype, layout=lambda name, array: array, **others):
    """Run ``module`` on a golden file.

    Args:
        names: official name -> ours, a list of (pattern, replacement).
        layout: function of the official name and an array that brings it into our layout.
        others: further inputs of the module, names of entries of the file.
    """

    def ours(official):
        for pattern, replacement in names:
            if re.fullmatch(pattern, official):
                return re.sub(pattern, replacement, official)
        raise AssertionError(f"no rule for {official}")

    official = [k.removeprefix("param.") for k in file if k.startswith("param.")]
    module.load_state_dict({ours(k): layout(k, file[f"param.{k}"]) for k in official})
    module.astype(dtype)
    inputs = {name: Tensor(file[name].astype(dtype), requires_grad=True) for name in ("input", *others.values())}
    x = inputs.pop("input")
    out = module(x, *inputs.values())
    assert_close(out.data, file["output"], dtype, "output")
    out.backward(file["grad_output"].astype(dtype))
    assert_close(x.grad, file["grad.input"], dtype, "gradient of the input")
    for name, tensor in inputs.items():
        assert_close(tensor.grad, file[f"grad.{name}"], dtype, f"gradient of {name}")
    parameters = dict(module.named_parameters())
    assert len(parameters) == len(official)
    for name in official:
        gradient = layout(name, file[f"grad.{name}"])
        assert_close(parameters[ours(name)].grad, gradient, dtype, f"gradient of {name}")


@DTYPES
@pytest.mark.parametrize("patch_size", [2, 3, 4, 8])
def test_patch_shifting(golden, patch_size, dtype):
    file = golden(f"layer_patch_shifting_p{patch_size}")
    x = Tensor(file["input"].astype(dtype), requires_grad=True)
    out = nn.shift_patches(x, patch_size)
    np.testing.assert_array_equal(out.data, file["output"])
    out.backward(file["grad_output"].astype(dtype))
    assert_close(x.grad, file["grad.input"], dtype, "gradient of the input")


SPT_NAMES = [(r"merging\.1\.(\w+)", r"norm.\1"), (r"merging\.2\.(\w+)", r"proj.\1")]


@DTYPES
def test_shifted_patch_tokenization(golden, dtype):
    module = nn.ShiftedPatchTokenization(3, 10, 4, init=no_init)
    check(module, golden("layer_spt_pe"), SPT_NAMES, dtype)


POOL_NAMES = [(pattern, f"spt.{replacement}") for pattern, replacement in SPT_NAMES]
POOL_NAMES.append((r"class_linear\.(\w+)", r"class_linear.\1"))


@DTYPES
@pytest.mark.parametrize("file, class_token", [("layer_spt_pool_class_token", True), ("layer_spt_pool_tokens", False)])
def test_shifted_patch_pool(golden, file, class_token, dtype):
    module = nn.ShiftedPatchPool(6, 12, class_token=class_token, grid=(4, 4), init=no_init)
    check(module, golden(file), POOL_NAMES, dtype)


def test_pooling_needs_its_grid():
    module = nn.ShiftedPatchPool(2, 4, class_token=False, grid=(2, 2), init=no_init)
    with pytest.raises(ValueError, match="expected 2x2 tokens to pool, got 6"):
        module(Tensor(np.ones((1, 6, 2), np.float32)))


ATTENTION_NAMES = [
    (r"scale", r"scale"),
    (r"to_qkv\.weight", r"qkv.weight"),
    (r"to_out\.0\.(\w+)", r"proj.\1"),
]


@DTYPES
@pytest.mark.parametrize("file, lsa", [("layer_lsa_vit", True), ("layer_lsa_pit", True), ("layer_attn_vit", False)])
def test_attention(golden, file, lsa, dtype):
    module = nn.Attention(
        12,
        3,
        qkv_bias=False,
        learnable_temperature=lsa,
        diagonal=-np.inf if lsa else None,
        init=no_init,
        rng=np.random.default_rng(0),
    )
    check(module, golden(file), ATTENTION_NAMES, dtype)


def test_attention_rejects_widths_that_do_not_divide():
    with pytest.raises(UsageError, match="the width 10 does not divide into 4 heads"):
        nn.Attention(10, 4, init=no_init, rng=None)


CAIT_NAMES = [
    (r"scale", r"scale"),
    (r"mix_heads_pre_attn", r"proj_l.weight"),
    (r"mix_heads_post_attn", r"proj_w.weight"),
    (r"to_out\.0\.(\w+)", r"proj.\1"),
]


def mixing(heads):
    return lambda: nn.Linear(heads, heads, bias=False, init=no_init)


def transpose_mixing(name, array):
    return array.T if name.startswith("mix_heads") else array


@DTYPES
def test_talking_heads_with_lsa(golden, dtype):
    """The small-data CaiT's patch attention, which sets the diagonal to -1e-9 before the heads are mixed."""
    file = dict(golden("layer_lsa_cait_patch"))
    for kind in ("param", "grad"):  # one layer for queries, keys and values
        file[f"{kind}.qkv"] = np.concatenate([file.pop(f"{kind}.to_q.weight"), file.pop(f"{kind}.to_kv.weight")])
    module = nn.Attention(
        12, 3, qkv_bias=False, learnable_temperature=True, diagonal=-1e-9, talking_heads=mixing(3), init=no_init,
        rng=None,
    )  # fmt: skip
    check(module, file, [*CAIT_NAMES, ("qkv", "qkv.weight")], dtype, transpose_mixing)


@DTYPES
def test_class_attention_with_lsa(golden, dtype):
    file = dict(golden("layer_lsa_cait_class"))
    for kind in ("param", "grad"):
        file[f"{kind}.k"], file[f"{kind}.v"] = np.split(file.pop(f"{kind}.to_kv.weight"), 2)
    module = nn.ClassAttention(
        12, 3, qkv_bias=False, learnable_temperature=True, talking_heads=mixing(3), init=no_init, rng=None
    )
    names = [*CAIT_NAMES, (r"to_q\.weight", "q.weight"), (r"(k|v)", r"\1.weight")]
    check(module, file, names, dtype, transpose_mixing, context="context")


UNCHANGED = [(r"(.+)", r"\1")]


@DTYPES
@pytest.mark.parametrize("file, lsa", [("layer_swin_block_shift2", False), ("layer_swin_block_shift2_lsa", True)])
def test_shifted_window_block(golden, file, lsa, dtype):
    attention = nn.WindowAttention(
        12, 3, (8, 8), (4, 4), (2, 2), table_init=no_init, learnable_temperature=lsa,
        diagonal=-np.inf if lsa else None, init=no_init, rng=None,
    )  # fmt: skip
    file = golden(file)
    np.testing.assert_array_equal(attention.mask, file["buffer.attn_mask"])
    np.testing.assert_array_equal(attention.index, file["buffer.attn.relative_position_index"])
    block = nn.Block(attention, nn.Mlp(12, 24, init=no_init, rng=None), 12, rng=None)
    check(block, file, UNCHANGED, dtype)


@DTYPES
def test_patch_merging(golden, dtype):
    check(nn.PatchMerging(6, 12, (4, 4), init=no_init), golden("layer_swin_patch_merging"), UNCHANGED, dtype)


@DTYPES
def test_pit_pooling(golden, dtype):
    names = [
        (r"downsample\.net\.0\.(\w+)", r"conv.\1"),
        (r"downsample\.net\.1\.(\w+)", r"pointwise.\1"),
        (r"cls_ff\.(\w+)", r"fc.\1"),
    ]
    module = TokenPool(6, 12, (4, 4), prefix=1, pointwise=True, init=no_init)
    check(module, golden("layer_pit_pool"), names, dtype)


@DTYPES
def test_token_transformer_with_lsa(golden, dtype):
    module = nn.TokenTransformer(27, 8, learnable_temperature=True, diagonal=-np.inf, init=no_init, rng=None)
    check(module, golden("layer_t2t_token_transformer_lsa"), UNCHANGED, dtype)
