"""The arrays that parts of a run keep from step to step, taken back from a checkpoint."""

from minivit.errors import MinivitError


def copy_into(own, saved, what):
    """Copy the arrays ``saved`` (name -> array) into those of ``own`` that have the same names, in place.

    Args:
        what: what they are, for the message.

    Raises:
        MinivitError: names, shapes or dtypes differ; nothing has been copied then.
    """
    wrong = sorted(own.keys() ^ saved.keys())
    for name in [name for name in own if name in saved]:
        if (own[name].shape, own[name].dtype) != (saved[name].shape, saved[name].dtype):
            wrong.append(name)
    if wrong:
        raise MinivitError(f"{what} does not fit the model: {len(wrong)} entries differ, first {wrong[0]!r}")
    for name, array in own.items():
        array[...] = saved[name]
