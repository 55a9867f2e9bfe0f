"""Whole models against the official code: logits, loss, and the gradient of every parameter."""

import json

import numpy as np
import pytest

import minivit
from minivit.kernels import use_backend
from minivit.models.interop import to_minivit
from minivit.training.optimizers import AdamW

TOLERANCE = {np.float64: 1e-6, np.float32: 1e-4}  # relative to the largest entry of each tensor
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)

# The official SPT_LSA code: file -> (name, keywords), as the README of the files describes them.
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 3}
CAIT = {"embed_dim": 16, "depth": 2, "depth_token_only": 2, "num_heads": 2, "head_dim": 12, "mlp_ratio": 2.0}
PIT = {"patch_size": 4, "base_dims": (8, 8, 8), "depth": (1, 2, 1), "heads": (2, 4, 8)}
SWIN = {"patch_size": 2, "embed_dim": 12, "depths": (2, 2, 1), "num_heads": (3, 6, 12), "window_size": 4}
T2T = {"embed_dim": 32, "depth": 2, "num_heads": 4, "token_dim": 8}
SPT_LSA = {
    "vit_plain": ("vit", VIT),
    "s_vit": ("s_vit", VIT),
    "l_vit": ("l_vit", VIT),
    "sl_vit_cifar": ("sl_vit", VIT),
    "cait_plain": ("cait", CAIT),
    "sl_cait": ("sl_cait", CAIT),
    "pit_plain": ("pit", PIT),
    "sl_pit": ("sl_pit", PIT),
    "swin_plain": ("swin", SWIN),
    "sl_swin": ("sl_swin", SWIN),
    "t2t_plain_32": ("t2t", T2T),
    "sl_t2t_32": ("sl_t2t", T2T),
    "sl_t2t_64": ("sl_t2t", T2T | {"img_size": 64}),
}
# The full-precision DeiT of the official BinaryViT code, which takes 1e-5 in LayerNorm.
TEACHER = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "norm_eps": 1e-5}
README = SPT_LSA | {"deit_fp_eval": ("deit_small_patch16_224", TEACHER)}
# timm, and the official T2T-ViT: file -> name. The keywords are those of the file.
TIMM = {
    "timm_vit": "vit_tiny_patch16_224",
    "timm_deit_distilled": "deit_tiny_distilled_patch16_224",
    "timm_cait": "cait_xxs24_224",
    "timm_swin": "swin_tiny_patch4_window7_224",
    "timm_pit": "pit_ti_224",
    "t2t_performer": "t2t_vit_14",
    "t2t_transformer": "t2t_vit_t_14",
}
NOT_KEYWORDS = {"batch", "class", "seed", "alpha_hard", "lambda_soft", "tau"}


def part(file, prefix):
    return {key.removeprefix(prefix): file[key] for key in file if key.startswith(prefix)}


def build(name_of_file, file):
    """The model of a golden file, with its weights."""
    if name_of_file in README:
        name, keywords = README[name_of_file]
        model = minivit.create_model(name, num_classes=10, seed=None, **keywords)
    else:
        config = json.loads(str(file["config"]))
        keywords = {key: value for key, value in config.items() if key not in NOT_KEYWORDS}
        model = minivit.create_model(TIMM[name_of_file], seed=None, **keywords)
    model.load_state_dict(part(file, "param.") | part(file, "buffer."))
    return model


def assert_close(found, expected, dtype, what):
    assert found.shape == expected.shape, what
    largest = np.abs(expected).max()
    floor = 1e-7 if largest < 1e-5 else 0  # zero in exact arithmetic: keys' biases, what only shifts a softmax
    error = np.abs(found - expected).max()
    assert error <= max(TOLERANCE[dtype] * largest, floor), f"{what}: {error:.2e} of {largest:.2e}"


def assert_gradients(model, expected, dtype):
    """Every parameter has the official gradient, and those without one have none."""
    expected = to_minivit(expected, model)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        if name.endswith("qkv.bias") and len(gradient) % 3 == 0:  # the keys' third is 0 in exact arithmetic
            keys = slice(len(gradient) // 3, 2 * len(gradient) // 3)
            bound = 1e-7 if dtype is np.float64 else 1e-4 * np.abs(gradient).max()
            assert np.abs(found[name][keys] - gradient[keys]).max() <= bound
        assert_close(found[name], gradient, dtype, name)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@DTYPES
@pytest.mark.parametrize("name", [*README, *TIMM])
def test_logits_and_gradients_are_the_official_ones(golden, name, dtype, backend):
    file = golden(name)
    model = build(name, file).astype(dtype).eval()
    x = minivit.Tensor(file["input"].astype(dtype), requires_grad=True)
    with use_backend(backend):
        logits = model(x)
        loss = minivit.cross_entropy(logits, file["labels"])
        loss.backward()
    assert logits.dtype == loss.dtype == x.grad.dtype == dtype
    assert_close(logits.data, file["logits"], dtype, "logits")
    assert_close(loss.data, file["loss"], dtype, "loss")
    gradients = part(file, "grad.")
    assert_close(x.grad, gradients.pop("input"), dtype, "gradient of the input")
    assert_gradients(model, gradients, dtype)


def outputs(model, x, names):
    """What the submodules with these paths return, name -> array, in one forward pass."""
    found = {}

    def watch(name, module):
        forward = module.forward

        def watched(*args, **kwargs):
            result = forward(*args, **kwargs)
            found[name] = (result[0] if isinstance(result, tuple) else result).data
            return result

        module.forward = watched

    for name in names:
        module = model
        for step in name.split("."):
            module = module[int(step)] if step.isdigit() else getattr(module, step)
        watch(name, module)
    model(x)
    return found


@pytest.mark.parametrize(
    "name, paths",
    [
        ("sl_vit_cifar", {"patch_embed": "to_patch_embedding", "blocks.1": "transformer"}),
        ("sl_cait", {"patch_embed": "to_patch_embedding.0", "blocks.1": "patch_transformer",
                     "blocks_token_only.1": "cls_transformer"}),
        ("sl_pit", {"patch_embed": "to_patch_embedding", "transformers.1.pool": "layers.1",
                    "transformers.1": "layers.2", "transformers.2.pool": "layers.3", "transformers.2": "layers.4"}),
        ("swin_plain", {"patch_embed": "patch_embed", "layers.1.downsample": "layers.0.downsample",
                        "layers.2": "layers.2"}),
        ("sl_swin", {"patch_embed": "patch_embed", "layers.1.downsample": "layers.0.downsample",
                     "layers.2.downsample": "layers.1.downsample", "layers.2": "layers.2"}),
        ("t2t_plain_32", {"tokens_to_token": "tokens_to_token", "blocks.0": "blocks.0"}),
        ("sl_t2t_64", {"tokens_to_token.attention2": "tokens_to_token.attention2",
                       "tokens_to_token": "tokens_to_token"}),
    ],
)  # fmt: skip
def test_stages_match_inside_too(golden, name, paths):
    """A mismatch in the logits would be found here first."""
    file = golden(name)
    model = build(name, file).astype(np.float64).eval()
    found = outputs(model, minivit.Tensor(file["input"].astype(np.float64)), paths)
    for ours, theirs in paths.items():
        assert_close(found[ours], file[f"hidden.{theirs}"], np.float64, ours)


@DTYPES
def test_a_distilled_model_returns_both_heads_in_training_and_their_mean_in_evaluation(golden, dtype):
    file = golden("timm_deit_distilled")
    model = build("timm_deit_distilled", file).astype(dtype)
    x = minivit.Tensor(file["input"].astype(dtype))
    cls, dist = model.train()(x)
    assert_close(cls.data, file["train_head_logits"], dtype, "class head")
    assert_close(dist.data, file["train_head_dist_logits"], dtype, "distillation head")
    answers = {}
    for rule in ("mean", "softmax", "class", "distill"):
        arguments = {key: value for key, value in model.arguments.items() if key != "eval_heads"}
        other = minivit.create_model(model.architecture, seed=None, eval_heads=rule, **arguments)
        other.load_state_dict(model.state_dict())
        answers[rule] = other.astype(dtype).eval()(x).data
    assert_close(answers["mean"], file["logits"], dtype, "mean")
    assert_close(np.exp(answers["softmax"]), file["eval_mean_of_softmax"], dtype, "mean of the softmax outputs")
    np.testing.assert_array_equal(answers["class"], cls.data)
    np.testing.assert_array_equal(answers["distill"], dist.data)


def test_swins_indices_and_masks_are_the_official_ones(golden):
    file = golden("timm_swin")
    model = build("timm_swin", file)
    for i, layer in enumerate(model.layers):
        for j, block in enumerate(layer.blocks):
            place = f"aux.layers.{i}.blocks.{j}"
            np.testing.assert_array_equal(block.attn.index, file[f"{place}.attn.relative_position_index"])
            if f"{place}.attn_mask" in file:
                np.testing.assert_array_equal(block.attn.mask, file[f"{place}.attn_mask"])
            else:
                assert block.attn.mask is None


@DTYPES
def test_ten_steps_of_training_follow_the_official_trajectory(golden, dtype):
    """timm's ViT under PyTorch's AdamW: losses before each step, and weights after ten."""
    file = golden("train_vit_adamw_10steps")
    config = json.loads(str(file["config"]))
    model = minivit.create_model("vit_tiny_patch16_224", seed=None, **config)
    model.load_state_dict(part(file, "init."))
    model.astype(dtype)
    exempt = set(file["no_decay_names"].tolist())
    optimizer = AdamW(
        model.named_parameters(), lr=2e-3, weight_decay=0.05, decays=lambda name, array: name not in exempt
    )
    for images, labels, expected in zip(file["batches"], file["labels"], file["losses"], strict=True):
        loss = minivit.cross_entropy(model(minivit.Tensor(images.astype(dtype))), labels)
        assert abs(loss.item() - expected) <= TOLERANCE[dtype] * expected
        model.zero_grad()
        loss.backward()
        optimizer.step()
    parameters = dict(model.named_parameters())
    for name, expected in part(file, "final.").items():
        found = parameters[name].data
        if name.endswith("qkv.bias"):  # the keys' gradient is 0 in exact arithmetic, and Adam divides by it
            queries, _, values = np.arange(48).reshape(3, 16)
            found, expected = found[[queries, values]], expected[[queries, values]]
        assert_close(found, expected, dtype, name)
