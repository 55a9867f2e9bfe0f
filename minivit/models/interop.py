"""Official weights under minivit's names, by tables.

minivit names parameters as timm does, so that an official DeiT, CaiT, PiT, Swin, RegNetY or T2T-ViT state dict loads as
it is. Other code has other names, and cuts some weights differently; the tables below say which is which. They serve
gradients as well as weights, because every rule only moves numbers.

A row is (official name, minivit's name); {i} and {j} stand for numbers, {p} for "weight" or "bias". Beside a name of
minivit there may stand

    NAME@i      the official array is part i of the rows of NAME
    NAME|NAME   the official array holds both, one below the other
    NAME^T      the official array is the transpose
"""

import re

import numpy as np

_MAX_STAGES = 8

_SPT_LSA_COMMON = [
    ("pos_embedding", "pos_embed"),
    ("to_patch_embedding.merging.1.{p}", "patch_embed.norm.{p}"),
    ("to_patch_embedding.merging.2.{p}", "patch_embed.proj.{p}"),
    ("to_patch_embedding.0.merging.1.{p}", "patch_embed.norm.{p}"),
    ("to_patch_embedding.0.merging.2.{p}", "patch_embed.proj.{p}"),
    ("to_patch_embedding.1.{p}", "patch_embed.proj.{p}"),
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
        (f"{official}.0.scale", f"{ours}.gamma_1"),
        (f"{official}.0.fn.norm.{{p}}", f"{ours}.norm1.{{p}}"),
        (f"{official}.0.fn.fn.scale", f"{ours}.attn.scale"),
        (f"{official}.0.fn.fn.mix_heads_pre_attn", f"{ours}.attn.proj_l.weight^T"),
        (f"{official}.0.fn.fn.mix_heads_post_attn", f"{ours}.attn.proj_w.weight^T"),
        (f"{official}.0.fn.fn.to_out.0.{{p}}", f"{ours}.attn.proj.{{p}}"),
        (f"{official}.1.scale", f"{ours}.gamma_2"),
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
    _pool, _ours = f"layers.{2 * _stage - 1}", f"transformers.{_stage}.pool"
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

TIMM_LAYER_SCALE = [("blocks.{i}.ls1.gamma", "blocks.{i}.gamma_1"), ("blocks.{i}.ls2.gamma", "blocks.{i}.gamma_2")]
"""timm's ViT with LayerScale; its CaiT has the names of minivit."""

_COMPUTED = re.compile(r".*\.(relative_position_index|attn_mask)")
"""What official Swin files store, and minivit computes."""


def to_minivit(arrays, model):
    """Rename official arrays (weights or gradients): a new dict name -> array for ``model.load_state_dict``.

    Of the tables in ``model.official_names`` the one is taken under which most names fit the model; where the arrays
    fit best as they are, none. Names that no row matches stay as they are.
    """
    own = {name: tensor.shape for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    arrays = {name: array for name, array in arrays.items() if name in own or not _COMPUTED.fullmatch(name)}
    if arrays and all(name.startswith("module.") for name in arrays):  # torch.nn.DataParallel wraps a model so
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    candidates = [arrays, *(_rename(arrays, table) for table in model.official_names)]
    best = min(candidates, key=lambda renamed: len(own.keys() ^ renamed.keys()))
    return {name: _layout(array, own.get(name)) for name, array in best.items()}


def to_timm(arrays, model):
    """Rename minivit's arrays as timm would, where the two differ: a new dict name -> array."""
    return _rename(arrays, [(ours, theirs) for theirs, ours in model.timm_names])


def _rename(arrays, table):
    rules = [(_pattern(official), ours) for official, ours in table]
    renamed, parts = {}, {}
    for name, array in arrays.items():
        matches = ((rule.fullmatch(name), ours) for rule, ours in rules)
        target = next((ours.format(**match.groupdict()) for match, ours in matches if match), name)
        if "@" in target:
            whole, _, number = target.partition("@")
            parts.setdefault(whole, {})[number] = array
        elif "|" in target:
            halves = target.split("|")
            size = -(-len(array) // len(halves)) if np.ndim(array) else 0
            renamed |= {half: array[i * size : (i + 1) * size] for i, half in enumerate(halves) if size}
        else:
            transposed = target.endswith("^T")
            renamed[target.removesuffix("^T")] = np.transpose(array) if transposed else array
    for whole, pieces in parts.items():
        if len({np.shape(piece)[1:] for piece in pieces.values()}) == 1:
            renamed[whole] = np.concatenate([pieces[number] for number in sorted(pieces)])
    return renamed


def _pattern(official):
    placeholders = {"{i}": r"(?P<i>\d+)", "{k}": r"(?P<k>\w+)", "{p}": "(?P<p>weight|bias)"}
    parts = re.split(r"(\{\w\})", official)
    return re.compile("".join(placeholders.get(part, re.escape(part)) for part in parts))


def _layout(array, shape):
    """``array`` in the layout of ``shape``, where it holds the same numbers in another.

    A linear patch embedding acts on patches flattened as (row, column, channel): (D, P P C) becomes (D, C, P, P). The
    vectors of LayerScale may have leading axes of size 1.
    """
    if shape is not None and np.ndim(array) == 2 and len(shape) == 4:
        dim, channels, rows, columns = shape
        if np.shape(array) == (dim, rows * columns * channels):
            return np.reshape(array, (dim, rows, columns, channels)).transpose(0, 3, 1, 2)
    if shape is not None and len(shape) == 1 and np.shape(array) == (1, 1, *shape):
        return np.reshape(array, shape)
    return array
