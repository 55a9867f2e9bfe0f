"""PyTorch and timm, where they are installed: models of theirs with random weights, to compare with."""

import enum
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings

import numpy as np
import pytest


class InterpolationMode(enum.Enum):
    """As in torchvision, whose members timm lists when it is imported."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _Dummy(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = InterpolationMode if name == "InterpolationMode" else type(name, (), {})
        setattr(self, name, value)
        return value


class _DummyTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves empty modules for ``torchvision.*``: timm imports it, but its models compute nothing with it."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Dummy(spec.name)

    def exec_module(self, module):
        pass


def import_timm():
    """Return the modules (torch, timm), or skip the test and say why."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_DummyTorchvision())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timm = pytest.importorskip("timm", reason="timm is not installed")
    timm.layers.set_fused_attn(False)
    return torch, timm


def random_model(torch, timm, name, seed=0, **keywords):
    """A timm model in float64 and evaluation mode, all of whose weights and statistics matter to its output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(name, **keywords)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for entry, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            spread = 0.3 if tensor.ndim < 2 else tensor[0].numel() ** -0.5
            centre = entry.endswith(("weight", "running_var")) and tensor.ndim == 1  # scales of norms, variances
            numbers = rng.uniform(-1, 1, tensor.shape) * spread * 3**0.5 + float(centre)
            tensor.copy_(torch.from_numpy(numbers.astype(np.float32)))
    return model.double().eval()
