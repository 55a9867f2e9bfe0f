"""Checking gradients: a sum hides wrong ones, a random cotangent finds them, and the step matters.

Read before: lesson 01.
Takes: 2 s on two cores (--quick 2 s).
Paper: Baydin, Pearlmutter, Radul & Siskind 2018, "Automatic differentiation in machine learning:
a survey", section 2.1 (numerical differentiation).
"""

# %%
import numpy as np
from lesson import Lesson

import minivit
from minivit import ops

lesson = Lesson(__file__)
EPS = np.finfo(np.float64).eps

# %% [markdown]
# ## The step
#
# A VJP is written by hand, and so it can be wrong. The derivative can also be measured:
# go a step $h$ to either side and look at the difference,
#
# $$ f'(x) \approx \frac{f(x + h) - f(x - h)}{2h}. $$
#
# Two errors pull at $h$. The *truncation error* of this central difference is
# $\frac{h^2}{6} |f'''(x)|$, from Taylor's formula; a smaller step makes it smaller. The
# *rounding error* is up to about $\epsilon |f(x)| / h$, because both values of $f$ carry
# a relative error of the order of $\epsilon \approx 2 \cdot 10^{-16}$, which is divided
# by $h$; a smaller step makes it larger. Their sum is least at
#
# $$ h^* = \sqrt[3]{3 \epsilon |f| / |f'''|} \approx 10^{-5}. $$
#
# Let us measure it for $f = \exp \sin x$, whose derivatives we know, at 200 points.


# %%
def f(x):
    return np.exp(np.sin(x))


def derivative(x):
    return np.cos(x) * f(x)


def third_derivative(x):
    return -np.sin(x) * np.cos(x) * (np.sin(x) + 3) * f(x)


points = np.random.default_rng(0).uniform(0.5, 1.0, 200)
steps = 10.0 ** np.arange(-13, 0.01, 0.25)


def typical_error(difference, dtype):
    """The median over the points of the error, for each step; ``f`` computes in ``dtype``."""
    x = points.astype(dtype)
    return np.array([
        np.median(np.abs(difference(x, dtype(h)) - derivative(x.astype(np.float64))))
        for h in steps
    ])


def forward(x, h):
    return (f(x + h) - f(x)) / h


def central(x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


errors = {
    "forward, float64": typical_error(forward, np.float64),
    "central, float64": typical_error(central, np.float64),
    "central, float32": typical_error(central, np.float32),
}
best = {name: (steps[e.argmin()], e.min()) for name, e in errors.items()}
for name, (step, error) in best.items():
    print(f"{name}: the least error is {error:.0e}, at h = {step:.0e}")

# %% [markdown]
# The curves are what the formulas say: with a large step the error of the central
# difference falls with $h^2$, that of the one-sided difference only with $h$; with a
# small step both grow with $1/h$.


# %%
def slope(name, low, high):
    """How steep the error is between two steps, in powers of h."""
    chosen = (steps >= low) & (steps <= high)
    return np.polyfit(np.log10(steps[chosen]), np.log10(errors[name][chosen]), 1)[0]


truncation = slope("central, float64", 1e-4, 1e-1)
rounding = slope("central, float64", 1e-12, 1e-7)
assert abs(truncation - 2) < 0.05
assert abs(slope("forward, float64", 1e-6, 1e-1) - 1) < 0.05
assert abs(rounding + 1) < 0.1 and abs(slope("forward, float64", 1e-12, 1e-9) + 1) < 0.1
print(f"the central difference's error goes as h^{truncation:.2f} for large steps, "
      f"as h^{rounding:.2f} for small ones")

f_size, f3_size = np.median(np.abs(f(points))), np.median(np.abs(third_derivative(points)))
large, small = (steps > 1e-4) & (steps < 0.02), steps < 1e-6
large_errors, small_errors = (errors["central, float64"][chosen] for chosen in (large, small))
np.testing.assert_allclose(large_errors, steps[large] ** 2 / 6 * f3_size, rtol=0.01)
assert (small_errors < EPS * f_size / steps[small]).all()
predicted = np.cbrt(3 * EPS * f_size / f3_size)
assert predicted / 10 < best["central, float64"][0] < predicted * 10
assert best["central, float64"][1] < 1e-9 < best["forward, float64"][1]
assert best["central, float32"][1] > 1e-6
print(f"predicted: h* = {predicted:.0e}")

figure, axes = lesson.figure(figsize=(7.5, 4.8))
if figure:
    for (name, error), colour in zip(errors.items(), ("#ef8a62", "#2166ac", "#999999")):
        axes.loglog(steps, error, ".-", color=colour, label=name)
        axes.plot(*best[name], "o", ms=11, mfc="none", mec=colour, mew=2)
    wide, narrow = steps[steps > 1e-5], steps[steps < 3e-5]
    axes.loglog(wide, wide**2 / 6 * f3_size, "k--", lw=1, label="$h^2 |f'''| / 6$")
    axes.loglog(narrow, EPS * f_size / narrow, "k:", lw=1.2, label=r"$\epsilon |f| / h$")
    axes.axvline(predicted, color="k", lw=0.6, alpha=0.5)
    axes.text(predicted * 1.4, 3e-14, "predicted $h^*$", size=10)
    axes.text(3e-13, 3.2, "float32: $x + h = x$", color="#777777", size=9)
    axes.set(xlabel="step $h$", ylabel="median error of the derivative", ylim=(1e-14, 30),
             title="Rounding on the left, truncation on the right")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower left", fontsize=9)
    lesson.save(figure, "step")

# %% [markdown]
# This is why gradients are checked by central differences, and in float64: in float32 the
# bottom is so high that an error in the fifth digit goes unseen. minivit takes
# $h = 10^{-6} \max(1, |x|)$, somewhat below $h^*$ here: functions with larger third
# derivatives have theirs further to the left, and rounding still costs little.
#
# ## From one number to a VJP
#
# An op has many inputs and many outputs. To get one number, weigh the outputs by a
# cotangent $v$ and add them up: $s(x) = \sum_i v_i f_i(x)$. Its gradient is $J^T v$,
# exactly what the VJP claims to compute. So the check needs one call of the VJP, and two
# of $f$ for each element.


# %%
def numerical_gradient(s, x, step=1e-6):
    """The derivative of the number s(x) by each element of the array x."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] = x[index] + step
        above = s(moved)
        moved[index] = x[index] - step
        gradient[index] = (above - s(moved)) / (2 * step)
    return gradient


def passes(claimed, f, x, v):
    """Whether the array ``claimed`` is J^T v at x, as far as differences can tell."""
    expected = numerical_gradient(lambda moved: np.sum(v * f(moved)), x)
    return np.allclose(claimed, expected, rtol=1e-5, atol=1e-7)


# %% [markdown]
# ## What a sum does not see
#
# Softmax with an inverse temperature (lessons 08 and 09 write $1/\tau$),
# $p = \mathrm{softmax}(\beta x)$ along the rows, has the VJP
#
# $$ \bar x = \beta \, p \, (\bar p - \textstyle\sum_j \bar p_j p_j). $$
#
# Beside it, four wrong ones that people write. And two ways to choose $v$: all ones,
# which is what `loss = out.sum()` amounts to, or random.

# %%
BETA = 0.5


def softmax(x):
    e = np.exp(BETA * (x - x.max(-1, keepdims=True)))
    return e / e.sum(-1, keepdims=True)


def mean_under_p(v, p):
    return (v * p).sum(-1, keepdims=True)


VJPS = {
    "right": lambda p, v: BETA * p * (v - mean_under_p(v, p)),
    "forgets beta": lambda p, v: p * (v - mean_under_p(v, p)),
    "wrong sign": lambda p, v: BETA * p * (mean_under_p(v, p) - v),
    "plain mean": lambda p, v: BETA * p * (v - v.mean(-1, keepdims=True)),
    "always zero": lambda p, v: np.zeros_like(p),
}

rng = np.random.default_rng(0)
x = rng.standard_normal((3, 5))
cotangents = {"ones": np.ones_like(x), "random": rng.standard_normal(x.shape)}
table = {
    name: {kind: passes(vjp(softmax(x), v), softmax, x, v) for kind, v in cotangents.items()}
    for name, vjp in VJPS.items()
}

print(f"\n{'VJP of softmax':16}{'v = ones':>10}{'v random':>10}")
for name, row in table.items():
    print(f"{name:16}" + "".join(f"{'passes' if row[kind] else 'FAILS':>10}" for kind in row))
assert all(row["ones"] for row in table.values())
assert [name for name, row in table.items() if row["random"]] == ["right"]

# %% [markdown]
# With $v = 1$ all five pass, even the one that returns nothing but zeros! The rows of a
# softmax add up to 1 whatever $x$ is, so the derivative of their sum *is* zero, and an
# error that leaves zero zero cannot show. LayerNorm has the same blind spot: its rows add
# up to 0.
#
# A wrong VJP computes $\tilde J^T v$. It escapes only if $(\tilde J - J)^T v = 0$. For a
# wrong $\tilde J$ such $v$ fill a subspace of lower dimension, and a random $v$ lies in
# it with probability zero.

# %%
layer_norm = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
assert np.abs(softmax(x).sum(-1) - 1).max() < 1e-15
assert np.abs(layer_norm.sum(-1)).max() < 1e-14

# %% [markdown]
# ## The same in minivit
#
# Our softmax and its right VJP are minivit's, values and gradients:

# %%
v = cotangents["random"]
tensor = minivit.Tensor(x, requires_grad=True)
out = ops.softmax(tensor, scale=BETA)
out.backward(v)
np.testing.assert_allclose(out.data, softmax(x), rtol=1e-14)
np.testing.assert_allclose(tensor.grad, VJPS["right"](softmax(x), v), rtol=1e-12, atol=1e-15)

# %% [markdown]
# `minivit.gradcheck` compares the tape with central differences, in float64, with a
# random cotangent. To see it at work we plant the first bug of the table. `detach` gives
# a tensor's value without its past, so the function below has the right value, and a
# gradient without the factor $\beta$.


# %%
def forgets_beta(x):
    p = ops.softmax(x, scale=BETA)
    return p * (1 / BETA) + p.detach() * (1 - 1 / BETA)


np.testing.assert_allclose(forgets_beta(minivit.Tensor(x)).data, softmax(x), rtol=1e-14)

minivit.gradcheck(lambda x: ops.softmax(x, scale=BETA), [x])  # silence: all is well
minivit.gradcheck(lambda x: forgets_beta(x).sum(), [x])  # silence, and yet it is wrong
try:
    minivit.gradcheck(forgets_beta, [x])
    raise RuntimeError("the planted bug was not found")
except minivit.GradientError as error:
    print(f"\nfound: {error}")

# %% [markdown]
# ## Where the check itself is wrong
#
# Differences assume that the function is smooth over the step. ReLU has a kink at 0: the
# central difference there is $1/2$, half of each side, and the tape says 0. Neither is
# wrong, since there is no derivative. Draw inputs at random, away from kinks.

# %%
kink = np.zeros(1)
difference = numerical_gradient(lambda x: np.maximum(x, 0).sum(), kink).item()
tensor = minivit.Tensor(kink, requires_grad=True)
ops.relu(tensor).backward(np.ones(1))
assert (difference, tensor.grad.item()) == (0.5, 0)
minivit.gradcheck(ops.relu, [x])
print(f"ReLU at 0: the difference says {difference}, the tape {tensor.grad.item():g}")

# %% [markdown]
# Every op of minivit passes such a check in the tests: they walk the registry of ops, so
# that none can be forgotten. Read `minivit/gradcheck.py`; lesson 03 needs gradients that
# we trust.
#
# Exercises: `lessons/exercises/02.py`, checked by `python -m lessons check 02`.

# %%
lesson.passed(
    "four wrong gradients pass a sum, none a random cotangent",
    pass_with_ones=f"{sum(row['ones'] for row in table.values())} of {len(table)}",
    pass_with_random=f"{sum(row['random'] for row in table.values())} of {len(table)}",
    best_step=f"{best['central, float64'][0]:.0e}",
    predicted=f"{predicted:.0e}",
    least_error=f"{best['central, float64'][1]:.0e}",
    in_float32=f"{best['central, float32'][1]:.0e}",
)
