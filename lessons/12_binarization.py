"""Binarization: a sign has no gradient, so train latent weights with that of another function.

Read before: lessons 02-04.
Takes: 60 s on two cores (--quick 8 s).
Papers: Courbariaux, Hubara et al. 2016, "Binarized neural networks" (arXiv 1602.02830), section
1; Rastegari et al. 2016, "XNOR-Net" (arXiv 1603.05279), section 3.1; Liu et al. 2018, "Bi-Real
Net" (arXiv 1808.00278), section 3.3; Bengio et al. 2013 (arXiv 1308.3432), on straight-through
estimators.
"""

# %%
from functools import partial
from itertools import product

import numpy as np
from lesson import Lesson

import minivit
from minivit import nn, ops
from minivit.nn.init import uniform_fan_in
from minivit.ops.binary import sign_surrogate
from minivit.training.optimizers import AdamW

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## Weights of one bit
#
# A network whose weights and activations are +1 and -1 takes a 32nd of the memory, and
# its products need no multiplication (lesson 13). Two numbers are too few for the weights
# of a layer, though, so each row $w$ of $K$ weights gets a *scale*: $w \approx \alpha b$
# with signs $b$. Which signs and which scale come closest?
#
# $$ \min_{\alpha, b} \| w - \alpha b \|^2: \qquad b = \mathrm{sign}(w), \quad
#    \alpha = \frac{w^T b}{K} = \frac{1}{K} \sum_i |w_i|. $$
#
# Do not take it on trust: for 10 weights there are 1024 rows of signs. We try them all,
# each with its best scale.


# %%
def sign(x):
    """One bit has no third value: sign(0) is +1."""
    return np.where(x >= 0, 1.0, -1.0)


w = rng.standard_normal(10)
rows = np.array(list(product((-1.0, 1.0), repeat=10)))
scales = rows @ w / 10  # the minimum of a parabola in alpha
errors = ((w - scales[:, None] * rows) ** 2).sum(axis=1)
best = errors.argmin()
np.testing.assert_allclose(scales[best] * rows[best], np.abs(w).mean() * sign(w))
np.testing.assert_allclose(errors[best], (w**2).sum() - 10 * np.abs(w).mean() ** 2)
print(f"closest of 1024 rows of signs: the signs of w, with mean |w| = {np.abs(w).mean():.3f}; "
      f"{errors[best] / (w**2).sum():.0%} of the square of w is lost")

# %% [markdown]
# BinaryViT subtracts the mean of a row before it takes the signs. Then about half of them
# are +1, however far from 0 the row lies, and a bit says the most that it can.

# %%
lopsided = nn.BinaryLinear(400, 8, init=lambda shape: rng.normal(0.5, 1, shape).astype(np.float32))
plain_share = (lopsided.weight.data >= 0).mean()
centred_share = (lopsided.binary_weight().data > 0).mean()
print(f"share of +1: {plain_share:.0%} as it is, {centred_share:.0%} less the row's mean")
assert abs(centred_share - 0.5) < 0.05 < abs(plain_share - 0.5)

# %% [markdown]
# ## The true gradient is of no use
#
# A sign does not change when its input moves a little. So its derivative is 0, but at one
# point, where there is none. Here is a network with one layer in floats, two in bits and
# a head in floats; batch normalisation keeps what goes into a sign around 0. How does the
# loss change when a weight of its first layer moves?


# %%
class SignNet(nn.Module):
    """Points (B, 2) -> logits (B, 2). ``sign``: function of a tensor, from numbers to signs."""

    def __init__(self, sign, width=64, seed=0, layer=nn.BinaryLinear):
        init = uniform_fan_in(np.random.default_rng(seed))
        self.sign = sign
        self.first = nn.Linear(2, width, init=init)
        self.layers = [layer(width, width, init=init) for _ in range(2)]
        self.norms = [nn.BatchNorm2d(width) for _ in range(3)]
        self.head = nn.Linear(width, 2, init=init)

    def forward(self, x):
        x = self.sign(self.norms[0](self.first(x)))
        for layer, norm in zip(self.layers, self.norms[1:]):
            x = self.sign(norm(layer(x)))
        return self.head(x)


def spirals(count, rng):
    """Two spirals: points (count, 2), float32, and which spiral each is of."""
    labels = np.arange(count) % 2
    radius = rng.uniform(0.1, 1, count) ** 0.7
    angle = 2.5 * np.pi * radius + np.pi * labels
    points = 2 * radius * np.array([np.cos(angle), np.sin(angle)])
    return (points + rng.normal(0, 0.06, points.shape)).T.astype(np.float32), labels


points, labels = spirals(1000, rng)
test_points, test_labels = spirals(2000, rng)


def loss_at(model, name, index, step):
    """The loss when one element of a parameter is moved by ``step``."""
    array = dict(model.named_parameters())[name].data
    before = array[index]
    array[index] = before + step
    with minivit.no_grad():
        loss = minivit.cross_entropy(model(minivit.Tensor(points.astype(float))), labels).item()
    array[index] = before
    return loss


net = SignNet(ops.sign).astype(np.float64)
quotients = []
for index in np.ndindex(64, 2):
    above, below = (loss_at(net, "first.weight", index, step) for step in (1e-7, -1e-7))
    quotients.append((above - below) / 2e-7)
assert np.count_nonzero(quotients) == 0
print(f"difference quotients of the loss by {len(quotients)} weights of the first layer: "
      f"{np.count_nonzero(quotients)} are not exactly 0")

# %% [markdown]
# ## Straight through
#
# The way out is to take the sign forwards and, backwards, the derivative of *another*
# function that looks like it and has a slope, a *surrogate*. That is called a
# *straight-through estimator*. Two surrogates, with $t$ the input $x$ limited to
# $[-1, 1]$:
#
# $$ \text{clipped:} \; t, \quad \text{derivative } 1; \qquad
#    \text{Bi-Real:} \; t \, (2 - |t|), \quad \text{derivative } 2 - 2 |x|; $$
#
# and 0 outside. Bi-Real's parabolas hug the sign more closely: the area between them and
# the sign is $2/3$, that of the clipped line is 1.


# %%
def clipped(x):
    return np.clip(x, -1, 1)


def clipped_slope(x):
    return np.where(np.abs(x) <= 1, 1.0, 0.0)


def bi_real(x):
    t = np.clip(x, -1, 1)
    return t * (2 - np.abs(t))


def bi_real_slope(x):
    return np.where(np.abs(x) <= 1, 2 - 2 * np.abs(x), 0.0)


SURROGATES = {"clipped": (clipped, clipped_slope), "bi_real": (bi_real, bi_real_slope)}
x = rng.uniform(-2, 2, 1000)
grid = (np.arange(400_000) + 0.5) / 100_000 - 2  # the middles of small cells from -2 to 2
for name, (surrogate, slope) in SURROGATES.items():
    quotient = (surrogate(x + 1e-6) - surrogate(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope(x), quotient, atol=1e-8)
    area = np.abs(sign(grid) - surrogate(grid)).sum() / 100_000
    np.testing.assert_allclose(area, {"clipped": 1, "bi_real": 2 / 3}[name], atol=1e-6)

    tensor = minivit.Tensor(x, requires_grad=True)
    result = ops.sign(tensor, estimator=name)
    cotangent = rng.standard_normal(1000)
    result.backward(cotangent)
    np.testing.assert_array_equal(result.data, sign(x))
    np.testing.assert_allclose(tensor.grad, cotangent * slope(x), atol=1e-15)

# %% [markdown]
# Lesson 02's gradient check must refuse such an op: its gradient is *not* that of its
# values. So minivit's checker can be told which function to difference instead.

# %%
for name in SURROGATES:
    estimated = partial(ops.sign, estimator=name)
    minivit.gradcheck(estimated, [x[:50]], surrogate=partial(sign_surrogate, estimator=name))
    try:
        minivit.gradcheck(estimated, [x[:50]])
    except minivit.GradientError as error:
        refused = str(error)
    else:
        raise AssertionError("the check should have refused this gradient")
print(f"without its surrogate: {refused}")

# %% [markdown]
# ## A layer by hand
#
# All of a binary layer, forwards and backwards. For weights BinaryViT takes the clipped
# estimator. The scale counts as a constant, and does not even multiply the gradient; and
# what was centred on the way in is centred on the way back.


# %%
def binary_layer(x, w):
    """x (B, K), latent weights w (O, K) -> (B, O), and what the way back needs."""
    centred = w - w.mean(axis=1, keepdims=True)
    binary = np.abs(w).mean(axis=1, keepdims=True) * sign(centred)
    return sign(x) @ binary.T, (x, centred, binary)


def binary_layer_vjp(g, saved):
    """Gradients by x and w, given the cotangent g (B, O)."""
    x, centred, binary = saved
    dx = g @ binary * bi_real_slope(x)
    dw = g.T @ sign(x) * clipped_slope(centred)
    return dx, dw - dw.mean(axis=1, keepdims=True)


layer = nn.BinaryLinear(20, 6, init=uniform_fan_in(rng)).astype(np.float64)
layer.weight.data *= 8  # so that some lie beyond 1, where no gradient passes
x = minivit.Tensor(rng.standard_normal((5, 20)), requires_grad=True)
result, cotangent = layer(ops.sign(x)), rng.standard_normal((5, 6))
result.backward(cotangent)
ours, saved = binary_layer(x.data, layer.weight.data)
dx, dw = binary_layer_vjp(cotangent, saved)
np.testing.assert_allclose(ours, result.data, rtol=1e-12)
np.testing.assert_allclose(dx, x.grad, atol=1e-12)
np.testing.assert_allclose(dw, layer.weight.grad, atol=1e-12)
assert 0 < np.mean(np.abs(saved[1]) > 1) < 1
print("our binary layer = minivit's: values, and gradients by input and latent weights")

# %% [markdown]
# ## Training
#
# The same network four times: with real activations and weights (limited to $[-1, 1]$ by
# the clipped line), with the true gradient, which is 0, and with both estimators. Nothing
# else differs. After each step we count how many of the 8,192 binary weights have
# *flipped*.


# %%
def true_sign(x):
    return ops.sign(x).detach()  # cut off from the tape: no gradient passes


def no_bits(x):
    return ops.clip(x, -1, 1)


def real_layer(*sizes, init):
    return nn.Linear(*sizes, bias=False, init=init)


KINDS = {
    "real": no_bits,
    "true gradient": true_sign,
    "clipped": lambda x: ops.sign(x, estimator="clipped"),
    "Bi-Real": lambda x: ops.sign(x, estimator="bi_real"),
}
STEPS, RATE, BATCH = lesson.choose(400, 1500), 1e-2, 100
SEEDS = range(lesson.choose(3, 8))


def signs_of(model):
    return np.stack([sign(layer.binary_weight().data) for layer in model.layers])


def forget(model):
    """Put its sign in the place of each latent weight."""
    for layer, signs in zip(model.layers, signs_of(model)):
        layer.weight.data[:] = signs


def train(kind, seed, keep_latent=True):
    """Returns the network, flips in each step, and the centred latent weights of one row.

    Args:
        keep_latent: False forgets the latent weights before training, and after each step.
    """
    layer = real_layer if kind == "real" else nn.BinaryLinear
    model = SignNet(KINDS[kind], seed=seed, layer=layer)
    optimizer = AdamW(model.named_parameters(), weight_decay=0)
    draw, flips, row = np.random.default_rng(seed), [], []
    if not keep_latent:
        forget(model)
    signs = None if kind == "real" else signs_of(model)
    for step in range(STEPS):
        rows = draw.choice(len(points), BATCH, replace=False)
        loss = minivit.cross_entropy(model(minivit.Tensor(points[rows])), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = RATE * (1 + np.cos(np.pi * step / STEPS)) / 2
        optimizer.step()
        if kind == "real":
            continue
        before, signs = signs, signs_of(model)
        flips.append(np.count_nonzero(signs != before))
        latent = model.layers[0].weight.data
        row.append(latent[0] - latent[0].mean())
        if not keep_latent:
            forget(model)
    return model.eval(), np.array(flips), np.array(row)


def accuracy(model):
    with minivit.no_grad():
        return 100 * (model(minivit.Tensor(test_points)).argmax(axis=1) == test_labels).mean()


runs = {kind: [train(kind, seed) for seed in SEEDS] for kind in KINDS}
right = {kind: np.array([accuracy(model) for model, _, _ in each]) for kind, each in runs.items()}
for kind, each in runs.items():
    flips = [] if kind == "real" else [flips.sum() for _, flips, _ in each]
    print(f"{kind:14} {right[kind].mean():5.1f} +- {right[kind].std():.1f} % of the test points"
          + (f", {np.mean(flips):.0f} flips" if flips else ""))
assert all(flips.sum() == 0 for _, flips, _ in runs["true gradient"])
assert right["true gradient"].max() < 65
assert 75 < min(right["clipped"].mean(), right["Bi-Real"].min())

# %% [markdown]
# With the true gradient only the head learns, on what signs of random projections happen
# to say. With Bi-Real's estimator the network in bits does nearly what the real one does;
# the clipped one varies more.
#
# ## Why the latent weights stay
#
# The forward pass only ever sees signs. Why keep a float behind each? Because one step is
# far too small to turn a +1 into a -1. Small steps in one direction have to *add up*
# somewhere until they cross zero. Put the sign in the latent weight's place after each
# step, and nothing ever flips:

# %%
_, forgotten, _ = train("Bi-Real", seed=0, keep_latent=False)
assert forgotten.sum() == 0

model, flips, row = runs["Bi-Real"][0]
row_signs = sign(row)
ever = (row_signs != row_signs[0]).any(axis=0).mean()
moves = np.abs(np.diff(row, axis=0))
crossed = (np.diff(row_signs, axis=0) != 0).mean()
print(f"flips of {model.layers[0].weight.size * 2:,} weights in {STEPS} steps: "
      f"{forgotten.sum()} without latent weights, {flips.sum():,} with them")
print(f"in the first row {np.mean(moves > 0):.0%} of all steps move a weight, {crossed:.2%} "
      f"flip it; {ever:.0%} of the weights have flipped at least once")
assert flips[-STEPS // 8 :].sum() < flips[: STEPS // 8].sum() / 4  # the rate falls, signs settle

# %%
COLOURS = {"sign": "k", "clipped": "#b2182b", "bi_real": "#2166ac"}


def draw_surrogates(values, slopes):
    t = np.linspace(-1.6, 1.6, 801)
    values.plot(t, sign(t), "k", lw=2, label="sign")
    slopes.axhline(0, color="k", lw=2, label="sign: 0 (none at 0)")
    for name, (surrogate, slope) in SURROGATES.items():
        label = {"clipped": "clipped", "bi_real": "Bi-Real"}[name]
        values.fill_between(t, sign(t), surrogate(t), color=COLOURS[name], alpha=0.15)
        values.plot(t, surrogate(t), color=COLOURS[name], label=label)
        slopes.plot(t, slope(t), color=COLOURS[name], label=label)
    values.set(title="forwards a sign ...", xlabel="x")
    slopes.set(title="... backwards another slope", xlabel="x")
    for axes in (values, slopes):
        axes.legend(frameon=False, loc="upper left", fontsize=9)
        axes.grid(alpha=0.3)
    slopes.set_ylim(-0.1, 3)


figure, panels = lesson.figure(2, 2, figsize=(11, 7.6))
if figure:
    draw_surrogates(*panels[0])
    chosen = np.argsort(-(np.diff(row_signs, axis=0) != 0).sum(axis=0))[[0, 1, 10, 20, 40, 60]]
    panels[1, 0].plot(row[:, chosen], lw=1)
    panels[1, 0].axhline(0, color="k")
    panels[1, 0].set(title="six latent weights, less the row's mean", xlabel="step",
                     ylabel="above 0 the weight is +, below -")
    panels[1, 1].plot(flips, ".", color="#777777", ms=3)
    panels[1, 1].set(title="flips in each step", xlabel="step",
                     ylabel=f"of {model.layers[0].weight.size * 2:,} weights", ylim=(0, None))
    lesson.save(figure, "signs")


# %%
def draw_regions(axes, kind):
    model, _, _ = runs[kind][0]
    side = np.linspace(-2.4, 2.4, 241, dtype=np.float32)
    plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    with minivit.no_grad():
        logits = model(minivit.Tensor(plane)).data
    one = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    axes.imshow(one.reshape(241, 241), extent=(-2.4, 2.4, -2.4, 2.4), origin="lower",
                cmap="RdBu", vmin=0, vmax=1, alpha=0.6)
    for which, colour in ((0, "#b2182b"), (1, "#2166ac")):
        axes.plot(*points[labels == which].T, ".", color=colour, ms=2)
    axes.set(title=f"{kind}: {right[kind][0]:.1f} %", xticks=[], yticks=[])


figure, panels = lesson.figure(1, 4, figsize=(13, 3.9))
if figure:
    for axes, kind in zip(panels, KINDS):
        draw_regions(axes, kind)
    figure.suptitle("Which spiral? What four networks say, training points, and the share of "
                    "test points named correctly")
    lesson.save(figure, "regions")

# %% [markdown]
# In the library: `minivit/ops/binary.py`, whose kernels are in
# `kernels/straight_through.py`, and `nn/binary.py`. Lesson 13 makes the products of signs
# fast, lesson 14 builds a transformer of them.
#
# Exercises: `lessons/exercises/12.py`, checked by `python -m lessons check 12`.

# %%
lesson.passed(
    "signs have no gradient; latent weights, trained with that of a surrogate, flip them",
    right_with_true_gradient=f"{right['true gradient'].mean():.1f} %",
    clipped=f"{right['clipped'].mean():.1f} %",
    bi_real=f"{right['Bi-Real'].mean():.1f} %",
    flips_without_latent_weights=forgotten.sum(),
    with_them=f"{flips.sum():,}",
)
