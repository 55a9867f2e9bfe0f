"""What every registered model promises. Walks the registry."""

import numpy as np
import pytest

import minivit
from minivit.errors import UsageError

SMALL = {"img_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 12, "depth": 2, "num_heads": 3}
ALL = pytest.mark.parametrize("name", minivit.list_models())

# Trainable parameters at (32 pixels, 10 classes), (32, 100), (64, 200)
PARAMETERS = {
    "vit": (2_692_426, 2_709_796, 2_756_744),
    "t_vit": (2_692_534, 2_709_904, 2_756_852),
    "m_vit": (2_692_426, 2_709_796, 2_756_744),
    "l_vit": (2_692_534, 2_709_904, 2_756_852),
    "s_vit": (2_729_770, 2_747_140, 2_906_120),
    "sl_vit": (2_729_878, 2_747_248, 2_906_228),
}


def small(name, **keywords):
    return minivit.create_model(name, **{**SMALL, **keywords})


def images(batch=3, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((batch, 3, 16, 16)).astype(dtype)


@ALL
def test_parameter_counts_are_the_published_ones(name):
    for count, img_size, classes in zip(PARAMETERS[name], (32, 32, 64), (10, 100, 200), strict=True):
        model = minivit.create_model(name, img_size=img_size, num_classes=classes)
        assert model.num_parameters() == count
        assert sum(a.size for a in model.state_dict().values()) == count


@ALL
def test_every_parameter_gets_a_gradient(name):
    model = small(name)
    logits = model(minivit.Tensor(images()))
    assert logits.shape == (3, 5) and logits.dtype == np.float32
    minivit.cross_entropy(logits, np.array([0, 2, 4])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape, key
        assert parameter.grad.dtype == np.float32, key
        assert np.isfinite(parameter.grad).all() and np.abs(parameter.grad).max() > 0, key


@ALL
def test_save_and_load_give_the_same_model(name, tmp_path):
    model = small(name).eval()
    minivit.save(tmp_path / "model.npz", model)
    again = minivit.load(tmp_path / "model.npz")
    assert again.architecture == name and again.arguments == model.arguments
    x = minivit.Tensor(images())
    np.testing.assert_array_equal(again.eval()(x).data, model(x).data)


@ALL
def test_an_image_does_not_see_its_neighbours(name):
    model = small(name).astype(np.float64).eval()
    x = images(4, np.float64)
    together = model(minivit.Tensor(x)).data
    alone = np.concatenate([model(minivit.Tensor(x[i : i + 1])).data for i in range(4)])
    np.testing.assert_allclose(alone, together, rtol=1e-12, atol=1e-12)


@ALL
def test_float32_agrees_with_float64(name):
    model = small(name).eval()
    single = model(minivit.Tensor(images())).data
    double = model.astype(np.float64)(minivit.Tensor(images().astype(np.float64))).data
    assert single.dtype == np.float32 and double.dtype == np.float64
    np.testing.assert_allclose(single, double, atol=1e-5 * np.abs(double).max())


@ALL
@pytest.mark.parametrize("rate", ["drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_noise_acts_in_training_only_and_repeats_with_the_seed(name, rate):
    x = minivit.Tensor(images())
    model, twin = small(name, **{rate: 0.4}), small(name, **{rate: 0.4})
    first, second = model(x).data, model(x).data
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(twin(x).data, first)
    np.testing.assert_array_equal(model.eval()(x).data, model(x).data)
    np.testing.assert_array_equal(model(x).data, small(name).eval()(x).data)


@ALL
def test_the_seed_decides_the_weights(name):
    one, same, other = small(name, seed=1), small(name, seed=1), small(name, seed=2)
    for key, array in one.state_dict().items():
        np.testing.assert_array_equal(array, same.state_dict()[key])
    assert any(not np.array_equal(a, other.state_dict()[k]) for k, a in one.state_dict().items())


@ALL
@pytest.mark.parametrize("img_size, patch_size, in_chans", [(12, 3, 1), (20, 5, 4), (8, 8, 3), (7, 1, 2)])
def test_any_image_that_divides_into_patches(name, img_size, patch_size, in_chans):
    model = small(name, img_size=img_size, patch_size=patch_size, in_chans=in_chans)
    x = np.random.default_rng(0).standard_normal((2, in_chans, img_size, img_size)).astype(np.float32)
    logits = model(minivit.Tensor(x))
    assert logits.shape == (2, 5) and np.isfinite(logits.data).all()
    with pytest.raises(ValueError, match="expected images of shape"):
        model(minivit.Tensor(x[:, :, 1:]))


@ALL
def test_one_head_has_no_output_layer(name):
    names = [key for key, _ in small(name, num_heads=1).named_parameters()]
    assert not any("attn.proj" in key for key in names)


@ALL
def test_no_grad_records_nothing(name):
    with minivit.no_grad():
        logits = small(name)(minivit.Tensor(images()))
    assert not logits.requires_grad


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(UsageError, match=r"unknown model 'sl_vti'; did you mean 'sl_vit'"):
        minivit.create_model("sl_vti")
    with pytest.raises(UsageError, match=r"model 'vit' has no keyword 'embed_dims'; did you mean 'embed_dim'"):
        minivit.create_model("vit", embed_dims=3)


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"depth": 0}, "depth must be at least 1"),
        ({"depth": "6"}, "depth must be of type int, got '6'"),
        ({"num_classes": 2.5}, "num_classes must be of type int"),
        ({"qkv_bias": 1}, "qkv_bias must be of type bool"),
        ({"img_size": 30, "patch_size": 4}, "img_size 30 does not divide into patches of 4"),
        ({"embed_dim": 10, "num_heads": 4}, "embed_dim 10 does not divide into 4 heads"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must lie in \[0, 1\)"),
        ({"mlp_ratio": 0.0}, "mlp_ratio 0.0"),
    ],
)
def test_impossible_sizes_are_refused(keywords, message):
    with pytest.raises(UsageError, match=message):
        minivit.create_model("vit", **keywords)


def test_listing_filters_by_wildcard():
    assert minivit.list_models() == sorted(PARAMETERS)
    assert minivit.list_models("s*_vit") == ["s_vit", "sl_vit"]
    assert minivit.list_models("resnet*") == []


def test_the_two_halves_of_lsa_are_independent():
    """At the start the temperature is d^-1/2, so that only the mask tells the four models apart."""
    x = minivit.Tensor(images())
    vit, t_vit, m_vit, l_vit = (small(name)(x).data for name in ("vit", "t_vit", "m_vit", "l_vit"))
    np.testing.assert_array_equal(t_vit, vit)
    np.testing.assert_array_equal(m_vit, l_vit)
    assert np.abs(m_vit - vit).max() > 1e-3
    names = {name: [n for n, _ in small(name).named_parameters() if n.endswith("scale")] for name in PARAMETERS}
    assert {name: len(scales) for name, scales in names.items()} == {
        "vit": 0, "t_vit": 2, "m_vit": 0, "l_vit": 2, "s_vit": 0, "sl_vit": 2,
    }  # fmt: skip


@ALL
def test_images_of_another_dtype_are_refused(name):
    with pytest.raises(TypeError, match="expected float32 images, like its parameters, got float64"):
        small(name)(minivit.Tensor(images(dtype=np.float64)))
