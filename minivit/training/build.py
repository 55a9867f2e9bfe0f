"""What a run is made of, from its settings: batches, network, optimiser, learning rate."""

from dataclasses import replace

from minivit.data import DataLoader
from minivit.errors import StateDictError, UsageError
from minivit.models import create_model
from minivit.models.transfer import classifiers, position_grids, transfer
from minivit.training import checkpoint
from minivit.training.optimizers import SGD, Adam, AdamW, decay_all, decay_like_deit, decay_weights
from minivit.training.rules import MODEL_RATES, augmentation
from minivit.training.schedules import PerEpoch, StepDecay, WarmupCosine, WarmupLinear

MILESTONES = (0.5, 0.75)
"""Where the schedule ``step`` divides the rate by 10, as parts of the run (He et al. 2016, section 4.2)."""


def build_loader(config, dataset):
    """The ``DataLoader`` of the training images."""
    return DataLoader(
        dataset.train,
        config.batch_size,
        mean=dataset.mean,
        std=dataset.std,
        seed=config.seed,
        shuffle=True,
        augmentation=augmentation(vars(config)),
        num_classes=dataset.num_classes,
        img_size=dataset.img_size,
        drop_last=config.drop_last,
        repeats=config.repeats,
        repeated_augmentation=config.repeated_augmentation,
        spread=config.spread_repeats,
    )


def build_model(config, dataset):
    """The network with its first weights.

    Raises:
        UsageError: sizes that do not go together.
    """
    model = create_model(config.model, seed=config.seed, **_arguments(config, dataset))
    if config.zero_head:
        parameters = dict(model.named_parameters())
        for name in classifiers(model):
            parameters[name].data[...] = 0
    return model


def load_initial_weights(model, config, class_names):
    """Take over the weights that the run starts from: classifiers only if they are for the same classes, and the
    settings do not want new ones.

    Args:
        class_names: of the run's data set. Of weights without names, the number of classes decides.

    Returns:
        A ``Transfer``: which classifiers stayed new, and which tables were resampled.

    Raises:
        UsageError: its network has other layers at the size of the run's images.
        MinivitError: the checkpoint does not fit.
    """
    saved = checkpoint.read(config.init_from)
    saved.check_sizes()
    options = {
        "num_classes": model.config.num_classes, "resample": config.resample,
        "grids": position_grids(saved.architecture, saved.arguments),
    }  # fmt: skip
    try:
        moved = transfer(saved.weights, config.model, model.arguments, **options)
    except StateDictError as error:
        shape = saved.configuration().image_shape
        transfer(saved.weights, config.model, {**model.arguments, "img_size": shape}, **options)  # is it the size?
        old, new = ("x".join(map(str, sides)) for sides in (shape, model.config.image_shape))
        raise UsageError(
            f"{saved.path} was trained on images of {old} pixels, and a {config.model} has other layers at {new}: "
            f"add --img-size {min(shape)}"
        ) from error
    others = saved.class_names and saved.class_names != tuple(class_names)
    dropped = classifiers(model) if config.zero_head or others else moved.dropped
    new = model.state_dict()
    model.load_state_dict({**moved.model.state_dict(), **{name: new[name] for name in dropped}})
    return replace(moved, dropped=dropped)


def freeze_features(model):
    """Leave only the classifiers to be trained."""
    trained = set(classifiers(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in trained


def build_optimizer(config, model):
    """The optimiser of those parameters that are trained."""
    decays = decay_all if config.decay_all else decay_like_deit if config.decay_dist_token else decay_weights
    options = {"lr": config.lr, "weight_decay": config.weight_decay, "decays": decays}
    if config.optimizer == "sgd":
        options["nesterov"] = config.nesterov
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return {"adamw": AdamW, "adam": Adam, "sgd": SGD}[config.optimizer](trained, **options)


def build_schedule(config, steps):
    """The learning rate as a function of the step: ``steps`` of them make an epoch."""
    length, warmup = config.epochs * steps, round(config.warmup_epochs * steps)
    ramp = {"warmup_steps": warmup, "start": config.warmup_lr}
    if config.schedule == "deit":
        return PerEpoch(WarmupCosine(config.lr, length, floor=config.min_lr, prefix=False, **ramp), steps, lag=1)
    if config.schedule in ("step", "constant"):
        parts = MILESTONES if config.schedule == "step" else ()
        return StepDecay(config.lr, tuple(round(part * length) for part in parts), **ramp)
    kind = {"cosine": WarmupCosine, "linear": WarmupLinear}[config.schedule]
    return kind(config.lr, length, floor=config.min_lr, **ramp)


def _arguments(config, dataset):
    rates = {keyword: getattr(config, name) for name, keyword in MODEL_RATES.items()}
    rates = {keyword: rate for keyword, rate in rates.items() if rate}  # not every model has them
    return {"num_classes": dataset.num_classes, "img_size": dataset.img_size, **rates, **config.model_args}
