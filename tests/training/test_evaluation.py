"""Measuring a network, by another path."""


import numpy as np
import pytest
from blobs import make_blobs

import minivit
from minivit.training.evaluation import count_hits, evaluate


class TestEvaluate:
    def test_against_plain_numpy(self):
        data = make_blobs()
        model = minivit.create_model("vit", num_classes=3, img_size=8, embed_dim=8, depth=1, num_heads=2)
        measured = evaluate(model, data.test, data.mean, data.std, batch_size=4)  # 4 + 4 + 2
        x = (data.test.images / 255 - 0.3) / 0.2
        with minivit.no_grad():
            logits = model.eval()(minivit.Tensor(x.astype(np.float32))).data.astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        rows = np.arange(10)
        assert measured.loss == pytest.approx(-np.log(p[rows, data.test.labels]).mean(), rel=1e-5)
        assert measured.top1 == pytest.approx(100 * (logits.argmax(axis=1) == data.test.labels).mean())
        assert (measured.top5, measured.images) == (100, 10)

    def test_mode_is_restored_and_dropout_off(self):
        data = make_blobs()
        model = minivit.create_model("vit", num_classes=3, img_size=8, embed_dim=8, depth=1, num_heads=2, drop_rate=0.5)
        model.train()
        first, second = (evaluate(model, data.test, data.mean, data.std).loss for _ in range(2))
        assert first == second and model.training
        assert not any(p.grad is not None for p in model.parameters())

    def test_ranks(self):
        nan = np.nan
        logits = np.array([[3, 2, 1, 0, 0, 0], [0] * 6, [1, 9, 2, 3, 4, 5], [1, 9, 0, 0, 0, nan]])
        assert count_hits(logits, np.array([0, 0, 1, 1])) == (3, 3)
        assert count_hits(logits, np.array([5, 5, 0, 5])) == (0, 0)  # all of rank 5
        assert count_hits(logits, np.array([4, 4, 2, 0])) == (0, 3)
        assert count_hits(logits[:3, :3], np.array([2, 2, 2])) == (0, 3)  # fewer classes than k
