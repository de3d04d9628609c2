"""Phase retrieval: instances, gradient, Hessian, and the observables read off the labels.

Spec sections 1 and 4; Bonnaire, Biroli, Cammarota, arXiv:2403.02418. Everything works on batches of
trajectories `w` [trajectories, N] with their `owner` [trajectories], the instance of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from array_api_compat import device

from pipeline.kernel.arrays import (
    NUMPY,
    Array,
    ArrayLibrary,
    namespace,
    on_device_of,
    take_rows,
    to_host,
)
from pipeline.kernel.batch import Rows, on_sphere
from pipeline.kernel.conditional_operator import ConditionalOperator, frame_point
from pipeline.kernel.gaussian_operator import draw_dense
from pipeline.kernel.sensing import SensingMatrices, SeparateMatrices, StackedMatrices
from pipeline.kernel.spectrum import RESIDUAL
from pipeline.kernel.streams import Stream, generator
from pipeline.theory.samples import LeftEnd, left_end_of_samples

# 1 − g·f_max at which the upper edge of the Hessian's bulk is sought; the edge of a single large
# f_i lies at 1 − g·f_max ≈ N^(-1/2); at N = 10⁶ the grid puts it 0.1 % too high
_EDGE_GRID = 1 - np.geomspace(0.003, 0.85, 12)

# a product with the Hessian of a conditional instance adds a direction to all products that follow:
# half as many of them find λ₁ to well below the spread between instances
_CONDITIONAL_RESIDUAL = 1e-2


@dataclass(frozen=True)
class PhaseRetrieval:
    """Instances with loss L(w) = Σ_i ℓ_a(y_i, ŷ_i), ℓ_a = (ŷ² − y²)² / (4 (a + y²)).

    Labels y = X w*, predictions ŷ = X w, |w|² = |w*|² = N, X_ij ~ N(0, 1/N) (spec, section 1).

    Parameters
    ----------
    operators : SensingMatrices
        X of each instance.
    signals : float array [instances, N]
        w* of each instance.
    labels_squared : float array [instances, M]
        y².
    weights : float array [instances, M]
        1/(a + y²).
    row_norms : float array [instances, M]
        |x_i|²/N, close to 1.
    residual : float
        |H v − λ v| at which an eigenpair of a Hessian is good enough.
    """

    operators: SensingMatrices
    signals: Array
    labels_squared: Array
    weights: Array
    row_norms: Array
    residual: float = RESIDUAL

    @property
    def dimension(self) -> int:
        """N."""
        return int(self.signals.shape[-1])

    @property
    def directions(self) -> list[int]:
        """In how many directions of R^N each X is known."""
        return [self.operators[k].directions for k in range(len(self.operators))]

    def keep(self) -> None:
        """Keep for good what is known of each X now; a Hessian forgets what came after."""
        for instance in range(len(self.operators)):
            self.operators[instance].keep()

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

        def slope(predicted: Array, rows: slice, block: slice) -> Array:
            squares, weights = self._labels(owner[rows], block)
            out = predicted * predicted
            out -= squares
            out *= weights
            out *= predicted
            return out

        return self.operators.pull_back(w, owner, slope)

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
        count = len(owner)
        order = np.argsort(np.tile(owner, 2), kind="stable")  # instance by instance, w before u
        place = np.argsort(order, kind="stable")
        of_w, of_u = place[:count], place[count:]
        partner = of_w[order % count]  # where the predictions X w of a row are, in this order
        # ℓ' = (ŷ² − y²) ŷ and ℓ'' X u = (3ŷ² − y²) X u, over a + y², differ in this number
        factor = np.where(order < count, 1.0, 3.0)
        both_owner = owner[order % count]

        def respond(predicted: Array, rows: slice, block: slice) -> Array:
            squares, weights = self._labels(both_owner[rows], block)
            out = take_rows(predicted, partner[rows] - rows.start)
            out *= out
            out *= on_device_of(predicted, factor[rows, None])
            out -= squares
            out *= weights
            out *= predicted
            return out

        both = take_rows(namespace(w).concat([w, u]), order)
        pulled, predictions = self.operators.pull_back(both, both_owner, respond)
        return take_rows(pulled, of_w), take_rows(predictions, of_w), take_rows(pulled, of_u)

    def loss(self, predictions: Array, owner: Rows) -> Array:
        """L/M, the loss per measurement [trajectories]."""
        squares, weights = self._labels(owner)
        excess = predictions * predictions - squares
        return namespace(predictions).mean(excess * excess * weights, axis=-1) / 4

    def overlap(self, w: Array, owner: Rows) -> Array:
        """Overlap m = w·w*/N [trajectories], in [-1, 1]."""
        return namespace(w).vecdot(w, take_rows(self.signals, owner)) / self.dimension

    def curvature(self, predictions: Array, owner: Rows) -> Array:
        """Second derivative f = ℓ''(y, ŷ) = (3ŷ² − y²)/(a + y²) [trajectories, M]."""
        squares, weights = self._labels(owner)
        return (3 * (predictions * predictions) - squares) * weights

    def stiffness(self, predictions: Array, multiplier: Array, owner: Rows) -> Array:
        """Estimate of the largest eigenvalue of H [trajectories], from the labels alone: no pass.

        The upper edge min_g 1/g + (1/N) Σ_i f_i/(1 − f_i g) of the bulk of Xᵀ diag(f) X for
        0 < g < 1/max f (spec, section 5, mirrored), with f_i weighted by |x_i|²/N so that it also
        holds where a few large f_i dominate, and f < 0 left out, which bounds from above. Over the
        largest eigenvalue it is 0.81-1.37 at N = 64, 0.84-1.29 at 128, 0.85-1.17 at 256 and
        0.87-1.12 at 512, for a = 1 and 0.01, α = 1.5-6, at the start and along the run; low
        mostly where an outlier along w or w* has left the bulk. The step control copes.
        """
        xp = namespace(predictions)
        f = self.curvature(predictions, owner)
        f = xp.maximum(f, xp.zeros_like(f)) * take_rows(self.row_norms, owner)
        largest = xp.max(f, axis=-1)
        safe = xp.where(largest > 0, largest, xp.ones_like(largest))
        ratio = (f / safe[:, None])[:, None, :]
        g = on_device_of(f, _EDGE_GRID[:, None])
        left = ratio * g  # [trajectories, grid, M]; in place from here, for its size
        left -= 1
        terms = ratio / left
        edges = 1 / g[:, 0] - xp.sum(terms, axis=-1) / self.dimension
        return largest * xp.min(edges, axis=-1) - multiplier

    def left_end(self, w: Array, predictions: Array, owner: Rows) -> LeftEnd:  # noqa: ARG002
        """Edge of the Hessian's bulk and outlier of the signal, from the labels alone: no pass."""
        squares, weights = self._labels(owner)
        predicted = predictions * predictions
        pull = namespace(predicted).sum(predicted * (predicted - squares) * weights, axis=-1)
        curvature = to_host(self.curvature(predictions, owner))
        return left_end_of_samples(
            np.broadcast_to(to_host(squares), curvature.shape),
            curvature,
            to_host(pull).astype(np.float64) / self.dimension,
            alpha=curvature.shape[1] / self.dimension,
        )

    def hessian(self, w: Array, owner: Rows) -> "Hessian":
        """H(w) = Xᵀ diag(f) X − μ I at each row of `w` [trajectories, N]: one pass.

        Hessians made before are no longer to be used where instances are conditional.
        """
        for instance in range(len(self.operators)):
            self.operators[instance].forget()
        gradient, predictions = self.gradient(w, owner)
        return Hessian(
            self.operators,
            owner,
            self.curvature(predictions, owner),
            namespace(w).vecdot(w, gradient) / self.dimension,
            self.residual,
        )

    def _labels(self, owner: Rows, block: slice = slice(None)) -> tuple[Array, Array]:
        """y² and 1/(a + y²) of each row's instance [trajectories or 1, measurements]."""
        if len(owner) and owner[0] == owner[-1]:  # one instance: its labels broadcast
            rows = slice(owner[0], owner[0] + 1)
            return self.labels_squared[rows, block], self.weights[rows, block]
        squares, weights = self.labels_squared[:, block], self.weights[:, block]
        return take_rows(squares, owner), take_rows(weights, owner)


@dataclass(frozen=True)
class Hessian:
    """H = Xᵀ diag(f) X − μ I of each trajectory, N×N, symmetric (spec, section 1).

    Parameters
    ----------
    operators : SensingMatrices
    owner : int array [trajectories]
    curvature : float array [trajectories, M]
        f.
    multiplier : float array [trajectories]
        μ.
    residual : float
        |H v − λ v| at which an eigenpair is good enough.
    """

    operators: SensingMatrices
    owner: Rows
    curvature: Array
    multiplier: Array
    residual: float = RESIDUAL

    @property
    def degenerate(self) -> bool:
        """H = −μ on the null space of X, of dimension N − M."""
        m, n = self.operators[0].shape
        return n - m > 1

    def apply(self, v: Array, rows: Rows) -> Array:
        """H v for `v` [k, N], the k-th in the Hessian of trajectory rows[k] (sorted): one pass."""
        weights, shift = take_rows(self.curvature, rows), take_rows(self.multiplier, rows)

        def scale(product: Array, part: slice, block: slice) -> Array:
            return product * weights[part, block]

        out, _ = self.operators.pull_back(v, self.owner[rows], scale)
        out -= shift[:, None] * v
        return out

    def dense(self, row: int) -> Array:
        """H of one trajectory as a matrix [N, N], float64."""
        xp = namespace(self.curvature)
        f, shift = (xp.astype(x[row, ...], xp.float64) for x in (self.curvature, self.multiplier))
        gram = self.operators[int(self.owner[row])].weighted_gram(f)
        return gram - shift * xp.eye(gram.shape[0], dtype=gram.dtype, device=device(gram))


def draw_instances(
    streams: Sequence[Stream],
    *,
    measurements: int,
    dimension: int,
    a: float,
    dtype: np.dtype[np.floating],
    library: ArrayLibrary = NUMPY,
    frame: int | None = None,
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
    library : ArrayLibrary
        Where to put it. Beside NumPy, all instances lie in one array.
    frame : int, optional
        With it X is drawn as it is asked for, another X of the same law, and points live in a
        frame with that many places for random ones; w* has the first.
    """
    operators: SensingMatrices
    if frame is None:
        operators = _draw_matrices(streams, (measurements, dimension), dtype, library)
    else:
        drawn = [
            ConditionalOperator(
                generator(stream, "sensing"),
                (measurements, dimension),
                dtype,
                frame=frame,
                library=library,
            )
            for stream in streams
        ]
        operators = SeparateMatrices(tuple(drawn))
    places = None if frame is None else range(1)
    signals = draw_starts(streams, "signal", dimension, dtype, library=library, places=places)
    xp = library.namespace
    labels = xp.concat([operators[k].apply(signals[k : k + 1, :]) for k in range(len(operators))])
    squares = labels * labels
    return PhaseRetrieval(
        operators,
        signals,
        labels_squared=squares,
        weights=1 / (float(a) + squares),
        row_norms=xp.stack([operators[k].row_norms() for k in range(len(operators))]),
        residual=RESIDUAL if frame is None else _CONDITIONAL_RESIDUAL,
    )


def _draw_matrices(
    streams: Sequence[Stream],
    shape: tuple[int, int],
    dtype: np.dtype[np.floating],
    library: ArrayLibrary,
) -> SensingMatrices:
    drawn = (draw_dense(generator(stream, "sensing"), *shape, dtype, library) for stream in streams)
    if library.is_numpy:
        return SeparateMatrices(tuple(drawn))
    matrices = library.empty((len(streams), *shape), dtype)
    for instance, operator in enumerate(drawn):
        matrices[instance, :, :] = operator.matrix
    return StackedMatrices(matrices)


def draw_starts(
    streams: Sequence[Stream],
    purpose: str,
    dimension: int,
    dtype: np.dtype[np.floating],
    replicas: int = 1,
    library: ArrayLibrary = NUMPY,
    *,
    places: Sequence[int] | None = None,
) -> Array:
    """Points uniform on the sphere |w|² = N [streams × replicas, N], replicas fastest.

    Each from its own stream: more replicas leave the first ones as they are.

    Parameters
    ----------
    places : sequence of int, optional
        Of each replica in the frame of conditional instances, where these are used.
    """
    draws = []
    for stream in streams:
        for replica in range(replicas):
            random = generator(stream, purpose, replica)
            if places is None:
                draws.append(random.standard_normal(dimension))
            else:
                draws.append(frame_point(random, places[replica], dimension))
    return library.array(on_sphere(np.stack(draws)).astype(dtype))
