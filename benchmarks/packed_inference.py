"""Time BinaryViT on bits, 224 pixels, against itself in floats, in PyTorch, and against DeiT-S in PyTorch.

The binary network has one set of weights, random, none of its constants where training begins, and the BatchNorm
statistics of a few random batches. A first stage verifies that packed and float-simulated logits are equal, and that
PyTorch's networks compute what minivit's do (in float64: in float32 a sign here and there falls to the other side).
Then every side runs in fresh processes, in turn, so that a slow spell of the machine hits all. PyTorch runs eagerly,
as it does by default, not compiled.
"""

import argparse
import functools
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from xnor_gemm import FLAGS, describe_machine, in_fresh_process, settings

SIDES = {
    "packed": "minivit, on bits",
    "float": "minivit, simulated in float32",
    "torch": "PyTorch, eager, simulated in float32",
    "torch_deit_s": "PyTorch, eager, DeiT-S in float32",
}
TOLERANCE = 1e-6  # of logits in float64, relative to the largest
# What a packed network calls, by the module that holds the name.
KERNELS = {
    "minivit.kernels.binary_unit": {
        "unit_to_bits": "MLP, first unit: product to bits and means",
        "unit_residual": "MLP and output units: product to residual sum",
        "unit": "query, key, value units and down-sampling",
    },
    "minivit.nn.packed": {
        "binary_scores": "attention: scores",
        "binary_attention_values": "attention: {0, 1} times values",
        "pack_signs": "packing of queries, keys and unit inputs",
        "pack_columns": "packing of values",
    },
    "minivit.kernels.binary_block": {
        "normalize_to_bits": "BatchNorm and packing",
        "probability_bits": "attention: softmax to bits",
        "join": "attention: BatchNorm, sum, RPReLU and packing",
    },
    "minivit.kernels.pooling": {"cross": "pooling branches", "cell_means": "means of cells"},
}


def main():
    arguments = parse_arguments()
    if importlib.util.find_spec("torch") is None:
        print('PyTorch is not installed: pip install "minivit[bench]"', file=sys.stderr)
        return 1
    environment = settings(arguments.threads)
    flags, cores = in_fresh_process({}, describe_machine)
    print(f"{arguments.threads} of {cores} cores, flags {' '.join(sorted(FLAGS & flags)) or 'unknown'}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(f"the machine is busy (load {load:.1f}): times will be slow and uneven")
    with tempfile.TemporaryDirectory() as folder:
        file_ratio = in_fresh_process(environment, prepare, folder)
        difference = in_fresh_process(environment, compare, folder)
        print(
            f"packed file 1/{file_ratio:.1f} of the float32 weights; logits differ from PyTorch's by {difference:.1e}"
        )
        if not difference <= TOLERANCE:
            print("the two sides do not compute the same, so their times cannot be compared", file=sys.stderr)
            return 1
        times = {}
        for _ in range(arguments.rounds):
            for side in SIDES:
                for batch in (1, arguments.batch):
                    new = in_fresh_process(
                        environment, time_side, side, folder, batch, arguments.threads, arguments.seconds
                    )
                    times.setdefault((side, batch), []).extend(new)
        print_breakdown(in_fresh_process(environment, time_kernels, folder))
    result = report(times, arguments.batch) | {"file_ratio": round(file_ratio, 2)}
    if arguments.json:
        print(json.dumps(result))
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of every side (default 1)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="images in a large batch (default 32)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="fresh processes for each (default 3)")
    parser.add_argument("--seconds", type=float, default=2, metavar="S", help="time for each of them (default 2)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    if min(arguments.threads, arguments.rounds) < 1 or arguments.batch < 2 or not 0 <= arguments.seconds < 600:
        parser.error("--threads and --rounds must be at least 1, --batch at least 2, --seconds from 0 to below 600")
    return arguments


# ---- In fresh processes ----


def random_images(batch, seed=0):
    import numpy as np

    return np.random.default_rng(seed).standard_normal((batch, 3, 224, 224)).astype(np.float32)


def prepare(folder):
    """Write the weights of both networks, and the packed one. Returns how many times smaller its file is than its
    float32 weights."""
    import numpy as np

    from minivit import Tensor, create_model, no_grad
    from minivit.models.packing import pack
    from minivit.training import checkpoint

    model, rng = create_model("binary_vit", img_size=224, seed=0).train(), np.random.default_rng(0)
    for parameter in model.parameters():
        if parameter.ndim:  # constants that are alike, as initial ones are, would deflate to nothing in the file
            parameter.data = parameter.data + 0.01 * rng.standard_normal(parameter.shape, np.float32)
    with no_grad():
        for seed in range(1, 4):
            model(Tensor(random_images(4, seed)))
    model.eval()
    weights = model.state_dict()
    np.savez(Path(folder, "binary_vit.npz"), **weights)
    np.savez(Path(folder, "deit_s.npz"), **create_model("deit_small_patch16_224", seed=0).state_dict())
    images = Tensor(random_images(2))
    with no_grad():
        expected = model(images).data
        checkpoint.save(Path(folder, "binary_vit.packed"), pack(model))
        if not np.array_equal(expected, model(images).data):
            raise AssertionError("packed logits are not those of the network in floats")
    return 4 * sum(a.size for a in weights.values()) / Path(folder, "binary_vit.packed").stat().st_size


def compare(folder):
    """The largest difference between PyTorch's logits and ours in float64, relative to the largest logit."""
    import numpy as np
    import torch

    from minivit import Tensor, create_model, no_grad

    differences, images = [], random_images(1).astype(np.float64)
    for name, side, file in (
        ("binary_vit", "torch", "binary_vit.npz"),
        ("deit_small_patch16_224", "torch_deit_s", "deit_s.npz"),
    ):
        ours = create_model(name, seed=0)
        ours.load_state_dict(dict(np.load(Path(folder, file))))
        theirs = torch_model(side, folder, torch.float64)
        with no_grad(), torch.no_grad():
            expected = ours.eval().astype("float64")(Tensor(images)).data
            found = theirs(torch.from_numpy(images)).numpy()
        differences.append(np.abs(found - expected).max() / np.abs(expected).max())
    return float(max(differences))


def torch_model(side, folder, dtype):
    import numpy as np
    import torch
    import torch_binary_vit

    model, file = {
        "torch": (torch_binary_vit.BinaryViT, "binary_vit.npz"),
        "torch_deit_s": (torch_binary_vit.DeiTSmall, "deit_s.npz"),
    }[side]
    model = model()
    model.load_state_dict({name: torch.from_numpy(a) for name, a in np.load(Path(folder, file)).items()})
    model = model.to(dtype).eval()
    if side == "torch":
        model.binarize()
    return model


def time_side(side, folder, batch, threads, seconds):
    """Seconds of forward passes, at least two of them; those of the first 0.5 s, or the first one, do not count."""
    images = random_images(batch)
    if side.startswith("torch"):
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        call = functools.partial(torch_model(side, folder, torch.float32), torch.from_numpy(images))
    else:
        call = our_model(side, folder, images)
    started = time.perf_counter()
    while True:
        call()
        if time.perf_counter() - started > 0.5:
            break
    times, started = [], time.perf_counter()
    while len(times) < 2 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return times


def our_model(side, folder, images):
    """A function that runs our network, packed or in floats."""
    import numpy as np

    from minivit import Tensor, create_model, no_grad
    from minivit.kernels.memory import keep_freed_memory
    from minivit.training import checkpoint

    keep_freed_memory()
    if side == "packed":
        model = checkpoint.load(Path(folder, "binary_vit.packed"))
    else:
        model = create_model("binary_vit", img_size=224, seed=0)
        model.load_state_dict(dict(np.load(Path(folder, "binary_vit.npz"))))
    model.eval()
    images = Tensor(images)
    return no_grad()(lambda: model(images))


def time_kernels(folder):
    """For one packed image, the fastest of many: milliseconds and calls of each kernel, and milliseconds of it all."""
    call, best = our_model("packed", folder, random_images(1)), None
    spent = {}

    def watch(module, name, label):
        function = getattr(module, name)

        def watched(*args, **kwargs):
            before = time.perf_counter()
            result = function(*args, **kwargs)
            milliseconds, calls = spent.get(label, (0, 0))
            spent[label] = milliseconds + 1e3 * (time.perf_counter() - before), calls + 1
            return result

        setattr(module, name, watched)

    for module, names in KERNELS.items():
        for name, label in names.items():
            watch(importlib.import_module(module), name, label)
    for _ in range(50):
        spent.clear()
        before = time.perf_counter()
        call()
        total = 1e3 * (time.perf_counter() - before)
        if best is None or total < best[1]:
            best = dict(spent), total
    return best


# ---- The report ----


def print_breakdown(measured):
    kernels, total = measured
    print(
        f"\npacked, one image, {total:.1f} ms while every kernel is timed\n{'kernel':50} {'calls':>5} {'ms':>6} share"
    )
    for label, (milliseconds, calls) in sorted(kernels.items(), key=lambda item: -item[1][0]):
        print(f"{label:50} {calls:5} {milliseconds:6.2f} {milliseconds / total:5.1%}")
    rest = total - sum(milliseconds for milliseconds, _ in kernels.values())
    print(f"{'patch embedding, head, and Python between kernels':50} {'':5} {rest:6.2f} {rest / total:5.1%}\n")


def report(times, batch):
    best = {key: min(values) for key, values in times.items()}
    median = {key: statistics.median(values) for key, values in times.items()}
    for size in (1, batch):
        print(f"{f'batch {size}, milliseconds an image':38}    best  median  over packed's: best  median")
        for side, meaning in SIDES.items():
            print(
                f"  {meaning:36} {1e3 * best[side, size] / size:7.1f} {1e3 * median[side, size] / size:7.1f}"
                f" {best[side, size] / best['packed', size]:20.1f} {median[side, size] / median['packed', size]:7.1f}"
            )
    return {
        f"{name}_over_{side}_batch{size}": round(values[side, size] / values["packed", size], 2)
        for name, values in (("ratio", best), ("ratio_of_medians", median))
        for size in (1, batch)
        for side in SIDES
        if side != "packed"
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
