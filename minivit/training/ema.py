"""An exponential moving average of the weights, which is often a better network than the weights themselves."""

import contextlib

from minivit.training.state_arrays import copy_into


class ModelEma:
    """Average e of a model's parameters and floating buffers w, moved after every step of the optimiser:

        e <- d e + (1 - d) w

    It starts as a copy of the weights, and has no bias correction. Buffers of integers, such as the counter of a
    BatchNorm, are copied: rounded averages of them would stay where they are.

    With ``warmup`` the rate d grows with the number of steps towards ``decay``, so that the first weights are soon
    forgotten:

        d = min(decay, 1 - (1 + s)^(-2/3)) for s = step - 1 > 0, else 0

    The average reaches back about 1 / (1 - d) steps: DeiT (arXiv 2012.12877) takes d = 0.99996, a run of a few
    thousand steps needs a smaller one, or the warm-up. Source: timm's ModelEmaV2, and with ``warmup`` its ModelEmaV3.

    Args:
        model: the ``Module`` to follow.
        decay: d, or with ``warmup`` the most that it becomes.
        warmup: see above.
    """

    def __init__(self, model, decay=0.9999, warmup=False):
        self.decay, self.warmup = decay, warmup
        self._tensors = dict([*model.named_parameters(), *model.named_buffers()])
        self._averages = {name: tensor.data.copy() for name, tensor in self._tensors.items()}

    def decay_at(self, step):
        """Return d after ``step`` steps."""
        if not self.warmup:
            return self.decay
        s = max(step - 1, 0)
        return min(self.decay, 1 - (1 + s) ** (-2 / 3))

    def update(self, step):
        """Move the averages towards the weights as they are now.

        Args:
            step: how many steps the optimiser has taken, the last one included. Only the warm-up asks.
        """
        d = self.decay_at(step)
        for name, tensor in self._tensors.items():
            average = self._averages[name]
            if average.dtype.kind == "f":
                # Not d e + (1 - d) w: in float32 the two factors do not add up to 1, and the average would drift.
                distance = tensor.data - average
                distance *= 1 - d
                average += distance
            else:
                average[...] = tensor.data

    @contextlib.contextmanager
    def swap(self):
        """Context manager: inside, the model holds the averages, to be evaluated or saved; then its own weights."""
        own = {name: tensor.data for name, tensor in self._tensors.items()}
        try:
            for name, tensor in self._tensors.items():
                tensor.data = self._averages[name]
            yield
        finally:
            for name, tensor in self._tensors.items():
                tensor.data = own[name]

    def state_dict(self):
        """Return name -> array, under the names of ``model.state_dict()`` (not copies)."""
        return dict(self._averages)

    def load_state_dict(self, arrays):
        """Take over what :meth:`state_dict` gave.

        Raises:
            MinivitError: names, shapes or dtypes are not those of this model.
        """
        copy_into(self._averages, arrays, "the average of the weights")
