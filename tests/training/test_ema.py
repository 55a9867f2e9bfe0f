"""The moving average of the weights, against timm's; what it puts into the model, and takes back."""

import numpy as np
import pytest

from minivit import nn
from minivit.errors import MinivitError
from minivit.nn.init import normal
from minivit.training.ema import ModelEma


class LinearAndNorm(nn.Module):
    """Parameters, running averages and a counter, under the names of the golden file."""

    def __init__(self):
        parts = [nn.Linear(4, 3, init=normal(np.random.default_rng(0))), nn.BatchNorm2d(3)]
        for i, part in enumerate(parts):
            setattr(self, str(i), part)


def part(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def follow(golden, **options):
    """The average over the ten updates of the golden file."""
    g, model = golden("ema"), LinearAndNorm()
    model.load_state_dict(part(g, "init."))
    ema = ModelEma(model, **options)
    for step in range(10):
        model.load_state_dict(part(g, f"step{step}."))
        ema.update(step)
    return g, ema


@pytest.mark.parametrize(
    "prefix, options",
    [
        ("ema_decay0.9.", {"decay": 0.9}),
        ("ema_v2_decay0.9.", {"decay": 0.9}),
        ("ema_v3_warmup.", {"decay": 0.99, "warmup": True}),
    ],
)
def test_averages_are_timms(golden, prefix, options):
    g, ema = follow(golden, **options)
    averages, expected = ema.state_dict(), part(g, prefix)
    assert averages.keys() == expected.keys()
    assert averages.pop("1.num_batches_tracked") == 10  # not rounded averages of it, as timm's first two versions have
    for name, array in averages.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-6 * np.abs(expected[name]).max())


def test_warmup_raises_the_decay_to_its_bound(golden):
    ema = ModelEma(LinearAndNorm(), decay=0.99, warmup=True)
    np.testing.assert_allclose([ema.decay_at(step) for step in range(10)], golden("ema")["ema_v3_decays"], rtol=1e-12)
    assert ema.decay_at(900) < 0.99 == ema.decay_at(1100) == ema.decay_at(10**9)


def test_weights_that_stay_are_their_own_average():
    """The factors d and 1 - d, each rounded to float32, do not add up to 1: with them the average would drift away."""
    model = LinearAndNorm()
    ema = ModelEma(model, decay=0.99999)
    for step in range(2000):
        ema.update(step)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(ema.state_dict()[name], array, err_msg=name)


def test_the_average_does_not_touch_the_model():
    model = LinearAndNorm()
    ema, before = ModelEma(model, decay=0.5), model.state_dict()
    for _, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tensor.data += 2
    ema.update(1)
    for name, array in ema.state_dict().items():
        added = 2 if array.dtype.kind == "i" else 1
        np.testing.assert_allclose(array, before[name] + added, rtol=1e-6)
        np.testing.assert_array_equal(model.state_dict()[name], before[name] + 2)


def test_swap_lends_the_averages_to_the_model_and_gives_its_weights_back(golden):
    model = LinearAndNorm()
    ema = ModelEma(model)
    averages = part(golden("ema"), "ema_v3_warmup.")
    ema.load_state_dict(averages)
    before = model.state_dict()
    with pytest.raises(ZeroDivisionError), ema.swap():
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(array, averages[name])
        raise ZeroDivisionError  # an evaluation that fails loses no weights
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    ema.update(1)
    assert not np.array_equal(model.state_dict()["0.weight"], ema.state_dict()["0.weight"])


def test_state_continues_exactly(golden):
    _, whole = follow(golden, decay=0.9)
    g, model = golden("ema"), LinearAndNorm()
    model.load_state_dict(part(g, "init."))
    first = ModelEma(model, decay=0.9)
    for step in range(4):
        model.load_state_dict(part(g, f"step{step}."))
        first.update(step)
    second = ModelEma(model, decay=0.9)
    second.load_state_dict(first.state_dict())
    for step in range(4, 10):
        model.load_state_dict(part(g, f"step{step}."))
        second.update(step)
    for name, array in whole.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[name], array)


def test_foreign_state_is_refused_whole():
    ema = ModelEma(LinearAndNorm())
    before = {name: array.copy() for name, array in ema.state_dict().items()}
    others = {name: array + 1 for name, array in before.items()}
    for wrong in (
        {**others, "1.bias": np.zeros(4, np.float32)},
        {**others, "1.bias": np.zeros(3)},
        {**others, "2.bias": np.zeros(3, np.float32)},
    ):
        with pytest.raises(MinivitError, match=r"does not fit the model: 1 entries differ, first '[12]\.bias'"):
            ema.load_state_dict(wrong)
    for name, array in ema.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
