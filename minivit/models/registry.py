"""Models by name: ``create_model("sl_vit", num_classes=10)``."""

import dataclasses
import fnmatch
import numbers

import numpy as np

from minivit.errors import UsageError, suggest
from minivit.models.config import convert

_MODELS = {}


def register(name, model_class, config_class, defaults, description):
    """Enter a model: ``model_class(config_class(**defaults), rng=..., generator=...)`` under ``name``.

    Args:
        name: the name users type.
        model_class: a Module class.
        config_class: frozen dataclass; its fields are the keywords of ``create_model``.
        defaults: what this model sets differently from ``config_class``.
        description: one line for listings.
    """
    _MODELS[name] = (model_class, config_class, defaults, description)


def list_models(pattern="*"):
    """Return the sorted names of models that match a shell pattern such as ``"sl_*"``."""
    return sorted(fnmatch.filter(_MODELS, pattern))


def describe_models():
    """Return name -> description."""
    return {name: _MODELS[name][3] for name in list_models()}


def create_model(name, /, *, seed=0, **keywords):
    """Return a new model with random weights.

    Args:
        name: one of ``list_models()``, which stands for values of keywords; those given here count instead.
        seed: of the initial weights, and of the masks of dropout and drop path. None draws no weights: all that
            are random otherwise are 0, and wait to be loaded.
        keywords: fields of the model's configuration, named as in timm: img_size, patch_size, in_chans,
            num_classes, embed_dim, depth, num_heads, mlp_ratio, qkv_bias, drop_rate, attn_drop_rate,
            drop_path_rate ...

    Returns:
        A Module with the attributes ``architecture`` (the name), ``arguments`` (the full configuration as a
        dictionary) and ``generator`` (np.random.Generator that draws the masks).

    Raises:
        UsageError: an unknown name or keyword (the near ones are named), or a value that makes no sense.
    """
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0):
        raise UsageError(f"the seed must be a whole number of at least 0, got {seed!r}")
    config = configure(name, **keywords)
    weights, masks = np.random.SeedSequence(seed or 0).spawn(2)
    generator = np.random.default_rng(masks)
    rng = None if seed is None else np.random.default_rng(weights)
    model = _MODELS[name][0](config, rng=rng, generator=generator)
    model.architecture = name
    model.arguments = dataclasses.asdict(config)
    model.generator = generator
    return model


def configure(name, /, **keywords):
    """Return the configuration that ``create_model`` would build from; raises what that does."""
    if name not in _MODELS:
        raise UsageError(f"unknown model {name!r}{suggest(name, _MODELS)} (python -m minivit lists all)")
    _, config_class, defaults, _ = _MODELS[name]
    fields = {f.name: f for f in dataclasses.fields(config_class)}
    for key in keywords:
        if key not in fields:
            near = suggest(key, fields)
            raise UsageError(f"model {name!r} has no keyword {key!r}{near} (known: {', '.join(fields)})")
    values = {key: _convert(name, key, value, fields[key].type) for key, value in keywords.items()}
    replaced = {field for key in values for field in config_class.replaces.get(key, ())}
    defaults = {key: value for key, value in defaults.items() if key not in replaced}
    config = config_class(**{**defaults, **values})
    config.check_size()
    return config


def accepts(name, keyword):
    """Return whether the model of that name has the keyword; False for unknown names."""
    return name in _MODELS and keyword in {f.name for f in dataclasses.fields(_MODELS[name][1])}


def _convert(name, key, value, kind):
    try:
        return convert(value, kind)
    except TypeError as error:
        raise UsageError(f"model {name!r}: {key} {error}") from None
