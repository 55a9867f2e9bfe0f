"""Weights from elsewhere, in a model with as many classes as they have, or with new ones, at any image size.

The rules are those of DeiT's fine-tuning: position tables are resampled, and classifiers that do not fit are dropped.
"""

from dataclasses import dataclass

import numpy as np

from minivit.errors import StateDictError
from minivit.models.base import ImageModel
from minivit.models.interop import to_minivit
from minivit.models.positions import grid_of
from minivit.models.registry import create_model

_LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class Transfer:
    """What :func:`transfer` made of some weights.

    Args:
        model: the network that holds them.
        dropped: names of the parameters that stay freshly initialised instead: those of the classifiers, or none.
        resampled: name -> (old grid, new grid), each (rows, columns), of the position tables that were resampled.
    """

    model: ImageModel
    dropped: list
    resampled: dict


def transfer(arrays, architecture, arguments, *, num_classes=None, resample="bicubic", grids=None):
    """Make a model and load weights into it.

    Args:
        arrays: name -> array, as :meth:`ImageModel.load_state_dict` takes them.
        architecture, arguments: name and keywords for ``create_model``; ``num_classes`` among them does not count.
        num_classes: None takes as many as the weights have. Where they have another number of them, their
            classifiers are dropped.
        resample: a method of ``resample_positions``.
        grids: name -> (rows, columns) of the grids under the position tables, where they are known (see
            :func:`position_grids`); without, a table that has not the model's shape is taken for that of a square.

    Raises:
        UsageError: no such model, or arguments that make no sense.
        StateDictError: all that is missing, unexpected or of another shape, at once; or an array that is empty or
            holds what is no finite float32.
    """
    _check_numbers(arrays)
    draft = create_model(architecture, seed=None, **arguments)
    arrays = to_minivit(arrays, draft)
    heads = [name for name in classifiers(draft) if np.ndim(arrays.get(name))]
    stored = next((len(arrays[name]) for name in heads), draft.config.num_classes)
    wanted = stored if num_classes is None else num_classes
    dropped = heads if wanted != stored else []

    model = create_model(architecture, seed=0 if dropped else None, **{**arguments, "num_classes": wanted})
    own = {name: parameter.data for name, parameter in model.named_parameters()}
    arrays |= {name: own[name] for name in dropped}
    old_grids = _old_grids(model, arrays, grids or {})
    model.load_state_dict(arrays, resample=resample, grids=old_grids)
    pairs = {name: (old, model.position_grid(name)) for name, old in old_grids.items()}
    return Transfer(model, dropped, {name: (old, new) for name, (old, new) in pairs.items() if old != new})


def position_grids(architecture, arguments):
    """Grids under the position tables of such a model: name -> (rows, columns)."""
    model = create_model(architecture, seed=None, **arguments)
    return {name: model.position_grid(name) for name in model.positions}


def _check_numbers(arrays):
    """Refuse what no weights are: an empty array may claim any number of classes at no cost."""
    for name, array in arrays.items():
        if not array.size:
            raise StateDictError(f"{name} has shape {array.shape}: there are no numbers in it")
        if array.dtype.kind == "f" and not (-_LARGEST <= array.min() and array.max() <= _LARGEST):
            raise StateDictError(f"{name} holds numbers that are not finite in float32")


def _old_grids(model, arrays, known):
    """Grids under the position tables in ``arrays``: name -> (rows, columns). What is known counts where it fits."""
    own = {name: parameter.shape for name, parameter in model.named_parameters()}
    grids = {}
    for name, prefix in model.positions.items():
        if name in arrays and name in own:
            shape, said = np.shape(arrays[name]), known.get(name)
            if said is None or grid_of(shape, prefix, said) is None:
                said = model.position_grid(name) if shape == own[name] else None
            grids[name] = grid_of(shape, prefix, said)
    return {name: grid for name, grid in grids.items() if grid is not None}


def classifiers(model):
    """Names of the parameters with one row for each class: those of another shape where there is one class more."""
    more = {**model.arguments, "num_classes": model.config.num_classes + 1}
    other = create_model(model.architecture, seed=None, **more)
    theirs = {name: parameter.shape for name, parameter in other.named_parameters()}
    return [name for name, parameter in model.named_parameters() if parameter.shape != theirs[name]]
