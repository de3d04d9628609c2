"""The signal gain G(t): how far the flow amplifies a small overlap (spec, section 8).

Near the equator m(t) ≈ G(t) m(0) + noise. Along the trajectory w(t) that the flow takes when it is
held at m = 0, G(t) = e·u(t) with e = w*/√N and u the solution of the free flow linearised there,
du/dt = −H(w) u, u(0) = e, kept tangent to the sphere.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array, namespace, take_rows, to_host
from pipeline.kernel.batch import Rows, off_signal, on_sphere
from pipeline.kernel.flow import Landscape, PathRecorder
from pipeline.kernel.integrator import Floats, Outcome, Step, integrate


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
        Infinite beyond the range of float64.
    path : float array [trajectories, times, N]
        w on the equator.
    """
    xp = namespace(w)
    unit = take_rows(landscape.signals, owner) / math.sqrt(landscape.dimension)
    state = xp.concat([w, unit, xp.zeros_like(w[:, :1])], axis=1)
    recorder = PathRecorder(state, times)
    system = _TangentFlow(landscape, owner, recorder, tolerance)
    integrate(system, state, times[-1] if times else 0.0, tolerance)
    n = landscape.dimension
    along = to_host(xp.vecdot(recorder.path[:, :, n : 2 * n], unit[:, None, :])).astype(np.float64)
    growth = to_host(recorder.path[:, :, 2 * n]).astype(np.float64)
    with np.errstate(over="ignore"):
        return along * np.exp(growth), recorder.path[:, :, :n]


@dataclass(frozen=True)
class _TangentFlow:
    """(w, v, s) with u = e^s v and |v| = 1, as the integrator sees it: rows of width 2 N + 1.

    Where the equator-held trajectory rests at a point with a negative direction, u grows
    exponentially without end: beyond float32 in a few hundred units of time.
    """

    landscape: TangentLandscape
    owner: Rows
    recorder: PathRecorder
    tolerance: float

    def force(self, y: Array, place: Rows) -> tuple[Array, Any]:
        """Force on w, held on the equator, and the linearised free force on v and s."""
        xp, owner = namespace(y), self.owner[place]
        w, v = self._split(y)
        gradient, local, product = self.landscape.gradient_and_product(w, v, owner)
        norm = xp.vecdot(w, w)
        multiplier = xp.vecdot(w, gradient) / norm
        held = off_signal(gradient, take_rows(self.landscape.signals, owner))
        along_w = xp.vecdot(w, held) / norm
        force_w = along_w[:, None] * w - held
        force_v = multiplier[:, None] * v - product
        # v stays tangent while the tangent plane turns: w·dv/dt = −v·dw/dt
        radial = (xp.vecdot(w, force_v) + xp.vecdot(v, force_w)) / norm
        force_v -= radial[:, None] * w
        rate = xp.vecdot(v, force_v) / xp.vecdot(v, v)
        force_v -= rate[:, None] * v
        return xp.concat([force_w, force_v, rate[:, None]], axis=1), (local, multiplier, rate)

    def stiffness(self, local: Any, selected: Rows, place: Rows) -> Array:
        """λ_max of the Hessian, which both parts share, and the rate at which v forgets others."""
        at_points, multiplier, rate = (take_rows(part, selected) for part in local)
        largest = self.landscape.stiffness(at_points, multiplier, self.owner[place])
        xp = namespace(rate)
        return largest + xp.maximum(rate, xp.zeros_like(rate))

    def project(self, y: Array, place: Rows) -> Array:
        """Bring w back on sphere and equator, v to the unit vectors tangent to the sphere."""
        xp = namespace(y)
        w, v = self._split(y)
        w = on_sphere(off_signal(w, take_rows(self.landscape.signals, self.owner[place])))
        v = off_signal(v, w)
        v = v / xp.sqrt(xp.vecdot(v, v))[:, None]
        return xp.concat([w, v, y[:, -1:]], axis=1)

    def error(self, estimate: Array, y: Array) -> Array:  # noqa: ARG002  |v| is known
        """Larger of the r.m.s. error of w and the relative error of u, over the tolerance."""
        error_w, error_v = self._split(estimate)
        xp = namespace(estimate)
        rms = xp.sqrt(xp.vecdot(error_w, error_w) / self.landscape.dimension)
        relative = xp.sqrt(xp.vecdot(error_v, error_v) + estimate[:, -1] ** 2)
        return xp.maximum(rms, relative) / self.tolerance

    def arrive(self, step: Step) -> NDArray[np.int8]:
        """Keep the states at the requested times; nothing recovers on the equator."""
        self.recorder.record(step, step.end)
        return np.full(len(step.place), Outcome.RUNNING, dtype=np.int8)

    def _split(self, y: Array) -> tuple[Array, Array]:
        n = self.landscape.dimension
        return y[:, :n], y[:, n : 2 * n]
