"""Phase retrieval: instances, gradient, Hessian, and the observables read off the labels.

Spec sections 1 and 4; Bonnaire, Biroli, Cammarota, arXiv:2403.02418. Everything works on batches of
trajectories `w` [trajectories, N] with their `owner` [trajectories], the instance of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.kernel.batch import Array, Rows, on_sphere, owned_rows
from pipeline.kernel.gaussian_operator import GaussianOperator, draw_dense
from pipeline.kernel.streams import Stream, generator

# 1 − g·f_max at which the upper edge of the Hessian's bulk is sought; the edge of a single large
# f_i lies at 1 − g·f_max ≈ N^(-1/2), so the grid serves N up to about 10⁵
_EDGE_GRID = 1 - np.geomspace(0.003, 0.85, 12)


@dataclass(frozen=True)
class PhaseRetrieval:
    """Instances with loss L(w) = Σ_i ℓ_a(y_i, ŷ_i), ℓ_a = (ŷ² − y²)² / (4 (a + y²)).

    Labels y = X w*, predictions ŷ = X w, |w|² = |w*|² = N, X_ij ~ N(0, 1/N) (spec, section 1).

    Parameters
    ----------
    operators : tuple of GaussianOperator, one per instance
    signals : float array [instances, N]
        w* of each instance.
    labels_squared : float array [instances, M]
        y².
    weights : float array [instances, M]
        1/(a + y²).
    row_norms : float array [instances, M]
        |x_i|²/N, close to 1.
    """

    operators: tuple[GaussianOperator, ...]
    signals: Array
    labels_squared: Array
    weights: Array
    row_norms: Array

    @property
    def dimension(self) -> int:
        """N."""
        return int(self.signals.shape[-1])

    def gradient(self, w: Array, owner: Rows) -> tuple[Array, Array]:
        """∇L(w) = Xᵀ ℓ'(y, X w) and the predictions X w: one pass over each owner's X.

        Parameters
        ----------
        w : float array [trajectories, N]
            Any point of R^N, also off the sphere.
        owner : int array [trajectories]

        Returns
        -------
        gradient : float array [trajectories, N]
        predictions : float array [trajectories, M]
        """
        gradient = np.empty_like(w)
        predictions = np.empty((len(w), self.weights.shape[1]), dtype=w.dtype)
        for instance, rows in owned_rows(owner):
            squares, weights = self.labels_squared[instance], self.weights[instance]

            def slope(
                predicted: Array, block: slice, squares: Array = squares, weights: Array = weights
            ) -> Array:
                out = np.square(predicted)
                out -= squares[block]
                out *= weights[block]
                out *= predicted
                return out

            gradient[rows], predictions[rows] = self.operators[instance].pull_back(w[rows], slope)
        return gradient, predictions

    def gradient_and_product(self, w: Array, u: Array, owner: Rows) -> tuple[Array, Array, Array]:
        """∇L(w), the predictions X w, and ∇²L(w) u: one pass, with the batch doubled.

        Parameters
        ----------
        w, u : float array [trajectories, N]
        owner : int array [trajectories]

        Returns
        -------
        gradient : float array [trajectories, N]
        predictions : float array [trajectories, M]
        product : float array [trajectories, N]
        """
        gradient, product = np.empty_like(w), np.empty_like(u)
        predictions = np.empty((len(w), self.weights.shape[1]), dtype=w.dtype)
        for instance, rows in owned_rows(owner):
            count = rows.stop - rows.start
            squares, weights = self.labels_squared[instance], self.weights[instance]

            def respond(
                predicted: Array,
                block: slice,
                count: int = count,
                squares: Array = squares,
                weights: Array = weights,
            ) -> Array:
                at_w, along_u = predicted[:count], predicted[count:]
                square = np.square(at_w)
                slope = (square - squares[block]) * weights[block] * at_w
                curvature = (3 * square - squares[block]) * weights[block]
                return np.concatenate([slope, curvature * along_u])

            both = np.concatenate([w[rows], u[rows]])
            pulled, predicted = self.operators[instance].pull_back(both, respond)
            gradient[rows], product[rows] = pulled[:count], pulled[count:]
            predictions[rows] = predicted[:count]
        return gradient, predictions, product

    def loss(self, predictions: Array, owner: Rows) -> Array:
        """L/M, the loss per measurement [trajectories]."""
        excess = np.square(predictions) - self.labels_squared[owner]
        return np.asarray(np.mean(np.square(excess) * self.weights[owner], axis=-1) / 4)

    def overlap(self, w: Array, owner: Rows) -> Array:
        """Overlap m = w·w*/N [trajectories], in [-1, 1]."""
        return np.asarray(np.vecdot(w, self.signals[owner]) / self.dimension)

    def curvature(self, predictions: Array, owner: Rows) -> Array:
        """Second derivative f = ℓ''(y, ŷ) = (3ŷ² − y²)/(a + y²) [trajectories, M]."""
        return (3 * np.square(predictions) - self.labels_squared[owner]) * self.weights[owner]

    def stiffness(self, predictions: Array, multiplier: Array, owner: Rows) -> Array:
        """Estimate of the largest eigenvalue of H [trajectories], from the labels alone: no pass.

        The upper edge min_g 1/g + (1/N) Σ_i f_i/(1 − f_i g) of the bulk of Xᵀ diag(f) X for
        0 < g < 1/max f (spec, section 5, mirrored), with f_i weighted by |x_i|²/N so that it also
        holds where a few large f_i dominate, and f < 0 left out, which bounds from above. Over the
        largest eigenvalue it is 0.81-1.37 at N = 64, 0.84-1.29 at 128, 0.85-1.17 at 256 and
        0.87-1.12 at 512, for a = 1 and 0.01, α = 1.5-6, at the start and along the run; low
        mostly where an outlier along w or w* has left the bulk. The step control copes.
        """
        f = np.maximum(self.curvature(predictions, owner), 0) * self.row_norms[owner]
        largest = np.max(f, axis=-1)
        safe = np.where(largest > 0, largest, 1)
        ratio = f / safe[:, None]
        edges = [
            1 / g + np.sum(ratio / (1 - ratio * g), axis=-1) / self.dimension for g in _EDGE_GRID
        ]
        return np.asarray(largest * np.min(edges, axis=0) - multiplier)

    def hessian(self, w: Array, owner: Rows) -> "Hessian":
        """H(w) = Xᵀ diag(f) X − μ I at each row of `w` [trajectories, N]: one pass."""
        gradient, predictions = self.gradient(w, owner)
        return Hessian(
            self.operators,
            owner,
            self.curvature(predictions, owner),
            np.vecdot(w, gradient) / self.dimension,
        )


@dataclass(frozen=True)
class Hessian:
    """H = Xᵀ diag(f) X − μ I of each trajectory, N×N, symmetric (spec, section 1).

    Parameters
    ----------
    operators : tuple of GaussianOperator, one per instance
    owner : int array [trajectories]
    curvature : float array [trajectories, M]
        f.
    multiplier : float array [trajectories]
        μ.
    """

    operators: tuple[GaussianOperator, ...]
    owner: Rows
    curvature: Array
    multiplier: Array

    def apply(self, v: Array, rows: Rows) -> Array:
        """H v for `v` [k, N], the k-th in the Hessian of trajectory rows[k] (sorted): one pass."""
        out = np.empty_like(v)
        for instance, part in owned_rows(self.owner[rows]):
            weights = self.curvature[rows[part]]

            def scale(product: Array, block: slice, weights: Array = weights) -> Array:
                return product * weights[:, block]

            out[part] = self.operators[instance].pull_back(v[part], scale)[0]
        out -= self.multiplier[rows, None].astype(v.dtype) * v
        return out

    def dense(self, row: int) -> Array:
        """H of one trajectory as a matrix [N, N], float64."""
        operator = self.operators[int(self.owner[row])]
        matrix: Array = operator.weighted_gram(self.curvature[row].astype(np.float64))
        matrix[np.diag_indices_from(matrix)] -= float(self.multiplier[row])
        return matrix


def draw_instances(
    streams: Sequence[Stream],
    *,
    measurements: int,
    dimension: int,
    a: float,
    dtype: np.dtype[np.floating],
) -> PhaseRetrieval:
    """One instance per random stream: X, w* uniform on the sphere |w*|² = N, y = X w*.

    Parameters
    ----------
    streams : sequence of SeedSequence
        The labelled stream of each instance.
    measurements, dimension : int
        M and N.
    a : float
        Parameter of the loss, > 0.
    dtype : float64 or float32
        Working precision; it rounds the instance and does not change it.
    """
    operators = tuple(
        draw_dense(generator(stream, "sensing"), measurements, dimension, dtype)
        for stream in streams
    )
    signals = draw_starts(streams, "signal", dimension, dtype)
    labels = np.concatenate(
        [operator.apply(signals[k : k + 1]) for k, operator in enumerate(operators)]
    )
    return PhaseRetrieval(
        operators,
        signals,
        labels_squared=labels**2,
        weights=(1 / (a + labels**2)).astype(dtype),
        row_norms=np.stack([operator.row_norms() for operator in operators]),
    )


def draw_starts(
    streams: Sequence[Stream],
    purpose: str,
    dimension: int,
    dtype: np.dtype[np.floating],
    replicas: int = 1,
) -> Array:
    """Points uniform on the sphere |w|² = N [streams × replicas, N], replicas fastest.

    Each from its own stream: more replicas leave the first ones as they are.
    """
    draws = np.stack(
        [
            generator(stream, purpose, replica).standard_normal(dimension)
            for stream in streams
            for replica in range(replicas)
        ]
    )
    return np.asarray(on_sphere(draws), dtype=dtype)
