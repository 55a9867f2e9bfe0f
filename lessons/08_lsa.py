"""Locality self-attention: no token attends to itself, and each head learns how sharply to look.

Read before: lessons 05-07.
Takes: 5 min on two cores (--quick 10 s).
Paper: Lee, Lee & Song 2021, "Vision transformer for small-size datasets" (arXiv 2112.13492).
"""

# %%
import numpy as np
from lesson import Lesson
from small_task import first_classes, top1, train

import minivit
from minivit import nn, ops
from minivit.analysis.attention_maps import record_attention
from minivit.data.augment import normalize
from minivit.nn.init import xavier_normal

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## Two changes to one line
#
# In lesson 05 a token weighed what it takes from the others by
# $\mathrm{softmax}(q k^T / \sqrt d)$. If the scores of a row are much alike, so are the
# weights, and the token takes home a mean over the whole image. *Locality Self-Attention*
# (LSA) makes the rows sharper, by two changes that can be had one by one.
#
# *Learnable temperature*: in place of the fixed $\sqrt d$, each head has a temperature
# $\tau$ of its own, which is learned, and starts at $\sqrt d$. (The paper writes one
# $\tau$; its code has one for each head of each layer.) What is stored is the multiplier
# $1 / \tau$. *Diagonal masking*: the score of a token with itself becomes $-\infty$, so its
# weight is 0. What a token is goes past the attention anyway, by the residual connection;
# its weights are better spent on the others.
#
# $$ R_{ij} = \begin{cases} q_i \cdot k_j & i \neq j \\ -\infty & i = j \end{cases},
#    \qquad \mathrm{LSA}(q, k, v) = \mathrm{softmax}(R / \tau) \, v. $$


# %%
def softmax(scores):
    e = (scores - scores.max(-1, keepdims=True)).exp()  # the exponential of -inf is exactly 0
    return e / e.sum(-1, keepdims=True)


def lsa_weights(q, k, multiplier):
    """q, k (B, H, N, d), multiplier (H,) -> weights (B, H, N, N)."""
    scores = (q @ k.swapaxes(-1, -2)) * multiplier.reshape(-1, 1, 1)
    return softmax(ops.where(np.eye(q.shape[2], dtype=bool), -np.inf, scores))


def lsa(x, heads, qkv_weight, multiplier, proj_weight, proj_bias):
    """Tokens (B, N, D) -> (B, N, D)."""
    b, n, width = x.shape
    q, k, v = (x @ qkv_weight.T).reshape(b, n, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    out = (lsa_weights(q, k, multiplier) @ v).transpose(0, 2, 1, 3).reshape(b, n, width)
    return out @ proj_weight.T + proj_bias


# %% [markdown]
# minivit's `Attention` has both changes as options, and gives the same values and
# gradients, those of the multipliers among them.

# %%
BATCH, HEADS, TOKENS, WIDTH = 2, 3, 10, 24
module = nn.Attention(
    WIDTH, HEADS, qkv_bias=False, learnable_temperature=True, diagonal=-np.inf,
    init=xavier_normal(rng), rng=None,
).astype(np.float64)  # fmt: skip
multiplier = (WIDTH / HEADS) ** -0.5 * np.array([0.5, 1.0, 2.0])  # as if they had learned already
module.scale.data[:] = multiplier

names = ("qkv.weight", "scale", "proj.weight", "proj.bias")
theirs = dict(module.named_parameters())
ours = {name: minivit.Tensor(theirs[name].data, requires_grad=True) for name in names}
tokens = rng.standard_normal((BATCH, TOKENS, WIDTH))
x, their_x = (minivit.Tensor(tokens, requires_grad=True) for _ in range(2))
out, their_out = lsa(x, HEADS, *ours.values()), module(their_x)
cotangent = rng.standard_normal(out.shape)
out.backward(cotangent)
their_out.backward(cotangent)
np.testing.assert_allclose(out.data, their_out.data, atol=1e-12)
np.testing.assert_allclose(x.grad, their_x.grad, atol=1e-12)
for name in names:
    np.testing.assert_allclose(ours[name].grad, theirs[name].grad, atol=1e-11)
largest = max(np.abs(ours[name].grad - theirs[name].grad).max() for name in names)
print(f"our LSA = minivit's: gradients differ by at most {largest:.0e}; those of the three "
      f"multipliers: {np.array2string(ours['scale'].grad, precision=3)}")
assert np.all(ours["scale"].grad != 0)
weights = list(ours.values())
minivit.gradcheck(lambda m: lsa(x, HEADS, weights[0], m, *weights[2:]), [multiplier])  # lesson 02

# %% [markdown]
# ## What the mask does, exactly
#
# The diagonal is 0, not merely small, and rows add up to 1 as before. So whatever token
# $i$ brings home, its own value has no part in it. And the other weights keep their
# proportions: if the weights without mask are $A$, those with mask are
#
# $$ \frac{A_{ij}}{1 - A_{ii}}, \qquad j \neq i. $$

# %%
q, k, v = (minivit.Tensor(rng.standard_normal((1, HEADS, TOKENS, 8)), requires_grad=True)
           for _ in range(3))
scale = minivit.Tensor(multiplier)
plain = softmax((q @ k.swapaxes(-1, -2)) * scale.reshape(-1, 1, 1)).data
masked = lsa_weights(q, k, scale)

diagonal = np.eye(TOKENS, dtype=bool)
assert np.all(masked.data[..., diagonal] == 0)
assert np.abs(masked.data.sum(-1) - 1).max() < 1e-15 * TOKENS
own = plain[..., diagonal][..., None]
np.testing.assert_allclose(masked.data, np.where(diagonal, 0, plain / (1 - own)), atol=1e-14)

row = np.zeros((1, HEADS, TOKENS, 8))
row[:, :, 4] = rng.standard_normal((HEADS, 8))  # a cotangent for token 4 alone
(masked @ v).backward(row)
assert np.all(v.grad[:, :, 4] == 0) and np.all(v.grad[:, :, :4] != 0)

# %% [markdown]
# ## What the temperature does
#
# How sharply a row looks is told by its *entropy*, $\mathcal{H} = -\sum_j A_j \log A_j$.
# It is $\log N$ when all $N$ weights are equal, and 0 when one token gets all;
# $e^{\mathcal{H}}$ is the number of tokens that a row looks at, so to speak. For scores
# $R$ and weights $\mathrm{softmax}(m R)$ a growing multiplier $m = 1 / \tau > 0$ can only
# lower it:
#
# $$ \frac{d\mathcal{H}}{dm} = -m \, \mathrm{Var}_A(R) \le 0, $$
#
# with the variance taken under the weights themselves. We check this against the tape,
# where $\mathcal{H} = \log \sum_j e^{m R_j} - m \sum_j A_j R_j$.


# %%
def entropy(weights):
    """-sum A log A of each row, (..., M) -> (...); 0 log 0 is 0."""
    logarithms = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return -(weights * logarithms).sum(axis=-1)


scores = 3 * rng.standard_normal(TOKENS)
multipliers = np.linspace(0, 2, 81)
plain_entropy, masked_entropy = [], []
for m in multipliers:
    t = minivit.Tensor(np.float64(m), requires_grad=True)
    weights = softmax(t * scores)
    h = (t * scores).logsumexp() - (weights * (t * scores)).sum()
    h.backward()
    mean = (weights.data * scores).sum()
    variance = (weights.data * (scores - mean) ** 2).sum()
    np.testing.assert_allclose(h.item(), entropy(weights.data), atol=1e-12)
    np.testing.assert_allclose(t.grad, -m * variance, atol=1e-12)
    plain_entropy.append(h.item())
    others = minivit.Tensor(m * scores[1:])  # without the token's own
    masked_entropy.append(entropy(softmax(others).data))
assert np.all(np.diff(plain_entropy) < 0) and np.all(np.diff(masked_entropy) < 0)
np.testing.assert_allclose([plain_entropy[0], masked_entropy[0]], np.log([TOKENS, TOKENS - 1]))

# %% [markdown]
# ## In a network
#
# Do the heads make use of it? We train the small ViT of lesson 06 (in the short form with
# a block more) with and without LSA, and record all attention weights on test images,
# before and after.

# %%
CLASSES = lesson.choose(quick=4, full=10)
SEEDS = range(3)
STEPS = lesson.choose(quick=200, full=500)
PEAK = lesson.choose(quick=6e-3, full=2e-3)  # of the learning rate
NETWORK = {
    "patch_size": 4,
    "num_classes": CLASSES,
    **lesson.choose(
        quick={"img_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2},
        full={"img_size": 32, "embed_dim": 64, "depth": 4, "num_heads": 4},
    ),
}
START = (NETWORK["embed_dim"] // NETWORK["num_heads"]) ** -0.5
data = lesson.data(*lesson.choose(quick=(5000, 1500), full=(50_000, 10_000)))


def attention_weights(model):
    """The weights of all layers on some test images: (layers, B, H, N, N)."""
    modules = [block.attn for block in model.blocks]
    with record_attention(modules) as weights, minivit.no_grad():
        model(minivit.Tensor(some_images))
    return np.array([weights[module] for module in modules])


def layer_entropies(weights):
    """Mean over images, heads and rows: one number for each layer."""
    return entropy(weights).mean((1, 2, 3))


train_split, test_split = (first_classes(split, CLASSES, half_size=lesson.quick)
                           for split in (data.train, data.test))
some_images = normalize(test_split.images[:64], data.mean, data.std)
NAMES = {"vit": "ViT", "l_vit": "ViT with LSA"}
before, after, accuracy = ({name: [] for name in NAMES} for _ in range(3))
looks, learned = {}, []
for name in NAMES:
    for seed in SEEDS:
        model = minivit.create_model(name, seed=seed, **NETWORK)
        before[name].append(layer_entropies(attention_weights(model)))
        train(model, train_split, data, STEPS, lesson.choose(quick=32, full=64), PEAK, seed)
        weights = attention_weights(model)
        after[name].append(layer_entropies(weights))
        accuracy[name].append(top1(model, test_split, data))
        if name == "l_vit":
            learned.append([block.attn.scale.data / START for block in model.blocks])
    looks[name] = weights.mean(axis=1)  # of the last seed: layers, H, N, N

token_count = looks["vit"].shape[-1]
learned = np.array(learned)  # seeds, layers, H: how many times the start
assert np.all(looks["l_vit"][..., np.eye(token_count, dtype=bool)] == 0)
own_share = looks["vit"][..., np.eye(token_count, dtype=bool)].mean()
print(f"weight of a token on itself: {own_share:.3f} in the ViT (an equal share would be "
      f"{1 / token_count:.3f}), 0 with LSA")
for name, title in NAMES.items():
    print(f"{title:12} entropy {np.mean(before[name]):.2f} before training, "
          f"{np.mean(after[name]):.2f} after; test images "
          f"{np.mean(accuracy[name]):.1f} ± {np.std(accuracy[name], ddof=1):.1f} %")
    assert np.mean(after[name]) < np.mean(before[name])
print(f"multipliers after training: {learned.min():.2f} to {learned.max():.2f} times d^-1/2, "
      f"mean {learned.mean():.2f}; {(learned > 1).mean():.0%} are above it")
assert learned.mean() > 1
assert len(np.unique(learned)) == learned.size  # a temperature of its own for each head
for name, title in NAMES.items():
    four = np.sort(looks[name][-1, 0].mean(axis=0).argsort()[-4:])
    print(f"{title:12} the head in the picture looks most at the tokens {four.tolist()}")

# %% [markdown]
# Both networks learn to look more sharply than they began. With LSA the heads find
# temperatures of their own, most of them below $\sqrt d$ (the multiplier is above its
# start): sharper, as the paper intends, though nothing but the data has asked for it. The
# accuracies tell less. With networks and trainings as small as these, what LSA gains or
# loses is within the spread of the seeds; the paper reports 1.4 points on Tiny-ImageNet
# with both changes, and about 1 with either.
#
# The picture: where the tokens of the trained networks look (the last seed, the first head
# of the last layer, a mean over images). A row is a token that looks; number 0 is the
# class token, then come the patches, row by row. The bright columns of the short form, 6,
# 7, 10 and 11, are the four patches in the middle of the image. Then the entropy of one
# row as its multiplier grows, and what was learned.


# %%
def draw_look(axes, name):
    """The weights of one head of the last layer, a mean over images."""
    image = axes.imshow(looks[name][-1, 0], cmap="magma", vmin=0, vmax=brightest)
    axes.set(title=f"attention, {NAMES[name]}", xlabel="looks at token", ylabel="token")
    return image


def draw_entropy_curves(axes):
    """What the loop over multipliers has found."""
    axes.plot(multipliers, plain_entropy, color=COLOURS["vit"], label="all tokens")
    axes.plot(multipliers, masked_entropy, color=COLOURS["l_vit"], label="diagonal masked")
    for n, name in ((TOKENS, "N"), (TOKENS - 1, "(N - 1)")):
        axes.axhline(np.log(n), color="black", lw=0.8, ls=":")
        axes.text(2, np.log(n), f"log {name}", ha="right", va="bottom" if n == TOKENS else "top")
    axes.set(title="entropy of one row of scores", xlabel="multiplier", ylabel="entropy",
             ylim=(0, 2.6))
    axes.legend(frameon=False, loc="lower left")


def draw_entropies(axes):
    """Entropy by layer, before and after training, the mean of all seeds."""
    layers = np.arange(1, NETWORK["depth"] + 1)
    for name, title in NAMES.items():
        for entropies, style, when in ((before, ":", "before"), (after, "-", "after")):
            axes.plot(layers, np.mean(entropies[name], axis=0), style, color=COLOURS[name],
                      marker="o", label=f"{title}, {when}")
    axes.set(title="entropy, mean of heads and rows", xlabel="layer", ylabel="entropy",
             xticks=layers)
    axes.legend(frameon=False, fontsize=8)


def draw_multipliers(axes):
    """A dot for each head of each seed."""
    for layer in range(NETWORK["depth"]):
        dots = learned[:, layer].ravel()
        axes.plot(layer + 1 + np.linspace(-0.2, 0.2, len(dots)), dots, "o", color=COLOURS["l_vit"])
    axes.axhline(1, color="black", lw=0.8, ls=":")
    axes.set(title="learned multipliers, in $d^{-1/2}$", xlabel="layer",
             xticks=range(1, NETWORK["depth"] + 1))


def draw_accuracy(axes):
    """A bar for the mean of each network, a dot for each seed."""
    for place, (name, title) in enumerate(NAMES.items()):
        axes.barh(place, np.mean(accuracy[name]), 0.55, color=COLOURS[name], alpha=0.35)
        axes.plot(accuracy[name], [place] * len(SEEDS), "o", color=COLOURS[name])
        axes.text(1, place, title, va="center")
    axes.set(title="right on test images", xlabel="%", yticks=[])


COLOURS = {"vit": "#b2182b", "l_vit": "#2166ac"}
figure, panels = lesson.figure(2, 3, figsize=(12, 7))
if figure:
    brightest = max(weights[-1, 0].max() for weights in looks.values())
    draw_look(panels[0, 0], "vit")
    figure.colorbar(draw_look(panels[0, 1], "l_vit"), ax=panels[0, 1], label="weight")
    draw_entropy_curves(panels[0, 2])
    draw_entropies(panels[1, 0])
    draw_multipliers(panels[1, 1])
    draw_accuracy(panels[1, 2])
    lesson.save(figure, "attention")

# %% [markdown]
# Now open `minivit/nn/attention.py`: `HeadAttention` with `learnable_temperature` and
# `diagonal`; and in `minivit/models/vit.py` the six networks `vit`, `t_vit`, `m_vit`,
# `l_vit`, `s_vit` and `sl_vit`, which switch the paper's changes on one by one.
#
# Exercises: `lessons/exercises/08.py`, checked by `python -m lessons check 08`.

# %%
lesson.passed(
    "the masked diagonal is exactly 0, and each head learns a temperature of its own",
    gradients_differ_by=f"{largest:.0e}",
    entropy_before_training=f"{np.mean(before['l_vit']):.2f}",
    entropy_after=f"{np.mean(after['l_vit']):.2f}",
    multipliers=f"{learned.min():.2f} to {learned.max():.2f} of the start",
)
