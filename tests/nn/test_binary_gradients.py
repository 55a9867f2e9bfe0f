"""Gradients of binary building blocks, whose ops round, against finite differences of their surrogates.

An op that rounds is replaced by its surrogate, shifted so that at the point of differentiation it has the op's value.
The whole then is differentiable, and by the chain rule its derivative there is the straight-through gradient.
"""

from unittest import mock

import numpy as np
import pytest
from binary_cases import BINARY
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_module_gradients import VIEWS, prepare

from minivit import ops
from minivit.gradcheck import gradcheck
from minivit.ops import binary
from minivit.tensor import Tensor

EXAMPLES = max(2, settings.default.max_examples // 8)  # each costs hundreds of forward passes
FAR = 1e-5  # how far all that is rounded must be from its thresholds
RPRELU = ops.rprelu


class Surrogates:
    """``run`` with surrogates for the ops that round. Its first pass notes what the later ones hold constant."""

    def __init__(self, run):
        self.run, self.notes, self.margin = run, [], np.inf

    def __call__(self, *tensors):
        self.old_notes = iter(list(self.notes))
        with mock.patch.multiple(
            ops, sign=self.sign, binary_weight=self.binary_weight, rprelu=self.rprelu, binary_linear=ops.linear,
            binary_matmul=ops.matmul, quantize_probabilities=self.quantize_probabilities,
        ):  # fmt: skip
            return self.run(*tensors)

    def note(self, value, decisive, *thresholds):
        """``value`` as it was in the first pass, which also finds how near the decisive numbers are to thresholds."""
        old = next(self.old_notes, None)
        if old is not None:
            return old
        self.margin = min([self.margin, *(np.abs(decisive - t).min(initial=np.inf) for t in thresholds)])
        self.notes.append(value)
        return value

    def sign(self, x, shift=None):
        smooth = binary.sign_surrogate(x, shift)
        moved = x.data if shift is None else x.data + shift.data
        return smooth + self.note(np.where(moved >= 0, 1, -1) - smooth.data, moved, -1, 0, 1)

    def binary_weight(self, weight, centred):
        smooth = binary.binary_weight_surrogate(weight, centred)
        rows = weight.data.reshape(len(weight), -1)
        signs = rows - rows.mean(1, keepdims=True) * centred
        value = np.where(signs >= 0, 1, -1) * np.abs(rows).mean(1, keepdims=True)
        return smooth + self.note(value.reshape(weight.shape) - smooth.data, signs, -1, 0, 1)

    def quantize_probabilities(self, p, level):
        q = p.data / level.data
        rounding = self.note(np.clip(np.rint(q), 0, 1) - np.clip(q, 0, 1), q, 0, 0.5, 1)
        return binary.quantize_probabilities_surrogate(p, level, rounding)

    def rprelu(self, x, shift_in, slope, shift_out):
        self.note(0, x.data - shift_in.data, 0)
        return RPRELU(x, shift_in, slope, shift_out)


@pytest.mark.parametrize("block, variant", BINARY, ids=[f"{b.__name__}-{v}".rstrip("-") for b, v in BINARY])
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_gradient(block, variant, data):
    module, inputs = data.draw(BINARY[block, variant])
    view = VIEWS[data.draw(st.sampled_from(sorted(VIEWS)))]
    run, arrays = prepare(module, inputs, data.draw(st.integers(0, 99)))
    arrays = [np.array(0.3) if a.ndim == 0 else a for a in arrays]  # the level of attention probabilities is positive
    smooth = Surrogates(run)
    value = smooth(*(Tensor(a) for a in arrays))
    np.testing.assert_allclose(value.data, run(*(Tensor(a) for a in arrays)).data, atol=1e-12)
    assume(smooth.margin > FAR)
    gradcheck(lambda *t: view(run(*t)), arrays, surrogate=lambda *t: view(smooth(*t)))
