"""AdamW, Adam, SGD and gradient clipping.

An optimiser owns a list of named parameters and changes their arrays in place. The learning rate is a plain
attribute: the loop sets ``optimizer.lr`` before each step.
"""

import math

import numpy as np

from minivit.kernels.adamw import adamw_step
from minivit.training.state_arrays import copy_into

_NO_WEIGHTS = ("cls_token", "dist_token", "pos_embed", "absolute_pos_embed", "relative_position_bias_table")


def decay_all(name, parameter):
    """Weight-decay group of the small-data recipe: every parameter, norms, biases and embeddings too."""
    return True


def decay_weights(name, parameter):
    """The usual group: all but vectors (norms, biases, scales), class tokens and tables of positions."""
    return parameter.data.ndim > 1 and name.rpartition(".")[2] not in _NO_WEIGHTS


def decay_like_deit(name, parameter):
    """DeiT's group: that of :func:`decay_weights`, and the distillation token, which its code forgot to exempt."""
    return name == "dist_token" or decay_weights(name, parameter)


class Optimizer:
    """What AdamW and SGD share: the parameters, which of them decay, and the saving of per-parameter state.

    Args:
        named_parameters: pairs ``(name, parameter)``, as ``model.named_parameters()`` gives them.
        lr: learning rate.
        weight_decay: strength of the decay, 0 for none.
        decays: predicate ``(name, parameter) -> bool`` that says which parameters decay.
    """

    slots = ()
    """Names of the arrays kept for each parameter."""

    def __init__(self, named_parameters, lr, weight_decay=0.0, decays=decay_all):
        self.lr, self.steps = lr, 0
        self.parameters = dict(named_parameters)
        for p in self.parameters.values():
            p.data = np.require(p.data, requirements="C")  # the steps below write through flat views
        self.weight_decay = {n: weight_decay if decays(n, p) else 0.0 for n, p in self.parameters.items()}
        self.state = {
            slot: {name: np.zeros_like(p.data) for name, p in self.parameters.items()} for slot in self.slots
        }

    def zero_grad(self):
        """Drop all gradients, so that their memory is free until the next backward."""
        for p in self.parameters.values():
            p.grad = None

    def step(self):
        """Update every parameter that has a gradient."""
        self.steps += 1
        for name, p in self.parameters.items():
            if p.grad is not None:
                self._update(name, p)

    def _update(self, name, p):
        """Change ``p``, the parameter called ``name``, in place by its gradient: what each optimiser defines."""
        raise NotImplementedError

    def state_dict(self):
        """Return name -> array: ``steps`` and one ``SLOT.NAME`` for each slot and parameter (not copies)."""
        arrays = {f"{slot}.{name}": a for slot, named in self.state.items() for name, a in named.items()}
        return {"steps": np.array(self.steps, np.int64), **arrays}

    def load_state_dict(self, arrays):
        """Take over what :meth:`state_dict` gave.

        Raises:
            MinivitError: names, shapes or dtypes are not those of this optimiser and its parameters.
        """
        copy_into(self.state_dict(), arrays, "the state of the optimiser")
        self.steps = int(arrays["steps"])


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2).

        m <- b1 m + (1 - b1) g              v <- b2 v + (1 - b2) g^2
        p <- p (1 - lr decay) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        betas: (b1, b2), the decays of the two running means.
        eps: keeps the quotient finite.
        others: see :class:`Optimizer`.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, named_parameters, lr=1e-3, weight_decay=0.05, decays=decay_all, betas=(0.9, 0.999), eps=1e-8
    ):
        super().__init__(named_parameters, lr, weight_decay, decays)
        self.betas, self.eps = betas, eps

    def _update(self, name, p):
        self._move(name, p, p.grad, self.weight_decay[name])

    def _move(self, name, p, grad, weight_decay):
        adamw_step(
            p.data,
            grad,
            self.state["exp_avg"][name],
            self.state["exp_avg_sq"][name],
            step=self.steps,
            lr=self.lr,
            weight_decay=weight_decay,
            betas=self.betas,
            eps=self.eps,
        )


class Adam(AdamW):
    """Adam (Kingma and Ba, arXiv 1412.6980) with the decay as a part of the gradient, L2 regularisation:

        g <- g + decay p,   then as AdamW without decay

    The quotient takes the size of the gradient out of the decay too, so that weights with large gradients decay less:
    what AdamW mends. Arguments as there.
    """

    def _update(self, name, p):
        self._move(name, p, p.grad + self.weight_decay[name] * p.data, 0.0)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, in PyTorch's form (the learning rate stays outside the
    buffer).

        d <- g + decay p        buf <- momentum buf + d        p <- p - lr buf

    With ``nesterov`` the last step uses ``d + momentum buf`` (Sutskever et al., ICML 2013).

    Args:
        momentum: 0 for plain gradient descent.
        nesterov: look one momentum step ahead.
        others: see :class:`Optimizer`.
    """

    slots = ("momentum_buffer",)

    def __init__(
        self, named_parameters, lr, momentum=0.9, nesterov=False, weight_decay=0.0, decays=decay_all
    ):
        super().__init__(named_parameters, lr, weight_decay, decays)
        self.momentum, self.nesterov = momentum, nesterov

    def _update(self, name, p):
        d = p.grad + p.data * self.weight_decay[name]
        buffer = self.state["momentum_buffer"][name]
        buffer *= self.momentum
        buffer += d
        p.data -= self.lr * (d + self.momentum * buffer if self.nesterov else buffer)


def clip_grad_norm(parameters, max_norm):
    """Scale all gradients together so that their joint Euclidean norm is at most ``max_norm``.

    Args:
        parameters: the parameters; those without a gradient count as zero.
        max_norm: positive bound.

    Returns:
        The norm before clipping, a float; inf or nan if any gradient is, and then nothing is scaled.

    Source: Pascanu et al., arXiv 1211.5063; the 1e-6 in the quotient is PyTorch's.
    """
    parameters = [p for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(np.vdot(p.grad, p.grad)) for p in parameters))
    scale = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and scale < 1:
        for p in parameters:
            p.grad *= scale
    return norm
