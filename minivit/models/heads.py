"""The two heads of a distilled model (DeiT, Touvron et al. 2020, section 4), and how they answer together."""

from math import log

from minivit import ops
from minivit.errors import UsageError

EVAL_HEADS = ("mean", "softmax", "class", "distill")
"""In evaluation: the mean of the two heads' logits, as in the official code; the logarithm of the mean of their
softmax outputs, which is the paper's rule; or one head alone."""


def check_eval_heads(config):
    """Raise UsageError unless ``config.eval_heads`` is a rule, and the default one where there is one head only."""
    config.require_one_of("eval_heads", EVAL_HEADS)
    if config.eval_heads != "mean" and not config.distilled:
        raise UsageError(f"eval_heads {config.eval_heads!r} needs a distilled model, with two heads")


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
        both = ops.stack([ops.log_softmax(cls), ops.log_softmax(dist)])
        return ops.logsumexp(both, axis=0) - log(2)
    return cls if rule == "class" else dist
