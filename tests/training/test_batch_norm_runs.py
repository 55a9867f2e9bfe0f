"""Training a network with running statistics: evaluation uses them, and a resumed run keeps their bits."""

import numpy as np
import pytest
from blobs import make_blobs

import minivit
from minivit.training import checkpoint, loop
from minivit.training.evaluation import evaluate

SETTINGS = {
    "optimizer": "sgd",
    "lr": 0.05,
    "epochs": 2,
    "drop_path": 0.0,
    "model_args": {"layers": (1, 1), "channels": (4, 6)},
}


def test_a_resumed_run_ends_with_the_same_statistics(start):
    whole, _ = start("whole", model="resnet20", **SETTINGS)
    part, stopped = start("part", model="resnet20", time_budget=1e-9, **SETTINGS)
    assert stopped.stopped_by == "time budget"
    loop.resume(part)
    end, again = checkpoint.read(whole.last), checkpoint.read(part.last)
    assert end.weights.keys() == again.weights.keys()
    for name in end.weights:
        np.testing.assert_array_equal(again.weights[name], end.weights[name], err_msg=name, strict=True)
    assert end.weights["bn1.num_batches_tracked"] == 6
    for name in end.optimizer:
        np.testing.assert_array_equal(again.optimizer[name], end.optimizer[name], err_msg=name, strict=True)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_uses_the_running_statistics_and_leaves_them(training):
    model, data = minivit.create_model("resnet20", num_classes=3, **SETTINGS["model_args"]), make_blobs()
    before = model.train(training).state_dict()
    one, all_at_once = (evaluate(model, data.test, data.mean, data.std, batch_size=n) for n in (1, 10))
    assert one.loss == pytest.approx(all_at_once.loss, rel=1e-5)  # an image's statistics are not its batch's
    assert model.training == training
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
