"""Tables of text."""


def text_table(head, rows, left=()):
    """Return lines of aligned columns under a head, joined.

    Args:
        head: titles of the columns.
        rows: sequences of strings, as many as there are titles.
        left: numbers of the columns that are aligned to the left; the others are to the right.
    """
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = [
        "  ".join(f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(row)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])
