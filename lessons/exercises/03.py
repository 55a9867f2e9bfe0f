"""Exercises of lesson 03, a linear classifier and an MLP. Check them: python -m lessons check 03"""


def softmax(z):
    """Return the probabilities of the classes, for each row of logits.

    Args:
        z: (B, C) logits, float64; some of them are 1000 and more.

    Returns:
        (B, C): positive numbers whose rows add up to 1.
    """
    raise NotImplementedError


def logit_gradient(z, labels):
    """Return the gradient of the mean cross-entropy by the logits.

    Args:
        z: (B, C) logits, float64. They must be the same after the call as before.
        labels: (B,) the right classes, integers in [0, C).

    Returns:
        (B, C): the derivative of -1/B sum_i log softmax(z_i)[labels_i] by each logit.
    """
    raise NotImplementedError


def hidden_gradients(x, w1, b1, w2, dz):
    """Return the gradients of an MLP's first layer, given the one that arrives at its logits.

    The forward pass was h = max(x w1^T + b1, 0), z = h w2^T + b2.

    Args:
        x: (B, D) inputs.
        w1: (H, D) weights of the first layer. b1: (H,) its biases.
        w2: (C, H) weights of the second layer.
        dz: (B, C) gradient of the loss by z.

    Returns:
        A pair: gradient by w1 (H, D), gradient by b1 (H,).
    """
    raise NotImplementedError
