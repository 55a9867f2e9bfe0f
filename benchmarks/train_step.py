"""Time one training step of SL-ViT (forward, loss, backward, AdamW) in minivit and in PyTorch eager.

Both sides train the same network from the same weights on the same batch, which a first stage verifies. Each
is then timed in fresh processes of its own, in turn, so that thread pools and peak memory stay apart and a
slow spell of the machine hits both. PyTorch runs the fastest of its attention and optimiser variants.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor

import steppers

TOLERANCES = {"logits": 1e-4, "loss": 1e-4, "gradients": 1e-3}
THREAD_VARIABLES = ("MINIVIT_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
OPTIONS = {
    "depth": (9, "transformer blocks"),
    "width": (192, "embedding width, a multiple of the 12 heads"),
    "batch-size": (128, "images in a step"),
    "threads": (2, "threads of either side"),
    "steps": (10, "timed steps in each round"),
    "warmup": (3, "untimed steps before them"),
    "rounds": (3, "fresh processes for each side, in alternation"),
}


def main():
    options = vars(parse_arguments())
    as_json, rounds = options.pop("json"), options.pop("rounds")
    work = steppers.Workload(**options)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(work.threads)))  # for the processes started below
    print(
        f"SL-ViT, depth {work.depth}, width {work.width}, batch {work.batch_size}, {work.threads} threads, "
        f"{rounds} rounds of {work.steps} steps"
    )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(f"the machine is busy (load {load:.1f}): times will be slow and uneven, most of all PyTorch's")

    with_torch = importlib.util.find_spec("torch") is not None
    if with_torch:
        differences = in_fresh_process(steppers.compare, work)
        print("differences: " + ", ".join(f"{name} {value:.1e}" for name, value in differences.items()))
        if not all(differences[name] <= limit for name, limit in TOLERANCES.items()):
            complain("the two sides do not compute the same, so their times cannot be compared")
            return 1
        variant = in_fresh_process(steppers.choose_torch_variant, work)
        attention = "scaled_dot_product_attention" if variant[0] else "matmul and softmax"
        print(f"torch runs {attention} and AdamW({variant[1]}=True), its fastest variants here")

    ours, theirs = [], []
    for _ in range(rounds):
        if with_torch:
            theirs.append(in_fresh_process(steppers.time_torch, work, *variant))
        ours.append(in_fresh_process(steppers.time_minivit, work))
    result = report(ours, theirs, work)
    print_profile(in_fresh_process(steppers.profile_minivit, work))
    if not with_torch:
        complain('PyTorch is not installed, so minivit was timed alone: pip install "minivit[bench]"')
    if as_json:
        print(json.dumps(result))
    return 0 if with_torch else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, (default, meaning) in OPTIONS.items():
        parser.add_argument(
            f"--{name}", type=positive, default=default, metavar="N", help=f"{meaning} (default {default})"
        )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    if arguments.width % 12:
        parser.error(f"--width {arguments.width} is not a multiple of the 12 heads")
    return arguments


def positive(text):
    """An argparse type: a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def in_fresh_process(function, *arguments):
    """Call ``function`` in a new interpreter and return its result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def report(ours, theirs, work):
    """Print a line for each side, and how they compare; return the numbers for JSON."""
    ours_per_second, ours_peak = print_side("minivit", ours, work)
    result = {
        "ours_images_per_second": round(ours_per_second, 1),
        "threads": work.threads,
        "blas": ours[0]["blas"],
    }
    if theirs:
        torch_per_second, torch_peak = print_side("torch", theirs, work)
        by_round = [median_seconds([b]) / median_seconds([a]) for a, b in zip(ours, theirs, strict=True)]
        best = min(all_seconds(theirs)) / min(all_seconds(ours))
        ratio, memory_ratio = ours_per_second / torch_per_second, ours_peak / torch_peak
        print(
            f"minivit is {ratio:.2f} times as fast (by round {min(by_round):.2f} to {max(by_round):.2f}, "
            f"best step against best step {best:.2f}) and takes {memory_ratio:.2f} times the memory"
        )
        result |= {
            "ratio": round(ratio, 3),
            "ratio_of_best_steps": round(best, 3),
            "torch_images_per_second": round(torch_per_second, 1),
            "peak_memory_ratio": round(memory_ratio, 3),
        }
    return result


def print_side(name, rounds, work):
    """Print the times and the memory of one side; return its images per second and its peak in bytes."""
    low, median, high = (value * 1e3 for value in statistics.quantiles(all_seconds(rounds), n=4))
    images_per_second = work.batch_size / median_seconds(rounds)
    # The first process may have compiled kernels too, so the smallest peak is that of training alone.
    peak = min(measured["peak"] for measured in rounds)
    process_peak = min(measured["process_peak"] for measured in rounds)
    best = min(all_seconds(rounds)) * 1e3
    print(
        f"{name:8} {median:7.1f} ms a step (best {best:.1f}, quartiles {low:.1f} to {high:.1f}), "
        f"{images_per_second:.1f} images/s, peak {peak / 2**20:.0f} MiB "
        f"(whole process {process_peak / 2**20:.0f}); {rounds[0]['blas']}"
    )
    return images_per_second, peak


def all_seconds(rounds):
    return [seconds for measured in rounds for seconds in measured["seconds"]]


def median_seconds(rounds):
    return statistics.median(all_seconds(rounds))


def print_profile(profile):
    """Print where a step of minivit spends its time, slowest op first."""
    step, ops = profile["step"], profile["ops"]
    print(f"\nminivit op by op, one step of {step * 1e3:.1f} ms")
    print(f"{'op':24} {'calls':>6} {'forward ms':>11} {'backward ms':>12} {'share':>7}")
    for name, (calls, forward, backward) in sorted(ops.items(), key=lambda item: -sum(item[1][1:])):
        share = (forward + backward) / step
        print(f"{name:24} {calls:6.0f} {forward * 1e3:11.2f} {backward * 1e3:12.2f} {share:7.1%}")
    rest = step - sum(forward + backward for _, forward, backward in ops.values())
    print(f"{'optimiser and the rest':31} {rest * 1e3:11.2f} {'':12} {rest / step:7.1%}")


def complain(message):
    print(f"train_step: {message}", file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
