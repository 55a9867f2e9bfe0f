"""What the vision transformers share: parts made from the fields that all their configurations have."""

import numpy as np

from minivit.nn import Block, Mlp, PatchEmbed, ShiftedPatchTokenization


def patch_embedding(config, init):
    """Tokens from patches that do not overlap: Shifted Patch Tokenization if ``config.spt``, else one linear map."""
    if config.spt:
        return ShiftedPatchTokenization(
            config.in_chans, config.embed_dim, config.patch_size, norm_eps=config.norm_eps, init=init
        )
    return PatchEmbed(config.in_chans, config.embed_dim, config.patch_size, init=init)


def attention_options(config, init, rng):
    """Keywords for ``Attention``, its weights drawn by ``init``; ``rng`` draws the dropout masks."""
    return {
        "qkv_bias": config.qkv_bias,
        "learnable_temperature": config.learnable_temperature,
        "diagonal": -np.inf if config.mask_diagonal else None,
        "attn_drop": config.attn_drop_rate,
        "proj_drop": config.drop_rate,
        "init": init,
        "rng": rng,
    }


def transformer_block(config, attention, dim, *, drop_path, layer_scale=None, gelu="exact", init, rng):
    """The pre-norm block around ``attention`` for tokens of width ``dim``."""
    mlp = Mlp(dim, int(dim * config.mlp_ratio), gelu=gelu, drop=config.drop_rate, init=init, rng=rng)
    return Block(
        attention, mlp, dim, norm_eps=config.norm_eps, layer_scale=layer_scale, drop_path=drop_path, rng=rng
    )
