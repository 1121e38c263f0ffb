"""Many small copies made together: on a GPU each alone takes longer to launch than to do."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from effivlm.kernels.placed import has_triton
from effivlm.kernels.stretches import Copy, stretches


class Copies:
    """Copies that are asked for with `put` and made by `make`, on a GPU in as few kernels as there are forms of entries."""

    def __init__(self) -> None:
        self._asked: list[Copy] = []

    def put(self, pool: Tensor, rows: Sequence[Tensor], spaces: Sequence[int]) -> None:
        """Ask for a `Copy`; all rows have as many heads, and entries of the pool's form."""
        if rows:
            self._asked.append(Copy(pool, rows, spaces))

    def make(self) -> None:
        asked, self._asked = self._asked, []
        forms: dict[object, list[Copy]] = {}
        for copy in asked:
            if copy.pool.is_cuda and has_triton():
                form = copy.pool.device, copy.pool.dtype, copy.pool.shape[1:], copy.rows[0].shape[0]
                forms.setdefault(form, []).append(copy)
            else:
                _plain(copy)
        for those in forms.values():
            from effivlm.kernels import copies as kernels

            kernels.copied(those[0].pool, those)


def _plain(copy: Copy) -> None:
    at = 0
    for start, end in stretches(copy.rows):
        row, space = copy.rows[start], copy.spaces[start]
        heads, length = row.shape[:2]
        whole = (end - start) * heads * space
        places = copy.pool[at : at + whole].view(end - start, heads, space, *copy.pool.shape[1:])
        places[:, :, :length] = row
        at += whole
