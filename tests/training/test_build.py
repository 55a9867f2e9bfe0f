"""Settings reach the parts of a run: each changes the one thing that it is for."""

import pytest
from blobs import SETTINGS, make_blobs

import minivit
from minivit.training import build, trainer
from minivit.training.config import resolve
from minivit.training.optimizers import SGD, Adam, AdamW

DISTILLED = {"model": "deit_tiny_distilled_patch16_224", "recipe": "quick"}
WEIGHTS = {"blocks.0.attn.qkv.weight", "patch_embed.proj.weight", "head.weight", "head_dist.weight"}
TABLES = {"cls_token", "dist_token", "pos_embed", "norm.weight", "head.bias"}


def optimizer(**settings):
    config = resolve(SETTINGS | DISTILLED | settings)
    return build.build_optimizer(config, build.build_model(config, make_blobs()))


@pytest.mark.parametrize(
    "settings, others",
    [({}, set()), ({"decay_dist_token": True}, {"dist_token"}), ({"decay_all": True}, TABLES)],
)
def test_what_decays(settings, others):
    decay = optimizer(weight_decay=0.3, **settings).weight_decay
    assert {name: decay[name] for name in WEIGHTS | TABLES} == (
        dict.fromkeys(TABLES, 0.0) | dict.fromkeys(WEIGHTS | others, 0.3)
    )


@pytest.mark.parametrize("name, kind", [("adamw", AdamW), ("adam", Adam), ("sgd", SGD)])
def test_optimisers_by_name(name, kind):
    made = optimizer(optimizer=name, lr=0.25)
    assert type(made) is kind and made.lr == 0.25


@pytest.mark.parametrize("nesterov", [False, True])
def test_nesterov(nesterov):
    made = optimizer(optimizer="sgd", nesterov=nesterov)
    assert (made.momentum, made.nesterov) == (0.9, nesterov)


@pytest.mark.parametrize("spread", [False, True])
def test_repeated_images_are_spread_over_batches(spread):
    config = resolve(SETTINGS | {"repeated_augmentation": 3, "spread_repeats": spread})
    loader = build.build_loader(config, make_blobs(train_images=300))
    first = loader.indices(0, 0)
    assert len(set(first)) == (8 if spread else 3)


def test_settings_of_distillation_reach_its_loss(start, tmp_path, monkeypatch):
    seen = []
    loss = trainer.distillation_loss
    monkeypatch.setattr(trainer, "distillation_loss", lambda *a, **options: seen.append(options) or loss(*a, **options))
    teacher = tmp_path / "teacher.npz"
    minivit.save(teacher, minivit.create_model("resnet20", num_classes=3, img_size=8, layers=(1,), channels=(4,)))
    start(
        teacher=str(teacher), distill="soft", alpha=0.3, temperature=2.5, kl_reduction="numel", label_smoothing=0.2,
        epochs=1, warmup_epochs=0,
    )  # fmt: skip
    wanted = {"mode": "soft", "alpha": 0.3, "temperature": 2.5, "reduction": "numel", "label_smoothing": 0.2}
    assert len(seen) == 3 and all(options == wanted for options in seen)
