"""AugReg: augmentation and regularisation raise the training loss and narrow its gap to the test's.

Read before: lessons 05 and 06.
Takes: 4 min on two cores (--quick 13 s).
Papers: Steiner et al. 2021, "How to train your ViT? Data, augmentation, and regularization in
vision transformers" (arXiv 2106.10270), sections 3.3 and 4; Zhang et al. 2017, "mixup" (arXiv
1710.09412); Cubuk et al. 2019, "RandAugment" (arXiv 1909.13719); Huang et al. 2016, "Deep
networks with stochastic depth" (arXiv 1603.09382).
"""

# %%
from itertools import product

import numpy as np
from lesson import Lesson

import minivit
from minivit import nn, ops
from minivit.data import image_ops
from minivit.data.augment import normalize
from minivit.data.mixing import mix, mixed_targets
from minivit.data.rand_augment import apply_operations, tf_rand_augment, timm_operations
from minivit.training.optimizers import AdamW

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# Lesson 06 said what a ViT lacks when images are few. One can make more of the images
# that there are (*augmentation*), or make it harder to learn them by heart
# (*regularisation*). "How to train your ViT?" compares both: Mixup and RandAugment in
# seven strengths, with and without dropout and stochastic depth. We take them one by one,
# then see what they do.
#
# ## Mixup
#
# Mix each image with another one, and their labels alike. With $\lambda$ drawn from
# $\mathrm{Beta}(\alpha, \alpha)$ and $y$ as rows of zeros with a single one,
#
# $$ \tilde x = \lambda x_i + (1 - \lambda) x_j, \qquad
#    \tilde y = \lambda y_i + (1 - \lambda) y_j. $$
#
# AugReg takes the image before in the batch for $j$, and the larger of $\lambda$ and
# $1 - \lambda$, so that image $i$ always prevails.


# %%
def mixup(images, labels, classes, lam):
    """Images (B, 3, H, W) and labels (B,) -> mixed images, and targets (B, classes)."""
    targets = np.eye(classes)[labels]
    before = np.arange(len(images)) - 1  # image 0 gets the last one
    mixed = lam * images + (1 - lam) * images[before]
    return mixed, lam * targets + (1 - lam) * targets[before]


data = lesson.data(train=lesson.choose(400, 2000), test=lesson.choose(500, 2000))
K = data.num_classes
train_images = normalize(data.train.images, data.mean, data.std)
test_images = normalize(data.test.images, data.mean, data.std)
labels = data.train.labels
batch, batch_labels = train_images[:64], labels[:64]

# %% [markdown]
# It is minivit's. `mix` draws $\lambda$ itself, so we read it from the targets of an
# image whose label is not that of the one before.

# %%
theirs, their_targets = mix(batch, batch_labels, K, rng, mixup=0.5, cutmix=0, partner="rolled",
                            keep_larger=True)
i = np.flatnonzero(batch_labels != np.roll(batch_labels, 1))[0]
lam = their_targets[i].max().astype(float)
assert lam >= 0.5
ours, our_targets = mixup(batch, batch_labels, K, lam)
np.testing.assert_allclose(ours, theirs, atol=1e-6)
np.testing.assert_allclose(our_targets, their_targets, atol=1e-6)

# %% [markdown]
# A target is still a distribution: its mass is 1, and not nearly but exactly, for any
# $\lambda$ (in float32 to the last digit). And since cross-entropy is linear in the
# target, the loss of a mixed target is the mixture of two losses, and its gradient the
# mixture of two gradients.

# %%
for lam in rng.beta(0.5, 0.5, 1000):
    _, targets = mixup(batch[:, :, :1, :1], batch_labels, K, lam)
    assert (targets.sum(axis=1) == 1).all()
mass = mixed_targets(batch_labels, np.roll(batch_labels, 1), rng.random(64), K).sum(axis=1)
assert np.abs(mass - 1).max() <= np.finfo(np.float32).eps

z, lam = rng.standard_normal((64, K)), 0.7
_, targets = mixup(batch, batch_labels, K, lam)
parts = []
for target in (targets, batch_labels, np.roll(batch_labels, 1)):
    logits = minivit.Tensor(z, requires_grad=True)
    loss = minivit.cross_entropy(logits, target)
    loss.backward()
    parts.append((loss.item(), logits.grad))
(mixed, mixed_grad), (first, first_grad), (second, second_grad) = parts
np.testing.assert_allclose(mixed, lam * first + (1 - lam) * second)
np.testing.assert_allclose(mixed_grad, lam * first_grad + (1 - lam) * second_grad, atol=1e-15)
print(f"loss of a mixed target {mixed:.4f} = 0.7 x {first:.4f} + 0.3 x {second:.4f}")

for alpha in (0.2, 0.5, 0.8):
    lam = rng.beta(alpha, alpha, 100_000)
    print(f"alpha {alpha}: {np.mean(np.maximum(lam, 1 - lam) > 0.9):.0%} of all batches keep more "
          "than nine tenths of each image")

# %% [markdown]
# ## RandAugment
#
# Other papers *search* for good distortions. RandAugment has a list of them, draws $l$
# for each image, and applies them at one magnitude $m$. The distortions are small
# functions of 8-bit images:


# %%
def posterize(image, bits):
    """Keep so many bits of each value."""
    return image >> (8 - bits) << (8 - bits)


def solarize(image, threshold):
    """Invert what is at least as bright as the threshold."""
    return np.where(image < threshold, image, 255 - image)


def brightness(image, factor):
    """Black at 0, unchanged at 1, brighter above."""
    return np.clip(image * np.float32(factor), 0, 255).astype(np.uint8)


def rand_augment(images, operations, magnitude, rng):
    """One layer: each image (3, H, W) of (B, 3, H, W) goes through one operation of the list."""
    chosen = rng.integers(len(operations), size=len(images))
    return np.stack([operations[k](image, magnitude) for k, image in zip(chosen, images)])


OPERATIONS = [
    lambda image, m: posterize(image, int(4 * m / 10)),
    lambda image, m: solarize(image, int(256 * m / 10)),
    lambda image, m: brightness(image, 0.1 + 1.8 * m / 10),
]

# %% [markdown]
# minivit has all of them, for whole batches (`timm_operations` with `increasing=False` is
# the original list). The same draws give the same images:

# %%
pictures = data.train.images[:64]
everything = timm_operations(increasing=False, fill=128, interpolation="nearest")
table = {name: everything[name] for name in ("posterize", "solarize", "brightness")}
for magnitude in (0, 5, 9):
    ours = rand_augment(pictures, OPERATIONS, magnitude, np.random.default_rng(7))
    theirs, level = pictures.copy(), np.full(64, magnitude / 10)
    chosen = np.random.default_rng(7).integers(3, size=64)
    apply_operations(theirs, chosen, level, np.ones(64), table)
    np.testing.assert_array_equal(ours, theirs)

# %% [markdown]
# What is magnitude 0? Not "nothing". AugReg uses the original list, and there posterize
# keeps $\lfloor 4 m / 10 \rfloor$ bits, none at 0, so that the image is black; and
# solarize inverts from $256 m / 10$ on, everything at 0. From 20 on both do nothing. For
# brightness, colour, contrast and sharpness $m = 5$ is no change. At 0 only those leave
# the image as it is that move or add something. AugReg's weakest level but one, "light1",
# is $l = 2$, $m = 0$!


# %%
def at(name, m):
    return everything[name](pictures, np.full(64, m / 10), np.ones(64, int))


assert (at("posterize", 0) == 0).all()
np.testing.assert_array_equal(at("solarize", 0), image_ops.invert(pictures))
for name in ("brightness", "color", "contrast", "sharpness"):
    np.testing.assert_array_equal(at(name, 5), pictures)
for name in ("posterize", "solarize"):
    np.testing.assert_array_equal(at(name, 20), pictures)
nothing_at_0 = {name for name in everything if np.array_equal(at(name, 0), pictures)}
assert nothing_at_0 == {"rotate", "shear_x", "shear_y", "translate_x", "translate_y",
                        "solarize_add"}

LEVELS = {  # section 3.3: layers and magnitude of RandAugment, alpha of Mixup
    "none": (0, 0, 0.0),
    "light1": (2, 0, 0.0),
    "light2": (2, 10, 0.2),
    "medium1": (2, 15, 0.2),
    "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5),
    "strong2": (2, 20, 0.8),
}


def augment(images, labels, level, rng):
    """uint8 images (B, 3, H, W) and labels -> what the network sees, and its targets."""
    layers, magnitude, alpha = LEVELS[level]
    if layers:
        images = tf_rand_augment(images, rng, layers=layers, magnitude=magnitude)
    images = normalize(images, data.mean, data.std)
    if not alpha:
        return images, labels
    return mix(images, labels, K, rng, mixup=alpha, cutmix=0, partner="rolled", keep_larger=True)


# %%
def visible(images):
    """Normalised images back to 0 ... 1, channels last."""
    mean, std = np.reshape(data.mean, (3, 1, 1)), np.reshape(data.std, (3, 1, 1))
    return np.clip(images * std + mean, 0, 1).transpose(0, 2, 3, 1)


def strip(images):
    """Images (B, H, W, 3) side by side, with white lines between."""
    return np.concatenate(list(np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)],
                                      constant_values=1)), axis=1)


def draw_levels(axes):
    rows = []
    for level in LEVELS:
        draw = np.random.default_rng(3)
        rows.append(strip(visible(augment(pictures[:16], batch_labels[:16], level, draw)[0])))
    axes.imshow(np.concatenate(rows))
    axes.set(xticks=[], yticks=34 * np.arange(len(LEVELS)) + 17)
    axes.set_yticklabels([f"{name}\n$l$ {layers}, $m$ {m}, $\\alpha$ {alpha}"
                          for name, (layers, m, alpha) in LEVELS.items()])


def draw_magnitudes(axes):
    names = ["posterize", "solarize", "brightness", "color", "contrast", "rotate", "shear_x"]
    magnitudes = np.array([0, 2, 5, 8, 10, 15, 20])
    one = np.repeat(pictures[:1], len(magnitudes), axis=0)
    rows = [everything[name](one, magnitudes / 10, np.ones(len(magnitudes), int)) for name in names]
    axes.imshow(np.concatenate([strip(row.transpose(0, 2, 3, 1) / 255) for row in rows]))
    axes.set(xticks=34 * np.arange(len(magnitudes)) + 17, xticklabels=magnitudes,
             xlabel="magnitude", yticks=34 * np.arange(len(names)) + 17, yticklabels=names)


figure, axes = lesson.figure(figsize=(10, 4.4))
if figure:
    draw_levels(axes)
    axes.set_title("AugReg's seven levels, on sixteen images")
    lesson.save(figure, "levels")
figure, axes = lesson.figure(figsize=(6, 6))
if figure:
    draw_magnitudes(axes)
    axes.set_title("one image, one operation, seven magnitudes")
    lesson.save(figure, "magnitudes")

# %% [markdown]
# ## Dropout and stochastic depth
#
# Both multiply by zeros and ones at random, in training only. Dropout does so with each
# number, stochastic depth ("drop path") with what a whole branch adds to the tokens of
# one image: that image then skips the branch. What is kept is divided by $1 - r$.


# %%
def drop(x, keep, rate):
    """x (B, ...); keep: ones and zeros that broadcast to it."""
    return x * keep / (1 - rate)


x = minivit.Tensor(rng.standard_normal((6, 5, 4)), requires_grad=True)
cotangent = rng.standard_normal(x.shape)
for op, shape in ((ops.dropout, (6, 5, 4)), (ops.drop_path, (6, 1, 1))):
    keep = np.random.default_rng(1).random(shape, np.float32) >= 0.25  # as minivit draws it
    x.zero_grad()
    result = op(x, 0.25, np.random.default_rng(1))
    result.backward(cotangent)
    np.testing.assert_allclose(result.data, drop(x.data, keep, 0.25))
    np.testing.assert_allclose(x.grad, drop(cotangent, keep, 0.25))

# %% [markdown]
# Why divide? So that the *expectation* is the identity, and nothing has to change in
# evaluation:
#
# $$ r \cdot 0 + (1 - r) \cdot \frac{x}{1 - r} = x. $$
#
# With four images there are sixteen masks: we try them all, and weigh each result with
# its probability. What comes out is a block without any dropping, to the last digits.

# %%
RATE = 0.25
tokens, branch = rng.standard_normal((4, 5, 3)), rng.standard_normal((4, 5, 3))
expectation, total = np.zeros_like(tokens), 0
for mask in product((0, 1), repeat=4):
    keep = np.reshape(mask, (4, 1, 1))
    probability = np.prod(np.where(keep, 1 - RATE, RATE))
    expectation += probability * (tokens + drop(branch, keep, RATE))
    total += probability
assert total == 1
np.testing.assert_allclose(expectation, tokens + branch, atol=1e-15)

# %% [markdown]
# That holds for each block by itself. For a network it does not: what comes after is not
# linear, and the mean of its answers is not the answer to the mean. How far off is it?

# %%
model = minivit.create_model("vit", num_classes=K, patch_size=8, embed_dim=48, depth=4,
                             num_heads=4, drop_path_rate=RATE, seed=0)
repeated = minivit.Tensor(np.repeat(batch[:1], 2000, axis=0))
with minivit.no_grad():
    dropped = model.train()(repeated).data
    whole = model.eval()(repeated[:1]).data[0]
error = np.linalg.norm(dropped.mean(axis=0) - whole) / np.linalg.norm(whole)
noise = np.linalg.norm(dropped.std(axis=0) / 2000**0.5) / np.linalg.norm(whole)
print(f"a network's mean answer over 2000 masks is {error:.1%} off its answer without "
      f"(chance alone: {noise:.1%})")
assert error > 5 * noise

# %% [markdown]
# The rate may rise from block to block: early ones matter to all that follow. A ramp from
# 0 to $2 r$ drops as many branches as a constant $r$, two a block:

# %%
ramp, constant = nn.drop_path_rates(0.2, 12, "linear"), nn.drop_path_rates(0.1, 12, "constant")
np.testing.assert_allclose(sum(ramp), sum(constant))
print(f"12 blocks, a ramp to 0.2: {2 * sum(ramp):.1f} of 24 branches are dropped on average")

# %% [markdown]
# ## What they do
#
# The same small network, the same few images, and three ways to train it: with nothing,
# with regularisation (dropout and drop path 0.1), with light2's augmentation. The full
# form adds two more levels. We measure the loss on the training images as they are,
# without distortion or dropping, and the loss on test images. Their difference, the
# *gap*, is what has been learned by heart.

# %%
EPOCHS = 40
SEEDS = range(lesson.choose(1, 3))
WAYS = {  # (level of augmentation, rate of dropout and drop path)
    "none": ("none", 0.0),
    "dropping": ("none", 0.1),
    "light2": ("light2", 0.0),
}
WAYS |= lesson.choose({}, {"medium2": ("medium2", 0.0), "strong2": ("strong2", 0.0)})


def train(level, rate, seed, batch_size=32):
    model = minivit.create_model("vit", num_classes=K, patch_size=8, embed_dim=48, depth=2,
                                 num_heads=4, drop_rate=rate, drop_path_rate=rate, seed=seed)
    optimizer, rng = AdamW(model.named_parameters()), np.random.default_rng(seed)
    steps = EPOCHS * (len(labels) // batch_size)
    for step in range(steps):
        rows = rng.choice(len(labels), batch_size, replace=False)
        x, targets = augment(data.train.images[rows], labels[rows], level, rng)
        progress = step / steps
        optimizer.lr = 2e-3 * min(1, 10 * progress) * (1 + np.cos(np.pi * progress)) / 2
        optimizer.zero_grad()
        minivit.cross_entropy(model(minivit.Tensor(x)), targets).backward()
        optimizer.step()
    return model.eval()


def measure(model, images, labels):
    """Loss, and percent named correctly."""
    with minivit.no_grad():
        logits = ops.concat([model(minivit.Tensor(x)) for x in np.array_split(images, 8)])
    right = 100 * (logits.argmax(axis=1) == labels).mean()
    return minivit.cross_entropy(logits, labels).item(), right


losses, right = {}, {}
print("          loss on training images  test images   gap   right, % (each seed)")
for name, (level, rate) in WAYS.items():
    models = [train(level, rate, seed) for seed in SEEDS]
    on_train = np.array([measure(m, train_images, labels) for m in models])
    on_test = np.array([measure(m, test_images, data.test.labels) for m in models])
    losses[name] = np.stack([on_train[:, 0], on_test[:, 0]])  # 2, seeds
    right[name] = on_test[:, 1]
    train_loss, test_loss = losses[name].mean(axis=1)
    print(f"{name:10} {train_loss:22.2f} {test_loss:12.2f} {test_loss - train_loss:5.2f}   "
          + ", ".join(f"{share:.1f}" for share in right[name]))

gaps = {name: on_test - on_train for name, (on_train, on_test) in losses.items()}
for name in list(WAYS)[1:]:
    assert (losses[name][0] > losses["none"][0] + 0.2).all()  # harder to learn
    assert (losses[name][1] < losses["none"][1] - 0.4).all()  # and yet a lower test loss
    assert (gaps[name] < 0.75 * gaps["none"]).all()  # for less is learned by heart

# %% [markdown]
# Without help the network knows its training images by heart, and is sure of much that is
# wrong. Dropping and augmentation make training harder, and the test loss falls. What is
# named correctly follows more slowly: in the short form not at all, in the full form
# (2000 images of CIFAR-100) it rises by a third, with dropping and with light2. And there
# can be too much: the stronger levels take it back. The paper, in 300 epochs on ImageNet,
# says how much is good for whom. A ViT-B/32 has 63 % right without augmentation, 73 at
# light2, 76 at strong2; for Ti/16, a fifteenth of its size, that is too much (72, 75,
# 71). Dropping helps the larger networks a little and harms the small ones, so the advice
# is to prefer augmentation to regularisation.

# %%
figure, axes = lesson.figure(figsize=(8, 3.8))
if figure:
    for place, name in enumerate(reversed(WAYS)):
        on_train, on_test = losses[name]
        axes.plot([on_train.mean(), on_test.mean()], [place, place], color="#bbbbbb", lw=5,
                  zorder=0)
        axes.plot(on_train, [place] * len(SEEDS), "o", color="#2166ac", ms=9,
                  label="training images" if place == 0 else None)
        axes.plot(on_test, [place] * len(SEEDS), "D", color="#b2182b", ms=8,
                  label="test images" if place == 0 else None)
        axes.text((on_train.mean() + on_test.mean()) / 2, place + 0.18,
                  f"gap {gaps[name].mean():.2f}", ha="center")
    axes.axvline(np.log(K), color="k", ls=":", lw=1)
    axes.text(np.log(K) - 0.03, len(WAYS) - 0.55, "guessing", va="top", ha="right")
    axes.set(yticks=range(len(WAYS)), yticklabels=list(reversed(WAYS)), xlim=(0, None),
             ylim=(-0.5, len(WAYS) - 0.5), xlabel="loss",
             title=f"{len(labels):,} images of {data.name}, {EPOCHS} epochs")
    axes.legend(frameon=False, loc="lower left")
    axes.grid(axis="x", alpha=0.3)
    lesson.save(figure, "gap")

# %% [markdown]
# In the library: `minivit/data/mixing.py`, `data/rand_augment.py`, `nn/block.py`
# (`drop_path_rates`), and the recipes `augreg_*` of `training/recipes.py`.
#
# Exercises: `lessons/exercises/11.py`, checked by `python -m lessons check 11`.

# %%
lesson.passed(
    "augmentation and regularisation raise the training loss and narrow its gap to the "
    "test's",
    **{name: f"{on_train.mean():.2f} (gap {gaps[name].mean():.2f})"
       for name, (on_train, _) in losses.items()},
)
