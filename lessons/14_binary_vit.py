"""BinaryViT: four ideas from convolutional networks give a vision transformer of signs more levels.

Read before: lessons 05, 10, 12 and 13.
Takes: 9 min on two cores (--quick 12 s).
Paper: Le & Li 2023, "BinaryViT: Pushing Binary Vision Transformers Towards Convolutional Models"
(arXiv 2306.16678), and its published code.
"""

# %%
import numpy as np
from lesson import Lesson

import minivit
from minivit import nn, ops
from minivit.analysis import cost
from minivit.nn.init import uniform_fan_in
from minivit.training.optimizers import AdamW

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## What is missing
#
# With weights and inputs of one bit (lesson 12) a network is small and fast, and poor. $K$ signs
# times $K$ signs have only $K + 1$ different products: $-K, -K+2, \dots, K$.
# Bi-Real Net (Liu et al. 2018, arXiv 1808.00278, section 3) calls the number of values that a
# part of a network can take its *representational capability*. Convolutional networks of bits
# do better than transformers of bits, and Le and Li ask what they have that a ViT has not.
# Four things, which they add one after the other:
#
# | rung | in minivit | top-1 on ImageNet, from the paper |
# | --- | --- | --- |
# | a DeiT-S of bits | `binary_deit_cls` | 48.5 |
# | 1. the mean of all tokens, no class token | `binary_deit_gap` | 56.4 |
# | 2. pooling branches beside each MLP | `binary_deit_branches` | 60.2 |
# | 3. affine layers before the residual sums | `binary_deit_affine` | 61.8 |
# | 4. a pyramid | `binary_vit` | 67.7 |
#
# None is a convolution of bits over windows that overlap. One by one: what each does, exactly,
# and how many levels it makes of products of $K = 64$ signs, on a grid of 8 x 8 tokens. First
# the product itself, by trying all inputs for a short row, and then in a layer of minivit.


# %%
def sums(*level_sets):
    """All values that a sum of independent terms can take, given those of each term."""
    total = np.zeros(1, int)
    for values in level_sets:
        total = np.unique(np.add.outer(total, values))
    return total


def product_levels(K):
    """The values of a product of K signs with K signs."""
    return np.arange(-K, K + 1, 2)


for K in range(1, 10):
    inputs = 1 - 2 * (np.arange(2**K)[:, None] >> np.arange(K) & 1)  # all rows of K signs
    row = rng.choice([-1, 1], K)
    assert np.array_equal(np.unique(inputs @ row), product_levels(K))

K, GRID = 64, (8, 8)
N = GRID[0] * GRID[1]
one = product_levels(K)
layer = nn.BinaryLinear(K, 1, init=uniform_fan_in(rng))
signs = minivit.Tensor(rng.choice(np.array([-1, 1], np.float32), (20_000, K)))
found = np.unique((layer(signs).data / np.abs(layer.binary_weight().data[0, 0])).round())
assert set(found) <= set(one) and len(one) == K + 1
print(f"a product of {K} signs has {len(one)} levels; in 20,000 products, {len(found)} came up")

# %% [markdown]
# ## The bottom rung: a block of binary units
#
# The baseline is no naive network. Each binary layer is a *unit* that has a shortcut of its
# own, so that real numbers flow past the signs (Bi-Real Net), and shifts that put the sign
# where it tells most; RPReLU is a PReLU with a learned shift before it and one behind
# (ReActNet, Liu et al. 2020, arXiv 2003.03488):
#
# $$ \mathrm{unit}(x) = \mathrm{RPReLU}\bigl(\mathrm{BN}(\mathrm{sign}(x + s)\,W_b^T)
#    + \mathrm{shortcut}(x)\bigr). $$
#
# BatchNorm stands in place of LayerNorm everywhere. The shortcut of a wider unit repeats the
# channels; that of a narrower one takes means of neighbours. Here is a whole block in plain
# ops; only the three quantisers, with their made-up gradients, are taken from lesson 12.


# %%
def batch_norm(x, norm):
    mean, var = x.mean((0, 1)), x.var((0, 1))
    return (x - mean) / ops.sqrt(var + norm.eps) * norm.weight + norm.bias


def rprelu(x, act):
    t = x - act.shift_in
    return ops.maximum(t, 0) + act.slope * ops.minimum(t, 0) + act.shift_out


def unit(x, u):
    (B, N, C), out = x.shape, len(u.layer.weight.data)
    Wb = ops.binary_weight(u.layer.weight, centred=True)
    y = batch_norm(ops.sign(x, u.shift) @ Wb.swapaxes(0, 1), u.norm)
    if out >= C:
        shortcut = ops.concat([x] * (out // C), axis=2)
    else:
        shortcut = x.reshape(B, N, out, C // out).mean(3)
    return rprelu(y + shortcut, u.act)


def attention(x, a):
    def heads(t, shift):
        s = ops.sign(t, shift)
        return s.reshape(*s.shape[:2], a.num_heads, -1).transpose(0, 2, 1, 3)

    q, k, v = unit(x, a.q), unit(x, a.k), unit(x, a.v)
    qb, kb, vb = heads(q, a.q_shift), heads(k, a.k_shift), heads(v, a.v_shift)
    P = ops.softmax(qb @ kb.swapaxes(2, 3) / np.sqrt(qb.shape[3]))
    context = ops.quantize_probabilities(P, a.att_prob_clip) @ vb  # 0 or c, times signs
    context = context.transpose(0, 2, 1, 3).reshape(x.shape)
    return rprelu(batch_norm(context, a.norm) + q + k + v, a.act)


def pooling_branches(z, pool, grid):
    B, _, C = z.shape
    image, total = z.reshape(B, *grid, C), 0
    for axis, size, layer in ((1, 3, pool.h3), (2, 3, pool.w3), (1, 5, pool.h5), (2, 5, pool.w5)):
        padding = [(size // 2, size // 2) if a == axis else (0, 0) for a in range(4)]
        padded = ops.pad(image, widths=padding)  # zeros, which count: divide by 3 or 5 anywhere
        n = grid[axis - 1]
        ends = [(i, i + n) for i in range(size)]
        windows = [padded[:, a:b] if axis == 1 else padded[:, :, a:b] for a, b in ends]
        total = total + sum(windows) / size * layer.scale + layer.shift
    return total.reshape(z.shape)


def block(x, b):
    y = unit(attention(batch_norm(x, b.norm1), b.attn), b.proj)
    x = x + (y if b.affine1 is None else y * b.affine1.scale + b.affine1.shift)
    z = batch_norm(x, b.norm2)
    y = unit(unit(z, b.mlp.fc1), b.mlp.fc2)
    x = x + (y if b.affine2 is None else y * b.affine2.scale + b.affine2.shift)
    return x if b.pool is None else x + pooling_branches(z, b.pool, b.pool.grid)


# %% [markdown]
# It is minivit's `BinaryBlock`: the same values and the same gradients, of the input and of
# each of its parameters, for the bottom rung (no affine layers, no branches) and for the
# third (both). All parameters get random values first, so that none hides behind a zero.

# %%
differences = []
for top in (False, True):
    init = uniform_fan_in(rng)
    attn = nn.BinaryAttention(16, 2, att_prob_clip=0.05, init=init)
    b = nn.BinaryBlock(attn, 16, 4, affine=top, pooling_grid=(3, 4) if top else None, init=init)
    b.astype("float64")
    for name, p in b.named_parameters():
        if "layer.weight" not in name and "clip" not in name:
            p.data += rng.normal(0, 0.2, p.shape)
    tokens, cotangent = rng.standard_normal((2, 5, 12, 16))
    results = []
    for ours in (True, False):
        b.zero_grad()
        x = minivit.Tensor(tokens, requires_grad=True)
        out = block(x, b) if ours else b(x)
        out.backward(cotangent)
        results.append([out.data, x.grad] + [p.grad for p in b.parameters()])
    for ours, theirs in zip(*results):
        differences.append(np.abs(ours - theirs).max() / np.abs(theirs).max())
largest = np.max(differences)
assert largest < 1e-10
print(f"a block in plain ops = BinaryBlock: values and {len(results[0]) - 1} gradients, "
      f"to {largest:.0e}")

# %% [markdown]
# ## Rung 1: the mean of all tokens
#
# A class token learns of the other tokens through attention alone. In full precision that is
# enough. Here probabilities have one bit, and values too: what it learns in a channel is a
# whole number between $-N$ and $N$, times one level. The mean of all tokens needs no attention,
# and has $NK + 1$ levels where each token has $K + 1$. And it teaches all tokens: at the last
# layer, the gradient of a loss reaches the class token alone, or each token with exactly the
# same share.

# %%
mean_levels = sums(*[one] * N)
assert len(mean_levels) == N * K + 1

images = rng.standard_normal((4, 3, 32, 32)).astype(np.float32)
small = {"num_classes": 10, "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "seed": 0}
for name in ("binary_deit_cls", "binary_deit_gap"):
    model = minivit.create_model(name, **small).eval()
    with minivit.no_grad():
        tokens, expected = model.forward_features(images).data, model(images).data
    tokens = minivit.Tensor(model.norm(minivit.Tensor(tokens)).data, requires_grad=True)
    seen = tokens[:, 0] if name == "binary_deit_cls" else tokens.mean(1)
    logits = model.head(seen)
    assert np.allclose(logits.data, expected, rtol=1e-5, atol=1e-6)
    minivit.cross_entropy(logits, np.array([0, 1, 2, 3])).backward()
    if name == "binary_deit_cls":
        assert np.all(tokens.grad[:, 1:] == 0) and np.all(tokens.grad[:, 0].any(axis=1))
    else:
        assert np.all(tokens.grad == tokens.grad[:, :1]) and np.all(tokens.grad[:, 0].any(axis=1))
print(f"1. one token: {len(one)} levels, gradient to 1 of {tokens.shape[1] + 1} tokens; "
      f"mean of {N}: {len(mean_levels)} levels, gradient to all")

# %% [markdown]
# ## Rung 2: pooling branches
#
# Convolutional networks have average pooling: sums of *real* numbers of neighbours, without
# any product of bits. BinaryViT puts four such means beside each MLP, of 3 and of 5 neighbours
# along columns and along rows, each with a scale and a shift for each channel. All scales
# start at 0, so that the branches start as nothing; but the gradient of the scales is not 0.
#
# With equal scales of 1, a token gets weight $\frac13 + \frac13 + \frac15 + \frac15$ for
# itself, $\frac13 + \frac15$ for each of its four neighbours, $\frac15$ for the four next ones.
# In fifteenths: 16, 8 and 3.

# %%
pool = nn.PoolingBranches(K, GRID)
z = minivit.Tensor(rng.standard_normal((2, N, K)).astype(np.float32))
out = pool(z)
assert np.all(out.data == 0)
out.backward(rng.standard_normal(out.shape))
assert all(np.all(p.grad != 0) for p in pool.parameters())

pool = nn.PoolingBranches(1, GRID, scale=1.0)
z = minivit.Tensor(np.zeros((1, N, 1), np.float32), requires_grad=True)
cotangent = np.zeros((1, *GRID, 1))
cotangent[0, 3, 4, 0] = 1
pool(z).backward(cotangent.reshape(1, N, 1))
cross = z.grad.reshape(GRID)  # how much the token at (3, 4) sees of each token
expected = np.zeros(GRID)
expected[3, 4] = 16
expected[[2, 4, 3, 3], [4, 4, 3, 5]] = 8
expected[[1, 5, 3, 3], [4, 4, 2, 6]] = 3
assert np.allclose(15 * cross, expected, atol=1e-5)

fours = sums(*[one] * 4)
branch_levels = sums(16 * one, 8 * fours, 3 * fours)  # in fifteenths
print(f"2. branches start as exactly 0, then see {np.count_nonzero(expected)} tokens; "
      f"{len(branch_levels)} levels even with equal scales")

# %% [markdown]
# ## Rung 3: an affine layer before the residual sum
#
# What a block has computed is added to the stream of tokens $x$. Two numbers with equal steps
# collide when they are added: 65 levels and 65 levels make 129, not $65^2$. A scale between
# them keeps them apart. With the scale of 0.1, with which training starts, there are 705
# levels; with $1/65$, all $65^2$.
#
# The other effect is that of LayerScale (lesson 10). A unit has a shortcut, so a new block adds
# something of about size 1 to $x$, however small or large $x$ is. Scaled to 0.1, it begins as a
# small change. We follow tokens through twelve new blocks. Where a sign will be taken, BatchNorm
# comes first: what counts is whether a token lies above the mean of its channel.

# %%
assert len(sums(one, one)) == 2 * K + 1
affine_levels = sums(10 * one, one)  # x + 0.1 y, in tenths
assert len(affine_levels) == 705
assert len(sums((K + 1) * one, one)) == (K + 1) ** 2


def centred(tokens):
    return tokens.data - tokens.data.mean((0, 1))


images = minivit.Tensor(rng.standard_normal((20, 3, 32, 32)).astype(np.float32))
growth, left, turned = {}, {}, {}
for name in ("binary_deit_branches", "binary_deit_affine"):
    model = minivit.create_model(name, **(small | {"embed_dim": 64, "depth": 12}))
    with minivit.no_grad():
        first = tokens = model.patch_embed(images) + model.pos_embed
        left[name] = [1.0]
        for b in model.blocks:
            tokens = b(tokens)
            together = np.corrcoef(centred(tokens).ravel(), centred(first).ravel())
            left[name].append(together[0, 1])
        turned[name] = np.mean((centred(model.blocks[0](first)) >= 0) != (centred(first) >= 0))
    growth[name] = centred(tokens).std() / centred(first).std()
    print(f"3. {'with' if 'affine' in name else 'no'} affine layers: the first block turns over "
          f"{turned[name]:.0%} of the signs; after twelve, tokens are {growth[name]:.0f} times as "
          f"large, and correlate by {left[name][-1]:.2f} with those that came in")
print(f"   {len(sums(one, one))} levels become {len(affine_levels)}")
without, with_affine = "binary_deit_branches", "binary_deit_affine"
assert growth[without] > 5 * growth[with_affine] and turned[without] > 1.8 * turned[with_affine]
assert left[with_affine][-1] > left[without][-1] + 0.1

# %% [markdown]
# ## Rung 4: the pyramid
#
# The flat network keeps 14 x 14 tokens of 384 channels from its first block to its last. A
# pyramid begins with 56 x 56 tokens of 64 channels, and between its four stages halves both
# sides of the grid and doubles the channels: fine where the picture is, wide where the
# meaning is. $N C^2$, the cost of a layer, stays the same from stage to stage. To keep
# attention cheap in the early stages, their keys and values come from means of $r \times r$
# tokens, so that there are $M = N / r^2$ of them.
#
# The formula below counts the products of bits: of the units for query, output, key, value
# (and the reduction before them), of the MLP with ratio $e$, and of attention. It gives what
# minivit counts while an image runs through the network, to the last operation. One
# instruction does 64 products of bits (BOPs); added to them are the multiplications in full
# precision (FLOPs) of patch embedding, classifier and scales: OPs = BOPs / 64 + FLOPs.


# %%
def stage_bops(blocks, N, C, e, r=1):
    M = N // r**2
    units = 2 * N * C * C + (2 + (r > 1)) * M * C * C + 2 * N * C * e * C
    return blocks * (units + 2 * N * M * C)


flat = {"cls": stage_bops(12, 197, 384, 4), "others": stage_bops(12, 196, 384, 4)}
stages = ((3, 56**2, 64, 8, 8), (4, 28**2, 128, 8, 4), (8, 14**2, 256, 4, 1), (4, 7**2, 512, 4, 1))
assert len({N * C**2 for _, N, C, _, _ in stages}) == 1
pyramid = [stage_bops(*s) for s in stages]
downsampling = [(N // 4) * (4 * C) * (2 * C) for _, N, C, _, _ in stages[:3]]

RUNGS = {
    "binary_deit_cls": "baseline",
    "binary_deit_gap": "+ mean of tokens",
    "binary_deit_branches": "+ pooling branches",
    "binary_deit_affine": "+ affine layers",
    "binary_vit": "+ pyramid = BinaryViT",
}
ops_millions = {}
print("4. at 224 pixels        products of bits   full precision      OPs")
for name, text in RUNGS.items():
    total = cost.measure(minivit.create_model(name, seed=None)).total()
    ops_millions[name] = total.ops / 1e6
    print(f"   {text:22} {total.bops:>14,} {total.flops:>16,} {total.ops / 1e6:>7.1f}M")
    expected = flat.get(name.removeprefix("binary_deit_"), flat["others"])
    assert total.bops == (sum(pyramid) + sum(downsampling) if name == "binary_vit" else expected)
assert total.bops == 3_822_206_976

# %% [markdown]
# The downsampling between two stages is a unit, too. Its layer is a convolution with filters
# of 2 x 2 pixels at stride 2, whose windows do not overlap; that is a product with 4 tokens
# side by side. Its shortcut is the mean of the four, repeated for the doubled channels.

# %%
unit_2x2 = nn.BinaryUnit(6, 12, grid=(4, 6), init=uniform_fan_in(rng))
x = rng.standard_normal((3, 24, 6)).astype(np.float32)
cells = x.reshape(3, 2, 2, 3, 2, 6).transpose(0, 1, 3, 5, 2, 4)  # images, cells, C, 2, 2
W = unit_2x2.layer.weight
Wb = np.abs(W.data).mean((1, 2, 3))[:, None] * np.where(W.data >= 0, 1, -1).reshape(12, 24)
y = np.where(cells >= 0, 1, -1).reshape(3, 6, 24) @ Wb.T
y = (y - y.mean((0, 1))) / np.sqrt(y.var((0, 1)) + 1e-5)
y = y + np.tile(cells.mean((4, 5)).reshape(3, 6, 6), 2)
ours, theirs = np.where(y > 0, y, 0.25 * y), unit_2x2(minivit.Tensor(x)).data
assert np.allclose(ours, theirs, atol=1e-5)
assert len(fours) == 4 * K + 1
print(f"   downsampling in plain NumPy = BinaryUnit; its shortcut has {len(fours)} levels")

# %% [markdown]
# ## Levels, and twelve blocks at the start

# %%
counts = {
    "a product of 64 signs": len(one),
    "1. mean of 64 tokens": len(mean_levels),
    "2. pooling branches": len(branch_levels),
    "3. x + y, without a scale": len(sums(one, one)),
    "3. x + 0.1 y": len(affine_levels),
    "4. mean of 2 x 2 tokens": len(fours),
}
figure, panels = lesson.figure(1, 3, figsize=(13, 3.9))
if figure:
    colours = ["#999999", "#2166ac", "#2166ac", "#999999", "#2166ac", "#2166ac"]
    bars = panels[0].barh(list(counts), counts.values(), color=colours)
    panels[0].bar_label(bars, padding=3)
    panels[0].set(xscale="log", xlim=(20, 40_000), title="Levels", xlabel="values it can take")
    panels[0].invert_yaxis()
    panels[1].imshow(15 * cross, cmap="Blues")
    for (i, j), value in np.ndenumerate(15 * cross):
        if value > 0.5:
            panels[1].text(j, i, f"{value:.0f}", ha="center", va="center",
                           color="white" if value > 10 else "black")
    panels[1].set(xticks=[], yticks=[], title="What branches see, in fifteenths")
    for name, colour, label in ((without, "#b2182b", "without affine layers"),
                                (with_affine, "#2166ac", "with affine layers, 0.1")):
        panels[2].plot(left[name], "o-", color=colour, label=label)
    panels[2].set(xlabel="new blocks passed", ylabel="correlation", ylim=(0, 1.05),
                  title="What is left of the tokens that came in")
    panels[2].set_xticks(range(0, 13, 2))
    panels[2].grid(alpha=0.3)
    panels[2].legend(frameon=False, loc="lower left")
    lesson.save(figure, "levels")

# %% [markdown]
# ## All rungs, trained
#
# Small networks of two blocks (the pyramid: one in each of three stages, and so small it takes
# more products of bits than the others), on ten classes of CIFAR-100, with several seeds; in the
# short form on three drawn shapes, once, and too briefly to rank them. The paper trains for 300
# epochs, and with a teacher. Our full run gave 55.8, 62.4, 61.7, 62.4 and 67.9 %, where seeds
# differ by one to three: the mean of all tokens and the pyramid show at once, branches and
# affine layers do not. Two blocks are not deep: for these two ideas that is no fair trial.

# %%
data = lesson.data(lesson.choose(quick=4000, full=None), lesson.choose(quick=2000, full=None))
if data.num_classes == 100:
    classes = np.arange(0, 100, 10)
else:
    classes = np.flatnonzero(np.isin(data.class_names, ["disc", "cross", "bar"]))


def chosen(split, limit):
    """Normalised images and labels of the chosen classes."""
    index = np.flatnonzero(np.isin(split.labels, classes))[:limit]
    mean, std = (np.float32(s)[:, None, None] for s in (data.mean, data.std))
    images = (np.float32(split.images[index]) / 255 - mean) / std
    return images, np.searchsorted(classes, split.labels[index])


train_images, train_labels = chosen(data.train, lesson.choose(quick=1000, full=5000))
test_images, test_labels = chosen(data.test, None)
EPOCHS, BATCH, PEAK = lesson.choose(quick=3, full=5), 50, 4e-3
patch = lesson.choose(quick=8, full=4)
flat_size = {"patch_size": patch, "embed_dim": 64, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
pyramid_size = {
    "patch_size": patch // 2, "embed_dims": (32, 64, 128), "depths": (1, 1, 1),
    "num_heads": (1, 1, 2), "mlp_ratios": (2, 2, 2),
    "reductions": lesson.choose(quick=(2, 1, 1), full=(4, 2, 1)),
}  # fmt: skip


def build(name, seed):
    size = pyramid_size if name == "binary_vit" else flat_size
    return minivit.create_model(name, img_size=32, num_classes=len(classes), seed=seed, **size)


def train(name, seed):
    """Train a network, and return its accuracy on the test images."""
    model, order = build(name, seed), np.random.default_rng(seed)
    optimizer = AdamW(model.named_parameters(), weight_decay=0.0)
    steps = EPOCHS * len(train_images) // BATCH
    for step in range(steps):
        if step % (len(train_images) // BATCH) == 0:
            batches = order.permutation(len(train_images)).reshape(-1, BATCH)
        index = batches[step % len(batches)]
        logits = model(minivit.Tensor(train_images[index]))
        loss = minivit.cross_entropy(logits, train_labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = PEAK * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        optimizer.step()
        for module in model.modules():
            if isinstance(module, nn.BinaryAttention):
                module.constrain()  # keeps the level of attention above zero
    model.eval()
    with minivit.no_grad():
        parts = zip(np.array_split(test_images, 10), np.array_split(test_labels, 10))
        hits = [(model(minivit.Tensor(x)).data.argmax(1) == y).sum() for x, y in parts]
    return sum(hits) / len(test_labels)


SEEDS = lesson.choose(quick=1, full=3)
print(f"\n{len(train_images)} images of {len(classes)} classes, {EPOCHS} epochs, seeds: {SEEDS}")
accuracy = {}
for name, text in RUNGS.items():
    accuracy[name] = np.array([train(name, seed) for seed in range(SEEDS)])
    total = cost.measure(build(name, None)).total()
    each = " ".join(f"{a:.1%}" for a in accuracy[name])
    print(f"{text:22} {accuracy[name].mean():6.1%} (seeds: {each}), "
          f"{total.bops / 1e6:.1f} M products of bits an image")
bottom, first, *_, top = accuracy.values()
assert np.mean(list(accuracy.values())) > 1 / len(classes) + 0.05  # they learn
if data.num_classes == 100:  # what is far beyond the spread of the seeds
    assert first.mean() - bottom.mean() > 0.02 and top.mean() - bottom.mean() > 0.05

# %%
figure, axes = lesson.figure(figsize=(7.5, 4))
if figure:
    for i, found in enumerate(accuracy.values()):
        axes.plot(100 * found, np.full(SEEDS, i), "o", color="#2166ac", alpha=0.6)
        axes.plot(100 * found.mean(), i, "|", color="black", ms=22, mew=2)
    axes.axvline(100 / len(classes), color="#999999", ls="--", lw=1)
    axes.text(100 / len(classes), 4.6, " guessing", color="#777777", va="bottom")
    axes.set(xlabel="test accuracy in %: each seed, and the mean", ylim=(-0.6, 5.1),
             title=f"{len(classes)} classes of {data.name}, {EPOCHS} epochs, seeds: {SEEDS}")
    axes.set_yticks(range(5), RUNGS.values())
    axes.grid(axis="x", alpha=0.3)
    lesson.save(figure, "ladder")

# %% [markdown]
# Exercises: `lessons/exercises/14.py`, checked by `python -m lessons check 14`. Next, lesson 15
# packs such a network into words of bits.

# %%
lesson.passed(
    "each of the four ideas does what it says, and adds levels",
    levels=f"{len(one)}, by the mean {len(mean_levels)}, by branches {len(branch_levels)}, "
           f"by affine layers {len(affine_levels)}, by downsampling {len(fours)}",
    block_differs_by=f"{largest:.0e}",
    OPs=f"{ops_millions['binary_deit_cls']:.0f}M to {ops_millions['binary_vit']:.0f}M",
    accuracy=f"{bottom.mean():.0%} to {top.mean():.0%} (seeds: {SEEDS})",
)
