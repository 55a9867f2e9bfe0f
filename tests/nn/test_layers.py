"""What modules promise beyond their numbers: names, modes, randomness, errors."""

import numpy as np
import pytest

import minivit
from minivit import Tensor, nn
from minivit.errors import MinivitError, StateDictError
from minivit.nn.init import normal, xavier_normal


def make_attention(**options):
    init = xavier_normal(np.random.default_rng(3))
    return nn.Attention(12, 3, init=init, rng=np.random.default_rng(4), **options)


class Pair(nn.Module):
    def __init__(self):
        self.scale = nn.Parameter(np.ones(2, np.float32))
        self.layers = [nn.LayerNorm(2), nn.LayerNorm(2)]
        self.note = "not a parameter"
        self.constant = np.ones(3, np.float32)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x * self.scale


def test_parameters_are_named_by_their_path():
    names = [name for name, _ in Pair().named_parameters()]
    assert names == ["scale", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    assert Pair().num_parameters() == 10


def test_state_dict_is_a_copy():
    module = Pair()
    module.state_dict()["scale"][:] = 7
    np.testing.assert_array_equal(module.scale.data, 1)


def test_load_state_dict_lists_every_problem_and_changes_nothing():
    module = Pair()
    arrays = {name: 5 * array for name, array in module.state_dict().items()}
    del arrays["layers.0.bias"]
    arrays["layers.1.weight"] = np.ones(3, np.float32)
    arrays["extra"] = np.ones(1)
    with pytest.raises(StateDictError) as caught:
        module.load_state_dict(arrays)
    message = str(caught.value)
    assert "missing layers.0.bias" in message
    assert "unexpected extra" in message
    assert "layers.1.weight has shape (3,), expected (2,)" in message
    np.testing.assert_array_equal(module.scale.data, 1)


def test_load_state_dict_keeps_the_dtype_and_copies():
    module = Pair()
    arrays = {name: np.full(p.shape, 2.0) for name, p in module.named_parameters()}
    module.load_state_dict(arrays)
    arrays["scale"][:] = 9
    assert module.scale.dtype == np.float32
    np.testing.assert_array_equal(module.scale.data, 2)


def test_train_and_eval_reach_every_module():
    module = Pair()
    module.eval()
    assert not any(m.training for m in module.modules())
    module.train()
    assert all(m.training for m in module.modules()) and len(list(module.modules())) == 3


def test_dropout_and_drop_path_act_only_in_training():
    x = Tensor(np.ones((64, 3, 5), np.float32))
    for layer in (nn.Dropout(0.5, np.random.default_rng(0)), nn.DropPath(0.5, np.random.default_rng(0))):
        out = layer(x).data
        assert set(np.unique(out)) == {0, 2}
        assert 0.3 < (out == 0).mean() < 0.7
        assert layer.eval()(x) is x
    assert len(np.unique(nn.DropPath(0.5, np.random.default_rng(0))(x).data[0])) == 1


def test_attention_with_dropout_is_the_fused_attention_when_nothing_drops():
    """The single steps that serve dropout must mean the same as the fused op."""
    for options in ({}, {"learnable_temperature": True, "diagonal": -np.inf}):
        fused = make_attention(**options)
        stepwise = make_attention(attn_drop=0.5, **options)
        stepwise.load_state_dict(fused.state_dict())
        stepwise.attn_drop.eval()  # the path for dropout, with the masks off
        x = np.random.default_rng(0).standard_normal((2, 7, 12)).astype(np.float32)
        outs = [module(Tensor(x)) for module in (fused, stepwise)]
        np.testing.assert_allclose(outs[1].data, outs[0].data, atol=2e-6)
        for out in outs:
            out.backward(np.ones(out.shape, np.float32) * x)
        for (name, a), (_, b) in zip(fused.named_parameters(), stepwise.named_parameters(), strict=True):
            np.testing.assert_allclose(b.grad, a.grad, atol=3e-5, err_msg=name)


def test_masked_tokens_do_not_attend_to_themselves():
    """With values that mark each token, the output of token i holds nothing of token i."""
    n = 6
    q = np.random.default_rng(0).standard_normal((1, 1, n, 4)).astype(np.float32)
    v = np.eye(n, dtype=np.float32)[None, None]
    weights = minivit.ops.attention(q, q, v, np.ones(1, np.float32), diagonal=-np.inf).data[0, 0]
    np.testing.assert_array_equal(np.diag(weights), 0)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_attention_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(MinivitError, match="width 12 does not divide into 5 heads"):
        nn.Attention(12, 5, init=xavier_normal(np.random.default_rng(0)), rng=None)


def test_images_that_are_no_whole_number_of_patches_are_refused():
    embed = nn.PatchEmbed(3, 8, 4, init=xavier_normal(np.random.default_rng(0)))
    with pytest.raises(ValueError, match="10x12 pixels do not divide into patches of 4x4"):
        embed(Tensor(np.ones((1, 3, 10, 12), np.float32)))


def test_patch_embedding_is_the_convolution_whose_weight_it_has():
    rng = np.random.default_rng(0)
    embed = nn.PatchEmbed(3, 5, 4, init=xavier_normal(rng))
    embed.proj.bias.data[:] = rng.standard_normal(5)
    x = rng.standard_normal((2, 3, 8, 12)).astype(np.float32)
    images = minivit.ops.conv2d(x, embed.proj.weight, embed.proj.bias, stride=4).data
    np.testing.assert_allclose(embed(Tensor(x)).data, images.reshape(2, 5, 6).swapaxes(1, 2), atol=1e-5)


def test_initial_weights_have_the_variance_they_promise():
    rng = np.random.default_rng(0)
    weight = xavier_normal(rng)((300, 200))
    assert weight.dtype == np.float32
    assert abs(weight.std() / np.sqrt(2 / 500) - 1) < 0.02
    convolution = xavier_normal(rng)((60, 50, 3, 3))
    assert abs(convolution.std() / np.sqrt(2 / (9 * 110)) - 1) < 0.03
    assert abs(normal(rng)((300, 200)).std() - 1) < 0.02


@pytest.mark.parametrize("value", [[nn.Parameter(np.ones(1))], (nn.LayerNorm(2),), {"a": nn.LayerNorm(2)}])
def test_parts_that_would_be_forgotten_are_refused(value):
    module = nn.Module()
    module.parts = value
    with pytest.raises(TypeError, match=r"Module.parts: .*never be trained"):
        list(module.named_parameters())


def test_loaded_weights_are_contiguous_whatever_they_came_as():
    """Optimisers write through flat views of them."""
    module = nn.LayerNorm(2)
    module.weight = nn.Parameter(np.ones((3, 2), np.float32))
    module.load_state_dict({"weight": np.asfortranarray(np.ones((3, 2))), "bias": np.zeros(2)})
    assert module.weight.data.flags.c_contiguous
