"""A Gaussian sensing matrix X, known through the products it gives.

The kernel touches X only by `apply` (X u), `apply_transpose` (Xᵀ v) and `pull_back` (Xᵀ φ(X u), one
*pass*), so that a matrix held in memory and one drawn as it is asked for can stand behind the same
descent. Time and memory of a campaign are the time and memory of these products.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from array_api_compat import device

from pipeline.kernel.arrays import NUMPY, Array, ArrayLibrary, namespace

Response = Callable[[Array, slice], Array]
"""φ: predictions of some measurements [batch, rows] and which rows they are → same shape."""

_BLOCK_BYTES = 1 << 20  # rows of X that stay in a core's cache between the two products of a pass
_BLOCK_PRODUCT = 1 << 19  # batch × elements up to which OpenBLAS multiplies without packing X first
_BLOCK_ROWS = 256  # of X, beyond which OpenBLAS packs X for a few rows of the batch
_COLUMNS_FROM = 8  # batch from which BLAS is faster with a trajectory a column than a row
_TILED_BYTES = 1 << 19  # rows of X in cache, where the points and sums of a batch need some of it
_TILE_PRODUCT = 3 << 18  # batch × elements of a tile: OpenBLAS multiplies up to 10⁶ without packing


class GaussianOperator(Protocol):
    """The products that a descent asks of X [M, N], entries N(0, 1/N)."""

    @property
    def shape(self) -> tuple[int, int]:
        """(M, N)."""

    @property
    def directions(self) -> int:
        """How many directions of R^N, at most N, X is known in: time and memory grow with them."""

    def keep(self) -> None:
        """Keep for good what is known of X now."""

    def forget(self) -> None:
        """Give up what became known of X after it was told to `keep`; it may be drawn anew."""

    def apply(self, u: Array) -> Array:
        """X u for each row of `u` [batch, N] → [batch, M]."""

    def apply_transpose(self, v: Array) -> Array:
        """Xᵀ v for each row of `v` [batch, M] → [batch, N]."""

    def pull_back(self, u: Array, response: Response) -> tuple[Array, Array]:
        """Xᵀ φ(X u) [batch, N] and X u [batch, M] for each row of `u` [batch, N]: one pass."""

    def row_norms(self) -> Array:
        """|x_i|²/N [M]."""

    def weighted_gram(self, weights: Array) -> Array:
        """Xᵀ diag(f) X [N, N] for `weights` f [M], in float64."""


@dataclass(frozen=True)
class DenseOperator:
    """X in memory, each row read once per pass.

    In NumPy, blocks of rows small enough to stay in cache serve both products of a pass, so a pass
    costs one read of X (M N itemsize bytes) and 4 M N flops per row of the batch. Other libraries
    multiply by the whole matrix, as accelerators want it.

    Parameters
    ----------
    matrix : float array [M, N]
        C-ordered, entries x_ij/√N with x_ij standard normal.
    """

    matrix: Array

    @property
    def shape(self) -> tuple[int, int]:
        """(M, N)."""
        m, n = self.matrix.shape
        return m, n

    @property
    def directions(self) -> int:
        """N: X is known in all directions."""
        return self.shape[1]

    def keep(self) -> None:
        """All of X is known, for good."""

    def forget(self) -> None:
        """All of X is known, for good."""

    def apply(self, u: Array) -> Array:
        """X u for each row of `u` [batch, N] → [batch, M]."""
        if not isinstance(self.matrix, np.ndarray):
            return u @ self.matrix.T
        out = np.empty((len(u), len(self.matrix)), dtype=self.matrix.dtype)
        for rows in self._row_blocks(len(u)):
            out[:, rows] = u @ self.matrix[rows].T
        return out

    def apply_transpose(self, v: Array) -> Array:
        """Xᵀ v for each row of `v` [batch, M] → [batch, N]."""
        if not isinstance(self.matrix, np.ndarray):
            return v @ self.matrix
        out = np.zeros((len(v), self.matrix.shape[1]), dtype=self.matrix.dtype)
        for rows in self._row_blocks(len(v)):
            out += v[:, rows] @ self.matrix[rows]
        return out

    def pull_back(self, u: Array, response: Response) -> tuple[Array, Array]:
        """Xᵀ φ(X u) [batch, N] and X u [batch, M] for each row of `u` [batch, N]: one pass."""
        if not isinstance(self.matrix, np.ndarray):
            predictions = u @ self.matrix.T
            return response(predictions, slice(None)) @ self.matrix, predictions
        if len(u) >= _COLUMNS_FROM:
            return self._pull_back_tiles(u, response)
        m, n = self.matrix.shape
        predictions = np.empty((len(u), m), dtype=self.matrix.dtype)
        pulled = np.zeros((len(u), n), dtype=self.matrix.dtype)
        for rows in self._row_blocks(len(u)):
            block = self.matrix[rows]
            predicted = u @ block.T
            predictions[:, rows] = predicted
            pulled += response(predicted, rows) @ block
        return pulled, predictions

    def _pull_back_tiles(self, u: Array, response: Response) -> tuple[Array, Array]:
        """One pass for a large batch: trajectories in columns, X in tiles of a block in cache."""
        (m, n), batch, dtype = self.matrix.shape, len(u), self.matrix.dtype
        columns = np.ascontiguousarray(u.T)
        predictions = np.empty((batch, m), dtype=dtype)
        pulled = np.zeros_like(columns)
        tile = _TILE_PRODUCT // batch
        height = max(8, _TILED_BYTES // (n * dtype.itemsize))
        width = max(16, tile // height)
        product = np.empty((width, batch), dtype=dtype)
        for rows in _slices(m, height):
            block, predicted = self.matrix[rows], predictions[:, rows]
            for part in _slices(len(block), max(4, tile // n)):
                np.matmul(columns.T, block[part].T, out=predicted[:, part])
            slopes = response(predicted, rows).T
            for part in _slices(n, width):
                out = np.matmul(block[:, part].T, slopes, out=product[: part.stop - part.start])
                pulled[part] += out
        return np.ascontiguousarray(pulled.T), predictions

    def row_norms(self) -> Array:
        """|x_i|²/N [M]."""
        return namespace(self.matrix).vecdot(self.matrix, self.matrix)

    def weighted_gram(self, weights: Array) -> Array:
        """Xᵀ diag(f) X [N, N] for `weights` f [M], summed in float64."""
        xp = namespace(self.matrix)
        n = self.matrix.shape[1]
        gram = xp.zeros((n, n), dtype=xp.float64, device=device(self.matrix))
        for rows in self._row_blocks(1):
            block = xp.astype(self.matrix[rows, :], xp.float64)
            gram += (block * weights[rows, None]).T @ block
        return gram

    def _row_blocks(self, batch: int) -> list[slice]:
        if not isinstance(self.matrix, np.ndarray):
            return [slice(None)]
        m, n = self.matrix.shape
        elements = min(_BLOCK_BYTES // self.matrix.itemsize, _BLOCK_PRODUCT // batch)
        size = max(8, elements // n)
        if 1 < batch < _COLUMNS_FROM:
            size = min(size, _BLOCK_ROWS)
        return _slices(m, size)


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def draw_dense(
    random: np.random.Generator,
    measurements: int,
    dimension: int,
    dtype: np.dtype[np.floating],
    library: ArrayLibrary = NUMPY,
) -> DenseOperator:
    """X [M, N] with independent entries N(0, 1/N).

    Drawn in float64 on the host and then rounded and moved, so that neither the precision nor the
    array library chooses the instance.
    """
    matrix = np.empty((measurements, dimension), dtype=dtype)
    size = max(1, (1 << 17) // dimension)
    scale = 1 / np.sqrt(dimension)
    for start in range(0, measurements, size):
        rows = matrix[start : start + size]
        rows[:] = random.standard_normal(rows.shape) * scale
    return DenseOperator(library.array(matrix))
