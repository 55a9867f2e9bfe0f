"""What training does for binary networks beyond the optimiser's steps."""

import numpy as np

from minivit.training import checkpoint
from minivit.training.optimizers import AdamW

TINY = {"embed_dims": (8, 16), "depths": (1, 1), "num_heads": (1, 1), "mlp_ratios": (2, 2), "patch_size": 2}


def test_the_level_of_attention_probabilities_stays_above_zero(start, monkeypatch):
    """A step that takes it below, from where no gradient could bring it back, ends at a tenth of its start."""
    step = AdamW.step

    def too_far(self):
        step(self)
        for name, parameter in self.parameters.items():
            if name.endswith("att_prob_clip"):
                parameter.data -= 1

    monkeypatch.setattr(AdamW, "step", too_far)
    folder, _ = start(model="binary_vit", recipe="quick_binary_vit", drop_path=0.0, warmup_epochs=0, model_args=TINY)
    saved = checkpoint.read(folder.last)
    levels = [array for name, array in saved.weights.items() if name.endswith("att_prob_clip")]
    assert len(levels) == 2
    np.testing.assert_allclose(levels, saved.arguments["att_prob_clip"] / 10, rtol=1e-6)
