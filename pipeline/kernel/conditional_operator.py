"""A Gaussian sensing matrix X drawn as it is asked for: exact in law, without the matrix.

Y. M. Lu, *Householder Dice*, arXiv:2101.07464 (spec, section 9). The law of X does not change under
rotations of R^N, and no observable of a descent depends on the frame in which points are written.
So points are written in a frame that the descent unfolds: its first k coordinates are the
directions met so far, those beyond are free to turn. With orthonormal V [k, M], the directions of
R^M asked for, only the columns A [k, M] of X in the known coordinates are kept:

- X u = Σ_j u_j A_j, and nothing is drawn: u has known coordinates only.
- Xᵀ v has A v in the known coordinates. Of v = Vᵀ c + ρ p, p ⊥ V, |p| = 1, the part of Xᵀ p beyond
  them has independent entries N(0, 1/N): length χ/√N with N − k degrees of freedom, in a direction
  that becomes coordinate k. Its column X e_k is χ/√N along p, nothing along V, and beyond
  that a projected g/√N, g ~ N(0, I_M).

Every answer is that of one matrix: approximate is only which directions count as new, those with
ρ > tol |v|. Since ρ/|v| is mostly below 10⁻³ in a descent, p must be orthogonalised twice, or the
answers contradict each other. In memory it is once: of what is left along V the inner products are
known, and V = T P and A = G + S P are kept as the rows P of directions as they were stored, the
rows G of independent numbers N(0, 1/N), and small lower triangular matrices T and S in float64. So
nothing stored is ever corrected. A pass reads G once and P twice, 3 k M itemsize bytes, where a
matrix costs M N itemsize.

Every direction makes all later passes dearer. What was asked for in passing, such as an eigenvector
of the Hessian, can be forgotten: the directions after `keep` are given up and their part of X is
free again. Each such answer is exact in law together with all that was kept; two of them are
not of one X, as far as what was kept leaves it open.
"""

from collections.abc import Callable

import numpy as np

from pipeline.kernel.arrays import NUMPY, Array, ArrayLibrary, namespace, on_device_of, to_host
from pipeline.kernel.gaussian_operator import Response
from pipeline.kernel.paired_bases import (
    Floats,
    PairedBases,
    TriangularMatrix,
    multiply_transposed,
    sum_products,
)

TOLERANCE = 1e-6
"""ρ/|v| up to which a direction of R^M counts as known; float32 leaves about 10⁻⁷ of noise."""

_LARGEST_ECHO = 0.1  # of a unit vector along V that one more orthogonalisation removes for good
_MOST_ORTHOGONALISATIONS = 3
_REVEALED_TOGETHER = 64  # columns


class ConditionalOperator:
    """X [M, N] with independent entries N(0, 1/N), drawn as it is asked for.

    Points u lie in the operator's frame: those of `frame_point`, its answers, and what is made of
    them. The answers follow from the random numbers and the questions in their order.

    Parameters
    ----------
    random : Generator
        Where all of X comes from.
    shape : (int, int)
        (M, N).
    dtype : float64 or float32
        Precision of the bases; it rounds the instance.
    frame : int
        How many points of `frame_point` there are, at places 0 … frame − 1.
    tolerance : float
        ρ/|v| up to which a direction counts as known.
    library : ArrayLibrary
    """

    def __init__(
        self,
        random: np.random.Generator,
        shape: tuple[int, int],
        dtype: np.dtype[np.floating],
        *,
        frame: int,
        tolerance: float = TOLERANCE,
        library: ArrayLibrary = NUMPY,
    ) -> None:
        self._random = random
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._tolerance = tolerance
        self._library = library
        self._bases = PairedBases(shape[0], self._dtype, library)
        self._kept: int | None = None
        self._directions = TriangularMatrix()  # T
        self._columns = TriangularMatrix()  # S
        self._drawn = library.empty((0, shape[0]), self._dtype)  # g that became no column yet
        self._reveal(min(frame, shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """(M, N)."""
        return self._shape

    @property
    def directions(self) -> int:
        """k, the directions of R^N in which X is known."""
        return self._bases.count

    def keep(self) -> None:
        """Keep for good what is known of X now."""
        self._kept = self.directions

    def forget(self) -> None:
        """Give up the directions after `keep`, if it was called."""
        if self._kept is not None:
            for part in (self._bases, self._directions, self._columns):
                part.truncate(self._kept)

    def apply(self, u: Array) -> Array:
        """X u for each row of `u` [batch, N] → [batch, M]."""
        of_g, of_p = self._weights(u)
        out = self._library.empty((u.shape[0], self._shape[0]), self._dtype)
        for here, g, p in self._bases.sweep(u.shape[0]):
            out[:, here] = of_g @ g + of_p @ p
        return out

    def apply_transpose(self, v: Array) -> Array:
        """Xᵀ v for each row of `v` [batch, M] → [batch, N]."""
        return self._pull(v, lambda here, _g, _p: v[:, here])

    def pull_back(self, u: Array, response: Response) -> tuple[Array, Array]:
        """Xᵀ φ(X u) [batch, N] and X u [batch, M] for each row of `u` [batch, N]: one pass."""
        of_g, of_p = self._weights(u)
        shape = (u.shape[0], self._shape[0])
        predictions = self._library.empty(shape, self._dtype)
        v = self._library.empty(shape, self._dtype)

        def respond(here: slice, g: Array, p: Array) -> Array:
            predicted = of_g @ g
            predicted += of_p @ p
            predictions[:, here] = predicted
            v[:, here] = response(predicted, here)
            return v[:, here]

        return self._pull(v, respond), predictions

    def row_norms(self) -> Array:
        """|x_i|²/N [M] as far as it is known before X is: 1, its limit at large N."""
        norms = self._library.empty((self._shape[0],), self._dtype)
        norms[:] = 1
        return norms

    def weighted_gram(self, weights: Array) -> Array:
        """Xᵀ diag(f) X [N, N] for `weights` f [M], summed in float64; draws what is left of X."""
        n = self._shape[1]
        self._reveal(n)
        xp = self._library.namespace
        gram = self._library.empty((n, n), np.dtype(np.float64))
        gram[...] = 0
        for here, g, p in self._bases.sweep(1):
            columns = on_device_of(gram, self._columns.rows) @ xp.astype(p, xp.float64)
            columns += xp.astype(g, xp.float64)
            gram += (columns * weights[here]) @ columns.T
        return gram

    def _weights(self, u: Array) -> tuple[Array, Array]:
        """Of the rows G and P in X u, each [batch, k], for points `u` [batch, N]."""
        k, xp = self.directions, namespace(u)
        if bool(xp.any(xp.abs(u[:, k:]) > 0)):  # what is not finite is answered with the like
            raise ValueError(
                f"u: expected points of the operator's frame, with {k} known coordinates, got one "
                "with others; make points with frame_point and from the operator's answers"
            )
        known = u[:, :k]
        return known, on_device_of(u, to_host(known).astype(np.float64) @ self._columns.rows)

    def _pull(self, v: Array, respond: Callable[[slice, Array, Array], Array]) -> Array:
        """Xᵀ v [batch, N] for `v` [batch, M], part by part what `respond` gives."""
        (batch, _), n, k = v.shape, self._shape[1], self.directions
        along_g, along_p = np.zeros((batch, k)), np.zeros((batch, k))
        for here, g, p in self._bases.sweep(batch):
            answer = respond(here, g, p)
            along_g += multiply_transposed(answer, g)
            along_p += multiply_transposed(answer, p)
        pulled: Array = self._library.empty((batch, n), self._dtype)
        pulled[:, :k] = on_device_of(v, along_g + along_p @ self._columns.rows.T)
        pulled[:, k:] = 0
        if k < n:
            new = self._unfold(v, along_p)
            pulled[:, k : k + new.shape[1]] = on_device_of(v, new)
        return pulled

    def _unfold(self, v: Array, along: Floats) -> Floats:
        """Draw the columns of X that come with what is new in `v`; `v` times them [batch, new].

        Parameters
        ----------
        v : float array [batch, M]
        along : float array [batch, k]
            P v.
        """
        batch, k, n = v.shape[0], self.directions, self._shape[1]
        g = self._draw(min(batch, n - k))
        rows = namespace(v).concat([v, g])
        inner = along @ self._directions.rows.T  # V v
        left_over = self._take_off(rows, inner)
        echo, g_along = left_over[:batch], left_over[batch:]
        rest = rows[:batch, :]
        least = self._tolerance * _lengths(v)
        for _ in range(_MOST_ORTHOGONALISATIONS):
            left, left_echo = _orthonormalise(rest, echo, least, most=g.shape[0])
            if not np.any(np.sum(left_echo**2, axis=1) > _LARGEST_ECHO**2):
                break
            echo = self._take_off(rest, echo)
        new = left.shape[0]
        if not new:
            return np.zeros((batch, 0))
        self._drawn = self._drawn[new:, :]
        g, g_along = g[:new, :] / float(np.sqrt(n)), g_along[:new] / np.sqrt(n)
        chi = np.sqrt(self._random.chisquare(n - k - np.arange(new)) / n)
        mixing = np.diag(chi) - np.tril(sum_products(g, left) - g_along @ left_echo.T)
        turned = -left_echo @ self._directions.rows  # rows of T, beside the identity
        columns = mixing @ turned - g_along @ self._directions.rows
        self._bases.append(g, left)
        self._directions.append(turned, np.eye(new))
        self._columns.append(columns, mixing)
        answers = sum_products(v, g) + sum_products(v, left) @ mixing.T + along @ columns.T
        return np.asarray(answers)

    def _take_off(self, rows: Array, inner: Floats) -> Floats:
        """Subtract inner·V from the first `rows` in place; V times all of them, afterwards."""
        weights = on_device_of(rows, inner @ self._directions.rows)
        left_over = np.zeros((rows.shape[0], self.directions))
        for here, _, p in self._bases.sweep(len(inner)):
            rows[: len(inner), here] -= weights @ p
            left_over += multiply_transposed(rows[:, here], p)
        return left_over @ self._directions.rows.T

    def _reveal(self, count: int) -> None:
        """Draw the columns of X up to `count`; they bring no direction of R^M."""
        scale = float(1 / np.sqrt(self._shape[1]))
        while self.directions < count:
            size = min(_REVEALED_TOGETHER, count - self.directions)
            g = self._library.array(self._normal(size) * scale)
            along = self._take_off(g, np.zeros((0, self.directions)))
            self._bases.append(g, namespace(g).zeros_like(g))
            nothing = np.zeros((size, size))
            self._columns.append(-along @ self._directions.rows, nothing)
            self._directions.append(np.zeros_like(along), nothing)

    def _draw(self, count: int) -> Array:
        """`count` rows of N(0, 1) [count, M], the same again until columns were made of them."""
        missing = count - self._drawn.shape[0]
        if missing > 0:
            more = self._library.array(self._normal(missing))
            self._drawn = namespace(more).concat([self._drawn, more])
        return self._drawn[:count, :]

    def _normal(self, count: int) -> Array:
        rows = np.empty((count, self._shape[0]), dtype=self._dtype)
        for row in rows:
            row[:] = self._random.standard_normal(len(row))
        return rows


def frame_point(random: np.random.Generator, place: int, dimension: int) -> Floats:
    """Standard normal point of R^N, written in the frame that such points span [N].

    Of the point at `place` p = 0, 1, … coordinates 0 … p − 1 are normal, coordinate p is the
    length of the rest, χ with N − p degrees of freedom, and those beyond are 0: the law of the
    inner products of independent normal points (Bartlett's decomposition).

    Parameters
    ----------
    random : Generator
        Of this point.
    place : int
        Another one for each point.
    dimension : int
        N.
    """
    if place >= dimension:
        return random.standard_normal(dimension)
    point = np.zeros(dimension)
    point[:place] = random.standard_normal(place)
    point[place] = np.sqrt(random.chisquare(dimension - place))
    return point


def _orthonormalise(rows: Array, echo: Floats, least: Floats, *, most: int) -> tuple[Array, Floats]:
    """Orthonormal directions p = P − K V of rows − echo V: P [new, M] and K [new, k].

    Parameters
    ----------
    rows : float array [batch, M]
    echo : float array [batch, k]
        V times the rows.
    least : float array [batch]
        Length up to which what is left of a row is no direction; nor is it if it is not finite.
    most : int
        How many directions there are room for.
    """
    xp = namespace(rows)
    left = xp.empty_like(rows)
    left_echo = np.empty_like(echo)
    new = 0
    for k in range(rows.shape[0]):
        row, its_echo = rows[k : k + 1, :], echo[k]
        for _ in range(2 if new else 0):
            inner = sum_products(row, left[:new, :])[0] - left_echo[:new] @ its_echo
            row = row - on_device_of(rows, inner[None, :]) @ left[:new, :]
            its_echo = its_echo - inner @ left_echo[:new]
        rho = np.sqrt(max(sum_products(row, row)[0, 0] - its_echo @ its_echo, 0.0))
        if least[k] < rho < np.inf and new < most:
            left[new : new + 1, :] = row / float(rho)
            left_echo[new] = its_echo / rho
            new += 1
    return left[:new, :], left_echo[:new]


def _lengths(rows: Array) -> Floats:
    """|row| of each row [batch, M]."""
    return np.asarray(np.sqrt([sum_products(row[None, :], row[None, :])[0, 0] for row in rows]))
