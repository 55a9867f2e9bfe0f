"""Mechanisms against plain NumPy, written from their definitions: loops over tokens, sums over all pairs."""

from itertools import product
from math import cos, sin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf, softmax

from minivit import Tensor, nn
from minivit.models.t2t import sinusoids, soft_split
from minivit.nn.init import normal

EXACT = {"rtol": 0, "atol": 1e-12}


def draw(seed=0):
    return np.random.default_rng(seed).standard_normal


def randomised(module, seed=0):
    """``module`` in float64 and evaluation mode, no parameter of which is 0 or 1; and its parameters by name."""
    rng = np.random.default_rng(seed)
    for _, parameter in module.named_parameters():
        parameter.data = rng.standard_normal(parameter.shape)
    return module.astype(np.float64).eval(), {name: p.data for name, p in module.named_parameters()}


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)


def layer_norm(x, p, name, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + eps) * p[f"{name}.weight"] + p[f"{name}.bias"]


def mlp(x, p):
    hidden = linear(x, p, "mlp.fc1")
    return linear(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, p, "mlp.fc2")


def heads_of(x, heads):
    """(B, N, H d) -> (B, H, N, d)."""
    return np.stack(np.split(x, heads, axis=-1), axis=1)


# --- attention ---------------------------------------------------------------------------------------------------

MASKS = {
    "none": {},
    "published": {"diagonal": -1e-9},
    "masked": {"mask_after_mixing": True},
    "both": {"diagonal": 0.5, "mask_after_mixing": True},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("mixing_bias", [True, False])
@pytest.mark.parametrize("bias", [None, (3, 5, 5), (2, 1, 5, 5)])
def test_talking_heads(mask, mixing_bias, bias):
    heads, d = 3, 2
    module, p = randomised(nn.Attention(
        4, heads, head_dim=d, talking_heads=lambda: nn.Linear(heads, heads, mixing_bias, init=normal(None)),
        learnable_temperature=True, init=normal(None), rng=None, **MASKS[mask],
    ))  # fmt: skip
    x, offset = draw(1)((2, 5, 4)), None if bias is None else draw(2)(bias)
    q, k, v = (heads_of(part, heads) for part in np.split(linear(x, p, "qkv"), 3, axis=-1))
    scores = np.einsum("h,bhnd,bhmd->bhnm", p["scale"], q, k) + (0 if bias is None else offset)
    if "diagonal" in MASKS[mask]:
        scores[..., range(5), range(5)] = MASKS[mask]["diagonal"]
    scores = np.einsum("ij,bjnm->binm", p["proj_l.weight"], scores)
    scores += p.get("proj_l.bias", np.zeros(heads))[:, None, None]
    if "mask_after_mixing" in MASKS[mask]:
        scores[..., range(5), range(5)] = -np.inf
    weights = np.einsum("ij,bjnm->binm", p["proj_w.weight"], softmax(scores, -1))
    weights += p.get("proj_w.bias", np.zeros(heads))[:, None, None]
    joined = np.concatenate(list(np.einsum("bhnm,bhmd->hbnd", weights, v)), axis=-1)
    expected = linear(joined, p, "proj")
    found = module(Tensor(x), None if bias is None else Tensor(offset)).data
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("talking", [False, True])
@pytest.mark.parametrize("proj", [False, True])
def test_class_attention(talking, proj):
    heads, d = 2, 3
    mixing = (lambda: nn.Linear(heads, heads, init=normal(None))) if talking else None
    module, p = randomised(
        nn.ClassAttention(5, heads, head_dim=d, talking_heads=mixing, proj=proj, init=normal(None), rng=None)
    )
    query, tokens = draw(1)((2, 1, 5)), draw(2)((2, 4, 5))
    rows = []
    for one, others in zip(query[:, 0], tokens, strict=True):
        q, k, v = (np.split(linear(x, p, name), heads, axis=-1) for name, x in zip("qkv", (one, others, others)))
        scores = np.array([k[h] @ q[h] / np.sqrt(d) for h in range(heads)])  # H, M
        if talking:
            scores = p["proj_l.weight"] @ scores + p["proj_l.bias"][:, None]
        weights = softmax(scores, -1)
        if talking:
            weights = p["proj_w.weight"] @ weights + p["proj_w.bias"][:, None]
        out = np.concatenate([weights[h] @ v[h] for h in range(heads)])
        rows.append(linear(out, p, "proj") if proj else out)
    np.testing.assert_allclose(module(Tensor(query), Tensor(tokens)).data[:, 0], rows, **EXACT)


# --- windows -----------------------------------------------------------------------------------------------------


def window_module(grid, window, shift, **options):
    return randomised(nn.WindowAttention(
        4, 2, grid, window, shift, table_init=normal(None), learnable_temperature=True, init=normal(None), rng=None,
        **options,
    ))  # fmt: skip


def attend(p, window, query, keys):
    """What a token gets from some tokens.

    Args:
        query: (vector, place). keys: list of (vector, place, number added to the score); places are (row, column).
    """
    heads = 2
    vector, (y, x) = query
    q = np.split(linear(vector, p, "qkv"), 3)[0]
    out = []
    for h, part in enumerate(np.split(q, heads)):
        scores, values = [], []
        for other, (r, c), extra in keys:
            _, k, v = (np.split(one, heads)[h] for one in np.split(linear(other, p, "qkv"), 3))
            row = (y - r + window[0] - 1) * (2 * window[1] - 1) + x - c + window[1] - 1
            scores.append(part @ k * p["scale"][h] + p["relative_position_bias_table"][row, h] + extra)
            values.append(v)
        out.append(softmax(scores) @ np.array(values))
    return linear(np.concatenate(out), p, "proj")


@pytest.mark.parametrize(
    "grid, window, shift",
    [
        ((4, 6), (2, 3), (0, 0)),
        ((4, 6), (2, 3), (1, 1)),
        ((6, 4), (3, 4), (1, 2)),  # one window across: no shift along that axis
        ((6, 8), (3, 4), (2, 1)),
        ((5, 10), (1, 5), (0, 2)),
        ((4, 4), (2, 2), (1, 0)),
    ],
)
def test_shifted_windows_are_a_partition_that_starts_elsewhere(grid, window, shift):
    """Where the grid divides into windows: the shifted windows tile the plane, and the grid's border clips them."""
    module, p = window_module(grid, window, shift)
    x = draw(3)((2, *grid, 4))
    shift = [s if n > m else 0 for s, n, m in zip(shift, grid, window, strict=True)]

    def window_of(place):
        return [(n - s) // m for n, s, m in zip(place, shift, window, strict=True)]

    places = list(product(*map(range, grid)))
    expected = [
        [
            attend(p, window, (image[a], a), [(image[b], b, 0) for b in places if window_of(a) == window_of(b)])
            for a in places
        ]
        for image in x
    ]
    found = module(Tensor(x.reshape(2, -1, 4))).data
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize(
    "grid, window, shift",
    [
        ((5, 7), (2, 3), (1, 1)),
        ((3, 8), (2, 5), (1, 2)),
        ((7, 3), (4, 3), (2, 1)),
        ((3, 5), (2, 2), (0, 1)),
        ((4, 7), (7, 2), (3, 1)),  # the window shrinks along one side
    ],
)
@pytest.mark.parametrize("diagonal", [None, -np.inf])
def test_padded_grids_take_the_steps_of_timm(grid, window, shift, diagonal):
    """Roll, pad with zeros, cut; -100 stands between tokens of different regions of the padded grid."""
    module, p = window_module(grid, window, shift, diagonal=diagonal)
    x = draw(3)((1, *grid, 4))[0]
    shift = [s if n > m else 0 for s, n, m in zip(shift, grid, window, strict=True)]
    window = [min(m, n) for m, n in zip(window, grid, strict=True)]
    padded = [-(-n // m) * m for n, m in zip(grid, window, strict=True)]
    assert padded != list(grid)

    def content(place):
        if all(i < n for i, n in zip(place, grid, strict=True)):
            return x[tuple((i + s) % n for i, s, n in zip(place, shift, grid, strict=True))]
        return np.zeros(4)

    def region(place):  # of the rolled grid: before the last window; in it; what the roll has brought there
        bounds = [(size - m, size - s) for size, m, s in zip(padded, window, shift, strict=True)]
        return [(i >= a) + (s > 0 and i >= b) for i, (a, b), s in zip(place, bounds, shift, strict=True)]

    places = list(product(*map(range, padded)))
    expected = np.empty((*grid, 4))
    for a in product(*map(range, grid)):
        keys = []
        for b in places:
            if all(i // m == j // m for i, j, m in zip(a, b, window, strict=True)):
                keys.append((content(b), b, -100 if any(shift) and region(a) != region(b) else 0))
                if a == b and diagonal is not None:
                    keys.pop()
        target = tuple((i + s) % n for i, s, n in zip(a, shift, grid, strict=True))
        expected[target] = attend(p, window, (content(a), a), keys)
    found = module(Tensor(x.reshape(1, -1, 4))).data[0]
    np.testing.assert_allclose(found, expected.reshape(-1, 4), **EXACT)


@pytest.mark.parametrize("grid", [(2, 4), (3, 4), (5, 3), (1, 1), (1, 6)])
def test_patch_merging(grid):
    module, p = randomised(nn.PatchMerging(2, 3, grid, init=normal(None)))
    x = draw(1)((2, *grid, 2))

    def token(image, r, c):
        return image[r, c] if r < grid[0] and c < grid[1] else np.zeros(2)

    expected = []
    for image in x:
        for r, c in product(range(0, grid[0], 2), range(0, grid[1], 2)):
            four = [token(image, r, c), token(image, r + 1, c), token(image, r, c + 1), token(image, r + 1, c + 1)]
            expected.append(layer_norm(np.concatenate(four), p, "norm") @ p["reduction.weight"].T)
    found = module(Tensor(x.reshape(2, -1, 2))).data
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), **EXACT)


# --- blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_block_with_and_without_layer_scale(layer_scale):
    attention, perceptron = nn.Linear(4, 4, init=normal(None)), nn.Mlp(4, 6, init=normal(None), rng=None)
    block = nn.Block(attention, perceptron, 4, layer_scale=layer_scale, rng=None)
    starts = [p.data for name, p in block.named_parameters() if "gamma" in name]
    assert len(starts) == (0 if layer_scale is None else 2) and all((s == np.float32(0.1)).all() for s in starts)
    block, p = randomised(block)
    x = draw(1)((2, 3, 4))
    y = x + p.get("gamma_1", 1) * linear(layer_norm(x, p, "norm1"), p, "attn")
    expected = y + p.get("gamma_2", 1) * mlp(layer_norm(y, p, "norm2"), p)
    np.testing.assert_allclose(block(Tensor(x)).data, expected, **EXACT)


@pytest.mark.parametrize("norm_context", [True, False])
def test_class_block(norm_context):
    """What the class token asks: itself and the patches under one norm, or the patches as they are."""
    attention = nn.ClassAttention(4, 2, init=normal(None), rng=None)
    perceptron = nn.Mlp(4, 6, init=normal(None), rng=None)
    block = nn.ClassBlock(attention, perceptron, 4, norm_context=norm_context, layer_scale=0.1, rng=None)
    block, p = randomised(block)
    cls, patches = draw(1)((2, 1, 4)), draw(2)((2, 3, 4))
    query = layer_norm(cls, p, "norm1")
    context = np.concatenate([query, layer_norm(patches, p, "norm1")], axis=1) if norm_context else patches
    y = cls + p["gamma_1"] * attention(Tensor(query), Tensor(context)).data
    expected = y + p["gamma_2"] * mlp(layer_norm(y, p, "norm2"), p)
    np.testing.assert_allclose(block(Tensor(cls), Tensor(patches)).data, expected, **EXACT)


@given(st.floats(0, 0.9), st.integers(1, 30))
def test_drop_path_rates(rate, depth):
    assert nn.drop_path_rates(rate, depth, "constant") == [rate] * depth
    rates = nn.drop_path_rates(rate, depth, "linear")
    expected = [rate * i / (depth - 1) for i in range(depth)] if depth > 1 else [0.0]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert all(type(r) is float for r in rates)


# --- token mixers ------------------------------------------------------------------------------------------------


def test_token_performer_is_attention_with_the_kernel_of_its_features():
    """A[s, t] = phi(q_s) . phi(k_t) / sum_u phi(q_s) . phi(k_u), all pairs written out."""
    module, p = randomised(
        nn.TokenPerformer(3, 4, init=normal(None), rng=np.random.default_rng(5), generator=None)
    )
    w = module.w.data
    x = draw(1)((2, 5, 3))
    k, q, v = np.split(linear(layer_norm(x, p, "norm1"), p, "kqv") * 1.0, 3, axis=-1)

    def phi(z):
        return np.exp(w @ z - z @ z / 2) / np.sqrt(len(w))

    y = np.empty((2, 5, 4))
    for b, s in np.ndindex(2, 5):
        kernel = np.array([phi(q[b, s]) @ phi(k[b, t]) for t in range(5)])
        y[b, s] = v[b, s] + linear(kernel @ v[b] / (kernel.sum() + 1e-8), p, "proj")
    hidden = linear(layer_norm(y, p, "norm2"), p, "mlp.0")
    expected = y + linear(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, p, "mlp.2")
    np.testing.assert_allclose(module(Tensor(x)).data, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dim", [2, 6, 16])
def test_random_features_are_orthogonal(dim):
    w = nn.TokenPerformer(3, dim, init=normal(None), rng=np.random.default_rng(0), generator=None).w.data
    assert w.shape == (dim // 2, dim) and w.dtype == np.float32
    np.testing.assert_allclose(w @ w.T, dim // 2 * np.eye(dim // 2), rtol=0, atol=1e-5 * dim)


def test_token_transformer_adds_the_values_and_scales_by_the_width_of_its_input():
    module, p = randomised(nn.TokenTransformer(3, 2, diagonal=-np.inf, init=normal(None), rng=None))
    x = draw(1)((2, 4, 3))
    q, k, v = np.split(linear(layer_norm(x, p, "norm1"), p, "attn.qkv"), 3, axis=-1)
    scores = q @ k.swapaxes(1, 2) / np.sqrt(3)
    scores[:, range(4), range(4)] = -np.inf
    y = v + linear(softmax(scores, -1) @ v, p, "attn.proj")
    expected = y + mlp(layer_norm(y, p, "norm2"), p)
    np.testing.assert_allclose(module(Tensor(x)).data, expected, **EXACT)


# --- soft splits and positions of T2T-ViT ------------------------------------------------------------------------


@pytest.mark.parametrize("kernel, stride, padding", [(7, 4, 2), (3, 2, 1), (2, 2, 0), (3, 1, 0)])
@pytest.mark.parametrize("size", [(9, 8), (4, 7)])
def test_soft_split_is_row_by_row_and_channel_by_channel(kernel, stride, padding, size):
    x = draw()((2, 3, *size))
    rows, columns = ((n + 2 * padding - kernel) // stride + 1 for n in size)

    def pixel(image, channel, i, j):
        inside = 0 <= i < size[0] and 0 <= j < size[1]
        return image[channel, i, j] if inside else 0

    expected = [
        [
            [pixel(image, c, r * stride - padding + i, s * stride - padding + j)
             for c in range(3) for i in range(kernel) for j in range(kernel)]
            for r in range(rows) for s in range(columns)
        ]
        for image in x
    ]  # fmt: skip
    np.testing.assert_array_equal(soft_split(Tensor(x), kernel, stride, padding).data, expected)


@pytest.mark.parametrize("positions, dim", [(1, 1), (5, 4), (17, 7), (65, 32)])
def test_position_sinusoids(positions, dim):
    table = sinusoids(positions, dim)
    assert table.shape == (1, positions, dim) and table.dtype == np.float32
    for p, j in np.ndindex(positions, dim):
        angle = p / 10000 ** ((j - j % 2) / dim)
        assert abs(table[0, p, j] - (cos(angle) if j % 2 else sin(angle))) < 1e-7
