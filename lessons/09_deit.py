"""DeiT: a distillation token learns what a teacher says, beside a class token that learns labels.

Read before: lessons 04-06.
Takes: 5 min on two cores (--quick 13 s).
Paper: Touvron et al. 2020, "Training data-efficient image transformers & distillation through
attention" (arXiv 2012.12877), section 4 and tables 3 and 4.
"""

# %%
import numpy as np
from lesson import Lesson

import minivit
from minivit import ops
from minivit.data.augment import normalize
from minivit.training.losses import distillation_loss, hard_distillation, soft_distillation
from minivit.training.optimizers import AdamW

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## One token more
#
# A ViT starves where a CNN of the same size does well (lesson 06). DeiT lets the CNN
# help: it trains the ViT on what the CNN, its *teacher*, answers. The teacher gets a
# place of its own in the network: beside the class token stands a *distillation token*,
# which goes through the same blocks, sees all other tokens and is seen by them, and ends
# in a second linear head. In training the network gives two answers,
#
# $$ z_0 = [x_{\mathrm{class}};\, x_{\mathrm{dist}};\, x_1 E;\, \dots;\, x_N E] + E_{pos},
#    \qquad Z_{\mathrm{class}} = W_1 \, \mathrm{LN}(z_L)_1, \quad
#    Z_{\mathrm{dist}} = W_2 \, \mathrm{LN}(z_L)_2. $$
#
# Patches, blocks and norms are lesson 05's. So here is all that is new:


# %%
def deit(model, images):
    """Images (B, 3, H, W) -> logits of the class head and of the distillation head, (B, K)."""
    class_token, distillation_token = (
        token + np.zeros((len(images), 1, 1)) for token in (model.cls_token, model.dist_token)
    )
    tokens = ops.concat([class_token, distillation_token, model.patch_embed(images)], axis=1)
    tokens = tokens + model.pos_embed
    for block in model.blocks:
        tokens = block(tokens)
    tokens = model.norm(tokens)
    return model.head(tokens[:, 0]), model.head_dist(tokens[:, 1])


# %% [markdown]
# It equals minivit's, values and gradients (in float64, so that rounding leaves 15
# digits). We take `vit`, sized for small images, with `distilled=True`; the DeiTs for
# ImageNet, such as `deit_tiny_distilled_patch16_224`, are the same code with other sizes
# and initial weights. In evaluation the two heads answer together: the published code
# takes the mean of their logits, the paper that of their softmax outputs.

# %%
SIZES = {"patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4}


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def gradients(model, loss):
    """The gradient of a loss by each parameter; None where it does not reach."""
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


K, B = 10, 8
model = minivit.create_model("vit", num_classes=K, distilled=True, **SIZES).astype(np.float64)
images = minivit.Tensor(rng.standard_normal((B, 3, 32, 32)))
weights = rng.standard_normal((2, B, K))  # weigh the logits, so that all of them matter

sums = [(a * weights[0] + b * weights[1]).sum() for a, b in (deit(model, images), model(images))]
ours, theirs = (gradients(model, total) for total in sums)
np.testing.assert_allclose(sums[0].item(), sums[1].item(), rtol=1e-12)
for name in theirs:
    np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-13)

z_class, z_dist = (z.data for z in model(images))
answer = model.eval()(images).data
np.testing.assert_allclose(answer, (z_class + z_dist) / 2, rtol=1e-12)
paper = minivit.create_model("vit", num_classes=K, distilled=True, eval_heads="softmax", **SIZES)
paper.astype(np.float64).load_state_dict(model.state_dict())
answer = softmax(paper.eval()(images).data)
np.testing.assert_allclose(answer, (softmax(z_class) + softmax(z_dist)) / 2, rtol=1e-12)
model.train()
print(f"our DeiT = minivit's: both heads, and the gradients of {len(theirs)} weights")

# %% [markdown]
# ## Two ways to learn from a teacher
#
# Let $Z_t$ be the teacher's logits, $Z_s$ the student's and $\psi$ the softmax.
# *Soft* distillation (Hinton et al. 2015) wants the student's probabilities to be the
# teacher's, both flattened by a *temperature* $\tau$:
#
# $$ \mathcal L_{\mathrm{soft}} = \tau^2 \, \mathrm{KL}(\psi(Z_t / \tau) \,\|\, \psi(Z_s / \tau)),
#    \qquad \frac{\partial \mathcal L}{\partial Z_s}
#      = \tau \, (\psi(Z_s / \tau) - \psi(Z_t / \tau)). $$
#
# *Hard* distillation takes the teacher's decision $y_t = \arg\max_c Z_t(c)$ for a label:
#
# $$ \mathcal L_{\mathrm{hard}} = \mathrm{CE}(\psi(Z_s), y_t), \qquad
#    \frac{\partial \mathcal L}{\partial Z_s} = \psi(Z_s) - \mathrm{onehot}(y_t). $$
#
# That is for one image. Each function returns its loss, the mean over the batch, and the
# gradient by hand.


# %%
def label_loss(z, labels):
    probabilities, rows = softmax(z), np.arange(len(z))
    gradient = probabilities.copy()
    gradient[rows, labels] -= 1
    return -np.log(probabilities[rows, labels]).mean(), gradient / len(z)


def soft_loss(z, teacher, tau):
    ours, theirs = softmax(z / tau), softmax(teacher / tau)
    divergence = (theirs * (np.log(theirs) - np.log(ours))).sum(axis=1).mean()
    return tau**2 * divergence, tau * (ours - theirs) / len(z)


def hard_loss(z, teacher):
    return label_loss(z, teacher.argmax(axis=1))


z, teacher_logits = 3 * rng.standard_normal((2, B, K))
pairs = [(hard_loss(z, teacher_logits), lambda s: hard_distillation(s, teacher_logits))]
for tau in (1.0, 3.0):
    pairs.append((soft_loss(z, teacher_logits, tau),
                  lambda s, tau=tau: soft_distillation(s, teacher_logits, temperature=tau)))
for (value, gradient), library in pairs:
    student = minivit.Tensor(z, requires_grad=True)
    loss = library(student)
    loss.backward()
    np.testing.assert_allclose(loss.item(), value, rtol=1e-12)
    np.testing.assert_allclose(student.grad, gradient, atol=1e-14)

# %% [markdown]
# What does the temperature do? As $\tau \to 0$, the teacher's probabilities become its
# decision: hard distillation is learning from a teacher at temperature 0. As $\tau \to
# \infty$, the gradient becomes the difference of the *logits themselves* (less their
# mean, divided by $K$). There the factor $\tau^2$ earns its keep: without it the gradient
# would shrink like $1 / \tau^2$, and nothing of the lesson would be left.


# %%
def centred(z):
    return z - z.mean(axis=1, keepdims=True)


decision = np.eye(K)[teacher_logits.argmax(axis=1)]
np.testing.assert_allclose(softmax(teacher_logits / 1e-3), decision, atol=1e-12)
_, gradient = soft_loss(z, teacher_logits, tau=1e6)
np.testing.assert_allclose(gradient, centred(z - teacher_logits) / (K * B), atol=1e-6)

for tau in (1, 3, 10, 100):
    size = np.linalg.norm(soft_loss(z, teacher_logits, tau)[1])
    print(f"tau {tau:3}: size of the gradient {size:.3f}, without tau^2 {size / tau**2:.6f}")

# %% [markdown]
# A trap, if you compare with published code: DeiT's own divides the soft loss by the
# number of logits, $B K$, not of images. With 1000 classes that is next to nothing.

# %%
by_logits, by_images = (soft_distillation(minivit.Tensor(z), teacher_logits, reduction=r).item()
                        for r in ("numel", "batch"))
np.testing.assert_allclose(by_images / by_logits, K)

# %% [markdown]
# ## Which loss reaches which part
#
# The class head learns labels $y$, the distillation head learns from the teacher:
#
# $$ \mathcal L = (1 - \alpha) \, \mathrm{CE}(\psi(Z_{\mathrm{class}}), y)
#      + \alpha \, \mathrm{CE}(\psi(Z_{\mathrm{dist}}), y_t), \qquad \alpha = \tfrac12. $$
#
# No part of the teacher's loss ever gets to the class head, nor the labels' to the
# distillation head: the tape knows no way. Everything below the heads gets both, the
# class token too, because the distillation token looks at it in each block.

# %%
labels = rng.integers(0, K, B)
z_class, z_dist = model(images)
from_labels = gradients(model, minivit.cross_entropy(z_class, labels))
from_teacher = gradients(model, hard_distillation(model(images)[1], teacher_logits))
from_both = gradients(model, distillation_loss(model(images), labels, teacher_logits, mode="hard"))

print("size of the gradient      from the labels   from the teacher")
for name in ("head.weight", "head_dist.weight", "cls_token", "dist_token",
             "blocks.0.attn.qkv.weight", "patch_embed.proj.weight"):
    sizes = ["none" if g[name] is None else f"{np.linalg.norm(g[name]):.4f}"
             for g in (from_labels, from_teacher)]
    print(f"{name:25} {sizes[0]:>15} {sizes[1]:>18}")

for name, both in from_both.items():
    reached = [g[name] is not None for g in (from_labels, from_teacher)]
    expected = {"head": [True, False], "head_dist": [False, True]}
    assert reached == expected.get(name.split(".")[0], [True, True]), name
    parts = [g[name] for g in (from_labels, from_teacher) if g[name] is not None]
    np.testing.assert_allclose(both, 0.5 * sum(parts), atol=1e-12)

# %% [markdown]
# ## A teacher
#
# A small ResNet: convolutions as in lesson 04, with shortcuts. It learns from one half of
# our images and the students from the other, so that what it tells them is not a list of
# labels learned by heart. (DeiT's teacher has seen the same images. But there they are
# distorted afresh each time, and the teacher says what is to be seen *now*.)


# %%
def train(model, images, loss, epochs, rate, seed=0, batch_size=32):
    """Train in place by AdamW. ``loss`` gets the model's outputs and the batch's indices."""
    rng = np.random.default_rng(seed)
    optimizer = AdamW(model.train().named_parameters(), weight_decay=0.05)
    batches = len(images) // batch_size
    for step in range(epochs * batches):
        if step % batches == 0:
            order = rng.permutation(len(images))
        rows = order[step % batches * batch_size :][:batch_size]
        progress = step / (epochs * batches)
        optimizer.lr = rate * min(1, 10 * progress) * (1 + np.cos(np.pi * progress)) / 2
        optimizer.zero_grad()
        loss(model(minivit.Tensor(images[rows])), rows).backward()
        optimizer.step()
    return model


def answers(model, images):
    """Logits (N, K); of a distilled model in training, (2, N, K)."""
    with minivit.no_grad():
        parts = [model(minivit.Tensor(part)) for part in np.array_split(images, 10)]
    if isinstance(parts[0], tuple):
        return np.stack([np.concatenate([part[head].data for part in parts]) for head in (0, 1)])
    return np.concatenate([part.data for part in parts])


data = lesson.data(train=lesson.choose(2000, 12_000), test=lesson.choose(1000, 2000))
K = data.num_classes
train_images = normalize(data.train.images, data.mean, data.std)
test_images = normalize(data.test.images, data.mean, data.std)
teachers_images, students_images = np.split(train_images, 2)
teachers_labels, students_labels = np.split(data.train.labels, 2)

teacher = minivit.create_model("resnet20", layers=(1, 1, 1), num_classes=K,
                               channels=lesson.choose((8, 16, 32), (16, 32, 64)))
train(teacher, teachers_images,
      lambda z, rows: minivit.cross_entropy(z, teachers_labels[rows]),
      epochs=lesson.choose(6, 12), rate=1e-2)
teacher.eval()
teacher_says = answers(teacher, students_images)  # once: nothing changes the images here
teacher_test = answers(teacher, test_images)


def percent(condition):
    return 100 * float(np.mean(condition))


teacher_accuracy = percent(teacher_test.argmax(axis=1) == data.test.labels)
print(f"the teacher is right on {teacher_accuracy:.1f} % of the test images, and on "
      f"{percent(teacher_says.argmax(axis=1) == students_labels):.1f} % of the students' images")

# %% [markdown]
# Its answers say more than a label: which other classes this image resembles. A
# temperature shows what a softmax at 1 hides.

# %%
BLUE, GREEN, RED = "#2166ac", "#1b7837", "#b2182b"


def draw_answers(panels, shown):
    """Each image, and below it what a student could be told about it."""
    for column, row in enumerate(shown):
        top, bottom = panels[0, column], panels[1, column]
        top.imshow(data.test.images[row].transpose(1, 2, 0))
        top.set(xticks=[], yticks=[], title=f"label: {data.class_names[data.test.labels[row]]}")
        best = np.argsort(-teacher_test[row])[:10][::-1]
        for offset, tau, colour in ((0.2, 1, BLUE), (-0.2, 3, GREEN)):
            shares = softmax(teacher_test[row : row + 1] / tau)[0, best]
            bottom.barh(np.arange(len(best)) + offset, shares, 0.4, color=colour,
                        label=rf"soft, $\tau$ = {tau}")
        bottom.plot(1, len(best) - 1, "*", color=RED, ms=12, ls="", label="hard")
        bottom.set(xlim=(0, 1.1), yticks=range(len(best)), xlabel="share",
                   yticklabels=[data.class_names[c] for c in best])
    panels[1, 0].legend(frameon=False, loc="center right")


figure, panels = lesson.figure(2, 4, figsize=(12, 6.4))
if figure:
    largest, shown = softmax(teacher_test).max(axis=1), []
    correct = teacher_test.argmax(axis=1) == data.test.labels
    for named_correctly in (True, False):
        rows = np.flatnonzero((0.3 < largest) & (largest < 0.7) & (correct == named_correctly))
        _, one_of_each_class = np.unique(data.test.labels[rows], return_index=True)
        shown.extend(rows[one_of_each_class][:2])
    draw_answers(panels, shown)
    figure.suptitle("What the teacher says of test images of which it is not sure, "
                    "two named correctly and two not")
    lesson.save(figure, "answers")

# %% [markdown]
# ## Students
#
# Four students are rows of the paper's table 3, the first without a teacher; the last is a
# control:
#
# | student | heads | loss |
# | --- | --- | --- |
# | labels | one | the labels' alone |
# | usual | one | $0.9 \cdot$ labels $+ 0.1 \cdot$ soft, $\tau = 3$ |
# | hard | one | half labels, half the teacher's decisions |
# | DeiT | two | the same, but each half on a token of its own |
# | control | two | two tokens, and labels for both |
#
# The short form trains the last two, the full form all of them.


# %%
def taught(**options):
    def loss(outputs, rows):
        return distillation_loss(outputs, students_labels[rows], teacher_says[rows], **options)
    return loss


def labels_only(z, rows):
    return minivit.cross_entropy(z, students_labels[rows])


def labels_for_both(outputs, rows):
    return (labels_only(outputs[0], rows) + labels_only(outputs[1], rows)) * 0.5


METHODS = {  # name: (whether there are two heads, loss)
    "labels": (False, labels_only),
    "usual": (False, taught(mode="soft", alpha=0.1, temperature=3.0)),
    "hard": (False, taught(mode="hard")),
    "DeiT": (True, taught(mode="hard")),
    "control": (True, labels_for_both),
}
CHOSEN = lesson.choose(("DeiT", "control"), tuple(METHODS))
SEEDS = range(lesson.choose(1, 3))
students = {}
for name in CHOSEN:
    distilled, loss = METHODS[name]
    students[name] = []
    for seed in SEEDS:
        student = minivit.create_model("vit", num_classes=K, distilled=distilled, seed=seed,
                                       **SIZES)
        train(student, students_images, loss, epochs=lesson.choose(8, 10), rate=2e-3, seed=seed)
        students[name].append(student)


def mean_and_spread(percents):
    """Over seeds; of one seed there is no spread."""
    spread = f" ± {np.std(percents, ddof=1):.1f}" if len(percents) > 1 else ""
    return f"{np.mean(percents):.1f}{spread} %"


print("student    right         as the teacher")
for name, models in students.items():
    decisions = [answers(model.eval(), test_images).argmax(axis=1) for model in models]
    right = [percent(d == data.test.labels) for d in decisions]
    alike = [percent(d == teacher_test.argmax(axis=1)) for d in decisions]
    print(f"{name:10} {mean_and_spread(right):13} {mean_and_spread(alike)}")

# %% [markdown]
# So short a training gains little by a teacher. The short form's differences are within
# chance; in the full form (6000 images of CIFAR-100, means of 3 seeds) 17.7 % are right
# with labels alone and 18.6 to 19.2 with a teacher. (On ImageNet, after 300 epochs, a
# small DeiT has 79.8 with labels, 79.8 the usual way, 80.9 hard, 81.2 with the token.)
# What the tokens *do* shows at once, though: on how many test images do two judges
# disagree? That is the paper's table 4; ours has the control beside it. The distillation
# head takes after the teacher; the class head, which reads the same patches by the same
# blocks, does so far less.

# %%
JUDGES = ["labels", "teacher", "class\nhead", "distillation\nhead", "both"]


def disagreement(model):
    """Percent of the test images on which each two judges disagree, (5, 5)."""
    heads = answers(model.train(), test_images)
    judges = [z.argmax(axis=1) for z in (teacher_test, *heads, heads.mean(axis=0))]
    decisions = np.stack([data.test.labels, *judges])
    return 100 * (decisions[:, None] != decisions[None]).mean(axis=2)


tables, nearer = {}, {}
for name in ("DeiT", "control"):
    each = np.stack([disagreement(model) for model in students[name]])
    tables[name] = each.mean(axis=0)
    nearer[name] = each[:, 1, 2] - each[:, 1, 3]
    print(f"{name:8} the heads disagree on {tables[name][2, 3]:.1f} % of the images; with the "
          f"teacher: class head {tables[name][1, 2]:.1f} %, "
          f"distillation head {tables[name][1, 3]:.1f} %")
assert min(nearer["DeiT"]) > 4 + max(nearer["control"])

# %% [markdown]
# In so short a training the control's heads still differ. In the paper's long one, two
# tokens that learn the same become the same (the cosine between them grows to 0.999). A
# token with a task of its own stays another one (0.06; after the last block 0.93), and the
# network has two opinions to join.


# %%
def draw_table(axes, table, title):
    """Disagreement of all judges, as numbers on shades."""
    axes.imshow(table, cmap="Oranges", vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(table):
        text = "" if i == j else f"{value:.0f} %"
        axes.text(j, i, text, ha="center", va="center", color="w" if value > 60 else "k")
    axes.set(title=title, xticks=range(5), yticks=range(5), xticklabels=JUDGES, yticklabels=JUDGES)


figure, panels = lesson.figure(1, 2, figsize=(12, 5.6))
if figure:
    for axes, (name, table) in zip(panels, tables.items()):
        task = "learns from the teacher" if name == "DeiT" else "learns the labels too"
        draw_table(axes, table, f"{name}: the distillation head {task}")
    figure.suptitle("On how many test images do two judges disagree?")
    lesson.save(figure, "disagreement")

# %% [markdown]
# In the library: `minivit/models/vit.py` (`distilled=True`), `models/heads.py`,
# `training/losses.py`. A real training is two commands, which docs/training.md explains.
#
# Exercises: `lessons/exercises/09.py`, checked by `python -m lessons check 09`.

# %%
lesson.passed(
    "of the two heads, only the distillation head feels the teacher's loss, and becomes "
    "another judge",
    teacher_is_right_on=f"{teacher_accuracy:.1f} %",
    teacher_disagrees_with_class_head_on=f"{tables['DeiT'][1, 2]:.1f} %",
    with_distillation_head_on=f"{tables['DeiT'][1, 3]:.1f} %",
    in_the_control=f"{tables['control'][1, 2]:.1f} % and {tables['control'][1, 3]:.1f} %",
)
