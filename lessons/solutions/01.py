"""Solutions of lesson 01."""


def topological_order(node, parents):
    order, seen, stack = [], set(), [(node, False)]
    while stack:
        name, parents_done = stack.pop()
        if parents_done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))  # comes off the stack when all its parents are on the list
            stack.extend((parent, False) for parent in parents.get(name, []))
    return order


def backward(order, parents, local):
    gradient = dict.fromkeys(order, 0.0)
    gradient[order[-1]] = 1.0
    for child in reversed(order):
        for position, parent in enumerate(parents.get(child, [])):
            gradient[parent] += gradient[child] * local[child, position]
    return list(gradient.values())
