"""What every registered model promises. Walks the registry."""

import numpy as np
import pytest

import minivit
from minivit.errors import UsageError
from minivit.models import configure
from minivit.models.binary_deit import BinaryDeiTConfig
from minivit.models.binary_vit import BinaryViTConfig
from minivit.models.cait import CaiTConfig
from minivit.models.heads import join_heads
from minivit.models.pit import PiTConfig
from minivit.models.regnet import RegNetConfig
from minivit.models.resnet import ResNetConfig
from minivit.models.swin import SwinConfig
from minivit.models.t2t import T2TConfig
from minivit.models.vit import ViTConfig

ALL = pytest.mark.parametrize("name", minivit.list_models())

# Small sizes for each family; a name keeps what else makes it that model.
SMALL = {
    ViTConfig: {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3},
    CaiTConfig: {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "init_values": 0.5},
    PiTConfig: {"patch_size": 4, "stride": None, "base_dims": (4, 4), "depth": (1, 2), "heads": (2, 4)},
    SwinConfig: {"patch_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 3},
    T2TConfig: {"embed_dim": 12, "depth": 2, "num_heads": 3, "token_dim": 4},
    ResNetConfig: {"layers": (1, 2), "channels": (4, 8)},
    RegNetConfig: {"depth": 0, "widths": (8, 16), "depths": (1, 2), "group_size": 4, "stem_width": 8,
                   "se_ratio": 2.0, "zero_init_last": False},
    BinaryDeiTConfig: {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3},
    BinaryViTConfig: {"patch_size": 2, "embed_dims": (6, 12, 24), "depths": (1, 2, 1), "num_heads": (1, 2, 4),
                      "mlp_ratios": (4, 2, 2), "reductions": (2, 1, 1), "att_prob_clip": 0.2},
}  # fmt: skip
CNNS = (ResNetConfig, RegNetConfig)
WITHOUT_NOISE = (*CNNS, BinaryDeiTConfig, BinaryViTConfig)

# Trainable parameters at full size. Small-data models at (32 pixels, 10 classes), (32, 100), (64, 200):
SMALL_DATA = {
    "vit": (2_692_426, 2_709_796, 2_756_744),
    "t_vit": (2_692_534, 2_709_904, 2_756_852),
    "m_vit": (2_692_426, 2_709_796, 2_756_744),
    "l_vit": (2_692_534, 2_709_904, 2_756_852),
    "s_vit": (2_729_770, 2_747_140, 2_906_120),
    "sl_vit": (2_729_878, 2_747_248, 2_906_228),
    "t2t": (6_486_080, 6_509_210, 6_659_262),
    "sl_t2t": (6_507_081, 6_530_211, 6_680_264),
    "cait": (9_020_618, 9_037_988, 9_084_936),
    "sl_cait": (9_058_066, 9_075_436, 9_234_416),
    "pit": (6_972_586, 7_007_236, 7_049_192),
    "sl_pit": (8_642_014, 8_676_664, 8_732_804),
    "swin": (7_073_188, 7_107_838, 7_149_794),
    "sl_swin": (8_562_166, 8_596_816, 8_652_956),
}
# All others as they are registered; with buffers where the second number is given.
FULL_SIZE = {
    "deit_tiny_patch16_224": (5_717_416,),
    "deit_small_patch16_224": (22_050_664,),
    "deit_base_patch16_224": (86_567_656,),
    "deit_base_patch16_384": (86_859_496,),
    "deit_tiny_distilled_patch16_224": (5_910_800,),
    "deit_small_distilled_patch16_224": (22_436_432,),
    "deit_base_distilled_patch16_224": (87_338_192,),
    "deit_base_distilled_patch16_384": (87_630_032,),
    "vit_tiny_patch16_224": (5_717_416,),
    "cait_xxs24_224": (11_956_264,),
    "cait_xxs24_384": (12_029_224,),
    "cait_xxs36_224": (17_299_720,),
    "cait_xxs36_384": (17_372_680,),
    "cait_xs24_224": (26_560_648,),
    "cait_xs24_384": (26_670_088,),
    "cait_xs36_224": (38_557_432,),
    "cait_xs36_384": (38_666_872,),
    "cait_s24_224": (46_916_200,),
    "cait_s24_384": (47_062_120,),
    "cait_s36_224": (68_220_712,),
    "cait_s36_384": (68_366_632,),
    "cait_s48_224": (89_525_224,),
    "cait_s48_384": (89_671_144,),
    "cait_m24_224": (185_850_088,),
    "cait_m24_384": (186_141_928,),
    "cait_m36_224": (270_929_512,),
    "cait_m36_384": (271_221_352,),
    "cait_m48_224": (356_008_936,),
    "cait_m48_384": (356_300_776,),
    "cait_m48_448": (356_460_520,),
    "pit_ti_224": (4_847_272,),
    "pit_ti_distilled_224": (5_104_336,),
    "pit_xs_224": (10_618_888,),
    "pit_s_224": (23_461_912,),
    "pit_s_distilled_224": (24_039_056,),
    "pit_b_224": (73_764_840,),
    "swin_tiny_patch4_window7_224": (28_288_354,),
    "swin_small_patch4_window7_224": (49_606_258,),
    "swin_base_patch4_window7_224": (87_768_224,),
    "swin_large_patch4_window7_224": (196_532_476,),
    "t2t_vit_7": (4_255_694, 4_310_222),
    "t2t_vit_10": (5_834_702, 5_889_230),
    "t2t_vit_12": (6_887_374, 6_941_902),
    "t2t_vit_14": (21_465_806, 21_545_550),
    "t2t_vit_19": (39_085_070, 39_177_422),
    "t2t_vit_24": (64_000_974, 64_105_934),
    "t2t_vit_t_14": (21_465_422, 21_541_070),
    "t2t_vit_t_19": (39_084_686, 39_172_942),
    "t2t_vit_t_24": (64_000_590, 64_101_454),
    "resnet20": (272_474,),
    "resnet32": (466_906,),
    "resnet56": (855_770,),
    "resnet110": (1_730_714,),
    "regnety_002": (3_162_996,),
    "regnety_004": (4_344_144,),
    "regnety_160": (83_590_140,),
    "regnety_nano": (191_146,),
    "regnety_mini": (223_746,),
    "binary_deit_cls": (22_294_900, 22_406_369),
    "binary_deit_gap": (22_294_132, 22_405_601),
    "binary_deit_branches": (22_330_996, 22_442_465),
    "binary_deit_affine": (22_349_428, 22_460_897),
    "binary_deit": (22_349_428, 22_460_897),
    "binary_vit": (22_491_771, 22_618_037),
    "binary_vit_star": (22_488_635, 22_614_901),
}


def small_sizes(name):
    family = type(configure(name))
    img_size = 16 if family is not T2TConfig or configure(name).small_data else 32
    return {"img_size": img_size, "num_classes": 5, **SMALL[family]}


def small(name, **keywords):
    return minivit.create_model(name, **{**small_sizes(name), **keywords})


def images(model, batch=3, dtype=np.float32):
    config = model.config
    return np.random.default_rng(0).standard_normal((batch, config.in_chans, *config.image_shape)).astype(dtype)


def evaluate(model, x):
    with minivit.no_grad():
        return model.eval()(minivit.Tensor(x)).data


def loss_of(model, x, labels):
    """Of both heads in training, where there are two."""
    out = model(minivit.Tensor(x))
    heads = out if isinstance(out, tuple) else (out,)
    return heads, sum(minivit.cross_entropy(logits, labels) for logits in heads)


def test_parameter_counts_are_the_published_ones():
    for name, counts in SMALL_DATA.items():
        for count, img_size, classes in zip(counts, (32, 32, 64), (10, 100, 200), strict=True):
            model = minivit.create_model(name, img_size=img_size, num_classes=classes, seed=None)
            assert model.num_parameters() == count, name
    for name, (count, *entries) in FULL_SIZE.items():
        model = minivit.create_model(name, seed=None)
        assert model.num_parameters() == count, name
        if entries:
            assert [count + sum(buffer.size for _, buffer in model.named_buffers())] == entries, name


@ALL
def test_every_parameter_gets_a_gradient(name):
    model = small(name)
    heads, loss = loss_of(model, images(model), np.array([0, 2, 4]))
    assert len(heads) == (2 if getattr(model.config, "distilled", False) else 1)
    assert all(logits.shape == (3, 5) and logits.dtype == np.float32 for logits in heads)
    loss.backward()
    for key, parameter in model.named_parameters():
        if key.startswith("tokens_to_token.norm") and model.config.small_data:
            assert parameter.grad is None  # the authors store it and never use it
            continue
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape, key
        assert parameter.grad.dtype == np.float32 and np.isfinite(parameter.grad).all(), key
        # what shifts all scores of a row alike has the gradient 0, but for rounding
        assert np.abs(parameter.grad).max() > 0 or key.endswith(("attn.proj_l.bias", "attn.k.bias")), key


@ALL
def test_save_and_load_give_the_same_model(name, tmp_path):
    model = small(name)
    model.train()(minivit.Tensor(images(model)))  # moves running statistics, where there are any
    minivit.save(tmp_path / "model.npz", model)
    again = minivit.load(tmp_path / "model.npz")
    assert again.architecture == name and again.arguments == model.arguments
    assert again.config == model.config
    np.testing.assert_array_equal(evaluate(again, images(model)), evaluate(model, images(model)))


@ALL
def test_an_image_does_not_see_its_neighbours(name):
    model = small(name).astype(np.float64)
    x = images(model, 4, np.float64)
    alone = np.concatenate([evaluate(model, x[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(alone, evaluate(model, x), rtol=1e-12, atol=1e-12)
    assert evaluate(model, x[:0]).shape == (0, 5)


@ALL
def test_float32_agrees_with_float64(name):
    model = small(name)
    x = images(model)
    single = evaluate(model, x)
    double = evaluate(model.astype(np.float64), x.astype(np.float64))
    assert single.dtype == np.float32 and double.dtype == np.float64
    np.testing.assert_allclose(single, double, atol=1e-5 * np.abs(double).max())


@ALL
@pytest.mark.parametrize("rate", ["drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_noise_acts_in_training_only_and_repeats_with_the_seed(name, rate):
    if isinstance(configure(name), WITHOUT_NOISE):
        with pytest.raises(UsageError, match=f"has no keyword '{rate}'"):
            small(name, **{rate: 0.4})
        return
    model, twin, quiet = (small(name, **{rate: r}).astype(np.float64) for r in (0.4, 0.4, 0.0))
    x, labels = images(model, dtype=np.float64), np.array([0, 2, 4])
    first, second = (loss_of(model, x, labels)[1].data for _ in range(2))
    assert first != second
    assert loss_of(twin, x, labels)[1].data == first
    np.testing.assert_array_equal(evaluate(model, x), evaluate(quiet, x))


@ALL
def test_the_seed_decides_the_weights(name):
    one, same, other = (small(name, seed=seed).state_dict() for seed in (1, 1, 2))
    for key, array in one.items():
        np.testing.assert_array_equal(array, same[key])
    assert any(not np.array_equal(array, other[key]) for key, array in one.items())


@ALL
def test_images_of_other_shapes_and_dtypes_are_refused(name):
    model = small(name)
    x = images(model)
    with pytest.raises(ValueError, match="expected images of shape"):
        model(minivit.Tensor(x[:, :2]))
    with pytest.raises(ValueError, match="expected images of shape"):
        model(minivit.Tensor(x[0]))
    with pytest.raises(TypeError, match="expected float32 images, like its parameters, got float64"):
        model(minivit.Tensor(x.astype(np.float64)))
    if not isinstance(model.config, CNNS):
        with pytest.raises(ValueError, match="expected images of shape"):
            model(minivit.Tensor(x[:, :, :, 1:]))


SIZES = {  # (height, width): of images that a family takes, and that it refuses, with why
    ViTConfig: ([(12, 12), (8, 20)], {(10, 12): "does not divide into patches of 4"}),
    CaiTConfig: ([(12, 12), (8, 20)], {(12, 10): "does not divide into patches of 4"}),
    PiTConfig: ([(24, 24), (8, 24)], {(3, 12): "patch"}),
    SwinConfig: ([(8, 8), (20, 12)], {(11, 12): "does not divide into patches of 2"}),
    T2TConfig: ([(48, 48), (32, 64)], {(0, 8): "img_size must be at least 1"}),
    ResNetConfig: ([(9, 7), (32, 16)], {}),
    RegNetConfig: ([(33, 18), (32, 16)], {}),
    BinaryDeiTConfig: ([(12, 12), (8, 20)], {(10, 12): "does not divide into patches of 4"}),
    BinaryViTConfig: ([(16, 24), (24, 8)], {(12, 16): "must be a multiple of 8"}),
}


@ALL
def test_image_sizes_by_the_rules_of_the_family(name):
    allowed, refused = SIZES[type(configure(name))]
    for size in allowed:
        model = small(name, img_size=size, in_chans=2)
        assert model.config.image_shape == size
        logits = evaluate(model, images(model, 2))
        assert logits.shape == (2, 5) and np.isfinite(logits).all()
    for size, why in refused.items():
        with pytest.raises(UsageError, match=why):
            small(name, img_size=size)


@ALL
def test_no_grad_records_nothing(name):
    model = small(name)
    with minivit.no_grad():
        out = model(minivit.Tensor(images(model)))
    assert not any(logits.requires_grad for logits in (out if isinstance(out, tuple) else (out,)))


def test_cnns_take_images_of_any_size():
    for name in ("resnet20", "regnety_nano"):
        model = small(name)
        for shape in ((2, 3, 16, 16), (2, 3, 9, 30)):
            assert evaluate(model, np.ones(shape, np.float32)).shape == (2, 5)


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(UsageError, match=r"unknown model 'sl_vti'; did you mean 'sl_vit'"):
        minivit.create_model("sl_vti")
    with pytest.raises(UsageError, match=r"model 'vit' has no keyword 'embed_dims'; did you mean 'embed_dim'"):
        minivit.create_model("vit", embed_dims=3)
    with pytest.raises(UsageError, match="model 'vit' has no keyword 'name'"):
        minivit.create_model("vit", name="vit")


@pytest.mark.parametrize(
    "name, keywords, message",
    [
        ("vit", {"depth": 0}, "depth must be at least 1"),
        ("vit", {"depth": "6"}, "depth must be of type int, got '6'"),
        ("vit", {"num_classes": 2.5}, "num_classes must be of type int"),
        ("vit", {"qkv_bias": 1}, "qkv_bias must be of type bool"),
        ("vit", {"img_size": (32, 32, 32)}, "img_size must be of type int, or a pair of them"),
        ("vit", {"img_size": 1 << 20}, "img_size must be at most 16384"),
        ("vit", {"img_size": 30, "patch_size": 4}, "img_size 30 does not divide into patches of 4"),
        ("vit", {"embed_dim": 10, "num_heads": 4}, "embed_dim 10 does not divide into 4 heads"),
        ("vit", {"drop_path_rate": 1.0}, r"drop_path_rate must lie in \[0, 1\)"),
        ("vit", {"mlp_ratio": 0.0}, "mlp_ratio 0.0"),
        ("vit", {"gelu": "relu"}, "gelu must be one of exact, tanh, got 'relu'"),
        ("vit", {"eval_heads": "sum"}, "eval_heads must be one of mean, softmax, class, distill, got 'sum'"),
        ("cait", {"diagonal": "yes"}, "diagonal must be one of none, published, masked"),
        ("cait", {"init_values": float("nan")}, "init_values must be a finite number, got nan"),
        ("deit_tiny_patch16_224", {"init_values": float("inf")}, "init_values must be a finite number, got inf"),
        ("sl_cait", {"img_size": 4, "patch_size": 4, "diagonal": "masked"}, "a single patch has nothing left"),
        ("cait", {"mlp_ratio_token_only": 0.0}, "mlp_ratio_token_only 0.0 leaves the MLP no sensible width"),
        ("deit_tiny_patch16_224", {"eval_heads": "softmax"}, "eval_heads 'softmax' needs a distilled model"),
        ("vit", {"patch_size": 0}, "patch_size must be at least 1, got 0"),
        ("vit", {"num_classes": 10**12}, "a network of these sizes has at least 192,"),
        ("vit", {"depth": 10**9}, "a network of 1000000000 blocks is more than the 10000 that are allowed"),
        ("regnety_nano", {"depth": 10**9, "w0": 16, "wa": 16.0, "wm": 1.9}, "depth must be at most 10000"),
        ("swin", {"window_size": 256, "img_size": 512, "patch_size": 1}, "a window may have at most 4096 tokens"),
        ("t2t", {"tokens_type": "performer", "learnable_temperature": True}, "a token performer has no softmax"),
        ("pit", {"depth": (1, 2)}, r"must have one entry for each stage, got lengths \[3, 2, 3\]"),
        ("pit", {"depth": 3}, "depth must be of type list of ints, got 3"),
        ("pit", {"base_dims": (48, 40, 48)}, "the width of a stage must be a multiple of that before it"),
        ("sl_pit", {"patch_size": 4, "stride": 2}, "SPT takes patches that do not overlap"),
        ("sl_pit", {"img_size": 36, "patch_size": 4}, "gives a grid of 9x9 patches, not to be halved"),
        ("sl_swin", {"img_size": 36, "patch_size": 4}, "gives a grid of 9x9 patches, not to be halved"),
        ("swin", {"depths": ()}, "must have one entry for each stage"),
        ("swin", {"window_size": 0}, "window_size must be at least 1"),
        ("sl_swin", {"window_size": 1}, "a window of one token"),
        ("t2t_vit_7", {"img_size": 1}, "img_size 1 is too small for the soft splits"),
        ("sl_t2t", {"img_size": 2}, "a single token has nothing left when mask_diagonal hides it from itself"),
        ("t2t_vit_7", {"token_dim": 1}, "needs a token_dim of at least 2, got 1"),
        ("t2t", {"tokens_type": "conv"}, "tokens_type must be one of transformer, performer"),
        ("binary_deit", {"class_token": True}, "class_token and pooling_branches exclude each other"),
        ("binary_deit", {"att_prob_clip": 0.0}, "att_prob_clip must be positive and finite, got 0.0"),
        ("binary_deit", {"mlp_ratio": 2.5}, "mlp_ratio must be of type int, got 2.5"),
        ("binary_deit", {"embed_dim": 100, "num_heads": 3}, "embed_dim 100 does not divide into 3 heads"),
        ("binary_vit", {"att_prob_clip": float("nan")}, "att_prob_clip must be positive and finite, got nan"),
        ("binary_deit", {"embed_dim": 200}, "does not divide into 3 heads: set a number of heads that fits"),
        ("binary_vit", {"img_size": 100}, "img_size must be a multiple of 32 with patch_size 4 and 4 stages, got 100"),
        ("binary_vit", {"depths": (1, 1)}, r"must have one entry for each stage, got lengths \[2, 2, 2, 4\]"),
        ("binary_vit", {"embed_dims": (64, 96, 192, 384)}, "the width of a stage must be a multiple of that before it"),
        ("binary_vit", {"reductions": (3, 1, 1, 1)}, "a grid of 56x56 tokens does not divide by reduction 3"),
        ("binary_vit", {"depths": ()}, "must have one entry for each stage"),
    ],
)
def test_impossible_sizes_are_refused(name, keywords, message):
    with pytest.raises(UsageError, match=message):
        minivit.create_model(name, **keywords)


def test_listing_filters_by_wildcard():
    assert set(minivit.list_models()) >= SMALL_DATA.keys() | FULL_SIZE.keys()
    assert minivit.list_models() == sorted(minivit.list_models())
    assert minivit.list_models("s*_vit") == ["s_vit", "sl_vit"]
    assert minivit.list_models("resnet?0") == ["resnet20"]
    assert minivit.list_models("nothing*") == []


def test_the_two_halves_of_lsa_are_independent():
    """At the start the temperature is d^-1/2, so that only the mask tells the four models apart."""
    x = images(small("vit"))
    vit, t_vit, m_vit, l_vit = (evaluate(small(name), x) for name in ("vit", "t_vit", "m_vit", "l_vit"))
    np.testing.assert_array_equal(t_vit, vit)
    np.testing.assert_array_equal(m_vit, l_vit)
    assert np.abs(m_vit - vit).max() > 1e-3
    names = ("vit", "t_vit", "m_vit", "l_vit", "s_vit", "sl_vit")
    scales = {name: [n for n, _ in small(name).named_parameters() if n.endswith("scale")] for name in names}
    assert [len(scales[name]) for name in names] == [0, 2, 0, 2, 0, 2]


@pytest.mark.parametrize(
    "name, keywords, same_as",
    [
        ("sl_vit", {"spt": False}, "l_vit"),
        ("deit_tiny_distilled_patch16_224", {"distilled": False}, "deit_tiny_patch16_224"),
        ("binary_vit_star", {"full_precision_downsampling": False}, "binary_vit"),
    ],
)
def test_a_name_is_a_set_of_defaults(name, keywords, same_as):
    """Whatever a name stands for, a keyword that says otherwise counts."""
    assert configure(name, **keywords) == configure(same_as)


@pytest.mark.parametrize("name, output_layer", [("vit", False), ("sl_vit", False), ("deit_tiny_patch16_224", True)])
def test_a_single_head_has_an_output_layer_but_in_the_small_data_code(name, output_layer):
    names = [key for key, _ in small(name, num_heads=1).named_parameters()]
    assert any("attn.proj" in key for key in names) == output_layer


def test_the_masked_cait_attends_to_others_only():
    model = small("sl_cait", diagonal="masked")
    attention = model.blocks[0].attn
    q, k = np.random.default_rng(0).standard_normal((2, 2, 3, 5, 4)).astype(np.float32)
    attention.proj_w = None  # what the softmax gives, before heads are mixed once more
    weights = attention.weights(minivit.Tensor(q), minivit.Tensor(k)).data
    np.testing.assert_array_equal(np.diagonal(weights, axis1=2, axis2=3), 0)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)
    published, none = (evaluate(small("sl_cait", diagonal=d), images(model)) for d in ("published", "none"))
    assert np.abs(published - none).max() > 1e-4 and np.abs(published - evaluate(model, images(model))).max() > 1e-4


def test_layer_scale_starts_by_the_rule_of_the_small_data_code():
    model = minivit.create_model("cait", seed=None)
    starts = [float(block.gamma_1.data[0]) for block in model.blocks]
    np.testing.assert_allclose(starts, [0.1] * 18 + [1e-5] * 6)
    assert all(block.gamma_2.data[0] == np.float32(0.1) for block in model.blocks_token_only)


@pytest.mark.parametrize("name, rates", [("deit_tiny_patch16_224", [0.0, 0.1, 0.2]), ("vit", [0.2] * 3)])
def test_stochastic_depth_is_linear_but_in_the_small_data_code(name, rates):
    model = small(name, depth=3, drop_path_rate=0.2)
    np.testing.assert_allclose([block.drop_path.rate for block in model.blocks], rates)


def test_the_mean_of_two_softmax_outputs_does_not_underflow():
    cls, dist = (minivit.Tensor(np.array([row], np.float32), requires_grad=True) for row in ([120, 0, 0], [130, 0, 1]))
    answer = join_heads(cls, dist, False, "softmax")
    np.testing.assert_allclose(answer.data, [[0, -120.693147, -120.693]], rtol=1e-4, atol=1e-6)
    minivit.cross_entropy(answer, np.array([1])).backward()
    assert np.isfinite(cls.grad).all() and np.isfinite(dist.grad).all()
