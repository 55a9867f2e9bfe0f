"""Every building block's gradient against finite differences: of its inputs, and of all its parameters."""

import inspect
import pkgutil
from importlib import import_module
from unittest import mock

import numpy as np
import pytest
from binary_cases import BINARY
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from module_cases import CASES, ZEROS

from minivit import models, nn, ops
from minivit.gradcheck import GradientError, gradcheck
from minivit.models.base import ImageModel
from minivit.tensor import Tensor

EXAMPLES = max(2, settings.default.max_examples // 3)  # each costs hundreds of forward passes
EPS = 0.1  # of every norm: with a smaller one a central difference is less exact than the gradient
FAR = 1e-3  # how far what ReLU gets must be from its kink
VIEWS = {"none": lambda y: y, "flipped": lambda y: y.flip(), "transposed": lambda y: y.T}  # of the result


def blocks_of(module):
    """The module classes that a file of the package defines; networks have suites of their own."""
    classes = (c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__)
    return {c for c in classes if issubclass(c, nn.Module) and not issubclass(c, ImageModel)}


def test_every_block_has_a_case():
    exported = {getattr(nn, name) for name in nn.__all__}
    blocks = {c for c in exported if inspect.isclass(c) and issubclass(c, nn.Module)} - {nn.Module}
    for info in pkgutil.iter_modules(models.__path__, "minivit.models."):
        blocks |= blocks_of(import_module(info.name))
    assert not blocks - {block for block, _ in [*CASES, *BINARY]}, "no gradient check"


def functional(module):
    """``module`` as a function of its inputs and its parameters; and the shapes of those."""
    places = [(owner, name) for owner in module.modules() for name, p in vars(owner).items()
              if isinstance(p, nn.Parameter)]  # fmt: skip
    shapes = [getattr(owner, name).shape for owner, name in places]

    def run(*tensors):
        inputs, parameters = tensors[: -len(places) or None], tensors[len(tensors) - len(places) :]
        for (owner, name), parameter in zip(places, parameters, strict=True):
            setattr(owner, name, parameter)
        generator = np.random.default_rng(7)  # the same masks in every pass
        for part in module.modules():
            if isinstance(part, (nn.Dropout, nn.DropPath)):
                part.rng = generator
        return module(*inputs)

    return run, shapes


def distance_from_kinks(run, arrays):
    """The smallest number that a ReLU gets, in absolute value."""
    smallest, relu = [np.inf], ops.relu

    def watched(x):
        smallest.append(np.abs(x.data).min())
        return relu(x)

    with mock.patch.object(ops, "relu", watched):
        run(*(Tensor(a) for a in arrays))
    return min(smallest)


def prepare(module, inputs, seed):
    """``module`` as a function of arrays, and those: its inputs and parameters."""
    module.astype(np.float64)
    for part in module.modules():
        if hasattr(part, "eps"):
            part.eps = EPS
    run, shapes = functional(module)
    rng = np.random.default_rng(seed)
    return run, [*inputs, *(rng.uniform(-1, 1, shape) for shape in shapes)]


@pytest.mark.parametrize(
    "block, variant", CASES, ids=[f"{b.__module__.split('.')[-1]}-{b.__name__}-{v}".rstrip("-") for b, v in CASES]
)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_gradient(block, variant, data):
    module, inputs = data.draw(CASES[block, variant])
    view = VIEWS[data.draw(st.sampled_from(sorted(VIEWS)))]
    run, arrays = prepare(module, inputs, data.draw(st.integers(0, 99)))
    assume(distance_from_kinks(run, arrays) > FAR)
    gradcheck(lambda *tensors: view(run(*tensors)), arrays)


class Detached(nn.Linear):
    def forward(self, x):
        return ops.linear(x, self.weight, self.bias.detach())


def test_a_parameter_off_the_tape_is_caught():
    run, arrays = prepare(Detached(2, 3, init=ZEROS), [np.ones((2, 2))], seed=0)
    with pytest.raises(GradientError, match="input 2"):
        gradcheck(run, arrays)
