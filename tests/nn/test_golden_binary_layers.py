"""Layers of binary networks, one by one, against the official code: results, gradients, running statistics."""

import numpy as np
import pytest

from minivit import Tensor, nn, ops
from minivit.errors import UsageError
from minivit.kernels import use_backend
from minivit.models.binary_vit import Downsample
from minivit.models.interop import BINARYVIT, to_minivit
from minivit.nn.init import normal

TOLERANCE = {np.float64: 1e-6, np.float32: 1e-4}  # relative to the largest entry of each tensor
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)
BACKENDS = pytest.mark.parametrize("backend", ["numba", "numpy"])
MODES = pytest.mark.parametrize("mode", ["eval", "train"])
NOTHING = normal(None)  # the rule for initial weights that draws none


def assert_close(found, expected, dtype, what):
    assert found.shape == expected.shape and found.dtype == dtype, what
    largest, error = np.abs(expected).max(), np.abs(found - expected).max()
    zero = 1e-7 if dtype is np.float64 else 1e-5  # what a BatchNorm behind it subtracts again has no gradient
    assert error <= (TOLERANCE[dtype] * largest if largest > 1e-12 else zero), f"{what}: {error:.2e} of {largest:.2e}"


def part(file, prefix):
    return {key.removeprefix(prefix): array for key, array in file.items() if key.startswith(prefix)}


class Network(nn.Module):
    """As much of a network as a file describes, under the names that the table of official names knows."""

    official_names, computed_names = (BINARYVIT,), ()

    def __init__(self, **parts):
        vars(self).update(parts)


def check(network, forward, file, official, dtype, backend):
    """Run ``forward`` on a golden file, whose names lack the prefix ``official`` of a whole network's."""

    def ours(prefix):
        return to_minivit({f"{official}.{name}": array for name, array in part(file, prefix).items()}, network)

    network.load_state_dict(ours("param.") | ours("buffer."))
    network.astype(dtype)
    x = Tensor(file["input"].astype(dtype), requires_grad=True)
    with use_backend(backend):
        out = forward(x)
        out.backward(file["grad_output"].astype(dtype))
    assert_close(out.data, file["output"], dtype, "output")
    assert_close(x.grad, file["grad.input"], dtype, "gradient of the input")
    del file["grad.input"]
    gradients, parameters = ours("grad."), dict(network.named_parameters())
    assert set(gradients) == set(parameters)
    for name, gradient in gradients.items():
        assert_close(parameters[name].grad, gradient, dtype, f"gradient of {name}")
    after = ours("buffer_after." if network.training else "buffer.")
    buffers = dict(network.named_buffers())
    assert set(after) == set(buffers)
    for name, array in after.items():
        if name.endswith("num_batches_tracked"):
            assert buffers[name].data == array
        else:
            assert_close(buffers[name].data, array, dtype, name)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: nn.BinaryUnit(4, 6, init=NOTHING), "of the widths 4 and 6 one must be a multiple of the other"),
        (lambda: nn.BinaryUnit(0, 6, init=NOTHING), "of the widths 0 and 6 one must be"),
        (lambda: nn.BinaryAttention(8, 0, att_prob_clip=1.0, init=NOTHING), "width 8 does not divide into 0 heads"),
        (lambda: nn.BinaryAttention(8, 3, att_prob_clip=1.0, init=NOTHING), "width 8 does not divide into 3 heads"),
        (
            lambda: nn.BinaryAttention(8, 2, reduction=2, att_prob_clip=1.0, init=NOTHING),
            "reduction 2 needs a grid of tokens that divides into such cells, got None",
        ),
        (
            lambda: nn.BinaryAttention(8, 2, grid=(4, 6), reduction=4, att_prob_clip=1.0, init=NOTHING),
            r"reduction 4 needs a grid of tokens that divides into such cells, got \(4, 6\)",
        ),
    ],
)
def test_sizes_that_cannot_work_are_refused_at_once(build, message):
    with pytest.raises(UsageError, match=message):
        build()


LAYER = "vit.encoder.layer.0"


@BACKENDS
@DTYPES
@MODES
@pytest.mark.parametrize("name, reduction", [("layer_bin_attention", 1), ("layer_bin_attention_sr2", 2)])
def test_attention(golden, name, reduction, mode, dtype, backend):
    attn = nn.BinaryAttention(8, 2, grid=(4, 4), reduction=reduction, att_prob_clip=1.0, init=NOTHING)
    network = Network(blocks=[Network(attn=attn)]).train(mode == "train")
    check(network, attn, golden(f"{name}_{mode}"), f"{LAYER}.attention.attention", dtype, backend)


@BACKENDS
@DTYPES
@MODES
def test_output_of_attention(golden, mode, dtype, backend):
    block = Network(proj=nn.BinaryUnit(8, 8, init=NOTHING), affine1=nn.Affine(8, 1.0))
    network = Network(blocks=[block]).train(mode == "train")
    file = golden(f"layer_bin_attn_output_{mode}")
    check(network, lambda x: block.affine1(block.proj(x)), file, f"{LAYER}.attention.output", dtype, backend)


@BACKENDS
@DTYPES
@MODES
def test_mlp(golden, mode, dtype, backend):
    fc1 = nn.BinaryUnit(8, 32, init=NOTHING)
    network = Network(blocks=[Network(mlp=Network(fc1=fc1))]).train(mode == "train")
    check(network, fc1, golden(f"layer_bin_ffn_in_{mode}"), f"{LAYER}.intermediate", dtype, backend)
    fc2, affine = nn.BinaryUnit(32, 8, init=NOTHING), nn.Affine(8, 1.0)
    network = Network(blocks=[Network(mlp=Network(fc2=fc2), affine2=affine)]).train(mode == "train")
    check(network, lambda x: affine(fc2(x)), golden(f"layer_bin_ffn_out_{mode}"), f"{LAYER}.output", dtype, backend)


@BACKENDS
@DTYPES
@MODES
@pytest.mark.parametrize("binary", [True, False])
def test_down_sampling(golden, binary, mode, dtype, backend):
    layer = Downsample(6, 12, (8, 8), binary=binary, init=NOTHING, table=NOTHING)
    network = Network(downsamples=[layer]).train(mode == "train")
    file = golden(f"layer_{'bin' if binary else 'fp'}_patch_embed_{mode}")
    check(network, layer, file, "vit.encoder.patch_embed1", dtype, backend)


@BACKENDS
@DTYPES
@MODES
def test_batch_norm_of_tokens(golden, mode, dtype, backend):
    network = Network(norm=nn.TokenBatchNorm(6)).train(mode == "train")
    check(network, network.norm, golden(f"layer_batchnorm_tokens_{mode}"), "vit.layernorm", dtype, backend)


@BACKENDS
@DTYPES
def test_rprelu(golden, dtype, backend):
    act = nn.RPReLU(6)
    network = Network(blocks=[Network(attn=Network(act=act))])
    check(network, act, golden("layer_rprelu"), f"{LAYER}.attention.attention.rprelu_context", dtype, backend)


@BACKENDS
@DTYPES
def test_affine(golden, dtype, backend):
    affine = nn.Affine(6, 1.0)
    network = Network(blocks=[Network(affine2=affine)])
    check(network, affine, golden("layer_layerscale"), f"{LAYER}.output.layerscale", dtype, backend)


@BACKENDS
@DTYPES
def test_binary_linear(golden, dtype, backend):
    layer = nn.BinaryLinear(12, 7, init=NOTHING)
    network = Network(blocks=[Network(proj=Network(layer=layer))])
    file = golden("layer_binary_linear")
    check(network, lambda x: layer(ops.sign(x)), file, f"{LAYER}.attention.output.dense", dtype, backend)


@BACKENDS
@DTYPES
def test_binary_convolution(golden, dtype, backend):
    layer = nn.BinaryConv2d(6, 8, init=NOTHING)
    network = Network(downsamples=[Network(unit=Network(layer=layer))])
    file = golden("layer_binary_conv2x2_s2")
    check(network, lambda x: layer(ops.sign(x)), file, "vit.encoder.patch_embed1.proj", dtype, backend)


@BACKENDS
@DTYPES
def test_pooling_branches(golden, dtype, backend):
    pool = nn.PoolingBranches(4, (7, 7))
    network = Network(blocks=[Network(pool=pool)])
    file = golden("layer_pooling_branches")
    check(network, pool, file, LAYER, dtype, backend)
    for branch in ("h3", "w3", "h5", "w5"):
        found = only(branch, file["input"].astype(dtype), 7, backend)
        assert_close(found, file[f"pooled_only.{branch}"], dtype, branch)


def only(branch, tokens, side, backend):
    """What one branch gives before its affine layer."""
    pool = nn.PoolingBranches(tokens.shape[2], (side, side)).astype(tokens.dtype)
    getattr(pool, branch).scale.data[...] = 1
    with use_backend(backend):
        return pool(Tensor(tokens)).data


@BACKENDS
@DTYPES
@pytest.mark.parametrize("side", [1, 2, 3])
def test_pooling_of_grids_smaller_than_the_window(golden, side, dtype, backend):
    file = golden("layer_pooling_small_grids")
    for branch in ("h3", "w3", "h5", "w5"):
        found = only(branch, file[f"{side}.input"].astype(dtype), side, backend)
        assert_close(found, file[f"{side}.pooled.{branch}"], dtype, branch)
