"""What is recorded along the runs of a block, beside where they are: labels, gain, densities."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array, take_rows, to_host
from pipeline.kernel.batch import Rows
from pipeline.kernel.density import (
    LARGEST_DENSE,
    PROBES,
    diagonalised_density,
    sampled_density,
)
from pipeline.kernel.gain import TangentLandscape, follow_equator
from pipeline.kernel.spectrum import SolvedBatch, SymmetricBatch
from pipeline.theory.samples import LeftEnd

Floats = NDArray[np.float64]

PREDICTED = ("bulk_edge", "outlier")
EQUATOR = ("gain", "loss_equator", "bulk_edge_equator", "outlier_equator", "bbp_margin_equator")


class PredictedLandscape(TangentLandscape, Protocol):
    """What a prediction asks of a model."""

    def loss(self, local: Array, owner: Rows) -> Array:
        """Loss per measurement [trajectories]."""

    def left_end(self, w: Array, local: Array, owner: Rows) -> LeftEnd:
        """Left end of the Hessian's spectrum that theory predicts from what the points know.

        `local` is what `gradient` gave beside the gradient.
        """


class MultipliedLandscape(Protocol):
    """What a density of eigenvalues asks of a model: products with the Hessian."""

    def hessian(self, w: Array, owner: Rows) -> SymmetricBatch | SolvedBatch:
        """Hessians on the sphere at each row of `w`."""


def predict_left_end(landscape: PredictedLandscape, path: Array, owner: Rows) -> LeftEnd:
    """Left end of the spectrum along `path` [trajectories, times, N]: a pass for each time.

    Every field [trajectories, times]; NaN where the path is.
    """
    return _read_labels(landscape, path, owner)[0]


def _read_labels(landscape: PredictedLandscape, path: Array, owner: Rows) -> tuple[LeftEnd, Floats]:
    """What labels and predictions along a path say: left end of the spectrum, and the loss."""
    found = LeftEnd(*np.full((3, *path.shape[:2]), np.nan))
    loss = np.full(path.shape[:2], np.nan)
    for k in range(path.shape[1]):
        alive = _alive(path, k)
        if not len(alive):
            continue
        w, owners = take_rows(path[:, k, :], alive), owner[alive]
        _, local = landscape.gradient(w, owners)
        at_time = landscape.left_end(w, local, owners)
        found.edge[alive, k] = at_time.edge
        found.outlier[alive, k] = at_time.outlier
        found.margin[alive, k] = at_time.margin
        loss[alive, k] = to_host(landscape.loss(local, owners))
    return found, loss


def observe_equator(
    landscape: PredictedLandscape,
    w: Array,
    owner: Rows,
    *,
    times: tuple[float, ...],
    tolerance: float,
) -> dict[str, Floats]:
    """Signal gain, loss and left end of the spectrum of the trajectory that is held at m = 0.

    See `pipeline.kernel.gain`. `EQUATOR`, each [trajectories, times].
    """
    gain, path = follow_equator(landscape, w, owner, times=times, tolerance=tolerance)
    end, loss = _read_labels(landscape, path, owner)
    return dict(zip(EQUATOR, (gain, loss, end.edge, end.outlier, end.margin), strict=True))


def observe_density(
    landscape: MultipliedLandscape, path: Array, owner: Rows, probes: Array | None, edges: Floats
) -> dict[str, Floats]:
    """Density of the Hessian's eigenvalues along `path` [trajectories, snapshots, N].

    ``density`` and ``density_error`` [trajectories, snapshots, bins], ``below`` and ``above``
    [trajectories, snapshots]; NaN where the path is.

    Parameters
    ----------
    path : float array [trajectories, snapshots, N]
    owner : int array [trajectories]
    probes : float array [instances, PROBES, N], optional
        See `pipeline.kernel.density`; without, all eigenvalues are found.
    edges : float array [bins + 1]
        Of the bins, ascending.

    Raises
    ------
    TypeError
        If the instances know nothing of a Hessian but its lowest pairs.
    """
    shape, bins = path.shape[:2], len(edges) - 1
    found = {
        "density": np.full((*shape, bins), np.nan),
        "density_error": np.full((*shape, bins), np.nan),
        "below": np.full(shape, np.nan),
        "above": np.full(shape, np.nan),
    }
    for k in range(path.shape[1]):
        alive = _alive(path, k)
        hessians = landscape.hessian(take_rows(path[:, k, :], alive), owner[alive])
        if isinstance(hessians, SolvedBatch):
            raise TypeError(
                "density of eigenvalues: expected Hessians that can be applied, got those of "
                "instances without couplings; ask for dense instances"
            )
        if probes is None:
            seen = diagonalised_density(hessians, len(alive), edges)
        else:
            seen = sampled_density(hessians, take_rows(probes, owner[alive]), edges)
        for name, column in found.items():
            column[alive, k] = getattr(seen, name)
    return found


def probes_wanted(dimension: int) -> int:
    """Random vectors that `observe_density` needs for each instance; 0 where it needs none."""
    return PROBES if dimension > LARGEST_DENSE else 0


def _alive(path: Array, k: int) -> Rows:
    """Trajectories that have not ended before time k."""
    return np.flatnonzero(np.isfinite(to_host(path[:, k, 0])))
