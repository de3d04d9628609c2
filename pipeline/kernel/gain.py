"""The signal gain G(t): how far the flow amplifies a small overlap (spec, section 8).

Near the equator m(t) ≈ G(t) m(0) + noise. Along the trajectory w(t) that the flow takes when it is
held at m = 0, G(t) = e·u(t) with e = w*/√N and u the solution of the free flow linearised there,
du/dt = −H(w) u, u(0) = e, kept tangent to the sphere.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipeline.kernel.arrays import Array, namespace, take_rows, to_host
from pipeline.kernel.batch import Rows, off_signal, on_sphere
from pipeline.kernel.flow import Landscape, PathRecorder
from pipeline.kernel.integrator import Floats, Mask, Step, integrate


class TangentLandscape(Landscape, Protocol):
    """What the gain asks of a model beyond a descent."""

    def gradient_and_product(self, w: Array, u: Array, owner: Rows) -> tuple[Array, Array, Array]:
        """∇L(w), what the stiffness needs of this point, and ∇²L(w) u."""


def signal_gain(
    landscape: TangentLandscape,
    w: Array,
    owner: Rows,
    *,
    times: tuple[float, ...],
    tolerance: float,
) -> Floats:
    """G at `times` [trajectories, times]; as `follow_equator`."""
    return follow_equator(landscape, w, owner, times=times, tolerance=tolerance)[0]


def follow_equator(
    landscape: TangentLandscape,
    w: Array,
    owner: Rows,
    *,
    times: tuple[float, ...],
    tolerance: float,
) -> tuple[Floats, Array]:
    """G at `times`, from `w` [trajectories, N] projected onto the equator, and the path there.

    Parameters
    ----------
    landscape : TangentLandscape
    w : float array [trajectories, N]
        Starting points on the sphere.
    owner : int array [trajectories]
    times : tuple of float
        Ascending.
    tolerance : float
        Of the local error in a step: r.m.s. over the components of w, and relative of u.

    Returns
    -------
    gain : float array [trajectories, times]
    path : float array [trajectories, times, N]
        w on the equator.
    """
    xp = namespace(w)
    unit = take_rows(landscape.signals, owner) / math.sqrt(landscape.dimension)
    state = xp.concat([w, unit], axis=1)
    recorder = PathRecorder(state, times)
    system = _TangentFlow(landscape, owner, recorder, tolerance)
    integrate(system, state, times[-1] if times else 0.0, tolerance)
    u = recorder.path[:, :, landscape.dimension :]
    gain = to_host(xp.vecdot(u, unit[:, None, :])).astype(np.float64)
    return gain, recorder.path[:, :, : landscape.dimension]


@dataclass(frozen=True)
class _TangentFlow:
    """(w, u) as the integrator sees it, side by side in rows of width 2 N."""

    landscape: TangentLandscape
    owner: Rows
    recorder: PathRecorder
    tolerance: float

    def force(self, y: Array, place: Rows) -> tuple[Array, Any]:
        """Force on w, held on the equator, and the linearised free force on u."""
        xp, owner = namespace(y), self.owner[place]
        w, u = self._split(y)
        gradient, local, product = self.landscape.gradient_and_product(w, u, owner)
        norm = xp.vecdot(w, w)
        multiplier = xp.vecdot(w, gradient) / norm
        held = off_signal(gradient, take_rows(self.landscape.signals, owner))
        along_w = xp.vecdot(w, held) / norm
        force_w = along_w[:, None] * w - held
        force_u = multiplier[:, None] * u - product
        # u stays tangent while the tangent plane turns: w·du/dt = −u·dw/dt
        radial = (xp.vecdot(w, force_u) + xp.vecdot(u, force_w)) / norm
        force_u -= radial[:, None] * w
        return xp.concat([force_w, force_u], axis=1), (local, multiplier)

    def stiffness(self, local: Any, selected: Rows, place: Rows) -> Array:
        """λ_max of the Hessian, which both parts share."""
        at_points, multiplier = local
        return self.landscape.stiffness(
            take_rows(at_points, selected), take_rows(multiplier, selected), self.owner[place]
        )

    def project(self, y: Array, place: Rows) -> Array:
        """Bring w back on sphere and equator, u tangent to the sphere."""
        w, u = self._split(y)
        w = on_sphere(off_signal(w, take_rows(self.landscape.signals, self.owner[place])))
        return namespace(y).concat([w, off_signal(u, w)], axis=1)

    def error(self, estimate: Array, y: Array) -> Array:
        """Larger of the r.m.s. error of w and the relative error of u, over the tolerance."""
        error_w, error_u = self._split(estimate)
        _, u = self._split(y)
        xp = namespace(y)
        rms = xp.sqrt(xp.vecdot(error_w, error_w) / self.landscape.dimension)
        relative = xp.sqrt(xp.vecdot(error_u, error_u) / xp.vecdot(u, u))
        return xp.maximum(rms, relative) / self.tolerance

    def arrive(self, step: Step) -> Mask:
        """Keep the states at the requested times; nothing recovers on the equator."""
        self.recorder.record(step, step.end)
        return np.zeros(len(step.place), dtype=bool)

    def _split(self, y: Array) -> tuple[Array, Array]:
        n = self.landscape.dimension
        return y[:, :n], y[:, n:]
