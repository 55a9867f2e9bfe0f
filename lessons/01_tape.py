"""Tensors and the tape: each node runs once, after all that use it, and then gradients are right.

Read before: nothing; you need NumPy, and the chain rule.
Takes: 2 s on two cores (--quick 2 s).
Paper: Baydin, Pearlmutter, Radul & Siskind 2018, "Automatic differentiation in machine learning:
a survey", section 3.2 (reverse mode).
"""

# %%
import numpy as np
from lesson import Lesson

import minivit
from minivit import ops

lesson = Lesson(__file__)

# %% [markdown]
# ## A result that remembers where it came from
#
# A network with its loss $L$ is one long composition of small functions, the *ops*. To
# train it we need the derivative of $L$ by every weight. Reverse mode gets all of them in
# one walk from $L$ back to the weights.
#
# What an op has to know is little. Let it compute $y = f(a, b)$, and let $\bar y$ be the
# derivative of $L$ by $y$, the *cotangent* of $y$. The chain rule says what $y$
# contributes to the cotangents of its inputs:
#
# $$ \bar a \mathrel{+}= J_a^T \bar y, \qquad \bar b \mathrel{+}= J_b^T \bar y, $$
#
# where $J_a$ is the Jacobian of $f$ by $a$. The function $\bar y \mapsto J_a^T \bar y$ is
# called the op's *vector-Jacobian product*, VJP. It is short to write, and no Jacobian is
# ever built.


# %%
class Node:
    """A result, its parents (what it was computed from), and one VJP for each parent."""

    def __init__(self, data, parents=(), vjps=()):
        self.data, self.parents, self.vjps = data, parents, vjps
        self.grad = 0.0


def add(a, b):
    return Node(a.data + b.data, (a, b), (lambda g: g, lambda g: g))


def mul(a, b):
    return Node(a.data * b.data, (a, b), (lambda g: g * b.data, lambda g: g * a.data))


def matmul(a, b):
    return Node(a.data @ b.data, (a, b), (lambda g: g @ b.data.T, lambda g: a.data.T @ g))


def tanh(a):
    out = np.tanh(a.data)
    return Node(out, (a,), (lambda g: g * (1 - out**2),))


# %% [markdown]
# Nodes and parents form a graph, *the tape*. The question of this lesson is in which
# order to walk it. Take the smallest graph in which the order matters:
#
#     b = a + a
#     c = b + b
#
# so that $c = 4a$, and the derivative is 4. Three walks that look right:


# %%
def pass_on_the_sum(node):
    """Recursion: add to a parent's gradient, then let the parent pass on what it has."""
    for parent, vjp in zip(node.parents, node.vjps):
        parent.grad = parent.grad + vjp(node.grad)
        pass_on_the_sum(parent)


def run_once(node, seen):
    """The same, but no node runs twice: each runs when it is first mentioned."""
    seen.add(node)
    for parent, vjp in zip(node.parents, node.vjps):
        parent.grad = parent.grad + vjp(node.grad)
        if parent not in seen:
            run_once(parent, seen)


def follow_every_path(node, g):
    """Recursion that passes on only what has just come. Returns the number of calls."""
    node.grad = node.grad + g
    return 1 + sum(follow_every_path(p, vjp(g)) for p, vjp in zip(node.parents, node.vjps))


def doubled(times):
    """A node a = 1, and the node that results from doubling it so many times."""
    a = y = Node(1.0)
    for _ in range(times):
        y = add(y, y)
    return a, y


a, c = doubled(2)
c.grad = 1.0
pass_on_the_sum(c)
sum_says = a.grad

a, c = doubled(2)
c.grad = 1.0
run_once(c, set())
once_says = a.grad

a, c = doubled(2)
paths_calls = follow_every_path(c, 1.0)
paths_says = a.grad

print(f"dc/da is 4. Passing on the sum: {sum_says:g}. Running once, at the first mention: "
      f"{once_says:g}. Following every path: {paths_says:g}, in {paths_calls} calls")
assert (sum_says, once_says, paths_says) == (6, 2, 4)

# %% [markdown]
# Passing on the sum is wrong because `b` runs twice, and the second time passes on its
# first share again: 2 + 4. Running once, at the first mention, is wrong because `b` has
# run before its second share comes. Following every path from $c$ to $a$ is right, since
# the derivative *is* the sum over all paths. But the number of paths doubles with every
# line of the program:


# %%
lengths = range(1, lesson.choose(quick=13, full=17))
path_calls = []
for n in lengths:
    a, y = doubled(n)
    path_calls.append(follow_every_path(y, 1.0))
    assert a.grad == 2**n
assert path_calls == [2 ** (n + 1) - 1 for n in lengths]
print(f"calls along every path, for 1, 2, 3 ... doublings: {', '.join(map(str, path_calls))}")

# %% [markdown]
# ## The right order
#
# A node may run as soon as *all* nodes that use it have run, for then its cotangent is
# complete. A list in which parents stand before children is called a *topological order*;
# walked from its end, it does just that. A depth-first search writes it down: a node goes
# on the list when all its parents are there. The search keeps its own stack in place of
# calling itself, because Python allows only about a thousand calls inside each other.


# %%
def topological_order(last):
    order, seen, stack = [], set(), [(last, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))  # to come back to when all its parents are on the list
            stack.extend((parent, False) for parent in node.parents)
    return order


def backward(last, g=1.0):
    """Give every node the derivative of ``last`` by it. Returns how many nodes have run."""
    order = topological_order(last)
    last.grad = g
    for node in reversed(order):
        for parent, vjp in zip(node.parents, node.vjps):
            parent.grad = parent.grad + vjp(node.grad)
    return len(order)


tape_calls = []
for n in lengths:
    a, y = doubled(n)
    tape_calls.append(backward(y))
    assert a.grad == 2**n
assert tape_calls == [n + 1 for n in lengths]
print(f"nodes run in topological order: {', '.join(map(str, tape_calls))}")

# %% [markdown]
# The picture shows the small graph, with the cotangents as they arrive in this order, and
# the work that the two right walks need as the program grows.


# %%
def draw_graph(axes):
    """c, b, a from top to bottom; two arrows back for the two uses of each."""
    places = {"c": 2, "b": 1, "a": 0}
    labels = {
        "c = b + b": "1. starts with 1",
        "b = a + a": "2. runs when both shares\nare there: 1 + 1 = 2",
        "a": "3. receives 2 + 2 = 4",
    }
    for (text, label), y in zip(labels.items(), places.values()):
        axes.text(0, y, text, ha="center", va="center", size=12, zorder=3,
                  bbox={"boxstyle": "round,pad=0.5", "fc": "#dbe9f6", "ec": "#2166ac"})
        axes.text(1.0, y, label, va="center", size=11)
    for top, share in ((2, "1"), (1, "2")):
        for side in (-1, 1):
            axes.annotate(
                "", (0.22 * side, top - 0.78), (0.22 * side, top - 0.22),
                arrowprops={"arrowstyle": "-|>", "color": "#b2182b", "lw": 1.6,
                            "connectionstyle": f"arc3,rad={-0.35 * side}"},
            )
            axes.text(0.48 * side, top - 0.5, share, ha="center", va="center", color="#b2182b")
    axes.set(xlim=(-0.9, 3.6), ylim=(-0.4, 2.4), title="Cotangents, in the right order")
    axes.axis("off")


figure, panels = lesson.figure(1, 2, figsize=(10.5, 4.2))
if figure:
    draw_graph(panels[0])
    axes = panels[1]
    axes.semilogy(lengths, path_calls, "o-", color="#b2182b", label="every path: $2^{n+1} - 1$")
    axes.semilogy(lengths, tape_calls, "s-", color="#2166ac", label="topological order: $n + 1$")
    axes.set(xlabel="doublings $n$", ylabel="nodes run", title="Work to differentiate $2^n a$")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    lesson.save(figure, "order")

# %% [markdown]
# ## Long programs
#
# A chain of 10,000 nodes, $y \leftarrow y + a$ each time, has the derivative 10,001.
# Recursion does not get through it; the stack does, in minivit too.

# %%
LENGTH = 10_000
a = y = Node(1.0)
for _ in range(LENGTH):
    y = add(y, a)

try:
    run_once(y, set())
    recursion = "came through"
except RecursionError:
    recursion = "gave up"
assert recursion == "gave up"

for node in topological_order(y):
    node.grad = 0.0  # forget what the recursion has left behind
backward(y)
assert a.grad == LENGTH + 1

x = minivit.Tensor(np.array(1.0), requires_grad=True)
y = x
for _ in range(LENGTH):
    y = y + x
y.backward()
assert x.grad == LENGTH + 1
print(f"a chain of {LENGTH} nodes: recursion {recursion}, the tapes say {a.grad:g} and {x.grad:g}")

# %% [markdown]
# ## Gradients add up, and so a batch is nothing new
#
# In the chain the node `a` is used 10,001 times, and its gradient is the sum of as many
# shares. The weights of a network are used once for every image of a batch, so their
# gradients are sums over the batch, for the same reason. Below, our tape goes through the
# rows of a batch one by one and uses the same weights again for each. minivit takes the
# whole batch at once, where $b$ and $s$ are *broadcast* along the rows; in its backward
# pass `unbroadcast` adds up over them. Loss and gradients are the same.

# %%
rng = np.random.default_rng(0)
batch = rng.standard_normal((8, 3))
weights = {
    "W1": rng.standard_normal((3, 5)),
    "b": rng.standard_normal((1, 5)),
    "s": rng.standard_normal((1, 5)),
    "W2": rng.standard_normal((5, 1)),
}

ours = {name: Node(array) for name, array in weights.items()}
loss = Node(np.zeros((1, 1)))
for row in batch:
    hidden = tanh(add(matmul(Node(row[None]), ours["W1"]), ours["b"]))
    out = matmul(mul(hidden, ours["s"]), ours["W2"])
    loss = add(loss, mul(out, out))
backward(loss, np.ones((1, 1)))

theirs = {name: minivit.Tensor(w, requires_grad=True) for name, w in weights.items()}
hidden = ops.tanh(minivit.Tensor(batch) @ theirs["W1"] + theirs["b"])
out = (hidden * theirs["s"]) @ theirs["W2"]
their_loss = (out * out).sum()
their_loss.backward()

np.testing.assert_allclose(loss.data.item(), their_loss.item(), rtol=1e-12)
largest = 0.0
for name in weights:
    np.testing.assert_allclose(ours[name].grad, theirs[name].grad, rtol=1e-12, atol=1e-12)
    largest = max(largest, np.abs(ours[name].grad - theirs[name].grad).max())
print(f"loss {loss.data.item():.6f} and {their_loss.item():.6f}, "
      f"gradients differ by at most {largest:.0e}")

# %% [markdown]
# ## Three habits of minivit's tape
#
# `backward` leaves gradients in `.grad` of the leaves only, not of what was computed on
# the way. It *adds* to what is there: two calls without `zero_grad` between them give the
# sum, which is how one accumulates over batches that do not fit in memory together. And
# it frees the graph as it goes, so that a second call needs a second forward pass.

# %%
x = minivit.Tensor(np.array([1.0, 2.0]), requires_grad=True)
square = x * x
square.sum().backward()
assert square.grad is None
assert np.array_equal(x.grad, [2, 4])
(x * x).sum().backward()
assert np.array_equal(x.grad, [4, 8])
x.zero_grad()

total = (x * x).sum()
total.backward()
try:
    total.backward()
    raise AssertionError("the graph was still there")
except RuntimeError as error:
    print(f"a second backward: {error}")

# %% [markdown]
# Now open `minivit/tensor.py`: `_Node` is our `Node` without the result;
# `_topological_order` and `backward` do what ours do, with the cotangents in a
# dictionary; and `@op` is what records a node. Lesson 02 asks how one finds out that a
# VJP is wrong.
#
# Exercises: `lessons/exercises/01.py`, checked by `python -m lessons check 01`.

# %%
lesson.passed(
    "one run per node in topological order is right, and equals minivit",
    nodes_run=tape_calls[-1],
    calls_along_every_path=path_calls[-1],
    chain=LENGTH,
    largest_difference=f"{largest:.0e}",
)
