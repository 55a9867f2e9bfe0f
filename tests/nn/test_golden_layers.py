"""SPT and LSA, layer by layer, against the official code."""

import re

import numpy as np
import pytest

from minivit import Tensor, nn

TOLERANCE = {np.float64: 1e-6, np.float32: 1e-4}  # relative to the largest entry of each tensor
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)


def no_init(shape):
    return np.full(shape, np.nan, np.float32)  # whatever the golden file leaves out would show


def assert_close(found, expected, dtype, what):
    assert found.shape == expected.shape and found.dtype == dtype, what
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCE[dtype], f"{what}: relative error {error:.2e}"


def check(module, file, names, dtype):
    """Run ``module`` on a golden file. ``names``: official name -> ours, a list of (pattern, replacement)."""

    def ours(official):
        for pattern, replacement in names:
            if re.fullmatch(pattern, official):
                return re.sub(pattern, replacement, official)
        raise AssertionError(f"no rule for {official}")

    official = [k.removeprefix("param.") for k in file if k.startswith("param.")]
    module.load_state_dict({ours(k): file[f"param.{k}"] for k in official})
    module.astype(dtype)
    x = Tensor(file["input"].astype(dtype), requires_grad=True)
    out = module(x)
    assert_close(out.data, file["output"], dtype, "output")
    out.backward(file["grad_output"].astype(dtype))
    assert_close(x.grad, file["grad.input"], dtype, "gradient of the input")
    parameters = dict(module.named_parameters())
    assert len(parameters) == len(official)
    for name in official:
        assert_close(parameters[ours(name)].grad, file[f"grad.{name}"], dtype, f"gradient of {name}")


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
    check(nn.ShiftedPatchPool(6, 12, class_token=class_token, init=no_init), golden(file), POOL_NAMES, dtype)


def test_pooling_needs_a_square_grid():
    module = nn.ShiftedPatchPool(2, 4, class_token=False, init=lambda shape: np.ones(shape, np.float32))
    with pytest.raises(ValueError, match="square grid of tokens, got 6"):
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
        mask_diagonal=lsa,
        init=no_init,
        rng=np.random.default_rng(0),
    )
    check(module, golden(file), ATTENTION_NAMES, dtype)
