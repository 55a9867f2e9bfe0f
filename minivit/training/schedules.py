"""Learning-rate schedules: functions of the step number, so a resumed run needs nothing but the step.

All lengths are in steps, and the first step is step 0. Every schedule but ``PerEpoch`` begins with the same warm-up:

    k < W:  start + (peak - start) * k / W
"""

import math
from dataclasses import dataclass


class Schedule:
    """Base class: the linear warm-up of ``warmup_steps`` steps from ``start`` to ``peak``, then ``after_warmup``."""

    def __call__(self, step):
        """Return the learning rate of ``step``; steps past the end keep the last value."""
        if step < self.warmup_steps:
            return self.start + (self.peak - self.start) * step / self.warmup_steps
        return self.after_warmup(step)

    def after_warmup(self, step):
        """The learning rate of a step from ``warmup_steps`` on: what each schedule defines."""
        raise NotImplementedError


@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Linear warm-up, then half a cosine (SGDR, Loshchilov and Hutter, arXiv 1608.03983, equation 5).

    With W warm-up steps out of T, the steps k >= W get

        floor + (peak - floor) * (1 + cos(pi * (k - W) / (T - W))) / 2

    So it is in the published code of "Vision Transformer for Small-Size Datasets" (arXiv 2112.13492), where
    start = floor = 1e-6; with start = floor = 0 in that of "How to train your ViT?" (arXiv 2106.10270), written there
    as a product of warm-up and cosine; and in timm with ``warmup_prefix``, where T - W is called the length.

    Args:
        peak: the highest learning rate.
        steps: T, all steps of the run.
        warmup_steps: W, 0 for none.
        start: learning rate of step 0 where there is a warm-up.
        floor: learning rate that the cosine falls towards.
        prefix: whether the cosine begins where the warm-up ends. False: it begins at step 0, (k - W) / (T - W) becomes
            k / T, and the warm-up is laid over it: at step W the rate is already below the peak. This is timm's
            default, and DeiT's (arXiv 2012.12877).
        cycles: how many cosines of equal length there are, one after the other.
        decay: factor that each cycle's peak has to the one before it; the floor stays.
    """

    peak: float
    steps: int
    warmup_steps: int = 0
    start: float = 1e-6
    floor: float = 1e-6
    prefix: bool = True
    cycles: int = 1
    decay: float = 1.0

    def after_warmup(self, step):
        first = self.warmup_steps if self.prefix else 0
        cycle, progress = divmod((step - first) * self.cycles / max(self.steps - first, 1), 1)
        if cycle >= self.cycles:
            return self.floor
        peak = self.peak * self.decay**cycle
        return self.floor + (peak - self.floor) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class WarmupLinear(Schedule):
    """Linear warm-up, then a straight line from ``peak`` at step W to ``floor`` at step T.

    Args: as for :class:`WarmupCosine`.
    """

    peak: float
    steps: int
    warmup_steps: int = 0
    start: float = 1e-6
    floor: float = 0.0

    def after_warmup(self, step):
        progress = min((step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1), 1.0)
        return self.peak + (self.floor - self.peak) * progress


@dataclass(frozen=True)
class StepDecay(Schedule):
    """Linear warm-up, then ``peak``, multiplied by ``factor`` at each of the ``milestones``.

    For ResNets on CIFAR (He et al., arXiv 1512.03385, section 4.2): peak 0.1, milestones at steps 32,000 and 48,000 of
    64,000; the one of 110 layers needs a warm-up from 0.01.

    Args:
        milestones: step numbers; a milestone's own step is the first with the smaller rate.
        factor: what each milestone multiplies by.
        others: as for :class:`WarmupCosine`.
    """

    peak: float
    milestones: tuple[int, ...]
    factor: float = 0.1
    warmup_steps: int = 0
    start: float = 1e-6

    def after_warmup(self, step):
        return self.peak * self.factor ** sum(step >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class PerEpoch:
    """Another schedule, evaluated once an epoch: all steps of an epoch get the rate of its first.

    Args:
        schedule: the other one, in steps.
        steps_per_epoch: length of an epoch.
        lag: epochs by which it comes late. With 1 the epochs 0 and 1 both get the rate of epoch 0: so run the official
            codes of DeiT and of BinaryViT, which set the rate after each epoch, by the number of that epoch.
    """

    schedule: Schedule
    steps_per_epoch: int
    lag: int = 0

    def __call__(self, step):
        """Return the learning rate of ``step``."""
        epoch = max(step // self.steps_per_epoch - self.lag, 0)
        return self.schedule(epoch * self.steps_per_epoch)
