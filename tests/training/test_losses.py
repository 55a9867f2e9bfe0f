"""Losses against the official code: values and gradients."""

import numpy as np
import pytest

import minivit
from minivit.errors import UsageError
from minivit.training import losses

TOLERANCE = {np.float64: 1e-6, np.float32: 1e-4}  # relative to the largest entry of each tensor
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)


def assert_close(found, expected, dtype, what=""):
    assert found.shape == expected.shape and found.dtype == dtype, what
    assert np.abs(found - expected).max() <= TOLERANCE[dtype] * np.abs(expected).max(), what


LOSSES = {
    "kl_tau1_numel": lambda z, f: losses.soft_distillation(z, f["teacher_logits"], reduction="numel"),
    "kl_tau1_batch": lambda z, f: losses.soft_distillation(z, f["teacher_logits"]),
    "kl_tau3_numel": lambda z, f: losses.soft_distillation(
        z, f["teacher_logits"], temperature=3.0, reduction="numel"
    ),
    "kl_tau3_batch": lambda z, f: losses.soft_distillation(z, f["teacher_logits"], temperature=3.0),
    "soft_target_ce": lambda z, f: minivit.cross_entropy(z, f["soft_targets"]),
    "bce_with_logits": lambda z, f: losses.binary_cross_entropy(z, f["bce_targets"]),
    "sigmoid_xent_sum_over_classes": lambda z, f: losses.binary_cross_entropy(z, f["bce_targets"], sum_classes=True),
}


@DTYPES
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_the_official_ones(golden, name, dtype):
    file = golden("losses")
    z = minivit.Tensor(file["logits"].astype(dtype), requires_grad=True)
    loss = LOSSES[name](z, file)
    loss.backward()
    assert_close(loss.data, file[f"{name}.loss"], dtype)
    assert_close(z.grad, file[f"{name}.grad"], dtype)


@DTYPES
@pytest.mark.parametrize(
    "key, options",
    [
        ("hard", {"mode": "hard", "alpha": 0.5}),
        ("soft_numel", {"mode": "soft", "alpha": 0.1, "temperature": 3.0, "reduction": "numel"}),
        ("soft_batch", {"mode": "soft", "alpha": 0.1, "temperature": 3.0}),
    ],
)
def test_distilled_deit_learns_as_in_the_official_code(golden, key, options, dtype):
    """Through the whole network: the class head learns the labels, the distillation head the teacher."""
    file = golden("timm_deit_distilled")
    keywords = {"img_size": 16, "patch_size": 4, "num_classes": 6, "embed_dim": 24, "depth": 2, "num_heads": 3}
    model = minivit.create_model("deit_tiny_distilled_patch16_224", seed=None, **keywords)
    model.load_state_dict({k.removeprefix("param."): file[k] for k in file if k.startswith("param.")})
    model.astype(dtype).train()
    x = minivit.Tensor(file["input"].astype(dtype), requires_grad=True)
    loss = losses.distillation_loss(model(x), file["labels"], file["teacher_logits"], **options)
    loss.backward()
    assert_close(loss.data, file[f"loss_{key}"], dtype, "loss")
    assert_close(x.grad, file[f"grad_{key}.input"], dtype, "gradient of the input")
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, file[f"grad_{key}.{name}"], dtype, name)


def test_a_student_with_one_head_learns_both_there():
    """Cross-entropy is linear in the target: hard distillation is learning from the mean of the two labels."""
    rng = np.random.default_rng(0)
    logits = minivit.Tensor(rng.standard_normal((4, 3)), requires_grad=True)
    labels, teacher = np.array([0, 2, 1, 1]), rng.standard_normal((4, 3))
    loss = losses.distillation_loss(logits, labels, teacher, mode="hard", alpha=0.5)
    target = (np.eye(3)[labels] + np.eye(3)[teacher.argmax(axis=1)]) / 2
    np.testing.assert_allclose(loss.item(), minivit.cross_entropy(logits, target).item(), rtol=1e-12)


def test_losses_of_large_logits_do_not_overflow():
    z = minivit.Tensor(np.array([[1e4, -1e4, 0.0]], np.float32), requires_grad=True)
    loss = losses.binary_cross_entropy(z, np.array([[0.0, 1.0, 0.5]]), sum_classes=True)
    loss.backward()
    np.testing.assert_allclose(loss.item(), 2e4 + np.log(2), rtol=1e-6)
    np.testing.assert_allclose(z.grad, [[1, -1, 0]], atol=1e-7)
    assert losses.soft_distillation(z, np.array([[-1e4, 1e4, 0.0]])).item() == pytest.approx(2e4)


def test_bad_arguments_are_refused():
    z = minivit.Tensor(np.zeros((2, 3), np.float32))
    with pytest.raises(UsageError, match="unknown mode of distillation 'sotf'; did you mean 'soft'"):
        losses.distillation_loss(z, np.array([0, 1]), np.zeros((2, 3)), mode="sotf")
    with pytest.raises(UsageError, match="unknown reduction 'mean'"):
        losses.soft_distillation(z, np.zeros((2, 3)), reduction="mean")
    with pytest.raises(ValueError, match=r"one shape \(B, K\), not empty, got \(2, 3\) and \(2, 4\)"):
        losses.soft_distillation(z, np.zeros((2, 4)))


@DTYPES
def test_soft_distillation_is_the_loss_of_binaryvit_but_for_the_teachers_entropy(golden, dtype):
    file = golden("losses_binary_sl")
    z = minivit.Tensor(file["logits"].astype(dtype), requires_grad=True)
    loss = losses.distillation_loss(z, file["labels"], file["teacher_logits"], mode="soft", alpha=1.0)
    loss.backward()
    teacher = np.exp(file["teacher_logits"].astype(np.float64))
    teacher /= teacher.sum(axis=1, keepdims=True)
    entropy = -(teacher * np.log(teacher)).sum(axis=1).mean()
    assert loss.item() + entropy == pytest.approx(float(file["distill.loss"]), rel=TOLERANCE[dtype])
    assert_close(z.grad, file["distill.grad"], dtype)
