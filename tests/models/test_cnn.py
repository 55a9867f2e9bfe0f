"""The convolutional teachers against timm's numbers, and what their keywords do."""

import json

import numpy as np
import pytest

import minivit
from minivit.errors import UsageError
from minivit.kernels import use_backend
from minivit.models.regnet import stage_widths

FILES = {"timm_resnet8_cifar": "resnet20", "timm_regnety_tiny": "regnety_002"}
TOLERANCE = {np.float64: 1e-6, np.float32: 1e-4}  # relative to the largest entry of each tensor
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)
SMALL = {
    "resnet20": {"layers": (1, 2), "channels": (4, 6), "num_classes": 5},
    "regnety_nano": {"depth": 3, "w0": 8, "wa": 4.0, "wm": 1.5, "group_size": 4, "stem_width": 4, "num_classes": 5},
}
BOTH = pytest.mark.parametrize("name", SMALL)


def small(name, **keywords):
    return minivit.create_model(name, **{**SMALL[name], **keywords})


def images(*shape, dtype=np.float32):
    return minivit.Tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype))


def part(file, prefix):
    return {key.removeprefix(prefix): file[key] for key in file if key.startswith(prefix)}


def assert_close(found, expected, dtype, what):
    assert found.shape == expected.shape, what
    assert np.abs(found - expected).max() <= TOLERANCE[dtype] * np.abs(expected).max(), what


@pytest.fixture(params=FILES)
def file_and_model(request, golden):
    file = golden(request.param)
    keywords = {k: v for k, v in json.loads(str(file["config"])).items() if k not in ("batch", "class", "seed")}
    model = minivit.create_model(FILES[request.param], seed=None, **keywords)
    model.load_state_dict(part(file, "param.") | part(file, "buffer."))
    for key, tensor in model.named_buffers():
        if key.endswith("num_batches_tracked"):
            tensor.data[...] = 0  # the file holds what it was after training, 1, in both places
    return file, model


@DTYPES
@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("mode", ["", "train_"])
def test_logits_gradients_and_statistics_are_those_of_timm(file_and_model, mode, backend, dtype):
    file, model = file_and_model
    model.astype(dtype).train(mode == "train_")
    x = minivit.Tensor(file["input"].astype(dtype), requires_grad=True)
    with use_backend(backend):
        logits = model(x)
        loss = minivit.cross_entropy(logits, file["labels"])
        loss.backward()
    assert logits.dtype == loss.dtype == x.grad.dtype == dtype
    assert_close(logits.data, file[f"{mode}logits"], dtype, "logits")
    assert_close(loss.data, file[f"{mode}loss"], dtype, "loss")
    gradients = part(file, f"{mode}grad.")
    assert_close(x.grad, gradients.pop("input"), dtype, "gradient of the input")
    parameters = dict(model.named_parameters())
    assert gradients.keys() == parameters.keys()
    for key, expected in gradients.items():
        assert parameters[key].grad.dtype == dtype
        assert_close(parameters[key].grad, expected, dtype, key)
    buffers = part(file, "train_buffer_after." if mode else "buffer.")
    for key, tensor in model.named_buffers():
        expected = buffers.pop(key)
        if key.endswith("num_batches_tracked"):
            assert tensor.data == (mode == "train_") and tensor.dtype == np.int64
        else:
            assert_close(tensor.data, expected, dtype, key)
            assert tensor.dtype == dtype
    assert not buffers


@pytest.mark.parametrize(
    "name, keywords, count",
    [
        ("resnet20", {}, 272_474),
        ("resnet20", {"shortcut": "padding"}, 269_722),
        ("resnet32", {}, 466_906),
        ("resnet32", {"shortcut": "padding"}, 464_154),
        ("resnet56", {}, 855_770),
        ("resnet56", {"shortcut": "padding"}, 853_018),
        ("resnet110", {}, 1_730_714),
        ("resnet110", {"shortcut": "padding"}, 1_727_962),
        ("regnety_nano", {}, 191_146),
        ("regnety_mini", {}, 223_746),
        ("regnety_002", {}, 3_162_996),
        ("regnety_002", {"num_classes": 10}, 2_797_686),
        ("regnety_004", {}, 4_344_144),
    ],
)
def test_parameter_counts(name, keywords, count):
    model = minivit.create_model(name, seed=None, **keywords)
    assert model.num_parameters() == count
    assert model.config.num_classes == keywords.get("num_classes", 1000 if name.startswith("regnety_0") else 10)


@pytest.mark.parametrize(
    "rule, widths, depths",
    [
        ((13, 24, 36.44, 2.49, 8), (24, 56, 152, 368), (1, 1, 4, 7)),
        ((16, 48, 27.89, 2.09, 8), (48, 104, 208, 440), (1, 3, 6, 6)),
        ((18, 200, 106.23, 2.48, 112), (224, 448, 1232, 3024), (2, 4, 11, 1)),
        ((8, 16, 16, 1.9, 8), (16, 32, 56, 112), (1, 1, 2, 4)),
        ((10, 16, 12, 2.0, 8), (16, 32, 64, 128), (1, 2, 4, 3)),
        ((5, 8, 10.0, 1.8, 4), (8, 16, 24, 48), (1, 1, 1, 2)),
        ((3, 24, 0.0, 2.0, 16), (32,), (3,)),  # 24 / 16 rounds to 2 groups
        ((1, 8, 5.0, 2.0, 64), (8,), (1,)),  # one group, as wide as the block
    ],
)
def test_width_rule(rule, widths, depths):
    assert stage_widths(*rule) == (widths, depths)


def test_squeeze_and_excitation_goes_by_the_width_of_the_input_of_the_block():
    state = minivit.create_model("regnety_002", seed=None).state_dict()
    widths = {key.split(".se.")[0]: len(array) for key, array in state.items() if key.endswith("se.fc1.bias")}
    assert [widths[f"s{stage}.b1"] for stage in (1, 2, 3, 4)] == [8, 6, 14, 38]
    assert [widths[f"s{stage}.b2"] for stage in (3, 4)] == [38, 92]


def test_stages_given_by_themselves_equal_those_of_the_rule():
    by_rule = small("regnety_nano")
    config = by_rule.config
    assert (config.widths, config.depths, config.strides) == ((8, 16), (1, 2), (1, 2))
    rest = {key: value for key, value in SMALL["regnety_nano"].items() if key not in ("depth", "w0", "wa", "wm")}
    explicit = minivit.create_model("regnety_nano", widths=[8, 16], depths=[1, 2], **rest)
    both = small("regnety_nano", depth=3, w0=8, wa=4.0, wm=1.5, widths=[8, 16], depths=[1, 2])
    assert both.arguments == by_rule.arguments
    for model in (explicit, both):
        assert model.state_dict().keys() == by_rule.state_dict().keys()
        np.testing.assert_array_equal(model(images(2, 3, 8, 8)).data, by_rule(images(2, 3, 8, 8)).data)


@pytest.mark.parametrize(
    "name, keywords",
    [
        ("resnet20", {"layers": [2], "channels": [3]}),
        ("resnet20", {"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 6), "in_chans": 1}),
        ("resnet20", {"layers": (1, 2), "channels": (3, 7), "shortcut": "padding"}),
        ("resnet20", {"zero_init_last": True, "img_size": (8, 12)}),
        ("regnety_nano", {"se_ratio": 0.0, "in_chans": 2}),
        ("regnety_nano", {"se_ratio": 1.5, "stem_stride": 2, "strides": (2, 1)}),
        ("regnety_nano", {"strides": (), "zero_init_last": False}),
        ("regnety_nano", {"depth": 0, "widths": (6, 4), "depths": (2, 1), "group_size": 2}),
        ("regnety_nano", {"depth": 0, "widths": (6,), "depths": (1,), "group_size": 100, "stem_width": 7}),
    ],
)
def test_other_sizes_make_networks_that_learn(name, keywords):
    model = small(name, **keywords)
    if not model.config.zero_init_last:
        x = images(2, model.config.in_chans, 9, 7)
        logits = model(x)
        assert logits.shape == (2, 5)
        minivit.cross_entropy(logits, np.array([0, 4])).backward()
        for key, parameter in model.named_parameters():
            assert np.abs(parameter.grad).max() > 0, key
    with pytest.raises(ValueError, match=r"expected images of shape \('B', \d, 'H', 'W'\)"):
        model(images(2, 5, 9, 7))


def test_padding_shortcuts_take_every_other_pixel_and_add_zeros():
    block = small("resnet20", shortcut="padding").layer2[0]
    x = images(2, 4, 5, 6)
    out = block.shortcut(x).data
    np.testing.assert_array_equal(out[:, :4], x.data[:, :, ::2, ::2])
    assert out.shape == (2, 6, 3, 3) and not out[:, 4:].any()


@BOTH
def test_blocks_start_as_their_shortcuts(name):
    model = small(name, zero_init_last=True)
    last = "bn2" if name == "resnet20" else "conv3.bn"
    scales = {k: a for k, a in model.state_dict().items() if k.endswith((f"{last}.weight", f"{last}.bias"))}
    assert len(scales) == 6 and not any(a.any() for a in scales.values())
    assert minivit.create_model("regnety_mini", seed=None).config.zero_init_last  # timm's default for RegNet
    assert not minivit.create_model("resnet20", seed=None).config.zero_init_last


@BOTH
def test_initial_weights(name):
    weights = minivit.create_model(name, seed=0, in_chans=20, num_classes=200).state_dict()
    convolutions = {k: a for k, a in weights.items() if a.ndim == 4 and a.size > 3000}
    assert convolutions
    for key, array in convolutions.items():
        groups = array.shape[0] // 8 if "conv2.conv" in key else 1
        fan_out = array.shape[0] * array.shape[2] * array.shape[3] / groups
        assert abs(array.std() / np.sqrt(2 / fan_out) - 1) < 0.08, key
    if name == "regnety_nano":
        assert abs(weights["head.fc.weight"].std() / 0.01 - 1) < 0.05 and not weights["head.fc.bias"].any()


@BOTH
def test_buffers_survive_a_file(name, tmp_path):
    model = small(name)
    model(images(4, 3, 8, 8))
    model.eval()
    minivit.save(tmp_path / "model.npz", model)
    again = minivit.load(tmp_path / "model.npz")
    assert again.arguments == model.arguments
    for (key, a), (other, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert key == other and a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert model.state_dict()[next(k for k in model.state_dict() if "tracked" in k)] == 1
    x = images(2, 3, 9, 9)
    np.testing.assert_array_equal(again.eval()(x).data, model(x).data)


@BOTH
def test_an_image_does_not_see_its_neighbours_in_evaluation(name):
    model = small(name, zero_init_last=False).astype(np.float64)
    model(images(4, 3, 8, 8, dtype=np.float64))
    x = images(3, 3, 8, 8, dtype=np.float64).data
    together = model.eval()(minivit.Tensor(x)).data
    alone = np.concatenate([model(minivit.Tensor(x[i : i + 1])).data for i in range(3)])
    np.testing.assert_allclose(alone, together, rtol=1e-12)
    assert np.abs(model.train()(minivit.Tensor(x)).data - together).max() > 1e-6


@pytest.mark.parametrize(
    "name, keywords, message",
    [
        ("resnet20", {"layers": (1, 1)}, "layers, channels must have one entry for each stage"),
        ("resnet20", {"layers": (), "channels": ()}, "at least 1|one entry for each stage"),
        ("resnet20", {"layers": (1, 0, 1)}, "layers must be at least 1"),
        ("resnet20", {"layers": 3}, "layers must be of type list of ints, got 3"),
        ("resnet20", {"shortcut": "A"}, "shortcut must be one of projection, padding, got 'A'"),
        ("resnet20", {"shortcut": "padding", "channels": (8, 4, 2)}, "channels, so they cannot shrink"),
        ("resnet20", {"patch_size": 4}, "no keyword 'patch_size'"),
        ("regnety_nano", {"depth": 8, "w0": 16, "wa": 16.0, "wm": 1.9, "depths": (1, 1, 2, 3)},
         r"make widths .* and depths \(1, 1, 2, 4\), .*give one or the other"),
        ("regnety_mini", {"depths": (1, 1, 2, 3)}, "widths, depths must have one entry for each stage"),
        ("regnety_nano", {"depth": 0}, "widths, depths must have one entry for each stage"),
        ("regnety_nano", {"depth": -1}, "depth must be at least 0"),
        ("regnety_nano", {"wm": 1.0}, "wm above 1"),
        ("regnety_nano", {"wa": -1.0}, "wa of at least 0"),
        ("regnety_nano", {"w0": 12}, "w0 must be a multiple of 8"),
        ("regnety_nano", {"w0": 3}, "w0 must be at least 8"),
        ("regnety_nano", {"depth": 0, "widths": (12,), "depths": (1,)}, "width 12 does not divide into groups of"),
        ("regnety_nano", {"se_ratio": 0.01}, "se_ratio 0.01 leaves SE no channels"),
        ("regnety_nano", {"se_ratio": float("nan")}, "se_ratio"),
        ("regnety_nano", {"strides": (1, 1, 1, 1, 1)}, "4 stages, but strides"),
        ("regnety_nano", {"strides": (0,)}, "strides must be at least 1"),
        ("regnety_nano", {"group_size": 0}, "group_size must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(name, keywords, message):
    with pytest.raises(UsageError, match=message):
        minivit.create_model(name, seed=None, **keywords)
