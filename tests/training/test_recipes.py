"""Recipes, and the settings that come of them."""

import json

import pytest

from minivit.errors import UsageError
from minivit.models import configure
from minivit.training.config import OPTIMIZERS, TrainConfig, differences, resolve, settable
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
        ({"optimizer": "adamv"}, "unknown optimiser 'adamv'; did you mean 'adam' or 'adamw'"),
        ({"repeats": 1001}, "repeats must be at most 1000"),
        ({"ema": 1.0}, "ema must be below 1"),
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


def values(recipe, names, **overrides):
    config = resolve({"recipe": recipe, "data": "folder:photos", **overrides})
    return {name: getattr(config, name) for name in names}


@pytest.mark.parametrize(
    "recipe, model, paper",
    [
        (
            "small_data", "sl_vit",
            {"auto_augment": "imagenet", "erase": 0.25, "erase_mode": "mean", "mixup": 1, "cutmix": 1, "mix_prob": 0.5,
             "mix_switch": 0.5, "mix_partner": "shuffled", "mix_mode": "batch", "ema": 0, "drop_rate": 0},
        ),
        (
            "binary_vit", "binary_vit",
            {"epochs": 300, "batch_size": 512, "lr": 5e-4, "min_lr": 1e-5, "weight_decay": 0, "warmup_epochs": 0,
             "label_smoothing": 0, "drop_path": 0, "optimizer": "adamw", "distill": "soft", "alpha": 1,
             "temperature": 1, "clip": 0, "repeats": 1, "flip": True, "resized_crop": 0.08, "auto_augment": "",
             "mixup": 0, "cutmix": 0, "erase": 0, "schedule": "deit", "interpolation": "bilinear", "model_args": {}},
        ),
        (
            "deit", "deit_small_patch16_224",
            {"epochs": 300, "batch_size": 1024, "lr": 1e-3, "min_lr": 1e-5, "warmup_lr": 1e-6, "weight_decay": 0.05,
             "decay_all": False, "warmup_epochs": 5, "label_smoothing": 0.1, "drop_path": 0.1, "drop_rate": 0,
             "clip": 0, "mixup": 0.8, "cutmix": 1, "mix_prob": 1, "mix_switch": 0.5, "mix_mode": "batch",
             "mix_partner": "reversed", "auto_augment": "rand-m9-mstd0.5-inc1", "resized_crop": 0.08, "erase": 0.25,
             "erase_mode": "pixel", "repeated_augmentation": 3, "repeats": 1, "ema": 0.99996, "optimizer": "adamw"},
        ),
        ("cait", "cait_s36_384", {"epochs": 400, "drop_path": 0.2, "lr": 1e-3, "repeated_augmentation": 3}),
        *(
            ("cait", f"cait_{size}_224", {"drop_path": rate})
            for size, rate in {"xxs24": 0.05, "xxs36": 0.1, "xs24": 0.05, "xs36": 0.1, "s24": 0.1, "s48": 0.3,
                               "m24": 0.2, "m36": 0.3, "m48": 0.4}.items()
        ),
        (
            "augreg_medium2", "vit_base_patch16_224",
            {"epochs": 300, "batch_size": 4096, "lr": 1e-3, "min_lr": 0, "warmup_lr": 0, "weight_decay": 0.1, "clip": 1,
             "auto_augment": "tf-rand-l2-m15", "mixup": 0.5, "cutmix": 0, "mix_partner": "rolled", "drop_rate": 0,
             "drop_path": 0, "attn_drop_rate": 0, "label_smoothing": 0, "erase": 0, "schedule": "cosine",
             "zero_head": True, "warmup_epochs": 32, "resized_crop": 0.05, "interpolation": "bilinear", "flip": True},
        ),
        (
            "augreg_strong2_reg", "vit_base_patch16_224",
            {"auto_augment": "tf-rand-l2-m20", "mixup": 0.8, "drop_rate": 0.1, "drop_path": 0.1, "attn_drop_rate": 0},
        ),
        ("augreg_none", "vit_tiny_patch16_224", {"auto_augment": "", "mixup": 0, "flip": True}),
        ("augreg_light1", "vit_tiny_patch16_224", {"auto_augment": "tf-rand-l2-m0", "mixup": 0}),
        ("augreg_light2", "vit_tiny_patch16_224", {"auto_augment": "tf-rand-l2-m10", "mixup": 0.2}),
        ("augreg_medium1", "vit_tiny_patch16_224", {"auto_augment": "tf-rand-l2-m15", "mixup": 0.2}),
        ("augreg_strong1", "vit_tiny_patch16_224", {"auto_augment": "tf-rand-l2-m20", "mixup": 0.5}),
        (
            "augreg_transfer", "vit_tiny_patch16_224",
            {"optimizer": "sgd", "nesterov": False, "weight_decay": 0, "batch_size": 512, "clip": 1, "mixup": 0,
             "auto_augment": "", "resample": "linear", "zero_head": True, "lr": 3e-3, "epochs": 26,
             "warmup_epochs": 2, "resized_crop": 0, "crop_padding": 4, "drop_path": 0, "label_smoothing": 0},
        ),
        (
            "resnet", "resnet20",
            {"optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-4, "batch_size": 128, "schedule": "step", "drop_path": 0,
             "crop_padding": 4, "flip": True, "epochs": 164, "decay_all": True, "warmup_epochs": 0},
        ),
    ],
)  # fmt: skip
def test_recipes_are_the_papers(recipe, model, paper):
    assert values(recipe, paper, model=model) == paper


def test_levels_of_augreg_come_in_two():
    names = [name for name in RECIPES if name.startswith("augreg_") and name != "augreg_transfer"]
    levels = ("none", "light1", "light2", "medium1", "medium2", "strong1", "strong2")
    assert names == [f"augreg_{level}{reg}" for level in levels for reg in ("", "_reg")]


def test_the_policy_of_the_data_set():
    assert resolve({"data": "cifar100"}).auto_augment == "cifar"
    assert resolve({"data": "tiny_imagenet"}).auto_augment == "imagenet"
    assert resolve({"data": "cifar100", "auto_augment": ""}).auto_augment == ""


def test_the_rate_follows_the_batch_where_the_recipe_says_so():
    assert resolve({"recipe": "deit", "batch_size": 128}).lr == pytest.approx(1e-3 / 8)
    assert resolve({"recipe": "deit", "batch_size": 128, "lr": 0.5}).lr == 0.5
    assert resolve({"recipe": "quick", "batch_size": 64}).lr == 2e-3


def test_deit_pads_small_images():
    crops = [
        values("deit", ("resized_crop", "crop_padding"), data=data, **more)
        for data, more in (("cifar100", {}), ("tiny_imagenet", {}), ("shapes10", {"img_size": 48}))
    ]
    large = {"resized_crop": 0.08, "crop_padding": 0}
    assert crops == [{"resized_crop": 0, "crop_padding": 4}, large, large]


def test_rates_of_transformers_are_not_forced_on_others():
    config = resolve({"recipe": "augreg_light1_reg", "model": "resnet20"})
    assert (config.drop_path, config.drop_rate) == (0, 0)


@pytest.mark.parametrize(
    "recipe, model, arguments",
    [
        ("quick_binary_vit", "binary_vit_star", {"depths": [1, 1, 3, 1]}),
        ("quick_binary_vit", "binary_deit", {}),
        ("quick_small_data", "s_vit", {"embed_dim": 128, "depth": 6, "num_heads": 8}),
        ("quick_deit", "resnet20", {}),
    ],
)
def test_quick_recipes_shrink_the_models_that_they_are_for(recipe, model, arguments):
    assert resolve({"recipe": recipe, "model": model, "data": "cifar100"}).model_args == arguments


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_resolves_for_its_model(recipe):
    model = {"deit": "deit_tiny_patch16_224", "cait": "cait", "binary": "binary_vit"}.get(
        recipe.removeprefix("quick_").partition("_")[0], "vit"
    )
    if RECIPES[recipe].needs_teacher:
        with pytest.raises(UsageError, match=f"recipe {recipe} needs a teacher: add --teacher"):
            resolve({"recipe": recipe, "model": model})
    else:
        config = resolve({"recipe": recipe, "model": model})
        configure(model, **config.model_args)
        assert TrainConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


class TestSettable:
    def test_values_of_the_right_kind(self):
        pairs = [("crop_padding", 2), ("mixup", 1), ("flip", False), ("mix_mode", "elem")]
        assert settable(pairs, {}) == dict(pairs)
        assert settable([("epochs", 3)], {"epochs": 3}) == {"epochs": 3}

    @pytest.mark.parametrize(
        "pairs, said, message",
        [
            ([("mixpu", 1)], {}, "no setting 'mixpu'; did you mean 'mixup'"),
            ([("recipe", "deit")], {}, "no setting 'recipe'"),
            ([("crop_padding", 2.5)], {}, "crop_padding cannot be 2.5"),
            ([("flip", "yes")], {}, "flip cannot be 'yes'"),
            ([("clip", -1)], {}, "clip cannot be -1"),
            ([("epochs", 0)], {}, "epochs must be at least 1"),
            ([("epochs", 3)], {"epochs": 4}, "epochs has two values, 4 and 3"),
            ([("clip", 3), ("clip", 4)], {}, "clip has two values, 3 and 4"),
        ],
    )
    def test_nonsense(self, pairs, said, message):
        with pytest.raises(UsageError) as error:
            settable(pairs, said)
        assert message in str(error.value)
