"""Making NumPy fast: fuse what moves bytes, vectorise what computes, keep a plain twin beside.

Read before: lessons 01, 05 and 08.
Takes: 30 s on two cores (--quick 8 s).
Paper: Williams, Waterman & Patterson 2009, "Roofline: an insightful visual performance model for
multicore architectures" (Communications of the ACM 52, 4), for what bounds a loop; Goyal et al.
2017, "Accurate, large minibatch SGD" (arXiv 1706.02677), section 3, remark 3, for averaged
gradients (for BatchNorm, section 2.3).
"""

# %%
import math
import time
from concurrent.futures import ThreadPoolExecutor

import minivit

# isort: split
# NumPy comes after minivit, which picks the BLAS kernels for this processor.
import numba
import numpy as np
from lesson import Lesson

from minivit import nn, ops
from minivit.kernels import use_backend
from minivit.kernels.threads import num_threads, parallel_for
from minivit.nn.init import normal
from minivit.tensor import profile_ops

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## Where the time goes
#
# First measure. `profile_ops` times every op of one training step of an SL-ViT: its forward
# pass, and its share of the backward pass. We run the step twice: on minivit's kernels, and on
# their *twins*, plain NumPy expressions that compute the same (`MINIVIT_KERNELS=numpy` runs all
# of minivit on these). Matrix products are most of `linear`; NumPy hands them to BLAS, which is
# hard to beat. So what is to be gained is in all the rest: normalisation, GELU, softmax, sums.
# (GELU stands out because NumPy has no erf, and the twin calls Python's for each number.)

# %%
model = minivit.create_model("sl_vit", num_classes=10, depth=3, seed=0)
images = rng.standard_normal((lesson.choose(quick=32, full=128), 3, 32, 32)).astype(np.float32)
labels = np.arange(len(images)) % 10


def step():
    model.zero_grad()
    minivit.cross_entropy(model(minivit.Tensor(images)), labels).backward()


spent = {}
for backend in ("numpy", "numba"):
    with use_backend(backend):
        step()  # the first one compiles
        with profile_ops() as profile:
            for _ in range(3):
                step()
    spent[backend] = {op: (f + b) / 3 for op, (_, f, b) in profile.items()}
top = sorted(spent["numba"], key=lambda op: -spent["numpy"][op])[:6]
print("milliseconds of a step    plain NumPy    kernels")
for op in top:
    print(f"  {op:22} {1e3 * spent['numpy'][op]:12.1f} {1e3 * spent['numba'][op]:10.1f}")
print(f"  {'all':22} {1e3 * sum(spent['numpy'].values()):12.1f} "
      f"{1e3 * sum(spent['numba'].values()):10.1f}")

# %% [markdown]
# ## Count the bytes
#
# LayerNorm does some ten additions and multiplications for each number. A core can do more than
# that in the time in which one number comes from memory: what takes time is the bytes. This is
# LayerNorm as NumPy would have it, one line for each thought. Every line reads whole arrays
# from memory and writes a whole array back.


# %%
def layer_norm_plain(x, weight, bias, eps):
    D = x.shape[1]
    mean = x.sum(axis=1, keepdims=True) / D
    centred = x - mean
    var = np.square(centred).sum(axis=1, keepdims=True) / D
    rstd = 1 / np.sqrt(var + eps)
    return centred * rstd * weight + bias, mean, rstd


def layer_norm_backward_plain(g, x, weight, mean, rstd):
    D = x.shape[1]
    normed = (x - mean) * rstd
    gw = g * weight
    mean_g = gw.sum(axis=1, keepdims=True) / D
    mean_gx = (gw * normed).sum(axis=1, keepdims=True) / D
    dx = rstd * (gw - mean_g - normed * mean_gx)
    return dx, (g * normed).sum(axis=0), g.sum(axis=0)


# %% [markdown]
# How many bytes are that? An array that counts says it: NumPy asks `__array_ufunc__` before
# each of its elementary functions runs. In units of the size $X$ of the array `x`, the forward
# pass moves 12, and the backward pass 25. A pass that read its inputs once and wrote its
# result once would move 2 ($x$ in, the result out), and 3 ($g$ and $x$ in, $dx$ out).


# %%
class Counted(np.ndarray):
    """An array that adds up, in ``Counted.bytes``, what each ufunc reads and writes."""

    bytes = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        arrays = [a.view(np.ndarray) if isinstance(a, Counted) else a for a in inputs]
        result = getattr(ufunc, method)(*arrays, **options)
        Counted.bytes += sum(np.asarray(a).nbytes for a in arrays) + result.nbytes
        return result.view(Counted)


def bytes_moved(function, *arrays):
    Counted.bytes = 0
    function(*(a.view(Counted) if isinstance(a, np.ndarray) else a for a in arrays))
    return Counted.bytes


R, D = lesson.choose(quick=32_768, full=131_072), 192
x, g = rng.standard_normal((2, R, D)).astype(np.float32)
weight, bias = rng.standard_normal((2, D)).astype(np.float32)
eps = np.float32(1e-3)  # so large that one would see if it were left out
_, mean, rstd = layer_norm_plain(x, weight, bias, eps)
moved = {
    "forward": bytes_moved(layer_norm_plain, x, weight, bias, eps),
    "backward": bytes_moved(layer_norm_backward_plain, g, x, weight, mean, rstd),
}
needed = {"forward": 2 * x.nbytes, "backward": 3 * x.nbytes}
for name in moved:
    in_arrays = moved[name] / x.nbytes
    print(f"LayerNorm {name}: NumPy moves {in_arrays:.1f} X, needed: {needed[name] // x.nbytes} X")
    assert round(in_arrays) == {"forward": 12, "backward": 25}[name]

# %% [markdown]
# ## Fuse
#
# Numba compiles a Python function that loops over arrays to machine code. A row of 192 floats
# fits the fastest cache, so that only the first loop over it waits for memory, and nothing but
# the result is written. Two settings matter. `fastmath` lets the compiler add up in another
# order, without which a sum cannot use vector registers; not all of `fastmath`, since the full
# set may assume that there is no NaN. And `nogil` lets other threads run meanwhile.

# %%
compiled = numba.njit(fastmath={"reassoc", "contract", "nsz"}, error_model="numpy", nogil=True)


@compiled
def layer_norm_rows(x, weight, bias, eps, out, mean, rstd):
    one, D = np.float32(1), np.float32(x.shape[1])
    for i in range(x.shape[0]):
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        m = total / D
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += (x[i, j] - m) * (x[i, j] - m)
        r = one / np.sqrt(total / D + eps)
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - m) * r * weight[j] + bias[j]
        mean[i, 0], rstd[i, 0] = m, r


@compiled
def layer_norm_backward_rows(g, x, weight, mean, rstd, dx, dweight, dbias):
    D = np.float32(x.shape[1])
    for i in range(x.shape[0]):
        m, r = mean[i, 0], rstd[i, 0]
        sum_g, sum_gx = np.float32(0), np.float32(0)
        for j in range(x.shape[1]):
            normed, gw = (x[i, j] - m) * r, g[i, j] * weight[j]
            sum_g += gw
            sum_gx += gw * normed
            dweight[j] += g[i, j] * normed
            dbias[j] += g[i, j]
        mean_g, mean_gx = sum_g / D, sum_gx / D
        for j in range(x.shape[1]):
            normed = (x[i, j] - m) * r
            dx[i, j] = r * (g[i, j] * weight[j] - mean_g - normed * mean_gx)


def layer_norm_fused(x, weight, bias, eps):
    out, (mean, rstd) = np.empty_like(x), np.empty((2, len(x), 1), x.dtype)
    layer_norm_rows(x, weight, bias, eps, out, mean, rstd)
    return out, mean, rstd


def layer_norm_backward_fused(g, x, weight, mean, rstd):
    dx, dweight, dbias = np.empty_like(x), np.zeros_like(weight), np.zeros_like(weight)
    layer_norm_backward_rows(g, x, weight, mean, rstd, dx, dweight, dbias)
    return dx, dweight, dbias


# %% [markdown]
# Fast code is easy to get wrong, and hard to read. So the plain version stays, as the twin that
# says what is meant, and a test holds one against the other; all of `minivit/kernels` is like
# that. Here: ours against the twin and against minivit, values and gradients.


# %%
def largest_difference(ours, theirs):
    """Over several arrays, the largest difference, relative to the largest entry of each."""
    return np.max([np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, theirs)])


few = slice(0, 2000)
plain = layer_norm_plain(x[few], weight, bias, eps)
fused = layer_norm_fused(x[few], weight, bias, eps)
plain_grads = layer_norm_backward_plain(g[few], x[few], weight, *plain[1:])
fused_grads = layer_norm_backward_fused(g[few], x[few], weight, *fused[1:])

tensors = [minivit.Tensor(a, requires_grad=True) for a in (x[few], weight, bias)]
out = ops.layer_norm(*tensors, eps=1e-3)
out.backward(g[few])
theirs = [out.data] + [t.grad for t in tensors]

to_twin = largest_difference([*fused, *fused_grads], [*plain, *plain_grads])
to_minivit = largest_difference([fused[0], *fused_grads], theirs)
print(f"fused LayerNorm differs from its twin by {to_twin:.0e}, from minivit's by {to_minivit:.0e}")
assert max(to_twin, to_minivit) < 1e-5

# %% [markdown]
# Now time both, on one thread. The floor is a plain copy of an array, which moves 2 $X$ and
# does nothing else. A fused kernel that comes near the floor's bytes a second is as fast as
# this machine's memory allows; there is nothing left to optimise but to move fewer bytes.


# %%
out, ours_mean, ours_rstd = (np.empty_like(a) for a in (x, mean, rstd))
dweight, dbias = np.zeros_like(weight), np.zeros_like(bias)
copied = lesson.seconds_of(np.copyto, out, x)
fused = {
    "forward": (layer_norm_rows, x, weight, bias, eps, out, ours_mean, ours_rstd),
    "backward": (layer_norm_backward_rows, g, x, weight, mean, rstd, out, dweight, dbias),
}
seconds = {
    "forward, NumPy": lesson.seconds_of(layer_norm_plain, x, weight, bias, eps),
    "forward, fused": lesson.seconds_of(*fused["forward"]),
    "backward, NumPy": lesson.seconds_of(layer_norm_backward_plain, g, x, weight, mean, rstd),
    "backward, fused": lesson.seconds_of(*fused["backward"]),
}
print(f"\n{x.nbytes / 1e6:.0f} MB, one thread: a copy takes {1e3 * copied:.1f} ms, "
      f"{2e-9 * x.nbytes / copied:.1f} GB/s")
for name, t in seconds.items():
    direction, form = name.split(", ")
    size = (moved if form == "NumPy" else needed)[direction]
    print(f"{name:16} {1e3 * t:7.1f} ms for {size / x.nbytes:4.1f} X: {1e-9 * size / t:5.1f} GB/s")
faster = {d: seconds[f"{d}, NumPy"] / seconds[f"{d}, fused"] for d in moved}

# %% [markdown]
# Rows do not depend on each other, so that threads can share them: `parallel_for` calls a
# function on ranges of rows, on all cores. The compiled loop holds no lock, and each number is
# computed just as before: the result is the same to the last bit. (Not so for `dweight`, a sum
# *over* rows: there the pieces decide in which order is added, so that minivit cuts them by
# the sizes and the number of threads alone, and runs repeat.)

# %%
shared = np.empty_like(x)


def shortest(function, *arguments):
    """Seconds of the fastest of some calls, by the clock on the wall: threads save no work."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)


def on_rows(a, b):
    layer_norm_rows(x[a:b], weight, bias, eps, shared[a:b], ours_mean[a:b], ours_rstd[a:b])


alone = shortest(layer_norm_rows, x, weight, bias, eps, out, ours_mean, ours_rstd)
together = shortest(parallel_for, on_rows, len(x), 1000)
assert np.array_equal(shared, out)
print(f"on {num_threads()} threads: {alone / together:.2f} times as fast, equal to the last bit")

# %% [markdown]
# ## Vectorise
#
# Softmax and GELU need exponentials, and there the bytes are not the limit: `math.exp` takes
# some twenty operations and branches, one number at a time, and LLVM does not vectorise a call
# of a library. Written out, it does. With $k = \lfloor x / \ln 2 + \frac12 \rfloor$ and
# $r = x - k \ln 2$,
#
# $$ e^x = 2^k e^r, \qquad |r| \le \tfrac12 \ln 2, $$
#
# and in so short an interval a polynomial of degree 6 is enough. $2^k$ needs no computation:
# $k + 127$ *is* the exponent field of a float32, bits 23 to 30. The coefficients are those of
# the Cephes library.
#
# A float32 is not exactly $\ln 2$; its error, times $k$, would end up in the result. So $\ln 2$
# comes in two parts, the first with so few digits that $k$ times it has no rounding error. Here
# `fastmath` does harm: a compiler that may reorder adds the two constants up first, and the
# trick is gone. We compile the function both ways and look: in the picture, the error grows
# with $|x|$. (`fastmath=False` must be said: a function about which nothing is said takes over
# the setting of the loop that calls it.)


# %%
def exp32(x):
    f = np.float32
    k = np.floor(x * f(1.44269504) + f(0.5))
    r = x - k * f(0.693359375) - k * f(-2.12194440e-4)
    p = f(1.9875691500e-4)
    p = p * r + f(1.3981999507e-3)
    p = p * r + f(8.3334519073e-3)
    p = p * r + f(4.1665795894e-2)
    p = p * r + f(1.6666665459e-1)
    p = p * r + f(5.0000001201e-1)
    p = p * r * r + r + f(1)
    exponent = np.int32((np.int32(k) + np.int32(127)) << np.int32(23))
    return p * exponent.view(np.float32)


def loop_over(function):
    """A compiled loop that applies a compiled function to each number."""

    @compiled
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


in_order = numba.njit(fastmath=False, error_model="numpy", nogil=True)
exps = {
    "math.exp in Numba": loop_over(in_order(lambda x: math.exp(x))),
    "np.exp": lambda x, out: np.exp(x, out=out),
    "polynomial, fastmath": loop_over(compiled(exp32)),
    "polynomial": loop_over(in_order(exp32)),
}
numbers = np.linspace(-87, 0, 400_000, dtype=np.float32)
values, errors = np.empty_like(numbers), {}
print()
for name, function in exps.items():
    function(numbers, values)
    errors[name] = values / np.exp(numbers, dtype=np.float64) - 1
    t = lesson.seconds_of(function, numbers, values)
    print(f"{name:22} {1e9 * t / numbers.size:5.2f} ns a number, "
          f"relative error at most {np.abs(errors[name]).max():.1e}")
float_step = float(np.finfo(np.float32).eps)
worst = np.abs(errors["polynomial"]).max()
assert worst < 1.2 * float_step

rows = rng.standard_normal((200, 65)).astype(np.float32)
shifted = (rows - rows.max(axis=1, keepdims=True)).ravel()
exponentials = np.empty_like(shifted)
exps["polynomial"](shifted, exponentials)
exponentials = exponentials.reshape(rows.shape)
ours = exponentials / exponentials.sum(axis=1, keepdims=True)
assert largest_difference([ours], [ops.softmax(minivit.Tensor(rows)).data]) < 1e-6

# %% [markdown]
# ## More machines
#
# When one machine is as fast as it gets, take $k$. The loss of a batch is a mean over its
# images, so that its gradient is a mean as well. Cut the batch into $k$ equal parts, let each
# of $k$ workers, with a copy of the weights, compute the gradient of its part, and average:
#
# $$ \nabla \frac1n \sum_{i=1}^{n} L_i
#    = \frac1k \sum_{j=1}^{k} \nabla \Bigl( \frac{k}{n} \sum_{i \in \text{part } j} L_i \Bigr). $$
#
# It is the gradient of the whole batch, not an approximation. Below, the workers are threads.
# (minivit's tape keeps what it records apart for each thread.)

# %%
small = {"num_classes": 4, "img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2,
         "num_heads": 2, "seed": 0}
batch, targets = rng.standard_normal((12, 3, 16, 16)), rng.integers(0, 4, 12)


def gradients(part, build=lambda: minivit.create_model("vit", **small)):
    """The gradients that a worker finds, with a copy of the weights, for its part of the batch."""
    worker = build().astype("float64")
    minivit.cross_entropy(worker(minivit.Tensor(batch[part])), targets[part]).backward()
    return [p.grad for p in worker.parameters()]


def average(found, shares):
    return [sum(s * g for s, g in zip(shares, same)) for same in zip(*found)]


whole = gradients(slice(None))
differences = []
for k in (2, 3, 4, 6, 12):
    parts = np.split(np.arange(12), k)
    with ThreadPoolExecutor(k) as pool:
        found = list(pool.map(gradients, parts))
    differences.append(largest_difference(average(found, [1 / k] * k), whole))
worst_worker = np.max(differences)
assert worst_worker < 1e-10

# %% [markdown]
# Two ways to break it. If the parts are not equal, each gradient counts by its share of the
# images, not by $1/k$. And BatchNorm makes an image's output depend on the others in its part:
# then workers compute something else than one machine would, unless they exchange their means
# and variances too. LayerNorm has no such trouble.

# %%
parts = [np.arange(0, 7), np.arange(7, 10), np.arange(10, 12)]
found = [gradients(part) for part in parts]
by_share = largest_difference(average(found, [len(part) / 12 for part in parts]), whole)
by_worker = largest_difference(average(found, [1 / 3] * 3), whole)
assert by_share < 1e-10 < 1e-3 < by_worker


class WithBatchNorm(nn.Module):
    """BatchNorm of the pixels, their mean, and a linear layer."""

    def __init__(self):
        init = normal(np.random.default_rng(1), 0.5)
        self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3, 4, init=init)

    def forward(self, x):
        y = self.norm(x)
        return self.head((y * y * y).mean((2, 3)))


halves = [gradients(part, WithBatchNorm) for part in np.split(np.arange(12), 2)]
with_norm = largest_difference(average(halves, [0.5, 0.5]), gradients(slice(None), WithBatchNorm))
assert with_norm > 1e-3
print(f"\n2 to 12 workers: gradients differ from the whole batch's by {worst_worker:.0e}; unequal "
      f"parts, by share {by_share:.0e}, by worker {by_worker:.0e}; with BatchNorm {with_norm:.0e}")

# %%
figure, panels = lesson.figure(1, 3, figsize=(13.5, 4))
if figure:
    for i, (backend, label) in enumerate((("numpy", "plain NumPy"), ("numba", "kernels"))):
        bars = panels[0].barh(np.arange(len(top)) + 0.4 * i - 0.2,
                              [1e3 * spent[backend][op] for op in top], height=0.4,
                              color=("#b2182b", "#2166ac")[i], label=label)
        panels[0].bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    panels[0].margins(x=0.25)
    panels[0].set_yticks(range(len(top)), top)
    panels[0].invert_yaxis()
    panels[0].legend(frameon=False, loc="lower right")
    panels[0].set(xlabel="milliseconds of a training step", title="Where the time goes")
    colours = ["#b2182b", "#2166ac"] * 2
    bars = panels[1].barh(list(seconds), [1e3 * t for t in seconds.values()], color=colours)
    labels = []
    for name, t in seconds.items():
        direction, form = name.split(", ")
        size = (moved if form == "NumPy" else needed)[direction]
        labels.append(f"{size / x.nbytes:.0f} X, {1e-9 * size / t:.0f} GB/s")
    panels[1].bar_label(bars, labels, padding=3)
    panels[1].axvline(1e3 * copied, color="black", ls="--", lw=1, label="a copy (2 X)")
    panels[1].invert_yaxis()
    panels[1].legend(frameon=False, loc="lower right")
    panels[1].set(xlim=(0, 1.6e3 * max(seconds.values())), xlabel="milliseconds",
                  title=f"LayerNorm of {x.nbytes / 1e6:.0f} MB on one thread")
    for name, colour in (("polynomial, fastmath", "#b2182b"), ("polynomial", "#2166ac")):
        panels[2].plot(numbers[::40], errors[name][::40] / float_step, ".", ms=1.5, color=colour)
        panels[2].plot([], [], "o", color=colour, label=name)
    panels[2].set(xlabel="$x$", ylabel="relative error, steps of float32",
                  title="$2^k$ times a polynomial, for $e^x$")
    panels[2].legend(frameon=False)
    lesson.save(figure, "speed")

# %% [markdown]
# Exercises: `lessons/exercises/16.py`, checked by `python -m lessons check 16`.
#
# This was the last lesson. `docs/performance.md` goes on where it ends; the kernels stand in
# `minivit/kernels`, each with its twin.

# %%
lesson.passed(
    "fused kernels equal their twins; averaged gradients are exact",
    numpy_moves=f"{moved['forward'] / needed['forward']:.0f} times what is needed",
    times_as_fast=f"{faster['forward']:.1f} and {faster['backward']:.1f} (forward and backward)",
    exponential_off_by=f"{worst:.1e}",
    workers_differ_by=f"{worst_worker:.0e}",
)
