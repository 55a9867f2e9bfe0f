"""The rule by which binary networks follow the size of images: published at 224 pixels, sensible elsewhere."""

import numpy as np
import pytest

import minivit
from minivit.errors import StateDictError
from minivit.models import binary_sizes, configure


def test_the_published_sizes_at_224_pixels():
    flat, pyramid = configure("binary_deit"), configure("binary_vit")
    assert (flat.patch_size, flat.embed_dim, flat.num_heads, flat.grid) == (16, 384, 6, (14, 14))
    assert (pyramid.patch_size, pyramid.embed_dims) == (4, (64, 128, 256, 512))
    assert (pyramid.num_heads, pyramid.reductions) == ((1, 2, 4, 8), (8, 4, 1, 1))
    assert [rows for rows, _ in pyramid.grids] == [56, 28, 14, 7]
    assert flat.att_prob_clip == pyramid.att_prob_clip == 0.005


@pytest.mark.parametrize("img_size, patches", [(32, (4, 2)), (64, (8, 4))])
def test_small_images(img_size, patches):
    flat, pyramid = configure("binary_deit", img_size=img_size), configure("binary_vit", img_size=img_size)
    assert (flat.patch_size, pyramid.patch_size) == patches
    assert (flat.embed_dim, flat.num_heads, flat.grid) == (192, 3, (8, 8))
    assert (pyramid.embed_dims, pyramid.num_heads) == ((32, 64, 128, 256), (1, 1, 2, 4))
    assert [rows for rows, _ in pyramid.grids] == [16, 8, 4, 2] and pyramid.reductions == (4, 2, 1, 1)
    for config, tokens in ((flat, 64), (pyramid, 16)):  # p = 1 / tokens on average, as at 224 pixels a bit above c
        assert 1 / tokens / config.att_prob_clip == pytest.approx(1 / 196 / 0.005)


@pytest.mark.parametrize(
    "grid, factor",
    [((56, 56), 8), ((28, 28), 4), ((16, 16), 4), ((8, 8), 2), ((16, 8), 2), ((7, 7), 1), ((96, 96), 16)],
)
def test_reductions_divide_the_grid_and_leave_at_least_4x4(grid, factor):
    assert binary_sizes.reduction(grid) == factor


def test_what_is_said_is_not_derived():
    dims = (64, 128, 256, 512)
    config = configure("binary_vit", img_size=32, embed_dims=dims, att_prob_clip=0.1, reductions=(1, 1, 1, 1))
    assert config.embed_dims == dims and config.num_heads == (1, 2, 4, 8)
    assert config.att_prob_clip == 0.1 and config.reductions == (1, 1, 1, 1) and config.patch_size == 2


@pytest.mark.parametrize("name", ["binary_vit", "binary_deit", "binary_deit_cls"])
def test_initial_weights(name):
    """Linear layers as in PyTorch, uniform; tables normal; affine layers from 0.1, those of pooling branches from 0."""
    state = minivit.create_model(name, img_size=32, num_classes=10).state_dict()
    assert all(np.isfinite(array).all() for array in state.values())
    for key, array in state.items():
        start = {"slope": 0.25, "running_var": 1, "att_prob_clip": 0.06125 if name == "binary_vit" else 0.0153125}
        last = key.split(".")[-1]
        if last == "scale":
            assert (array == np.float32(0 if ".pool." in key else 0.1)).all(), key
        elif last in start:
            assert (array == np.float32(start[last])).all(), key
        elif last == "pos_embed":
            assert 0.015 < array.std() < 0.025, key
        elif last == "cls_token":
            assert 0 < np.abs(array).max() < 1e-5
        elif array.ndim > 1 or key in ("head.bias", "patch_embed.proj.bias"):
            fan_in = state[key.replace("bias", "weight")][0].size
            assert 0.7 * fan_in**-0.5 < np.abs(array).max() <= fan_in**-0.5, key
        elif ".norm" in key or key.startswith("norm"):
            assert (array == (last == "weight")).all(), key
        else:
            assert not array.any(), key


def test_position_tables_of_all_stages_follow_another_image_size():
    sizes = {"patch_size": 2, "embed_dims": (4, 8, 8, 8), "depths": (1,) * 4, "reductions": (2, 1, 1, 1)}
    small, large = (minivit.create_model("binary_vit", img_size=size, num_classes=5, **sizes) for size in (32, 64))
    with pytest.raises(StateDictError, match=r"downsamples.0.pos_embed has shape \(1, 64, 8\)"):
        large.load_state_dict(small.state_dict(), resample=None)
    large.load_state_dict(small.state_dict())
    x = minivit.Tensor(np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32))
    assert np.isfinite(large(x).data).all()
    assert len(large.positions) == 4
