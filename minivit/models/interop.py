"""Official weights under minivit's names, by tables.

minivit names parameters as timm does, so that an official DeiT, CaiT, PiT, Swin, RegNetY or T2T-ViT state dict loads as
it is. Other code has other names, and cuts some weights differently; the tables below say which is which. They serve
gradients as well as weights, because every rule only moves numbers.

A row is (official name, minivit's name); {i} and {j} stand for numbers, {p} for "weight" or "bias", {k} for any one
name. Beside a name of minivit there may stand

    NAME@i      the official array is part i of the rows of NAME
    NAME|NAME   the official array holds both, one below the other
    NAME^T      the official array is the transpose
    NAME^V      the official array has further axes, of size 1
    NAME^P      the official array acts on patches flattened as (row, column, channel): (D, P P C), not (D, C, P, P)
"""

import re
from collections import Counter

import numpy as np

_MAX_STAGES = 8

_SPT_LSA_COMMON = [
    ("pos_embedding", "pos_embed"),
    ("to_patch_embedding.merging.1.{p}", "patch_embed.norm.{p}"),
    ("to_patch_embedding.merging.2.{p}", "patch_embed.proj.{p}"),
    ("to_patch_embedding.0.merging.1.{p}", "patch_embed.norm.{p}"),
    ("to_patch_embedding.0.merging.2.{p}", "patch_embed.proj.{p}"),
    ("to_patch_embedding.1.weight", "patch_embed.proj.weight^P"),
    ("to_patch_embedding.1.bias", "patch_embed.proj.bias"),
    ("mlp_head.0.{p}", "norm.{p}"),
    ("mlp_head.1.{p}", "head.{p}"),
]


def _spt_lsa_blocks(official, ours):
    return [
        (f"{official}.0.norm.{{p}}", f"{ours}.norm1.{{p}}"),
        (f"{official}.0.fn.scale", f"{ours}.attn.scale"),
        (f"{official}.0.fn.to_qkv.weight", f"{ours}.attn.qkv.weight"),
        (f"{official}.0.fn.to_out.0.{{p}}", f"{ours}.attn.proj.{{p}}"),
        (f"{official}.1.norm.{{p}}", f"{ours}.norm2.{{p}}"),
        (f"{official}.1.fn.net.0.{{p}}", f"{ours}.mlp.fc1.{{p}}"),
        (f"{official}.1.fn.net.3.{{p}}", f"{ours}.mlp.fc2.{{p}}"),
    ]


def _spt_lsa_cait_blocks(official, ours):
    return [
        (f"{official}.0.scale", f"{ours}.gamma_1^V"),
        (f"{official}.0.fn.norm.{{p}}", f"{ours}.norm1.{{p}}"),
        (f"{official}.0.fn.fn.scale", f"{ours}.attn.scale"),
        (f"{official}.0.fn.fn.mix_heads_pre_attn", f"{ours}.attn.proj_l.weight^T"),
        (f"{official}.0.fn.fn.mix_heads_post_attn", f"{ours}.attn.proj_w.weight^T"),
        (f"{official}.0.fn.fn.to_out.0.{{p}}", f"{ours}.attn.proj.{{p}}"),
        (f"{official}.1.scale", f"{ours}.gamma_2^V"),
        (f"{official}.1.fn.norm.{{p}}", f"{ours}.norm2.{{p}}"),
        (f"{official}.1.fn.fn.net.0.{{p}}", f"{ours}.mlp.fc1.{{p}}"),
        (f"{official}.1.fn.fn.net.3.{{p}}", f"{ours}.mlp.fc2.{{p}}"),
    ]


SPT_LSA_VIT = [*_SPT_LSA_COMMON, *_spt_lsa_blocks("transformer.layers.{i}", "blocks.{i}")]

BINARYVIT_DEIT = [  # the full-precision teacher in the official BinaryViT code
    ("vit.embeddings.cls_token", "cls_token"),
    ("vit.embeddings.position_embeddings", "pos_embed"),
    ("vit.embeddings.patch_embeddings.projection.{p}", "patch_embed.proj.{p}"),
    ("vit.encoder.layer.{i}.layernorm_before.{p}", "blocks.{i}.norm1.{p}"),
    ("vit.encoder.layer.{i}.attention.attention.query.{p}", "blocks.{i}.attn.qkv.{p}@0"),
    ("vit.encoder.layer.{i}.attention.attention.key.{p}", "blocks.{i}.attn.qkv.{p}@1"),
    ("vit.encoder.layer.{i}.attention.attention.value.{p}", "blocks.{i}.attn.qkv.{p}@2"),
    ("vit.encoder.layer.{i}.attention.output.dense.{p}", "blocks.{i}.attn.proj.{p}"),
    ("vit.encoder.layer.{i}.layernorm_after.{p}", "blocks.{i}.norm2.{p}"),
    ("vit.encoder.layer.{i}.intermediate.dense.{p}", "blocks.{i}.mlp.fc1.{p}"),
    ("vit.encoder.layer.{i}.output.dense.{p}", "blocks.{i}.mlp.fc2.{p}"),
    ("vit.layernorm.{p}", "norm.{p}"),
    ("classifier.{p}", "head.{p}"),
]

SPT_LSA_CAIT = [
    *_SPT_LSA_COMMON,
    *_spt_lsa_cait_blocks("patch_transformer.layers.{i}", "blocks.{i}"),
    ("patch_transformer.layers.{i}.0.fn.fn.to_q.weight", "blocks.{i}.attn.qkv.weight@0"),
    ("patch_transformer.layers.{i}.0.fn.fn.to_kv.weight", "blocks.{i}.attn.qkv.weight@1"),
    *_spt_lsa_cait_blocks("cls_transformer.layers.{i}", "blocks_token_only.{i}"),
    ("cls_transformer.layers.{i}.0.fn.fn.to_q.weight", "blocks_token_only.{i}.attn.q.weight"),
    (
        "cls_transformer.layers.{i}.0.fn.fn.to_kv.weight",
        "blocks_token_only.{i}.attn.k.weight|blocks_token_only.{i}.attn.v.weight",
    ),
]

SPT_LSA_PIT = [*_SPT_LSA_COMMON, ("to_patch_embedding.0.{p}", "patch_embed.conv.{p}")]
for _stage in range(_MAX_STAGES):  # there, layers 0, 2, 4 are the stages, and 1, 3 the poolings between them
    _pool, _ours = f"layers.{2 * _stage + 1}", f"transformers.{_stage + 1}.pool"
    SPT_LSA_PIT += [
        *_spt_lsa_blocks(f"layers.{2 * _stage}.layers.{{i}}", f"transformers.{_stage}.blocks.{{i}}"),
        (f"{_pool}.downsample.net.0.{{p}}", f"{_ours}.conv.{{p}}"),
        (f"{_pool}.downsample.net.1.{{p}}", f"{_ours}.pointwise.{{p}}"),
        (f"{_pool}.cls_ff.{{p}}", f"{_ours}.fc.{{p}}"),
        (f"{_pool}.class_linear.{{p}}", f"{_ours}.class_linear.{{p}}"),
        (f"{_pool}.merging.1.{{p}}", f"{_ours}.spt.norm.{{p}}"),
        (f"{_pool}.merging.2.{{p}}", f"{_ours}.spt.proj.{{p}}"),
    ]

POOLS_PIT = [(f"pools.{i - 1}.{{k}}.{{p}}", f"transformers.{i}.pool.{{k}}.{{p}}") for i in range(1, _MAX_STAGES)]
"""Names of the pooling layers in the PiT authors' own checkpoints."""

OFFICIAL_SWIN = [  # the authors' code, and that of SPT_LSA: pooling stands at the end of the stage before
    ("head.{p}", "head.fc.{p}"),
    ("patch_embed.merging.1.{p}", "patch_embed.norm.{p}"),
    ("patch_embed.merging.2.{p}", "patch_embed.proj.{p}"),
]
for _stage in range(1, _MAX_STAGES):
    _theirs, _ours = f"layers.{_stage - 1}.downsample", f"layers.{_stage}.downsample"
    OFFICIAL_SWIN += [
        (f"{_theirs}.norm.{{p}}", f"{_ours}.norm.{{p}}"),
        (f"{_theirs}.reduction.weight", f"{_ours}.reduction.weight"),
        (f"{_theirs}.merging.1.{{p}}", f"{_ours}.spt.norm.{{p}}"),
        (f"{_theirs}.merging.2.{{p}}", f"{_ours}.spt.proj.{{p}}"),
    ]


def _rprelu(official, ours):
    names = {"move1": "shift_in", "prelu.weight": "slope", "move2": "shift_out"}
    return [(f"{official}.{theirs}", f"{ours}.{name}") for theirs, name in names.items()]


def _affine(official, ours):
    return [(f"{official}.alpha", f"{ours}.scale"), (f"{official}.move", f"{ours}.shift")]


def _binary_unit(official, ours, move="move", layer="dense", norm="norm", act="rprelu"):
    return [
        (f"{official}.{move}", f"{ours}.shift"),
        (f"{official}.{layer}.weight", f"{ours}.layer.weight"),
        (f"{official}.{norm}.{{k}}", f"{ours}.norm.{{k}}"),
        *_rprelu(f"{official}.{act}", f"{ours}.act"),
    ]


_LAYER, _ATTENTION = "vit.encoder.layer.{i}", "vit.encoder.layer.{i}.attention.attention"
BINARYVIT = [  # the binary models of the official BinaryViT code; {k} stands for the five entries of a BatchNorm
    ("vit.embeddings.cls_token", "cls_token"),
    ("vit.embeddings.position_embeddings", "pos_embed"),
    ("vit.embeddings.patch_embeddings.projection.{p}", "patch_embed.proj.{p}"),
    ("vit.embeddings.norm.{k}", "norm_pre.{k}"),
    (f"{_LAYER}.layernorm_before.{{k}}", "blocks.{i}.norm1.{k}"),
    *_binary_unit(_ATTENTION, "blocks.{i}.attn.q", "moveq", "query", "normq", "rpreluq"),
    *_binary_unit(_ATTENTION, "blocks.{i}.attn.k", "movek", "key", "normk", "rpreluk"),
    *_binary_unit(_ATTENTION, "blocks.{i}.attn.v", "movev", "value", "normv", "rpreluv"),
    *_binary_unit(_ATTENTION, "blocks.{i}.attn.reduce", "mover", "reduction", "norm_r", "rprelur"),
    (f"{_ATTENTION}.moveq2", "blocks.{i}.attn.q_shift"),
    (f"{_ATTENTION}.movek2", "blocks.{i}.attn.k_shift"),
    (f"{_ATTENTION}.movev2", "blocks.{i}.attn.v_shift"),
    (f"{_ATTENTION}.att_prob_clip", "blocks.{i}.attn.att_prob_clip"),
    (f"{_ATTENTION}.norm_context.{{k}}", "blocks.{i}.attn.norm.{k}"),
    *_rprelu(f"{_ATTENTION}.rprelu_context", "blocks.{i}.attn.act"),
    *_binary_unit(f"{_LAYER}.attention.output", "blocks.{i}.proj"),
    *_affine(f"{_LAYER}.attention.output.layerscale", "blocks.{i}.affine1"),
    (f"{_LAYER}.layernorm_after.{{k}}", "blocks.{i}.norm2.{k}"),
    *_binary_unit(f"{_LAYER}.intermediate", "blocks.{i}.mlp.fc1"),
    *_binary_unit(f"{_LAYER}.output", "blocks.{i}.mlp.fc2"),
    *_affine(f"{_LAYER}.output.layerscale", "blocks.{i}.affine2"),
    ("vit.layernorm.{k}", "norm.{k}"),
    ("classifier.{p}", "head.{p}"),
]
for _branch in ("h3", "w3", "h5", "w5"):
    BINARYVIT += _affine(f"{_LAYER}.layerscale_{_branch}", f"blocks.{{i}}.pool.{_branch}")
for _stage in range(1, _MAX_STAGES):
    _theirs, _ours = f"vit.encoder.patch_embed{_stage}", f"downsamples.{_stage - 1}"
    BINARYVIT += [
        (f"{_theirs}.norm0.{{k}}", f"{_ours}.norm0.{{k}}"),
        (f"{_theirs}.move", f"{_ours}.unit.shift^V"),
        *_binary_unit(_theirs, f"{_ours}.unit", layer="proj")[1:],
        (f"{_theirs}.position_embeddings", f"{_ours}.pos_embed"),
    ]

TIMM_LAYER_SCALE = [("blocks.{i}.ls1.gamma", "blocks.{i}.gamma_1"), ("blocks.{i}.ls2.gamma", "blocks.{i}.gamma_2")]
"""timm's ViT with LayerScale; its CaiT has the names of minivit."""

COMPUTED_SWIN = ["layers.{i}.blocks.{j}.attn_mask", "layers.{i}.blocks.{j}.attn.relative_position_index"]
"""What official Swin files store, and minivit computes."""


def to_minivit(arrays, model):
    """Rename official arrays (weights or gradients): a new dict name -> array for ``model.load_state_dict``.

    Of the tables in ``model.official_names`` the one is taken under which most names fit the model; where the arrays
    fit best as they are, none. Names that no row matches stay as they are.
    """
    own = {name: tensor.shape for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    if arrays and all(name.startswith("module.") for name in arrays):  # torch.nn.DataParallel wraps a model so
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    computed = [_pattern(name) for name in model.computed_names]
    arrays = {name: array for name, array in arrays.items() if not any(p.fullmatch(name) for p in computed)}
    candidates = [arrays, *(_rename(arrays, table, own) for table in model.official_names)]
    return dict(min(candidates, key=lambda renamed: len(own.keys() ^ renamed.keys())))


def to_timm(arrays, model):
    """Rename minivit's arrays as timm would, where the two differ: a new dict name -> array."""
    return _rename(arrays, [(ours, theirs) for theirs, ours in model.timm_names], {})


def _rename(arrays, table, shapes):
    """Rename ``arrays`` by ``table``; what would take a name for the second time, or does not fit it, keeps its own."""
    rules = [(_pattern(official), ours) for official, ours in table]
    targets = {}
    for name in arrays:
        matches = ((rule.fullmatch(name), ours) for rule, ours in rules)
        targets[name] = next((ours.format(**match.groupdict()) for match, ours in matches if match), name)
    claims = Counter(place for target in targets.values() for place in _places(target))
    renamed, parts = {}, {}
    for name, array in arrays.items():
        places, layout = _places(targets[name]), targets[name].partition("^")[2]
        whole, _, number = places[0].partition("@")
        taken = targets[name] != name and any(claims[place] > 1 for place in places)
        if taken or len(places) > 1 and len(np.atleast_1d(array)) % len(places):
            renamed[name] = array
        elif number:
            parts.setdefault(whole, {})[number] = (name, array)
        elif len(places) > 1:
            renamed |= zip(places, np.split(array, len(places)))
        else:
            renamed[places[0]] = _LAYOUTS[layout](array, shapes.get(places[0], ()))
    for whole, pieces in parts.items():
        stack = [array for _, array in (pieces[number] for number in sorted(pieces))]
        fits = np.ndim(stack[0]) > 0 and len({np.shape(array)[1:] for array in stack}) == 1
        renamed |= {whole: np.concatenate(stack)} if fits and whole not in renamed else dict(pieces.values())
    return renamed


def _places(target):
    """What an entry fills: one name or part of it, or several names."""
    return target.partition("^")[0].split("|")


def _pattern(official):
    placeholders = {"{i}": r"(?P<i>\d+)", "{j}": r"(?P<j>\d+)", "{k}": r"(?P<k>\w+)", "{p}": "(?P<p>weight|bias)"}
    parts = re.split(r"(\{\w\})", official)
    return re.compile("".join(placeholders.get(part, re.escape(part)) for part in parts))


def _flatten_ones(array, shape):
    longest = max(np.shape(array), default=0)
    return np.reshape(array, shape) if shape == (longest,) and np.size(array) == longest else array


def _channels_first(array, shape):
    if len(shape) != 4 or np.shape(array) != (shape[0], shape[1] * shape[2] * shape[3]):
        return array
    dim, channels, rows, columns = shape
    return np.reshape(array, (dim, rows, columns, channels)).transpose(0, 3, 1, 2)


_LAYOUTS = {
    "": lambda array, shape: array,
    "T": lambda array, shape: np.transpose(array),
    "V": _flatten_ones,
    "P": _channels_first,
}
