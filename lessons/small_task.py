"""What lessons 06, 07 and 08 share: their images, and how their networks are trained."""

from itertools import count

import numpy as np

import minivit
from minivit.data import DataLoader, Split
from minivit.training.evaluation import evaluate
from minivit.training.optimizers import AdamW
from minivit.training.schedules import WarmupCosine


def first_classes(split, classes, half_size):
    """A ``Split`` of the first ``classes`` classes; at half size (means of 2x2 pixels) on demand."""
    mine = split.labels < classes
    images, labels = split.images[mine], split.labels[mine]
    if half_size:
        n, channels, height, width = images.shape
        windows = images.reshape(n, channels, height // 2, 2, width // 2, 2)
        images = windows.mean((3, 5)).astype(np.uint8)
    return Split(images, labels)


def train(model, split, data, steps, batch_size, peak, seed):
    """Batches of ``split``; the rate rises (a *warm-up*) to its peak, and falls by a cosine."""
    optimizer = AdamW(model.named_parameters())
    schedule = WarmupCosine(peak, steps, warmup_steps=steps // 10)
    loader = DataLoader(split, batch_size, mean=data.mean, std=data.std, seed=seed, shuffle=True)
    batches = (batch for epoch in count() for batch in loader.epoch(epoch))
    for step in range(steps):
        images, labels = next(batches)
        optimizer.lr = schedule(step)
        minivit.cross_entropy(model(minivit.Tensor(images)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()


def top1(model, split, data):
    """Percent of the images of ``split`` that the network names rightly."""
    return evaluate(model, split, data.mean, data.std).top1
