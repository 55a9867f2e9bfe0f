"""How the exercises of lesson 01 are checked."""

from lessons.checking import Exercise


def diamond():
    """A graph with nodes that are used twice, whose names and lists stand in no special order."""
    return {"a": ["b", "b", "c"], "d": ["c", "a"], "b": ["c", "c"]}


def order_cases(rng):
    chain = {str(i): [str(i - 1)] for i in range(1, 10_000)}
    elsewhere = {"x": ["d", "b"], **diamond()}  # x was computed from d, not d from x
    return [("d", diamond()), ("d", elsewhere), ("a", {}), ("9999", chain)]


def gradient_cases(rng):
    local = {
        (child, position): float(rng.normal())
        for child, listed in diamond().items()
        for position in range(len(listed))
    }
    return [(["c", "b", "a", "d"], diamond(), local), (["x"], {}, {})]


def is_an_order(result, node, parents):
    """Whether it is any order of the right names in which parents come first."""
    if not isinstance(result, list) or not all(isinstance(name, str) for name in result):
        return False
    if len(set(result)) != len(result) or result[-1:] != [node]:
        return False
    place = {name: position for position, name in enumerate(result)}
    needed = {node}
    for name in reversed(result):
        above = parents.get(name, [])
        if name not in needed or any(place.get(p, len(result)) > place[name] for p in above):
            return False
        needed.update(above)
    return needed == set(result)


def every_use(node, parents):
    """Each node as often as it is used."""
    order, stack = [], [node]
    while stack:
        name = stack.pop()
        order.append(name)
        stack.extend(parents.get(name, []))
    return order[::-1]


def order_of_discovery(node, parents):
    """Each node once, where it is met first: wrong where a short way leads past a long one."""
    found = {node: None}  # a dict keeps the order in which names come
    queue = [node]
    for name in queue:
        queue.extend(parent for parent in parents.get(name, []) if parent not in found)
        found.update(dict.fromkeys(parents.get(name, [])))
    return list(found)[::-1]


def children_first(node, parents):
    order, seen, stack = [], set(), [(node, False)]
    while stack:
        name, parents_done = stack.pop()
        if parents_done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            stack.extend((parent, False) for parent in parents.get(name, []))
    return order[::-1]


def overwriting(order, parents, local):
    gradient = dict.fromkeys(order, 0.0)
    gradient[order[-1]] = 1.0
    for child in reversed(order):
        for position, parent in enumerate(parents.get(child, [])):
            gradient[parent] = gradient[child] * local[child, position]
    return list(gradient.values())


def unseeded(order, parents, local):
    return [0.0 for _ in order]


def local_alone(order, parents, local):
    gradient = dict.fromkeys(order, 0.0)
    gradient[order[-1]] = 1.0
    for child in reversed(order):
        for position, parent in enumerate(parents.get(child, [])):
            gradient[parent] += local[child, position]
    return list(gradient.values())


def first_place(order, parents, local):
    gradient = dict.fromkeys(order, 0.0)
    gradient[order[-1]] = 1.0
    for child in reversed(order):
        for parent in parents.get(child, []):
            place = parents[child].index(parent)
            gradient[parent] += gradient[child] * local[child, place]
    return list(gradient.values())


EXERCISES = {
    "topological_order": Exercise(
        order_cases,
        "every parent must stand before its children, and every name once",
        {
            "a node that is used twice stands twice: remember which ones you have seen": every_use,
            "the order in which nodes are met is not enough: all parents come first, "
            "those at the end of a long way too": order_of_discovery,
            "the list is the wrong way round: leaves first": children_first,
        },
        accepts=is_an_order,
    ),
    "backward": Exercise(
        gradient_cases,
        "walk the order from its end, and let each node give a share to each of its parents",
        {
            "a node that is used twice gets two shares, and one of them is lost": overwriting,
            "all is 0, because the walk starts from 0: "
            "which derivative is known before it?": unseeded,
            "a share is more than the local derivative: "
            "what has come down to the child matters too": local_alone,
            "each place in a list of parents has a derivative of its own, "
            "where it is the same parent too": first_place,
        },
    ),
}
