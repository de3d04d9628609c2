"""Two bases of R^M that grow together, kept so that a pass over them reads each byte once.

A pass over bases that do not fit the caches costs the bytes it reads. So the bases lie in blocks of
measurements, each block's rows one after the other, and what a pass does with a block it does while
the block is in cache. As the bases grow, the blocks become narrower.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array, ArrayLibrary, to_host

Floats = NDArray[np.float64]

_BLOCK_ELEMENTS = 1 << 19  # of both bases, that stay in a core's cache while they are used
_PRODUCT = 1 << 19  # batch × elements up to which OpenBLAS multiplies without packing
_LEAST_WIDTH = 64  # of a part of a block; below it the calls cost more than they save
_FIRST_CAPACITY = 64
_GROWTH = 1.5
_SUMMED = 1024  # products that are added in the precision of the rows
_FEW_ROWS = 16  # up to so many, parts are faster than one product
_FEW_PRODUCTS = 1200  # inner products up to which OpenBLAS multiplies them without packing


class PairedBases:
    """Rows G_j and P_j of R^M, j < k.

    Parameters
    ----------
    length : int
        M.
    dtype : float64 or float32
    library : ArrayLibrary
        Where the rows live. NumPy gets blocks for the caches, others whole rows.
    """

    def __init__(self, length: int, dtype: np.dtype[np.floating], library: ArrayLibrary) -> None:
        self._length, self._dtype, self._library = length, dtype, library
        self._capacity = _FIRST_CAPACITY
        self._blocks = [self._allocate(here) for here in self._ranges()]
        self._count = 0

    @property
    def count(self) -> int:
        """k, the number of pairs."""
        return self._count

    def sweep(self, batch: int) -> Iterator[tuple[slice, Array, Array]]:
        """Measurements, and G and P there, each [k, measurements], part by part.

        Parameters
        ----------
        batch : int
            Rows that the caller multiplies by each part; the parts are of a size that suits it.
        """
        for here, block in self._located():
            width = here.stop - here.start
            step = self._part_width(width, batch)
            for first in range(0, width, step):
                part = block[:, : self._count, first : first + step]
                start = here.start + first
                yield slice(start, start + part.shape[2]), part[0, ...], part[1, ...]

    def append(self, g: Array, p: Array) -> None:
        """Add the rows `g` and `p` [new, M]."""
        first, last = self._count, self._count + g.shape[0]
        self._make_room(last)
        for here, block in self._located():
            block[0, first:last, :] = g[:, here]
            block[1, first:last, :] = p[:, here]
        self._count = last

    def truncate(self, count: int) -> None:
        """Drop all pairs from `count` on."""
        self._count = min(self._count, count)

    def _located(self) -> Iterator[tuple[slice, Array]]:
        """Blocks with their measurements."""
        start = 0
        for block in self._blocks:
            yield slice(start, start + block.shape[2]), block
            start += block.shape[2]

    def _part_width(self, width: int, batch: int) -> int:
        if not self._library.is_numpy:
            return width
        while batch > 1 and width > _LEAST_WIDTH and 2 * width * self._count * batch > _PRODUCT:
            width = (width + 1) // 2
        return width

    def _make_room(self, count: int) -> None:
        """Blocks for more rows; old ones go as soon as their rows are in new ones."""
        if count <= self._capacity:
            return
        old = list(self._located())[::-1]
        self._capacity = max(count, int(_GROWTH * self._capacity))
        self._blocks = []
        for here in self._ranges():
            block = self._allocate(here)
            self._blocks.append(block)
            while old and old[-1][0].start < here.stop:
                there, rows = old[-1]
                start, stop = max(here.start, there.start), min(here.stop, there.stop)
                to = slice(start - here.start, stop - here.start)
                block[:, : self._count, to] = rows[
                    :, : self._count, start - there.start : stop - there.start
                ]
                if there.stop > here.stop:
                    break
                old.pop()

    def _ranges(self) -> Iterator[slice]:
        """Measurements of each block."""
        width = self._length
        if self._library.is_numpy:
            width = max(_LEAST_WIDTH, _BLOCK_ELEMENTS // (2 * self._capacity))
        for start in range(0, self._length, width):
            yield slice(start, min(start + width, self._length))

    def _allocate(self, here: slice) -> Array:
        return self._library.empty((2, self._capacity, here.stop - here.start), self._dtype)


class TriangularMatrix:
    """A lower triangular matrix that rows are added to, in float64."""

    def __init__(self) -> None:
        self._buffer = np.zeros((0, 0))
        self._count = 0

    @property
    def rows(self) -> Floats:
        """The matrix [k, k]; a view, as long as no rows are added."""
        return self._buffer[: self._count, : self._count]

    def append(self, below: Floats, corner: Floats) -> None:
        """Add the rows `below` [new, k], and beside them `corner` [new, new], lower triangular."""
        first, last = self._count, self._count + len(corner)
        if last > len(self._buffer):
            larger = np.zeros((max(last, int(_GROWTH * last)),) * 2)
            larger[:first, :first] = self.rows
            self._buffer = larger
        self._buffer[first:last, :first] = below
        self._buffer[first:last, first:last] = corner
        self._count = last

    def truncate(self, count: int) -> None:
        """Drop all rows from `count` on."""
        self._count = min(self._count, count)


def multiply_transposed(v: Array, rows: Array) -> Floats:
    """v rowsᵀ [batch, k] for `v` [batch, measurements] and `rows` [k, measurements]."""
    step = _FEW_PRODUCTS // v.shape[0]
    few = isinstance(v, np.ndarray) and 1 < v.shape[0] <= _FEW_ROWS
    if not few or rows.shape[0] <= step:
        return to_host(v @ rows.T)
    parts = [v @ rows[first : first + step].T for first in range(0, len(rows), step)]
    return np.concatenate(parts, axis=1)


def sum_products(x: Array, y: Array) -> Floats:
    """x yᵀ [rows of x, rows of y] of wide rows, summed in float64 over blocks."""
    if not isinstance(x, np.ndarray):
        return np.asarray(to_host(x @ y.T), dtype=np.float64)
    whole = x.shape[1] - x.shape[1] % _SUMMED
    left, right = (rows[:, :whole].reshape(len(rows), -1, _SUMMED) for rows in (x, y))
    parts = left.transpose(1, 0, 2) @ right.transpose(1, 2, 0)
    total = parts.sum(axis=0, dtype=np.float64)
    total += x[:, whole:] @ y[:, whole:].T
    return np.asarray(total)
