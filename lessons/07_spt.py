"""Shifted patch tokenization: half-patch diagonal shifts let a token see twice as far each way.

Read before: lessons 05 and 06.
Takes: 5 min on two cores (--quick 11 s).
Paper: Lee, Lee & Song 2021, "Vision transformer for small-size datasets" (arXiv 2112.13492).
"""

# %%
import numpy as np
from lesson import Lesson
from small_task import first_classes, top1, train

import minivit
from minivit import nn, ops
from minivit.nn.init import xavier_normal

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## Patches do not overlap
#
# The windows of a CNN overlap, so one of them sees an edge whole, wherever it lies. The
# patches of a ViT do not: an edge between two of them is seen by neither, and it is left
# to attention to put the halves together, which lesson 06 found hungry for images.
#
# *Shifted Patch Tokenization* (SPT) shows each token its neighbourhood from the start.
# Before it is cut, the image $x$ is joined, along its channels, with four copies $s^i$ of
# itself, shifted diagonally by half a patch, $s = \lfloor P / 2 \rfloor$ pixels:
#
# | block | shows at $(i, j)$ the pixel | which lies |
# | --- | --- | --- |
# | $x$ | $x_{i, j}$ | there |
# | $s^1$ | $x_{i-s, j-s}$ | to the left and up |
# | $s^2$ | $x_{i-s, j+s}$ | to the right and up |
# | $s^3$ | $x_{i+s, j-s}$ | to the left and down |
# | $s^4$ | $x_{i+s, j+s}$ | to the right and down |
#
# Outside the image stand zeros. Then the five images are cut into patches (the paper's
# $\mathcal P$), normalised by a LayerNorm, and mapped to tokens by a linear layer $E_S$:
#
# $$ \mathrm{SPT}(x) = \mathrm{LN}(\mathcal{P}([x \; s^1 \; s^2 \; s^3 \; s^4])) \, E_S. $$


# %%
def shifted(x, up, left):
    """out[i, j] = x[i - up, j - left], and 0 where that is outside: (B, C, H, W) -> the same."""
    h, w = x.shape[2:]
    border = max(abs(up), abs(left))
    padded = ops.pad(x, [(0, 0), (0, 0), (border, border), (border, border)])
    return padded[:, :, border - up : border - up + h, border - left : border - left + w]


def with_shifts(x, p):
    """(B, C, H, W) -> (B, 5C, H, W)."""
    s = p // 2
    corners = ((s, s), (s, -s), (-s, s), (-s, -s))
    return ops.concat([x, *(shifted(x, up, left) for up, left in corners)], axis=1)


def cut(x, p):
    """(B, C, H, W) -> one vector for each patch, (B, N, p p C), its channels side by side."""
    b, c, h, w = x.shape
    grid = x.reshape(b, c, h // p, p, w // p, p).transpose(0, 2, 4, 3, 5, 1)
    return grid.reshape(b, -1, p * p * c)


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / ((centred**2).mean(-1, keepdims=True) + 1e-5).sqrt() * weight + bias


def spt(x, p, norm_weight, norm_bias, weight, bias):
    """Images (B, C, H, W) -> tokens (B, N, D)."""
    return layer_norm(cut(with_shifts(x, p), p), norm_weight, norm_bias) @ weight.T + bias


# %% [markdown]
# It is what minivit's `ShiftedPatchTokenization` computes, with the gradients of all
# weights and pixels, for even patches and odd ones:

# %%
largest = 0.0
for p, side in ((4, 32), (8, 32), (5, 30)):
    images = rng.standard_normal((2, 3, side, side))
    np.testing.assert_array_equal(with_shifts(images, p).data, nn.shift_patches(images, p).data)

    module = nn.ShiftedPatchTokenization(3, 24, p, init=xavier_normal(rng)).astype(np.float64)
    weights = [minivit.Tensor(w.data, requires_grad=True) for w in module.parameters()]
    x, their_x = (minivit.Tensor(images, requires_grad=True) for _ in range(2))
    ours, theirs = spt(x, p, *weights), module(their_x)
    cotangent = rng.standard_normal(ours.shape)
    ours.backward(cotangent)
    theirs.backward(cotangent)
    np.testing.assert_allclose(ours.data, theirs.data, atol=1e-12)
    for a, b in zip([x, *weights], [their_x, *module.parameters()]):
        np.testing.assert_allclose(a.grad, b.grad, atol=1e-10)
        largest = max(largest, np.abs(a.grad - b.grad).max())
print(f"our SPT = minivit's: gradients differ by at most {largest:.0e}")

# %% [markdown]
# ## What one token sees
#
# A token depends on a pixel if its gradient there is not zero. So we can *measure* what a
# token sees: send a random cotangent back from it, and look where something arrives.
#
# And we can predict it. The token at row $r$ and column $c$ of the grid has the patch of
# the rows $rP$ to $rP + P - 1$; the shifted images add $s$ pixels on each side. So the
# window is $P + 2s$ wide, which is $2P$ if $P$ is even, and it ends at the border.


# %%
def seen(tokens_of, place, side):
    """Which pixels (side, side) the token at a place of the sequence depends on."""
    x = minivit.Tensor(rng.standard_normal((1, 3, side, side)), requires_grad=True)
    tokens = tokens_of(x)
    cotangent = np.zeros(tokens.shape)
    cotangent[0, place] = rng.standard_normal(tokens.shape[2])
    tokens.backward(cotangent)
    return (x.grad[0] != 0).any(axis=0)


def window(row, column, p, reach, side):
    """The pixels of a patch, and those up to ``reach`` beyond it."""
    pixels = np.zeros((side, side), bool)
    top, left = row * p - reach, column * p - reach
    pixels[max(top, 0) : top + p + 2 * reach, max(left, 0) : left + p + 2 * reach] = True
    return pixels


tokens_checked = 0
for p, side in ((4, 32), (8, 32), (5, 30)):
    plain = nn.PatchEmbed(3, 24, p, init=xavier_normal(rng)).astype(np.float64)
    module = nn.ShiftedPatchTokenization(3, 24, p, init=xavier_normal(rng)).astype(np.float64)
    for place, (row, column) in enumerate(np.ndindex(side // p, side // p)):
        assert np.array_equal(seen(plain, place, side), window(row, column, p, 0, side))
        assert np.array_equal(seen(module, place, side), window(row, column, p, p // 2, side))
        tokens_checked += 1
print(f"{tokens_checked} tokens see exactly the window that was predicted")

# %% [markdown]
# For an even $P$, the four shifted patches are the four quarters of the window, and the
# patch itself lies over its middle. So the middle enters twice, and the ring around it
# once: send a one back from each number of the vector before the norm, and count what
# arrives.

# %%
P, SIDE, ROW, COLUMN = 8, 32, 1, 2  # token 6 of 16
image = minivit.Tensor(np.zeros((1, 3, SIDE, SIDE)), requires_grad=True)
vectors = cut(with_shifts(image, P), P)
ones = np.zeros(vectors.shape)
ones[0, ROW * (SIDE // P) + COLUMN] = 1
vectors.backward(ones)
copies = image.grad[0, 0]

patch, whole = window(ROW, COLUMN, P, 0, SIDE), window(ROW, COLUMN, P, P // 2, SIDE)
assert np.array_equal(copies, patch.astype(int) + whole)
assert copies.sum() == 5 * P**2
print(f"a token sees {whole.sum()} pixels instead of {patch.sum()}, "
      f"in {copies.sum():.0f} numbers of each colour")

# %% [markdown]
# With one attention layer on top, both kinds of token see the whole image. The difference
# is what they know before they have learned where to look.

# %%
def after_one_block(name):
    """What token 6 has seen after one block of a network with random weights."""
    model = minivit.create_model(name, patch_size=P, embed_dim=24, depth=1, num_heads=2)
    model.astype(np.float64)
    return seen(lambda x: model.blocks[0](model.patch_embed(x)), ROW * (SIDE // P) + COLUMN, SIDE)


attended = after_one_block("s_vit")
assert attended.all() and after_one_block("vit").all()

# %% [markdown]
# The price is in the first layer only: five times the channels, and a LayerNorm. In the
# paper's network for CIFAR-100:

# %%
plain, shifting = (minivit.create_model(name, num_classes=100).num_parameters()
                   for name in ("vit", "s_vit"))
numbers = 4 * 4 * 3  # of a patch
assert shifting - plain == 192 * (5 * numbers - numbers) + 2 * 5 * numbers
print(f"ViT {plain:,} weights, S-ViT {shifting:,}: {shifting / plain - 1:.1%} more")

# %% [markdown]
# ## Does it help?
#
# The task and the small ViT of lesson 06, with three kinds of tokens: plain patches, SPT,
# and, to be fair, SPT with the shifts left out. The latter has the norm, the five copies
# and the number of weights of SPT, and sees no further than a plain patch. Whatever SPT
# has over it, the shifts have brought.

# %%
CLASSES = lesson.choose(quick=4, full=10)
SEEDS = range(3)
STEPS = lesson.choose(quick=200, full=500)
BATCH = lesson.choose(quick=32, full=64)
NETWORK = {
    "patch_size": 4,
    "num_classes": CLASSES,
    **lesson.choose(
        quick={"img_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2},
        full={"img_size": 32, "embed_dim": 64, "depth": 4, "num_heads": 4},
    ),
}
data = lesson.data(*lesson.choose(quick=(5000, 1500), full=(50_000, 10_000)))


class Unshifted(nn.ShiftedPatchTokenization):
    """SPT with five copies of the image that all lie where the image lies."""

    def forward(self, x):
        return self.proj(self.norm(cut(ops.concat([x] * 5, axis=1), self.patch_size)))


def without_shifts(seed):
    model = minivit.create_model("s_vit", seed=seed, **NETWORK)
    init = xavier_normal(np.random.default_rng(seed))
    model.patch_embed = Unshifted(3, NETWORK["embed_dim"], NETWORK["patch_size"], init=init)
    return model


NETWORKS = {
    "plain patches": lambda seed: minivit.create_model("vit", seed=seed, **NETWORK),
    "SPT without shifts": without_shifts,
    "SPT": lambda seed: minivit.create_model("s_vit", seed=seed, **NETWORK),
}


def accuracy_of(model, seed):
    """Train as in lesson 06. Returns percent right on test images."""
    train(model, train_split, data, STEPS, BATCH, lesson.choose(quick=6e-3, full=2e-3), seed)
    return top1(model, test_split, data)


train_split, test_split = (first_classes(split, CLASSES, half_size=lesson.quick)
                           for split in (data.train, data.test))
accuracy = {name: np.array([accuracy_of(make(seed), seed) for seed in SEEDS])
            for name, make in NETWORKS.items()}
for name, percents in accuracy.items():
    print(f"{name:18} {NETWORKS[name](0).num_parameters():7,} weights: "
          f"{percents.mean():.1f} ± {percents.std(ddof=1):.1f} % on test images")
mean = {name: percents.mean() for name, percents in accuracy.items()}
print(f"the shifts are worth {mean['SPT'] - mean['SPT without shifts']:.1f} points")
if lesson.quick:
    assert mean["SPT"] > mean["SPT without shifts"] + 5

# %% [markdown]
# On the drawings of the short form the norm alone is a loss, probably because a bright
# patch and a dark one of the same pattern become the same vector; the shifts make up for
# it, and for more. In the paper, with networks trained for long, SPT gains 3.6 points on
# Tiny-ImageNet.
#
# The picture: the five images, with one token's patch in each (an image that shows what
# lies to the left and up has itself moved to the right and down); and below, what tokens
# see, with the rest dimmed, and the accuracies.


# %%
def draw_patch(axes, image, row, column, title):
    """An image (3, H, W), and the outline of a token's patch."""
    axes.imshow(image.transpose(1, 2, 0))
    corner = (column * P - 0.5, row * P - 0.5)
    axes.add_patch(Rectangle(corner, P, P, fill=False, color="white", lw=2))
    axes.set(title=title, xticks=[], yticks=[])


def draw_accuracy(axes):
    """A bar for the mean of each kind of tokens, a dot for each seed."""
    for place, (name, percents) in enumerate(reversed(accuracy.items())):
        axes.barh(place, percents.mean(), 0.55, color="#2166ac", alpha=0.35)
        axes.plot(percents, [place] * len(percents), "o", color="#2166ac")
        axes.text(1, place, name, va="center")
    axes.set(title="right on test images", xlabel="%", yticks=[], xlim=(0, None))


figure, panels = lesson.figure(2, 5, figsize=(13.5, 5.8))
if figure:
    from matplotlib.patches import Rectangle

    picture = data.test.images[0] / 255
    blocks = with_shifts(picture[None], P).data.reshape(5, 3, SIDE, SIDE)
    titles = ("left, up", "right, up", "left, down", "right, down")
    for i, axes in enumerate(panels[0]):
        title = f"$s^{i}$ shows what is {titles[i - 1]}" if i else "$x$"
        draw_patch(axes, blocks[i], ROW, COLUMN, title)
    corner = window(0, 0, P, P // 2, SIDE)
    views = (
        ("token of a ViT", patch, ROW, COLUMN),
        ("token of SPT", whole, ROW, COLUMN),
        ("SPT, in the corner", corner, 0, 0),
        ("either, after one block", attended, ROW, COLUMN),
    )
    for axes, (title, mask, row, column) in zip(panels[1], views):
        draw_patch(axes, picture * np.where(mask, 1, 0.2), row, column, title)
    draw_accuracy(panels[1, 4])
    lesson.save(figure, "window")

# %% [markdown]
# Now open `minivit/nn/shifted_patches.py`: the same, and SPT as a pooling layer, where
# the pixels are tokens and $P = 2$. Lesson 08 is about the paper's other half.
#
# Exercises: `lessons/exercises/07.py`, checked by `python -m lessons check 07`.

# %%
lesson.passed(
    "an SPT token sees exactly the window that was predicted, 2P wide",
    tokens_checked=tokens_checked,
    pixels_seen=f"{whole.sum()} instead of {patch.sum()}",
    spt=f"{mean['SPT']:.1f} %",
    without_shifts=f"{mean['SPT without shifts']:.1f} %",
    plain=f"{mean['plain patches']:.1f} %",
)
