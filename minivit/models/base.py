"""``ImageModel``: what all networks share: the check of their input, and the loading of official weights."""

import numpy as np

from minivit.models.interop import to_minivit
from minivit.models.positions import resample_positions
from minivit.nn import Module


class ImageModel(Module):
    """Images (B, in_chans, height, width) -> logits (B, num_classes).

    What families set:
        official_names: tables of ``minivit.models.interop``, by which weights of the official code are renamed.
        timm_names: the table by which timm's names are other than minivit's, where it has the architecture.
        positions: learned tables over the grid of patches: name -> number of prefix tokens before the grid.
        grid: (rows, columns) of that grid.
        any_image_size: whether images may have other sizes than ``config.img_size``.
    """

    official_names = ()
    timm_names = ()
    positions = {}
    any_image_size = False

    def __init__(self, config):
        self.config = config

    def check_images(self, x):
        """Raise ValueError or TypeError unless ``x`` has the shape and dtype that this network takes."""
        name, dtype = type(self).__name__, next(self.parameters()).dtype
        chans, size = self.config.in_chans, self.config.image_shape
        wrong_size = not self.any_image_size and tuple(x.shape[2:]) != size
        if x.ndim != 4 or x.shape[1] != chans or wrong_size:
            expected = ("B", chans, *(("H", "W") if self.any_image_size else size))
            raise ValueError(f"{name}: expected images of shape {expected}, got {x.shape}")
        if x.dtype != dtype:
            raise TypeError(f"{name}: expected {dtype} images, like its parameters, got {x.dtype}")

    def load_state_dict(self, arrays, *, resample="bicubic"):
        """Copy arrays into parameters and buffers, keeping the dtype of each.

        Args:
            arrays: name -> array, under minivit's names (timm's, wherever timm has the architecture) or those of
                the official code.
            resample: how learned position tables of another grid of patches are brought to this one, a method of
                ``resample_positions``; None refuses them.

        Raises:
            StateDictError: one error that lists all that is missing, unexpected or of another shape; nothing
                has been changed then.
        """
        arrays = to_minivit(arrays, self)
        own = {name: tensor.shape for name, tensor in self.named_parameters()}
        for name, prefix in self.positions.items():
            if resample is not None and name in arrays and np.shape(arrays[name]) != own.get(name):
                table = resample_positions(arrays[name], self.grid, prefix=prefix, method=resample)
                if table is not None and table.shape == own.get(name):
                    arrays[name] = table
        super().load_state_dict(arrays)
