"""A ViT from scratch equals minivit's; and without position embeddings it sees a bag of patches.

Read before: lessons 01-04.
Takes: 40 s on two cores (--quick 5 s).
Paper: Dosovitskiy et al. 2020, "An image is worth 16x16 words: transformers for image
recognition at scale", section 3.1 and appendix A.
"""

# %%
import numpy as np
from lesson import Lesson

import minivit
from minivit import nn, ops
from minivit.data.augment import normalize
from minivit.nn.init import uniform_fan_in
from minivit.training.optimizers import AdamW

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## An image as a sequence
#
# A transformer takes a sequence of vectors, its *tokens*. A Vision Transformer (ViT) cuts
# the image into a grid of patches, $P \times P$ pixels each, and takes each patch as a
# vector $x_p$ of $C P^2$ numbers. So $N = (\mathrm{height} / P)(\mathrm{width} / P)$
# tokens make an image. Cutting is a `reshape`, which splits rows and columns in two, and
# a `transpose`, which brings the grid to the front.

# %%
PATCH = 8


def cut(images, p):
    """Images (B, C, H, W) -> patches (B, N, C, p, p), row by row."""
    b, c, h, w = images.shape
    grid = images.reshape(b, c, h // p, p, w // p, p).transpose(0, 2, 4, 1, 3, 5)
    return grid.reshape(b, -1, c, p, p)


def join(patches, height, width):
    """Put patches (B, N, C, p, p) together again: (B, C, height, width)."""
    b, n, c, p, _ = patches.shape
    grid = patches.reshape(b, height // p, width // p, c, p, p).transpose(0, 3, 1, 4, 2, 5)
    return grid.reshape(b, c, height, width)


data = lesson.data(train=lesson.choose(quick=1500, full=10_000), test=500)
train_images = normalize(data.train.images, data.mean, data.std)  # float32 (B, 3, 32, 32)
test_images = normalize(data.test.images, data.mean, data.std)

patches = cut(test_images, PATCH)
assert patches.shape == (500, 16, 3, PATCH, PATCH)
assert np.array_equal(patches[0, 6], test_images[0, :, 8:16, 16:24])  # row 1, column 2 of the grid
assert np.array_equal(join(patches, 32, 32), test_images)

# %% [markdown]
# A linear map makes a token of width $D$ from each patch, $x_p E$. Since the same map
# goes over all patches, it is lesson 04's convolution, of kernel $P$ and stride $P$.

# %%
embed = nn.PatchEmbed(3, 48, PATCH, init=uniform_fan_in(rng))
filters, bias = embed.proj.weight, embed.proj.bias
by_hand = patches[:4].reshape(4, 16, -1) @ filters.data.reshape(48, -1).T + bias.data
by_conv = ops.conv2d(test_images[:4], filters, bias, stride=PATCH).data  # 4, 48, 4, 4
np.testing.assert_allclose(by_hand, embed(minivit.Tensor(test_images[:4])).data, atol=1e-5)
np.testing.assert_allclose(by_hand, by_conv.reshape(4, 48, 16).swapaxes(1, 2), atol=1e-5)

# %% [markdown]
# ## Attention
#
# Now tokens look at each other. Each one makes a *query* $q$, a *key* $k$ and a *value*
# $v$, by one linear map. Token $i$ compares its query with the keys of all tokens.
# Softmax turns these scores into weights that add up to 1, and what the token takes home
# is the mean of the values with these weights:
#
# $$ \mathrm{attention}(Q, K, V) =
#    \mathrm{softmax}\!\left(\frac{Q K^T}{\sqrt d}\right) V. $$
#
# *Heads* do this side by side, each with its own $q$, $k$, $v$ of width $d = D / H$; a
# linear map then mixes what they bring.
#
# The functions below are all of a ViT. They use nothing but sums, products and the like
# of tensors, so lesson 01's tape finds their gradients. `w` holds the weights by name.


# %%
def layer_norm(x, w):
    """Each token gets mean 0 and variance 1, then a learned scale and shift."""
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / (variance + 1e-5).sqrt() * w["weight"] + w["bias"]


def linear(x, w):
    return x @ w["weight"].T + w["bias"]


def softmax(scores):
    e = (scores - scores.max(-1, keepdims=True)).exp()
    return e / e.sum(-1, keepdims=True)


def gelu(x):
    """x times the probability that a standard normal number is below x."""
    return x * (1 + (x / 2**0.5).erf()) / 2


def attention(x, w, heads):
    """Tokens (B, N, D) -> (B, N, D)."""
    b, n, width = x.shape
    d = width // heads
    qkv = x @ w["qkv.weight"].T  # B, N, 3 D; no bias, as in the paper
    q, k, v = qkv.reshape(b, n, 3, heads, d).transpose(2, 0, 3, 1, 4)  # each B, H, N, d
    weights = softmax(q @ k.swapaxes(-1, -2) / d**0.5)  # B, H, N, N; each row adds up to 1
    out = (weights @ v).transpose(0, 2, 1, 3).reshape(b, n, width)  # the heads side by side
    return linear(out, part(w, "proj"))


def part(w, name):
    """The weights of one part: all whose name begins with ``name.``, without that."""
    return {key[len(name) + 1 :]: value for key, value in w.items() if key.startswith(name + ".")}


# %% [markdown]
# A *block* lets tokens look around (attention), then think by themselves (an MLP, lesson
# 03). Both only *add* to the tokens, and both see them normalised:
#
# $$ z' = z + \mathrm{MSA}(\mathrm{LN}(z)), \qquad
#    z'' = z' + \mathrm{MLP}(\mathrm{LN}(z')). $$
#
# Before the first block one more token joins, the *class token*, which is learned and
# belongs to no patch: it is there to collect. And each place gets its *position
# embedding*, a learned vector that is added to whatever stands there:
#
# $$ z_0 = [x_{\mathrm{class}};\; x_1 E;\; \dots;\; x_N E] + E_{pos}. $$
#
# After the last block a linear map reads the class out of the class token.


# %%
def block(z, w, heads):
    z = z + attention(layer_norm(z, part(w, "norm1")), part(w, "attn"), heads)
    hidden = gelu(linear(layer_norm(z, part(w, "norm2")), part(w, "mlp.fc1")))
    return z + linear(hidden, part(w, "mlp.fc2"))


def vit(images, w, p, depth, heads):
    """Images (B, C, H, W) -> logits (B, classes)."""
    x = cut(images, p)
    x = x.reshape(*x.shape[:2], -1)  # B, N, C p p
    filters = w["patch_embed.proj.weight"]
    x = x @ filters.reshape(len(filters), -1).T + w["patch_embed.proj.bias"]
    class_token = w["cls_token"] + np.zeros((len(x), 1, 1))  # one for each image
    z = ops.concat([class_token, x], axis=1) + w["pos_embed"]
    for i in range(depth):
        z = block(z, part(w, f"blocks.{i}"), heads)
    return linear(layer_norm(z[:, 0], part(w, "norm")), part(w, "head"))


# %% [markdown]
# That is the whole network. Given the same weights, it computes what minivit's `vit`
# computes: the logits, and the gradients of the loss by every weight and every pixel. We
# compare in float64, where rounding leaves 15 digits.

# %%
SIZES = {"patch_size": PATCH, "embed_dim": 48, "depth": 3, "num_heads": 4}
model = minivit.create_model("vit", num_classes=10, seed=0, **SIZES).astype(np.float64)
labels = np.arange(8)

theirs_x = minivit.Tensor(test_images[:8].astype(np.float64), requires_grad=True)
theirs = model(theirs_x)
minivit.cross_entropy(theirs, labels).backward()

weights = {n: minivit.Tensor(a, requires_grad=True) for n, a in model.state_dict().items()}
x = minivit.Tensor(theirs_x.data, requires_grad=True)
ours = vit(x, weights, PATCH, SIZES["depth"], SIZES["num_heads"])
minivit.cross_entropy(ours, labels).backward()

np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-10, atol=1e-10)
np.testing.assert_allclose(x.grad, theirs_x.grad, rtol=1e-8, atol=1e-12)
largest = 0.0
for name, parameter in model.named_parameters():
    np.testing.assert_allclose(weights[name].grad, parameter.grad, rtol=1e-8, atol=1e-12)
    largest = max(largest, np.abs(weights[name].grad - parameter.grad).max())
print(f"our ViT = minivit's: logits differ by at most {np.abs(ours.data - theirs.data).max():.0e}, "
      f"gradients of {len(weights)} weights by {largest:.0e}")

# %% [markdown]
# ## A bag of patches
#
# Nothing in attention knows where a token stands. Permute the tokens, and the scores, the
# weights and the means are permuted with them: patches come out as they would have, in
# the new order, and the class token, which takes a mean over all, notices nothing. All
# knowledge of places comes from $E_{pos}$. So set that to zero, scramble the patches of
# an image, and look:

# %%
order = rng.permutation(16)


def scramble(images):
    """The same patches in another order: patch order[i] moves to place i."""
    return join(cut(images, PATCH)[:, order], *images.shape[2:])


def relative_difference(a, b):
    return np.abs(a - b).max() / np.abs(a).max()


blind_model = minivit.create_model("vit", num_classes=10, **SIZES).astype(np.float64)
blind_model.load_state_dict({**model.state_dict(), "pos_embed": np.zeros(model.pos_embed.shape)})

images = test_images[:8].astype(np.float64)
forms = [minivit.Tensor(images), minivit.Tensor(scramble(images))]
with minivit.no_grad():
    with_positions = [model(form).data for form in forms]
    without = [blind_model(form).data for form in forms]
    tokens, scrambled_tokens = (blind_model.forward_features(form).data for form in forms)

sees, blind = relative_difference(*with_positions), relative_difference(*without)
print(f"scrambling changes the logits by {sees:.0%} of the largest with positions, "
      f"by {blind:.0e} without")
assert blind < 1e-12 < 0.01 < sees
# the patches' tokens come out in the new order, and are the same in all other respects
np.testing.assert_allclose(scrambled_tokens[:, 1:], tokens[:, 1:][:, order], atol=1e-12)

# %% [markdown]
# ## A question that it cannot answer
#
# Here is what that means. "Is this image whole, or has it been scrambled?" We show a
# small ViT both forms of the same images, in equal numbers. One that is blind to places
# gives both forms the same answer. So it is right exactly half of the time, however long
# it learns, and its loss cannot fall below $\ln 2 = 0.693$. With position embeddings it
# is an easy question.


# %%
def learn_to_tell(positions, seed):
    """Train on "whole (0) or scrambled (1)?"; returns losses, and test logits for both forms.

    Args:
        positions: whether there are position embeddings; else they are 0 and stay so.
    """
    model = minivit.create_model(
        "vit", num_classes=2, patch_size=PATCH, embed_dim=32, depth=2, num_heads=2, seed=seed
    )
    parameters = dict(model.named_parameters())
    if not positions:
        parameters.pop("pos_embed").data[:] = 0
    optimizer = AdamW(parameters.items(), lr=2e-3)
    draw = np.random.default_rng(seed)
    losses, labels = [], np.repeat([0, 1], 32)
    for _ in range(STEPS):
        whole = train_images[draw.integers(len(train_images), size=32)]
        batch = np.concatenate([whole, scramble(whole)])
        loss = minivit.cross_entropy(model(minivit.Tensor(batch)), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    with minivit.no_grad():
        forms = (test_images, scramble(test_images))
        return losses, [model(minivit.Tensor(form)).data for form in forms]


STEPS = lesson.choose(quick=100, full=500)
SEEDS = range(lesson.choose(quick=2, full=5))
results = {name: [learn_to_tell(name == "with", seed) for seed in SEEDS]
           for name in ("with", "without")}
accuracy = {name: [50 * ((whole.argmax(1) == 0).mean() + (scrambled.argmax(1) == 1).mean())
                   for _, (whole, scrambled) in runs]
            for name, runs in results.items()}
for name, percents in accuracy.items():
    print(f"{name} positions, right on the test images (one number a seed): "
          + ", ".join(f"{percent:.1f}%" for percent in percents))

for losses, (whole, scrambled) in results["without"]:
    np.testing.assert_allclose(whole, scrambled, atol=1e-4)  # one answer to both forms
    assert min(losses) > np.log(2) - 1e-4
np.testing.assert_allclose(accuracy["without"], 50, atol=1)  # ties may fall to either side
assert min(accuracy["with"]) > 80

# %% [markdown]
# The picture shows an image in both forms; the logits that the untrained network of above
# gives to them, with positions and without; and how the small networks fared.


# %%
BLUE, RED = "#2166ac", "#b2182b"


def draw_image(axes, image, title):
    """An image (3, H, W), with the lines along which it is cut."""
    axes.imshow(image.transpose(1, 2, 0))
    for line in range(PATCH, 32, PATCH):
        axes.axhline(line - 0.5, color="white", lw=1.5)
        axes.axvline(line - 0.5, color="white", lw=1.5)
    axes.set(title=title, xticks=[], yticks=[])


def draw_logits(axes, answers, title):
    """The logits of the first image's two forms, side by side."""
    classes = np.arange(10)
    axes.bar(classes - 0.2, answers[0][0], 0.4, color=BLUE, label="whole")
    axes.bar(classes + 0.2, answers[1][0], 0.4, color="#f4a582", label="scrambled")
    axes.axhline(0, color="black", lw=0.8)
    axes.set(title=title, xlabel="class", ylabel="logit", xticks=classes)


def draw_learning(losses_axes, accuracy_axes):
    """Losses of all networks over the steps, and a dot for the accuracy of each."""
    for place, (name, colour) in enumerate((("without", RED), ("with", BLUE))):
        for number, (losses, _) in enumerate(results[name]):
            label = f"{name} positions" if number == 0 else None
            losses_axes.plot(losses, color=colour, alpha=0.7, label=label)
        accuracy_axes.barh(place, np.mean(accuracy[name]), 0.5, color=colour, alpha=0.35)
        accuracy_axes.plot(accuracy[name], [place] * len(SEEDS), "o", color=colour)
    losses_axes.axhline(np.log(2), color="black", ls=":", lw=1)
    losses_axes.text(STEPS, np.log(2) + 0.02, "ln 2", ha="right", va="bottom")
    losses_axes.set(title='"Whole or scrambled?"', xlabel="step", ylabel="loss", ylim=(0, 1))
    losses_axes.legend(frameon=False, loc="center right")
    accuracy_axes.set(title="right on test images, a dot for each seed", xlabel="%", xlim=(0, 100),
                      ylim=(-0.6, 1.6), yticks=[0, 1], yticklabels=["without", "with"])


figure, panels = lesson.figure(2, 3, figsize=(12, 6.4))
if figure:
    picture = data.test.images[:1]
    draw_image(panels[0, 0], picture[0], "whole")
    draw_image(panels[1, 0], scramble(picture)[0], "scrambled")
    draw_logits(panels[0, 1], with_positions, "logits, with positions")
    draw_logits(panels[1, 1], without, "logits, without positions")
    panels[0, 1].legend(frameon=False)
    draw_learning(panels[0, 2], panels[1, 2])
    lesson.save(figure, "positions")

# %% [markdown]
# Now open `minivit/models/vit.py`: `forward_features` and `head` are our `vit`, and
# `nn/patches.py`, `nn/attention.py` and `nn/block.py` are our functions as modules; only
# that minivit's attention is one op with a kernel of its own. Lesson 06 asks what this
# network lacks when images are few.
#
# Exercises: `lessons/exercises/05.py`, checked by `python -m lessons check 05`.

# %%
lesson.passed(
    "our ViT equals minivit's, and without positions it cannot tell permuted patches",
    gradients_differ_by=f"{largest:.0e}",
    scrambling_changes_logits_by=f"{sees:.0%} with positions and {blind:.0e} without",
    tells_scrambled_images=f"{np.mean(accuracy['with']):.1f}% with positions and "
    f"{np.mean(accuracy['without']):.1f}% without",
)
