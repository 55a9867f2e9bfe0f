"""Strategies for the ops of binary networks, added to those of ``op_strategies``: CASES holds all."""

import numpy as np
from hypothesis import strategies as st
from op_strategies import CASES, GROWN, LAYOUTS, SHAPES, SIZES, Case, array, away_from, case, lay_out

from minivit import ops
from minivit.ops import binary

__all__ = ["CASES"]

CHANNELS = st.lists(SIZES, max_size=2)  # what stands before the channels


@case("sign")
def _(draw, name):
    lead, c, estimator = draw(CHANNELS), draw(GROWN), draw(st.sampled_from(binary.ESTIMATORS))
    if draw(st.booleans()):
        inputs = [away_from(draw, draw(SHAPES), -1, 0, 1)]
    else:
        shift = array(draw, (c,), -0.5, 0.5)
        inputs = [away_from(draw, (*lead, c), -1, 0, 1) - shift, shift]
    return Case(
        lambda *a: ops.sign(*a, estimator=estimator), inputs,
        {"surrogate": lambda *a: binary.sign_surrogate(*a, estimator=estimator)},
    )  # fmt: skip


@case("binary_weight")
def _(draw, name):
    shape, centred = (draw(GROWN), draw(GROWN), *draw(st.sampled_from([(), (2, 2)]))), draw(st.booleans())
    rows = away_from(draw, shape, -1, 0, 1)
    if centred:  # what is added to a row is subtracted again; pairs of opposite signs leave its mean at 0
        rows = np.concatenate([rows, -rows], axis=1) + array(draw, (shape[0], *[1] * (len(shape) - 1)))
    return Case(
        lambda w: ops.binary_weight(w, centred=centred), [lay_out(rows, draw(st.sampled_from(LAYOUTS)))],
        {"surrogate": lambda w: binary.binary_weight_surrogate(w, centred)},
    )  # fmt: skip


@case("quantize_probabilities")
def _(draw, name):
    level = array(draw, (), 0.5, 2)
    inputs = [away_from(draw, draw(SHAPES), 0, 0.5, 1) * level, level]
    q = np.clip(inputs[0] / level, 0, 1)
    rounding = np.rint(q) - q
    return Case(
        ops.quantize_probabilities, inputs,
        {"surrogate": lambda p, c: binary.quantize_probabilities_surrogate(p, c, rounding)},
    )  # fmt: skip


def signs(draw, *shape):
    return np.where(array(draw, shape) >= 0, 1.0, -1.0)


@case("binary_linear")
def _(draw, name):
    """Two values in each row of the weight, and linear all the same: the derivative is that of ``linear``."""
    lead, n, k = draw(SHAPES), draw(SIZES), draw(SIZES)
    weight = signs(draw, n, k) * array(draw, (n, 1), 0.2, 2)
    inputs = [lay_out(a, draw(st.sampled_from(LAYOUTS))) for a in (signs(draw, *lead, k), weight)]
    return Case(ops.binary_linear, inputs, {"surrogate": ops.linear})


@case("binary_matmul")
def _(draw, name):
    lead, n, k, m = draw(st.lists(GROWN, max_size=2)), draw(SIZES), draw(SIZES), draw(SIZES)
    a, b = signs(draw, *lead, n, k), signs(draw, *lead, k, m)
    if draw(st.booleans()):
        a = (a > 0) * array(draw, (), 0.2, 2)
    inputs = [lay_out(x, draw(st.sampled_from(LAYOUTS))) for x in (a, b)]
    return Case(ops.binary_matmul, inputs, {"surrogate": ops.matmul})


@case("rprelu")
def _(draw, name):
    lead, c = draw(CHANNELS), draw(GROWN)
    shift = array(draw, (c,))
    return Case(ops.rprelu, [away_from(draw, (*lead, c), 0) + shift, shift, array(draw, (c,)), array(draw, (c,))])


@case("affine")
def _(draw, name):
    lead, c = draw(CHANNELS), draw(GROWN)
    return Case(ops.affine, [array(draw, s) for s in [(*lead, c), (c,), (c,)]])


@case("add_shortcut")
def _(draw, name):
    lead, c, times = draw(CHANNELS), draw(GROWN), draw(GROWN)
    widths = draw(st.sampled_from([(c, c), (c, times * c), (times * c, c)]))
    return Case(ops.add_shortcut, [array(draw, (*lead, width)) for width in widths])


@case("pool_cells")
def _(draw, name):
    b, rows, columns, size, c = draw(SIZES), draw(GROWN), draw(GROWN), draw(st.integers(1, 3)), draw(GROWN)
    grid = (rows * size, columns * size)
    return Case(lambda x: ops.pool_cells(x, grid=grid, size=size), [array(draw, (min(b, 2), grid[0] * grid[1], c))])


@case("pooling_branches")
def _(draw, name):
    b, c, grid = draw(SIZES), draw(GROWN), (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    inputs = [array(draw, s) for s in [(min(b, 2), grid[0] * grid[1], c), (4, c), (4, c)]]
    return Case(lambda *a: ops.pooling_branches(*a, grid=grid), inputs)
