"""Coefficients of the second-order Runge–Kutta–Chebyshev method, RKC2.

Sommeijer, Shampine, Verwer, *RKC: an explicit solver for parabolic PDEs*, J. Comput. Appl. Math. 88
(1998) 315-326, equations 2.3-2.7, damping ε = 2/13; but b_1 = 1/w0, so that c_1 = c_2, where their
code has b_1 = b_2: the stability polynomial is the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DAMPING = 2 / 13


@dataclass(frozen=True)
class StageCoefficients:
    """Recursion coefficients by number of stages s and stage j; row s, column j, zero elsewhere.

    Y_j = start Y_0 + previous Y_{j-1} + second Y_{j-2} + h (force F_{j-1} + force0 F_0).

    Parameters
    ----------
    table : float array [5, s_max + 1, s_max + 1]
        start, previous, second, force, force0.
    """

    table: NDArray[np.float64]

    @property
    def most_stages(self) -> int:
        """Largest s in the table."""
        return int(self.table.shape[-1]) - 1

    def at(
        self, stages: NDArray[np.int64], stage: NDArray[np.int64], h: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Weights [5, trajectories] of Y_0, Y_{j-1}, Y_{j-2}, F_{j-1}, F_0 in stage j of s."""
        weights = self.table[:, stages, stage]
        weights[3:] *= h
        return weights


def stage_coefficients(most_stages: int) -> StageCoefficients:
    """Table of RKC2 for s = 2 … `most_stages`."""
    table = np.zeros((5, most_stages + 1, most_stages + 1))
    start, previous, second, force, force0 = table
    points = 1 + _DAMPING / np.arange(2, most_stages + 1) ** 2
    polynomials = _chebyshev_with_derivatives(most_stages, points)
    for s, w0 in enumerate(points, start=2):
        j = np.arange(s + 1)
        t, t1, t2 = polynomials[:, : s + 1, s - 2]
        w1 = t1[s] / t2[s]
        b = np.empty(s + 1)
        b[2:] = t2[2:] / t1[2:] ** 2
        b[0] = b[2]
        b[1] = 1 / w0
        a = 1 - b * t
        start[s, 1] = 1
        force0[s, 1] = b[1] * w1
        previous[s, 2 : s + 1] = 2 * w0 * b[2:] / b[1:-1]
        second[s, 2 : s + 1] = -b[2:] / b[:-2]
        start[s, 2 : s + 1] = 1 - previous[s, 2 : s + 1] - second[s, 2 : s + 1]
        force[s, 2 : s + 1] = 2 * w1 * b[2:] / b[1:-1]
        force0[s, 2 : s + 1] = -a[j[1:-1]] * force[s, 2 : s + 1]
    return StageCoefficients(table)


def stages_needed(step_times_stiffness: NDArray[np.float64], most_stages: int) -> NDArray[np.int64]:
    """Fewest stages s ≥ 2 stable for h λ_max: h λ_max ≤ 0.653 (s² − 1)."""
    s = 1 + np.floor(np.sqrt(1 + 1.54 * np.maximum(step_times_stiffness, 0)))
    return np.asarray(np.clip(s, 2, most_stages), dtype=np.int64)


def stable_step(most_stages: int) -> float:
    """Largest h λ_max that `most_stages` stages keep stable."""
    return 0.65 * (most_stages**2 - 1)


def _chebyshev_with_derivatives(degree: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """T_j(x), T_j'(x), T_j''(x) for j = 0 … `degree` [3, degree + 1, points], by recurrence."""
    t, t1, t2 = table = np.zeros((3, degree + 1, len(x)))
    t[0], t[1], t1[1] = 1, x, 1
    for j in range(2, degree + 1):
        t[j] = 2 * x * t[j - 1] - t[j - 2]
        t1[j] = 2 * t[j - 1] + 2 * x * t1[j - 1] - t1[j - 2]
        t2[j] = 4 * t1[j - 1] + 2 * x * t2[j - 1] - t2[j - 2]
    return table
