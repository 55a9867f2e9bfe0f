"""Official names and layouts under minivit's, both ways; and position tables of another image size on the way in.

The golden files prove that the numbers arrive where they belong; here every single number is followed by a tag.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_contract import ALL, small
from test_golden_models import README as OFFICIAL
from test_golden_models import part

import minivit
from minivit.errors import StateDictError
from minivit.models.interop import to_minivit, to_timm
from minivit.models.positions import METHODS, resample_positions

FILES = pytest.mark.parametrize("file", OFFICIAL)


def model_for(file):
    name, keywords = OFFICIAL[file]
    return minivit.create_model(name, num_classes=10, seed=None, **keywords)


def shapes_of(model):
    return {name: array.shape for name, array in model.state_dict().items()}


def tagged(shapes, start=0):
    """Arrays of these shapes whose elements are 0, 1, 2, ... through all of them."""
    arrays = {}
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        arrays[name] = np.arange(start, start + size, dtype=np.float64).reshape(shape)
        start += size
    return arrays


def official(golden, file):
    """Tagged arrays under the names and in the shapes of a golden file."""
    return tagged({name: array.shape for name, array in part(golden(file), "param.").items()})


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.shape(found[name]) == np.shape(array), name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def refusal(model, arrays, **options):
    """The one line that refuses ``arrays``; nothing has changed in the model."""
    before = model.state_dict()
    with pytest.raises(StateDictError) as caught:
        model.load_state_dict(arrays, **options)
    assert_same(model.state_dict(), before)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the SPT_LSA code, and BinaryViT's full-precision teacher -------------------------------------------------------


@FILES
def test_every_official_number_lands_in_one_place(golden, file):
    model, arrays = model_for(file), official(golden, file)
    renamed = to_minivit(arrays, model)
    assert {name: array.shape for name, array in renamed.items()} == shapes_of(model)
    numbers = np.sort(np.concatenate([array.ravel() for array in renamed.values()]))
    np.testing.assert_array_equal(numbers, np.arange(sum(array.size for array in arrays.values())))
    model.load_state_dict(arrays | part(golden(file), "buffer."))  # Swin's are ignored, T2T's is a parameter there
    assert_same(model.state_dict(), renamed)


@FILES
def test_gradients_take_the_same_way(golden, file):
    """Fewer of them than of weights, where something is fixed."""
    model, arrays = model_for(file), official(golden, file)
    gradients = {name: arrays[name] for name in part(golden(file), "grad.") if name in arrays}
    weights, renamed = to_minivit(arrays, model), to_minivit(gradients, model)
    assert renamed.keys() <= weights.keys()
    assert_same(renamed, {name: weights[name] for name in renamed})
    assert sum(a.size for a in renamed.values()) == sum(a.size for a in gradients.values())
    fixed = {"pos_embed", "tokens_to_token.norm.weight", "tokens_to_token.norm.bias"} if "t2t" in file else set()
    assert weights.keys() - renamed.keys() == fixed


@FILES
def test_data_parallel_wraps_names(golden, file):
    model, arrays = model_for(file), official(golden, file)
    wrapped = {f"module.{name}": array for name, array in arrays.items()}
    assert_same(to_minivit(wrapped, model), to_minivit(arrays, model))
    first, *others = wrapped
    mixed = {first.removeprefix("module."): wrapped[first], **{name: wrapped[name] for name in others}}
    assert f"unexpected {others[0]}" in refusal(model, mixed)


def test_rows_columns_and_heads_by_hand(golden):
    """The layouts that are not only other names."""
    arrays = official(golden, "cait_plain")
    found = to_minivit(arrays, model_for("cait_plain"))
    patch, cls = (f"{kind}_transformer.layers.1.0.fn.fn" for kind in ("patch", "cls"))
    qkv = found["blocks.1.attn.qkv.weight"]
    np.testing.assert_array_equal(qkv[:24], arrays[f"{patch}.to_q.weight"])
    np.testing.assert_array_equal(qkv[24:], arrays[f"{patch}.to_kv.weight"])
    np.testing.assert_array_equal(found["blocks_token_only.1.attn.q.weight"], arrays[f"{cls}.to_q.weight"])
    np.testing.assert_array_equal(found["blocks_token_only.1.attn.k.weight"], arrays[f"{cls}.to_kv.weight"][:24])
    np.testing.assert_array_equal(found["blocks_token_only.1.attn.v.weight"], arrays[f"{cls}.to_kv.weight"][24:])
    before, after = (arrays[f"{patch}.mix_heads_{when}_attn"] for when in ("pre", "post"))
    np.testing.assert_array_equal(found["blocks.1.attn.proj_l.weight"], before.T)
    np.testing.assert_array_equal(found["blocks.1.attn.proj_w.weight"], after.T)
    np.testing.assert_array_equal(found["blocks.0.gamma_2"], arrays["patch_transformer.layers.0.1.scale"][0, 0])
    flat, weight = arrays["to_patch_embedding.1.weight"], found["patch_embed.proj.weight"]
    for d, c, i, j in np.ndindex(weight.shape):
        assert weight[d, c, i, j] == flat[d, (i * 4 + j) * 3 + c]


# --- refusals ----------------------------------------------------------------------------------------------------

BROKEN = {  # file -> (official entry, where it lands)
    "sl_vit_cifar": ("transformer.layers.1.0.fn.scale", "blocks.1.attn.scale"),
    "vit_plain": ("to_patch_embedding.1.weight", "patch_embed.proj.weight"),
    "sl_cait": ("cls_transformer.layers.0.0.fn.fn.to_kv.weight", "blocks_token_only.0.attn.v.weight"),
    "cait_plain": ("patch_transformer.layers.1.0.fn.fn.to_kv.weight", "blocks.1.attn.qkv.weight"),
    "pit_plain": ("layers.3.downsample.net.1.weight", "transformers.2.pool.pointwise.weight"),
    "sl_pit": ("layers.1.merging.2.weight", "transformers.1.pool.spt.proj.weight"),
    "swin_plain": ("layers.1.downsample.reduction.weight", "layers.2.downsample.reduction.weight"),
    "sl_swin": ("layers.0.downsample.merging.1.weight", "layers.1.downsample.spt.norm.weight"),
    "sl_t2t_64": ("tokens_to_token.attention2.attn.scale", "tokens_to_token.attention2.attn.scale"),
    "deit_fp_eval": ("vit.encoder.layer.1.output.dense.weight", "blocks.1.mlp.fc2.weight"),
}


@pytest.mark.parametrize("file", BROKEN)
def test_all_that_is_wrong_is_named_at_once_in_our_names(golden, file):
    name, ours = BROKEN[file]
    model, arrays = model_for(file), official(golden, file)
    head = next(key for key in ("mlp_head.1.bias", "head.bias", "classifier.bias") if key in arrays)
    renamed_head = "head.fc.bias" if "swin" in file else "head.bias"
    arrays[name] = np.zeros((7, 5))
    arrays["extra.weight"] = arrays.pop(head)
    message = refusal(model, arrays)
    assert f"missing {renamed_head}" in message and "unexpected extra.weight" in message
    assert ours in message
    if ".to_kv." not in name:  # that can be neither joined with the queries nor split, and keeps its own name
        assert name == ours or name not in message
        assert message.count(";") == 2


@pytest.mark.parametrize("file", ["cait_plain", "sl_pit", "sl_swin", "s_vit"])
@given(data=st.data())
def test_one_array_of_another_shape_never_passes(golden, file, data):
    arrays = official(golden, file)
    name = data.draw(st.sampled_from(sorted(arrays)))
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 3, *arrays[name].shape]), max_size=4)))
    if np.prod(shape) == arrays[name].size:
        return  # as many numbers: a vector of LayerScale has two forms, a patch embedding too
    arrays[name] = np.zeros(shape)
    assert refusal(model_for(file), arrays, resample=None)


@pytest.mark.parametrize("file", ["sl_vit_cifar", "sl_cait", "sl_pit", "sl_swin"])
def test_nothing_official_is_overwritten_unsaid(golden, file):
    """Two entries for one of ours: the official one is left over, and said to be."""
    model, arrays = model_for(file), official(golden, file)
    ours = sorted(set(shapes_of(model)) - set(arrays))[0]
    arrays[ours] = np.full(shapes_of(model)[ours], -1.0)
    assert "unexpected" in refusal(model, arrays)


@pytest.mark.parametrize(
    "name, entry, shape",
    [
        ("resnet20", "conv1.weight", (4, 27)),
        ("regnety_nano", "stem.conv.weight", (8, 27)),
        ("vit", "norm.bias", (1, 1, 12)),
    ],
)
def test_only_official_entries_come_in_other_layouts(name, entry, shape):
    model = small(name)
    assert f"{entry} has shape {shape}" in refusal(model, model.state_dict() | {entry: np.zeros(shape)})


# --- checkpoints of the authors of Swin, PiT, and timm's ViT -----------------------------------------------------

SWIN = {"img_size": 32, "patch_size": 2, "embed_dim": 4, "depths": (2, 1, 2), "num_heads": (1, 2, 2), "window_size": 3,
        "num_classes": 5}  # fmt: skip


def authors_swin(model, state):
    """``state`` as the Swin authors' code would store it."""
    stored = {}
    for name, array in state.items():
        steps = name.split(".")
        if steps[2:3] == ["downsample"]:
            steps[1] = str(int(steps[1]) - 1)
        stored[".".join(step for step in steps if step != "fc")] = array
    for i, layer in enumerate(model.layers):
        for j, block in enumerate(layer.blocks):
            stored[f"layers.{i}.blocks.{j}.attn.relative_position_index"] = block.attn.index
            if block.attn.mask is not None:
                stored[f"layers.{i}.blocks.{j}.attn_mask"] = block.attn.mask
    return stored


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("wrap", ["", "module."])
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swin"])
def test_swin_as_its_authors_store_it(name, stages, wrap):
    keywords = {key: value[:stages] if isinstance(value, tuple) else value for key, value in SWIN.items()}
    model = minivit.create_model(name, seed=None, **keywords)
    state = tagged(shapes_of(model))
    stored = authors_swin(model, state)
    assert "head.weight" in stored and "layers.0.blocks.0.attn.relative_position_index" in stored
    assert ("layers.0.blocks.1.attn_mask" in stored) == (model.layers[0].blocks[1].attn.mask is not None)
    assert any(key.startswith("layers.0.downsample") for key in stored) == (stages > 1)
    model.load_state_dict({wrap + key: array for key, array in stored.items()})
    assert_same(model.state_dict(), state)


def test_swin_with_other_windows_is_refused():
    """A table of biases belongs to one size of window."""
    arrays = minivit.create_model("swin", seed=0, **SWIN).state_dict()
    other = minivit.create_model("swin", seed=0, **SWIN | {"window_size": 2})
    message = refusal(other, arrays)
    assert message.count("relative_position_bias_table has shape (25, ") == 5


PIT = {"img_size": 16, "patch_size": 4, "stride": 2, "base_dims": (4, 4, 4), "depth": (1, 1, 1), "heads": (1, 2, 2),
       "num_classes": 5}  # fmt: skip


@pytest.mark.parametrize("name", ["pit_ti_224", "pit_ti_distilled_224"])
def test_pit_as_its_authors_store_it(name):
    model = minivit.create_model(name, seed=None, **PIT)
    state = tagged(shapes_of(model))
    stored = {}
    for key, array in state.items():
        steps = key.split(".")
        if steps[2:3] == ["pool"]:  # transformers.2.pool.conv.weight -> pools.1.conv.weight
            key = f"pools.{int(steps[1]) - 1}.{'.'.join(steps[3:])}"
        stored[key] = array
    assert {key.split(".")[2] for key in stored if key.startswith("pools.1")} == {"conv", "fc"}
    model.load_state_dict(stored)
    assert_same(model.state_dict(), state)
    stored["pools.1.conv.weight"] = np.zeros((3, 3))
    assert "transformers.2.pool.conv.weight has shape (3, 3)" in refusal(model, stored)


def test_layer_scale_of_timms_vit_and_back():
    model = small("vit_tiny_patch16_224", init_values=0.1)
    state = tagged(shapes_of(model))
    stored = to_timm(state, model)
    assert {key for key in stored if key not in state} == {f"blocks.{i}.ls{j}.gamma" for i in (0, 1) for j in (1, 2)}
    assert len(stored) == len(state)
    np.testing.assert_array_equal(stored["blocks.1.ls2.gamma"], state["blocks.1.gamma_2"])
    assert_same(to_minivit(stored, model), state)
    model.load_state_dict({f"module.{key}": array for key, array in stored.items()})
    assert_same(model.state_dict(), state)


def test_layer_scale_of_cait_has_timms_names_already():
    model = small("cait_xxs24_224")
    state = model.state_dict()
    assert "blocks.0.gamma_1" in state
    assert_same(to_timm(state, model), state)


@ALL
def test_our_own_names_are_never_taken_for_official_ones(name):
    model = small(name)
    state = tagged(shapes_of(model))
    assert_same(to_minivit(state, model), state)
    assert_same(to_minivit(to_timm(state, model), model), state)
    for kept in (slice(None, None, 2), slice(1, None, 2), slice(3), slice(-3, None)):  # gradients of a part, say
        some = dict(list(state.items())[kept])
        assert_same(to_minivit(some, model), some)
    assert to_minivit({}, model) == {}


# --- position tables of another image size -----------------------------------------------------------------------

RESAMPLED = {  # model -> (keywords, name of its table, rows of class tokens)
    "vit": ({}, "pos_embed", 1),
    "deit_tiny_patch16_224": ({}, "pos_embed", 1),
    "deit_tiny_distilled_patch16_224": ({}, "pos_embed", 2),
    "cait": ({}, "pos_embed", 0),
    "cait_xxs24_224": ({}, "pos_embed", 0),
    "pit": ({}, "pos_embed", 1),
    "pit_ti_224": ({"stride": 2}, "pos_embed", 0),
    "pit_ti_distilled_224": ({"stride": 2}, "pos_embed", 0),
    "swin": ({"window_size": 2}, "absolute_pos_embed", 0),
}
TABLES = pytest.mark.parametrize("name", RESAMPLED)


def random_state(model):
    rng = np.random.default_rng(1)
    return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes_of(model).items()}


@TABLES
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [24, (24, 16), (8, 24)])
def test_tables_are_resampled_and_all_else_is_kept(name, method, size):
    keywords, table, prefix = RESAMPLED[name]
    arrays = random_state(small(name, **keywords))
    model = small(name, img_size=size, **keywords)
    patch = 2 if name == "swin" else 4
    stride = keywords.get("stride", patch)
    grid = tuple((side - patch) // stride + 1 for side in model.config.image_shape)
    model.load_state_dict(arrays, resample=method)
    found = model.state_dict()
    old = arrays.pop(table)
    new = found.pop(table)
    assert_same(found, arrays)
    assert new.shape != old.shape and new.dtype == np.float32
    np.testing.assert_array_equal(new, resample_positions(old, grid, prefix=prefix, method=method))
    if old.ndim == 4:
        assert new.shape == (1, old.shape[1], *grid)
    else:
        np.testing.assert_array_equal(new[:, :prefix], old[:, :prefix])
        assert new.shape[1] == prefix + grid[0] * grid[1]


@TABLES
def test_bicubic_is_what_happens_unless_forbidden(name):
    keywords, table, prefix = RESAMPLED[name]
    arrays = random_state(small(name, **keywords))
    by_default, explicit = (small(name, img_size=24, **keywords) for _ in range(2))
    message = refusal(by_default, arrays, resample=None)
    assert message.count(";") == 0 and f"{table} has shape {arrays[table].shape}, expected" in message
    by_default.load_state_dict(arrays)
    explicit.load_state_dict(arrays, resample="bicubic")
    assert_same(by_default.state_dict(), explicit.state_dict())
    same = small(name, **keywords)
    same.load_state_dict(arrays, resample=None)
    assert_same(same.state_dict(), arrays)


@TABLES
@given(shape=st.lists(st.integers(1, 7), max_size=4).map(tuple))  # no width of a model
def test_tables_that_make_no_sense_are_refused(name, shape):
    keywords, table, _ = RESAMPLED[name]
    model = small(name, **keywords)
    arrays = model.state_dict() | {table: np.zeros(shape)}
    assert f"{table} has shape {shape}, expected" in refusal(model, arrays)


@pytest.mark.parametrize(
    "shape",
    [
        (0,),
        (1, 0, 12),
        (1, 12, 0, 4),
        (1, 2, 0),
    ],
)
def test_empty_tables_are_refused(shape):
    model = small("vit")
    assert "pos_embed has shape" in refusal(model, model.state_dict() | {"pos_embed": np.zeros(shape)})


OTHER_SIZE = {
    "vit_plain": {"img_size": (40, 32), "patch_size": 4},
    "sl_cait": {"img_size": 48, "patch_size": 4},
    "sl_pit": {"img_size": (32, 48)},
    "swin_plain": {"img_size": (48, 32)},
}


@pytest.mark.parametrize("file", OTHER_SIZE)
def test_official_names_and_another_image_size_together(golden, file):
    name, keywords = OFFICIAL[file]
    arrays = part(golden(file), "param.")
    model = minivit.create_model(name, num_classes=10, seed=None, **keywords, **OTHER_SIZE[file])
    model.load_state_dict({f"module.{key}": array for key, array in arrays.items()})
    table, prefix = ("absolute_pos_embed", 0) if "swin" in file else ("pos_embed", 0 if "cait" in file else 1)
    old = next(array for key, array in arrays.items() if "pos_embed" in key)
    np.testing.assert_array_equal(model.state_dict()[table], resample_positions(old, model.grid, prefix=prefix))
    same = minivit.create_model(name, num_classes=10, seed=None, **keywords)
    same.load_state_dict(arrays)
    found, expected = model.state_dict(), same.state_dict()
    del found[table], expected[table]
    assert_same(found, expected)


@pytest.mark.parametrize("name", ["t2t", "t2t_vit_7"])
@pytest.mark.parametrize(
    "wrap", ["", "module."]
)
@pytest.mark.parametrize("resample", ["bicubic", None])
def test_the_fixed_table_of_t2t_stays(name, wrap, resample):
    arrays = random_state(small(name, img_size=32))
    arrays["pos_embed"] = small(name, img_size=32).pos_embed.data
    model = small(name, img_size=(40, 64))
    fixed = model.pos_embed.data.copy()
    assert fixed.shape != arrays["pos_embed"].shape
    model.load_state_dict({wrap + key: array for key, array in arrays.items()}, resample=resample)
    assert_same(model.state_dict(), arrays | {"pos_embed": fixed})


@given(shape=st.lists(st.integers(0, 9), max_size=4).map(tuple))
def test_what_is_no_table_of_t2t_is_refused(shape):
    model = small("t2t")
    assert "pos_embed has shape" in refusal(model, model.state_dict() | {"pos_embed": np.zeros(shape)})
