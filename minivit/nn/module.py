"""``Module``: a part of a network, with parameters that are found by walking its attributes."""

import numpy as np

from minivit.errors import StateDictError
from minivit.tensor import Tensor


class Parameter(Tensor):
    """A tensor that training changes."""

    __slots__ = ()

    def __init__(self, data):
        super().__init__(data, requires_grad=True)


class Module:
    """Base class. Assign parameters, modules and lists of modules to attributes; write ``forward``.

    Names are the paths of attributes, as in PyTorch: ``blocks.0.attn.qkv.weight``.
    """

    training = True

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def named_children(self):
        """Yield (name, module) for every module directly below, in the order of assignment."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list) and all(isinstance(m, Module) for m in value):
                yield from ((f"{name}.{i}", m) for i, m in enumerate(value))
            elif isinstance(value, (list, tuple, dict)):
                items = value.values() if isinstance(value, dict) else value
                if any(isinstance(item, (Module, Parameter)) for item in items):
                    raise TypeError(f"{type(self).__name__}.{name}: parts of a module must be attributes or in a list "
                                    "of modules only; here they would never be trained")

    def modules(self):
        """Yield this module and all below it."""
        yield self
        for _, child in self.named_children():
            yield from child.modules()

    def named_parameters(self, prefix=""):
        """Yield (name, Parameter) for every parameter here and below: own ones first, then by children."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
        for name, child in self.named_children():
            yield from child.named_parameters(f"{prefix}{name}.")

    def parameters(self):
        """Yield every parameter here and below."""
        return (parameter for _, parameter in self.named_parameters())

    def num_parameters(self):
        """Return the number of trainable numbers."""
        return sum(p.size for p in self.parameters())

    def zero_grad(self):
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode=True):
        """Switch to training (or, with False, to evaluation): dropout and drop path act only in training."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self):
        """Switch to evaluation."""
        return self.train(False)

    def astype(self, dtype):
        """Convert all parameters to float32 or float64, in place, and forget their gradients."""
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(dtype, order="C")
            parameter.grad = None
        return self

    def state_dict(self):
        """Return name -> array, a copy of every parameter."""
        return {name: p.data.copy() for name, p in self.named_parameters()}

    def load_state_dict(self, arrays):
        """Copy arrays into the parameters, keeping the parameters' dtype.

        Raises:
            StateDictError: one error that lists all that is missing, unexpected or of another shape; nothing
                has been changed then.
        """
        own = dict(self.named_parameters())
        problems = [f"missing {name}" for name in own if name not in arrays]
        problems += [f"unexpected {name}" for name in arrays if name not in own]
        problems += [
            f"{name} has shape {np.shape(arrays[name])}, expected {p.shape}"
            for name, p in own.items()
            if name in arrays and np.shape(arrays[name]) != p.shape
        ]
        if problems:
            raise StateDictError(f"the weights do not fit {type(self).__name__}: " + "; ".join(problems))
        for name, parameter in own.items():
            parameter.data = np.array(arrays[name], parameter.dtype, order="C")
