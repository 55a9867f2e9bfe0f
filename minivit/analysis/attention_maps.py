"""Where a network looks: its attention weights, recorded while it runs, and as maps over the image.

Recording changes nothing in the network. An observer of the tape (``minivit.tensor.observe``) sees what goes into every
product with the values, so a recorded run gives the same results, bit for bit, and other threads are not concerned.

A map is the row of the class token: how much it takes from each patch. Which layers have one depends on the family:

    ViT, DeiT, T2T-ViT, binary DeiT with class token     all blocks (not T2T-ViT's token transformers)
    PiT                                                  all blocks; the grid shrinks from stage to stage
    CaiT                                                 the class-attention blocks
    BinaryViT, binary DeiT without class token           all blocks: the mean of all tokens' rows, since the head sees
                                                         the mean of all tokens

Swin attends within windows, so no token sees the whole image; convolutional networks have no attention.
"""

import contextlib
from dataclasses import dataclass
from math import prod

import numpy as np

from minivit.errors import UsageError
from minivit.kernels import attention as kernel
from minivit.models.binary_deit import BinaryDeiT
from minivit.models.binary_vit import BinaryViT
from minivit.models.cait import CaiT
from minivit.models.packing import is_packed
from minivit.models.pit import PoolingTransformer
from minivit.models.swin import SwinTransformer
from minivit.models.t2t import T2TViT
from minivit.models.vit import VisionTransformer
from minivit.nn import Module
from minivit.tensor import Tensor, no_grad, observe


@contextlib.contextmanager
def record_attention(modules):
    """Record the attention weights of some modules, while networks run in this thread.

    Args:
        modules: ``Attention``, ``ClassAttention`` and ``BinaryAttention`` modules.

    Yields:
        A dictionary module -> weights (B, H, N, M), those of its latest call: exactly what multiplied the values.
        That is after dropout in training, after the mixing of talking heads, and after the quantisation in binary
        networks; elsewhere the M weights of a query sum to 1.
    """
    recorder = _Recorder(modules)
    with observe(recorder):
        yield recorder.weights


class _Recorder:
    """Observer of the tape."""

    def __init__(self, modules):
        self.modules, self.weights = set(modules), {}
        self.current = None

    def call(self, module, args, kwargs):
        outer, self.current = self.current, module
        try:
            return module.forward(*args, **kwargs)
        finally:
            self.current = outer

    def op(self, name, arrays, static, result):
        if self.current in self.modules:
            weights = _left_of_values(name, arrays, static)
            if weights is not None:  # of several products the last is that with the values
                self.weights[self.current] = weights


def _left_of_values(name, arrays, static):
    """What an op multiplies from the left, where that may be attention weights (B, H, N, M); else None."""
    match name:
        case "matmul" | "binary_matmul":
            return arrays[0]
        case "attention":
            return _fused_weights(*arrays, **static)
        case "self_attention":
            qkv, scale, *bias = arrays
            b, n, width = qkv.shape
            q, k, v = qkv.reshape(b, n, 3, len(scale), width // (3 * len(scale))).transpose(2, 0, 3, 1, 4)
            return _fused_weights(q, k, v, scale, *bias, **static)
    return None


def _fused_weights(q, k, v, scale, bias=None, diagonal=None):
    """The weights that a fused op keeps to itself, from its kernel once more."""
    shape = (*q.shape[:3], k.shape[2])
    bias = None if bias is None else np.broadcast_to(bias, shape)
    return kernel.attention(q, k, v, scale, bias, diagonal, np.empty((*q.shape[:3], v.shape[3]), q.dtype))


@dataclass(frozen=True)
class AttentionLayer:
    """A layer of which there is a map.

    Args:
        module: the attention module.
        grid: (rows, columns) of the patches that it looks at, which are the last of its keys.
        class_token: whether its first query is the class token; else all queries are patches.
    """

    module: Module
    grid: tuple
    class_token: bool = True


def attention_layers(model):
    """Return the AttentionLayers of a network from ``minivit.models``, the first first.

    Raises:
        UsageError: it has none.
    """
    if is_packed(model):
        raise UsageError("a packed network keeps no attention weights: take the checkpoint that it was packed from")
    match model:
        case VisionTransformer() | T2TViT():
            layers = [AttentionLayer(block.attn, model.grid) for block in model.blocks]
        case CaiT():
            layers = [AttentionLayer(block.attn, model.grid) for block in model.blocks_token_only]
        case PoolingTransformer():
            stages = zip(model.transformers, model.config.grids, strict=True)
            layers = [AttentionLayer(block.attn, grid) for stage, grid in stages for block in stage.blocks]
        case BinaryDeiT():
            has_token = model.cls_token is not None
            layers = [AttentionLayer(block.attn, model.grid, has_token) for block in model.blocks]
        case BinaryViT():
            attentions = [block.attn for block in model.blocks]
            layers = [AttentionLayer(a, tuple(side // a.reduction for side in a.grid), False) for a in attentions]
        case SwinTransformer():
            raise UsageError("Swin attends within windows: no token sees the whole image, so there is no map of it")
        case _:
            raise UsageError(f"{type(model).__name__} has no attention to show")
    if not layers:
        raise UsageError("this CaiT has no class-attention block, and its patch blocks have no class token")
    return layers


def attention_maps(model, images, layer=-1):
    """Run ``model`` and return the attention of each head of one layer to each patch.

    Talking heads that are mixed after the softmax have weights of both signs, of which the sizes count: the sign is a
    convention, since a head whose weights and values both change theirs gives the same network.

    Args:
        images: normalised, float32 (B, C, height, width).
        layer: number in ``attention_layers(model)``, negative ones from the end.

    Returns:
        ([layer], maps): its number from 0, and (B, H, rows, columns).

    Raises:
        UsageError: there is no such layer, or none at all.
    """
    layers = attention_layers(model)
    if not -len(layers) <= layer < len(layers):
        raise UsageError(f"there is no layer {layer} with a map: there are {len(layers)}, 0 to {len(layers) - 1}")
    chosen = layers[layer]
    (weights,) = _weights(model, images, [chosen])
    weights = np.abs(weights)
    rows = weights[:, :, 0] if chosen.class_token else weights.mean(axis=2)
    return [layer % len(layers)], _patches(rows, chosen.grid)


def rollout_maps(model, images):
    """Attention rollout (Abnar & Zuidema 2020, section 3): what reaches the class token through all layers.

        R = A'_L ... A'_1,   A' = A / 2 + I / 2,   A the mean over heads

    The half I stands for the residual path. In CaiT the class-attention blocks count, where patches stay as they are;
    in PiT the blocks after the last pooling. Rows that do not sum to 1, such as those of talking heads and of binary
    networks, are scaled to do so.

    Args:
        images: normalised, float32 (B, C, height, width).

    Returns:
        (layers, maps): the numbers of the layers that count, and (B, 1, rows, columns).

    Raises:
        UsageError: no class token passes through the network.
    """
    layers = attention_layers(model)
    last = layers[-1]
    if not last.class_token:
        raise UsageError(f"rollout follows a class token, and this {type(model).__name__} has none")
    numbers = [i for i, layer in enumerate(layers) if layer.grid == last.grid]
    weights = _weights(model, images, [layers[i] for i in numbers])
    tokens = max(weights[-1].shape[3], 1 + prod(last.grid))  # in the small-data CaiT the class token is no key
    rolled = rollout([np.abs(w).mean(axis=1) for w in weights], tokens)
    return numbers, _patches(rolled[:, :1], last.grid)


def rollout(attentions, tokens):
    """R of :func:`rollout_maps`: (B, tokens, tokens).

    Args:
        attentions: non-negative (B, N, M) for each layer, the first first: how the first N tokens attend to the last M.
    """
    rolled = np.broadcast_to(np.eye(tokens, dtype=attentions[0].dtype), (len(attentions[0]), tokens, tokens)).copy()
    for attention in attentions:
        queries, keys = attention.shape[1:]
        total = attention.sum(axis=2, keepdims=True)
        attention = attention / np.where(total > 0, total, 1)
        rolled[:, :queries] = (attention @ rolled[:, tokens - keys :] + rolled[:, :queries]) / 2
    return rolled


def _weights(model, images, layers):
    """Weights (B, H, N, M) of each of ``layers``, in evaluation. The model's mode is restored afterwards."""
    modules, was_training = [layer.module for layer in layers], model.training
    model.eval()
    try:
        with no_grad(), record_attention(modules) as weights:
            model(Tensor(images))
    finally:
        model.train(was_training)
    return [weights[module] for module in modules]


def _patches(rows, grid):
    """(..., M) -> (..., rows, columns): of the keys the last ones, which are the patches."""
    return rows[..., rows.shape[-1] - prod(grid) :].reshape(*rows.shape[:-1], *grid)
