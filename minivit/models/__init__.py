"""Floor 3: architectures, one file each, and the registry that makes them by name."""

from minivit.models import vit as vit  # registers its models
from minivit.models.registry import create_model, describe_models, list_models

__all__ = ["create_model", "describe_models", "list_models"]
