"""Recorded attention: what multiplies the values, to the last digit; maps of every family; rollout."""

from pathlib import Path

import numpy as np
import pytest

import minivit
from minivit import Tensor, nn, no_grad
from minivit.analysis.attention_maps import (
    attention_layers,
    attention_maps,
    record_attention,
    rollout,
    rollout_maps,
)
from minivit.errors import UsageError
from minivit.kernels.backend import use_backend
from minivit.models.packing import pack
from minivit.nn import Linear
from minivit.nn.init import normal
from minivit.tensor import current_observer

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "numba"])
LSA = {"learnable_temperature": True, "diagonal": -np.inf}
TALKING = {"talking_heads": lambda: Linear(3, 3, init=normal(np.random.default_rng(7)))}
OPTIONS = {  # keywords of HeadAttention
    "plain": {},
    "LSA": LSA,
    "published diagonal": {"diagonal": -1e-9, **TALKING},
    "talking heads": TALKING,
    "talking heads, masked": {"mask_after_mixing": True, **TALKING},
    "dropout": {"attn_drop": 0.4},
}


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


def attention_of(kind, *arguments, **options):
    """A module of random weights, in float64."""
    rng = np.random.default_rng(1)
    return kind(*arguments, init=normal(rng, 0.5), rng=rng, **options).astype(np.float64)


def heads(x):
    """Three heads: (B, N, 3 d) -> (B, 3, N, d)."""
    return x.reshape(*x.shape[:2], 3, -1).transpose(0, 2, 1, 3)


def joined(x):
    """Undo ``heads``."""
    return x.transpose(0, 2, 1, 3).reshape(len(x), x.shape[2], -1)


def recorded(module, *inputs):
    """(weights, result) of one call."""
    with no_grad(), record_attention([module]) as weights:
        result = module(*map(Tensor, inputs))
    return weights[module], result.data


def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


class TestRecording:
    @BACKENDS
    @pytest.mark.parametrize("options", OPTIONS)
    def test_weights_times_values_are_the_result(self, options, backend):
        attention = attention_of(nn.Attention, 12, 3, proj=False, **OPTIONS[options]).train(options == "dropout")
        x = draw(2, 5, 12)
        with use_backend(backend):
            weights, result = recorded(attention, x)
        assert weights.shape == (2, 3, 5, 5)
        values = heads((x @ attention.qkv.weight.data.T + attention.qkv.bias.data)[:, :, 24:])
        np.testing.assert_allclose(joined(weights @ values), result, rtol=0, atol=1e-13)
        assert (weights == 0).any() == (options in ("LSA", "talking heads, masked", "dropout"))
        if options in ("plain", "LSA"):
            np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=0, atol=1e-14)

    @BACKENDS
    def test_lsa_by_its_formula(self, backend):
        attention = attention_of(nn.Attention, 12, 3, **LSA)
        attention.scale.data = np.array([0.2, 1.0, -0.7])
        x, bias = draw(2, 5, 12), draw(3, 5, 5)
        q, k, _ = np.split(x @ attention.qkv.weight.data.T + attention.qkv.bias.data, 3, axis=2)
        scores = attention.scale.data.reshape(3, 1, 1) * (heads(q) @ heads(k).swapaxes(2, 3)) + bias
        scores[..., np.eye(5, dtype=bool)] = -np.inf
        with use_backend(backend):
            weights, _ = recorded(attention, x, bias)
        np.testing.assert_allclose(weights, softmax(scores), rtol=0, atol=1e-14)
        assert not np.einsum("bhnn->bhn", weights).any()

    @pytest.mark.parametrize("options", ["plain", "talking heads"])
    def test_class_attention(self, options):
        attention = attention_of(nn.ClassAttention, 12, 3, proj=False, **OPTIONS[options])
        query, tokens = draw(2, 1, 12), draw(2, 7, 12)
        weights, result = recorded(attention, query, tokens)
        assert weights.shape == (2, 3, 1, 7)
        values = heads(tokens @ attention.v.weight.data.T + attention.v.bias.data)
        np.testing.assert_allclose(joined(weights @ values), result, rtol=0, atol=1e-13)

    def test_binary_attention(self):
        init = normal(np.random.default_rng(1))
        attention = nn.BinaryAttention(12, 3, grid=(4, 4), reduction=2, att_prob_clip=0.3, init=init).eval()
        x = draw(2, 16, 12).astype(np.float32)
        weights, result = recorded(attention, x)
        assert weights.shape == (2, 3, 16, 4) and set(np.unique(weights)) == {0, np.float32(0.3)}
        with no_grad():
            u = attention.reduce(minivit.ops.pool_cells(Tensor(x), (4, 4), 2))
            q, k, v = attention.q(Tensor(x)), attention.k(u), attention.v(u)
            context = joined(weights @ heads(np.where(v.data + attention.v_shift.data >= 0, 1, -1)))
            coarse = nn.binary.repeat_cells(k + v, (4, 4), 2)
            expected = attention.act(attention.norm(Tensor(context.astype(np.float32))) + q + coarse)
        np.testing.assert_allclose(result, expected.data, rtol=0, atol=1e-5)

    def test_it_changes_no_result_and_no_gradient(self):
        model, twin = (minivit.create_model("sl_vit", depth=2, drop_rate=0.1, **SMALL) for _ in range(2))
        images = Tensor(draw(2, 3, 32, 32).astype(np.float32))
        expected = twin(images)
        expected.sum().backward()
        with record_attention([model.blocks[1].attn]) as weights:
            found = model(images)
            found.sum().backward()
        np.testing.assert_array_equal(found.data, expected.data)
        for (name, one), (_, other) in zip(model.named_parameters(), twin.named_parameters()):
            np.testing.assert_array_equal(one.grad, other.grad, err_msg=name)
        assert list(weights) == [model.blocks[1].attn]  # of block 0 nobody asked

    def test_it_ends_with_the_block_and_with_an_exception(self):
        attention, x = attention_of(nn.Attention, 12, 3), draw(2, 5, 12)
        with pytest.raises(ValueError, match="linear"), record_attention([attention]) as weights:
            attention(Tensor(x[..., :3]))
        assert current_observer() is None and weights == {}
        with record_attention([attention]) as weights:
            with pytest.raises(ValueError, match="linear"):
                attention(Tensor(x[..., :3]))
            (Tensor(x) @ Tensor(x[0].T)).sum()  # outside all modules
            assert weights == {}
            attention(Tensor(x))
        first = weights[attention]
        attention(Tensor(x + 1))
        assert weights[attention] is first


SMALL = {"num_classes": 4, "embed_dim": 12, "num_heads": 3}
CAIT = {"num_classes": 4, "embed_dim": 16, "num_heads": 2, "depth": 1}
PIT = {"num_classes": 4, "base_dims": (6, 6, 6), "depth": (1, 2, 1), "heads": (1, 2, 4)}
TINY = {"num_classes": 4, "patch_size": 4, "depth": 2, "num_heads": 3, "embed_dim": 12}
MODELS = {  # what it tries -> name, keywords; (heads, rows, columns) of each layer, class token, layers of the rollout
    "sl_vit": ("sl_vit", {**SMALL, "depth": 2}, [(3, 8, 8)] * 2, True, [0, 1]),
    "oblong": ("l_vit", {**TINY, "img_size": (8, 20)}, [(3, 2, 5)] * 2, True, [0, 1]),
    "one head": ("vit", {**TINY, "img_size": 8, "num_heads": 1}, [(1, 2, 2)] * 2, True, [0, 1]),
    "distilled": ("deit_tiny_distilled_patch16_224", {**TINY, "img_size": (8, 12)}, [(3, 2, 3)] * 2, True, [0, 1]),
    "cait": ("cait_xxs24_224", {**CAIT, "img_size": 48, "depth_token_only": 3}, [(2, 3, 3)] * 3, True, [0, 1, 2]),
    "sl_cait": ("sl_cait", CAIT, [(2, 8, 8)] * 2, True, [0, 1]),
    "sl_pit": ("sl_pit", PIT, [(1, 16, 16), (2, 8, 8), (2, 8, 8), (4, 4, 4)], True, [3]),
    "pit distilled": (
        "pit_ti_distilled_224",
        {**PIT, "img_size": (20, 24), "patch_size": 4, "stride": 2, "depth": (1, 1, 2)},
        [(1, 9, 11), (2, 5, 6), (4, 3, 3), (4, 3, 3)],
        True,
        [2, 3],
    ),
    "sl_t2t": ("sl_t2t", {**SMALL, "depth": 2, "token_dim": 6}, [(3, 8, 8)] * 2, True, [0, 1]),
    "t2t performer": (
        "t2t_vit_7", {**SMALL, "img_size": (32, 48), "depth": 1, "token_dim": 6}, [(3, 2, 3)], True, [0]
    ),
    "binary class token": ("binary_deit_cls", {**TINY, "img_size": 16}, [(3, 4, 4)] * 2, True, [0, 1]),
    "binary mean": ("binary_deit", {**TINY, "img_size": 16}, [(3, 4, 4)] * 2, False, None),
    "binary pyramid": (
        "binary_vit",
        {"img_size": 32, "patch_size": 4, "depths": (1, 1), "embed_dims": (12, 24), "num_heads": (3, 2),
         "mlp_ratios": (2, 2), "reductions": (2, 1), "num_classes": 4},
        [(3, 4, 4), (2, 4, 4)],
        False,
        None,
    ),
}  # fmt: skip


@pytest.fixture(params=MODELS)
def case(request):
    """(model, images, shapes of its maps, whether it has a class token, layers of its rollout)."""
    name, keywords, *expected = MODELS[request.param]
    model = minivit.create_model(name, seed=3, **keywords)
    images = draw(2, 3, *model.config.image_shape).astype(np.float32)
    return model, images, *expected


class TestMaps:
    def test_every_layer(self, case):
        model, images, shapes, class_token, _ = case
        layers = attention_layers(model)
        assert [layer.grid for layer in layers] == [shape[1:] for shape in shapes]
        assert {layer.class_token for layer in layers} == {class_token}
        with no_grad(), record_attention([layer.module for layer in layers]) as weights:
            model.eval()(Tensor(images))
        model.train()
        for i, (layer, (heads, rows, columns)) in enumerate(zip(layers, shapes)):
            numbers, maps = attention_maps(model, images, i)
            assert numbers == [i] and maps.shape == (2, heads, rows, columns) and maps.dtype == np.float32
            w = np.abs(weights[layer.module])
            first = w.shape[3] - rows * columns  # class tokens come before the patches
            for row, column in ((0, columns - 1), (rows - 1, 0), (rows // 2, columns // 2)):
                key = w[..., first + row * columns + column]
                expected = key[:, :, 0] if class_token else key.mean(axis=2)
                np.testing.assert_allclose(maps[:, :, row, column], expected, rtol=1e-6)
        assert model.training
        np.testing.assert_array_equal(attention_maps(model, images)[1], maps)
        assert attention_maps(model, images, -len(layers))[0] == [0]

    def test_layers_out_of_range(self):
        model = minivit.create_model("vit", **TINY)
        images = np.zeros((1, 3, 32, 32), np.float32)
        for layer in (2, -3):
            with pytest.raises(UsageError, match=f"no layer {layer} with a map: there are 2, 0 to 1"):
                attention_maps(model, images, layer)

    @pytest.mark.parametrize(
        "name, keywords, reason",
        [
            ("sl_swin", {}, "windows"),
            ("resnet20", {}, "ResNet has no attention"),
            ("regnety_nano", {}, "has no attention"),
            ("cait", {"depth": 1, "depth_token_only": 0}, "no class-attention block"),
        ],
    )
    def test_networks_without(self, name, keywords, reason):
        with pytest.raises(UsageError, match=reason):
            attention_layers(minivit.create_model(name, seed=None, **keywords))

    def test_packed_networks(self):
        model = pack(minivit.create_model("binary_deit_cls", img_size=16, **TINY))
        with pytest.raises(UsageError, match="checkpoint that it was packed from"):
            attention_maps(model, np.zeros((1, 3, 16, 16), np.float32))

    def test_the_mode_is_restored_after_an_error(self):
        model = minivit.create_model("vit", **TINY).train()
        with pytest.raises(ValueError, match="expected images"):
            attention_maps(model, np.zeros((1, 3, 8, 8), np.float32))
        assert model.training and current_observer() is None


class TestRollout:
    def test_by_hand(self):
        first, second = softmax(draw(2, 2, 6, 6))
        identity = np.eye(6)
        expected = [(b + identity) / 2 @ ((a + identity) / 2) for a, b in zip(first, second)]
        found = rollout([first, second], 6)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
        np.testing.assert_allclose(found.sum(axis=2), 1, rtol=0, atol=1e-14)

    def test_rows_are_scaled_to_sum_to_one_and_empty_ones_stay(self):
        attention = softmax(draw(2, 6, 6))
        np.testing.assert_allclose(rollout([attention * 7], 6), rollout([attention], 6), rtol=0, atol=1e-15)
        attention[:, 2] = 0
        np.testing.assert_array_equal(rollout([attention], 6)[:, 2], np.tile(np.eye(6)[2] / 2, (2, 1)))

    @pytest.mark.parametrize("keys", [6, 5])
    def test_class_attention_leaves_patches_alone(self, keys):
        """CaiT's class token is among its keys, that of the small-data CaiT is not."""
        layers = softmax(draw(3, 2, 1, keys))
        full = np.tile(np.eye(6), (3, 2, 1, 1))
        full[:, :, :1] = 0
        full[:, :, :1, 6 - keys :] = layers
        np.testing.assert_allclose(rollout(list(layers), 6), rollout(list(full), 6), rtol=0, atol=1e-15)

    def test_every_family(self, case):
        model, images, shapes, class_token, numbers = case
        if numbers is None:
            with pytest.raises(UsageError, match="rollout follows a class token"):
                rollout_maps(model, images)
            return
        found, maps = rollout_maps(model, images)
        assert found == numbers and maps.shape == (2, 1, *shapes[-1][1:]) and maps.dtype == np.float32
        layers = [attention_layers(model)[i] for i in numbers]
        with no_grad(), record_attention([layer.module for layer in layers]) as weights:
            model.eval()(Tensor(images))
        rows, columns = shapes[-1][1:]
        tokens = max(weights[layers[0].module].shape[3], rows * columns + 1)
        rolled = np.tile(np.eye(tokens), (2, 1, 1))
        for layer in layers:
            mean = np.abs(weights[layer.module].astype(np.float64)).mean(axis=1)
            total = mean.sum(axis=2, keepdims=True)
            full = np.tile(np.eye(tokens), (2, 1, 1))
            full[:, : mean.shape[1]] = 0
            full[:, : mean.shape[1], tokens - mean.shape[2] :] = np.divide(mean, total, where=total > 0, out=mean * 0)
            rolled = (full + np.eye(tokens)) / 2 @ rolled
        expected = rolled[:, 0, tokens - rows * columns :].reshape(2, 1, rows, columns)
        np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-9)


ORACLES = {  # timm's name -> keywords
    "vit_tiny_patch16_224": {**TINY, "img_size": (8, 20)},
    "deit_tiny_distilled_patch16_224": {**TINY, "img_size": (8, 12)},
    "cait_xxs24_224": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 4, "num_classes": 5, "img_size": 12},
    "pit_ti_distilled_224": {"patch_size": 4, "stride": 2, "num_classes": 5, "img_size": 24, "base_dims": (6, 6, 6),
                             "depth": (2, 1, 1), "heads": (2, 2, 6)},
    "swin_tiny_patch4_window7_224": {"patch_size": 2, "embed_dim": 8, "num_classes": 5, "img_size": 32,
                                     "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", ORACLES)
def test_recorded_weights_are_those_of_timm(name, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "models")
    from timm_oracle import import_timm, random_model

    torch, timm = import_timm()
    theirs = random_model(torch, timm, name, **ORACLES[name])
    ours = minivit.create_model(name, seed=1, **ORACLES[name]).astype(np.float64).eval()
    ours.load_state_dict({key: tensor.numpy() for key, tensor in theirs.state_dict().items()})
    expected = []
    for part, module in theirs.named_modules():
        if part.endswith("attn_drop"):  # a dropout that does nothing here, through which all weights go
            module.register_forward_hook(lambda _, inputs, __: expected.append(inputs[0].numpy()))
    images = draw(2, 3, *ours.config.image_shape)
    modules = [m for m in ours.modules() if isinstance(m, nn.attention.HeadAttention)]
    with torch.no_grad():
        theirs(torch.from_numpy(images))
    with no_grad(), record_attention(modules) as weights:
        ours(Tensor(images))
    assert len(expected) == len(modules) == len(weights) > 0
    for module, array in zip(modules, expected):
        np.testing.assert_allclose(weights[module], array, rtol=0, atol=1e-11)
