"""For kernels that give what their NumPy twins give to the last bit: comparing them, on whatever may come in."""

import os
import subprocess
import sys

import numpy as np

from minivit.kernels import use_backend

SPECIAL = np.float32([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, -1e-39, 3e38, -3e38])


def both(function, *args):
    """What the kernel and its twin give, which must be the same to the last bit, signs of zeros included."""
    found = []
    for backend in ("numpy", "numba"):
        with use_backend(backend), np.errstate(all="ignore"):
            result = function(*args)
        found.append(result if isinstance(result, tuple) else (result,))
    for plain, fast in zip(*found, strict=True):
        assert_identical(fast, plain)
    return result


def assert_identical(found, expected):
    """Equal to the last bit; of a NaN only that it is one."""
    np.testing.assert_array_equal(found, expected, strict=True)
    if found.dtype.kind == "f":
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(expected[number]))


def spoiled(x, seed):
    """``x`` with a fifth of its entries replaced by NaN, infinities, zeros of both signs, tiny and huge numbers."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(x.shape) < 0.2, rng.choice(SPECIAL, x.shape), x)


def layouts(*arrays):
    """Yield copies of the arrays in other layouts: columns first, each second entry, backwards."""
    yield [np.asfortranarray(a) for a in arrays]
    yield [np.repeat(a, 2, axis=-1)[..., ::2] for a in arrays]
    yield [a[..., ::-1].copy()[..., ::-1] for a in arrays]


def run_apart(code, **environment):
    """Run code that ends with ``print("done")`` in a Python of its own, with these environment variables."""
    environment = os.environ | {"MINIVIT_KERNELS": "numba"} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "done\n", done.stderr
