"""Recipes, and the settings that come of them."""

import json

import pytest

from minivit.errors import UsageError
from minivit.training.config import OPTIMIZERS, TrainConfig, differences, resolve
from minivit.training.recipes import RECIPES, get_recipe


def test_small_data_is_the_paper():
    config = resolve({"data": "cifar100"})
    paper = {
        "recipe": "small_data",
        "epochs": 100,
        "batch_size": 128,
        "lr": 0.003,
        "weight_decay": 0.05,
        "warmup_epochs": 10,
        "min_lr": 1e-6,
        "warmup_lr": 1e-6,
        "label_smoothing": 0.1,
        "drop_path": 0.1,
        "clip": 0.0,
        "repeats": 3,
        "crop_padding": 4,
        "flip": True,
        "decay_all": True,
        "drop_last": True,
        "optimizer": "adamw",
        "seed": 0,
    }
    assert {name: getattr(config, name) for name in paper} == paper
    assert get_recipe("small_data", "cifar100").lr_for("sl_pit") == 0.001


@pytest.mark.parametrize("data, recipe", [("shapes10", "shapes"), ("shapes100", "shapes"), ("cifar10", "small_data")])
def test_default_recipe(data, recipe):
    assert resolve({"data": data}).recipe == recipe


def test_options_lie_over_the_recipe():
    config = resolve({"recipe": "quick", "lr": 0.5, "seed": 3, "model_args": {"depth": 2}})
    assert (config.lr, config.seed) == (0.5, 3)
    assert config.model_args == RECIPES["quick"].model_args_for("sl_vit") | {"depth": 2}


def test_warmup_scales_with_the_epochs():
    assert resolve({"data": "cifar100", "epochs": 30}).warmup_epochs == pytest.approx(3)
    assert resolve({"data": "cifar100", "epochs": 30, "warmup_epochs": 5}).warmup_epochs == 5


def test_an_optimiser_brings_its_own_defaults():
    sgd = resolve({"optimizer": "sgd"})
    assert {"lr": sgd.lr, "weight_decay": sgd.weight_decay} == OPTIMIZERS["sgd"]
    assert (resolve({"optimizer": "sgd", "lr": 0.3}).lr, resolve({"optimizer": "sgd", "weight_decay": 0}).lr) == (
        0.3,
        OPTIMIZERS["sgd"]["lr"],
    )
    assert resolve({"optimizer": "adamw"}) == resolve({})  # the recipe's own: its numbers stay


def test_settings_survive_json():
    config = resolve({"model_args": {"depth": 2}, "limit_train": 10})
    assert TrainConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"recipe": "qick"}, "unknown recipe 'qick'; did you mean 'quick'"),
        ({"optimizer": "adam"}, "unknown optimiser 'adam'; did you mean 'adamw'?"),
        ({"epochs": 2, "warmup_epochs": 3}, "a warm-up of 3 epochs is longer than the run of 2"),
        ({"model_args": {"num_classes": 5}}, "num_classes is not a model argument of a run"),
    ],
)
def test_nonsense_is_refused(overrides, message):
    with pytest.raises(UsageError) as error:
        resolve(overrides)
    assert message in str(error.value)


def test_differences_name_the_option_and_both_values():
    config = resolve({"recipe": "quick", "epochs": 4, "model_args": {"depth": 2}})
    assert differences(config, {"epochs": 4, "model": "sl_vit", "model_args": {"depth": 2}}) == []
    assert differences(config, {"epochs": 5, "batch_size": 64, "model_args": {"depth": 3}}) == [
        "--epochs 5 (the run has 4)",
        "--batch-size 64 (the run has 128)",
        "--model-arg depth=3 (the run has 2)",
    ]


def test_binary_is_the_paper():
    config = resolve({"recipe": "binary", "model": "binary_vit", "data": "folder:photos"})
    assert (config.epochs, config.batch_size, config.lr, config.min_lr) == (300, 512, 5e-4, 1e-5)
    assert (config.weight_decay, config.warmup_epochs, config.label_smoothing, config.drop_path) == (0, 0, 0, 0)
    assert (config.optimizer, config.distill, config.alpha, config.temperature) == ("adamw", "soft", 1, 1)
    assert (config.clip, config.repeats, config.flip) == (0, 1, True)
    assert config.model_args == {}


def test_quick_binary_shrinks_the_pyramid_only():
    for model, arguments in (("binary_vit_star", {"depths": [1, 1, 3, 1]}), ("binary_deit", {})):
        config = resolve({"recipe": "quick_binary", "model": model, "data": "cifar100"})
        assert config.model_args == arguments and config.weight_decay == 0
        assert (config.distill, config.alpha) == ("soft", 1)
