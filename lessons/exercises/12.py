"""Exercises of lesson 12, binarization. Check them by: python -m lessons check 12"""


def binarize(weight):
    """Return the binary weight of a layer: in each row a scale times signs.

    The signs are those of the row less its mean, and sign(0) is +1. The scale is the mean of the
    absolute values of the row as it is, before its mean is subtracted.

    Args:
        weight: latent weights, array (O, K).

    Returns:
        array (O, K).
    """
    raise NotImplementedError


def sign_backward(cotangent, x):
    """Return the gradient by x that Bi-Real's estimator gives to sign(x).

    Its surrogate is x (2 - |x|) for x from -1 to 1, and constant outside.

    Args:
        cotangent: the gradient by sign(x), array of any shape.
        x: array of the same shape.
    """
    raise NotImplementedError


def train_bit(gradients, latent, rate):
    """Return the sign that a binary weight has after each step of gradient descent.

    Args:
        gradients: of the loss by the binary weight, one for each step, array (T,). The clipped
            estimator carries them to the latent weight: unchanged while it lies in [-1, 1], 0 where
            it lies outside.
        latent: the latent weight before the first step, a number.
        rate: learning rate; a step subtracts it times the gradient from the latent weight.

    Returns:
        array (T,) of +1 and -1, the sign after step 1, 2, ... T; sign(0) is +1.
    """
    raise NotImplementedError
