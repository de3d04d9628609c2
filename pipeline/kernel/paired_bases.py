"""Two bases of R^M that grow together, kept so that a pass over them reads each byte once.

A pass over bases that do not fit the caches costs the bytes it reads. So the bases lie in blocks of
measurements, the two rows of a pair next to each other, and what a pass does with a block it does
while the block is in cache.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array, ArrayLibrary, to_host

Floats = NDArray[np.float64]

_BLOCK = 2048  # measurements that lie together
_LEAST_WIDTH = 64  # of a part of a block; below it the calls cost more than they save
_PART_ELEMENTS = 1 << 19  # of the bases, that stay in a core's cache while they are used
_PRODUCT = 1 << 19  # batch × elements up to which OpenBLAS multiplies without packing
_FIRST_CAPACITY = 64
_GROWTH = 1.5


class PairedBases:
    """Rows G_j and P_j of R^M, j < k, in pairs.

    Parameters
    ----------
    length : int
        M.
    dtype : float64 or float32
    library : ArrayLibrary
        Where the rows live. NumPy gets blocks for the caches, others whole rows.
    """

    def __init__(self, length: int, dtype: np.dtype[np.floating], library: ArrayLibrary) -> None:
        self._dtype, self._library = dtype, library
        self._cached = library.is_numpy
        width = _BLOCK if self._cached else length
        self._widths = [min(width, length - start) for start in range(0, length, width)]
        self._capacity = _FIRST_CAPACITY
        self._blocks = [self._allocate(width) for width in self._widths]
        self._count = 0

    @property
    def count(self) -> int:
        """k, the number of pairs."""
        return self._count

    def sweep(self, batch: int) -> Iterator[tuple[slice, Array]]:
        """Measurements, and G_0, P_0, G_1, P_1, … there [2 k, measurements], part by part.

        Parameters
        ----------
        batch : int
            Rows that the caller multiplies by each part; the parts are of a size that suits it.
        """
        start = 0
        for block, width in zip(self._blocks, self._widths, strict=True):
            step = self._part_width(width, batch)
            for first in range(0, width, step):
                last = min(first + step, width)
                yield slice(start + first, start + last), block[: 2 * self._count, first:last]
            start += width

    def append(self, g: Array, p: Array) -> None:
        """Add the rows `g` and `p` [new, M]."""
        first, last = 2 * self._count, 2 * (self._count + g.shape[0])
        self._make_room(last // 2)
        start = 0
        for block, width in zip(self._blocks, self._widths, strict=True):
            here = slice(start, start + width)
            block[first:last:2, :] = g[:, here]
            block[first + 1 : last : 2, :] = p[:, here]
            start += width
        self._count = last // 2

    def truncate(self, count: int) -> None:
        """Drop all pairs from `count` on."""
        self._count = min(self._count, count)

    def _part_width(self, width: int, batch: int) -> int:
        if not self._cached:
            return width
        most = _PART_ELEMENTS if batch == 1 else _PRODUCT // batch
        while width > _LEAST_WIDTH and width * 2 * self._count > most:
            width = (width + 1) // 2
        return width

    def _make_room(self, count: int) -> None:
        if count <= self._capacity:
            return
        self._capacity = max(count, int(_GROWTH * self._capacity))
        for place, (old, width) in enumerate(zip(self._blocks, self._widths, strict=True)):
            self._blocks[place] = block = self._allocate(width)
            block[: 2 * self._count, :] = old[: 2 * self._count, :]

    def _allocate(self, width: int) -> Array:
        return self._library.empty((2 * self._capacity, width), self._dtype)


def sum_products(x: Array, y: Array) -> Floats:
    """x yᵀ [rows of x, rows of y] of wide rows, summed in float64 over blocks."""
    out = np.zeros((x.shape[0], y.shape[0]))
    step = _BLOCK if isinstance(x, np.ndarray) else x.shape[1]
    for start in range(0, x.shape[1], step):
        here = slice(start, start + step)
        out += to_host(x[:, here] @ y[:, here].T)
    return out
