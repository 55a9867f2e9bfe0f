"""Exercises of lesson 01, tensors and the tape. Check them by: python -m lessons check 01"""


def topological_order(node, parents):
    """Return ``node`` and all nodes that it was computed from, parents before children.

    Args:
        node: a name, a string.
        parents: dict, name -> list of the names that it was computed from. A name that stands
            twice in the list was used twice; one that is no key of the dict is a leaf.

    Returns:
        A list in which each name stands once. Any order will do in which no name stands before one
        of its parents. Ten thousand nodes in a row must work, so the function cannot call itself.
    """
    raise NotImplementedError


def backward(order, parents, local):
    """Return the derivative of the last node of ``order`` by each node.

    Args:
        order: list of names, as ``topological_order`` gives it.
        parents: as there.
        local: dict, (child, position) -> derivative of the child by the parent that stands at that
            position of its list of parents. All numbers are floats.

    Returns:
        A list of floats, one for each name, in the order of ``order``.
    """
    raise NotImplementedError
