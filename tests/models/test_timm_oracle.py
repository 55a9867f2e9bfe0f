"""The models that timm has too, against timm: logits, gradients, and weights carried both ways."""

import re

import numpy as np
import pytest
from timm_oracle import import_timm, random_model

import minivit

TINY_VIT = {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 5}
TINY_CAIT = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 4, "num_classes": 5}
TINY_SWIN = {"patch_size": 2, "embed_dim": 8, "num_classes": 5}
TINY_PIT = {"patch_size": 4, "stride": 2, "num_classes": 5}
CASES = {  # what it tries -> (model, keywords)
    "vit oblong": ("vit_tiny_patch16_224", {**TINY_VIT, "img_size": (8, 20)}),
    "vit layer scale": ("vit_small_patch16_224", {**TINY_VIT, "img_size": 12, "init_values": 0.1, "mlp_ratio": 2.5}),
    "vit no qkv bias": ("vit_base_patch16_224", {**TINY_VIT, "img_size": 8, "qkv_bias": False, "in_chans": 1}),
    "vit tanh": ("vit_tiny_patch16_224", {**TINY_VIT, "img_size": 8, "gelu": "tanh"}),
    "deit one head": ("deit_small_patch16_224", {**TINY_VIT, "img_size": 12, "num_heads": 1}),
    "deit distilled": ("deit_tiny_distilled_patch16_224", {**TINY_VIT, "img_size": (8, 12), "depth": 1}),
    "cait": ("cait_xxs24_224", {**TINY_CAIT, "img_size": 12}),
    "cait wide class blocks": (
        "cait_xxs24_224", {**TINY_CAIT, "img_size": 12, "mlp_ratio": 2.5, "mlp_ratio_token_only": 3.0},
    ),
    "cait three class blocks": ("cait_s36_384", {**TINY_CAIT, "img_size": (8, 16), "depth": 1, "depth_token_only": 3}),
    "swin two windows": (
        "swin_tiny_patch4_window7_224",
        {**TINY_SWIN, "img_size": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
    ),
    "swin oblong, odd window, grids that do not divide": (
        "swin_small_patch4_window7_224",
        {**TINY_SWIN, "img_size": (20, 34), "depths": (2, 2, 2), "num_heads": (1, 2, 4), "window_size": 3},
    ),
    "swin windows that shrink along one side": (
        "swin_base_patch4_window7_224",
        {**TINY_SWIN, "img_size": (8, 36), "depths": (2, 2), "num_heads": (2, 2), "window_size": 7},
    ),
    "swin four stages": (
        "swin_tiny_patch4_window7_224",
        {**TINY_SWIN, "img_size": 48, "depths": (1, 1, 1, 2), "num_heads": (1, 1, 1, 2), "window_size": 5},
    ),
    "pit": (
        "pit_s_224",
        {**TINY_PIT, "img_size": 21, "base_dims": (4, 4, 4), "depth": (1, 1, 2), "heads": (1, 2, 4)},
    ),
    "pit distilled": (
        "pit_ti_distilled_224",
        {**TINY_PIT, "img_size": 24, "base_dims": (6, 6, 6), "depth": (2, 1, 1), "heads": (2, 2, 6)},
    ),
    "pit two stages": (
        "pit_b_224",
        {"img_size": 18, "patch_size": 5, "stride": 3, "base_dims": (8, 4), "depth": (1, 1), "heads": (1, 4),
         "num_classes": 5},
    ),
    "regnety": (
        "regnety_002",
        {"img_size": 40, "num_classes": 5, "depth": 8, "w0": 16, "wa": 16.0, "wm": 1.9, "stem_width": 12},
    ),
    "regnety oblong, widths that groups change, no squeeze": (
        "regnety_004",
        {"img_size": (33, 54), "num_classes": 5, "depth": 6, "w0": 16, "wa": 14.5, "wm": 1.8, "stem_width": 8,
         "group_size": 12, "se_ratio": 0.0},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def libraries():
    return import_timm()


@pytest.fixture(scope="module", params=CASES)
def pair(libraries, request):
    """(timm's model, minivit's) in float64 with the same weights; images for them."""
    return make_pair(libraries, request.param)


def make_pair(libraries, case):
    name, keywords = CASES[case]
    timm_keywords = {key: value for key, value in keywords.items() if key != "gelu"}
    if "gelu" in keywords:
        timm_keywords["act_layer"] = f"gelu_{keywords['gelu']}"
    if name.startswith("regnet"):
        del timm_keywords["img_size"]
    theirs = random_model(*libraries, name, **timm_keywords)
    ours = minivit.create_model(name, seed=1, **keywords).astype(np.float64).eval()
    ours.load_state_dict({key: tensor.numpy() for key, tensor in theirs.state_dict().items()})
    size = keywords["img_size"]
    shape = (2, keywords.get("in_chans", 3), *(size if isinstance(size, tuple) else (size, size)))
    return theirs, ours, np.random.default_rng(5).standard_normal(shape)


def assert_close(found, expected, tolerance, what):
    """``found`` differs by at most ``tolerance`` of the largest entry; a tensor of zeros by 1e-12."""
    error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12 / tolerance)
    assert found.shape == expected.shape and error <= tolerance, f"{what}: {error:.2e}"


def timm_name(name, model):
    """timm's ViT keeps LayerScale in a layer of its own; its CaiT, like minivit's, in the block."""
    return re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name) if model.architecture.startswith("vit_") else name


def test_logits_and_gradients(libraries, pair):
    torch, _ = libraries
    theirs, ours, images = pair
    their_images = torch.from_numpy(images).requires_grad_()
    our_images = minivit.Tensor(images, requires_grad=True)
    expected, found = theirs(their_images), ours(our_images)
    assert_close(found.data, expected.detach().numpy(), 1e-9, "logits")
    cotangent = np.random.default_rng(6).standard_normal(expected.shape)
    expected.backward(torch.from_numpy(cotangent))
    found.backward(cotangent)
    assert_close(our_images.grad, their_images.grad.numpy(), 1e-9, "gradient of the images")
    parameters = {timm_name(name, ours): parameter for name, parameter in ours.named_parameters()}
    gradients = {name: tensor.grad.numpy() for name, tensor in theirs.named_parameters()}
    assert parameters.keys() == gradients.keys()
    for name, expected in gradients.items():
        assert_close(parameters[name].grad, expected, 1e-9, f"gradient of {name}")


@pytest.mark.parametrize("case", [case for case in CASES if "distilled" in case])
def test_both_heads_answer_in_training(libraries, case):
    torch, _ = libraries
    theirs, ours, images = make_pair(libraries, case)
    theirs.set_distilled_training(True)
    with torch.no_grad():
        expected = theirs.train()(torch.from_numpy(images))
    found = ours.train()(minivit.Tensor(images))
    assert len(found) == len(expected) == 2
    for head, (one, other) in enumerate(zip(found, expected)):
        assert_close(one.data, other.numpy(), 1e-9, f"logits of head {head}")


@pytest.mark.parametrize("case", [case for case in CASES if "regnety" in case])
def test_training_with_the_statistics_of_the_batch(libraries, case):
    torch, _ = libraries
    theirs, ours, images = make_pair(libraries, case)
    expected, found = theirs.train()(torch.from_numpy(images)), ours.train()(minivit.Tensor(images))
    assert_close(found.data, expected.detach().numpy(), 1e-9, "logits")
    cotangent = np.random.default_rng(6).standard_normal(expected.shape)
    expected.backward(torch.from_numpy(cotangent))
    found.backward(cotangent)
    gradients = {name: tensor.grad.numpy() for name, tensor in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, gradients[name], 1e-9, f"gradient of {name}")
    after = {name: tensor.numpy() for name, tensor in theirs.named_buffers()}
    for name, buffer in ours.named_buffers():
        assert_close(buffer.data, after[name], 1e-9, name)


def test_weights_go_back(libraries, pair):
    torch, _ = libraries
    theirs, ours, _ = pair
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    state = {timm_name(name, ours): torch.from_numpy(array) for name, array in ours.state_dict().items()}
    assert {name: tensor.dtype for name, tensor in state.items()} == {name: t.dtype for name, t in before.items()}
    theirs.load_state_dict(state, strict=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in theirs.state_dict().items())


def test_names_and_shapes_at_full_size(libraries):
    """Of all models that both have; those for larger images only have larger tables."""
    torch, timm = libraries
    names = sorted(set(minivit.list_models()) & set(timm.list_models()))
    names = [name for name in names if not name.endswith(("_384", "_448"))]
    assert {"vit_base_patch16_224", "cait_s24_224", "pit_b_distilled_224", "swin_tiny_patch4_window7_224"} <= set(names)
    for name in names:
        with torch.device("meta"):  # shapes without numbers
            theirs = timm.create_model(name).state_dict()
        ours = minivit.create_model(name, seed=None)
        shapes = {key: tensor.shape for key, tensor in [*ours.named_parameters(), *ours.named_buffers()]}
        assert shapes == {key: tuple(tensor.shape) for key, tensor in theirs.items()}, name
