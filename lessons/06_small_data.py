"""Why ViTs starve on small data: they must learn from images what a CNN is built to know.

Read before: lessons 04 and 05.
Takes: 7 min on two cores (--quick 15 s).
Papers: Dosovitskiy et al. 2020, "An image is worth 16x16 words", sections 3.1 (inductive bias)
and 4.3; Cordonnier, Loukas & Jaggi 2020, "On the relationship between self-attention and
convolutional layers", theorem 1.
"""

# %%
import numpy as np
from lesson import Lesson
from small_task import first_classes, top1, train

import minivit
from minivit import nn, ops
from minivit.data import Split
from minivit.data.augment import normalize
from minivit.nn.init import he_normal_fan_out, normal, uniform_fan_in

lesson = Lesson(__file__)
rng = np.random.default_rng(0)
data = lesson.data(*lesson.choose(quick=(4000, 1200), full=(50_000, 10_000)))

# %% [markdown]
# ## What a CNN knows before it has seen an image
#
# A cat further to the right is a cat. For a convolution that goes without saying: shift
# the image, and its result shifts with it (the same filter in every window). This is
# *equivariance* (lesson 04), $f(\mathrm{shift}(x)) = \mathrm{shift}(f(x))$.
#
# The patches of a ViT move with the image only if it moves by whole patches; and then the
# position embeddings stay behind. We measure how far $f(\mathrm{shift}(x))$ is from
# $\mathrm{shift}(f(x))$, relative to the latter, away from the borders, where a shift
# brings in something new.


# %%
def shift(x, pixels):
    """Shift (B, C, H, W) to the right; what leaves comes in again on the left."""
    return np.roll(x, pixels, axis=3)


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


conv = nn.Conv2d(3, 16, 3, padding=1, init=uniform_fan_in(rng)).astype(np.float64)
embed = nn.PatchEmbed(3, 16, 4, init=uniform_fan_in(rng)).astype(np.float64)
positions = rng.standard_normal((1, 16, 8, 8))  # a vector of width 16 for 8x8 places


def conv_map(x):
    return conv(minivit.Tensor(x)).data


def patch_map(x):
    """The tokens of 4x4 pixels as a map (B, D, 8, 8), without position embeddings."""
    return embed(minivit.Tensor(x)).data.swapaxes(1, 2).reshape(-1, 16, 8, 8)


def token_map(x):
    return patch_map(x) + positions


images = normalize(data.test.images[:64], data.mean, data.std).astype(np.float64)
inner = (..., slice(2, -2), slice(2, -2))
errors = {
    "convolution, image moves by 1 pixel": distance(
        conv_map(shift(images, 1))[inner], shift(conv_map(images), 1)[inner]),
    "patches, image moves by a whole patch": distance(
        patch_map(shift(images, 4))[inner], shift(patch_map(images), 1)[inner]),
    "patches with positions, by a whole patch": distance(
        token_map(shift(images, 4))[inner], shift(token_map(images), 1)[inner]),
    "patches, by 1 pixel (from where they were)": distance(
        patch_map(shift(images, 1))[inner], patch_map(images)[inner]),
}
print("how far the result is from a shifted one:")
for name, error in errors.items():
    print(f"  {name:42} {error:6.1%}")
conv_error, patch_error, token_error, pixel_error = errors.values()
assert max(conv_error, patch_error) < 1e-12
assert min(token_error, pixel_error) > 0.1

# %% [markdown]
# ## Attention could do the same
#
# This is not a weakness of what a ViT *can* do. Give each pixel a token that holds its
# colours and its place (one-hot), and let nine heads each look at one neighbour: the
# query asks for the neighbour's place, the key tells one's own, the value brings the
# colours, and the output layer weighs what the nine heads bring by the nine pieces of a
# 3x3 filter. Then attention *is* that convolution (the theorem of Cordonnier et al., who
# encode places relative to the query). We set the weights of `nn.Attention` by hand, with
# queries so large that the softmax gives all weight to one token. The image is a torus
# here, so that each pixel has nine neighbours, itself included.

# %%
SIDE, FILTERS, SHARP = 6, 5, 1000.0
PLACES = SIDE**2
grid = np.arange(PLACES).reshape(SIDE, SIDE)
offsets = [(u, v) for u in (-1, 0, 1) for v in (-1, 0, 1)]
filters = rng.standard_normal((FILTERS, 3, 3, 3))

qkv = np.zeros((3, 9, PLACES, 3 + PLACES))  # for q, k, v and each head: token -> PLACES numbers
proj = np.zeros((3 + PLACES, 9, PLACES))
for head, (u, v) in enumerate(offsets):
    neighbour = np.roll(grid, (-u, -v), axis=(0, 1)).ravel()  # of the pixel at each place
    qkv[0, head, neighbour, 3 + grid.ravel()] = SHARP
    qkv[1, head, :, 3:] = np.eye(PLACES)
    qkv[2, head, :3, :3] = np.eye(3)
    proj[:FILTERS, head, :3] = filters[:, :, 1 + u, 1 + v]

attention = nn.Attention(
    3 + PLACES, 9, head_dim=PLACES, qkv_bias=False, init=normal(None), rng=None
).astype(np.float64)  # all zeros as yet: without a generator nothing is drawn
attention.qkv.weight.data[:] = qkv.reshape(-1, 3 + PLACES)
attention.proj.weight.data[:] = proj.reshape(3 + PLACES, -1)


def wrap(x):
    """Surround images by the pixels of the opposite side, one wide."""
    x = ops.concat([x[:, :, -1:], x, x[:, :, :1]], axis=2)
    return ops.concat([x[:, :, :, -1:], x, x[:, :, :, :1]], axis=3)


pixels = rng.standard_normal((2, 3, SIDE, SIDE))
g = rng.standard_normal((2, FILTERS, SIDE, SIDE))  # a cotangent

x = minivit.Tensor(pixels, requires_grad=True)
by_conv = ops.conv2d(wrap(x), filters)
by_conv.backward(g)

y = minivit.Tensor(pixels, requires_grad=True)
one_hot = np.broadcast_to(np.eye(PLACES), (2, PLACES, PLACES))
tokens = ops.concat([y.reshape(2, 3, PLACES).swapaxes(1, 2), one_hot], axis=2)
by_attention = attention(tokens)[:, :, :FILTERS].swapaxes(1, 2).reshape(2, FILTERS, SIDE, SIDE)
by_attention.backward(g)

largest = np.max([np.abs(by_attention.data - by_conv.data).max(), np.abs(y.grad - x.grad).max()])
assert largest < 1e-12
print(f"attention by hand = convolution: values and gradients differ by at most {largest:.0e}; "
      f"the attention has {attention.num_parameters():,} weights to get right, "
      f"the convolution {filters.size}")

# %% [markdown]
# So a ViT can be a CNN, and much else. What a CNN has by construction is its *inductive
# bias* (lesson 04); a ViT has to find it in the images. Does it, when there are few?
#
# ## Accuracy against the number of images
#
# Two small networks, the same images, the same number of steps whatever the number of
# images, and several seeds, of the weights and of the order of the images. The loop stands
# in `lessons/small_task.py`; its learning rate rises (a *warm-up*) to a peak, and falls by
# a cosine. In the short form the task is to tell four shapes apart that may lie anywhere in
# the image, turned by any angle: disc, ring, square, triangle; at half size, to save time.
# The full form takes the first ten classes of CIFAR-100.

# %%
CLASSES = lesson.choose(quick=4, full=10)
SIZES = lesson.choose(quick=(150, 500, 1500), full=(200, 600, 2000))
SEEDS = range(3)
STEPS = lesson.choose(quick=100, full=500)
BATCH = lesson.choose(quick=32, full=64)
train_split, test = (first_classes(split, CLASSES, half_size=lesson.quick)
                     for split in (data.train, data.test))
train_images, train_labels = train_split.images, train_split.labels


class SmallCNN(nn.Module):
    """Three 3x3 convolutions, then the mean over the image, then a linear layer."""

    def __init__(self, seed):
        draw = np.random.default_rng(seed)
        widths = (3, *lesson.choose(quick=(16, 32, 64), full=(32, 64, 128)))
        he = he_normal_fan_out(draw)
        self.convs = [nn.Conv2d(a, b, 3, stride=stride, padding=1, bias=False, init=he)
                      for a, b, stride in zip(widths, widths[1:], (2, 2, 1))]
        self.norms = [nn.BatchNorm2d(width) for width in widths[1:]]
        self.head = nn.Linear(widths[-1], CLASSES, init=uniform_fan_in(draw))

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = ops.relu(norm(conv(x)))
        return self.head(x.mean((2, 3)))


def small_vit(seed):
    sizes = lesson.choose(
        quick={"img_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2},
        full={"img_size": 32, "embed_dim": 64, "depth": 4, "num_heads": 4},
    )
    return minivit.create_model("vit", patch_size=4, num_classes=CLASSES, seed=seed, **sizes)


NETWORKS = {  # what makes the network, and the best of a few learning rates
    "CNN": (SmallCNN, lesson.choose(quick=2e-2, full=1e-2)),
    "ViT": (small_vit, lesson.choose(quick=6e-3, full=2e-3)),
}


def run(name, size, seed, steps=STEPS):
    """Train on the first ``size`` images.

    Returns the network, percent right on these (on as many as the test has, at most), and percent
    right on the test images.
    """
    make, peak = NETWORKS[name]
    model = make(seed)
    train(model, Split(train_images[:size], train_labels[:size]), data, steps, BATCH, peak, seed)
    own = slice(min(size, len(test)))
    own_split = Split(train_images[own], train_labels[own])
    return model, top1(model, own_split, data), top1(model, test, data)


weights = {name: make(0).num_parameters() for name, (make, _) in NETWORKS.items()}
print("weights: " + ", ".join(f"{name} {number:,}" for name, number in weights.items()))
runs = {(name, size): [run(name, size, seed) for seed in SEEDS]
        for size in SIZES for name in NETWORKS}


def accuracies(name, size):
    """Percent on its own images, and on the test images: two arrays, a number for each seed."""
    _, own, unseen = zip(*runs[name, size])
    return np.array(own), np.array(unseen)


for size in SIZES:
    for name in NETWORKS:
        own, unseen = accuracies(name, size)
        print(f"{size:6} images, {name}: {unseen.mean():5.1f} ± {unseen.std(ddof=1):.1f} % "
              f"on test images, {own.mean():5.1f} % on its own")

_, some, most = SIZES
mean = {key: accuracies(*key)[1].mean() for key in runs}
for size in (some, most):
    assert mean["CNN", size] > mean["ViT", size] + 5
print(f"the CNN with {some} images: {mean['CNN', some]:.1f} %, "
      f"the ViT with {most}: {mean['ViT', most]:.1f} %")

# %% [markdown]
# Is it only that the ViT learns more slowly? Give it five times as many steps. With the
# middle number of images it then knows its own by heart, and gains little on others: what
# it lacks is images. With the largest number the same steps get it further.

# %%
longer = {size: run("ViT", size, seed=0, steps=5 * STEPS)[1:] for size in (some, most)}
for size, (own, unseen) in longer.items():
    print(f"ViT, {size} images, five times as many steps: {unseen:.1f} % on test images, "
          f"{own:.1f} % on its own")
long_own, long_test = longer[some]
assert long_own > 90
assert long_test < mean["CNN", some] - 3
if lesson.quick:
    assert longer[most][1] > long_test + 3

# %% [markdown]
# ## What has not been learned
#
# How many answers change when a test image moves by a few pixels? A CNN is not perfectly
# indifferent either: it takes every other window, and the border is near. But much of it
# comes for free. The ViT must have seen the shape in every place.


# %%
def answers(model, images):
    with minivit.no_grad():
        return model(minivit.Tensor(normalize(images, data.mean, data.std))).data.argmax(axis=1)


def changed(model, pixels):
    """Percent of the answers that are different after a shift by so many pixels."""
    moved = answers(model.eval(), shift(test.images, pixels))
    return 100 * (moved != answers(model, test.images)).mean()


SHIFTS = (1, 2, 3, 4)
fickle = {name: np.array([[changed(model, pixels) for pixels in SHIFTS]
                          for model, _, _ in runs[name, most]]) for name in NETWORKS}
for name, percents in fickle.items():
    print(f"{name}: answers that change with a shift by {SHIFTS} pixels: "
          + ", ".join(f"{percent:.0f} %" for percent in percents.mean(axis=0)))
assert fickle["ViT"][:, 1:].mean() > fickle["CNN"][:, 1:].mean() + 5


# %%
def draw_accuracy(axes):
    """Accuracy over the number of images: a dot for each seed, a line through the means."""
    for name, colour in COLOURS.items():
        own, unseen = zip(*(accuracies(name, size) for size in SIZES))
        axes.semilogx(SIZES, np.mean(unseen, axis=1), color=colour, label=f"{name}, test images")
        axes.semilogx(SIZES, np.mean(own, axis=1), color=colour, ls=":", lw=1.2,
                      label=f"{name}, its own images")
        for size, percents in zip(SIZES, unseen):
            axes.plot([size] * len(percents), percents, "o", color=colour, alpha=0.6)
    axes.plot(longer.keys(), [unseen for _, unseen in longer.values()], "*", color=COLOURS["ViT"],
              ms=13, label="ViT, test images, five times as many steps")
    axes.axhline(100 / CLASSES, color="black", lw=0.8, ls="--")
    axes.text(most, 100 / CLASSES + 1, "guessing", ha="right", va="bottom")
    axes.set(title="Accuracy", xlabel="training images", ylabel="%", ylim=(0, 102))
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.minorticks_off()
    axes.legend(frameon=False, loc=lesson.choose(quick="lower left", full="upper right"))


def draw_shifts(axes):
    """Answers that change with a shift: a dot for each seed, a line through the means."""
    for name, colour in COLOURS.items():
        axes.plot(SHIFTS, fickle[name].mean(axis=0), color=colour, label=name)
        for percents in fickle[name]:
            axes.plot(SHIFTS, percents, "o", color=colour, alpha=0.6)
    axes.set(title="Answers that a shift changes", xlabel="shift, pixels", ylabel="%",
             xticks=SHIFTS, ylim=(0, None))
    axes.legend(frameon=False)


COLOURS = {"CNN": "#2166ac", "ViT": "#b2182b"}
figure, panels = lesson.figure(1, 2, figsize=(11.5, 4.6))
if figure:
    draw_accuracy(panels[0])
    draw_shifts(panels[1])
    for axes in panels:
        axes.grid(alpha=0.3)
    lesson.save(figure, "accuracy")

# %% [markdown]
# With enough images the bias stops being an advantage: on 300 million images a ViT
# overtakes the CNNs (Dosovitskiy et al., section 4.3). With few, there are two ways out.
# Build some of the CNN's knowledge into the ViT: lessons 07 and 08, which put locality
# into the tokens and into the attention. Or teach it: lesson 09 has it learn from a CNN,
# lesson 11 from altered images.
#
# Exercises: `lessons/exercises/06.py`, checked by `python -m lessons check 06`.

# %%
lesson.passed(
    "with few images a CNN beats a ViT of about its size, and more steps do not close the gap",
    attention_by_hand_differs_from_convolution_by=f"{largest:.0e}",
    cnn=f"{mean['CNN', most]:.1f} % after {most} images",
    vit=f"{mean['ViT', most]:.1f} %",
    cnn_with_a_third=f"{mean['CNN', some]:.1f} %",
    vit_trained_longer_on_a_third=f"{long_test:.1f} %",
)
