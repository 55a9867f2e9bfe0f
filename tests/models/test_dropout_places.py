"""Where dropout acts: after which op, in each family."""

import numpy as np
import pytest

import minivit
from minivit.tensor import observe

FLAT = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
STAGES = {"img_size": 8, "patch_size": 2, "base_dims": (4, 4), "depth": (1, 1), "heads": (2, 2)}
WINDOWS = {"img_size": 8, "patch_size": 2, "embed_dim": 4, "depths": (1, 1), "num_heads": (1, 2), "window_size": 2}
SPLITS = {"img_size": 32, "embed_dim": 8, "depth": 1, "num_heads": 2, "token_dim": 4}

POSITIONS = "add"
BLOCK = ["softmax", "linear", "gelu", "linear"]  # attention weights, attention's output, and both layers of the MLP
TALKING = ["reshape", "linear", "gelu", "linear"]  # the weights come from the mixing of the heads


class Recorder:
    """Remembers which op made the input of every dropout."""

    def __init__(self):
        self.makers, self.before_dropout, self.alive = {}, [], []

    def op(self, name, arrays, static, result):
        if name == "dropout":
            self.before_dropout.append(self.makers[id(arrays[0])])
        self.makers[id(result)] = name
        self.alive.append(result)  # or its id would be given to another array

    def call(self, module, args, kwargs):
        return module.forward(*args, **kwargs)


@pytest.mark.parametrize(
    "name, keywords, expected",
    [
        ("sl_vit", FLAT, [POSITIONS, *BLOCK]),
        ("deit_tiny_distilled_patch16_224", FLAT, [POSITIONS, *BLOCK]),
        ("sl_cait", {**FLAT, "depth_token_only": 1}, [POSITIONS, *TALKING, *TALKING]),
        ("cait_xxs24_224", {**FLAT, "depth_token_only": 1}, [POSITIONS, *TALKING]),
        ("pit", STAGES, [POSITIONS, *BLOCK, *BLOCK]),
        ("pit_ti_224", {**STAGES, "stride": 2}, [POSITIONS, *BLOCK, *BLOCK]),
        ("swin", WINDOWS, [POSITIONS, *BLOCK, *BLOCK]),
        ("t2t_vit_t_14", SPLITS, [POSITIONS, *BLOCK]),
    ],
)
def test_dropout_follows_positions_attention_and_both_layers_of_the_mlp(name, keywords, expected):
    model = minivit.create_model(name, seed=0, drop_rate=0.3, attn_drop_rate=0.4, **keywords).train()
    recorder, side = Recorder(), keywords["img_size"]
    with observe(recorder):
        model(minivit.Tensor(np.ones((2, 3, side, side), np.float32)))
    assert recorder.before_dropout == expected
