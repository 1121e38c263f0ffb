"""Which samples of a benchmark are drawn together: those that are scored together, and those that show the same pictures."""

from __future__ import annotations

from collections.abc import Sequence


def units(ids: Sequence[str], group: int = 1, pictures: Sequence[str] = ()) -> list[str]:
    """The name of the unit that each sample is drawn with.

    Samples of one `group` (ids alike up to the last hyphen, where it is more than one) stand together, and so do those with the
    same `pictures` (a digest; "" shares with none). A unit bears the first of its groups' names, so that the order of samples
    decides nothing.

    Raises:
        ValueError: another number of pictures than of ids, unless there are none.
    """
    names = [one.rpartition("-")[0] if group > 1 else one for one in ids]
    if not any(pictures):
        return names
    leaders = {name: name for name in names}

    def leader(name: str) -> str:
        while leaders[name] != name:
            leaders[name] = name = leaders[leaders[name]]
        return name

    shown: dict[str, str] = {}
    for name, picture in zip(names, pictures, strict=True):
        if picture:
            first, second = sorted((leader(name), leader(shown.setdefault(picture, name))))
            leaders[second] = first
    return [leader(name) for name in names]
