"""What a network costs: parameters, multiply-adds, binary operations, memory; counted while it runs.

One image passes through the network, and an observer of the tape (``minivit.tensor.observe``) sees every op with the
shapes of its inputs and of its result, and the module in which it runs. So there is one rule for each op and none for
any architecture: what is counted is what runs, in any network at any image size.
"""

import math
import re
from dataclasses import astuple, dataclass, field
from itertools import groupby

import numpy as np

from minivit.nn.module import Buffer, Parameter
from minivit.tensor import Tensor, no_grad, observe


def multiply_adds(name, arrays, static, result):
    """Return how many multiplications, each with its addition, an op makes: the papers' FLOPs.

    Matrix products and convolutions count: linear layers, both products of attention (Q K^T and A V), the mixing of
    talking heads (CaiT's published figures include it). All else counts 0: biases, softmax, normalisation,
    activations, residual sums, pooling, and what only moves elements.

    Args:
        name: the op's.
        arrays: its inputs, as arrays. static: its keyword arguments. result: an array.
    """
    match name:
        case "linear" | "matmul":
            return result.size * arrays[0].shape[-1]
        case "conv2d":
            return result.size * math.prod(arrays[1].shape[1:])  # weight (O, C / groups, kernel_h, kernel_w)
        case "einsum":
            sizes = {}
            for term, operand in zip(static["inputs"], arrays, strict=True):
                for letter, size in zip(term, operand.shape, strict=True):
                    sizes[letter] = max(size, sizes.get(letter, 1))
            return math.prod(sizes.values()) * (len(arrays) - 1)
        case "attention" | "self_attention":
            return math.prod(_attention_weights(name, arrays))
    return 0


def binary_operations(name, arrays, result):
    """Return how many one-bit multiplications, each with its addition, an op makes: the papers' BOPs.

    Products of signs with binary weights count, those of 2x2 convolutions too, and both products of binary attention.
    """
    return result.size * arrays[0].shape[-1] if name in ("binary_linear", "binary_matmul") else 0


def affine_multiplies(name, result):
    """Return how many multiplications the per-channel affine layers in an op make: one for each element.

    BinaryViT's published FLOPs (Le & Li 2023, 0.19e8) are multiply-adds plus these; neither alone gives them. The four
    pooling branches have one such layer each.
    """
    return {"affine": 1, "pooling_branches": 4}.get(name, 0) * result.size


def kept_bytes(name, arrays, result):
    """Return the bytes of what an op makes: its result, unless that is a view of an input, and what it keeps beside
    for the backward pass: attention weights, and a copy of an input that does not lie row by row in memory."""
    new = 0 if any(a is not None and np.may_share_memory(a, result) for a in arrays) else result.size
    if name in ("attention", "self_attention"):
        new += _attention_weights(name, arrays)[0]
    if name in ("layer_norm", "linear") and not arrays[0].flags.c_contiguous:
        new += arrays[0].size
    return new * result.itemsize


def _attention_weights(name, arrays):
    """How many weights an attention op has (images x heads x queries x keys), and the products that each takes part in:
    the widths of its key and of its value."""
    if name == "self_attention":
        (b, n, width), (heads,) = arrays[0].shape, arrays[1].shape
        return b * heads * n * n, 2 * width // (3 * heads)
    q, k, v = arrays[:3]
    return math.prod(q.shape[:3]) * k.shape[2], q.shape[3] + v.shape[3]


@dataclass
class Counts:
    """What a part of a network costs, for one image.

    Args:
        parameters: trainable numbers.
        buffers: numbers that belong to the weights, and are not trained.
        macs: multiply-adds in full precision, see :func:`multiply_adds`.
        norm_elements: elements of the results of LayerNorm. The published figures of Lee, Lee & Song (2021) are
            multiply-adds plus these.
        affine_multiplies: of per-channel affine layers, see :func:`affine_multiplies`.
        binary_weights: how many of the parameters take part in products as one bit.
        bops: one-bit multiply-adds, see :func:`binary_operations`.
        activation_bytes: of all arrays made on the way, see :func:`kept_bytes`: an upper bound on what a training step
            without dropout keeps for its backward pass (measured: 0.8 to 0.95 of it in vision transformers, 0.6 in
            CNNs, 0.6 to 0.8 in binary networks); dropout keeps masks, and products with them, beside. Without a tape
            each is freed as soon as it has been used.
    """

    parameters: int = 0
    buffers: int = 0
    macs: int = 0
    norm_elements: int = 0
    affine_multiplies: int = 0
    binary_weights: int = 0
    bops: int = 0
    activation_bytes: int = 0

    def __add__(self, other):
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def weight_bytes(self):
        """Bytes of all parameters and buffers in float32."""
        return 4 * (self.parameters + self.buffers)

    @property
    def flops(self):
        """Operations in full precision, as the papers count them: multiply-adds, and multiplies of affine layers."""
        return self.macs + self.affine_multiplies

    @property
    def ops(self):
        """BOPs / 64 + FLOPs: one instruction on 64-bit words does 64 binary operations."""
        return round(self.bops / 64) + self.flops


@dataclass
class Layer:
    """A module of the network: what it costs by itself, and the modules below it.

    Args:
        name: its last name, such as "attn" or "blocks.0"; "" for the network.
        kind: its class.
        own: the Counts of its own parameters and ops, without those of the layers below.
        layers: the Layers below.
        output: shape of its result for one image, without the batch axis; None where that is no tensor.
        calls: how often it ran.
    """

    name: str
    kind: str
    own: Counts
    layers: list = field(default_factory=list)
    output: tuple | None = None
    calls: int = 0

    def total(self):
        """Return the Counts of this module and all below."""
        return sum((layer.total() for layer in self.layers), self.own)


@dataclass
class Row:
    """A line of the table: the Counts of one layer, or of equal ones together, and the result's shape of each."""

    name: str
    output: tuple | None
    counts: Counts


def measure(model, image=None):
    """Run one image through ``model``, in evaluation, and count. Its mode is restored afterwards.

    Args:
        model: a Module.
        image: array (1, C, H, W); by default a black one of the size that a network of ``minivit.models`` was made for.

    Returns:
        Layer. Modules that do not run themselves, such as those that only hold weights, count with the one above.
    """
    counter, was_training = _Counter(model), model.training
    if image is None:
        image = np.zeros((1, model.config.in_chans, *model.config.image_shape), np.float32)
    model.eval()
    try:
        with no_grad(), observe(counter), np.errstate(all="ignore"):  # the numbers themselves do not matter
            model(Tensor(image))
    finally:
        model.train(was_training)
    _absorb_idle(counter.network)
    return counter.network


class _Counter:
    """Observer of the tape that adds what it sees to the layer in which it happens."""

    def __init__(self, model):
        self.by_module = {}
        self.network = self.current = self._layer("", model)

    def _layer(self, name, module):
        own = Counts()
        for value in vars(module).values():
            own.parameters += value.size if isinstance(value, Parameter) else 0
            own.buffers += value.size if isinstance(value, Buffer) else 0
        layer = Layer(name, type(module).__name__, own)
        layer.layers = [self._layer(child_name, child) for child_name, child in module.named_children()]
        self.by_module[module] = layer
        return layer

    def call(self, module, args, kwargs):
        outer, self.current = self.current, self.by_module.get(module, self.current)
        result = module.forward(*args, **kwargs)
        self.current.output = tuple(result.shape[1:]) if isinstance(result, Tensor) else None
        self.current.calls += 1
        self.current = outer
        return result

    def op(self, name, arrays, static, result):
        own = self.current.own
        own.macs += multiply_adds(name, arrays, static, result)
        own.norm_elements += result.size if name == "layer_norm" else 0
        own.affine_multiplies += affine_multiplies(name, result)
        own.binary_weights += result.size if name == "binary_weight" else 0
        own.bops += binary_operations(name, arrays, result)
        own.activation_bytes += kept_bytes(name, arrays, result)


def _absorb_idle(layer):
    """Move the counts of layers that did not run, nor any below, to the one above. Returns whether this one ran."""
    ran = [_absorb_idle(child) for child in layer.layers]
    idle = [child for child, active in zip(layer.layers, ran, strict=True) if not active]
    layer.own = sum((child.total() for child in idle), layer.own)
    layer.layers = [child for child, active in zip(layer.layers, ran, strict=True) if active]
    return bool(layer.calls) or any(ran)


def rows(network, depth=2, fold=True):
    """Yield the Rows of a table whose columns add up: each number of ``network`` stands in exactly one row.

    Args:
        network: a Layer, from :func:`measure`.
        depth: how many levels of modules to tell apart. What a module with rows below it does by itself stands in
            a row of its own, named "... (own)".
        fold: whether numbered neighbours that cost the same share rows: ``blocks.0-11.attn``.
    """
    yield from _rows("", [network], depth, fold)


def _rows(name, equal, depth, fold):
    first = equal[0]
    expand = depth > 0 and first.layers
    counts = sum((layer.own if expand else layer.total() for layer in equal), Counts())
    if counts != Counts():
        label = f"{name} (own)".strip() if expand else name
        yield Row(label, first.output, counts)
    if not expand:
        return
    for run in _runs(first.layers, fold):
        below = [layer.layers[i] for layer in equal for i in run]
        short = first.layers[run[0]].name
        if len(run) > 1:
            short += "-" + _number(first.layers[run[-1]].name)
        yield from _rows(f"{name}.{short}".lstrip("."), below, depth - 1, fold)


def _runs(layers, fold):
    """Cut the numbers 0 ... len(layers) - 1 into lists of neighbours that may share rows."""

    def key(i):
        stem = layers[i].name.removesuffix(_number(layers[i].name))
        return (stem, _cost_key(layers[i])) if fold and stem != layers[i].name else i

    return [list(run) for _, run in groupby(range(len(layers)), key)]


def _cost_key(layer):
    """Equal for layers that cost the same in all their parts, but for memory: every other block of Swin shifts its
    windows, and has some arrays more."""
    *counts, _ = astuple(layer.own)
    return layer.kind, layer.output, tuple(counts), tuple((below.name, _cost_key(below)) for below in layer.layers)


def _number(name):
    """The digits at the end of a name."""
    return re.search(r"\d*$", name).group()
