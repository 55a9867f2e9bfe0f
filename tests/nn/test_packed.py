"""Packed networks: the logits of the float-simulated ones, bit for bit."""

import copy
import pickle
import threading

import numpy as np
import pytest
from packed_networks import images, logits, network, shaken

from minivit import create_model, load, nn, save
from minivit.errors import UsageError
from minivit.kernels import threads, use_backend
from minivit.models.packing import is_packed, pack
from minivit.nn.init import uniform_fan_in
from minivit.nn.packed import PackedUnit
from minivit.tensor import Tensor, no_grad

PYRAMID = {"depths": (1, 2, 1), "mlp_ratios": (2, 3, 4)}
NETWORKS = {
    "narrow heads": ("binary_vit", {"img_size": 32, "patch_size": 4, "embed_dims": (6, 12, 36),
                                    "num_heads": (3, 2, 4)}),
    "a word and a rest": ("binary_vit", {"img_size": 16, "patch_size": 2, "embed_dims": (20, 40, 120),
                                         "num_heads": (1, 1, 2)}),
    "oblong": ("binary_vit", {"img_size": (16, 48), "patch_size": 2, "embed_dims": (8, 72, 72),
                              "num_heads": (2, 1, 3)}),
    "reductions": ("binary_vit", {"img_size": 32, "patch_size": 2, "embed_dims": (16, 16, 64), "num_heads": (1, 4, 1),
                                  "reductions": (8, 2, 4)}),
    "many keys": ("binary_vit", {"img_size": 24, "patch_size": 2, "embed_dims": (4, 8, 8), "num_heads": (1, 2, 1),
                                 "reductions": (1, 1, 1), "att_prob_clip": 0.02}),
    "star": ("binary_vit_star", {"img_size": 16, "patch_size": 2, "embed_dims": (5, 10, 70), "num_heads": (1, 2, 1)}),
    "class token": ("binary_deit_cls", {"img_size": 24, "patch_size": 8, "embed_dim": 30, "num_heads": 3, "depth": 2}),
    "mean": ("binary_deit_gap", {"img_size": (8, 32), "patch_size": 4, "embed_dim": 66, "num_heads": 1, "depth": 2}),
    "branches": ("binary_deit_branches", {"img_size": (24, 8), "patch_size": 2, "embed_dim": 12, "num_heads": 6,
                                          "depth": 2}),
    "one channel": ("binary_deit", {"img_size": 8, "patch_size": 8, "embed_dim": 3, "num_heads": 3, "depth": 1,
                                    "in_chans": 1}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def restored_threads():
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


def build(case, seed=0):
    name, keywords = NETWORKS[case]
    return network(name, seed, **({**PYRAMID, **keywords} if name.startswith("binary_vit") else keywords))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", NETWORKS)
def test_logits_are_the_same_bit_for_bit(case, count):
    """Of one image and of several, on either number of threads."""
    threads.set_num_threads(count)
    model = build(case)
    x, one = images(model, 3), images(model, 1)  # BLAS may round otherwise for one than for several
    expected, expected_one = logits(model, x), logits(model, one)
    assert np.ptp(expected, axis=0).max() > 1e-3, "all images look alike to this network: it tests nothing"
    assert pack(model) is model and is_packed(model)
    np.testing.assert_array_equal(logits(model, x), expected, strict=True)
    np.testing.assert_array_equal(logits(model, one), expected_one, strict=True)


@pytest.mark.parametrize("case", NETWORKS)
def test_plain_numpy_gives_its_own_logits_bit_for_bit(case):
    with use_backend("numpy"):
        model = build(case)
        x = images(model, 2)
        expected = logits(model, x)
        np.testing.assert_array_equal(logits(pack(model), x), expected, strict=True)


def test_float64_weights_are_packed_as_float32():
    model = build("class token")
    x = images(model, 2)
    expected = logits(model, x)
    np.testing.assert_array_equal(logits(pack(model.astype("float64")), x), expected, strict=True)


@pytest.mark.parametrize(
    "in_features, out_features", [(64, 64), (20, 60), (32, 128), (130, 130), (1, 1), (128, 32), (60, 20), (260, 130)]
)
def test_one_unit(in_features, out_features):
    unit = shaken(nn.BinaryUnit(in_features, out_features, init=uniform_fan_in(np.random.default_rng(0))))
    check_unit(unit, (2, 7, in_features))


@pytest.mark.parametrize("chans, out_chans", [(1, 2), (20, 40), (64, 128), (70, 140), (70, 35)])
def test_one_unit_that_halves_the_grid(chans, out_chans):
    unit = shaken(nn.BinaryUnit(chans, out_chans, grid=(4, 6), init=uniform_fan_in(np.random.default_rng(0))))
    check_unit(unit, (3, 24, chans))


def check_unit(unit, shape):
    """On tokens side by side in memory, and on every second, backwards and with the channels outermost."""
    b, n, c = shape
    space = np.random.default_rng(1).standard_normal((b, n, 2 * c), np.float32)
    for backend in ("numba", "numpy"):
        with no_grad(), use_backend(backend):
            packed = PackedUnit(unit)
            narrow = space[..., :c]
            for x in (narrow.copy(), space[..., ::2], narrow[..., ::-1], np.asfortranarray(narrow)):
                np.testing.assert_array_equal(packed(Tensor(x)).data, unit(Tensor(x)).data, strict=True)


@pytest.mark.parametrize("width", [0, 32, 63, 65, 128, 192])
def test_a_unit_refuses_other_widths_as_in_floats(width):
    unit = nn.BinaryUnit(64, 64, init=uniform_fan_in(np.random.default_rng(0))).eval()
    x = Tensor(np.zeros((1, 2, width), np.float32))
    for backend in ("numba", "numpy"):
        for layer in (unit, PackedUnit(unit)):
            with use_backend(backend), pytest.raises(ValueError, match="expected x of shape .* and a shift of shape"):
                layer(x)


# --- whatever may come in ----------------------------------------------------------------------------------------

BACKENDS = pytest.mark.parametrize("backend", ["numba", "numpy"])


@BACKENDS
@pytest.mark.parametrize("case", NETWORKS)
def test_special_values_in_images_come_through_alike(case, backend):
    with use_backend(backend), np.errstate(all="ignore"):
        model = build(case)
        x = images(model, 5)
        for image, value in enumerate((np.nan, np.inf, -np.inf, 1e38)):
            x.data[image, :, 1, 1] = value  # in one patch
        x.data[4] = -0.0
        expected = logits(model, x)
        np.testing.assert_array_equal(logits(pack(model), x), expected, strict=True)
    assert np.isfinite(expected[4]).all()
    assert np.isfinite(expected[:3]).all() == (case == "class token"), "only signs reach the class token"


@BACKENDS
@pytest.mark.parametrize("case", ["star", "class token", "reductions"])
def test_no_images_have_no_logits(case, backend):
    with use_backend(backend):
        model = build(case)
        expected = logits(model, images(model, 0))
        assert expected.shape == (0, 10)
        np.testing.assert_array_equal(logits(pack(model), images(model, 0)), expected, strict=True)


@BACKENDS
def test_packed_networks_are_float32(backend, tmp_path):
    """Turned to float64, one computes nothing; turned back it is what it was."""
    with use_backend(backend):
        model = build("a word and a rest")
        x = images(model, 2)
        expected = logits(pack(model), x)
        model.astype("float64")
        with pytest.raises(TypeError, match="packed networks are float32, not float64"):
            logits(model, Tensor(x.data.astype(np.float64)))
        with pytest.raises(UsageError, match="packed networks are float32, and .* is float64"):
            save(tmp_path / "a.packed", model)
        assert not list(tmp_path.iterdir())
        np.testing.assert_array_equal(logits(model.astype("float32"), x), expected, strict=True)
        unit = PackedUnit(nn.BinaryUnit(8, 8, init=uniform_fan_in(np.random.default_rng(0))))
        with pytest.raises(TypeError, match="packed networks are float32, not float64"):
            unit(Tensor(np.zeros((1, 2, 8))))


def test_packed_networks_never_train(tmp_path):
    """The layers that are left in floats would move their running statistics."""
    model = pack(build("class token").train())
    x = images(model, 2)
    expected = logits(model, x)
    save(tmp_path / "a.packed", model)
    for packed in (model, load(tmp_path / "a.packed"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(UsageError, match="binary_deit_cls is packed, for evaluation only"):
            packed.train()
        assert packed.eval() is packed.train(False) is packed
        assert not any(module.training for module in packed.modules())
        np.testing.assert_array_equal(logits(packed, x), expected)


def test_several_threads_share_a_packed_network():
    """Each first call arranges the weights; blocks of images that differ in number go through it at once."""
    threads.set_num_threads(2)
    model = build("oblong")
    batches = [images(model, count, seed=count) for count in (1, 5)]
    expected = [logits(model, x) for x in batches]
    pack(model)
    start, found = threading.Barrier(2, timeout=30), [[], []]

    def run(i):
        start.wait()
        found[i] += [logits(model, batches[i]) for _ in range(5)]

    callers = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    for i in range(2):
        assert len(found[i]) == 5
        for result in found[i]:
            np.testing.assert_array_equal(result, expected[i])


def test_weights_are_bits_and_no_latent_ones_are_left():
    model = pack(build("a word and a rest"))
    state = model.state_dict()
    words = state["blocks.3.attn.q.words"]
    assert words.dtype == np.uint64 and words.shape == (120, 2)
    assert not any(name.endswith("layer.weight") for name in state)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_another_network_s_bits_can_be_loaded_after_it_ran():
    """What the kernels have arranged is arranged anew."""
    one, other = pack(build("oblong", 0)), pack(build("oblong", 1))
    x = images(one, 2)
    before, expected = logits(one, x), logits(other, x)
    one.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(logits(one, x), expected)
    assert not np.array_equal(before, expected)


def test_only_binary_networks_are_packed_and_once():
    with pytest.raises(UsageError, match="sl_vit has no binary blocks"):
        pack(create_model("sl_vit", seed=None))
    with pytest.raises(UsageError, match="no binary blocks"):
        pack(create_model("resnet20", seed=None))
    model = pack(build("one channel"))
    with pytest.raises(UsageError, match="packed already"):
        pack(model)
