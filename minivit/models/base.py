"""``ImageModel``: what all networks share: the check of their input, and the loading of official weights."""

import numpy as np

from minivit.models.interop import to_minivit
from minivit.models.positions import resample_positions
from minivit.nn import Module


class ImageModel(Module):
    """Images (B, in_chans, height, width) -> logits (B, num_classes).

    What families set:
        official_names: tables of ``minivit.models.interop``, by which weights of the official code are renamed.
        computed_names: what official files store, and minivit computes.
        timm_names: the table by which timm's names are other than minivit's, where it has the architecture.
        positions: learned tables over the grid of patches: name -> number of prefix tokens before the grid.
        fixed_tables: tables (1, tokens, width) that follow from the sizes: those of another image size give way.
        grid: (rows, columns) of that grid.
        any_image_size: whether images may have other sizes than ``config.img_size``.
    """

    official_names = ()
    timm_names = ()
    computed_names = ()
    fixed_tables = ()
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

    def position_grid(self, name):
        """(rows, columns) of the grid under the position table ``name``; for families that have several."""
        return self.grid

    def load_state_dict(self, arrays, *, resample="bicubic", grids=None):
        """Copy arrays into parameters and buffers, keeping the dtype of each.

        Args:
            arrays: name -> array, under minivit's names (timm's, wherever timm has the architecture) or those of
                the official code.
            resample: how learned position tables of another grid of patches are brought to this one, a method of
                ``resample_positions``; None refuses them.
            grids: name -> (rows, columns) of the grids under the arrays' position tables, where they are known. A
                table tells its number of rows only: one of this model's shape is taken as it is, another as a square.

        Raises:
            StateDictError: one error that lists all that is missing, unexpected or of another shape; nothing
                has been changed then.
        """
        arrays = to_minivit(arrays, self)
        for name in self.fixed_tables:
            found, table = np.shape(arrays.get(name)), getattr(self, name).data
            if found != table.shape and found[::2] == table.shape[::2]:
                arrays[name] = table
        own = {name: tensor.shape for name, tensor in self.named_parameters()}
        for name, prefix in self.positions.items():
            old_grid, grid = (grids or {}).get(name), self.position_grid(name)
            same = np.shape(arrays.get(name)) == own.get(name) if old_grid is None else old_grid == grid
            if resample is not None and name in arrays and not same:
                table = resample_positions(arrays[name], grid, prefix=prefix, method=resample, old_grid=old_grid)
                if table is not None and table.shape == own.get(name):
                    arrays[name] = table
        super().load_state_dict(arrays)
