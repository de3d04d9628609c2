"""What is recorded of the Hessian at a point: two lowest eigenvalues, alignment, residual."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.batch import Array, Rows
from pipeline.kernel.spectrum import LowestPairs, SymmetricBatch, lowest_pairs

Floats = NDArray[np.float64]


class HessianLandscape(Protocol):
    """What a Hessian snapshot asks of a model."""

    @property
    def dimension(self) -> int:
        """N."""

    def hessian(self, w: Array, owner: Rows) -> SymmetricBatch:
        """Hessians on the sphere at each row of `w`."""

    def overlap(self, w: Array, owner: Rows) -> Array:
        """w·w*/N [trajectories]."""


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
    lowest : float array [trajectories, N]
        v₁.
    products : int array
        Products with H used.
    """

    lambda1: Floats
    lambda2: Floats
    alignment: Floats
    residual: Floats
    lowest: Array
    products: Rows


def hessian_snapshot(
    landscape: HessianLandscape, w: Array, owner: Rows, probe: Array
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
    lowest = pairs.vectors[:, 0]
    overlap = landscape.overlap(lowest, owner).astype(np.float64)
    return HessianSnapshot(
        lambda1=pairs.values[:, 0],
        lambda2=pairs.values[:, 1],
        alignment=overlap**2 * landscape.dimension,
        residual=pairs.residuals.max(axis=-1),
        lowest=lowest,
        products=pairs.products,
    )
