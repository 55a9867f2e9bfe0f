"""Recipes: every number that a training run needs, under one name. Pure data, quick for ``--help`` to list.

The papers' recipes stand here as published; where ours differ, the description or docs/training.md says so. The
``quick_*`` ones keep a paper's method and take a schedule and a network for two CPU cores.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from minivit.errors import UsageError, suggest


@dataclass(frozen=True)
class Recipe:
    """How to train: the defaults that the options of ``minivit.train`` override one by one.

    Args:
        name, description, source: what it is called, what it is for, where its numbers come from.
        epochs: passes over the data; each counts ``repeats`` times the training images.
        batch_size: images per step.
        lr: peak learning rate at that batch size, and ``lr_by_model`` the exceptions, by wildcard of the model's name.
        scale_lr: another batch size changes the peak in proportion (Goyal et al. 2017), as in DeiT's code.
        weight_decay: strength of the decay; ``decay_all`` says whether norms, biases and embeddings decay too,
            ``decay_dist_token`` whether the distillation token does, as in DeiT's code.
        optimizer: ``adamw``, ``adam`` (whose decay is a part of the gradient), or ``sgd`` with momentum 0.9,
            ``nesterov`` or not.
        schedule: how the rate falls after the warm-up: ``cosine``, ``linear``, ``step`` (to a tenth at half and at
            three quarters of the run), ``constant``, or ``deit``: the cosine as DeiT's code has it, set once an epoch,
            one epoch late, and begun under the warm-up.
        warmup_epochs: length of the linear warm-up from ``warmup_lr``; the rate then falls towards ``min_lr``.
        label_smoothing: share of the target spread evenly over all classes.
        drop_path: stochastic depth, the probability that a residual branch is skipped, and ``drop_path_by_model`` the
            exceptions; ``drop_rate`` and ``attn_drop_rate`` are the dropout of activations and of attention weights.
        clip: bound on the joint norm of all gradients, 0 for none.
        ema: decay of the moving average of the weights, which is measured beside them; 0 for none;
            ``ema_warmup`` begins with a smaller one.
        flip, crop_padding, resized_crop, interpolation, color_jitter, auto_augment, erase, erase_mode, mixup, cutmix,
            mix_prob, mix_switch, mix_mode, mix_partner: see ``minivit.data.augmentation``. ``auto_augment`` may be
            ``data``: that of ImageNet for ``tiny_imagenet`` and folders of images, that of CIFAR for all others.
        pad_small_images: images of up to 32 pixels are padded by 4 and cropped instead of resized, as in DeiT's code.
        repeats: shuffled passes over the data that make one epoch.
        repeated_augmentation: how often a shown image is shown in an epoch, see ``minivit.data.loader``;
            ``spread_repeats`` puts these into different batches.
        drop_last: leave out the last batch of an epoch where it is not full.
        needs_teacher: refuse to train without a teacher.
        distill: how a teacher teaches, where there is one: ``hard`` or ``soft`` (see ``minivit.training.losses``);
            ``alpha`` is the weight of its lesson against that of the labels, ``temperature`` softens its answers, and
            ``kl_reduction`` is ``batch``, the paper's mean over images, or ``numel``, the smaller one of DeiT's code.
        linear_probe: train the classifier alone, on features that stay as they are.
        zero_head: the classifier starts from 0.
        resample: how position embeddings of another size are made to fit, with ``--init-from``.
        model_args: constructor keywords of the model, by wildcard of the model's name.
    """

    name: str
    description: str
    source: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    drop_path: float = 0.0
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    optimizer: str = "adamw"
    nesterov: bool = False
    scale_lr: bool = False
    schedule: str = "cosine"
    min_lr: float = 1e-6
    warmup_lr: float = 1e-6
    clip: float = 0.0
    ema: float = 0.0
    ema_warmup: bool = False
    decay_all: bool = False
    decay_dist_token: bool = False
    flip: bool = True
    crop_padding: int = 0
    resized_crop: float = 0.0
    interpolation: str = "bicubic"
    pad_small_images: bool = False
    color_jitter: float = 0.0
    auto_augment: str = ""
    erase: float = 0.0
    erase_mode: str = "pixel"
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    mix_switch: float = 0.5
    mix_mode: str = "batch"
    mix_partner: str = "reversed"
    repeats: int = 1
    repeated_augmentation: int = 1
    spread_repeats: bool = False
    drop_last: bool = True
    needs_teacher: bool = False
    distill: str = "hard"
    alpha: float = 0.5
    temperature: float = 1.0
    kl_reduction: str = "batch"
    linear_probe: bool = False
    zero_head: bool = False
    resample: str = "bicubic"
    lr_by_model: Mapping[str, float] = field(default_factory=dict)
    drop_path_by_model: Mapping[str, float] = field(default_factory=dict)
    model_args: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def lr_for(self, model):
        """Return the peak learning rate for the model of that name."""
        return _first_match(self.lr_by_model, model, self.lr)

    def drop_path_for(self, model):
        """Return the rate of stochastic depth for the model of that name."""
        return _first_match(self.drop_path_by_model, model, self.drop_path)

    def model_args_for(self, model):
        """Return the constructor keywords for the model of that name, a new dict."""
        return dict(_first_match(self.model_args, model, {}))


def _first_match(by_model, model, default):
    return next((value for pattern, value in by_model.items() if fnmatchcase(model, pattern)), default)


_VIT_FAMILY = ("vit", "sl_vit", "s_vit", "l_vit", "t_vit", "m_vit")
_SMALL_VIT = dict.fromkeys(_VIT_FAMILY, {"embed_dim": 128, "depth": 6, "num_heads": 8})
_SMALL_DEIT = {"deit_*": {"embed_dim": 128, "depth": 6, "num_heads": 4, "mlp_ratio": 2.0, "patch_size": 4}}
_SMALL_CAIT = {"cait_*": {"embed_dim": 128, "depth": 6, "num_heads": 4, "mlp_ratio": 2.0, "patch_size": 4}}

_SHAPES = Recipe(
    name="shapes",
    description="for shapes10 and shapes100: a ViT of 0.2 million parameters that sees patches of 8 pixels, "
    "and learns to name shapes in two minutes; other families keep their size",
    source="measured on shapes10, docs/results.md",
    epochs=14,
    batch_size=64,
    lr=2e-3,
    weight_decay=0.05,
    warmup_epochs=1,
    clip=1.0,
    crop_padding=2,
    model_args={name: {"embed_dim": 64, "depth": 4, "num_heads": 4, "patch_size": 8} for name in _VIT_FAMILY},
)

_QUICK = Recipe(
    name="quick",
    description="a schedule that fits two CPU cores, with a ViT of 0.85 million parameters, flips and crops: "
    "CIFAR-100 in three quarters of an hour or less; other families keep their size",
    source="measured on CIFAR-100, docs/results.md",
    epochs=14,
    batch_size=128,
    lr=2e-3,
    weight_decay=0.05,
    warmup_epochs=1,
    label_smoothing=0.1,
    clip=1.0,
    crop_padding=4,
    model_args=_SMALL_VIT,
)

_SMALL_DATA = Recipe(
    name="small_data",
    description="the small-data paper's: 100 epochs of three passes each, AutoAugment, random erasing, and every "
    "other batch mixed",
    source='"Vision Transformer for Small-Size Datasets", arXiv 2112.13492, and its published code',
    epochs=100,
    batch_size=128,
    lr=1e-3,
    lr_by_model=dict.fromkeys(_VIT_FAMILY, 3e-3),
    weight_decay=0.05,
    decay_all=True,
    warmup_epochs=10,
    label_smoothing=0.1,
    drop_path=0.1,
    crop_padding=4,
    auto_augment="data",
    erase=0.25,
    erase_mode="mean",
    mixup=1.0,
    cutmix=1.0,
    mix_prob=0.5,
    mix_partner="shuffled",
    repeats=3,
)

_DEIT = Recipe(
    name="deit",
    description="DeiT's, for 300 epochs: RandAugment, Mixup and CutMix in every batch, random erasing, repeated "
    "augmentation",
    source='"Training data-efficient image transformers", arXiv 2012.12877, and its published code',
    epochs=300,
    batch_size=1024,
    lr=1e-3,
    scale_lr=True,
    weight_decay=0.05,
    warmup_epochs=5,
    min_lr=1e-5,
    label_smoothing=0.1,
    drop_path=0.1,
    ema=0.99996,
    resized_crop=0.08,
    pad_small_images=True,
    auto_augment="rand-m9-mstd0.5-inc1",
    erase=0.25,
    mixup=0.8,
    cutmix=1.0,
    repeated_augmentation=3,
)

_BINARY = Recipe(
    name="binary_vit",
    description="BinaryViT's: no weight decay and no warm-up, and with --teacher the teacher's probabilities instead "
    "of labels",
    source='"BinaryViT: Pushing Binary Vision Transformers Towards Convolutional Models", arXiv 2306.16678, '
    "and its published code",
    epochs=300,
    batch_size=512,
    lr=5e-4,
    scale_lr=True,
    min_lr=1e-5,
    schedule="deit",
    resized_crop=0.08,
    interpolation="bilinear",
    distill="soft",
    alpha=1.0,
)

_CAIT_DROP_PATH = {
    "cait_xxs24*": 0.05, "cait_xxs36*": 0.1, "cait_xs24*": 0.05, "cait_xs36*": 0.1, "cait_s24*": 0.1, "cait_s36*": 0.2,
    "cait_s48*": 0.3, "cait_m24*": 0.2, "cait_m36*": 0.3, "cait_m48*": 0.4,
}  # fmt: skip

# AugReg (Steiner et al. 2021), section 3.3: (layers and magnitude of RandAugment, alpha of Mixup).
_AUGREG_LEVELS = {
    "none": ("", 0.0),
    "light1": ("tf-rand-l2-m0", 0.0),
    "light2": ("tf-rand-l2-m10", 0.2),
    "medium1": ("tf-rand-l2-m15", 0.2),
    "medium2": ("tf-rand-l2-m15", 0.5),
    "strong1": ("tf-rand-l2-m20", 0.5),
    "strong2": ("tf-rand-l2-m20", 0.8),
}


def _augreg(level, regularised):
    policy, alpha = _AUGREG_LEVELS[level]
    return Recipe(
        name=f"augreg_{level}{'_reg' if regularised else ''}",
        description=f"AugReg's level {level}, {'dropout and stochastic depth 0.1' if regularised else 'no dropout'}",
        source='"How to train your ViT?", arXiv 2106.10270, section 3.3, and its published code (ImageNet-1k)',
        epochs=300,
        batch_size=4096,
        lr=1e-3,
        weight_decay=0.1,
        warmup_epochs=32,  # 10,000 steps on ImageNet-1k
        warmup_lr=0.0,
        min_lr=0.0,
        clip=1.0,
        drop_rate=0.1 if regularised else 0.0,
        drop_path=0.1 if regularised else 0.0,
        resized_crop=0.05,
        interpolation="bilinear",  # the published code's is without antialiasing
        auto_augment=policy,
        mixup=alpha,
        mix_partner="rolled",
        zero_head=True,
    )


_AUGREG_TRANSFER = Recipe(
    name="augreg_transfer",
    description="AugReg's fine-tuning, for --init-from: SGD without decay, flips and crops only, the head from zero; "
    "of its learning rates the middle one (2,500 steps on CIFAR-100), and padded crops for its larger images",
    source='"How to train your ViT?", arXiv 2106.10270, section 3.4 and its published code',
    epochs=26,
    batch_size=512,
    lr=3e-3,
    optimizer="sgd",
    warmup_epochs=2,
    warmup_lr=0.0,
    min_lr=0.0,
    clip=1.0,
    crop_padding=4,
    zero_head=True,
    resample="linear",
)

_QUICK_DEIT = replace(
    _DEIT,
    name="quick_deit",
    description="DeiT's method for two CPU cores, a network of 0.9 million parameters and padded crops",
    source="DeiT's, with a schedule measured on CIFAR-100",
    epochs=14,
    batch_size=128,
    lr=2e-3,
    warmup_epochs=1,
    clip=1.0,
    drop_path=0.0,
    ema=0.0,
    resized_crop=0.0,
    crop_padding=4,
    auto_augment="rand-m5-mstd0.5-inc1",
    mix_prob=0.5,
    repeated_augmentation=1,
    model_args=_SMALL_DEIT,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        _SHAPES,
        _QUICK,
        _SMALL_DATA,
        replace(
            _SMALL_DATA,
            name="quick_small_data",
            description="the small-data paper's method for two CPU cores, with a ViT of 0.85 million parameters",
            source="the small-data paper's, with a schedule measured on CIFAR-100",
            epochs=14,
            lr=2e-3,
            lr_by_model={},
            warmup_epochs=1,
            drop_path=0.0,
            repeats=1,
            model_args=_SMALL_VIT,
        ),
        *(_augreg(level, regularised) for level in _AUGREG_LEVELS for regularised in (False, True)),
        replace(
            _augreg("light2", False),
            name="quick_augreg",
            description="AugReg's level light2 for two CPU cores, with a ViT of 0.85 million parameters; "
            "change the level by --auto-augment and --mixup",
            source="AugReg's, with a schedule measured on CIFAR-100",
            epochs=14,
            batch_size=128,
            lr=2e-3,
            warmup_epochs=1,
            resized_crop=0.0,
            interpolation="bicubic",
            crop_padding=4,
            model_args=_SMALL_VIT,
        ),
        _AUGREG_TRANSFER,
        _DEIT,
        replace(
            _DEIT,
            name="deit_distilled",
            description="DeiT's with a teacher (--teacher), whose decisions the distillation token learns",
            needs_teacher=True,
        ),
        _QUICK_DEIT,
        replace(
            _QUICK_DEIT,
            name="quick_deit_distilled",
            description="DeiT's distillation for two CPU cores, with --teacher",
            needs_teacher=True,
        ),
        replace(
            _DEIT,
            name="cait",
            description="CaiT's: DeiT's for 400 epochs, and stochastic depth that grows with the model",
            source='"Going deeper with Image Transformers", arXiv 2103.17239, and its published code',
            epochs=400,
            drop_path_by_model=_CAIT_DROP_PATH,
        ),
        replace(
            _QUICK_DEIT,
            name="quick_cait",
            description="CaiT's method for two CPU cores, with a network of 1 million parameters",
            source="CaiT's, with a schedule measured on CIFAR-100",
            model_args=_SMALL_CAIT,
        ),
        Recipe(
            name="resnet",
            description="for CIFAR ResNets, which make good teachers: SGD with momentum, divided by 10 at half and at "
            "three quarters of 164 epochs",
            source='"Deep Residual Learning for Image Recognition", arXiv 1512.03385, section 4.2',
            epochs=164,
            batch_size=128,
            lr=0.1,
            optimizer="sgd",
            weight_decay=1e-4,
            decay_all=True,
            schedule="step",
            crop_padding=4,
        ),
        _BINARY,
        replace(
            _BINARY,
            name="quick_binary_vit",
            description="a BinaryViT of 6 blocks and a schedule for two CPU cores; other families keep their size",
            source="measured on CIFAR-100, docs/results.md",
            epochs=4,
            batch_size=128,
            lr=2e-3,
            scale_lr=False,
            schedule="cosine",
            resized_crop=0.0,
            crop_padding=4,
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
