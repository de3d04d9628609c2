"""What is recorded of a run: the Hessian's lowest eigenpairs at a point, and all along a path."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array, namespace, put_rows, take_rows, to_host
from pipeline.kernel.batch import Rows
from pipeline.kernel.spectrum import LowestPairs, SolvedBatch, SymmetricBatch, lowest_pairs

Floats = NDArray[np.float64]


POINT = ("overlap", "loss", "multiplier")
SNAPSHOT = ("lambda1", "lambda2", "alignment", "residual")


class ObservedLandscape(Protocol):
    """What the observables ask of a model."""

    @property
    def dimension(self) -> int:
        """N."""

    def hessian(self, w: Array, owner: Rows) -> SymmetricBatch | SolvedBatch:
        """Hessians on the sphere at each row of `w`."""

    def gradient(self, w: Array, owner: Rows) -> tuple[Array, Array]:
        """∇L(w) [trajectories, N], and what the loss needs of these points."""

    def loss(self, local: Array, owner: Rows) -> Array:
        """Loss per measurement [trajectories]."""

    def overlap(self, w: Array, owner: Rows) -> Array:
        """Overlap w·w*/N [trajectories]."""


@dataclass(frozen=True)
class HessianSnapshot:
    """Two lowest eigenpairs of H at a point of each trajectory, every field [trajectories].

    Parameters
    ----------
    lambda1, lambda2 : float array
    alignment : float array
        (v₁·w*)²/N with |v₁| = 1, in [0, 1].
    residual : float array
        The larger |H v − λ v| of the two pairs.
    lowest, second : float array [trajectories, N]
        v₁ and v₂, unit vectors.
    products : int array
        Products with H used.
    """

    lambda1: Floats
    lambda2: Floats
    alignment: Floats
    residual: Floats
    lowest: Array
    second: Array
    products: Rows


def hessian_snapshot(
    landscape: ObservedLandscape, w: Array, owner: Rows, probe: Array
) -> HessianSnapshot:
    """Lowest eigenpairs of H at `w` [trajectories, N], with the signal's share of v₁.

    Parameters
    ----------
    w : float array [trajectories, N]
    owner : int array [trajectories]
    probe : float array [trajectories, N]
        Starting vectors of Lanczos.
    """
    pairs: LowestPairs = lowest_pairs(landscape.hessian(w, owner), probe)
    lowest = pairs.vectors[:, 0, :]
    overlap = to_host(landscape.overlap(lowest, owner)).astype(np.float64)
    return HessianSnapshot(
        lambda1=pairs.values[:, 0],
        lambda2=pairs.values[:, 1],
        alignment=overlap**2 * landscape.dimension,
        residual=pairs.residuals.max(axis=-1),
        lowest=lowest,
        second=pairs.vectors[:, 1, :],
        products=pairs.products,
    )


def observe_point(landscape: ObservedLandscape, w: Array, owner: Rows) -> dict[str, Floats]:
    """`overlap` m, `loss` per measurement and `multiplier` μ at `w` [trajectories, N]: one pass."""
    gradient, local = landscape.gradient(w, owner)
    observed = {
        "overlap": landscape.overlap(w, owner),
        "loss": landscape.loss(local, owner),
        "multiplier": namespace(w).vecdot(w, gradient) / landscape.dimension,
    }
    return {name: to_host(column).astype(np.float64) for name, column in observed.items()}


def observe_path(
    landscape: ObservedLandscape,
    path: Array,
    owner: Rows,
    probe: Array | None,
    *,
    follow: bool = True,
) -> dict[str, Floats]:
    """Observables along `path` [trajectories, times, N], each [trajectories, times].

    ``overlap``, ``loss``, ``multiplier``, ``lambda1``, ``lambda2``, ``alignment``, ``residual``.
    NaN where the path is, after the end of a run; the last four also without a `probe`.

    Parameters
    ----------
    path : float array [trajectories, times, N]
    owner : int array [trajectories]
    probe : float array [trajectories, N], optional
        Starting vectors of Lanczos at the first time.
    follow : bool
        Start later snapshots from the vectors of the one before, which saves a tenth or more of the
        products; otherwise from the probe again.
    """
    observed = {name: np.full(path.shape[:2], np.nan) for name in (*POINT, *SNAPSHOT)}
    start = None if probe is None else probe / _norm(probe)
    for k in range(path.shape[1]):
        alive = np.flatnonzero(np.isfinite(to_host(path[:, k, 0])))
        w, owners = take_rows(path[:, k, :], alive), owner[alive]
        for name, column in observe_point(landscape, w, owners).items():
            observed[name][alive, k] = column
        if start is not None and probe is not None and len(alive):
            snapshot = hessian_snapshot(landscape, w, owners, take_rows(start, alive))
            for name in SNAPSHOT:
                observed[name][alive, k] = getattr(snapshot, name)
            if not follow:
                continue
            # the probe's share finds a direction that was not there before
            part = take_rows(probe, alive)
            fresh = 0.05 * part / _norm(part)
            put_rows(start, alive, snapshot.lowest + snapshot.second + fresh)
    return observed


def _norm(v: Array) -> Array:
    xp = namespace(v)
    return xp.sqrt(xp.vecdot(v, v))[:, None]
