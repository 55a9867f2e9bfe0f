"""A linear classifier and an MLP by hand: XOR defeats every line, and one hidden layer solves it.

Read before: lessons 01 and 02.
Takes: 10 s on two cores (--quick 5 s).
Paper: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors";
for the gradient, Bishop 2006, "Pattern Recognition and Machine Learning", section 4.3.4.
"""

# %%
import numpy as np
from lesson import Lesson

import minivit
from minivit import nn, ops
from minivit.nn.init import uniform_fan_in
from minivit.training.optimizers import SGD

lesson = Lesson(__file__)

# %% [markdown]
# ## From scores to a loss
#
# A linear classifier gives each class a score, its *logit*: $z = W x + b$. Softmax turns
# the logits of an image into probabilities, and the loss is the *cross-entropy*, the mean
# over the batch of minus the logarithm of the probability of the right class $y$:
#
# $$ p_c = \frac{e^{z_c}}{\sum_k e^{z_k}}, \qquad
#    L = -\frac{1}{B} \sum_{i=1}^{B} \log p_{i, y_i}. $$
#
# Its gradient is the simplest that there could be. With $t$ for the one-hot labels,
#
# $$ \frac{\partial L}{\partial z} = \frac{1}{B} (p - t): $$
#
# what was predicted less what was right. From there on it is lesson 01.


# %%
def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))  # the shift changes nothing, and nothing overflows
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(z, labels):
    """The loss for logits (B, C) and labels (B,), and its gradient by the logits."""
    rows = np.arange(len(labels))
    p = softmax(z)
    loss = -np.log(p[rows, labels]).mean()
    p[rows, labels] -= 1
    return loss, p / len(labels)


def linear_logits(x, w, b):
    return x @ w.T + b


def linear_gradients(x, labels, w, b):
    """Loss and gradients of a linear classifier: x (B, D), w (C, D), b (C,)."""
    loss, dz = cross_entropy(linear_logits(x, w, b), labels)
    return loss, (dz.T @ x, dz.sum(axis=0))


# %% [markdown]
# Shifting all logits of an image changes nothing, and without weights all classes are
# equally likely, so that the loss is $\ln C$:

# %%
rng = np.random.default_rng(0)
z = rng.standard_normal((4, 3))
np.testing.assert_allclose(softmax(z + 1000), softmax(z), rtol=1e-12)
assert np.isclose(cross_entropy(np.zeros((4, 3)), np.array([0, 1, 2, 0]))[0], np.log(3))

# %% [markdown]
# minivit's tape gives the same loss and the same gradients (`init` draws the first
# weights at random; what comes next holds for any):

# %%
x, labels = rng.standard_normal((8, 2)), rng.integers(3, size=8)
layer = nn.Linear(2, 3, init=uniform_fan_in(rng)).astype(np.float64)
loss = minivit.cross_entropy(layer(minivit.Tensor(x)), labels)
loss.backward()

our_loss, (dw, db) = linear_gradients(x, labels, layer.weight.data, layer.bias.data)
np.testing.assert_allclose(our_loss, loss.item(), rtol=1e-12)
np.testing.assert_allclose(dw, layer.weight.grad, rtol=1e-10, atol=1e-14)
np.testing.assert_allclose(db, layer.bias.grad, rtol=1e-10, atol=1e-14)
print(f"linear: loss {our_loss:.6f} by hand, {loss.item():.6f} on the tape")

# %% [markdown]
# ## Training
#
# Gradient descent goes a small step against the gradient, again and again. That is all.


# %%
def train(gradients, parameters, x, labels, lr, steps):
    """Change the arrays ``parameters`` in place. Returns the loss before each step.

    Args:
        gradients: such as ``linear_gradients``.
    """
    losses = []
    for _ in range(steps):
        loss, grads = gradients(x, labels, *parameters)
        for p, g in zip(parameters, grads):
            p -= lr * g
        losses.append(loss)
    return losses


def accuracy(logits, labels):
    return float((logits.argmax(axis=1) == labels).mean())


# %% [markdown]
# Three problems in the plane: *blobs*, which lines can separate; *XOR*, two classes on
# the corners of a square, crosswise; and three *spirals*.


# %%
def blobs(rng):
    labels = np.arange(300) % 3
    angle = 2 * np.pi * labels / 3
    centre = 1.5 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return centre + rng.uniform(-0.6, 0.6, (300, 2)), labels


def xor(rng):
    corner = np.arange(300) % 4
    centre = np.stack([2 * (corner // 2) - 1, 2 * (corner % 2) - 1], axis=1)
    return centre + rng.uniform(-0.7, 0.7, (300, 2)), (corner // 2) ^ (corner % 2)


def spirals(rng):
    labels = np.arange(300) % 3
    radius = np.sqrt(rng.uniform(0.02, 1, 300))
    angle = 2 * np.pi * (labels / 3 + 0.8 * radius) + 0.12 * rng.standard_normal(300)
    return 2 * np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1), labels


PROBLEMS = {"blobs": blobs, "XOR": xor, "spirals": spirals}


def train_linear(x, labels):
    """A linear classifier from zero. Returns a function from points to logits, and the losses."""
    classes = labels.max() + 1
    w, b = np.zeros((classes, 2)), np.zeros(classes)
    losses = train(linear_gradients, (w, b), x, labels, lr=1.0, steps=200)
    return lambda points: linear_logits(points, w, b), losses


x, labels = blobs(np.random.default_rng(0))
classify, losses = train_linear(x, labels)
blob_accuracy = accuracy(classify(x), labels)
print(f"blobs: loss {losses[0]:.4f} (ln 3 = {np.log(3):.4f}) -> {losses[-1]:.4f}, "
      f"accuracy {blob_accuracy:.0%}")
assert blob_accuracy == 1

# %% [markdown]
# ## What no line can do
#
# Of the four corners of XOR no line puts more than three on the right side. Trying many
# lines shows it:

# %%
corners = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
crosswise = np.array([0, 1, 1, 0])
angles, offsets = np.linspace(0, 2 * np.pi, 721), np.linspace(-2, 2, 81)
normals = np.stack([np.cos(angles), np.sin(angles)])
sides = (corners @ normals)[:, :, None] > offsets  # corner, direction of the line, its offset
best_line = (sides == crosswise[:, None, None]).mean(axis=0).max()
assert best_line == 0.75

# %% [markdown]
# And gradient descent does not even find those. (They would be sure of three corners and
# wrong on the fourth, which cross-entropy punishes more.) With $W = 0$ all probabilities
# are 1/2, and in $p - t$ the corners cancel: the gradient is exactly zero. The loss is a
# convex function of $W$ and $b$, so that this is its *minimum*: the best that a linear
# classifier can do is to give up, with the loss $\ln 2$.

# %%
loss, (dw, db) = linear_gradients(corners, crosswise, np.zeros((2, 2)), np.zeros(2))
assert np.isclose(loss, np.log(2)) and not dw.any() and not db.any()

w, b = rng.standard_normal((2, 2)), rng.standard_normal(2)
losses = train(linear_gradients, (w, b), corners, crosswise, lr=0.5, steps=200)
assert min(losses) >= np.log(2) - 1e-12 and losses[-1] < np.log(2) + 1e-6
print(f"XOR's corners, from random weights: loss {losses[0]:.4f} -> {losses[-1]:.6f} = ln 2; "
      f"the best line has {best_line:.0%}")

# %% [markdown]
# ## One hidden layer
#
# A multi-layer perceptron, MLP, puts a layer of hidden units before the classifier:
#
# $$ h = \max(W_1 x + b_1, 0), \qquad z = W_2 h + b_2. $$
#
# The classifier still draws lines, or planes, but in the space of $h$, which is learned.
# Backwards there is one new step: where ReLU gave 0, no gradient comes through.


# %%
def mlp_logits(x, w1, b1, w2, b2):
    return np.maximum(x @ w1.T + b1, 0) @ w2.T + b2


def mlp_gradients(x, labels, w1, b1, w2, b2):
    """Loss and gradients of an MLP: w1 (H, D), b1 (H,), w2 (C, H), b2 (C,)."""
    h = np.maximum(x @ w1.T + b1, 0)
    loss, dz = cross_entropy(h @ w2.T + b2, labels)
    dh = (dz @ w2) * (h > 0)
    return loss, (dh.T @ x, dh.sum(axis=0), dz.T @ h, dz.sum(axis=0))


class Mlp(nn.Module):
    """The same in minivit."""

    def __init__(self, rng, hidden, classes):
        init = uniform_fan_in(rng)
        self.fc1 = nn.Linear(2, hidden, init=init)
        self.fc2 = nn.Linear(hidden, classes, init=init)

    def forward(self, x):
        return self.fc2(ops.relu(self.fc1(x)))


# %% [markdown]
# The gradients are minivit's again, and so are the weights after 100 steps:

# %%
x, labels = spirals(np.random.default_rng(0))
model = Mlp(np.random.default_rng(1), hidden=16, classes=3).astype(np.float64)
ours = [p.data.copy() for p in model.parameters()]

_, our_gradients = mlp_gradients(x, labels, *ours)
our_losses = train(mlp_gradients, ours, x, labels, lr=0.5, steps=100)

optimizer = SGD(model.named_parameters(), lr=0.5, momentum=0)
for step in range(100):
    loss = minivit.cross_entropy(model(minivit.Tensor(x)), labels)
    loss.backward()
    if step == 0:
        for p, gradient in zip(model.parameters(), our_gradients):
            np.testing.assert_allclose(p.grad, gradient, rtol=1e-9, atol=1e-14)
    optimizer.step()
    optimizer.zero_grad()
np.testing.assert_allclose(our_losses[-1], loss.item(), rtol=1e-9)
largest = max(np.abs(p.data - our).max() for p, our in zip(model.parameters(), ours))
assert largest < 1e-9
print(f"MLP: after 100 steps by hand and on the tape, the weights differ by at most {largest:.0e}")

# %% [markdown]
# ## The three problems again
#
# The linear classifier gets the blobs, gives up on XOR, and cuts the spirals into three
# slices. The MLP gets all of them. In the picture the colour is the class that the
# network names, paler where it is less sure; the dots are the data, and the title gives
# how many of them the first seed's network names correctly.


# %%
def train_mlp(x, labels, seed, steps):
    rng, classes = np.random.default_rng(seed), labels.max() + 1
    parameters = [
        rng.standard_normal((64, 2)),
        rng.standard_normal(64),
        rng.standard_normal((classes, 64)) / 8,
        np.zeros(classes),
    ]
    losses = train(mlp_gradients, parameters, x, labels, lr=0.5, steps=steps)
    return lambda points: mlp_logits(points, *parameters), losses


def draw_regions(axes, classify, x, labels, title):
    """Colour the plane by the classifier's probabilities, and draw the data."""
    colours = np.array([[0.85, 0.37, 0.01], [0.46, 0.44, 0.70], [0.11, 0.62, 0.47]])
    ticks = np.linspace(-2.4, 2.4, 161)
    plane = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    p = softmax(classify(plane))
    picture = 0.45 * (p @ colours[: p.shape[1]]) + 0.55
    axes.imshow(picture.reshape(161, 161, 3), origin="lower", extent=(-2.4, 2.4, -2.4, 2.4))
    axes.scatter(*x.T, c=colours[labels], s=14, edgecolors="white", linewidths=0.5)
    axes.set(title=title, xticks=[], yticks=[])


seeds = range(lesson.choose(quick=3, full=10))
results = {}
print(f"points named correctly, mean and standard deviation over {len(seeds)} seeds:")
figure, panels = lesson.figure(2, 3, figsize=(10, 7))
for column, (name, problem) in enumerate(PROBLEMS.items()):
    for row, kind in enumerate(("linear", "MLP")):
        scores = []
        for seed in seeds:
            x, labels = problem(np.random.default_rng([seed, column]))
            if kind == "linear":
                classify, _ = train_linear(x, labels)
            else:
                classify, _ = train_mlp(x, labels, seed, steps=2000)
            scores.append(accuracy(classify(x), labels))
            if figure and seed == 0:
                title = f"{kind}, {name}: {scores[0]:.0%}"
                draw_regions(panels[row, column], classify, x, labels, title)
        results[kind, name] = scores
        print(f"{kind:6} {name:8} {np.mean(scores):6.1%} +- {np.std(scores):.1%}, "
              f"worst {min(scores):.1%}, best {max(scores):.1%}")
if figure:
    lesson.save(figure, "regions")

assert min(results["linear", "blobs"]) == 1
assert max(results["linear", "XOR"]) < 0.75 and max(results["linear", "spirals"]) < 0.8
assert all(min(results["MLP", name]) > 0.97 for name in PROBLEMS)

# %% [markdown]
# These are accuracies on the points that were learned; whether a network is right on
# points that it has not seen is the question of lesson 04. For the fast version of what
# you have written read `ops/loss.py` and `nn/layers.py`: cross-entropy is one op there,
# because its gradient is so much simpler than those of softmax and logarithm in a row.
#
# Exercises: `lessons/exercises/03.py`, checked by `python -m lessons check 03`.

# %%
lesson.passed(
    "no line solves XOR, one hidden layer does, and both equal minivit",
    linear_xor=f"{np.mean(results['linear', 'XOR']):.1%}",
    linear_spirals=f"{np.mean(results['linear', 'spirals']):.1%}",
    mlp_spirals=f"{np.mean(results['MLP', 'spirals']):.1%}",
    seeds=len(seeds),
    largest_difference=f"{largest:.0e}",
)
