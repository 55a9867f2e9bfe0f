"""Floor 3: architectures, one file each, and the registry that makes them by name."""

from minivit.models import (  # each registers its models
    binary_deit,
    binary_vit,
    cait,
    pit,
    regnet,
    resnet,
    swin,
    t2t,
    vit,
)
from minivit.models.registry import accepts, configure, create_model, describe_models, list_models

__all__ = ["accepts", "configure", "create_model", "describe_models", "list_models"]
