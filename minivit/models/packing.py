"""Trained binary networks on bits: the float-simulated layers give way to packed ones."""

import functools

from minivit.errors import UsageError
from minivit.nn import BinaryBlock, BinaryUnit
from minivit.nn.packed import PackedBlock, PackedUnit


def pack(model):
    """Turn a binary network into one that runs on bits, in place, in float32 and for evaluation only.

    Returns:
        ``model``, whose logits stay what they are in evaluation mode. Its ``train()`` raises UsageError.

    Raises:
        UsageError: it has no binary layers, or is packed.
    """
    if is_packed(model):
        raise UsageError(f"this {model.architecture} is packed already")
    blocks = getattr(model, "blocks", [])
    if not blocks or not all(isinstance(block, BinaryBlock) for block in blocks):
        raise UsageError(f"{model.architecture} has no binary blocks to pack")
    model.eval().astype("float32")
    model.blocks = [PackedBlock(block) for block in blocks]
    for downsample in getattr(model, "downsamples", []):
        if isinstance(downsample.unit, BinaryUnit):
            downsample.unit = PackedUnit(downsample.unit)
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.train = functools.partial(_train, model)
    return model


def is_packed(model):
    """Return whether ``pack`` has packed this network."""
    return any(isinstance(block, PackedBlock) for block in getattr(model, "blocks", []))


def _train(model, mode=True):
    """``Module.train`` of a packed network: the layers that are left in floats must not train either."""
    if mode:
        raise UsageError(f"this {model.architecture} is packed, for evaluation only: train the network in floats")
    return type(model).train(model, mode)
