"""Matrix products: ``matmul`` in all of NumPy's forms, ``linear``, ``einsum``."""

import math

import numpy as np

from minivit.kernels import products, rows
from minivit.tensor import op, require_floats, unbroadcast


@op
def matmul(a, b, /):
    """a @ b as in NumPy: 1-D operands are vectors, axes before the last two broadcast."""
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-min(2, b.ndim)]:
        raise ValueError("expected the last axis of the first and the last but one (or only) of the second to agree")
    # Promote vectors to matrices once, and the matrix rule serves all forms.
    a2 = a[None, :] if a.ndim == 1 else a
    b2 = b[:, None] if b.ndim == 1 else b

    def matrix(g):
        g = g[..., None] if b.ndim == 1 else g
        return np.expand_dims(g, -2) if a.ndim == 1 else g

    def vjp_a(g):
        return unbroadcast(matrix(g) @ b2.swapaxes(-1, -2), a2.shape).reshape(a.shape)

    def vjp_b(g):
        return unbroadcast(a2.swapaxes(-1, -2) @ matrix(g), b2.shape).reshape(b.shape)

    return a @ b, (vjp_a, vjp_b)


@op
def linear(x, weight, bias=None, /):
    """x W^T + b, on the last axis.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,) or None.

    Returns:
        (..., out).
    """
    require_floats(x, weight, bias)
    if x.ndim < 1 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError("expected x of shape (..., in) and a weight of shape (out, in)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError("expected a bias of shape (out,)")
    n = math.prod(x.shape[:-1])
    x2 = x.reshape(n, x.shape[-1])  # one matrix, so that BLAS runs once and not once for each image
    out = products.times_transposed(x2, weight, bias)

    def matrix(g):
        return g.reshape(n, weight.shape[0])

    return out.reshape(*x.shape[:-1], weight.shape[0]), (
        lambda g: products.times(matrix(g), weight).reshape(x.shape),
        lambda g: products.transposed_times(matrix(g), x2),
        lambda g: rows.column_sums(matrix(g)),
    )


@op
def _einsum(*operands, inputs, output):
    def vjp(i):
        """d/d operand i is an einsum too: of g and the other operands, with i's letters as output."""

        def apply(g):
            others = [o for j, o in enumerate(operands) if j != i]
            terms = [output, *(t for j, t in enumerate(inputs) if j != i)]
            known = [c for c in inputs[i] if any(c in t for t in terms)]
            part = np.einsum(",".join(terms) + "->" + "".join(known), g, *others, optimize=True)
            # a letter that stands nowhere else was summed over: its cotangent is constant along it
            index = tuple(slice(None) if c in known else None for c in inputs[i])
            part, shape = part[index], operands[i].shape
            summed = tuple(1 if n == 1 else p for n, p in zip(shape, part.shape, strict=True))
            return np.broadcast_to(unbroadcast(part, summed), shape)

        return apply

    spec = ",".join(inputs) + "->" + output
    return np.einsum(spec, *operands, optimize=True), tuple(vjp(i) for i in range(len(operands)))


def einsum(subscripts, *operands):
    """Sum of products in Einstein's notation, as ``np.einsum``: ``einsum("bhnd,bhmd->bhnm", q, k)``.

    Raises:
        ValueError: a letter stands twice in one term (a diagonal), or ``...`` is used.
    """
    inputs, _, output = subscripts.replace(" ", "").partition("->")
    inputs = inputs.split(",")
    if "->" not in subscripts:
        letters = "".join(inputs)
        output = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if "." in subscripts or any(len(set(t)) != len(t) for t in [*inputs, output]):
        raise ValueError(f"einsum: {subscripts!r}: an ellipsis or a letter twice in one term is not supported")
    if len(inputs) != len(operands):
        raise ValueError(f"einsum: {subscripts!r} names {len(inputs)} operands, {len(operands)} were given")
    return _einsum(*operands, inputs=tuple(inputs), output=output)
