"""Recipes: every number that a training run needs, under one name. Pure data, quick for ``--help`` to
list."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from minivit.errors import UsageError, suggest


@dataclass(frozen=True)
class Recipe:
    """How to train: the defaults that the options of ``minivit.train`` override one by one.

    Args:
        name, description, source: what it is called, what it is for, where its numbers come from.
        epochs: passes over the data; each counts ``repeats`` times the training images.
        batch_size: images per step.
        lr: peak learning rate, and ``lr_by_model`` the exceptions, by wildcard of the model's name.
        weight_decay: strength of the decay; ``decay_all`` says whether norms, biases and embeddings decay
            too.
        optimizer: ``adamw``, or ``sgd`` with momentum 0.9.
        warmup_epochs: length of the linear warm-up from ``warmup_lr``; the cosine then falls towards
            ``min_lr``.
        label_smoothing: share of the target spread evenly over all classes.
        drop_path: stochastic depth, the probability that a residual branch is skipped.
        clip: bound on the joint norm of all gradients, 0 for none.
        crop_padding: pixels of black border for the random crop, 0 for no crop.
        flip: mirror half of the images.
        repeats: shuffled passes over the data that make one epoch.
        drop_last: leave out the last batch of an epoch where it is not full.
        distill: how a teacher teaches, where there is one: ``hard`` or ``soft`` (see ``minivit.training.losses``);
            ``alpha`` is the weight of its lesson against that of the labels, ``temperature`` softens its answers.
        model_args: constructor keywords of the model, by wildcard of the model's name.
    """

    name: str
    description: str
    source: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup_epochs: float
    label_smoothing: float
    drop_path: float
    min_lr: float = 1e-6
    warmup_lr: float = 1e-6
    clip: float = 0.0
    crop_padding: int = 0
    flip: bool = False
    repeats: int = 1
    decay_all: bool = False
    drop_last: bool = True
    optimizer: str = "adamw"
    distill: str = "hard"
    alpha: float = 0.5
    temperature: float = 1.0
    lr_by_model: Mapping[str, float] = field(default_factory=dict)
    model_args: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def lr_for(self, model):
        """Return the peak learning rate for the model of that name."""
        return _first_match(self.lr_by_model, model, self.lr)

    def model_args_for(self, model):
        """Return the constructor keywords for the model of that name, a new dict."""
        return dict(_first_match(self.model_args, model, {}))


def _first_match(by_model, model, default):
    return next((value for pattern, value in by_model.items() if fnmatchcase(model, pattern)), default)


_VIT_FAMILY = ("vit", "sl_vit", "s_vit", "l_vit", "t_vit", "m_vit")

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="shapes",
            description="for shapes10 and shapes100: a ViT of 0.2 million parameters that sees patches of 8 pixels, "
            "and learns to name shapes in two minutes; other families keep their size",
            source="measured on shapes10, docs/results.md",
            epochs=14,
            batch_size=64,
            lr=2e-3,
            weight_decay=0.05,
            warmup_epochs=1,
            label_smoothing=0.0,
            drop_path=0.0,
            clip=1.0,
            crop_padding=2,
            flip=True,
            model_args={name: {"embed_dim": 64, "depth": 4, "num_heads": 4, "patch_size": 8} for name in _VIT_FAMILY},
        ),
        Recipe(
            name="quick",
            description="a schedule that fits two CPU cores, with a ViT of 0.85 million parameters: CIFAR-100 in three "
            "quarters of an hour or less; other families keep their size",
            source="measured on CIFAR-100, docs/results.md",
            epochs=14,
            batch_size=128,
            lr=2e-3,
            weight_decay=0.05,
            warmup_epochs=1,
            label_smoothing=0.1,
            drop_path=0.0,
            clip=1.0,
            crop_padding=4,
            flip=True,
            model_args={name: {"embed_dim": 128, "depth": 6, "num_heads": 8} for name in _VIT_FAMILY},
        ),
        Recipe(
            name="small_data",
            description="the small-data paper's schedule, 100 epochs of three passes each, with flips and "
            "crops; its Mixup, CutMix, AutoAugment and random erasing come later",
            source='"Vision Transformer for Small-Size Datasets", arXiv 2112.13492, and its published code',
            epochs=100,
            batch_size=128,
            lr=1e-3,
            lr_by_model=dict.fromkeys(_VIT_FAMILY, 3e-3),
            weight_decay=0.05,
            warmup_epochs=10,
            label_smoothing=0.1,
            drop_path=0.1,
            crop_padding=4,
            flip=True,
            repeats=3,
            decay_all=True,
        ),
        Recipe(
            name="binary",
            description="BinaryViT's: no weight decay and no warm-up, and with --teacher the teacher's probabilities "
            "instead of labels; with padded crops for its random resized ones, and a cosine by step, not by epoch",
            source='"BinaryViT: Pushing Binary Vision Transformers Towards Convolutional Models", arXiv 2306.16678, '
            "and its published code",
            epochs=300,
            batch_size=512,
            lr=5e-4,
            min_lr=1e-5,
            weight_decay=0.0,
            warmup_epochs=0,
            label_smoothing=0.0,
            drop_path=0.0,
            crop_padding=4,
            flip=True,
            distill="soft",
            alpha=1.0,
        ),
        Recipe(
            name="quick_binary",
            description="a BinaryViT of 6 blocks and a schedule for two CPU cores; other families keep their size",
            source="measured on CIFAR-100, docs/results.md",
            epochs=4,
            batch_size=128,
            lr=2e-3,
            min_lr=1e-5,
            weight_decay=0.0,
            warmup_epochs=0,
            label_smoothing=0.0,
            drop_path=0.0,
            crop_padding=4,
            flip=True,
            distill="soft",
            alpha=1.0,
            model_args={"binary_vit*": {"depths": [1, 1, 3, 1]}},
        ),
    )
}


def get_recipe(name, data):
    """Return the recipe called ``name``, or for None the data set's usual one: ``shapes`` for the drawn
    ones, ``small_data`` for all others.

    Raises:
        UsageError: no recipe has that name.
    """
    if name is None:
        name = "shapes" if data in ("shapes10", "shapes100") else "small_data"
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}{suggest(name, RECIPES)}; known: {', '.join(RECIPES)}")
    return RECIPES[name]
