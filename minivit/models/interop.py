"""Official weights under minivit's names, by one table.

minivit names parameters as timm does. The authors' SPT_LSA code names them after its own modules; the table below
says which is which. It serves gradients as well as weights.
"""

import re

import numpy as np

from minivit.errors import StateDictError

SPT_LSA_VIT = [
    (r"pos_embedding", r"pos_embed"),
    (r"cls_token", r"cls_token"),
    (r"to_patch_embedding\.merging\.1\.(weight|bias)", r"patch_embed.norm.\1"),
    (r"to_patch_embedding\.merging\.2\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"to_patch_embedding\.1\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"transformer\.layers\.(\d+)\.0\.norm\.(weight|bias)", r"blocks.\1.norm1.\2"),
    (r"transformer\.layers\.(\d+)\.0\.fn\.scale", r"blocks.\1.attn.scale"),
    (r"transformer\.layers\.(\d+)\.0\.fn\.to_qkv\.weight", r"blocks.\1.attn.qkv.weight"),
    (r"transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (r"transformer\.layers\.(\d+)\.1\.norm\.(weight|bias)", r"blocks.\1.norm2.\2"),
    (r"transformer\.layers\.(\d+)\.1\.fn\.net\.0\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
    (r"transformer\.layers\.(\d+)\.1\.fn\.net\.3\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
    (r"mlp_head\.0\.(weight|bias)", r"norm.\1"),
    (r"mlp_head\.1\.(weight|bias)", r"head.\1"),
]
"""(pattern of the whole official name, minivit's name), for the ViT family of the official SPT_LSA code."""


def from_spt_lsa(arrays, model):
    """Rename official SPT_LSA arrays (weights or gradients) for ``model``: name -> array for ``load_state_dict``.

    The authors' plain patch embedding is a linear layer on patches flattened as (row, column, channel); minivit's,
    like timm's, has the layout of a convolution, so that weight (D, P P C) becomes (D, C, P, P).

    Raises:
        StateDictError: a name that the table does not know.
    """
    shapes = {name: p.shape for name, p in model.named_parameters()}
    renamed, unknown = {}, []
    for official, array in arrays.items():
        name = _rename(official, SPT_LSA_VIT)
        if name is None:
            unknown.append(official)
        elif name == "patch_embed.proj.weight" and len(shapes[name]) == 4 and np.ndim(array) == 2:
            dim, channels, height, width = shapes[name]
            if np.shape(array) == (dim, channels * height * width):
                array = np.reshape(array, (dim, height, width, channels)).transpose(0, 3, 1, 2)
        renamed[name] = array
    if unknown:
        raise StateDictError(f"not names of the official SPT_LSA ViT: {', '.join(unknown)}")
    return renamed


def _rename(name, table):
    for pattern, replacement in table:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return None
