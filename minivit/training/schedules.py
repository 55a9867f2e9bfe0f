"""Learning-rate schedules: functions of the step number, so a resumed run needs nothing but the step."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine, evaluated at every step (not at every epoch).

    With W warm-up steps out of T, step k (counted from 0) gets

        k < W:   start + (peak - start) * k / W
        k >= W:  floor + (peak - floor) * (1 + cos(pi * (k - W) / (T - W))) / 2

    Source: the published training code of "Vision Transformer for Small-Size Datasets" (arXiv 2112.13492),
    where start = floor = 1e-6; the cosine is that of SGDR (arXiv 1608.03983) without restarts.

    Args:
        peak: the highest learning rate, reached at step W.
        steps: T, all steps of the run.
        warmup_steps: W, 0 for none.
        start: learning rate of step 0 where there is a warm-up.
        floor: learning rate that the cosine falls towards.
    """

    peak: float
    steps: int
    warmup_steps: int = 0
    start: float = 1e-6
    floor: float = 1e-6

    def __call__(self, step):
        """Return the learning rate of ``step``; steps past the end keep the floor."""
        if step < self.warmup_steps:
            return self.start + (self.peak - self.start) * step / self.warmup_steps
        progress = min((step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1), 1.0)
        return self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * progress)) / 2
