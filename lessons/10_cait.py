"""CaiT: LayerScale lets 36 blocks learn fast, and class attention costs O(N), not O(N^2).

Read before: lesson 05.
Takes: 60 s on two cores (--quick 14 s).
Paper: Touvron et al. 2021, "Going deeper with image transformers" (arXiv 2103.17239), sections
2 and 3.
"""

# %%
import numpy as np
from lesson import Lesson

import minivit
from minivit import ops
from minivit.analysis.cost import measure
from minivit.data.augment import normalize
from minivit.models.cait import layer_scale_init
from minivit.training.optimizers import AdamW

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## LayerScale
#
# A deeper network should be a better one. But the deeper a ViT, the harder it is to train.
# With DeiT's settings unchanged, runs of 24 and 36 blocks fail; with a drop path tuned for
# the depth they gain, but less than with LayerScale. CaiT multiplies what a branch adds to
# the tokens by a learned vector, one number for each channel:
#
# $$ z' = z + \mathrm{diag}(\gamma_1) \, \mathrm{MSA}(\mathrm{LN}(z)), \qquad
#    z'' = z' + \mathrm{diag}(\gamma_2) \, \mathrm{MLP}(\mathrm{LN}(z')). $$
#
# All of $\gamma$ starts at a small $\varepsilon$. Here is the block, with attention, MLP
# and norms from lesson 05; and it equals minivit's, values and gradients:


# %%
def scaled_block(parts, z, gamma_1, gamma_2):
    """Tokens (B, N, D) -> (B, N, D); gamma_1, gamma_2 (D,)."""
    z = z + gamma_1 * parts.attn(parts.norm1(z))
    return z + gamma_2 * parts.mlp(parts.norm2(z))


def compare(ours, theirs, tensors):
    """Assert that two results are equal, and their gradients by all ``tensors``."""
    np.testing.assert_allclose(ours.data, theirs.data, atol=1e-12)
    cotangent, found = rng.standard_normal(ours.shape), []
    for result in (ours, theirs):
        for tensor in tensors:
            tensor.zero_grad()
        result.backward(cotangent)
        found.append([tensor.grad for tensor in tensors])
    for mine, other in zip(*found):
        np.testing.assert_allclose(mine, other, rtol=1e-8, atol=1e-12)
    return len(tensors)


data = lesson.data(train=128, test=1)
images, labels = normalize(data.train.images, data.mean, data.std), data.train.labels
SIZES = {"num_classes": data.num_classes, "patch_size": 8, "embed_dim": 32, "num_heads": 4}


def vit(depth, gamma=None, seed=0):
    """Lesson 05's network; ``gamma`` is what LayerScale starts with, None: no LayerScale."""
    return minivit.create_model("vit", depth=depth, init_values=gamma, seed=seed, **SIZES)


block = vit(depth=1, gamma=0.1).astype(np.float64).blocks[0]
z = minivit.Tensor(rng.standard_normal((4, 17, 32)), requires_grad=True)
ours = scaled_block(block, z, block.gamma_1, block.gamma_2)
count = compare(ours, block(z), [z, *block.parameters()])
print(f"our block with LayerScale = minivit's: values, and {count} gradients")

# %% [markdown]
# What does it change? Three measurements, on fresh networks of growing depth. First: how
# far do the tokens move from the first block to the last, and how do gradients change on
# the way back? To see the gradient *between* blocks we add a leaf of zeros to the tokens
# there. It changes nothing, and the tape leaves the gradient in it (lesson 01).


# %%
def through_blocks(model, images):
    """Tokens before each block, and the zeros that were added there."""
    class_token = model.cls_token + np.zeros((len(images), 1, 1), np.float32)
    z = ops.concat([class_token, model.patch_embed(minivit.Tensor(images))], axis=1)
    z, tokens, leaves = z + model.pos_embed, [], []
    for block in model.blocks:
        leaf = minivit.Tensor(np.zeros(z.shape, np.float32), requires_grad=True)
        tokens.append(z.data)
        leaves.append(leaf)
        z = block(z + leaf)
    return model.head(model.norm(z)[:, 0]), tokens, leaves


def relative(change, to):
    return np.linalg.norm(change) / np.linalg.norm(to)


def flow(depth, gamma):
    """How far the tokens move, and the sizes of the loss's gradients before each block."""
    logits, tokens, leaves = through_blocks(vit(depth, gamma), images[:64])
    minivit.cross_entropy(logits, labels[:64]).backward()
    sizes = np.array([np.linalg.norm(leaf.grad) for leaf in leaves])
    return relative(tokens[-1] - tokens[0], tokens[0]), sizes


DEPTH = 36
EPSILON = layer_scale_init(DEPTH)  # the paper's: 0.1 up to 18 blocks, 1e-5 to 24, then 1e-6
FORMS = {"without LayerScale": None, f"gamma = {EPSILON:g}": EPSILON}
flows = {name: flow(DEPTH, gamma) for name, gamma in FORMS.items()}
for name, (moved, slopes) in flows.items():
    print(f"{DEPTH} blocks, {name}: tokens move by {moved:.2g} of their size, "
          f"gradients grow {slopes[0] / slopes[-1]:.3f} times on their way back")
(moved, plain), (scaled_moved, scaled) = flows.values()
assert scaled_moved < 1e-4 < 1 < moved
assert np.ptp(scaled) < 1e-4 * scaled[0] and plain[0] > 2 * plain[-1]

# %% [markdown]
# With LayerScale a fresh network is all but the identity, however deep. Not that
# gradients vanish without: the shortcuts carry them, and they even grow. So why does it
# train worse? Look at what a *step* does. AdamW moves each weight by about its learning
# rate, be the gradient large or small (only near its $\epsilon$ of $10^{-8}$ by less). All
# 36 blocks move at once, none knows of the others, and the more there are, the larger the
# sum. Second measurement: let *one* step move the weights of the blocks, $\gamma$ among
# them, and nothing else. How far do they move, and how much do the logits change?


# %%
def one_step(depth, gamma, rate=1e-3):
    """Median move of a weight, in learning rates; change of the logits, relative to their size."""
    model, x = vit(depth, gamma), minivit.Tensor(images[:64])
    weights = {name: weight for name, weight in model.named_parameters()
               if name.startswith("blocks.")}
    before = {name: weight.data.copy() for name, weight in weights.items()}
    logits = model(x)
    minivit.cross_entropy(logits, labels[:64]).backward()
    AdamW(weights.items(), lr=rate, weight_decay=0).step()
    moves = [np.abs(weight.data - before[name]).ravel() for name, weight in weights.items()]
    return (np.median(np.concatenate(moves)) / rate,
            relative(model(x).data - logits.data, logits.data))


DEPTHS = (4, 8, 16, 36)
changes = {}
for name, gamma in FORMS.items():
    moves, changes[name] = np.array([one_step(depth, gamma) for depth in DEPTHS]).T
    print(f"{name}: weights move by about {moves.mean():.1f} learning rates; "
          f"the logits of {DEPTHS} blocks change by "
          + ", ".join(f"{change:.2g}" for change in changes[name]) + " of their size")
    assert (0.99 if gamma is None else 0.02) < min(moves) and max(moves) < 1.01
plain_changes, scaled_changes = changes.values()
assert (np.diff(plain_changes) > 0).all() and plain_changes[-1] > 2 * plain_changes[0]
assert (scaled_changes < plain_changes / 20).all()

model = vit(DEPTH, EPSILON)
minivit.cross_entropy(model(minivit.Tensor(images[:64])), labels[:64]).backward()
AdamW(model.named_parameters(), lr=1e-3, weight_decay=0).step()
opened = [np.abs(block.gamma_2.data).mean() for block in model.blocks]
print(f"after this step the gamma_2 of {DEPTH} blocks have a mean size of "
      f"{min(opened):.5f} to {max(opened):.5f}")
assert np.allclose(opened, 1e-3, rtol=0.1)

# %% [markdown]
# With $\gamma = 10^{-6}$ a step in the weights of a branch is worth a millionth of it in
# the tokens. What counts at first is $\gamma$ itself, whose gradient is not scaled down.
# AdamW moves it by about a learning rate a step, in all blocks alike: so they open
# together, and slowly.
#
# Third: does it train? Networks of 6 and of 36 blocks shall learn 128 images by heart,
# with a large learning rate and no warm-up. LayerScale starts as in the paper, at 0.1 for
# 6 blocks and at $10^{-6}$ for 36.


# %%
STEPS, RATE, BATCH = 100, 3e-3, 16
SEEDS = range(lesson.choose(1, 6))


def learn(depth, gamma, seed):
    """Returns the loss of each step, and the trained network."""
    model = vit(depth, gamma, seed)
    optimizer = AdamW(model.named_parameters(), lr=RATE, weight_decay=0)
    draw, losses = np.random.default_rng(seed), []
    for _ in range(STEPS):
        rows = draw.choice(len(images), BATCH, replace=False)
        loss = minivit.cross_entropy(model(minivit.Tensor(images[rows])), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), model


runs, last = {}, {}
for depth in (6, DEPTH):
    for name, gamma in (("without LayerScale", None), ("with", layer_scale_init(depth))):
        trained = [learn(depth, gamma, seed) for seed in SEEDS]
        runs[depth, name] = np.array([losses for losses, _ in trained])
        last[depth, name] = runs[depth, name][:, -10:].mean(axis=1)
        print(f"{depth:2} blocks {name:18}: loss of the last 10 steps "
              + ", ".join(f"{value:.2f}" for value in last[depth, name]))
assert (last[DEPTH, "with"] < last[DEPTH, "without LayerScale"] - 0.4).all()

deepest = trained[0][1]  # the last that was trained: 36 blocks with LayerScale
opened = [np.abs(block.gamma_2.data).mean() for block in deepest.blocks]
print(f"the gamma_2 of {DEPTH} blocks began at {EPSILON:g}, and end with a mean size of "
      f"{min(opened):.3f} to {max(opened):.3f}")

# %% [markdown]
# Six blocks do not need LayerScale. Of the 36, those without it are the worst of all.

# %%
COLOURS = ("#b2182b", "#2166ac")
figure, panels = lesson.figure(1, 3, figsize=(13, 4.2))
if figure:
    for colour, (name, (_, slopes)) in zip(COLOURS, flows.items()):
        panels[0].plot(np.arange(1, DEPTH + 1), slopes / slopes[-1], color=colour, label=name)
        panels[1].semilogy(DEPTHS, changes[name], "o-", color=colour, label=name)
    panels[0].set(title="gradient by the tokens, in a fresh network", xlabel="before block",
                  ylabel="size, relative to the last block's", ylim=(0, None))
    panels[1].set(title="one step of all weights in the blocks", xlabel="blocks",
                  ylabel="change of the logits, relative to their size", xticks=DEPTHS)
    for (depth, name), losses in runs.items():
        smooth = np.array([np.convolve(loss, np.ones(8) / 8, mode="valid") for loss in losses])
        style = {"color": COLOURS[name == "with"], "ls": "-" if depth == DEPTH else ":"}
        panels[2].plot(np.arange(8, STEPS + 1), smooth.T, alpha=0.4, lw=1, **style)
        panels[2].plot(np.arange(8, STEPS + 1), smooth.mean(axis=0), lw=2, **style,
                       label=f"{depth} blocks, {name}")
    panels[2].set(title="training", xlabel="step", ylabel="loss (mean of 8 steps)", ylim=(0, None))
    for axes in panels:
        axes.legend(frameon=False, fontsize=9)
        axes.grid(alpha=0.3)
    lesson.save(figure, "layerscale")

# %% [markdown]
# ## Class attention
#
# In a ViT the class token travels through all blocks with the patches. It asks two things
# of the same weights: help patches find each other, and sum up what the classifier
# needs. CaiT separates these. First the patches attend to each other, with no class token
# about. Then they stay as they are, and in two last blocks a class token $c$ asks them
# (LayerNorm and biases left out):
#
# $$ q = W_q c, \quad k = W_k [c; x], \quad v = W_v [c; x], \qquad
#    c' = c + \gamma_1 W_o \, \mathrm{softmax}(q k^T / \sqrt d) \, v. $$
#
# One token asks, so there is one row of scores for each head, and not $N + 1$. An MLP for
# the class token alone follows.


# %%
def split(x, heads):
    """(B, N, D) -> (B, H, N, d)."""
    b, n, width = x.shape
    return x.reshape(b, n, heads, width // heads).transpose(0, 2, 1, 3)


def class_attention(w, u, heads):
    """u (B, 1 + N, D), the class token first -> its answer (B, 1, D)."""
    q, k, v = (split(x, heads) for x in (w.q(u[:, :1]), w.k(u), w.v(u)))
    row = ops.softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5)  # B, H, 1, 1 + N
    b, h, one, d = q.shape
    return w.proj((row @ v).transpose(0, 2, 1, 3).reshape(b, one, h * d))


def class_block(w, c, x, heads):
    """Class token c (B, 1, D) and patches x (B, N, D) -> the new c; x is only read."""
    u = w.norm1(ops.concat([c, x], axis=1))
    c = c + w.gamma_1 * class_attention(w.attn, u, heads)
    return c + w.gamma_2 * w.mlp(w.norm2(c))


def cait(model, images, heads):
    """The whole network: images (B, 3, H, W) -> logits (B, K)."""
    x = model.patch_embed(images) + model.pos_embed
    for block in model.blocks:
        x = block(x)
    c = model.cls_token + np.zeros((len(images), 1, 1))  # enters only here; x is final
    for block in model.blocks_token_only:
        c = class_block(block, c, x, heads)
    return model.head(model.norm(c)[:, 0])


HEADS, WIDTH = 4, 32
SMALL = {"img_size": 32, "patch_size": 4, "embed_dim": WIDTH, "num_heads": HEADS, "depth": 2,
         "num_classes": 10, "init_values": 0.5}
model = minivit.create_model("cait_xxs24_224", **SMALL).astype(np.float64)
x = minivit.Tensor(rng.standard_normal((2, 3, 32, 32)), requires_grad=True)
count = compare(cait(model, x, HEADS), model(x), [x, *model.parameters()])
print(f"our CaiT = minivit's: logits, and {count} gradients")

# %% [markdown]
# So class attention is nothing but the *first row* of self-attention with the same
# weights. The other $N$ rows would be new patch tokens, and are not computed.

# %%
attention = model.blocks_token_only[0].attn
u = minivit.Tensor(rng.standard_normal((2, 65, WIDTH)))
q, k, v = (split(layer(u), HEADS) for layer in (attention.q, attention.k, attention.v))
all_rows = ops.softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5) @ v
all_rows = attention.proj(all_rows.transpose(0, 2, 1, 3).reshape(2, 65, WIDTH)).data
first_row = attention(u[:, :1], u).data
np.testing.assert_allclose(first_row, all_rows[:, :1], atol=1e-12)
assert np.abs(all_rows[:, 1:]).max() > 0  # these would change the patches

# %% [markdown]
# That the class token changes no patch we see from gradients too. In CaiT the patch
# tokens do not depend on the class token, in a ViT of two blocks they do:

# %%
_, patches = model.forward_features(x)
model.zero_grad()
patches.backward(rng.standard_normal(patches.shape))
assert model.cls_token.grad is None

in_vit = vit(depth=2).astype(np.float64)
tokens = in_vit.forward_features(x)[:, 1:]
tokens.backward(rng.standard_normal(tokens.shape))
print(f"gradient of the patch tokens by the class token: CaiT none, ViT "
      f"{np.linalg.norm(in_vit.cls_token.grad):.2f}")
assert np.linalg.norm(in_vit.cls_token.grad) > 0

# %% [markdown]
# ## What it costs
#
# With $N$ patches of width $D$, self-attention takes $4 N D^2$ multiply-adds for queries,
# keys, values and output, $2 N^2 D$ for the two products, and in CaiT $2 H^2 N^2$ more
# because its heads *talk*: they are mixed before and after the softmax. Class attention
# takes $2 D^2$ for one query and one output, $2 (N + 1) D^2$ for keys and values and
# $2 (N + 1) D$ for the products: linear in $N$. minivit counts while the network runs
# (`minivit.analysis.cost`), and finds just these numbers.


# %%
def by_formula(n, d=WIDTH, h=HEADS):
    """Multiply-adds of self-attention and of class attention."""
    return 4 * n * d**2 + 2 * n**2 * d + 2 * h**2 * n**2, 2 * d**2 + 2 * (n + 1) * (d**2 + d)


def layer(network, *names):
    """The part of a measured network at that path of names."""
    for name in names:
        network = next(part for part in network.layers if part.name == name)
    return network.total().macs


counted = {}
for side in (16, 32, 64, 128):
    network = measure(minivit.create_model("cait_xxs24_224", **{**SMALL, "img_size": side}))
    n = (side // SMALL["patch_size"]) ** 2
    counted[n] = (layer(network, "blocks.0", "attn"), layer(network, "blocks_token_only.0", "attn"))
    assert counted[n] == by_formula(n)
    print(f"{n:5} patches: self-attention {counted[n][0]:12,} multiply-adds, "
          f"class attention {counted[n][1]:10,}, {counted[n][0] / counted[n][1]:5.1f} times less")

# four times the patches: a linear cost grows four times at most, a square tends to sixteen
(_, small_class), (small_self, _) = counted[256], counted[256]
large_self, large_class = counted[1024]
assert large_class < 4 * small_class and large_self > 10 * small_self

# %%
figure, axes = lesson.figure(figsize=(6.5, 4.4))
if figure:
    n = np.geomspace(16, 4096, 100)
    for place, (name, colour) in enumerate(zip(("self-attention", "class attention"), COLOURS)):
        axes.loglog(n, by_formula(n)[place], color=colour, lw=1, label=f"{name}, formula")
        axes.loglog(list(counted), [values[place] for values in counted.values()], "o",
                    color=colour, label=f"{name}, counted")
    axes.set(title=f"one attention layer, width {WIDTH}, {HEADS} heads", xlabel="patches N",
             ylabel="multiply-adds", xticks=list(counted), xticklabels=list(counted))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    lesson.save(figure, "cost")

# %% [markdown]
# In the library: `minivit/nn/block.py` (`Block`, `ClassBlock`), `nn/attention.py`
# (`ClassAttention`, `mix_heads`), `models/cait.py`. LayerScale is the keyword
# `init_values` of the ViTs too.
#
# Exercises: `lessons/exercises/10.py`, checked by `python -m lessons check 10`.

# %%
lesson.passed(
    "LayerScale lets 36 blocks learn fast; class attention is linear in the patches",
    loss_without=f"{last[DEPTH, 'without LayerScale'].mean():.2f}",
    with_layerscale=f"{last[DEPTH, 'with'].mean():.2f}",
    one_step_changes=f"{plain_changes[-1]:.0%} or {scaled_changes[-1]:.1%} of the logits",
    cheaper_at_1024_patches=f"{large_self / large_class:.0f} times",
)
