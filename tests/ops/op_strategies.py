"""What the gradient suite feeds each op: ``CASES[name]`` draws ``Case(fn, inputs, options)``.

``fn`` takes tensors and calls the op called ``name``; ``inputs`` are float64 arrays; ``options`` go to ``gradcheck``,
``surrogate`` among them for ops that round: a function like ``fn``.
Values come from a seeded generator and keep away from kinks and ties by construction: a central difference across a
kink is wrong, not the gradient. The kinks have tests of their own.
"""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from minivit import ops

CASES = {}


@dataclass
class Case:
    fn: object
    inputs: list
    options: dict = field(default_factory=dict)


def case(*names):
    """Register a composite strategy ``draw, name -> Case`` under each of ``names``."""

    def register(make):
        for name in names:
            CASES[name] = st.composite(make)(name)
        return make

    return register


# --- arrays ------------------------------------------------------------------------------------------------------

SIZES = st.sampled_from([0, 1, 1, 2, 3, 3])
GROWN = st.sampled_from([1, 2, 3])
SHAPES = st.lists(SIZES, max_size=3).map(tuple)
NONEMPTY = st.lists(GROWN, max_size=3).map(tuple)
LAYOUTS = ["C", "F", "every second", "reversed", "swapped", "read-only"]


def lay_out(values, layout):
    """The same values with other strides."""
    if not values.ndim:
        return np.array(values)
    if layout == "F":
        return np.asfortranarray(values)
    if layout == "every second":
        wide = np.full([2 * n for n in values.shape], np.nan)
        view = wide[(slice(None, None, 2),) * values.ndim]
        view[...] = values
        return view
    if layout == "reversed":
        back = (slice(None, None, -1),) * values.ndim
        return np.ascontiguousarray(values[back])[back]
    if layout == "swapped":
        return np.ascontiguousarray(values.swapaxes(0, -1)).swapaxes(0, -1)
    values = np.array(values, order="C")
    values.flags.writeable = layout != "read-only"
    return values


def array(draw, shape, low=-2.0, high=2.0):
    """Uniform values in any layout."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return lay_out(rng.uniform(low, high, shape), draw(st.sampled_from(LAYOUTS)))


def away_from(draw, shape, *kinks):
    """Values at least 0.05 away from each of ``kinks``."""
    values = array(draw, shape)
    for kink in kinks:
        values = np.where(np.abs(values - kink) < 0.05, kink + 0.1, values)
    return lay_out(values, draw(st.sampled_from(LAYOUTS)))


def distinct(draw, shape):
    """Values of which no two are closer than 0.05."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = int(np.prod(shape))
    values = (0.1 * rng.permutation(n) - 0.05 * n + rng.uniform(0, 0.05, n)).reshape(shape)
    return lay_out(values, draw(st.sampled_from(LAYOUTS)))


def broadcastable(draw, shape):
    """A shape that broadcasts to ``shape``."""
    cut = draw(st.integers(0, len(shape)))
    return tuple(draw(st.sampled_from([1, n])) for n in shape[cut:])


def two_shapes(draw):
    shape = draw(SHAPES)
    return (shape, broadcastable(draw, shape))[:: draw(st.sampled_from([1, -1]))]


def an_axis(draw, ndim, *, several=False):
    """None, one axis or (if ``several``) a tuple of them; negative ones too."""
    if not ndim:
        return None
    one = st.integers(-ndim, ndim - 1)
    kinds = [st.none(), one]
    if several:
        kinds.append(st.lists(one, unique_by=lambda i: i % ndim, max_size=ndim).map(tuple))
    return draw(st.one_of(kinds))


# --- elementwise -------------------------------------------------------------------------------------------------

BINARY = {
    "add": (lambda a, b: a + b, -2, 2),
    "sub": (lambda a, b: a - b, -2, 2),
    "mul": (lambda a, b: a * b, -2, 2),
    "div": (lambda a, b: a / b, 0.3, 2),
    "pow": (lambda a, b: a**b, 0.3, 2),
}


@case(*BINARY)
def _(draw, name):
    fn, low, high = BINARY[name]
    if draw(st.integers(0, 4)) == 0:  # one tensor twice
        return Case(lambda x: fn(x, x), [array(draw, draw(SHAPES), low, high)])
    a, b = two_shapes(draw)
    if name == "pow" and draw(st.booleans()):  # a whole exponent takes bases of both signs
        exponent = draw(st.sampled_from([0, 1, 2, 3, -1, -2]))
        return Case(lambda x: x**exponent, [away_from(draw, a, 0)])
    sign = -1 if name == "div" and draw(st.booleans()) else 1
    return Case(lambda x, y: fn(x, sign * y), [array(draw, a, low, high), array(draw, b, low, high)])


@case("maximum", "minimum")
def _(draw, name):
    shape, small = two_shapes(draw)
    n = int(np.prod(shape))
    values = distinct(draw, (n + int(np.prod(small)),))  # no ties between the two
    parts = [values[:n].reshape(shape), values[n:].reshape(small)]
    return Case(lambda a, b: getattr(ops, name)(a, b), [lay_out(p, draw(st.sampled_from(LAYOUTS))) for p in parts])


@case("neg", "exp", "tanh", "sigmoid", "erf")
def _(draw, name):
    return Case(getattr(ops, name), [array(draw, draw(SHAPES), -4, 4)])


@case("gelu")
def _(draw, name):
    form = draw(st.sampled_from(["exact", "tanh"]))
    return Case(lambda a: ops.gelu(a, form), [array(draw, draw(SHAPES), -4, 4)])


@case("log", "sqrt")
def _(draw, name):
    return Case(getattr(ops, name), [array(draw, draw(SHAPES), 0.2, 3)])


@case("abs", "relu")
def _(draw, name):
    return Case(getattr(ops, name), [away_from(draw, draw(SHAPES), 0)])


@case("clip")
def _(draw, name):
    low, high = draw(st.sampled_from([(-1, 1), (None, 0.5), (-0.5, None)]))
    return Case(lambda a: ops.clip(a, low, high), [away_from(draw, draw(SHAPES), *{low, high} - {None})])


@case("astype")
def _(draw, name):
    return Case(lambda a: ops.astype(a, np.float64), [array(draw, draw(SHAPES))])


@case("where")
def _(draw, name):
    a, b = two_shapes(draw)
    mask = array(draw, broadcastable(draw, np.broadcast_shapes(a, b))) > 0
    return Case(lambda x, y: ops.where(mask, x, y), [array(draw, a), array(draw, b)])


@case("dropout", "drop_path")
def _(draw, name):
    rate, seed = draw(st.sampled_from([0.0, 0.3, 0.9])), draw(st.integers(0, 9))
    return Case(lambda a: getattr(ops, name)(a, rate, np.random.default_rng(seed)), [array(draw, draw(SHAPES))])


# --- reductions and softmax --------------------------------------------------------------------------------------


@case("sum", "mean", "var", "max", "min", "logsumexp")
def _(draw, name):
    shape = draw(SHAPES if name == "sum" else NONEMPTY)
    axis, keepdims = an_axis(draw, len(shape), several=True), draw(st.booleans())
    options = {"axis": axis, "keepdims": keepdims}
    if name == "var" and draw(st.booleans()):
        shape, options["correction"] = tuple(n + 1 for n in shape) or (3,), 1
        options["axis"] = axis if axis != () else None
    values = distinct(draw, shape) if name in ("max", "min") else array(draw, shape)
    return Case(lambda a: getattr(ops, name)(a, **options), [values])


@case("std")
def _(draw, name):
    """Distinct values, at least two of them in every sum: the derivative jumps where the deviation is 0."""
    shape = tuple(n + 1 for n in draw(NONEMPTY)) or (3,)
    axis = an_axis(draw, len(shape), several=True)
    options = {"axis": None if axis == () else axis, "keepdims": draw(st.booleans())}
    options["correction"] = draw(st.integers(0, 1))
    return Case(lambda a: ops.std(a, **options), [distinct(draw, shape)])


@case("softmax", "log_softmax")
def _(draw, name):
    shape = draw(NONEMPTY.filter(len))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    options = {"scale": draw(st.sampled_from([0.5, 1, 3]))} if name == "softmax" else {}
    return Case(lambda a: getattr(ops, name)(a, axis, **options), [array(draw, shape, -4, 4)])


@case("cross_entropy")
def _(draw, name):
    b, c = draw(GROWN), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    labels = rng.integers(c, size=b)
    soft = rng.dirichlet(np.ones(c), b) * draw(st.sampled_from([1, 2]))  # rows that add up to 2 are legal
    targets, smoothing = draw(st.sampled_from([labels, soft])), draw(st.sampled_from([0.0, 0.1, 1.0]))
    return Case(
        lambda z: ops.cross_entropy(z, targets, label_smoothing=smoothing), [array(draw, (b, c), -4, 4)]
    )


# --- shapes ------------------------------------------------------------------------------------------------------


@case("reshape")
def _(draw, name):
    shape = draw(NONEMPTY)
    new = draw(st.permutations(shape)) + draw(st.sampled_from([[], [1]]))
    if new and draw(st.booleans()):
        new[draw(st.integers(0, len(new) - 1))] = -1
    return Case(lambda a: ops.reshape(a, tuple(new)), [array(draw, shape)])


@case("transpose")
def _(draw, name):
    shape = draw(SHAPES)
    order = draw(st.permutations(range(len(shape))))
    axes = draw(st.sampled_from([None, tuple(order), [i - len(shape) for i in order]]))
    return Case(lambda a: ops.transpose(a, axes), [array(draw, shape)])


@case("squeeze")
def _(draw, name):
    shape = draw(SHAPES)
    axis = draw(st.sampled_from([None, *(i for i, n in enumerate(shape) if n == 1)]))
    return Case(lambda a: ops.squeeze(a, axis), [array(draw, shape)])


@case("expand_dims")
def _(draw, name):
    shape = draw(SHAPES)
    axis = draw(st.one_of(st.integers(-1 - len(shape), len(shape)), st.just((0, -1))))
    return Case(lambda a: ops.expand_dims(a, axis), [array(draw, shape)])


@case("broadcast_to")
def _(draw, name):
    shape = draw(SHAPES)
    return Case(lambda a: ops.broadcast_to(a, shape), [array(draw, broadcastable(draw, shape))])


@case("concat")
def _(draw, name):
    shape = draw(SHAPES.filter(len))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shapes = [[*shape] for _ in range(draw(GROWN))]
    for s in shapes:
        s[axis] = draw(SIZES)
    arrays = [array(draw, s) for s in shapes]
    if draw(st.booleans()):
        return Case(lambda *a: ops.concat([*a, a[0]], axis), arrays)
    return Case(lambda *a: ops.concat(a, axis), arrays)


@case("stack")
def _(draw, name):
    shape = draw(SHAPES)
    axis = draw(st.integers(-1 - len(shape), len(shape)))
    return Case(lambda *a: ops.stack([*a, a[0]], axis), [array(draw, shape) for _ in range(draw(GROWN))])


@case("pad")
def _(draw, name):
    shape = draw(SHAPES.filter(len))
    pairs = [(draw(st.integers(0, 2)), draw(st.integers(0, 1))) for _ in shape]
    widths = draw(st.sampled_from([1, (0, 1), pairs]))
    return Case(lambda a: ops.pad(a, widths, 0.5), [array(draw, shape)])


@case("roll", "flip")
def _(draw, name):
    shape = draw(SHAPES)
    axis = an_axis(draw, len(shape), several=True)
    if name == "flip":
        return Case(lambda a: ops.flip(a, axis), [array(draw, shape)])
    shift = draw(st.integers(-4, 4))
    shifts = tuple(shift + i for i in range(len(axis))) if isinstance(axis, tuple) else shift
    return Case(lambda a: ops.roll(a, shifts, axis), [array(draw, shape)])


INDICES = [
    0, -1, (1, 2), np.int64(1), None, ..., slice(None, None, -1), slice(0, 0), (slice(1, None), None, 0),
    (..., slice(None, None, 2)), [0, 0, 1], [], np.array([[1, 1], [0, 1]]), ([0, 1, 1], [2, 2, 0]),
    (slice(None), [2, 0, 2]), (np.array([0, 1])[:, None], [0, 3]), True, np.eye(2, 4) > 0, (0, np.ones(4, bool)),
    ops.where(np.array([True, False]), 1, 0),
]  # fmt: skip


@case("getitem")
def _(draw, name):
    index = draw(st.sampled_from(INDICES))
    return Case(lambda a: a[index], [array(draw, (2, 4))])


# --- products ----------------------------------------------------------------------------------------------------


@case("matmul")
def _(draw, name):
    n, k, m = draw(SIZES), draw(SIZES), draw(SIZES)
    form = draw(st.sampled_from(["vv", "vm", "mv", "mm", "batched", "same"]))
    if form == "same":
        return Case(lambda x: x @ x, [array(draw, (n, n))])
    if form == "batched":
        a, b = two_shapes(draw)
        shapes = draw(st.sampled_from([((*a, n, k), (*b, k, m)), ((*a, n, k), (k,)), ((k,), (*b, k, m))]))
    else:
        shapes = {"vv": [(k,), (k,)], "vm": [(k,), (k, m)], "mv": [(n, k), (k,)], "mm": [(n, k), (k, m)]}[form]
    return Case(lambda x, y: x @ y, [array(draw, s) for s in shapes])


@case("linear")
def _(draw, name):
    lead, n, k = draw(SHAPES), draw(SIZES), draw(SIZES)
    shapes = [(*lead, k), (n, k), (n,)][: draw(st.sampled_from([2, 3]))]
    return Case(ops.linear, [array(draw, s) for s in shapes])


EINSUMS = ["ij,jk->ik", "ij->ji", "ij->", "ij->i", "i,j->ij", "bij,bjk->bik", "ij,ij", "ij,jk,kl->il", "i,i,i->i",
           "bhn,hm->bnm", "ijk,k->", " i j , j -> i ", ",ij->ij"]  # fmt: skip


@case("einsum")
def _(draw, name):
    subscripts = draw(st.sampled_from(EINSUMS))
    terms = subscripts.replace(" ", "").partition("->")[0].split(",")
    sizes = {c: draw(SIZES) for c in "".join(terms)}
    shapes = [[draw(st.sampled_from([sizes[c], 1])) for c in term] for term in terms]  # size 1 broadcasts
    return Case(lambda *a: ops.einsum(subscripts, *a), [array(draw, s) for s in shapes])


# --- images ------------------------------------------------------------------------------------------------------

PAIRS = st.one_of(st.integers(1, 2), st.tuples(st.integers(1, 3), st.integers(1, 2)))


@case("conv2d")
def _(draw, name):
    groups, b = draw(st.sampled_from([1, 1, 2])), draw(SIZES.map(lambda n: min(n, 2)))
    c, o = draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    options = {"stride": draw(PAIRS), "padding": draw(st.sampled_from([0, 1, (1, 0), (0, 2)])), "groups": groups}
    kernel = (draw(GROWN), draw(st.integers(1, 2)))
    x, weight = array(draw, (b, groups * c, draw(st.integers(3, 4)), 3)), array(draw, (o, c, *kernel))
    inputs = [x, weight, array(draw, (o,))][: draw(st.sampled_from([2, 3]))]
    return Case(lambda *a: ops.conv2d(*a, **options), inputs)


@case("avg_pool2d", "max_pool2d", "unfold")
def _(draw, name):
    kernel = draw(st.sampled_from([1, 2, 3, (2, 3), (3, 1)]))
    options = {"kernel": kernel, "stride": draw(PAIRS)}
    if name != "unfold" and draw(st.booleans()):
        options["stride"] = None
    if kernel == 3 or kernel == 2:
        options["padding"] = draw(st.sampled_from([0, 1, (1, 0)]))
    x = distinct(draw, (draw(SIZES), draw(st.integers(1, 2)), draw(st.integers(3, 4)), 3))
    return Case(lambda a: getattr(ops, name)(a, **options), [x])


# --- normalisation and attention ---------------------------------------------------------------------------------


@case("layer_norm")
def _(draw, name):
    shape = (*draw(SHAPES), draw(st.integers(1, 4)))
    eps = draw(st.sampled_from([0.1, 1e-2]))
    inputs = [array(draw, shape), array(draw, shape[-1:]), array(draw, shape[-1:])]
    return Case(lambda x, w, b: ops.layer_norm(x, w, b, eps=eps), inputs)


@case("batch_norm")
def _(draw, name):
    c, rest, training = draw(GROWN), draw(NONEMPTY)[:2], draw(st.booleans())
    shape = (draw(st.integers(2, 3)) if training else draw(SIZES), c, *rest)
    mean, var = array(draw, (c,)), array(draw, (c,), 0.5, 2)
    inputs = [array(draw, shape), array(draw, (c,)), array(draw, (c,))]
    return Case(lambda x, w, b: ops.batch_norm(x, w, b, mean.copy(), var.copy(), training, eps=0.1), inputs)


@case("attention")
def _(draw, name):
    b, h, n, m = draw(SIZES.map(lambda s: min(s, 2))), draw(st.integers(1, 2)), draw(SIZES), draw(GROWN)
    d, e = draw(GROWN), draw(GROWN)
    diagonal = draw(st.sampled_from([None, -np.inf, 0.5])) if m > 1 else None
    inputs = [array(draw, s) for s in [(b, h, n, d), (b, h, m, d), (b, h, m, e), (h,)]]
    if draw(st.booleans()):
        inputs.append(array(draw, broadcastable(draw, (b, h, n, m))))
    return Case(lambda *a: ops.attention(*a, diagonal=diagonal), inputs)


@case("self_attention")
def _(draw, name):
    b, h, n, d = draw(SIZES.map(lambda s: min(s, 2))), draw(st.integers(1, 2)), draw(GROWN), draw(st.integers(1, 2))
    diagonal = draw(st.sampled_from([None, -np.inf])) if n > 1 else None
    inputs = [array(draw, (b, n, 3 * h * d)), array(draw, (h,))]
    if draw(st.booleans()):
        inputs.append(array(draw, broadcastable(draw, (b, h, n, n))))
    return Case(lambda *a: ops.self_attention(*a, diagonal=diagonal), inputs)
