"""minivit: Vision Transformers for small data, in NumPy, from first principles.

>>> import minivit
>>> model = minivit.create_model("sl_vit", num_classes=10, seed=0)
>>> model.num_parameters()
2729878

Names are loaded on first use, so that ``import minivit`` and every command's ``--help`` stay quick.
"""

import importlib

from minivit.blas import prefer_fast_blas

prefer_fast_blas()  # before anything imports NumPy

__version__ = "0.1.0"

_HOMES = {
    "Tensor": "minivit.tensor",
    "no_grad": "minivit.tensor",
    "cross_entropy": "minivit.ops",
    "gradcheck": "minivit.gradcheck",
    "GradientError": "minivit.gradcheck",
    "create_model": "minivit.models",
    "list_models": "minivit.models",
    "save": "minivit.training.checkpoint",
    "load": "minivit.training.checkpoint",
}
_PACKAGES = ("data", "kernels", "models", "nn", "ops", "training")
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name):
    if name in _PACKAGES:
        return importlib.import_module(f"minivit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'minivit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    return globals().setdefault(name, value)  # importing minivit.gradcheck has set that name to the module


def __dir__():
    return __all__
