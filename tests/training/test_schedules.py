"""The learning rate at every step, against the published training code's."""

import numpy as np
import pytest

from minivit.training.schedules import WarmupCosine


@pytest.mark.parametrize("name", ["lr_schedule_sl_small", "lr_schedule_sl_paper_vit"])
def test_warmup_cosine_is_the_published_schedule(golden, name):
    g = golden(name)
    per_epoch = int(g["iters_per_epoch"])
    schedule = WarmupCosine(
        float(g["base_lr"]), int(g["epochs"]) * per_epoch, warmup_steps=int(g["warmup_epochs"]) * per_epoch
    )
    np.testing.assert_allclose([schedule(int(k)) for k in g["iteration"]], g["lr"], rtol=1e-12)


def test_without_warmup_it_starts_at_the_peak_and_ends_near_the_floor():
    schedule = WarmupCosine(0.1, 10, floor=0.01)
    assert schedule(0) == pytest.approx(0.1)
    assert schedule(5) == pytest.approx(0.055)
    assert schedule(10) == schedule(11) == pytest.approx(0.01)


def test_a_run_that_is_all_warmup():
    schedule = WarmupCosine(0.1, 4, warmup_steps=4, start=0.0)
    assert [schedule(k) for k in range(4)] == pytest.approx([0, 0.025, 0.05, 0.075])
