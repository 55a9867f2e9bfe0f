"""Optimisers against PyTorch's trajectories, and the saving of their state."""

import numpy as np
import pytest

from minivit.errors import MinivitError
from minivit.kernels import use_backend
from minivit.kernels.adamw import adamw_step
from minivit.models import create_model
from minivit.tensor import Tensor
from minivit.training.optimizers import (
    SGD,
    Adam,
    AdamW,
    clip_grad_norm,
    decay_all,
    decay_like_deit,
    decay_weights,
)

NAMES = ("w", "b", "pos")


def make_parameters(golden, dtype=np.float32):
    g = golden("optimizers")
    return {name: Tensor(g[f"init.{name}"].astype(dtype), requires_grad=True) for name in NAMES}, g


def only_w(name, parameter):
    return name == "w"


def run(optimizer, parameters, g, lrs, trajectory, rtol, steps=range(10)):
    """Take the golden steps and compare with the golden values after each."""
    for t in steps:
        for name, p in parameters.items():
            p.grad = g[f"grads.{name}"][t].astype(p.data.dtype)
        optimizer.lr = float(g[lrs][t])
        optimizer.step()
        for name, p in parameters.items():
            np.testing.assert_allclose(p.data, g[f"{trajectory}.{name}"][t], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind, trajectory", [(AdamW, "adamw"), (Adam, "adam_l2")])
def test_adam_follows_pytorch(golden, backend, dtype, kind, trajectory):
    parameters, g = make_parameters(golden, dtype)
    with use_backend(backend):
        optimizer = kind(parameters.items(), weight_decay=0.05, decays=only_w)
        run(optimizer, parameters, g, "lrs", trajectory, rtol=1e-6)
    assert all(p.data.dtype == dtype for p in parameters.values())


@pytest.mark.parametrize("trajectory, nesterov", [("sgd_momentum", False), ("sgd_nesterov", True)])
def test_sgd_follows_pytorch(golden, trajectory, nesterov):
    parameters, g = make_parameters(golden)
    optimizer = SGD(parameters.items(), lr=0, nesterov=nesterov, weight_decay=5e-4, decays=only_w)
    run(optimizer, parameters, g, "sgd_lrs", trajectory, rtol=1e-6)
    assert all(p.data.dtype == np.float32 for p in parameters.values())


def test_clipping_follows_pytorch(golden):
    parameters, g = make_parameters(golden)
    for name, p in parameters.items():
        p.grad = g[f"grads.{name}"][-1].copy()
    norm = clip_grad_norm(parameters.values(), 1.0)
    assert norm == pytest.approx(float(g["clip.total_norm"]), rel=1e-6)
    for name, p in parameters.items():
        np.testing.assert_allclose(p.grad, g[f"clip.{name}"], rtol=1e-6)
        assert p.grad.dtype == np.float32


def test_clipping_leaves_small_and_missing_gradients_alone():
    small, missing = Tensor(np.ones(2, np.float32), requires_grad=True), Tensor(np.ones(2, np.float32))
    small.grad = np.array([3, 4], np.float32)
    assert clip_grad_norm([small, missing], 6.0) == pytest.approx(5)
    np.testing.assert_array_equal(small.grad, [3, 4])
    assert missing.grad is None


def test_clipping_does_not_hide_infinite_gradients():
    p = Tensor(np.ones(2, np.float32), requires_grad=True)
    p.grad = np.array([np.inf, 1], np.float32)
    assert clip_grad_norm([p], 1.0) == np.inf
    np.testing.assert_array_equal(p.grad, [np.inf, 1])


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_adamw_kernel_equals_its_twin(dtype, rtol):
    rng = np.random.default_rng(0)
    shape = (300, 333)  # enough for several threads, and no multiple of any register width
    arrays = {}
    for backend in ("numba", "numpy"):
        rng = np.random.default_rng(0)
        param, m = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        v = rng.random(shape).astype(dtype)
        with use_backend(backend):
            for step in (1, 2, 1000):
                grad = rng.standard_normal(shape[::-1]).astype(dtype).T  # not contiguous
                hyper = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.95), "eps": 1e-8}
                adamw_step(param, grad, m, v, step=step, **hyper)
        arrays[backend] = param, m, v
    for a, b in zip(arrays["numba"], arrays["numpy"], strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("make", [AdamW, lambda named: SGD(named, lr=0)])
def test_state_continues_exactly(golden, make):
    whole, g = make_parameters(golden)
    halves, _ = make_parameters(golden)

    def advance(optimizer, parameters, steps):
        for t in steps:
            for name, p in parameters.items():
                p.grad = g[f"grads.{name}"][t]
            optimizer.lr = 0.01
            optimizer.step()

    advance(make(whole.items()), whole, range(10))
    first = make(halves.items())
    advance(first, halves, range(4))
    second = make(halves.items())
    second.load_state_dict({name: array.copy() for name, array in first.state_dict().items()})
    advance(second, halves, range(4, 10))
    for name in NAMES:
        np.testing.assert_array_equal(halves[name].data, whole[name].data)


def test_foreign_state_is_refused(golden):
    parameters, _ = make_parameters(golden)
    optimizer = AdamW(parameters.items())
    state = optimizer.state_dict()
    with pytest.raises(MinivitError, match="does not fit the model: 1 entries differ, first 'exp_avg.w'"):
        optimizer.load_state_dict({name: array for name, array in state.items() if name != "exp_avg.w"})
    with pytest.raises(MinivitError, match="exp_avg_sq.b"):
        optimizer.load_state_dict(state | {"exp_avg_sq.b": np.zeros(6)})


def test_parameters_without_gradient_stay():
    p = Tensor(np.ones(3, np.float32), requires_grad=True)
    optimizer = AdamW([("p", p)], lr=1.0)
    optimizer.step()
    np.testing.assert_array_equal(p.data, 1)
    p.grad = np.ones(3, np.float32)
    optimizer.zero_grad()
    assert p.grad is None


def test_decay_groups():
    matrix, vector = Tensor(np.ones((2, 2))), Tensor(np.ones(2))
    table = Tensor(np.ones((1, 5, 2)))
    assert decay_weights("blocks.0.attn.qkv.weight", matrix)
    assert not decay_weights("norm.weight", vector)
    assert not decay_weights("pos_embed", table)
    assert not decay_weights("cls_token", table)
    assert all(decay_all(name, vector) for name in ("norm.weight", "pos_embed"))


FLAT = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
EXEMPT = {  # what the official codes exempt beside vectors and biases
    "vit": (FLAT, {"pos_embed", "cls_token"}),
    "deit_tiny_distilled_patch16_224": (FLAT, {"pos_embed", "cls_token", "dist_token"}),
    "cait_xxs24_224": (FLAT, {"pos_embed", "cls_token"}),
    "sl_cait": (FLAT, {"pos_embed", "cls_token"}),
    "pit_ti_distilled_224": ({"img_size": 40}, {"pos_embed", "cls_token"}),
    "swin_tiny_patch4_window7_224": ({"img_size": 32}, {"relative_position_bias_table"}),
    "sl_swin": ({}, {"relative_position_bias_table", "absolute_pos_embed"}),
    "t2t_vit_7": ({"img_size": 32}, {"cls_token"}),
    "binary_deit_cls": ({"img_size": 32}, {"pos_embed", "cls_token"}),
    "resnet20": ({}, set()),
}


@pytest.mark.parametrize("name", EXEMPT)
def test_decay_groups_of_models(name):
    keywords, exempt = EXEMPT[name]
    parameters = dict(create_model(name, seed=None, **keywords).named_parameters())
    spared = {n for n, p in parameters.items() if not decay_weights(n, p)}
    plain = {n for n, p in parameters.items() if p.ndim <= 1 or n.endswith(".bias")}
    assert plain <= spared
    assert {n.rpartition(".")[2] for n in spared - plain} == exempt
    assert {n for n in spared if decay_like_deit(n, parameters[n])} == exempt & {"dist_token"}
