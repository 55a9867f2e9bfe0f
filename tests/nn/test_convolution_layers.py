"""Conv2d and BatchNorm2d as layers: shapes, initial values, statistics."""

import numpy as np
import pytest

from minivit import Tensor, nn
from minivit.nn.init import he_normal_fan_out, uniform_fan_in

RNG = np.random.default_rng(0)


def images(*shape, dtype=np.float32):
    return Tensor(RNG.standard_normal(shape).astype(dtype), requires_grad=True)


@pytest.mark.parametrize(
    "options, weight, out",
    [
        ({}, (4, 2, 3, 3), (3, 4, 5, 6)),
        ({"padding": 1, "stride": 2}, (4, 2, 3, 3), (3, 4, 4, 4)),
        ({"groups": 2, "bias": False}, (4, 1, 3, 3), (3, 4, 5, 6)),
    ],
)
def test_convolution_has_the_shapes_of_pytorchs(options, weight, out):
    layer = nn.Conv2d(2, 4, 3, **options, init=uniform_fan_in(np.random.default_rng(0)))
    shapes = {name: p.shape for name, p in layer.named_parameters()}
    assert shapes == {"weight": weight} | ({} if "bias" in options else {"bias": (4,)})
    x = images(3, 2, 7, 8)
    result = layer(x)
    assert result.shape == out and result.dtype == np.float32
    result.backward(np.ones(out, np.float32))
    assert x.grad.shape == x.shape
    bound = 1 / np.sqrt(9 * 2 / options.get("groups", 1))
    assert all(0.3 * bound < np.abs(p.data).max() <= bound for p in layer.parameters())


def test_convolution_refuses_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="3 -> 4 channels do not divide into 2 groups"):
        nn.Conv2d(3, 4, 1, groups=2, init=he_normal_fan_out(None))


def test_he_initialisation_counts_the_fan_out_of_a_group():
    layer = nn.Conv2d(60, 80, 3, groups=4, init=he_normal_fan_out(np.random.default_rng(0), 4))
    assert abs(layer.weight.data.std() / np.sqrt(2 / (9 * 20)) - 1) < 0.03
    assert not layer.bias.data.any()


def test_batch_norm_normalises_the_batch_and_tracks_it():
    layer = nn.BatchNorm2d(3, eps=1e-3, momentum=0.25).astype(np.float64)
    first, second = (RNG.normal(2, 3, (4, 3, 5, 2)) for _ in range(2))
    out = layer(Tensor(first)).data
    np.testing.assert_allclose(out.mean((0, 2, 3)), 0, atol=1e-12)
    variance = first.var((0, 2, 3))
    np.testing.assert_allclose(out.var((0, 2, 3)), variance / (variance + 1e-3), rtol=1e-12)
    layer(Tensor(second))
    mean, var = np.zeros(3), np.ones(3)
    for x in (first, second):
        mean, var = 0.75 * mean + 0.25 * x.mean((0, 2, 3)), 0.75 * var + 0.25 * x.var((0, 2, 3), ddof=1)
    state = layer.state_dict()
    np.testing.assert_allclose(state["running_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(state["running_var"], var, rtol=1e-12)
    assert state["num_batches_tracked"] == 2 and state["num_batches_tracked"].shape == ()
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias"}

    expected = (first - mean[:, None, None]) / np.sqrt(var + 1e-3)[:, None, None]
    np.testing.assert_allclose(layer.eval()(Tensor(first)).data, expected, rtol=1e-12)
    assert all((layer.state_dict()[name] == array).all() for name, array in state.items())


def test_batch_norm_keeps_its_counter_whole_and_its_precision():
    layer = nn.BatchNorm2d(2).astype(np.float64).astype(np.float32)
    out = layer(images(3, 2, 2, 2))
    assert out.dtype == layer.running_mean.dtype == layer.running_var.dtype == np.float32
    assert layer.num_batches_tracked.dtype == np.int64
    assert not nn.BatchNorm2d(2, zero_init=True).weight.data.any()


def test_batch_norm_does_not_lose_a_small_variance_beside_a_large_mean():
    x = (1000 + RNG.standard_normal((64, 2, 8, 8))).astype(np.float32)
    out = nn.BatchNorm2d(2)(Tensor(x)).data
    np.testing.assert_allclose(out.std((0, 2, 3)), 1, atol=1e-3)
    np.testing.assert_allclose(out.mean((0, 2, 3)), 0, atol=1e-3)
