"""``observe``: who computes can be watched, and nobody watches by default."""

import threading

import numpy as np
import pytest

from minivit import ops
from minivit.nn.module import Module, Parameter
from minivit.tensor import Tensor, current_observer, observe


class Recorder:
    """Remembers all it is shown, in order."""

    def __init__(self):
        self.seen = []

    def op(self, name, arrays, static, result):
        self.seen.append((name, [None if a is None else a.shape for a in arrays], static, result.shape))

    def call(self, module, args, kwargs):
        self.seen.append(("enter", module))
        result = module.forward(*args, **kwargs)
        self.seen.append(("leave", module))
        return result


class Double(Module):
    def __init__(self):
        self.weight = Parameter(np.eye(2, dtype=np.float32))

    def forward(self, x, *, times=2):
        return ops.linear(x, self.weight, None) * times


X = Tensor(np.ones((3, 2), np.float32))


def test_it_sees_ops_and_modules_in_order():
    module, recorder = Double(), Recorder()
    with observe(recorder):
        result = module(X, times=3)
    np.testing.assert_array_equal(result.data, np.full((3, 2), 3))
    assert recorder.seen == [
        ("enter", module),
        ("linear", [(3, 2), (2, 2), None], {}, (3, 2)),
        ("mul", [(3, 2), ()], {}, (3, 2)),
        ("leave", module),
    ]


def test_it_sees_keyword_arguments_and_leaves_results_and_gradients_alone():
    plain, watched, recorder = Double(), Double(), Recorder()
    plain(X).sum().backward()
    with observe(recorder):
        (watched(X)).sum(axis=(0, 1)).backward()
    assert ("sum", [(3, 2)], {"axis": (0, 1)}, ()) in recorder.seen
    np.testing.assert_array_equal(plain.weight.grad, watched.weight.grad)


def test_only_inside_and_only_the_innermost():
    outer, inner = Recorder(), Recorder()
    with observe(outer):
        with observe(inner):
            ops.exp(X)
        ops.log(X)
    ops.sqrt(X)
    assert [s[0] for s in outer.seen] == ["log"]
    assert [s[0] for s in inner.seen] == ["exp"]
    with pytest.raises(ZeroDivisionError), observe(outer):
        1 / 0  # noqa: B018
    assert current_observer() is None


def test_another_thread_is_not_watched():
    recorder = Recorder()
    with observe(recorder):
        thread = threading.Thread(target=lambda: Double()(X))
        thread.start()
        thread.join()
    assert recorder.seen == []
