"""Convolution is a matrix product: a few shared weights, slid over the image, beat a wide MLP.

Read before: lessons 01-03.
Takes: 2 min on two cores (--quick 12 s).
Paper: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document
recognition", section II-A.
"""

# %%
import time

import numpy as np
from lesson import Lesson

import minivit
from minivit import nn, ops
from minivit.nn.init import he_normal_fan_out, uniform_fan_in
from minivit.training.optimizers import AdamW

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## By loops
#
# A convolution lays a small *filter*, $k \times k$ pixels wide, over every window of the
# image and takes the inner product. All windows get the same filter, and each filter
# gives one channel of the result. With $C$ channels in, $O$ filters, and windows in $m$
# rows and $n$ columns,
#
# $$ y_{o, i, j} = b_o + \sum_{c, u, v} w_{o, c, u, v} \, x_{c, \, s i + u, \, s j + v},
#    \qquad i < m, \; j < n, $$
#
# where $s$ is the *stride* from window to window. *Padding* puts zeros around the image,
# so that windows may reach over its border. (Mathematicians call this cross-correlation,
# and mirror the filter in a convolution. A learned filter does not mind.)


# %%
def pad(x, padding):
    return np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])


def output_size(size, k, stride):
    """How many windows of k pixels fit into a line of ``size`` pixels."""
    return (size - k) // stride + 1


def conv_by_loops(x, w, b, stride):
    """x (B, C, H, W), padded already; w (O, C, k, k); b (O,) -> (B, O, m, n)."""
    k = w.shape[2]
    m, n = output_size(x.shape[2], k, stride), output_size(x.shape[3], k, stride)
    out = np.empty((len(x), len(w), m, n), x.dtype)
    for i in range(m):
        for j in range(n):
            top, left = i * stride, j * stride
            window = x[:, :, top : top + k, left : left + k]
            for o in range(len(w)):
                out[:, o, i, j] = (window * w[o]).sum(axis=(1, 2, 3)) + b[o]
    return out


# %% [markdown]
# ## As a matrix product
#
# Write each window as a column of $C k^2$ numbers, and each filter as a row: then the
# inner products of all filters with all windows are one matrix product,
#
# $$ Y = W \, \mathrm{im2col}(X), \qquad (O \times C k^2)(C k^2 \times m n). $$
#
# Pixels are copied up to $k^2$ times; in exchange all arithmetic is done by the routine
# that processors are best at.


# %%
def im2col(x, k, stride):
    """All windows as columns: (B, C, H, W) -> (B, C k k, m n)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]  # B, C, m, n, k, k: a view, no copy yet
    b, c, m, n = windows.shape[:4]
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(b, c * k * k, m * n)


def conv_by_matrix(x, w, b, stride):
    k = w.shape[2]
    m, n = output_size(x.shape[2], k, stride), output_size(x.shape[3], k, stride)
    out = w.reshape(len(w), -1) @ im2col(x, k, stride) + b[:, None]
    return out.reshape(len(x), len(w), m, n)


# %% [markdown]
# Backwards it is lesson 01's VJP of a matrix product. The weights' gradient is $\bar Y$
# times the columns transposed. The columns' gradient is $W^T \bar Y$, and has to go back
# to the pixels: `col2im` puts every column where its window was. Where windows overlap, a
# pixel was used several times, so its shares *add up*.


# %%
def col2im(columns, shape, k, stride):
    """Add columns up where their windows are: (B, C k k, m n) -> ``shape`` (B, C, H, W)."""
    b, c, h, w = shape
    m, n = output_size(h, k, stride), output_size(w, k, stride)
    columns = columns.reshape(b, c, k, k, m, n)
    x = np.zeros(shape, columns.dtype)
    for u in range(k):
        for v in range(k):
            x[:, :, u : u + stride * m : stride, v : v + stride * n : stride] += columns[:, :, u, v]
    return x


def conv_vjp(x, w, stride, g):
    """Gradients by x, w and b, given the cotangent ``g`` (B, O, m, n)."""
    g = g.reshape(len(g), len(w), -1)
    columns = im2col(x, w.shape[2], stride)
    dw = (g @ columns.transpose(0, 2, 1)).sum(axis=0).reshape(w.shape)
    dx = col2im(w.reshape(len(w), -1).T @ g, x.shape, w.shape[2], stride)
    return dx, dw, g.sum(axis=(0, 2))


# %% [markdown]
# Loops, matrix product and minivit's `Conv2d` agree, in values and gradients, for several
# kernels, strides and paddings:

# %%
largest = 0.0
settings = [(1, 1, 0), (3, 1, 1), (3, 2, 1), (5, 3, 2), (4, 4, 0)]
for k, stride, padding in settings:
    conv = nn.Conv2d(3, 4, k, stride=stride, padding=padding, init=uniform_fan_in(rng))
    conv.astype(np.float64)
    w, b = conv.weight.data, conv.bias.data
    images = rng.standard_normal((2, 3, 10, 12))
    padded = pad(images, padding)

    x = minivit.Tensor(images, requires_grad=True)
    y = conv(x)
    np.testing.assert_allclose(conv_by_loops(padded, w, b, stride), y.data, atol=1e-12)
    np.testing.assert_allclose(conv_by_matrix(padded, w, b, stride), y.data, atol=1e-12)
    np.testing.assert_array_equal(im2col(padded, k, stride), ops.unfold(padded, k, stride).data)

    g = rng.standard_normal(y.shape)
    y.backward(g)
    dx, dw, db = conv_vjp(padded, w, stride, g)
    dx = dx[:, :, padding : padding + 10, padding : padding + 12]  # nobody asks for the padding's
    for ours, theirs in ((dx, x.grad), (dw, conv.weight.grad), (db, conv.bias.grad)):
        np.testing.assert_allclose(ours, theirs, atol=1e-11)
        largest = max(largest, np.abs(ours - theirs).max())
print(f"{len(settings)} settings: gradients differ by at most {largest:.0e}")

# %% [markdown]
# How often is a pixel used by 3x3 windows? Send a one back from every window:

# %%
uses = col2im(im2col(np.ones((1, 1, 5, 5)), 3, 1), (1, 1, 5, 5), 3, 1)[0, 0].astype(int)
print("how often 3x3 windows use the pixels of a 5x5 image:", *uses.tolist(), sep="\n  ")
assert uses[0, 0] == 1 and uses[2, 2] == 9 and uses.sum() == 9 * 9  # 9 windows of 9 pixels

# %% [markdown]
# And what does it gain in time? Printed only: it depends on the machine.


# %%
def milliseconds(function, *arguments):
    function(*arguments)  # once without the clock: minivit compiles on first use
    times = []
    for _ in range(3):
        started = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


x = rng.standard_normal((8, 16, 34, 34)).astype(np.float32)
w, b = rng.standard_normal((32, 16, 3, 3)).astype(np.float32), np.zeros(32, np.float32)
print(f"8 images of 16x34x34, 32 filters: by loops {milliseconds(conv_by_loops, x, w, b, 1):.0f} "
      f"ms, by matrix {milliseconds(conv_by_matrix, x, w, b, 1):.1f} ms, "
      f"minivit {milliseconds(ops.conv2d, x, w, b):.1f} ms")

# %% [markdown]
# ## A linear layer with most weights zero, and the others shared
#
# A convolution is linear in the image, so *it is* a matrix, from all pixels to all
# pixels. We find it by convolving the 64 images of 8x8 that have a single one. Of its
# 4,096 elements 484 are not zero, and these hold only 9 different numbers. A linear layer
# may choose all 4,096.

# %%
SIDE = 8
pixels = np.eye(SIDE**2).reshape(-1, 1, SIDE, SIDE)
kernel = np.arange(1.0, 10).reshape(1, 1, 3, 3)  # each weight has a number of its own
matrix = conv_by_matrix(pad(pixels, 1), kernel, np.zeros(1), 1).reshape(SIDE**2, -1).T

used = matrix[matrix != 0]
assert used.size == (3 * SIDE - 2) ** 2 == 484
assert np.array_equal(np.unique(used), kernel.ravel())

image, g = rng.standard_normal((2, 1, 1, SIDE, SIDE))
by_matrix = (matrix @ image.ravel()).reshape(image.shape)
np.testing.assert_allclose(by_matrix, conv_by_loops(pad(image, 1), kernel, np.zeros(1), 1))
dx, _, _ = conv_vjp(pad(image, 1), kernel, 1, g)
np.testing.assert_allclose((matrix.T @ g.ravel()).reshape(g.shape), dx[:, :, 1:-1, 1:-1])


# %%
def draw_matrices(panels):
    """The filter, its matrix, and the matrix of a linear layer, one colour for each weight."""
    from matplotlib import colormaps

    colours = np.vstack([[1, 1, 1, 1], colormaps["tab10"](np.arange(9))])
    panels[0].imshow(colours[kernel[0, 0].astype(int)])
    for (i, j), value in np.ndenumerate(kernel[0, 0]):
        panels[0].text(j, i, f"$w_{{{value:.0f}}}$", ha="center", va="center", size=14)
    panels[0].set(title="a 3x3 filter: 9 weights", xticks=[], yticks=[])
    panels[1].imshow(colours[matrix.astype(int)])
    panels[1].set(title="its matrix for 8x8 images: 9 weights")
    panels[2].imshow(colormaps["hsv"](np.random.default_rng(1).random((SIDE**2, SIDE**2))))
    panels[2].set(title="a linear layer's matrix: 4,096 weights")
    for axes in panels[1:]:
        axes.set(xlabel="pixel in", ylabel="pixel out", xticks=[0, 63], yticks=[0, 63])


figure, panels = lesson.figure(1, 3, figsize=(12, 4.6))
if figure:
    draw_matrices(panels)
    lesson.save(figure, "matrix")

# %% [markdown]
# The bands in the picture say what is built in: a pixel of the result looks only at its
# neighbours (*locality*), and every place is treated alike. So if the object moves, its
# response moves along and does not change (*equivariance*). No such thing holds for a
# linear layer.

# %%
image = np.zeros((1, 1, 12, 12))
image[:, :, 4:8, 4:8] = rng.standard_normal((4, 4))  # an object, away from the border
moved = np.roll(image, (2, -1), axis=(2, 3))
conv = nn.Conv2d(1, 4, 3, padding=1, init=uniform_fan_in(rng)).astype(np.float64)
response, response_to_moved = (conv(minivit.Tensor(a)).data for a in (image, moved))
response_moved = np.roll(response, (2, -1), axis=(2, 3))
np.testing.assert_allclose(response_to_moved, response_moved, atol=1e-14)

linear = rng.standard_normal((144, 144)) / 12
response, response_to_moved = ((linear @ a.ravel()).reshape(12, 12) for a in (image, moved))
change = np.abs(response_to_moved - np.roll(response, (2, -1), axis=(0, 1))).max()
assert change > 0.1
print(f"the object moves: a convolution's response moves with it, to the last digits; "
      f"a linear layer's is off by up to {change:.2f}")

# %% [markdown]
# ## A small network of them
#
# Each of four convolutions of stride 2 halves the image's sides. After it come
# `BatchNorm2d`, which brings every channel to mean 0 and variance 1 over the batch and
# makes training easier, and a ReLU. What remains is averaged over its places, and
# classified by a linear layer: what was found counts, not where. Lesson 09 will make such
# a network a teacher.
#
# Its rival is an MLP on all pixels, with six times as many weights.


# %%
class Cnn(nn.Module):
    """Images (B, 3, H, W) -> logits (B, classes)."""

    def __init__(self, rng, classes):
        channels = (3, 16, 32, 64, 64)
        self.convs = [
            nn.Conv2d(c, d, 3, stride=2, padding=1, bias=False, init=he_normal_fan_out(rng))
            for c, d in zip(channels, channels[1:])
        ]
        self.norms = [nn.BatchNorm2d(d) for d in channels[1:]]
        self.fc = nn.Linear(channels[-1], classes, init=uniform_fan_in(rng))

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = ops.relu(norm(conv(x)))
        return self.fc(x.mean((2, 3)))


class Mlp(nn.Module):
    """The same by one hidden layer."""

    def __init__(self, rng, classes):
        self.fc1 = nn.Linear(3 * 32 * 32, 128, init=uniform_fan_in(rng))
        self.fc2 = nn.Linear(128, classes, init=uniform_fan_in(rng))

    def forward(self, x):
        return self.fc2(ops.relu(self.fc1(x.reshape(len(x), 3 * 32 * 32))))


x = minivit.Tensor(3 + 2 * rng.standard_normal((64, 3, 32, 32)).astype(np.float32))
normalised = nn.BatchNorm2d(3)(x).data
np.testing.assert_allclose(normalised.mean(axis=(0, 2, 3)), 0, atol=1e-4)
np.testing.assert_allclose(normalised.std(axis=(0, 2, 3)), 1, atol=1e-4)
sides = [32]
for conv in Cnn(rng, classes=10).convs:
    x = conv(x)
    sides.append(x.shape[3])
assert sides == [32, 16, 8, 4, 2]

# %% [markdown]
# Each step of training shows the network 64 images. `AdamW` is gradient descent that
# chooses the size of the step for each weight by itself; the learning rate falls to 0.
# After each epoch we count how many test images, never trained on, are named correctly.


# %%
data = lesson.data(train=lesson.choose(2000, 10_000), test=1000)
EPOCHS = lesson.choose(quick=6, full=15)
SEEDS = range(lesson.choose(quick=2, full=3))
BATCH_SIZE = 64
RATES = {Cnn: 1e-2, Mlp: 1e-3}


def prepare(split):
    """Pixels as float32, with mean 0 and standard deviation 1 in each channel; and labels."""
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (data.mean, data.std))
    return (split.images / np.float32(255) - mean) / std, split.labels


def accuracy(model, images, labels):
    model.eval()  # BatchNorm: the averages of training instead of those of the batch
    with minivit.no_grad():
        batches = np.array_split(images, -(-len(images) // 250))
        named = [model(minivit.Tensor(batch)).data.argmax(axis=1) for batch in batches]
    model.train()
    return float((np.concatenate(named) == labels).mean())


def train(kind, seed):
    """Train a new network. Returns it, and its test accuracy after each epoch."""
    rng = np.random.default_rng(seed)
    model = kind(rng, data.num_classes)
    optimizer = AdamW(model.named_parameters(), weight_decay=0.05)
    steps, history = len(labels) // BATCH_SIZE, []
    for epoch in range(EPOCHS):
        order = rng.permutation(len(labels))
        for step in range(steps):
            batch = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            loss = minivit.cross_entropy(model(minivit.Tensor(images[batch])), labels[batch])
            loss.backward()
            optimizer.lr = RATES[kind] * (1 - (epoch + step / steps) / EPOCHS)
            optimizer.step()
            optimizer.zero_grad()
        history.append(accuracy(model, *test))
    return model, history


(images, labels), test = prepare(data.train), prepare(data.test)
histories, on_train, sizes = {}, {}, {}
for kind in RATES:
    runs = [train(kind, seed) for seed in SEEDS]
    histories[kind] = np.array([history for _, history in runs])
    on_train[kind] = np.array([accuracy(model, images, labels) for model, _ in runs])
    sizes[kind] = runs[0][0].num_parameters()
    final = histories[kind][:, -1]
    print(f"{kind.__name__.upper()} with {sizes[kind]:7,} weights: names "
          f"{on_train[kind].mean():.1%} of the training images correctly, "
          f"and {final.mean():.1%} +- {final.std():.1%} of the test images")

# %%
COLOURS = {Cnn: "#2166ac", Mlp: "#b2182b"}
figure, axes = lesson.figure(figsize=(7, 4.4))
if figure:
    epochs = np.arange(1, EPOCHS + 1)
    for kind, history in histories.items():
        axes.plot(epochs, 100 * history.T, color=COLOURS[kind], lw=0.8, alpha=0.4)
        axes.plot(epochs, 100 * history.mean(axis=0), "o-", color=COLOURS[kind],
                  label=f"{kind.__name__.upper()}, {sizes[kind]:,} weights")
        axes.axhline(100 * on_train[kind].mean(), color=COLOURS[kind], ls=":", lw=1.5)
        axes.text(1, 100 * on_train[kind].mean() + 1.5, "at the end, on the training images",
                  color=COLOURS[kind], size=9)
    axes.axhline(100 / data.num_classes, color="k", lw=0.8)
    axes.text(EPOCHS, 100 / data.num_classes + 1.5, "by chance", ha="right", size=9)
    axes.set(xlabel="epoch", ylabel="test images named correctly, %", ylim=(0, 108),
             title=f"{data.name}, {len(labels):,} training images, "
                   f"mean of {len(SEEDS)} seeds (thin)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    lesson.save(figure, "accuracy")

cnn, mlp = histories[Cnn][:, -1], histories[Mlp][:, -1]
assert cnn.min() > mlp.max()
assert sizes[Mlp] > 6 * sizes[Cnn]
assert all(on_train[kind].mean() > histories[kind][:, -1].mean() for kind in RATES)

# %% [markdown]
# Both networks know the images that they were trained on better than new ones. But with a
# sixth of the weights the CNN names more of the new ones. It has more layers, and
# BatchNorm, so this run alone does not say how much of that is the sharing; but a weight
# that is used at every place does learn from every place. Such knowledge that is built
# into a network is called its *inductive bias*. A vision transformer has much less of it,
# which is why it needs help on small data; lesson 05 builds one.
#
# For the fast version read `kernels/convolution.py`: the same matrix products, a few
# images at a time, so that their columns stay in the processor's cache.
#
# Exercises: `lessons/exercises/04.py`, checked by `python -m lessons check 04`.

# %%
lesson.passed(
    "loops, im2col and Conv2d are equal, and a small CNN beats an MLP six times as large",
    cnn=f"{cnn.mean():.1%} +- {cnn.std():.1%}",
    mlp=f"{mlp.mean():.1%} +- {mlp.std():.1%}",
    seeds=len(SEEDS),
    largest_difference=f"{largest:.0e}",
)
