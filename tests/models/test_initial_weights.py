"""How networks start, and where they are noisy: the rules of each family's paper and code."""

import re
from math import sqrt

import numpy as np
import pytest

import minivit
from minivit.nn import Dropout, DropPath


def normal(std):
    def check(values):
        assert abs(values.std() / std - 1) < 5 / sqrt(2 * values.size), f"std {values.std():.4f}, not {std:.4f}"
        assert np.abs(values).max() > 2.2 * std  # not cut off at two standard deviations

    return check


def uniform(fan_in):
    def check(values):
        bound = 1 / sqrt(fan_in)
        assert np.abs(values).max() <= bound
        expected, tolerance = bound / sqrt(3), 5 / sqrt(5 * values.size)
        assert abs(values.std() / expected - 1) < tolerance, f"std {values.std():.4f}, not {expected:.4f}"

    return check


def constant(value):
    return lambda values: np.testing.assert_array_equal(values, np.float32(value))


def xavier(fan_in, fan_out):
    return normal(sqrt(2 / (fan_in + fan_out)))


ZERO, ONE = constant(0), constant(1)
NORMS = {r".*norm\d?\.weight": ONE, r".*norm\d?\.bias": ZERO}
SMALL_BLOCK = {
    r"cls_token|pos_embed": normal(1),
    r"blocks\.\d+\.mlp\.fc1\.weight": xavier(192, 384),
    r"blocks\.\d+\.mlp\.fc2\.weight": xavier(384, 192),
    r"head\.weight": xavier(192, 100),
    r"(?!.*norm).*bias": ZERO,
    **NORMS,
}
DEIT_BLOCK = {
    r"(cls|dist)_token|pos_embed": normal(0.02),
    r".*blocks.*(q|k|v|qkv|proj|fc1|fc2)\.weight": normal(0.02),
    r"head(_dist)?\.weight": normal(0.02),
    r"patch_embed\.proj\..*": uniform(768),
    r"(?!.*norm|patch_embed).*bias": ZERO,
    **NORMS,
}
# name -> pattern of parameters -> what their values, taken together, must be. Every parameter is named by a pattern.
START = {
    "sl_vit": SMALL_BLOCK
    | {
        r"patch_embed\.proj\.weight": xavier(240, 192),
        r"blocks\.\d+\.attn\.qkv\.weight": xavier(192, 576),
        r"blocks\.\d+\.attn\.proj\.weight": xavier(192, 192),
        r"blocks\.\d+\.attn\.scale": constant(16**-0.5),
    },
    "cait": SMALL_BLOCK
    | {
        r"patch_embed\.proj\.weight": xavier(48, 192),
        r"blocks_token_only\.\d+\.attn\.q\.weight": xavier(192, 256),
        r"blocks_token_only\.\d+\.attn\.(k|v)\.weight": xavier(192, 512),  # the authors' keys and values are one layer
        r"blocks.*\.proj\.weight": xavier(256, 192),
        r"blocks.*\.proj_(l|w)\.weight": normal(1),
        r"blocks_token_only\.\d+\.mlp\.fc1\.weight": xavier(192, 384),
        r"blocks_token_only\.\d+\.mlp\.fc2\.weight": xavier(384, 192),
        r"blocks\.\d+\.attn\.qkv\.weight": lambda values: None,  # in a test of its own
        r"blocks.*gamma_\d": lambda values: None,  # in test_contract
    },
    "pit": {
        r"cls_token|pos_embed": normal(1),
        r"patch_embed\.conv\.weight": xavier(12, 384),
        r"transformers\.0\.blocks\.\d+\.attn\.qkv\.weight": xavier(96, 288),
        r"transformers\.2\.blocks\.\d+\.mlp\.fc1\.weight": xavier(384, 768),
        r"transformers\.1\.pool\.conv\.weight": xavier(9, 192 * 9),
        r"transformers\.1\.pool\.pointwise\.weight": xavier(192, 192),
        r"transformers\.1\.pool\.fc\.weight": xavier(96, 192),
        r"(?!.*norm).*bias": ZERO,
        r"(?!.*norm).*": lambda values: None,  # the same in other stages
        **NORMS,
    },
    "swin": {
        r"absolute_pos_embed|.*table": normal(0.02),
        r"patch_embed\.proj\..*": uniform(12),
        r"layers\.0\.blocks\.\d+\.attn\.(qkv|proj)\..*": uniform(96),
        r"layers\.2\.blocks\.\d+\.mlp\.fc2\..*": uniform(768),
        r"layers\.1\.downsample\.reduction\.weight": uniform(384),
        r"head\.fc\..*": uniform(384),
        r"(?!.*norm).*": lambda values: None,
        **NORMS,
    },
    "sl_t2t": {
        r"cls_token|(?!.*norm).*\.weight": normal(0.02),
        r"blocks\.\d+\.attn\.scale": constant(64**-0.5),
        r"tokens_to_token\.attention1\.attn\.scale": constant(135**-0.5),  # of the width that comes in
        r"(?!.*norm).*bias": ZERO,
        **NORMS,
    },
    "deit_tiny_distilled_patch16_224": DEIT_BLOCK,
    "cait_xxs24_224": DEIT_BLOCK | {r".*proj_(l|w)\.weight": normal(0.02), r".*gamma_\d": constant(1e-5)},
    "pit_ti_224": {
        r"cls_token|pos_embed": normal(0.02),
        r"patch_embed\.conv\..*": uniform(768),
        r"transformers\.0\.blocks\.\d+\.attn\.(qkv|proj)\..*": uniform(64),
        r"transformers\.2\.blocks\.\d+\.mlp\.fc2\..*": uniform(1024),
        r"transformers\.1\.pool\.conv\..*": uniform(9),
        r"transformers\.2\.pool\.fc\..*": uniform(128),
        r"head\..*": uniform(256),
        r"(?!.*norm).*": lambda values: None,
        **NORMS,
    },
    "swin_tiny_patch4_window7_224": {
        r".*table|(?!.*norm|patch_embed).*weight": normal(0.02),
        r"patch_embed\.proj\..*": uniform(48),
        r"(?!.*norm|patch_embed).*bias": ZERO,
        **NORMS,
    },
    "t2t_vit_7": {
        r"cls_token|(?!.*norm).*weight": normal(0.02),
        r"(?!.*norm).*bias": ZERO,
        **NORMS,
    },
    "resnet20": {
        r"conv1\.weight|layer1\..*conv\d\.weight": normal(sqrt(2 / (9 * 16))),
        r"layer2\..*conv\d\.weight": normal(sqrt(2 / (9 * 32))),
        r"layer3\.0\.downsample\.0\.weight": normal(sqrt(2 / 64)),
        r".*(bn\d|downsample\.1)\.weight": ONE,
        r"fc\..*": uniform(64),
        r".*conv\d\.weight|.*downsample\.0\.weight": lambda values: None,
        r"(?!fc).*bias": ZERO,
    },
    "regnety_002": {
        r"s1\.b1\.conv1\.conv\.weight": normal(sqrt(2 / 24)),
        r"s3\.b2\.conv2\.conv\.weight": normal(sqrt(2 / (9 * 152 / 19))),
        r".*conv3\.bn\.weight": ZERO,  # a block starts as its shortcut
        r"(?!.*conv3).*bn\.weight": ONE,
        r"head\.fc\.weight": normal(0.01),
        r".*bias": ZERO,
        r".*(conv|fc\d)\.weight": lambda values: None,
    },
}


@pytest.mark.parametrize("name", START)
def test_weights_start_by_the_familys_rules(name):
    parameters = dict(minivit.create_model(name, num_classes=100, seed=3).named_parameters())
    groups = {}
    for key, parameter in parameters.items():
        rule = next((pattern for pattern in START[name] if re.fullmatch(pattern, key)), None)
        assert rule is not None, f"no rule for {key}"
        groups.setdefault(rule, []).append(parameter.data.ravel())
    for pattern, values in groups.items():
        try:
            START[name][pattern](np.concatenate(values))
        except AssertionError as error:
            raise AssertionError(f"{pattern}: {error}") from error


def test_small_cait_draws_keys_and_values_as_one_layer():
    model = minivit.create_model("sl_cait", seed=3)
    weights = np.stack([block.attn.qkv.weight.data for block in model.blocks])
    xavier(192, 256)(weights[:, :256])
    xavier(192, 512)(weights[:, 256:])


@pytest.mark.parametrize("name, gamma", [("cait_xxs36_224", 1e-5), ("cait_s36_224", 1e-6), ("cait_m48_448", 1e-6)])
def test_layer_scale_starts_small_in_deep_networks(name, gamma):
    model = minivit.create_model(name, seed=None)
    for block in [*model.blocks, *model.blocks_token_only]:
        assert set(block.gamma_1.data) == set(block.gamma_2.data) == {np.float32(gamma)}


def test_random_features_are_orthogonal():
    for mixer in ("attention1", "attention2"):
        w = getattr(minivit.create_model("t2t_vit_7").tokens_to_token, mixer).w.data
        np.testing.assert_allclose(w @ w.T, 32 * np.eye(32), atol=1e-4)


CONSTANT, LINEAR = [0.2] * 4, [0.0, 0.2 / 3, 0.4 / 3, 0.2]
FOUR = {"depth": 4}
STAGES = {"depth": (1, 2, 1)}


@pytest.mark.parametrize(
    "name, keywords, rates",
    [
        ("sl_vit", FOUR, CONSTANT),
        ("vit_tiny_patch16_224", FOUR, LINEAR),
        ("sl_cait", FOUR, CONSTANT + [0.2, 0.2]),  # in the class blocks too
        ("cait_xxs24_224", FOUR, CONSTANT + [0.0, 0.0]),
        ("sl_pit", STAGES, CONSTANT),
        ("pit_ti_224", STAGES, LINEAR),
        ("sl_swin", {"depths": (1, 2, 1)}, LINEAR),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 2, 1), "num_heads": (3, 6, 12)}, LINEAR),
        ("sl_t2t", FOUR, LINEAR),
        ("t2t_vit_t_14", FOUR, LINEAR),
    ],
)
def test_stochastic_depth(name, keywords, rates):
    model = minivit.create_model(name, seed=None, drop_path_rate=0.2, **keywords)
    found = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    np.testing.assert_allclose(found, rates, atol=1e-12)


@pytest.mark.parametrize("name, noisy", [("sl_cait", True), ("cait_xxs24_224", False)])
def test_dropout_in_the_class_blocks_of_cait(name, noisy):
    model = minivit.create_model(name, seed=None, depth=2, drop_rate=0.3, attn_drop_rate=0.4)
    for block in model.blocks:
        assert (block.attn.attn_drop.rate, block.attn.proj_drop.rate, block.mlp.drop.rate) == (0.4, 0.3, 0.3)
    for block in model.blocks_token_only:
        rates = (block.attn.attn_drop.rate, block.attn.proj_drop.rate, block.mlp.drop.rate)
        assert rates == ((0.4, 0.3, 0.3) if noisy else (0, 0, 0))


def test_the_token_performer_drops_whatever_the_rest_does():
    model = minivit.create_model("t2t_vit_7", seed=None)
    rates = {m.rate for m in model.tokens_to_token.modules() if isinstance(m, Dropout)}
    assert rates == {0.1}
    assert {m.rate for block in model.blocks for m in block.modules() if isinstance(m, Dropout)} == {0.0}
