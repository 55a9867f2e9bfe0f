"""One training step of SL-ViT in minivit and in PyTorch, and how the two are compared, timed and profiled.

Every public function here runs in a fresh process and imports only what its side needs.
"""

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

NUM_CLASSES = 100
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05


@dataclass(frozen=True)
class Workload:
    """What every process is told: the network, the batch, and how long to measure."""

    depth: int
    width: int
    batch_size: int
    threads: int
    steps: int
    warmup: int


def random_batch(work):
    """Images (B, 3, 32, 32) float32 of unit variance and labels (B,) int64, the same on every call."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.standard_normal((work.batch_size, 3, 32, 32), dtype=np.float32)
    return images, rng.integers(0, NUM_CLASSES, work.batch_size)


# ---- minivit ----


def minivit_model(work):
    """SL-ViT in minivit."""
    import minivit

    return minivit.create_model(
        "sl_vit", num_classes=NUM_CLASSES, embed_dim=work.width, depth=work.depth, drop_path_rate=0.0, seed=0
    )


def minivit_stepper(work):
    """A function that runs one training step in minivit."""
    import minivit
    from minivit.kernels.memory import keep_freed_memory
    from minivit.training.optimizers import AdamW

    keep_freed_memory()  # as minivit.train does
    model = minivit_model(work)
    optimizer = AdamW(model.named_parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    images, labels = random_batch(work)
    images = minivit.Tensor(images)

    def step():
        optimizer.zero_grad()
        loss = minivit.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def time_minivit(work):
    """The dictionary of ``measure`` for minivit, and the BLAS in force."""
    import minivit
    from minivit.blas import describe_blas

    # What minivit loads on first use belongs to the baseline, as `import torch` does on the other side.
    minivit.create_model, minivit.cross_entropy, minivit.Tensor  # noqa: B018
    return measure(lambda: minivit_stepper(work), work) | {"blas": describe_blas()}


def profile_minivit(work):
    """Means over the timed steps: ``{"step": seconds, "ops": {name: (calls, forward s, backward s)}}``."""
    import minivit.tensor

    step = minivit_stepper(work)
    for _ in range(work.warmup):
        step()
    with minivit.tensor.profile_ops() as ops:
        seconds = sum(seconds_of(step) for _ in range(work.steps))
    ops = {name: tuple(value / work.steps for value in times) for name, times in ops.items()}
    return {"step": seconds / work.steps, "ops": ops}


# ---- PyTorch ----


def torch_model(work, fused=True):
    """SL-ViT in PyTorch."""
    import torch
    from torch_sl_vit import SLViT

    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    return SLViT(NUM_CLASSES, embed_dim=work.width, depth=work.depth, fused=fused)


def torch_stepper(work, fused, optimizer):
    """A function that runs one training step in PyTorch."""
    import torch
    import torch.nn.functional as F

    model = torch_model(work, fused)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, **{optimizer: True}
    )
    images, labels = map(torch.from_numpy, random_batch(work))

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def choose_torch_variant(work):
    """``(fused attention, "foreach" or "fused" AdamW)``: the fastest here, by the best step of several."""
    variants = [(fused, optimizer) for fused in (True, False) for optimizer in ("foreach", "fused")]
    steppers = {variant: torch_stepper(work, *variant) for variant in variants}
    best = dict.fromkeys(variants, float("inf"))
    for step in steppers.values():
        step()
    for _ in range(4):  # in alternation, so that a slow spell of the machine hits all
        for variant, step in steppers.items():
            best[variant] = min(best[variant], seconds_of(step))
    return min(best, key=best.get)


def time_torch(work, fused, optimizer):
    """The dictionary of ``measure`` for PyTorch, and the libraries in force."""
    import torch

    measured = measure(lambda: torch_stepper(work, fused, optimizer), work)
    library = "MKL" if torch.backends.mkl.is_available() else "no MKL"
    blas = f"torch {torch.__version__}, {library}, {torch.backends.cpu.get_cpu_capability()}"
    return measured | {"blas": blas}


# ---- Both ----


def compare(work):
    """Largest relative differences of logits, loss and gradients, from the same random weights."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    import minivit

    ours, theirs = minivit_model(work), torch_model(work)
    rng = np.random.default_rng(1)
    # Not the initial values: there the norms, biases and scales could be mixed up unnoticed.
    weights = {
        name: value + 0.05 * rng.standard_normal(value.shape, dtype=np.float32)
        for name, value in ours.state_dict().items()
    }
    ours.load_state_dict(weights)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    images, labels = random_batch(work)

    logits = ours(minivit.Tensor(images))
    loss = minivit.cross_entropy(logits, labels)
    loss.backward()
    their_logits = theirs(torch.from_numpy(images))
    their_loss = F.cross_entropy(their_logits, torch.from_numpy(labels))
    their_loss.backward()

    def difference(a, b):
        return float(np.abs(a - b).max() / np.abs(b).max())

    their_gradients = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    return {
        "logits": difference(logits.data, their_logits.detach().numpy()),
        "loss": abs(float(loss.data) / their_loss.item() - 1),
        "gradients": max(difference(p.grad, their_gradients[name]) for name, p in ours.named_parameters()),
    }


def measure(build, work):
    """Build a stepper, warm it up, time it.

    Returns:
        ``seconds`` of each timed step; ``process_peak``, the most memory held, in bytes; and ``peak``, how
        much of it came after the libraries were loaded.
    """
    before = memory("VmRSS")
    step = build()
    for _ in range(work.warmup):
        step()
    seconds = [seconds_of(step) for _ in range(work.steps)]
    return {"seconds": seconds, "peak": memory("VmHWM") - before, "process_peak": memory("VmHWM")}


def seconds_of(function):
    """Wall-clock seconds that one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def memory(field):
    """Resident bytes of this process: ``VmRSS`` now, ``VmHWM`` at the peak. Off Linux both give the peak."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
