"""Homogeneous polynomials with random coefficients: each coefficient is stored once.

A form Σ c_{ij…} x_i x_j … over i ≥ j ≥ …, of degree d in N variables, has C(N + d − 1, d) ≈ Nᵈ/d!
coefficients. Row i holds those of largest index i. It multiplies the monomials of degree d − 1 in
x_0 … x_i, which are the first ones of a list ordered by largest index, so a row is a contiguous
stretch of memory and its products are BLAS calls.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from math import comb

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array

Indices = NDArray[np.intp]

_BLOCK_BYTES = 1 << 20  # rows that stay in a core's cache between the two products of a gradient


@dataclass(frozen=True)
class SymmetricForm:
    """E(x) = Σ c_ij… x_i x_j … over i ≥ j ≥ …, of degree d.

    Parameters
    ----------
    monomials : int array [degree − 1, count]
        Their indices, the largest first, in the order of the coefficients.
    blocks : tuple of (first row, float array [rows, width])
        Coefficients of consecutive rows, filled up with zeros to the width of the last one.
    dimension : int
        N.
    """

    monomials: Indices
    blocks: tuple[tuple[int, Array], ...]
    dimension: int

    def gradient(self, x: Array) -> Array:
        """∇E [batch, N] at each row of `x` [batch, N]: one pass over the coefficients."""
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Array) -> tuple[Array, Array]:
        """E [batch] and ∇E [batch, N] at each row of `x` [batch, N]: one pass."""
        products = evaluate_monomials(x, self.monomials)
        direct, rest = self._contract(products, x)
        value = np.vecdot(x, direct)
        return value, direct + _lower_gradient(self.monomials, rest, x)

    def hessian(self, x: Array) -> NDArray[np.float64]:
        """∇²E at one point `x` [N], as a matrix [N, N] in float64: a pass for each variable."""
        n = self.dimension
        products = evaluate_monomials(x[None], self.monomials)
        _, rest = self._contract(products, x[None])
        mixed = np.zeros((n, n))
        slopes = list(zip(self.monomials, _slopes(x, self.monomials), strict=True))
        for first, rows in self.blocks:
            width = rows.shape[1]
            for row, coefficients in enumerate(rows, start=first):
                for index, slope in slopes:
                    weights = coefficients * slope[:width]
                    mixed[row] += np.bincount(index[:width], weights, minlength=n)
        return mixed + mixed.T + _lower_hessian(self.monomials, rest[0], x)

    def _contract(self, products: Array, x: Array) -> tuple[Array, Array]:
        """Σ_jk… c_ijk… products [batch, N], and Σ_i x_i c_ijk… [batch, monomials]."""
        direct = np.empty_like(x)
        rest = np.zeros_like(products)
        for first, rows in self.blocks:
            here, width = slice(first, first + len(rows)), rows.shape[1]
            direct[:, here] = products[:, :width] @ rows.T
            rest[:, :width] += x[:, here] @ rows
        return direct, rest


def build_form(
    dimension: int,
    degree: int,
    dtype: np.dtype[np.floating],
    fill: Callable[[int, Indices], NDArray[np.float64]],
) -> SymmetricForm:
    """The form whose row i has the coefficients `fill(i, monomials)` [count].

    Parameters
    ----------
    dimension, degree : int
        N and d ≥ 2.
    dtype : float64 or float32
        Of the coefficients.
    fill : callable
        Called with i = 0, 1, …, N − 1 and the monomials [d − 1, count] in x_0 … x_i.
    """
    monomials = list_monomials(dimension, degree - 1)
    blocks = []
    for first, stop in _row_blocks(dimension, degree, np.dtype(dtype).itemsize):
        rows = np.zeros((stop - first, count_monomials(stop, degree - 1)), dtype=dtype)
        for i in range(first, stop):
            count = count_monomials(i + 1, degree - 1)
            rows[i - first, :count] = fill(i, monomials[:, :count])
        blocks.append((first, rows))
    return SymmetricForm(monomials, tuple(blocks), dimension)


def count_monomials(dimension: int, degree: int) -> int:
    """How many monomials of a degree there are in x_0 … x_{N−1}: C(N + degree − 1, degree)."""
    return comb(dimension + degree - 1, degree)


def count_orderings(indices: Indices) -> NDArray[np.float64]:
    """In how many orders the indices i ≥ j ≥ … of each monomial [degree, count] can be written."""
    orderings = np.ones(indices.shape[1])
    run = np.ones(indices.shape[1])  # how often the index has come so far; equal ones are adjacent
    for place in range(1, len(indices)):
        run = np.where(indices[place] == indices[place - 1], run + 1, 1)
        orderings *= (place + 1) / run
    return orderings


def list_monomials(dimension: int, degree: int) -> Indices:
    """Indices i ≥ j ≥ … of all monomials [degree, count], ordered by i, then j and so on."""
    if degree == 1:
        return np.arange(dimension)[None]
    lower = list_monomials(dimension, degree - 1)
    counts = [count_monomials(i + 1, degree - 1) for i in range(dimension)]
    rest = np.concatenate([lower[:, :count] for count in counts], axis=1)
    return np.concatenate([np.repeat(np.arange(dimension), counts)[None], rest])


def _row_blocks(dimension: int, degree: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """Bounds of blocks of rows that fit the cache and are of nearly one length."""
    first = 0
    while first < dimension:
        most = max(1, _BLOCK_BYTES // (count_monomials(first + 1, degree - 1) * itemsize))
        stop = min(first + min(most, max(8, first // 8)), dimension)
        yield first, stop
        first = stop


def evaluate_monomials(x: Array, monomials: Indices) -> Array:
    """Values of monomials [batch, count] at `x` [batch, N]."""
    values = x[:, monomials[0]]
    for index in monomials[1:]:
        values *= x[:, index]
    return values


def differentiate_monomials(x: Array, monomials: Indices) -> NDArray[np.float64]:
    """Gradients of monomials [N, count] at `x` [N]."""
    out = np.zeros((len(x), monomials.shape[1]))
    each = np.arange(monomials.shape[1])
    for index, slope in zip(monomials, _slopes(x, monomials), strict=True):
        out[index, each] += slope
    return out


def _slopes(x: Array, monomials: Indices) -> list[Array]:
    """For each place of an index, the product of the other factors [count] at `x` [N]."""
    factors = [x[index] for index in monomials]
    slopes = [np.ones_like(factors[0])]
    for place, factor in enumerate(factors[1:], start=1):
        slopes = [slope * factor for slope in slopes] + [reduce(np.multiply, factors[:place])]
    return slopes


def _lower_gradient(monomials: Indices, coefficients: Array, x: Array) -> Array:
    """Gradient [batch, N] of Σ coefficients [batch, count] · monomials."""
    out = np.zeros(x.shape)
    for row, (point, weights) in enumerate(zip(x, coefficients, strict=True)):
        for index, slope in zip(monomials, _slopes(point, monomials), strict=True):
            out[row] += np.bincount(index, weights * slope, minlength=x.shape[1])
    return out.astype(x.dtype)


def _lower_hessian(monomials: Indices, coefficients: Array, x: Array) -> NDArray[np.float64]:
    """Hessian [N, N] of Σ coefficients [count] · monomials at `x` [N]."""
    n = len(x)
    out = np.zeros(n * n)
    for place in range(len(monomials)):
        for other in range(place):
            rest = np.delete(monomials, [place, other], axis=0)
            weights = coefficients * np.prod(x[rest], axis=0)
            pairs = monomials[place] * n + monomials[other]
            out += np.bincount(pairs, weights, minlength=n * n)
    half = out.reshape(n, n)
    return half + half.T
