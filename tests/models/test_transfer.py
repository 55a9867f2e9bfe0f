"""Weights in a model of another image size or number of classes: grids that are no squares, and what no weights are."""

import numpy as np
import pytest

from minivit.errors import StateDictError
from minivit.models import create_model
from minivit.models.positions import resample_positions
from minivit.models.transfer import transfer

SIZES = {"patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3, "num_classes": 5}


@pytest.fixture
def arrays():
    """The weights of a model for images of 8x32 pixels, that is 2x8 patches."""
    return create_model("vit", img_size=(8, 32), **SIZES).state_dict()


@pytest.mark.parametrize("new, grid", [(16, (4, 4)), (24, (6, 6)), ((32, 8), (8, 2)), ((16, 48), (4, 12))])
def test_oblong_tables_are_resampled_from_their_own_grid(arrays, new, grid):
    found = transfer(arrays, "vit", {**SIZES, "img_size": new}, grids={"pos_embed": (2, 8)})
    assert found.resampled == {"pos_embed": ((2, 8), grid)} and found.dropped == []
    expected = resample_positions(arrays["pos_embed"], grid, prefix=1, old_grid=(2, 8))
    np.testing.assert_array_equal(found.model.pos_embed.data, expected)


def test_the_same_grid_is_taken_as_it_is(arrays):
    for grids in (None, {"pos_embed": (2, 8)}):
        found = transfer(arrays, "vit", {**SIZES, "img_size": (8, 32)}, grids=grids)
        assert found.resampled == {}
        np.testing.assert_array_equal(found.model.pos_embed.data, arrays["pos_embed"])


@pytest.mark.parametrize("grids", [None, {}, {"pos_embed": (3, 8)}])
def test_where_nobody_knows_a_square_is_assumed(arrays, grids):
    found = transfer(arrays, "vit", {**SIZES, "img_size": 24}, grids=grids)
    assert found.resampled == {"pos_embed": ((4, 4), (6, 6))}
    expected = resample_positions(arrays["pos_embed"], (6, 6), prefix=1)
    np.testing.assert_array_equal(found.model.pos_embed.data, expected)


def test_every_stage_of_a_pyramid_has_a_table_of_its_own():
    sizes = {"embed_dims": (8, 16), "depths": (1, 1), "num_heads": (1, 2), "mlp_ratios": (2, 2), "patch_size": 2}
    made_for = create_model("binary_vit", img_size=(8, 32), num_classes=3, **sizes)
    grids = {name: made_for.position_grid(name) for name in made_for.positions}
    assert grids == {"pos_embed": (4, 16), "downsamples.0.pos_embed": (2, 8)}
    arrays = made_for.state_dict()
    found = transfer(arrays, "binary_vit", {**sizes, "img_size": 16}, grids=grids)
    assert found.resampled == {"pos_embed": ((4, 16), (8, 8)), "downsamples.0.pos_embed": ((2, 8), (4, 4))}
    state = found.model.state_dict()
    for name, (old, new) in found.resampled.items():
        np.testing.assert_array_equal(state[name], resample_positions(arrays[name], new, old_grid=old))


@pytest.mark.parametrize("shape", [(10**12, 0), (0, 12), (0,)])
def test_empty_arrays_are_refused_before_they_claim_classes(arrays, shape):
    with pytest.raises(StateDictError, match="head.weight has shape .*no numbers"):
        transfer(arrays | {"head.weight": np.zeros(shape, np.float32)}, "vit", {**SIZES, "img_size": (8, 32)})


@pytest.mark.parametrize("value", [1e300, -1e39, np.nan, np.inf])
def test_numbers_that_are_not_finite_in_float32_are_refused(arrays, value):
    weight = arrays["norm.weight"].astype(np.float64)
    weight[3] = value
    with pytest.raises(StateDictError, match="norm.weight holds numbers that are not finite in float32"):
        transfer(arrays | {"norm.weight": weight}, "vit", {**SIZES, "img_size": (8, 32)})
    weight[3] = 3e38
    found = transfer(arrays | {"norm.weight": weight}, "vit", {**SIZES, "img_size": (8, 32)})
    assert found.model.norm.weight.data[3] == np.float32(3e38)
