"""``Module``: a part of a network, with parameters and buffers that are found by walking its attributes."""

import numpy as np

from minivit.errors import StateDictError
from minivit.tensor import Tensor, current_observer


class Parameter(Tensor):
    """A tensor that training changes."""

    __slots__ = ()

    def __init__(self, data):
        super().__init__(data, requires_grad=True)


class Buffer(Tensor):
    """A tensor that belongs to the weights, but that no gradient changes: running statistics, fixed tables."""

    __slots__ = ()


class Module:
    """Base class. Assign parameters, buffers, modules and lists of modules to attributes; write ``forward``.

    Names are the paths of attributes, as in PyTorch: ``blocks.0.attn.qkv.weight``.
    """

    training = True

    def __call__(self, *args, **kwargs):
        observer = current_observer()
        if observer is not None:
            return observer.call(self, args, kwargs)
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
                if any(isinstance(item, (Module, Parameter, Buffer)) for item in items):
                    raise TypeError(f"{type(self).__name__}.{name}: parts of a module must be attributes or in a list "
                                    "of modules only; here they would never be trained")

    def modules(self):
        """Yield this module and all below it."""
        yield self
        for _, child in self.named_children():
            yield from child.modules()

    def named_parameters(self, prefix=""):
        """Yield (name, Parameter) for every parameter here and below: own ones first, then by children."""
        return self._named(Parameter, prefix)

    def named_buffers(self, prefix=""):
        """Yield (name, Buffer) for every buffer here and below, in the same order."""
        return self._named(Buffer, prefix)

    def _named(self, kind, prefix):
        for name, value in vars(self).items():
            if isinstance(value, kind):
                yield prefix + name, value
        for name, child in self.named_children():
            yield from child._named(kind, f"{prefix}{name}.")

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
        """Convert all parameters and floating buffers to float32 or float64, in place, and forget gradients."""
        for _, tensor in self._named((Parameter, Buffer), ""):
            if tensor.dtype.kind == "f":
                tensor.data = tensor.data.astype(dtype, order="C")
            tensor.grad = None
        return self

    def state_dict(self):
        """Return name -> array, a copy of every parameter and buffer."""
        return {name: tensor.data.copy() for name, tensor in self._named((Parameter, Buffer), "")}

    def load_state_dict(self, arrays):
        """Copy arrays into the parameters and buffers, keeping the dtype of each.

        Raises:
            StateDictError: one error that lists all that is missing, unexpected or of another shape; nothing
                has been changed then.
        """
        own = dict(self._named((Parameter, Buffer), ""))
        problems = [f"missing {name}" for name in own if name not in arrays]
        problems += [f"unexpected {name}" for name in arrays if name not in own]
        problems += [
            f"{name} has shape {np.shape(arrays[name])}, expected {tensor.shape}"
            for name, tensor in own.items()
            if name in arrays and np.shape(arrays[name]) != tensor.shape
        ]
        problems += [
            f"{name} holds {np.asarray(arrays[name]).dtype}, not real numbers"
            for name in own
            if name in arrays and np.asarray(arrays[name]).dtype.kind not in "biuf"
        ]
        if problems:
            raise StateDictError(f"the weights do not fit {type(self).__name__}: " + "; ".join(problems))
        for name, tensor in own.items():
            tensor.data = np.array(arrays[name], tensor.dtype, order="C")
