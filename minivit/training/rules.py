"""Which settings of a run go together, however they came about: by a recipe, by ``--config``, from a file.

Settings stand in a dict here: the fields of :class:`~minivit.training.config.TrainConfig`.
"""

from dataclasses import fields

from minivit.errors import UsageError, suggest
from minivit.training.recipes import RECIPES

OPTIMIZERS = {
    "adamw": {"lr": 1e-3, "weight_decay": 0.05},
    "adam": {"lr": 1e-3, "weight_decay": 0.0},
    "sgd": {"lr": 0.1, "weight_decay": 5e-4},
}
"""What an optimiser wants where the recipe's numbers are those of another one."""

SCHEDULES = ("cosine", "linear", "step", "constant", "deit")
"""How a learning rate can fall, see :class:`~minivit.training.recipes.Recipe`."""

DISTILL = ("hard", "soft")
"""How a teacher can teach; and how soft distillation can be averaged:"""
KL_REDUCTIONS = ("batch", "numel")

RESAMPLE = ("bicubic", "bicubic_antialias", "linear")
"""How position embeddings can be made to fit another grid, see ``minivit.models.positions``."""

MODEL_RATES = {"drop_path": "drop_path_rate", "drop_rate": "drop_rate", "attn_drop_rate": "attn_drop_rate"}
"""Settings of a run that are constructor keywords of those models that have them."""

FROM_DATA = ("num_classes", "img_size", "in_chans", "seed")
"""Constructor keywords that are no model arguments of a run: the data set or another option gives them."""

FREE_ARGUMENTS = ("stride", "stem_stride", "strides", "gelu", "norm_eps", "mask_diagonal", "diagonal", "eval_heads")
"""Model arguments that may differ from those of the checkpoint that a run starts from: all its weights still fit."""


def augmentation(values):
    """Return the ``Augmentation`` that settings describe.

    Raises:
        UsageError: they contradict each other.
    """
    from minivit.data.augmentation import Augmentation

    return Augmentation(**{f.name: values[f.name] for f in fields(Augmentation)})


def validate(values):
    """Refuse settings that are no run.

    Raises:
        UsageError: an unknown name, a number out of its range, or values that contradict each other.
    """
    for name, known, what in (
        ("optimizer", OPTIMIZERS, "optimiser"),
        ("schedule", SCHEDULES, "schedule"),
        ("distill", DISTILL, "way of distillation"),
        ("kl_reduction", KL_REDUCTIONS, "reduction of the distillation"),
        ("resample", RESAMPLE, "way to resample positions"),
    ):
        if values[name] not in known:
            near = suggest(values[name], known)
            raise UsageError(f"unknown {what} {values[name]!r}{near}; known: {', '.join(known)}")
    if not 1e-2 <= values["temperature"] <= 1e3 or values["alpha"] > 1:
        raise UsageError("the temperature of a distillation must be from 0.01 to 1000, and alpha at most 1")
    for name in ("repeats", "repeated_augmentation"):
        if values[name] > 1000:
            raise UsageError(f"{name} must be at most 1000, not {values[name]}")
    for name in ("ema", "drop_path", "drop_rate", "attn_drop_rate", "label_smoothing"):
        if values[name] >= 1:
            raise UsageError(f"{name} must be below 1, not {values[name]:g}")
    augmentation(values)
    if values["warmup_epochs"] > values["epochs"]:
        raise UsageError(
            f"a warm-up of {values['warmup_epochs']:g} epochs is longer than the run of {values['epochs']}"
        )
    recipe = RECIPES.get(values["recipe"])  # another version may have had others
    if values["teacher"] is None and recipe is not None and recipe.needs_teacher:
        raise UsageError(f"recipe {recipe.name} needs a teacher: add --teacher CKPT")
    if values["init_from"] is None and values["linear_probe"]:
        raise UsageError("a linear probe needs features: add --init-from CKPT")
    _validate_model(values)


def _validate_model(values):
    # not at the top: --help reads this file, and must not wait for NumPy
    from minivit.models import accepts, list_models

    model = values["model"]
    taken = [name for name in FROM_DATA if name in values["model_args"]]
    if taken:
        raise UsageError(
            f"{taken[0]} is not a model argument of a run: the data set gives num_classes, img_size "
            "and in_chans, and --seed the seed"
        )
    for name, keyword in MODEL_RATES.items():
        option = "--drop-path X" if name == "drop_path" else f"--set {name}=X"
        if keyword in values["model_args"]:
            raise UsageError(f"{keyword} is no model argument of a run: {option} sets it")
        if values[name] and model in list_models() and not accepts(model, keyword):
            raise UsageError(f"{model} has no {keyword}: {option} is not for it")


def refuse_idle(changed, values, network):
    """Refuse settings that a user may believe to work, and that can have no effect beside the others.

    Args:
        changed: names of the settings that the user has switched on, or set to another value than before.
        values: all settings.
        network: the configuration of the model.

    Raises:
        UsageError: it names the first, and what it needs.
    """
    v = values
    for names, works, instead in (
        (("teacher",), v["alpha"], "alpha is 0: raise --alpha"),
        (("temperature", "kl_reduction"), v["distill"] == "soft", "hard distillation has none: add --distill soft"),
        (("label_smoothing",), not v["teacher"] or v["alpha"] < 1, "alpha 1 leaves no labels: lower --alpha"),
        (("resample",), v["init_from"], "it needs weights of another size: add --init-from CKPT"),
        (tuple(MODEL_RATES), not v["linear_probe"], "a linear probe drops nothing: train without --linear-probe"),
        (("erase_mode",), v["erase"], "nothing is erased: add --erase X"),
        (("mixup", "cutmix"), v["mix_prob"], "mix_prob is 0: raise it"),
        (("mix_prob", "mix_mode", "mix_partner"), v["mixup"] or v["cutmix"], "nothing is mixed: add --mixup X"),
        (("mix_switch",), v["mixup"] and v["cutmix"], "it chooses between --mixup X and --cutmix X: add both"),
        (("color_jitter",), not v["auto_augment"], "the policy replaces it: add --auto-augment none"),
        (("interpolation",), v["resized_crop"], "no crop is resized: add --set resized_crop=X crop_padding=0"),
        (("ema_warmup",), v["ema"], "nothing is averaged: add --ema X"),
        (("nesterov",), v["optimizer"] == "sgd", "it is one of sgd: add --optimizer sgd"),
        (("decay_all", "decay_dist_token"), v["weight_decay"], "nothing decays: add --weight-decay X"),
        (("decay_dist_token",), getattr(network, "distilled", False), "the model has none: take one that is distilled"),
        (("decay_dist_token",), not v["decay_all"], "decay_all decays it anyway: set decay_all=false"),
        (("warmup_lr",), v["warmup_epochs"], "there is no warm-up: add --warmup-epochs X"),
        (("min_lr",), v["schedule"] not in ("step", "constant"), "this --schedule has no floor: take another"),
        (("spread_repeats",), v["repeated_augmentation"] > 1, "no image is repeated: raise repeated_augmentation"),
    ):
        for name in names:
            if name in changed and not works:
                raise UsageError(f"{name} has no effect: {instead}, or leave it out")
