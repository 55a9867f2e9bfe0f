"""Whole models against the official code: logits, loss, and the gradient of every parameter."""

import numpy as np
import pytest

import minivit
from minivit.errors import StateDictError
from minivit.kernels import use_backend
from minivit.models.interop import from_spt_lsa
from minivit.training.optimizers import AdamW

FILES = {"vit_plain": "vit", "s_vit": "s_vit", "l_vit": "l_vit", "sl_vit_cifar": "sl_vit"}
TOLERANCE = {np.float64: 1e-6, np.float32: 1e-4}  # relative to the largest entry of each tensor


def part(file, prefix):
    return {key.removeprefix(prefix): file[key] for key in file if key.startswith(prefix)}


def relative_error(found, expected):
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("file, name", FILES.items())
def test_logits_and_gradients_are_the_official_ones(golden, file, name, dtype, backend):
    file, tolerance = golden(file), TOLERANCE[dtype]
    model = minivit.create_model(name, num_classes=10, embed_dim=24, depth=2, num_heads=3)
    model.load_state_dict(from_spt_lsa(part(file, "param."), model))
    model.astype(dtype).eval()
    x = minivit.Tensor(file["input"].astype(dtype), requires_grad=True)
    with use_backend(backend):
        logits = model(x)
        loss = minivit.cross_entropy(logits, file["labels"])
        loss.backward()
    assert logits.dtype == loss.dtype == x.grad.dtype == dtype
    assert relative_error(logits.data, file["logits"]) <= tolerance
    assert relative_error(loss.data, file["loss"]) <= tolerance
    gradients = part(file, "grad.")
    assert relative_error(x.grad, gradients.pop("input")) <= tolerance
    gradients = from_spt_lsa(gradients, model)
    parameters = dict(model.named_parameters())
    assert set(gradients) == set(parameters)
    for key, expected in gradients.items():
        assert relative_error(parameters[key].grad, expected) <= tolerance, key


def test_embedding_and_transformer_match_inside_too(golden):
    """A mismatch in the logits would be found here first."""
    file = golden("sl_vit_cifar")
    model = minivit.create_model("sl_vit", num_classes=10, embed_dim=24, depth=2, num_heads=3)
    model.load_state_dict(from_spt_lsa(part(file, "param."), model))
    model.astype(np.float64).eval()
    x = minivit.Tensor(file["input"].astype(np.float64))
    embedded = model.patch_embed(x)
    assert relative_error(embedded.data, file["hidden.to_patch_embedding"]) <= 1e-6
    out = model.norm(minivit.Tensor(file["hidden.transformer"].astype(np.float64)))
    assert relative_error(model.forward_features(x).data, out.data) <= 1e-6


def test_names_that_are_not_official_are_refused():
    model = minivit.create_model("sl_vit", embed_dim=12, depth=1, num_heads=3)
    with pytest.raises(StateDictError, match="not names of the official SPT_LSA ViT: head.weight, nonsense"):
        from_spt_lsa({"head.weight": np.ones(3), "nonsense": np.ones(3)}, model)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_ten_steps_of_training_follow_the_official_trajectory(golden, dtype):
    """timm's ViT under PyTorch's AdamW: losses before each step, and weights after ten."""
    file = golden("train_vit_adamw_10steps")
    model = minivit.create_model(
        "vit",
        img_size=8,
        patch_size=4,
        num_classes=4,
        embed_dim=16,
        depth=2,
        num_heads=2,
        mlp_ratio=2.0,
        qkv_bias=True,
        norm_eps=1e-6,
    )
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
    for name, expected in part(file, "final.").items():
        found = dict(model.named_parameters())[name].data
        if name.endswith("qkv.bias"):  # the keys' gradient is 0 in exact arithmetic, and Adam divides by it
            queries, _, values = np.arange(48).reshape(3, 16)
            found, expected = found[[queries, values]], expected[[queries, values]]
        assert relative_error(found, expected) <= TOLERANCE[dtype], name
