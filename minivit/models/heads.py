"""The two heads of a distilled model (DeiT, Touvron et al. 2020, section 4), and how they answer together."""

from minivit import ops

EVAL_HEADS = ("mean", "softmax", "class", "distill")
"""In evaluation: the mean of the two heads' logits, as in the official code; the logarithm of the mean of their
softmax outputs, which is the paper's rule; or one head alone."""


def join_heads(cls, dist, training, rule):
    """Logits (B, K) of the class head and of the distillation head: both in training, one answer in evaluation.

    Args:
        rule: one of EVAL_HEADS.
    """
    if training:
        return cls, dist
    if rule == "mean":
        return (cls + dist) * 0.5
    if rule == "softmax":
        return ops.log((ops.softmax(cls) + ops.softmax(dist)) * 0.5)
    return cls if rule == "class" else dist
