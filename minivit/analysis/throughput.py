"""How fast a network answers, measured."""

import statistics
import time

import numpy as np

from minivit.tensor import Tensor, no_grad


def images_per_second(model, batch_size, runs=3, seconds=2.0):
    """Measure inference: the median over at least ``runs`` batches of noise, and as many as begin within ``seconds``.

    A first batch, which compiles kernels and takes memory, is not counted. The mode of ``model`` is restored.

    Args:
        model: a network of ``minivit.models``.
        batch_size: images at once.
    """
    shape = (batch_size, model.config.in_chans, *model.config.image_shape)
    images = Tensor(np.random.default_rng(0).standard_normal(shape, np.float32))
    was_training, times = model.training, []
    model.eval()
    try:
        with no_grad(), np.errstate(all="ignore"):
            model(images)
            begin = time.perf_counter()
            while len(times) < runs or time.perf_counter() - begin < seconds:
                started = time.perf_counter()
                model(images)
                times.append(time.perf_counter() - started)
    finally:
        model.train(was_training)
    return batch_size / statistics.median(times)
