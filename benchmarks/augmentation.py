"""What augmentation costs: training steps of a recipe with its augmentation, and with normalisation only.

Batches come from the loader as in training, prepared ahead by its thread. Steps of both kinds take turns, so that a
slow spell of the machine hits both; what is added is measured pair by pair. The pipeline alone is timed as processor
time of one thread. All figures are medians, with the quartiles in brackets: where those lie far apart, run it again.
"""

import argparse
import json
import os
import time
from itertools import chain, count

import numpy as np

IMAGES = 4096
RECIPES = {  # recipe -> (model, side)
    "small_data": ("sl_vit", 32),
    "quick_deit": ("deit_tiny_patch16_224", 32),
    "quick_augreg": ("vit", 32),
    "small_data at 64 pixels": ("sl_vit", 64),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="timed steps of each kind (default 20)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(f"the machine is busy (load {load:.1f}): times will be slow and uneven")
    print(f"{'recipe':26}{'batch':>6}{'pipeline ms':>20}{'step ms':>20}{'with it':>20}{'added %':>22}")
    results = {"load": round(load, 2)}
    for name, (model, side) in RECIPES.items():
        pipeline, plain, augmented, batch = measure(name.partition(" ")[0], model, side, arguments.steps)
        added = augmented / plain - 1
        print(
            f"{name:26}{batch:6}{spread(1e3 * pipeline, '.1f'):>20}{spread(1e3 * plain, '.0f'):>20}"
            f"{spread(1e3 * augmented, '.0f'):>20}{spread(100 * added, '.1f'):>22}",
            flush=True,
        )
        results[name] = {
            "pipeline_ms": round(1e3 * np.median(pipeline), 2),
            "added": round(np.median(added), 4),
            "added_quartiles": np.percentile(added, (25, 75)).round(4).tolist(),
        }
    if arguments.json:
        print(json.dumps(results))


def spread(values, style):
    """The median of the values and their quartiles, as text."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return f"{median:{style}} [{low:{style}} {high:{style}}]"


def measure(recipe, model_name, side, steps):
    """Seconds of one thread that the pipeline takes for a batch, of a step without and with it; images in a batch.

    The first three are arrays (steps,).
    """
    import minivit
    from minivit.data import Dataset, Split
    from minivit.data.augmentation import Augmentation
    from minivit.kernels.memory import keep_freed_memory
    from minivit.training import build
    from minivit.training.config import resolve

    keep_freed_memory()  # as minivit.train does
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (IMAGES, 3, side, side), np.uint8), rng.integers(0, 100, IMAGES))
    dataset = Dataset("noise", split, split, tuple(map(str, range(100))), (0.5,) * 3, (0.25,) * 3, side)
    config = resolve({"recipe": recipe, "model": model_name, "data": "cifar100"})
    model = build.build_model(config, dataset).train()
    optimizer = build.build_optimizer(config, model)
    loader = build.build_loader(config, dataset)
    plain = build.build_loader(config, dataset)
    plain.augmentation = Augmentation()

    def batches(source):
        return chain.from_iterable(source.epoch(epoch) for epoch in count())

    def step(images, targets):
        optimizer.zero_grad()
        minivit.cross_entropy(model(minivit.Tensor(images)), targets, label_smoothing=0.1).backward()
        optimizer.step()

    sources, seconds = (batches(plain), batches(loader)), ([], [])
    for number in range(steps + 2):
        for source, times in zip(sources, seconds):
            start = time.perf_counter()
            step(*next(source))
            if number >= 2:
                times.append(time.perf_counter() - start)

    spent = []
    loader.prefetch = 0
    single = batches(loader)
    for _ in range(steps):
        start = time.thread_time()
        next(single)
        spent.append(time.thread_time() - start)
    return *map(np.array, (spent, *seconds)), config.batch_size


if __name__ == "__main__":
    main()
