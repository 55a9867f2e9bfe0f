"""The tape: ``Tensor``, ``@op``, ``no_grad`` and ``backward``.

Reverse-mode differentiation in one file. An *op* is a function on raw arrays that returns its result and,
beside it, the vector-Jacobian product (VJP) for each of its array arguments::

    @op
    def mul(a, b, /):
        return a * b, (lambda g: g * b, lambda g: g * a)

``@op`` does all the rest, once, for every op: it unwraps tensors, records a node on the tape, skips the VJP of
an argument that needs no gradient, sums a cotangent over broadcast axes, and keeps dtypes. Gradients are first
order only: VJPs work on arrays, and so cannot themselves be differentiated.
"""

import contextlib
import functools
import inspect
import threading
import time

import numpy as np

__all__ = ["OPS", "Tensor", "backward", "is_grad_enabled", "no_grad", "observe", "op", "profile_ops", "unbroadcast"]

OPS = {}
"""Every op by name. The gradient-check suite walks this registry, so an untested op cannot exist."""


class _Mode(threading.local):
    """What this thread records: the tape (off inside ``no_grad``), times (inside ``profile_ops``); and who watches."""

    recording = True
    profile = None
    observer = None


_mode = _Mode()


@contextlib.contextmanager
def no_grad():
    """Context manager and decorator: ops inside record nothing, so nothing inside can be differentiated."""
    outer, _mode.recording = _mode.recording, False
    try:
        yield
    finally:
        _mode.recording = outer


def is_grad_enabled():
    """Return whether ops record themselves on the tape in this thread."""
    return _mode.recording


@contextlib.contextmanager
def profile_ops():
    """Time every op: yields a dict ``name -> [calls, forward seconds, backward seconds]`` that fills as they run."""
    outer, _mode.profile = _mode.profile, {}
    try:
        yield _mode.profile
    finally:
        _mode.profile = outer


@contextlib.contextmanager
def observe(observer):
    """Show ``observer`` all that this thread computes inside.

    After each op it gets ``observer.op(name, arrays, static, result)``: the inputs and the result as arrays (None for
    an optional input that is not there), and the keyword arguments. A module that is called gives way to
    ``observer.call(module, args, kwargs)``, which is to return ``module.forward(*args, **kwargs)``.
    """
    outer, _mode.observer = _mode.observer, observer
    try:
        yield
    finally:
        _mode.observer = outer


def current_observer():
    """Return the observer of this thread, or None."""
    return _mode.observer


_SUPPORTED = "expected float32, float64, integers or bool"


def _is_supported(dtype):
    return dtype.kind in "biu" or dtype in (np.float32, np.float64)


class _Node:
    """One recorded op: whom its cotangent goes to (``parents``: nodes, leaf tensors or None) and how (``vjps``).

    A node holds no result. Arrays stay alive only through the VJPs that need them.
    """

    __slots__ = ("dtypes", "name", "parents", "shapes", "vjps")

    def __init__(self, name, parents, vjps, shapes, dtypes):
        self.name, self.parents, self.vjps = name, parents, vjps
        self.shapes, self.dtypes = shapes, dtypes


class Tensor:
    """An array that remembers how it was computed.

    Args:
        data: an array, or anything ``np.asarray`` takes. Arrays keep their dtype (float32, float64, integers,
            bool) and are not copied; Python floats become float32.
        requires_grad: whether ``backward`` should leave a gradient in ``.grad``. Only for floating dtypes.

    Raises:
        TypeError: the dtype is none of the above, or ``requires_grad`` is asked of integers.

    The NumPy operators and method names are defined in ``minivit.ops.methods``.
    """

    __slots__ = ("__weakref__", "_node", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # so that ``array * tensor`` comes to Tensor.__rmul__ and stays on the tape

    def __init__(self, data, requires_grad=False):
        if isinstance(data, Tensor):
            data = data.data
        if not isinstance(data, (np.ndarray, np.generic)):
            data = np.asarray(data)
            if data.dtype == np.float64:
                data = data.astype(np.float32)
        self.data = np.asarray(data)
        if not _is_supported(self.data.dtype):
            raise TypeError(f"Tensor: {_SUPPORTED}, got dtype {self.data.dtype}")
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"Tensor: only floating dtypes can require gradients, got {self.data.dtype}")
        self.grad = None
        self.requires_grad = bool(requires_grad)
        self._node = None

    shape = property(lambda self: self.data.shape, doc="Sizes of the axes, a tuple of ints.")
    ndim = property(lambda self: self.data.ndim, doc="Number of axes.")
    size = property(lambda self: self.data.size, doc="Number of elements.")
    dtype = property(lambda self: self.data.dtype, doc="NumPy dtype of the elements.")
    is_leaf = property(lambda self: self._node is None, doc="True if no recorded op made this tensor.")

    def numpy(self):
        """Return the array itself, not a copy. Write to it only if you know that no VJP still needs it."""
        return self.data

    def item(self):
        """Return the single element as a Python number; ValueError if there are more."""
        return self.data.item()

    def detach(self):
        """Return a tensor on the same array that is cut off from the tape."""
        return Tensor(self.data)

    def backward(self, grad=None):
        """Add d(self)/d(leaf) to ``.grad`` of every leaf that requires it. See :func:`backward`."""
        backward(self, grad)

    def zero_grad(self):
        """Forget the gradient."""
        self.grad = None

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:  # as in PyTorch: NumPy's functions would leave the tape without a word
            raise TypeError("Tensor: NumPy does not record gradients; use an op of minivit.ops, or .detach() first")
        return np.array(self.data, dtype=dtype, copy=copy)

    def __len__(self):
        return len(self.data)

    def __bool__(self):
        return bool(self.data)

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __format__(self, spec):
        return format(self.item() if spec else str(self), spec)

    def __setitem__(self, index, value):
        raise TypeError("Tensor: writing in place would falsify recorded gradients; use minivit.ops.where instead")

    def __repr__(self):
        text = np.array2string(self.data, separator=", ", prefix="Tensor(", threshold=50)
        flag = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({text}, dtype={self.data.dtype}{flag})"


def op(forward):
    """Turn ``forward(arrays..., /, static...) -> (result, vjps)`` into an op on tensors, and register it.

    Positional-only parameters are the arrays: tensors, arrays, numbers, or None where that is the default. All
    other parameters are static. ``vjps`` is a tuple with one function ``g -> cotangent`` for each array
    (None where there is no derivative), or a single function ``g -> tuple of cotangents`` when they are best
    computed jointly. A VJP must not write to ``g``, and need not undo broadcasting or casting.

    Numbers, plain arrays and integers beside a floating tensor take its dtype, so that no stray float64 constant
    turns a float32 network into a float64 one; without a floating tensor or a float64 array, the result is float32.
    Tensors of different floating dtypes promote as in NumPy, and each gradient comes back in its own tensor's dtype.

    Raises (from the op): ValueError, TypeError or IndexError naming the op and the shapes it was given.
    """
    name = forward.__name__.strip("_")
    parameters = inspect.signature(forward).parameters.values()
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    defaults = [p.default for p in parameters if p.kind is p.POSITIONAL_ONLY]
    n_arrays, n_required = len(defaults), defaults.count(inspect.Parameter.empty)

    @functools.wraps(forward)
    def apply(*args, **static):
        started = time.perf_counter()
        count = len(args) if variadic else min(n_arrays, len(args))
        inputs, rest = args[:count], args[count:]
        dtype = floating_dtype(inputs)
        arrays = [to_array(x, dtype) for x in inputs]
        try:
            if any(a is None for a in arrays[:n_required]):
                raise TypeError("expected arrays, got None")
            result, vjps = forward(*arrays, *rest, **static)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            kind = next((k for k in (ValueError, TypeError, IndexError) if isinstance(error, k)), ValueError)
            raise kind(f"{name}({describe(inputs)}): {error}") from error
        out = Tensor.__new__(Tensor)
        out.data = np.asarray(result)
        if dtype is None and out.data.dtype.kind == "f" and not any(_is_float64(x) for x in inputs):
            out.data = out.data.astype(np.float32, copy=False)  # NumPy chose for integers and numbers, not the user
        if not _is_supported(out.data.dtype):
            raise TypeError(f"{name}({describe(inputs)}): {_SUPPORTED}, and the result would be {out.data.dtype}")
        out.grad, out._node = None, None
        out.requires_grad = (
            _mode.recording
            and out.data.dtype.kind == "f"
            and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
        )
        if out.requires_grad:
            parents = tuple(_parent(x) for x in inputs)
            if not callable(vjps) and len(vjps) < len(inputs):
                raise TypeError(f"{name}: {len(vjps)} VJPs for {len(inputs)} arrays")
            if not callable(vjps):  # drop the VJPs that nobody will call, and with them the arrays they hold
                vjps = tuple(v if p is not None else None for p, v in zip(parents, vjps, strict=False))
            shapes = tuple(None if a is None else a.shape for a in arrays)
            dtypes = tuple(x.data.dtype if isinstance(x, Tensor) else None for x in inputs)
            out._node = _Node(name, parents, vjps, shapes, dtypes)
        if _mode.profile is not None:
            _log_time(name, calls=1, forward=time.perf_counter() - started)
        if _mode.observer is not None:
            _mode.observer.op(name, arrays, static, out.data)
        return out

    if name in OPS:
        raise ValueError(f"there is an op {name!r} already, in {OPS[name].__module__}")
    apply.raw = forward
    OPS[name] = apply
    return apply


def require_floats(*arrays):
    """Raise TypeError unless all ``arrays`` are floating: for ops whose result integers would silently truncate."""
    if any(a is not None and a.dtype.kind != "f" for a in arrays):
        raise TypeError("expected floating dtypes; convert with .astype(np.float32)")


def floating_dtype(inputs):
    """The floating dtype in which an op on ``inputs`` computes, or None if there is no floating tensor among them."""
    tensors = [x.data.dtype for x in inputs if isinstance(x, Tensor)]
    floating = [dtype for dtype in tensors if dtype.kind == "f"]
    return np.result_type(*floating) if floating else None


def _is_float64(x):
    return isinstance(x, (Tensor, np.ndarray)) and x.dtype == np.float64


def to_array(x, dtype):
    """The array of ``x``, in the floating ``dtype`` if there is one and ``x`` holds numbers."""
    if x is None:
        return None
    array = x.data if isinstance(x, Tensor) else np.asarray(x)
    return array.astype(dtype, copy=False) if dtype is not None and array.dtype.kind in "iuf" else array


def _parent(x):
    if not isinstance(x, Tensor) or not x.requires_grad:
        return None
    return x if x._node is None else x._node


def describe(inputs):
    """The dtypes and shapes of an op's inputs, for error messages; numbers as they are."""
    return ", ".join(f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else repr(x)[:40] for x in inputs)


def _log_time(name, calls=0, forward=0.0, backward=0.0):
    row = _mode.profile.setdefault(name, [0, 0.0, 0.0])
    row[0] += calls
    row[1] += forward
    row[2] += backward


def unbroadcast(g, shape):
    """Sum ``g`` over the axes along which an array of ``shape`` was broadcast: the VJP of broadcasting."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(extra + i for i, n in enumerate(shape) if n == 1 and g.shape[extra + i] != 1)
    return g.sum(axis=axes, keepdims=True).reshape(shape) if axes else g.reshape(shape)


def backward(root, grad=None):
    """Walk the tape backwards from ``root`` and add the gradient to ``.grad`` of every leaf that requires one.

    Nodes are visited in reverse topological order, so that a node runs once, after *all* of its consumers have
    added their cotangents: with ``b = a + a; c = b + b`` a walk that ran ``b`` at its first mention would be
    wrong. The order is found with an explicit stack (a chain of a million ops is fine), the cotangents live in
    a dictionary, and the graph is freed on the way.

    Args:
        root: the tensor to differentiate.
        grad: cotangent, of the shape of ``root``; may be left out for a single element.

    Raises:
        RuntimeError: ``root`` is not on the tape, or its graph was used already.
        ValueError: ``grad`` is missing for more than one element, or has another shape.
    """
    if not root.requires_grad:
        raise RuntimeError("backward: this tensor does not depend on any tensor that requires a gradient")
    if grad is None:
        if root.size != 1:
            raise ValueError(f"backward: only a single element needs no cotangent, and the shape is {root.shape}")
        grad = np.ones(root.shape, root.dtype)
    grad = np.array(grad, root.dtype)
    if grad.shape != root.shape:
        raise ValueError(f"backward: the cotangent has shape {grad.shape}, the tensor {root.shape}")

    start = _parent(root)
    order, leaves = _topological_order(start)
    cotangents = {id(start): grad}
    summed = set()  # parents whose cotangent is a sum made here, which may therefore be added to in place
    for node in reversed(order):
        g = cotangents.pop(id(node), None)
        if g is None:  # every consumer said that nothing flows this way
            node.vjps, node.parents = None, ()
            continue
        started = time.perf_counter()
        for i, (parent, part) in enumerate(zip(node.parents, _apply_vjps(node, g), strict=False)):
            if parent is None or part is None:
                continue
            part = unbroadcast(np.asarray(part), node.shapes[i]).astype(node.dtypes[i], copy=False)
            key = id(parent)
            if key not in cotangents:
                cotangents[key] = part
            elif key in summed and cotangents[key].shape == part.shape:
                cotangents[key] += part
            else:
                cotangents[key] = np.asarray(cotangents[key] + part)
                summed.add(key)
        if _mode.profile is not None:
            _log_time(node.name, backward=time.perf_counter() - started)
        node.vjps, node.parents = None, ()

    given = set()
    for leaf in leaves:
        g = cotangents.pop(id(leaf), None)
        if g is None:
            continue
        if leaf.grad is not None:
            g = np.asarray(leaf.grad + g)
        elif id(g) in given or not g.flags.owndata or not g.flags.writeable:
            g = g.copy()  # no two leaves may share one array, or a view of one
        given.add(id(g))
        leaf.grad = g


def _apply_vjps(node, g):
    try:
        if callable(node.vjps):
            return node.vjps(g)
        return tuple(
            vjp(g) if parent is not None and vjp is not None else None
            for parent, vjp in zip(node.parents, node.vjps, strict=False)
        )
    except Exception as error:
        raise RuntimeError(f"backward of {node.name}, with inputs of shapes {node.shapes}: {error}") from error


def _topological_order(start):
    """Nodes below ``start``, every node after its parents, and the leaf tensors among them."""
    if isinstance(start, Tensor):
        return [], [start]
    order, leaves, seen, stack = [], [], set(), [(start, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Tensor):
            leaves.append(node)
            continue
        if node.vjps is None:
            raise RuntimeError("backward: this graph was used by an earlier backward and freed; run the forward again")
        stack.append((node, True))
        stack.extend((parent, False) for parent in node.parents if parent is not None)
    return order, leaves


import minivit.ops  # noqa: E402, F401 - last, because ops import this file: it gives Tensor its operators
