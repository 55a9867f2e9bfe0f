"""Binary networks for the tests of packing: of odd sizes, and with constants as training leaves them."""

import numpy as np

import minivit


def shaken(module, seed=0):
    """``module`` with none of its constants left where it started, and some of them 0, in evaluation."""
    rng = np.random.default_rng(seed)
    for parameter in module.parameters():
        if parameter.ndim:
            parameter.data = with_zeros(parameter.data + 0.2 * rng.standard_normal(parameter.shape, np.float32), rng)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.data = with_zeros(rng.standard_normal(buffer.shape, np.float32), rng)
        elif name.endswith("running_var"):
            buffer.data = with_zeros(np.exp(rng.standard_normal(buffer.shape, np.float32)), rng)
    return module.eval()


def with_zeros(array, rng):
    """``array`` with a tenth of its entries, or of the rows of a matrix, replaced by 0."""
    array[rng.random(len(array)) < 0.1] = 0
    return array


def network(name, seed=0, **keywords):
    """A shaken network of ten classes."""
    return shaken(minivit.create_model(name, num_classes=10, seed=seed, **keywords), seed)


def images(model, count, seed=0):
    """Random images for ``model``, a Tensor."""
    shape = (count, model.config.in_chans, *model.config.image_shape)
    return minivit.Tensor(np.random.default_rng(seed).standard_normal(shape, np.float32))


def logits(model, x):
    """The logits of a Tensor of images, an array."""
    with minivit.no_grad():
        return model(x).data
