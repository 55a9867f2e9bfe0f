"""Learning from a teacher: what it says reaches the student, and a resumed run has the same teacher."""

import dataclasses

import numpy as np
import pytest
from blobs import make_blobs

import minivit
from minivit.errors import MinivitError, UsageError
from minivit.models.positions import resample_positions
from minivit.training import checkpoint, loop
from minivit.training.config import resolve
from minivit.training.teacher import Teacher

STUDENT = {"model": "deit_tiny_distilled_patch16_224", "epochs": 2}


@pytest.fixture
def teacher(tmp_path):
    """Path of a small network for the blobs, with random weights."""
    data = make_blobs()
    model = minivit.create_model("resnet20", num_classes=3, img_size=8, layers=(1, 1), channels=(4, 6), seed=5)
    path = tmp_path / "teacher.npz"
    checkpoint.save(path, model, data="blobs", class_names=data.class_names, mean=data.mean, std=data.std)
    return str(path)


def test_a_student_that_only_listens_learns_what_its_teacher_says(start, tmp_path):
    """The teacher has learned the blobs, and calls each class by the name of the next."""
    folder, _ = start("teacher", epochs=8, drop_path=0.0)
    saved = checkpoint.read(folder.best)
    for name in ("head.weight", "head.bias"):
        saved.weights[name] = np.roll(saved.weights[name], 1, axis=0)
    checkpoint.save(tmp_path / "liar.npz", saved.build())
    folder, _ = start("student", teacher=str(tmp_path / "liar.npz"), alpha=1.0, epochs=12, drop_path=0.0)
    data = make_blobs()
    images = ((data.test.images / 255 - 0.3) / 0.2).astype(np.float32)
    said = minivit.load(folder.last)(minivit.Tensor(images)).data.argmax(axis=1)
    np.testing.assert_array_equal(said, (data.test.labels + 1) % 3)


def test_images_are_brought_to_the_teachers_normalisation(teacher, tmp_path):
    data = make_blobs()
    saved = checkpoint.read(teacher)
    other = tmp_path / "other.npz"
    checkpoint.save(other, saved.build(), mean=(0.5, 0.4, 0.1), std=(0.1, 0.3, 0.25))
    pixels = data.test.images.astype(np.float32) / 255
    seen_by_student = (pixels - 0.3) / np.float32(0.2)
    shape = (-1, 1, 1)
    expected = (pixels - np.reshape((0.5, 0.4, 0.1), shape)) / np.reshape((0.1, 0.3, 0.25), shape)
    found = Teacher(other, data)(seen_by_student)
    np.testing.assert_allclose(found, saved.build()(minivit.Tensor(expected.astype(np.float32))).data, rtol=1e-3)
    assert found.dtype == np.float32


@pytest.mark.parametrize("distill", ["hard", "soft"])
def test_a_resumed_run_ends_with_the_same_bits(start, teacher, distill):
    whole, _ = start("whole", teacher=teacher, distill=distill, **STUDENT)
    part, stopped = start("part", teacher=teacher, distill=distill, time_budget=1e-9, **STUDENT)
    assert stopped.stopped_by == "time budget"
    loop.resume(part)
    end, again = checkpoint.read(whole.last).weights, checkpoint.read(part.last).weights
    for name, array in end.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name, strict=True)
    alone = checkpoint.read(start("alone", **STUDENT)[0].last).weights
    assert any(not np.array_equal(alone[name], array) for name, array in end.items())


def test_another_teacher_is_noticed(start, teacher, tmp_path):
    folder, _ = start(teacher=teacher, time_budget=1e-9, **STUDENT)
    saved = checkpoint.read(teacher)
    checkpoint.save(teacher, minivit.create_model(saved.architecture, **saved.arguments, seed=6))
    with pytest.raises(MinivitError, match="is not the file that the run was started with"):
        loop.resume(folder)
    (tmp_path / "teacher.npz").unlink()
    with pytest.raises(MinivitError, match=r"cannot read the teacher .*teacher\.npz: No such file"):
        loop.resume(folder)


def test_a_teacher_that_was_moved_is_known_by_its_bytes(start, teacher, tmp_path):
    folder, _ = start("part", teacher=teacher, time_budget=1e-9, **STUDENT)
    moved = (tmp_path / "teacher.npz").rename(tmp_path / "moved.npz")
    with pytest.raises(UsageError, match="is another file: drop --teacher"):
        loop.resume(folder, {"teacher": str(folder.best)})
    result = loop.resume(folder, {"teacher": str(moved)})
    assert result.epochs == STUDENT["epochs"]
    moved.unlink()
    assert loop.resume(folder).epochs == result.epochs  # a finished run needs no teacher


def test_a_teacher_of_something_else_is_refused(tmp_path):
    path = tmp_path / "teacher.npz"
    minivit.save(path, minivit.create_model("resnet20", num_classes=4, img_size=8, layers=(1,), channels=(4,)))
    with pytest.raises(UsageError, match=r"teacher\.npz cannot teach: .*knows 4 classes"):
        Teacher(path, make_blobs())


def test_a_teacher_that_fits_no_other_size_says_so(tmp_path):
    path = tmp_path / "swin.npz"
    small = {"embed_dim": 4, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4, "patch_size": 2}
    minivit.save(path, minivit.create_model("swin", num_classes=3, img_size=16, **small))
    with pytest.raises(UsageError, match=r"swin\.npz cannot teach: "):
        Teacher(path, make_blobs())


@pytest.mark.parametrize(
    "said, message",
    [
        ({"distill": "soft"}, "distillation needs a teacher"),
        ({"alpha": 0.4}, "distillation needs a teacher"),
        ({"teacher": "T", "distill": "sotf"}, "unknown way of distillation 'sotf'; did you mean 'soft'"),
        ({"teacher": "T", "alpha": 1.5}, "alpha at most 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(teacher, said, message):
    said = {key: teacher if value == "T" else value for key, value in said.items()}
    with pytest.raises(UsageError, match=message):
        resolve(said)


@pytest.mark.parametrize(
    "name, arguments", [("resnet20", {"layers": (1, 1), "channels": (4, 6)}), ("vit", {"depth": 1})]
)
def test_a_teacher_of_another_size_is_brought_to_the_students(tmp_path, name, arguments):
    data, path = make_blobs(), tmp_path / "large.npz"
    if name == "vit":
        arguments = {"patch_size": 4, "embed_dim": 8, "num_heads": 2, **arguments}
    model = minivit.create_model(name, num_classes=3, img_size=16, seed=5, **arguments)
    checkpoint.save(path, model, mean=data.mean, std=data.std)
    images = np.random.default_rng(0).standard_normal((4, 3, 8, 8), np.float32)
    weights = model.state_dict()
    if name == "vit":
        weights["pos_embed"] = resample_positions(weights["pos_embed"], (2, 2), prefix=1)
    small = minivit.create_model(name, num_classes=3, img_size=8, **arguments)
    small.load_state_dict(weights)
    expected = small.eval()(minivit.Tensor(images)).data
    np.testing.assert_allclose(Teacher(path, data)(images), expected, rtol=1e-5, atol=1e-6)


class TestAnswersOnDisk:
    """Where images look the same in every epoch, the teacher is asked once."""

    PLAIN = {**STUDENT, "flip": False, "crop_padding": 0}

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return tmp_path / "cache" / "minivit" / "teachers"

    def test_they_are_the_teachers(self, start, teacher, cache):
        whole, _ = start("whole", teacher=teacher, **self.PLAIN)
        (file,) = cache.iterdir()
        data = make_blobs()
        images = ((data.train.images / 255 - 0.3) / 0.2).astype(np.float32)
        np.testing.assert_allclose(np.load(file), Teacher(teacher, data)(images), rtol=1e-4, atol=1e-5)

    def test_a_run_with_them_is_the_run_without(self, start, teacher, cache, monkeypatch):
        """But for the last bits: a product over more rows may round another way."""
        with_them, _ = start("with", teacher=teacher, **self.PLAIN)
        monkeypatch.setattr(Teacher, "answers", lambda self: None)
        without, _ = start("without", teacher=teacher, **self.PLAIN)
        ours, theirs = checkpoint.read(with_them.last).weights, checkpoint.read(without.last).weights
        for name, array in theirs.items():
            np.testing.assert_allclose(ours[name], array, rtol=1e-3, atol=1e-4, err_msg=name)

    def test_another_normalisation_gives_other_answers(self, teacher, cache, tmp_path):
        saved, data = checkpoint.read(teacher), make_blobs()
        plain = tmp_path / "plain.npz"
        checkpoint.save(plain, saved.build())  # it sees what the student sees
        first = Teacher(plain, data).answers()
        other = Teacher(plain, dataclasses.replace(data, mean=(0.1, 0.2, 0.3))).answers()
        assert len(list(cache.iterdir())) == 2 and not np.allclose(first, other)

    def test_they_are_used_again_and_checked(self, start, teacher, cache, monkeypatch):
        first, _ = start("first", teacher=teacher, **self.PLAIN)
        (file,) = cache.iterdir()
        with monkeypatch.context() as patch:
            patch.setattr(Teacher, "__call__", None)  # nobody asks
            again, _ = start("again", teacher=teacher, **self.PLAIN)
        file.write_bytes(file.read_bytes()[:-5])
        damaged, _ = start("damaged", teacher=teacher, **self.PLAIN)
        for other in (again, damaged):
            for name, array in checkpoint.read(first.last).weights.items():
                np.testing.assert_array_equal(checkpoint.read(other.last).weights[name], array)
        assert np.load(file).shape == (26, 3)

    def test_a_cache_that_cannot_be_written_is_no_failure(self, start, teacher, cache, capsys):
        cache.parent.parent.write_text("in the way")
        _, result = start(teacher=teacher, **self.PLAIN)
        assert result.stopped_by is None
        assert "the teacher's answers are not kept" in capsys.readouterr().err

    def test_augmented_images_are_shown_to_the_teacher(self, start, teacher, cache):
        start(teacher=teacher, **STUDENT)
        assert not cache.exists()
