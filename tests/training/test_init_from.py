"""Transfer: a run that starts from the weights of another one."""

import json

import numpy as np
import pytest
from blobs import SETTINGS, make_blobs

import minivit
from minivit.errors import MinivitError, StateDictError, UsageError
from minivit.training import checkpoint, loop
from minivit.training.config import resolve

MODEL = {"patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "img_size": 8}
PLAIN = {name: value for name, value in SETTINGS.items() if name != "model_args"} | {"drop_path": 0.0}


@pytest.fixture
def start(start):
    return lambda *args, **settings: start(*args, **{"model_args": {}, "drop_path": 0.0, **settings})


@pytest.fixture
def weights(tmp_path):
    """``weights(**arguments)``: the path of a network for other classes, another size, another normalisation."""

    def save(name="vit", classes=3, class_names=(), **arguments):
        model = minivit.create_model(name, seed=9, num_classes=classes, **{**MODEL, **arguments})
        path = tmp_path / f"{name}.npz"
        checkpoint.save(path, model, data="other", class_names=class_names, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
        return str(path)

    return save


def test_model_and_arguments_are_the_checkpoints(weights):
    path = weights("s_vit", depth=3)
    config = resolve(PLAIN | {"init_from": path})
    assert config.model == "s_vit" and config.model_args["depth"] == 3 and len(config.init_sha256) == 64
    assert "drop_path_rate" not in config.model_args and config.model_args["patch_size"] == 4
    assert resolve(PLAIN | {"init_from": path, "model": "s_vit", "drop_path": 0.2}).drop_path == 0.2
    with pytest.raises(UsageError, match="holds a s_vit, not a sl_vit: leave --model out"):
        resolve(PLAIN | {"init_from": path, "model": "sl_vit"})


def first_weights(start, name="first", **settings):
    """The checkpoint before the first step."""
    still = {"optimizer": "sgd", "lr": 0.0, "min_lr": 0.0, "weight_decay": 0.0, "epochs": 1, "warmup_epochs": 0}
    folder, _ = start(name, **still, **settings)
    return checkpoint.read(folder.last)


def test_the_run_starts_from_the_weights(start, weights, capsys):
    path = weights()
    old, new = checkpoint.read(path), first_weights(start, init_from=path)
    for name, array in old.weights.items():
        np.testing.assert_array_equal(new.weights[name], array, err_msg=name)
    assert (new.mean, new.std) == (old.mean, old.std)
    assert "not taken over" not in capsys.readouterr().err


def test_other_classes_get_a_new_head(start, weights, capsys):
    path = weights(classes=7)
    old, new = checkpoint.read(path), first_weights(start, init_from=path)
    for name, array in old.weights.items():
        if name.startswith("head."):
            assert new.weights[name].shape[0] == 3
        else:
            np.testing.assert_array_equal(new.weights[name], array, err_msg=name)
    assert new.weights["head.weight"].any()
    assert "note: not taken over: head.weight, head.bias" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names, same", [(("red", "green", "blue"), True), (("red", "blue", "green"), False), (("cat", "dog", "cow"), False)]
)
def test_classes_are_known_by_name_where_there_are_names(start, weights, capsys, names, same):
    path = weights(class_names=names)
    old, new = checkpoint.read(path), first_weights(start, init_from=path)
    for name, array in old.weights.items():
        if same or not name.startswith("head."):
            np.testing.assert_array_equal(new.weights[name], array, err_msg=name)
    if not same:
        fresh = first_weights(start, "fresh", init_from=weights("vit", 7)).weights["head.weight"]
        np.testing.assert_array_equal(new.weights["head.weight"], fresh)  # of the same seed
    assert ("note: not taken over: head.weight, head.bias" in capsys.readouterr().err) != same


def test_the_average_begins_with_the_first_weights(start, weights):
    path = weights()
    average = first_weights(start, init_from=path, ema=0.5).ema
    for name, array in checkpoint.read(path).weights.items():
        np.testing.assert_array_equal(average[name], array, err_msg=name)


@pytest.mark.parametrize("classes", [3, 7])
def test_a_head_from_zero(start, weights, classes):
    path = weights(classes=classes)
    new = first_weights(start, init_from=path, zero_head=True)
    assert not new.weights["head.weight"].any() and not new.weights["head.bias"].any()
    np.testing.assert_array_equal(new.weights["pos_embed"], checkpoint.read(path).weights["pos_embed"])


def test_the_grid_of_an_oblong_network_is_known(start, weights, capsys):
    from minivit.models.positions import resample_positions

    path = weights(img_size=(8, 32))
    old, new = checkpoint.read(path), first_weights(start, init_from=path)
    expected = resample_positions(old.weights["pos_embed"], (2, 2), prefix=1, old_grid=(2, 8))
    np.testing.assert_allclose(new.weights["pos_embed"], expected, rtol=1e-6)
    assert "note: pos_embed resampled from 2x8 to 2x2" in capsys.readouterr().err


def test_a_resumed_run_knows_its_weights_by_their_bytes(start, weights, tmp_path):
    path = weights()
    part, _ = start("part", init_from=path, time_budget=1e-9)
    moved = str((tmp_path / "vit.npz").rename(tmp_path / "moved.npz"))
    assert loop.resume(part, {"init_from": moved}, time_budget=1e-9).stopped_by == "time budget"
    with pytest.raises(UsageError, match="started from other weights than"):
        loop.resume(part, {"init_from": weights("s_vit")})


def test_other_layers_at_another_size_are_named_by_the_sizes(start, tmp_path):
    path = tmp_path / "t2t.npz"
    tiny = {"embed_dim": 8, "depth": 1, "num_heads": 2, "token_dim": 4}
    checkpoint.save(path, minivit.create_model("t2t", num_classes=3, img_size=64, **tiny))
    with pytest.raises(UsageError) as error:
        start(init_from=str(path))
    assert str(error.value) == (
        f"{path} was trained on images of 64x64 pixels, and a t2t has other layers at 8x8: add --img-size 64"
    )
    model = minivit.create_model("t2t", num_classes=3, img_size=64, **{**tiny, "token_dim": 8})
    model.arguments["token_dim"] = 4
    checkpoint.save(path, model)
    with pytest.raises(StateDictError, match="qkv"):  # a damaged file: not the size alone
        start("damaged", init_from=str(path))


@pytest.mark.parametrize("resample", ["bicubic", "linear"])
def test_another_size_resamples_the_positions(start, weights, capsys, resample):
    from minivit.models.positions import resample_positions

    path = weights(img_size=16)
    old, new = checkpoint.read(path), first_weights(start, init_from=path, resample=resample)
    expected = resample_positions(old.weights["pos_embed"], (2, 2), prefix=1, method=resample)
    np.testing.assert_allclose(new.weights["pos_embed"], expected, rtol=1e-6)
    assert "note: pos_embed resampled from 4x4 to 2x2" in capsys.readouterr().err


def test_images_are_normalised_as_they_were(start, weights, monkeypatch):
    seen = []
    call = minivit.models.vit.VisionTransformer.forward
    monkeypatch.setattr(
        minivit.models.vit.VisionTransformer, "forward", lambda self, x: seen.append(x.data) or call(self, x)
    )
    folder, _ = start("a", init_from=weights(), epochs=1, warmup_epochs=0, flip=False, crop_padding=0)
    data = make_blobs()
    shape = (-1, 1, 1)
    test = (data.test.images / 255 - np.reshape((0.1, 0.2, 0.3), shape)) / np.reshape((0.4, 0.5, 0.6), shape)
    np.testing.assert_allclose(seen[-1], test, rtol=1e-4, atol=1e-5)
    assert checkpoint.read(folder.best).mean == (0.1, 0.2, 0.3)


def test_a_linear_probe_moves_the_classifier_alone(start, weights):
    path = weights(classes=7, drop_rate=0.5)
    folder, _ = start("probe", init_from=path, linear_probe=True, epochs=2, lr=0.1)
    old, new = checkpoint.read(path), checkpoint.read(folder.last)
    for name, array in old.weights.items():
        if not name.startswith("head."):
            np.testing.assert_array_equal(new.weights[name], array, err_msg=name)
    assert {name.split(".", 1)[1] for name in new.optimizer if name != "steps"} == {"head.weight", "head.bias"}
    probe = first_weights(start, init_from=path, linear_probe=True)
    assert not np.array_equal(new.weights["head.weight"], probe.weights["head.weight"])


def test_both_heads_of_a_distilled_model_are_probed(start, weights):
    """With alpha 1 the teacher speaks to the distillation head, and nobody to the other one."""
    path = weights("deit_tiny_distilled_patch16_224", drop_rate=0.5)
    folder, _ = start(init_from=path, linear_probe=True, teacher=weights(), alpha=1.0, label_smoothing=0.0, lr=0.1)
    old, new = checkpoint.read(path).weights, checkpoint.read(folder.last).weights
    assert {name for name, array in old.items() if not np.array_equal(new[name], array)} == {
        "head_dist.weight", "head_dist.bias",
    }  # fmt: skip


def test_a_probe_sees_the_features_of_evaluation_in_every_epoch(start, weights, monkeypatch):
    seen = set()
    call = minivit.models.vit.VisionTransformer.forward_features
    monkeypatch.setattr(
        minivit.models.vit.VisionTransformer, "forward_features",
        lambda self, x: seen.update(m.training for m in self.modules() if m is not self) or call(self, x),
    )  # fmt: skip
    start(init_from=weights(drop_rate=0.5), linear_probe=True, epochs=2)
    assert seen == {False}


def test_a_probe_keeps_running_statistics(start, tmp_path):
    path = tmp_path / "resnet.npz"
    checkpoint.save(
        path, minivit.create_model("resnet20", num_classes=3, img_size=8, layers=(1, 1), channels=(4, 6), seed=5)
    )
    folder, _ = start(init_from=str(path), linear_probe=True, epochs=2)
    old, new = checkpoint.read(path).weights, checkpoint.read(folder.last).weights
    running = [name for name in old if "running" in name]
    assert running
    for name in running:
        np.testing.assert_array_equal(new[name], old[name], err_msg=name)


@pytest.mark.parametrize("settings", [{}, {"linear_probe": True}, {"ema": 0.5}])
def test_it_resumes_exactly_even_where_the_weights_are_gone(start, weights, tmp_path, settings):
    path = weights(classes=7)
    whole, _ = start("whole", init_from=path, **settings)
    part, stopped = start("part", init_from=path, time_budget=1e-9, **settings)
    (tmp_path / "vit.npz").unlink()
    while stopped.stopped_by is not None:
        stopped = loop.resume(part, time_budget=1e-9)
    end, again = checkpoint.read(whole.last), checkpoint.read(part.last)
    for group in ("weights", "optimizer", "ema"):
        for name, array in getattr(end, group).items():
            np.testing.assert_array_equal(getattr(again, group)[name], array, err_msg=name)
    assert json.loads((part.path / "config.json").read_text())["config"]["init_from"] == path


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"init_from": "nowhere.npz"}, MinivitError, "no such checkpoint: nowhere.npz"),
        ({"linear_probe": True}, UsageError, "a linear probe needs features: add --init-from CKPT"),
        ({"resample": "cubic"}, UsageError, "unknown way to resample positions 'cubic'; did you mean 'bicubic'"),
    ],
)
def test_nonsense_is_refused(settings, error, message):
    with pytest.raises(error) as raised:
        resolve(SETTINGS | settings)
    assert message in str(raised.value)
