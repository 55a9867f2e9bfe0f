"""The settings of one run, fully resolved: a recipe, and what the user said instead."""

from dataclasses import asdict, dataclass, fields

from minivit.errors import MinivitError, UsageError, suggest
from minivit.training.json_fields import from_json
from minivit.training.recipes import get_recipe

DEFAULT_MODEL = "sl_vit"
DEFAULT_DATA = "shapes10"

OPTIMIZERS = {
    "adamw": {"lr": 1e-3, "weight_decay": 0.05},
    "sgd": {"lr": 0.1, "weight_decay": 5e-4},
}
"""What an optimiser wants where the recipe's numbers are those of another one."""

DISTILL = ("hard", "soft")
"""How a teacher can teach."""

FROM_DATA = ("num_classes", "img_size", "in_chans", "seed", "drop_path_rate")
"""Constructor keywords that are no model arguments of a run: the data set or another option gives them."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of a run. Written to ``config.json``, and kept in every ``last.npz``.

    The fields without a comment are those of :class:`~minivit.training.recipes.Recipe`. A field that is added later
    gets a default, the behaviour before it: older runs do not have it.
    """

    model: str  # name in the model registry
    data: str  # name of the data set, or folder:PATH
    recipe: str
    seed: int  # of the initial weights, the order of the images, crops, flips, dropout; not of the data set
    limit_train: int | None  # use only so many training images
    limit_test: int | None
    img_size: int | None  # None: the data set's own size
    model_args: dict  # constructor keywords beyond those that the data set gives
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup_epochs: float
    label_smoothing: float
    drop_path: float
    min_lr: float
    warmup_lr: float
    clip: float
    crop_padding: int
    flip: bool
    repeats: int
    decay_all: bool
    drop_last: bool
    optimizer: str = "adamw"
    teacher: str | None = None  # path of a checkpoint
    teacher_sha256: str | None = None  # of that file
    distill: str = "hard"
    alpha: float = 0.5
    temperature: float = 1.0

    def as_dict(self):
        """Return the fields as a dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        """Return the settings that :meth:`as_dict` gave, perhaps in another version.

        Raises:
            MinivitError: they are not settings of a run.
        """
        config = from_json(cls, values, "the settings")
        for name in ("epochs", "batch_size", "repeats"):
            if getattr(config, name) < 1:
                raise MinivitError(f"among the settings, {name}: {getattr(config, name)} is less than 1")
        _validate(vars(config))
        return config


def resolve(overrides):
    """Lay the user's settings over the recipe.

    Args:
        overrides: field name -> value, only what the user said. A changed ``epochs`` takes the recipe's
            warm-up along in proportion, unless ``warmup_epochs`` is there too; another ``optimizer`` than the
            recipe's brings its own ``lr`` and ``weight_decay``.

    Returns:
        TrainConfig.

    Raises:
        UsageError: unknown recipe, or values that contradict each other.
    """
    # not at the top: --help reads this file, and must not wait for NumPy
    from minivit.models import accepts
    from minivit.training.teacher import fingerprint

    said = dict(overrides)
    model, data = said.get("model", DEFAULT_MODEL), said.get("data", DEFAULT_DATA)
    recipe = get_recipe(said.get("recipe"), data)
    values = {f.name: getattr(recipe, f.name, None) for f in fields(TrainConfig)}
    values.update(model=model, data=data, recipe=recipe.name, seed=0, lr=recipe.lr_for(model))
    if said.get("optimizer", recipe.optimizer) != recipe.optimizer:
        values.update(OPTIMIZERS.get(said["optimizer"], {}))  # an unknown one is refused below
    if "epochs" in said:
        values["warmup_epochs"] = recipe.warmup_epochs * said["epochs"] / recipe.epochs
    values.update({name: value for name, value in said.items() if name not in ("recipe", "model_args")})
    if "drop_path" not in said and not accepts(model, "drop_path_rate"):
        values["drop_path"] = 0.0  # the recipe's is for transformers
    if values["teacher"] is not None:
        values["teacher_sha256"] = fingerprint(values["teacher"])
    elif said.keys() & {"distill", "alpha", "temperature"}:
        raise UsageError("distillation needs a teacher: add --teacher CKPT")
    values["model_args"] = recipe.model_args_for(model) | said.get("model_args", {})
    _validate(values)
    return TrainConfig(**values)


def _validate(values):
    if values["optimizer"] not in OPTIMIZERS:
        near = suggest(values["optimizer"], OPTIMIZERS)
        raise UsageError(f"unknown optimiser {values['optimizer']!r}{near}; known: {', '.join(OPTIMIZERS)}")
    if values["distill"] not in DISTILL:
        near = suggest(values["distill"], DISTILL)
        raise UsageError(f"unknown way of distillation {values['distill']!r}{near}; known: {', '.join(DISTILL)}")
    if values["temperature"] <= 0 or values["alpha"] > 1:
        raise UsageError("the temperature of a distillation must be above 0, and alpha at most 1")
    taken = [name for name in FROM_DATA if name in values["model_args"]]
    if taken:
        raise UsageError(
            f"{taken[0]} is not a model argument of a run: the data set gives num_classes, img_size "
            "and in_chans, and --seed and --drop-path the others"
        )
    if values["warmup_epochs"] > values["epochs"]:
        raise UsageError(
            f"a warm-up of {values['warmup_epochs']:g} epochs is longer than the run of {values['epochs']}"
        )


def differences(config, overrides):
    """Return one phrase for each setting in ``overrides`` that is not what ``config`` holds.

    Used when a run is resumed: a setting that is repeated is fine, one that is changed is not.
    """
    phrases = []
    for name, value in overrides.items():
        if name == "model_args":
            pairs = [(f"--model-arg {key}=", new, config.model_args.get(key)) for key, new in value.items()]
        else:
            pairs = [("--" + name.replace("_", "-") + " ", value, getattr(config, name))]
        phrases += [f"{option}{new} (the run has {old})" for option, new, old in pairs if new != old]
    return phrases
