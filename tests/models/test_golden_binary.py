"""Whole binary networks against the official code: logits, loss, every gradient, and updated running statistics.

The seeds of the files keep every sign and every rounding away from its threshold, so that float32 flips no bit.
"""

import numpy as np
import pytest
from test_golden_models import DTYPES, assert_close, outputs, part

import minivit
from minivit.kernels import use_backend
from minivit.models.interop import to_minivit

# File -> (name, keywords): the four flat networks and the two pyramids, as the README of the files describes them.
FLAT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
PYRAMID = {
    "img_size": 64, "patch_size": 4, "embed_dims": (4, 8, 16, 32), "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8),
    "mlp_ratios": (8, 8, 4, 4), "reductions": (4, 2, 1, 1),
}  # fmt: skip
FILES = {
    "binary_deit_cls": ("binary_deit_cls", FLAT),
    "binary_deit_gap": ("binary_deit_gap", FLAT),
    "binary_deit_gap_branches": ("binary_deit_branches", FLAT),
    "binary_deit_gap_branches_affine": ("binary_deit_affine", FLAT),
    "binary_vit_pyramid": ("binary_vit", PYRAMID),
    "binary_vit_pyramid_star": ("binary_vit_star", PYRAMID),
}
MODES = pytest.mark.parametrize("mode", ["eval", "train"])


def build(golden, name_of_file, mode):
    """The model of a golden file, with its weights and running statistics; and the file."""
    name, keywords = FILES[name_of_file]
    file = golden(f"{name_of_file}_{mode}")
    model = minivit.create_model(name, num_classes=10, seed=None, **keywords)
    model.load_state_dict(part(file, "param.") | part(file, "buffer."))
    return model.train(mode == "train"), file


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@DTYPES
@MODES
@pytest.mark.parametrize("name", FILES)
def test_logits_gradients_and_statistics_are_the_official_ones(golden, name, mode, dtype, backend):
    model, file = build(golden, name, mode)
    model.astype(dtype)
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
    expected = to_minivit(gradients, model)
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(expected)
    for key, gradient in expected.items():
        if np.abs(gradient).max() < 1e-12:  # 0 in exact arithmetic: what a BatchNorm behind it subtracts again
            assert np.abs(parameters[key].grad).max() < (1e-7 if dtype is np.float64 else 1e-5), key
        else:
            assert_close(parameters[key].grad, gradient, dtype, key)

    before, after = (to_minivit(part(file, prefix), model) for prefix in ("buffer.", "buffer_after."))
    buffers = dict(model.named_buffers())
    assert set(buffers) == set(before) and bool(after) == (mode == "train")
    for key, expected in (after or before).items():
        if key.endswith("num_batches_tracked"):
            assert buffers[key].data == expected
        else:
            assert_close(buffers[key].data, expected, dtype, key)


HIDDEN = {
    "binary_deit_gap_branches_affine": {"blocks.0": "encoder.layer.0", "blocks.2": "encoder.layer.2"},
    "binary_vit_pyramid": {"blocks.0": "encoder.layer.0", "downsamples.0": "encoder.patch_embed1",
                           "blocks.3": "encoder.layer.3", "downsamples.2": "encoder.patch_embed3"},
}  # fmt: skip


@MODES
@pytest.mark.parametrize("name", HIDDEN)
def test_stages_match_inside_too(golden, name, mode):
    """A mismatch in the logits would be found here first."""
    model, file = build(golden, name, mode)
    found = outputs(model.astype(np.float64), minivit.Tensor(file["input"].astype(np.float64)), HIDDEN[name])
    for ours, theirs in HIDDEN[name].items():
        assert_close(found[ours], file[f"hidden.vit.{theirs}"], np.float64, ours)
