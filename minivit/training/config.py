"""The settings of one run, fully resolved: a recipe, and what the user said instead."""

from dataclasses import asdict, dataclass, fields

from minivit.errors import MinivitError, UsageError, suggest
from minivit.training.json_fields import fits, from_json
from minivit.training.recipes import RECIPES, get_recipe
from minivit.training.rules import FREE_ARGUMENTS, FROM_DATA, MODEL_RATES, OPTIMIZERS, refuse_idle, validate

DEFAULT_MODEL = "sl_vit"
DEFAULT_DATA = "shapes10"

TEACHING = {"distill", "alpha", "temperature", "kl_reduction"}
"""Settings that say how a teacher teaches."""


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
    kl_reduction: str = "batch"
    init_from: str | None = None  # path of the checkpoint whose weights the run started from
    init_sha256: str | None = None  # of that file
    resample: str = "bicubic"
    linear_probe: bool = False
    zero_head: bool = False
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    decay_dist_token: bool = False
    nesterov: bool = False
    schedule: str = "cosine"
    ema: float = 0.0
    ema_warmup: bool = False
    resized_crop: float = 0.0
    interpolation: str = "bicubic"
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
    repeated_augmentation: int = 1
    spread_repeats: bool = False

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
        for name in ("epochs", "batch_size", "repeats", "repeated_augmentation"):
            if getattr(config, name) < 1:
                raise MinivitError(f"among the settings, {name}: {getattr(config, name)} is less than 1")
        validate(vars(config))
        return config


def resolve(overrides, base=None):
    """Lay the user's settings over the recipe, or over those of another run.

    What the recipe or that run says for another model falls away where the model that is asked for does not have it.

    Args:
        overrides: field name -> value, only what the user said. A changed ``epochs`` takes the recipe's
            warm-up along in proportion, unless ``warmup_epochs`` is there too; a changed ``batch_size`` the learning
            rate, if the recipe scales it; another ``optimizer`` than the recipe's brings its own ``lr`` and
            ``weight_decay``. With ``init_from`` the model and its arguments are those of that checkpoint.
        base: a TrainConfig whose numbers take the place of the recipe's.

    Returns:
        TrainConfig.

    Raises:
        UsageError: unknown recipe or model, arguments that it does not have, values that contradict each other or the
            checkpoint of ``init_from``, or settings that can have no effect. Whether patches fit the images, data tell.
        MinivitError: the checkpoint of ``init_from`` or of the teacher cannot be read.
    """
    # not at the top: --help reads this file, and must not wait for NumPy
    from minivit.models import accepts

    said = dict(overrides)
    if base is not None and said.setdefault("init_from", base.init_from) == base.init_from:
        said.setdefault("model", base.model)
    saved = _initial_checkpoint(said)
    before = _from_recipe(said) if base is None else base.as_dict()
    _follow(before, said)
    values = before | said
    if values["init_from"] not in (None, before["init_from"]):
        not_inherited = (*FROM_DATA, *MODEL_RATES.values())
        arguments = {name: value for name, value in saved.arguments.items() if name not in not_inherited}
    elif values["model"] != before["model"]:
        arguments = {key: value for key, value in before["model_args"].items() if accepts(values["model"], key)}
    else:
        arguments = before["model_args"]
    values["model_args"] = arguments | said.get("model_args", {})
    for name, keyword in MODEL_RATES.items():
        if name not in said and not accepts(values["model"], keyword):
            values[name] = 0.0  # that of the recipe or the other run is for transformers
    values["auto_augment"] = policy_for(values["auto_augment"], values["data"])
    validate(values)
    network = _configure(values, saved, said.get("model_args", {}))
    if values["teacher"] is None and any(said.get(name) for name in TEACHING):
        raise UsageError("distillation needs a teacher: add --teacher CKPT")
    changed = {name for name, value in said.items() if value and value != before[name]}
    refuse_idle(changed, values, network)
    _add_fingerprints(values)
    return TrainConfig(**values)


def _from_recipe(said):
    """All settings as the recipe has them, for the model, the data, the epochs and so on that are said."""
    model, data = said.get("model", DEFAULT_MODEL), said.get("data", DEFAULT_DATA)
    recipe = get_recipe(said.get("recipe"), data)
    values = {f.name: getattr(recipe, f.name, None) for f in fields(TrainConfig)}
    values.update(model=model, data=data, recipe=recipe.name, seed=0, model_args=recipe.model_args_for(model))
    values.update(lr=recipe.lr_for(model), drop_path=recipe.drop_path_for(model))
    if recipe.pad_small_images and _is_small(data, said.get("img_size")):
        values.update(resized_crop=0.0, crop_padding=4)
    return values


def _follow(values, said):
    """Change the settings, those of a recipe or a run, that go along with others that are said."""
    recipe = RECIPES.get(values["recipe"])  # another version may have had others
    changed = {name for name in ("epochs", "batch_size", "optimizer") if said.get(name, values[name]) != values[name]}
    if "batch_size" in changed and recipe is not None and recipe.scale_lr:
        values["lr"] *= said["batch_size"] / values["batch_size"]
    if "optimizer" in changed:
        values.update(OPTIMIZERS.get(said["optimizer"], {}))  # an unknown one is refused later
    if "epochs" in changed:
        values["warmup_epochs"] = values["warmup_epochs"] * said["epochs"] / values["epochs"]


def _add_fingerprints(values):
    from minivit.training.teacher import fingerprint

    for path, digest, what in (("teacher", "teacher_sha256", "teacher"), ("init_from", "init_sha256", "checkpoint")):
        values[digest] = None if values[path] is None else fingerprint(values[path], what)


def _is_small(data, img_size):
    """Whether images have up to 32 pixels a side."""
    stored = 64 if data == "tiny_imagenet" or data.startswith("folder:") else 32
    return (img_size or stored) <= 32


def _initial_checkpoint(said):
    """Return the Checkpoint of ``init_from``, and put its model into ``said``; None where there is none."""
    if said.get("init_from") is None:
        return None
    from minivit.training import checkpoint

    saved = checkpoint.read(said["init_from"])
    if saved.packed:
        raise UsageError(f"{saved.path} is packed: it holds bits, not weights to start from")
    if said.setdefault("model", saved.architecture) != saved.architecture:
        raise UsageError(f"{saved.path} holds a {saved.architecture}, not a {said['model']}: leave --model out")
    return saved


def _configure(values, saved, model_args):
    """Return the configuration of the network, as far as the size of the images does not matter.

    Args:
        values: all settings.
        saved: the Checkpoint of ``init_from``, or None.
        model_args: those that are said.
    """
    from minivit.models import configure

    if saved is None:
        sized = ("patch_size", "stride", "reductions")  # they have to fit the images
        return configure(values["model"], **{key: v for key, v in values["model_args"].items() if key not in sized})
    own, wanted = saved.configuration(), configure(saved.architecture, **{**saved.arguments, **model_args})
    for name in model_args:
        old, new = getattr(own, name), getattr(wanted, name)
        if old != new and name not in FREE_ARGUMENTS:
            raise UsageError(
                f"{saved.path} holds a {saved.architecture} with {name} {old}, not {new}: leave --model-arg {name} out"
            )
    return wanted


def policy_for(word, data):
    """Return the AutoAugment policy that a user or a recipe means by ``word``, for the data set of that name.

    ``none`` is none, and ``data`` the policy that the small-data paper's code takes for such data.
    """
    if word == "data":
        return "imagenet" if data == "tiny_imagenet" or data.startswith("folder:") else "cifar"
    return "" if word == "none" else word


NOT_SETTABLE = ("model", "data", "recipe", "model_args", "teacher_sha256", "init_sha256")


def settable(pairs, said):
    """Check settings that ``--set`` gives.

    Args:
        pairs: (name, JSON value).
        said: settings that options of their own have given.

    Returns:
        name -> value.

    Raises:
        UsageError: unknown names, values of another kind, or a second value for a setting.
    """
    known = {f.name: f.type for f in fields(TrainConfig) if f.name not in NOT_SETTABLE}
    values = {}
    for name, value in pairs:
        if name not in known:
            raise UsageError(f"no setting {name!r}{suggest(name, known)}; known: {', '.join(known)}")
        if not fits(value, known[name]):
            raise UsageError(f"{name} cannot be {value!r}")
        if values.setdefault(name, said.get(name, value)) != value:
            raise UsageError(f"{name} has two values, {values[name]} and {value}: leave one out")
    for name in ("epochs", "batch_size", "repeats", "repeated_augmentation"):
        if values.get(name, 1) < 1:
            raise UsageError(f"{name} must be at least 1, not {values[name]}")
    return values


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
        if name == "auto_augment" and policy_for(value, config.data) == config.auto_augment:
            continue
        phrases += [f"{option}{new} (the run has {old})" for option, new, old in pairs if new != old]
    return phrases
