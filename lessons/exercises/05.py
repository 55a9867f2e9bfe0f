"""Exercises of lesson 05, a Vision Transformer. Check them by: python -m lessons check 05"""


def patch_vectors(image, p):
    """Cut an image into patches, and write each as a vector.

    Args:
        image: (C, H, W) array, H and W multiples of p.
        p: how many pixels a patch is high and wide.

    Returns:
        (N, C p p), N = (H / p)(W / p): the patches row by row of the grid; in each vector first all
        of the first channel, row by row of the patch, then the second channel, and so on.
    """
    raise NotImplementedError


def split_heads(qkv, heads):
    """Take the queries, keys and values of all heads out of what one linear map has made.

    Args:
        qkv: (N, 3D) array: of each token first the D numbers of its queries, then D of its keys,
            then D of its values; in each of these D first the d = D / heads numbers of the first
            head, then those of the second, and so on.
        heads: H, the number of heads.

    Returns:
        A tuple (q, k, v) of three arrays (H, N, d).
    """
    raise NotImplementedError


def attention(q, k, v):
    """Return what each token takes home in each head.

    Args:
        q, k, v: queries, keys and values, (H, N, d) each.

    Returns:
        (H, N, d): in each head softmax(q k^T / sqrt(d)) v, where row i of q k^T holds the scores of
        token i's query with all keys.
    """
    raise NotImplementedError
