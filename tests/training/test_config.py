"""The settings of a run: those of another run with changes, and what does not go together whichever way it came."""

import json
from dataclasses import replace

import pytest

import minivit
from minivit.errors import MinivitError, UsageError
from minivit.models import configure
from minivit.training import checkpoint
from minivit.training.config import TrainConfig, differences, resolve
from minivit.training.recipes import RECIPES
from minivit.training.rules import OPTIMIZERS
from minivit.training.run_folder import RunFolder

TINY = {"patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}


@pytest.fixture
def weights(tmp_path):
    """``weights(model)``: the path of a small network."""

    def save(name="vit"):
        path = tmp_path / f"{name}.npz"
        checkpoint.save(path, minivit.create_model(name, num_classes=3, **TINY))
        return str(path)

    return save


@pytest.fixture(params=["recipe", "configuration"])
def way(request):
    """``resolve`` over the recipe, and over the settings of a run by that recipe."""
    base = None if request.param == "recipe" else resolve({})
    return lambda said: resolve(said, base)


def test_a_configuration_repeats_a_run():
    base = resolve({"recipe": "deit", "data": "cifar100", "model": "vit", "seed": 3, "model_args": {"depth": 2}})
    assert resolve({}, base) == base
    other = resolve({"seed": 4, "model_args": {"embed_dim": 24}}, base)
    assert (other.epochs, other.warmup_epochs, other.seed, other.lr) == (300, 5, 4, base.lr)
    assert other.model_args == {"depth": 2, "embed_dim": 24}


def test_a_configuration_takes_the_place_of_the_recipe():
    base = resolve({"recipe": "deit", "lr": 2e-3, "batch_size": 256, "warmup_epochs": 6.0, "weight_decay": 0.1})
    assert resolve({"epochs": 50}, base).warmup_epochs == 1
    assert resolve({"epochs": 50, "warmup_epochs": 2.0}, base).warmup_epochs == 2
    assert resolve({"batch_size": 64}, base).lr == 5e-4
    assert resolve({"batch_size": 64, "lr": 1e-3}, base).lr == 1e-3
    assert resolve({"batch_size": 64}, resolve({"recipe": "quick"})).lr == RECIPES["quick"].lr  # it does not scale
    sgd = resolve({"optimizer": "sgd"}, base)
    assert (sgd.lr, sgd.weight_decay) == (OPTIMIZERS["sgd"]["lr"], OPTIMIZERS["sgd"]["weight_decay"])
    said = {"epochs": 300, "batch_size": 256, "optimizer": "adamw"}
    assert resolve(said, base) == base


def test_repeated_values_are_no_contradiction(way):
    assert way({"auto_augment": "none", "mix_prob": RECIPES["shapes"].mix_prob}) == way({})


def test_policies_by_name(way):
    assert way({"auto_augment": "none"}).auto_augment == ""
    assert way({"auto_augment": "data"}).auto_augment == "cifar"
    assert way({"auto_augment": "data", "data": "tiny_imagenet"}).auto_augment == "imagenet"


@pytest.mark.parametrize("word, other", [("none", "data"), ("data", "none"), ("svhn", "cifar")])
def test_a_repeated_policy_is_no_difference(word, other):
    config = resolve({"auto_augment": word})
    assert differences(config, {"auto_augment": word}) == differences(config, config.as_dict()) == []
    (phrase,) = differences(config, {"auto_augment": other})
    assert phrase == f"--auto-augment {other} (the run has {config.auto_augment})"


def test_what_another_model_does_not_have_falls_away():
    base = resolve({"drop_path": 0.1, "model_args": {"depth": 2}})
    other = resolve({"model": "resnet20"}, base)
    assert (other.drop_path, other.model_args, other.lr) == (0, {}, base.lr)
    configure(other.model, **other.model_args)
    assert resolve({"model": "vit"}, base).model_args == base.model_args
    assert resolve({"model": "resnet20", "model_args": {"layers": [1, 1, 1]}}, base).model_args == {"layers": [1, 1, 1]}


def test_the_model_is_that_of_the_weights(way, weights):
    path = weights("s_vit")
    config = way({"init_from": path, "model_args": {"norm_eps": 1e-6, "depth": 1, "patch_size": 8}})
    assert (config.model, config.model_args["embed_dim"], config.model_args["norm_eps"]) == ("s_vit", 8, 1e-6)
    assert len(config.init_sha256) == 64
    with pytest.raises(UsageError, match="holds a s_vit, not a vit: leave --model out"):
        way({"init_from": path, "model": "vit"})


def test_weights_of_a_configuration_keep_their_model(weights):
    base = resolve({"init_from": weights("vit"), "model_args": {"gelu": "tanh"}})
    assert resolve({}, base) == base
    assert resolve({"init_from": weights("s_vit")}, base).model == "s_vit"
    with pytest.raises(UsageError, match="holds a vit, not a s_vit: leave --model out"):
        resolve({"model": "s_vit"}, base)
    with pytest.raises(UsageError, match="holds a vit with depth 1, not 2"):
        resolve({"model_args": {"depth": 2}}, base)


@pytest.mark.parametrize("name, value", [("depth", 2), ("patch_size", 4), ("num_heads", 4), ("spt", True)])
def test_weights_are_of_one_network(way, weights, name, value):
    path, old = weights(), TINY.get(name, False)
    with pytest.raises(UsageError) as error:
        way({"init_from": path, "model_args": {name: value}})
    assert str(error.value) == f"{path} holds a vit with {name} {old}, not {value}: leave --model-arg {name} out"


def test_sizes_that_need_larger_images_than_the_default_are_the_checkpoints(tmp_path):
    path = tmp_path / "binary.npz"
    checkpoint.save(path, minivit.create_model("binary_vit", img_size=32, depths=(1, 1, 1, 1)))
    config = resolve({"init_from": str(path)})
    assert resolve({"init_from": None}, config).model_args == config.model_args


def test_a_configuration_without_its_teacher_or_its_weights(weights):
    base = resolve({"teacher": weights(), "init_from": weights("s_vit"), "model": "s_vit"})
    assert len(base.teacher_sha256) == len(base.init_sha256) == 64
    alone = resolve({"teacher": None}, base)
    assert alone == replace(base, teacher=None, teacher_sha256=None)
    assert resolve({"init_from": None}, base) == replace(base, init_from=None, init_sha256=None)
    assert resolve({"init_from": None, "model_args": {"depth": 2}}, base).model_args == base.model_args | {"depth": 2}


@pytest.mark.parametrize(
    "said, message",
    [
        ({"auto_augment": "cifra"}, "unknown policy 'cifra'"),
        ({"model_args": {"drop_rate": 0.1}}, "drop_rate is no model argument of a run: --set drop_rate=X sets it"),
        ({"model_args": {"drop_path_rate": 0.1}}, "drop_path_rate is no model argument of a run: --drop-path X"),
        ({"drop_rate": 0.2, "model_args": {"drop_rate": 0.1}}, "drop_rate is no model argument of a run"),
        ({"linear_probe": True}, "a linear probe needs features: add --init-from CKPT"),
        ({"distill": "soft"}, "distillation needs a teacher: add --teacher CKPT"),
        ({"distill": "hard"}, "distillation needs a teacher: add --teacher CKPT"),
        ({"alpha": 0.5}, "distillation needs a teacher: add --teacher CKPT"),
        ({"temperature": 3.0}, "distillation needs a teacher: add --teacher CKPT"),
        ({"model": "vitt"}, "unknown model 'vitt'"),
        ({"model_args": {"dpth": 2}}, "no keyword 'dpth'"),
        ({"model": "resnet20", "drop_path": 0.1}, "resnet20 has no drop_path_rate: --drop-path X is not for it"),
        ({"epochs": 2, "warmup_epochs": 3}, "a warm-up of 3 epochs is longer than the run of 2"),
    ],
)
def test_nonsense_is_refused_either_way(way, said, message):
    with pytest.raises(UsageError) as error:
        way(said)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "resnet20", "model_args": {}, "drop_path": 0.1}, "resnet20 has no drop_path_rate"),
        ({"linear_probe": True}, "a linear probe needs features"),
        ({"recipe": "deit_distilled"}, "recipe deit_distilled needs a teacher"),
        ({"model_args": {"attn_drop_rate": 0.1}}, "attn_drop_rate is no model argument of a run"),
    ],
)
def test_a_file_is_held_to_the_same_rules(tmp_path, changes, message):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"config": resolve({}).as_dict() | changes}))
    with pytest.raises(MinivitError) as error:
        RunFolder.read_settings(file)
    assert str(error.value).startswith(f"{file} is no config.json of a run: ") and message in str(error.value)


TEACHER, INIT = {"teacher": "TEACHER"}, {"init_from": "INIT"}
DISTILLED = {"model": "deit_tiny_distilled_patch16_224"}


@pytest.mark.parametrize(
    "beside, idle, instead",
    [
        ({"alpha": 0.0}, TEACHER, {"alpha": 0.1}),
        (TEACHER, {"temperature": 3.0}, {"distill": "soft"}),
        (TEACHER, {"kl_reduction": "numel"}, {"distill": "soft"}),
        (TEACHER | {"alpha": 1.0}, {"label_smoothing": 0.2}, {"alpha": 0.9}),
        ({}, {"resample": "linear"}, INIT),
        (INIT | {"linear_probe": True}, {"drop_path": 0.2}, {"linear_probe": False}),
        (INIT | {"linear_probe": True}, {"attn_drop_rate": 0.2}, {"linear_probe": False}),
        ({}, {"erase_mode": "rand"}, {"erase": 0.2}),
        ({"mix_prob": 0.0}, {"mixup": 0.2}, {"mix_prob": 0.5}),
        ({}, {"mix_prob": 0.5}, {"mixup": 0.2}),
        ({}, {"mix_mode": "elem"}, {"cutmix": 0.2}),
        ({}, {"mix_partner": "rolled"}, {"cutmix": 0.2}),
        ({"mixup": 0.2}, {"mix_switch": 0.3}, {"cutmix": 0.2}),
        ({"auto_augment": "data"}, {"color_jitter": 0.3}, {"auto_augment": "none"}),
        ({}, {"interpolation": "bilinear"}, {"resized_crop": 0.2, "crop_padding": 0}),
        ({}, {"ema_warmup": True}, {"ema": 0.9}),
        ({}, {"nesterov": True}, {"optimizer": "sgd"}),
        ({"weight_decay": 0.0}, {"decay_all": True}, {"weight_decay": 0.1}),
        (DISTILLED | {"decay_all": True}, {"decay_dist_token": True}, {"decay_all": False}),
        ({"model": "vit"}, {"decay_dist_token": True}, DISTILLED),
        ({"warmup_epochs": 0.0}, {"warmup_lr": 0.1}, {"warmup_epochs": 1.0}),
        ({"schedule": "step"}, {"min_lr": 0.1}, {"schedule": "linear"}),
        ({}, {"spread_repeats": True}, {"repeated_augmentation": 2}),
    ],
)
def test_what_can_have_no_effect_is_refused(way, weights, beside, idle, instead):
    files = {"TEACHER": weights(), "INIT": weights()}
    said = {k: files.get(v, v) for k, v in (beside | idle).items()}
    (name,) = idle
    with pytest.raises(UsageError, match=f"^{name} has no effect: .*, or leave it out$"):
        way(said)
    config = way(said | {k: files.get(v, v) for k, v in instead.items()})
    assert getattr(config, name) == files.get(idle[name], idle[name])
    way({k: v for k, v in said.items() if k != name})


def test_what_is_switched_off_may_stay_off(way):
    off = {"mix_prob": 0.0, "warmup_epochs": 0.0, "warmup_lr": 0.0, "label_smoothing": 0.0, "ema_warmup": False}
    config = way(off)
    assert {name: getattr(config, name) for name in off} == off
    assert way({"alpha": 0.0}).alpha == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_is_refused_for_its_own_numbers(recipe, weights):
    config = resolve({"recipe": recipe, "model": "vit", "teacher": weights(), "init_from": weights()})
    assert resolve({"linear_probe": True, "mixup": 0.0, "cutmix": 0.0, "erase": 0.0, "ema": 0.0}, config).linear_probe
    assert TrainConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
