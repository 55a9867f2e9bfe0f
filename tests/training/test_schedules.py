"""The learning rate at every step, against the published training code's and timm's."""

import numpy as np
import pytest

from minivit.training.schedules import PerEpoch, StepDecay, WarmupCosine, WarmupLinear

EXACT = {"rtol": 1e-12, "atol": 1e-18}


def rates(schedule, count):
    return [schedule(k) for k in range(count)]


@pytest.mark.parametrize("name", ["lr_schedule_sl_small", "lr_schedule_sl_paper_vit"])
def test_warmup_cosine_is_the_published_schedule(golden, name):
    g = golden(name)
    per_epoch = int(g["iters_per_epoch"])
    schedule = WarmupCosine(
        float(g["base_lr"]), int(g["epochs"]) * per_epoch, warmup_steps=int(g["warmup_epochs"]) * per_epoch
    )
    np.testing.assert_allclose([schedule(int(k)) for k in g["iteration"]], g["lr"], rtol=1e-12)


TIMM = {  # timm sets a rate after each epoch, by the number of that epoch: the same as ours, one epoch late
    "cosine_20_warm4_prefix": WarmupCosine(2e-3, 24, 4, floor=1e-5),
    "cosine_20_warm4": WarmupCosine(2e-3, 20, 4, floor=1e-5, prefix=False),
    "cosine_restart3": WarmupCosine(1e-3, 30, cycles=3, decay=0.5),
    "deit_300ep_lr1e-3": WarmupCosine(1e-3, 300, 5, floor=1e-5, prefix=False),
}


@pytest.mark.parametrize("name", TIMM)
def test_cosines_are_timms(golden, name):
    expected = golden("schedules")[name]
    late = PerEpoch(TIMM[name], steps_per_epoch=1, lag=1)
    np.testing.assert_allclose(rates(late, len(expected)), expected, **EXACT)


def test_product_of_warmup_and_cosine_is_augregs(golden):
    expected = golden("schedules")["augreg_500_warm100_lr0.03"]
    schedule = WarmupCosine(0.03, 500, 100, start=0.0, floor=0.0)
    np.testing.assert_allclose(rates(schedule, len(expected)), expected, **EXACT)


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_deits_epochs_come_late(golden, steps_per_epoch):
    """Epochs 0 and 1 run at the start of the warm-up, all steps of an epoch at one rate."""
    n = steps_per_epoch
    schedule = PerEpoch(WarmupCosine(1e-3, 300 * n, 5 * n, floor=1e-5, prefix=False), n, lag=1)
    found = np.reshape(rates(schedule, 300 * n), (300, n))
    np.testing.assert_allclose(found[:, 0], golden("schedules")["deit_300ep_lr1e-3"][:300], **EXACT)
    np.testing.assert_array_equal(found, np.repeat(found[:, :1], n, axis=1))
    assert found[[0, 1, 5, 6, 299], 0] == pytest.approx([1e-6, 1e-6, 8.002e-4, 9.99322e-4, 1.0109e-5], rel=1e-4)


def test_binary_vits_epochs_come_late_too():
    """The formula of its published code: epoch e runs at the cosine of max(e - 1, 0)."""
    schedule = PerEpoch(WarmupCosine(5e-4, 300 * 3, floor=1e-5), 3, lag=1)
    t = np.maximum(np.arange(300) - 1, 0)
    expected = 1e-5 + 0.5 * (5e-4 - 1e-5) * (1 + np.cos(np.pi * t / 300))
    np.testing.assert_allclose(rates(schedule, 900)[::3], expected, **EXACT)
    assert schedule(0) == schedule(5) == 5e-4 > schedule(6)


def test_without_lag_every_epoch_has_the_rate_of_its_first_step():
    schedule = PerEpoch(WarmupLinear(0.8, 8, floor=0.0), 2)
    assert rates(schedule, 8) == pytest.approx([0.8, 0.8, 0.6, 0.6, 0.4, 0.4, 0.2, 0.2])


def test_without_warmup_it_starts_at_the_peak_and_ends_near_the_floor():
    schedule = WarmupCosine(0.1, 10, floor=0.01)
    assert schedule(0) == pytest.approx(0.1)
    assert schedule(5) == pytest.approx(0.055)
    assert schedule(10) == schedule(11) == pytest.approx(0.01)


@pytest.mark.parametrize("kind", [WarmupCosine, WarmupLinear])
def test_a_run_that_is_all_warmup(kind):
    schedule = kind(0.1, 4, warmup_steps=4, start=0.0)
    assert rates(schedule, 4) == pytest.approx([0, 0.025, 0.05, 0.075])


@pytest.mark.parametrize("steps, cycles", [(49, 49), (60, 4), (10, 3)])
def test_each_cycle_starts_at_its_own_peak(steps, cycles):
    schedule = WarmupCosine(1.0, steps, floor=0.0, cycles=cycles, decay=0.9)
    firsts = [-(-steps * cycle // cycles) for cycle in range(cycles)]  # the first whole step of each
    length = steps / cycles
    for cycle, k in enumerate(firsts):
        inside = (1 + np.cos(np.pi * (k - cycle * length) / length)) / 2
        assert schedule(k) == pytest.approx(0.9**cycle * inside, rel=1e-9)
    assert schedule(steps) == schedule(2 * steps) == 0


def test_linear_falls_in_a_straight_line():
    schedule = WarmupLinear(1.0, 12, warmup_steps=2, start=0.5, floor=0.2)
    assert rates(schedule, 3) == pytest.approx([0.5, 0.75, 1.0])
    assert np.diff(rates(schedule, 13)[2:]) == pytest.approx([-0.08] * 10)
    assert schedule(12) == schedule(100) == pytest.approx(0.2)


def test_steps_down_at_each_milestone():
    """ResNet-110 on CIFAR: 400 steps of warm-up, then 0.1, divided by 10 twice."""
    schedule = StepDecay(0.1, (32_000, 48_000), warmup_steps=400, start=0.01)
    found = [schedule(k) for k in (0, 200, 400, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert found == pytest.approx([0.01, 0.055, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert rates(StepDecay(1.0, (3, 1), factor=0.5), 4) == pytest.approx([1, 0.5, 0.5, 0.25])
