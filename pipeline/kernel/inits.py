"""Where descents start: random, at a given overlap, spectral, constrained (spec, section 3).

All starts of one seed share X, w* and the draw of w(0), so initialisations are compared in pairs.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array
from pipeline.kernel.batch import Rows, off_signal, on_sphere
from pipeline.kernel.flow import DescentResult, Outcome
from pipeline.kernel.observables import HessianSnapshot

INITS = ("random", "spectral", "constrained")


class Descent(Protocol):
    """A dynamics, ready to run."""

    def run(self, w: Array, owner: Rows, times: tuple[float, ...] = ()) -> DescentResult:
        """Follow it from `w` [trajectories, N]."""


@dataclass(frozen=True)
class Starts:
    """Starting points of one initialisation.

    Parameters
    ----------
    w : float array [trajectories, N]
    gradients : float array [trajectories]
        Gradient-equivalent passes spent on finding it.
    outcome : int array [trajectories]
        RUNNING where the descent can start, else the `Outcome` of what failed.
    """

    w: Array
    gradients: NDArray[np.float64]
    outcome: NDArray[np.int8]


def random_starts(w0: Array) -> Starts:
    """w(0) itself, uniform on the sphere [trajectories, N]."""
    return Starts(w0, np.zeros(w0.shape[0]), np.full(w0.shape[0], Outcome.RUNNING, dtype=np.int8))


def overlap_starts(w0: Array, signals: Array, overlap: float) -> Starts:
    """w(0) turned within its plane with w* until it has the overlap m(0) [trajectories].

    Parameters
    ----------
    w0, signals : float array [trajectories, N]
    overlap : float
        m(0) in [-1, 1].
    """
    across = on_sphere(off_signal(w0, signals))
    start = random_starts(w0)
    return replace(start, w=overlap * signals + math.sqrt(1 - overlap**2) * across)


def spectral_starts(at_w0: HessianSnapshot) -> Starts:
    """√N v₁, v₁ the eigenvector of the smallest eigenvalue of H at w(0)."""
    return Starts(
        on_sphere(at_w0.lowest),
        at_w0.products.astype(np.float64),
        np.full(len(at_w0.products), Outcome.RUNNING, dtype=np.int8),
    )


def constrained_starts(w0: Array, owner: Rows, on_equator: Descent) -> Starts:
    """Threshold states: w(0) projected onto m = 0 and relaxed there by `on_equator` for T_c."""
    relaxed = on_equator.run(w0, owner)
    arrived = relaxed.outcome == Outcome.NOT_RECOVERED
    return Starts(
        relaxed.w,
        relaxed.gradients.astype(np.float64),
        np.where(arrived, Outcome.RUNNING, relaxed.outcome).astype(np.int8),
    )
