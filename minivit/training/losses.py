"""Losses beyond cross-entropy: distillation from a teacher, and independent yes-or-no decisions for each class.

DeiT (Touvron et al. 2020, section 4) teaches a student with logits z by a teacher with logits t:

    soft:  tau^2 KL(softmax(t / tau) || softmax(z / tau))        hard:  CE(z, argmax t)

    loss = (1 - alpha) CE(class head, labels) + alpha distillation(distillation head, teacher)

A student with one head, such as CaiT (Touvron et al. 2021, section 5), learns both there.
"""

import numpy as np

from minivit import ops
from minivit.errors import UsageError, suggest
from minivit.ops import cross_entropy
from minivit.tensor import Tensor

MODES = ("soft", "hard")
REDUCTIONS = ("batch", "numel")


def soft_distillation(student, teacher, *, temperature=1.0, reduction="batch"):
    """tau^2 KL(softmax(teacher / tau) || softmax(student / tau)), summed over classes.

    BinaryViT's loss, the cross-entropy with the teacher's probabilities, is this at temperature 1 plus the entropy of
    those probabilities, which the student cannot change.

    Args:
        student: logits (B, K). teacher: logits (B, K), which get no gradient.
        temperature: tau, above 0.
        reduction: "batch": the mean over images, the paper's formula. "numel": divided by B K, as the official code
            does, which is K times smaller.
    """
    _check(teacher, student.shape)
    if reduction not in REDUCTIONS:
        raise UsageError(f"unknown reduction {reduction!r}{suggest(reduction, REDUCTIONS)}")
    tau = temperature
    target = _array(teacher) / tau
    target = target - target.max(axis=1, keepdims=True)
    target = target - np.log(np.exp(target).sum(axis=1, keepdims=True))  # log softmax
    probabilities = np.exp(target)
    divergence = (probabilities * target).sum() - (ops.log_softmax(student / tau) * probabilities).sum()
    return divergence * (tau**2 / (student.shape[0] if reduction == "batch" else student.size))


def hard_distillation(student, teacher):
    """Cross-entropy of logits (B, K) with the teacher's decisions, the largest of its logits (B, K)."""
    _check(teacher, student.shape)
    return cross_entropy(student, _array(teacher).argmax(axis=1))


def distillation_loss(
    outputs, targets, teacher, *, mode, alpha=0.5, temperature=1.0, reduction="batch", label_smoothing=0.0
):
    """(1 - alpha) CE(class head, targets) + alpha distillation(distillation head, teacher).

    Args:
        outputs: logits (B, K) of a student, or the pair of logits of a distilled model.
        targets: labels (B,) or probabilities (B, K), as for ``cross_entropy``; smoothed by ``label_smoothing``.
        teacher: logits (B, K) of the teacher for the same images.
        mode: "soft" or "hard".
        alpha: weight of the distillation. DeiT takes 0.5 for hard labels and 0.1 for soft ones.
        temperature, reduction: of ``soft_distillation``.
    """
    if mode not in MODES:
        raise UsageError(f"unknown mode of distillation {mode!r}{suggest(mode, MODES)} (known: {', '.join(MODES)})")
    cls, dist = outputs if isinstance(outputs, tuple) else (outputs, outputs)
    if alpha == 1:
        return _taught(dist, teacher, mode, temperature, reduction)
    base = cross_entropy(cls, targets, label_smoothing=label_smoothing)
    return base * (1 - alpha) + _taught(dist, teacher, mode, temperature, reduction) * alpha


def _taught(student, teacher, mode, temperature, reduction):
    if mode == "hard":
        return hard_distillation(student, teacher)
    return soft_distillation(student, teacher, temperature=temperature, reduction=reduction)


def binary_cross_entropy(logits, targets, *, sum_classes=False):
    """Mean of -t log sigmoid(z) - (1 - t) log sigmoid(-z) over all entries.

    Args:
        logits: (B, K). targets: (B, K) in [0, 1], without gradient.
        sum_classes: sum over the classes and take the mean over the images only, as AugReg does (Steiner et al. 2021).
    """
    _check(targets, logits.shape)
    losses = ops.maximum(logits, 0.0) - logits * _array(targets) + ops.log(1 + ops.exp(-ops.abs(logits)))
    return losses.sum() / (logits.shape[0] if sum_classes else logits.size)


def _array(x):
    return x.data if isinstance(x, Tensor) else np.asarray(x)


def _check(array, shape):
    if _array(array).shape != shape or len(shape) != 2 or 0 in shape:
        raise ValueError(f"expected two arrays of one shape (B, K), not empty, got {shape} and {_array(array).shape}")
