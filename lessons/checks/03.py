"""How the exercises of lesson 03 are checked."""

import numpy as np

from lessons.checking import Exercise


def logits(rng):
    """Small logits, then large ones; the first square, so that a wrong axis is no error."""
    small = rng.standard_normal((4, 4))
    return [small, small + np.array([[1000.0], [0], [-1000], [5000]]), 1000 * small[:, :3]]


def softmax_cases(rng):
    return [(z,) for z in logits(rng)]


def row_softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def columns_normalised(z):
    e = np.exp(z - z.max(axis=0))
    return e / e.sum(axis=0)


def all_normalised(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def one_shift_for_all(z):
    """Right for the first case; in the second, rows far below the largest logit become 0."""
    e = np.exp(z - z.max())
    total = e.sum(axis=1, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total > 0)


def gradient_cases(rng):
    """Logits that cannot be written to, so that changing them is an error."""
    cases = [(rng.standard_normal((b, c)), rng.integers(c, size=b)) for b, c in ((5, 3), (2, 4))]
    for z, _ in cases:
        z.flags.writeable = False
    return cases


def one_hot(z, labels):
    return np.eye(z.shape[1])[labels]


def of_the_sum(z, labels):
    return row_softmax(z) - one_hot(z, labels)


def without_labels(z, labels):
    return row_softmax(z) / len(z)


def uphill(z, labels):
    return (one_hot(z, labels) - row_softmax(z)) / len(z)


def divided_by_all(z, labels):
    return (row_softmax(z) - one_hot(z, labels)) / z.size


def hidden_cases(rng):
    b, d, h, c = 6, 3, 5, 2
    shapes = ((b, d), (h, d), (h,), (c, h), (b, c))
    return [tuple(rng.standard_normal(shape) for shape in shapes)]


def without_relu(x, w1, b1, w2, dz):
    dh = dz @ w2
    return dh.T @ x, dh.sum(axis=0)


def times_h(x, w1, b1, w2, dz):
    dh = (dz @ w2) * np.maximum(x @ w1.T + b1, 0)
    return dh.T @ x, dh.sum(axis=0)


def mean_for_bias(x, w1, b1, w2, dz):
    dh = (dz @ w2) * (x @ w1.T + b1 > 0)
    return dh.T @ x, dh.mean(axis=0)


def mask_without_bias(x, w1, b1, w2, dz):
    dh = (dz @ w2) * (x @ w1.T > 0)
    return dh.T @ x, dh.sum(axis=0)


def transposed(x, w1, b1, w2, dz):
    dh = (dz @ w2) * (x @ w1.T + b1 > 0)
    return x.T @ dh, dh.sum(axis=0)


EXERCISES = {
    "softmax": Exercise(
        softmax_cases,
        "e^z over the sum of its row; but e^1000 is too large for any float, "
        "so what can be done to a row that leaves the quotient as it is?",
        {
            "one shift for all rows is not enough: "
            "some rows are far below the largest logit": one_shift_for_all,
            "a row is an image and a column a class: which of them should add up to 1?":
                columns_normalised,
            "all numbers together add up to 1, where each row should": all_normalised,
        },
    ),
    "logit_gradient": Exercise(
        gradient_cases,
        "what was predicted less what was right, of a mean",
        {
            "that is the gradient of the sum over the batch: the loss is the mean": of_the_sum,
            "the labels play no part in it: the logit of the right class must go up":
                without_labels,
            "the sign is wrong: this would make the loss grow": uphill,
            "the mean is over images, not over images and classes": divided_by_all,
        },
    ),
    "hidden_gradients": Exercise(
        hidden_cases,
        "from dz to dh by the second layer, through the ReLU, then to w1 and b1 as in a linear "
        "classifier",
        {
            "hidden units that gave 0 do not move the loss: ReLU is missing": without_relu,
            "the derivative of ReLU is 0 or 1, not what it gave": times_h,
            "the bias is used once for each image: do its shares add up, or average?":
                mean_for_bias,
            "whether a hidden unit was on depends on its bias too": mask_without_bias,
            "the gradient of w1 must have the shape of w1": transposed,
        },
    ),
}
