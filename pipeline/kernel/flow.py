"""Gradient flow on the sphere to an error tolerance, free or on the equator.

dw/dt = −∇L + μ w (spec, section 1), by the batched stabilised method of `integrator`. The explicit
stabilised step is the right tool: the largest eigenvalue of the Hessian falls from tens or hundreds
to about 10 while the interesting times reach 10³ (spec, section 2).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array, namespace, put_rows, take_rows, to_host
from pipeline.kernel.batch import Rows, off_signal, on_sphere
from pipeline.kernel.integrator import Floats, Mask, Outcome, Step, integrate

RECOVERED_OVERLAP = 0.99
"""|m| from which a run of phase retrieval counts as recovered (spec, section 2)."""

MinimumTest = Callable[[Array, Rows], Mask]
"""Which points [k, N] of the trajectories [k] of a batch lie at a minimum, and lead to it."""

_PATIENCE = 1.5  # times the time at which a trajectory was looked at last


class Landscape(Protocol):
    """What a descent asks of a model; batches of `w` [trajectories, N] with their owners."""

    @property
    def dimension(self) -> int:
        """N."""

    @property
    def signals(self) -> Array:
        """w* of each instance [instances, N], |w*|² = N."""

    def gradient(self, w: Array, owner: Rows) -> tuple[Array, Array]:
        """∇L(w) [trajectories, N], and what the loss and the stiffness need of this point."""

    def stiffness(self, local: Array, multiplier: Array, owner: Rows) -> Array:
        """Estimate of the largest eigenvalue of H [trajectories]."""


@dataclass(frozen=True)
class DescentResult:
    """Where each trajectory ended and how it came there.

    Parameters
    ----------
    w : float array [trajectories, N]
    outcome : int array [trajectories]
        An `Outcome` each.
    time : float array [trajectories]
        Time of the end.
    hit_time : float array [trajectories]
        First time at which it had recovered, inf if none.
    gradients : int array [trajectories]
        Gradients computed.
    path : float array [trajectories, times, N]
        w at the requested times, NaN after the end of the run.
    """

    w: Array
    outcome: NDArray[np.int8]
    time: Floats
    hit_time: Floats
    gradients: NDArray[np.int64]
    path: Array


@dataclass(frozen=True)
class Flow:
    """Gradient flow dw/dt = −∇L + μ w of a batch of trajectories.

    Second order; the step follows from the embedded estimate of the local error, the number of
    stages from the landscape's estimate of λ_max.

    Parameters
    ----------
    landscape : Landscape
    duration : float
        T, in time units of the flow.
    tolerance : float
        Bound on the r.m.s. over the N components of the local error of w in a step.
    on_equator : bool
        Project the flow orthogonally to w*, so that m = 0 stays; nothing is then recovered.
    recovered_overlap : float
        |m| at which a run has recovered and ends.
    """

    landscape: Landscape
    duration: float
    tolerance: float
    on_equator: bool = False
    recovered_overlap: float = RECOVERED_OVERLAP

    def run(
        self,
        w: Array,
        owner: Rows,
        times: tuple[float, ...] = (),
        at_minimum: MinimumTest | None = None,
    ) -> DescentResult:
        """Follow the flow from `w` [trajectories, N] until it recovers or t = T.

        Parameters
        ----------
        w : float array [trajectories, N]
            Starting points on the sphere; with `on_equator`, projected onto m = 0 first.
        owner : int array [trajectories]
            Instance of each trajectory; rows of one instance adjacent.
        times : tuple of float
            Ascending times at which to keep w, by the Hermite cubic of the step they fall into.
        at_minimum : callable, optional
            Of points [k, N] and their trajectories [k]; True where the run ends as not recovered.
            Asked of those that stand still, after the last of `times`.
        """
        stop = None
        if at_minimum is not None:
            stop = _StandsStill(at_minimum, self.tolerance, w, max(times, default=0.0))
        system = _SphereFlow(self, owner, PathRecorder(w, times), stop)
        ended = integrate(system, w, self.duration, self.tolerance)
        return DescentResult(
            w=ended.y,
            outcome=ended.outcome,
            time=ended.time,
            hit_time=system.hit_time,
            gradients=ended.evaluations,
            path=system.recorder.path,
        )


class PathRecorder:
    """Keeps the states of trajectories at requested times.

    Parameters
    ----------
    y : float array [trajectories, width]
        States of the shape to keep.
    times : tuple of float
        Ascending.
    """

    def __init__(self, y: Array, times: tuple[float, ...]) -> None:
        xp, (count, width) = namespace(y), y.shape
        self._states = xp.full((count * len(times), width), np.nan, dtype=y.dtype, device=device(y))
        self._shape = (count, len(times), width)
        self._times = np.array([*times, np.inf])
        self._next = np.zeros(count, dtype=np.intp)

    @property
    def path(self) -> Array:
        """States at the requested times [trajectories, times, width], NaN where not recorded."""
        return namespace(self._states).reshape(self._states, self._shape)

    def record(self, step: Step, until: Floats) -> None:
        """Keep the states at those requested times that the steps pass, up to `until` [steps]."""
        rows = np.arange(len(step.place))
        while len(rows):
            due = self._times[self._next[step.place[rows]]]
            passed = due <= until[rows]
            rows, due = rows[passed], due[passed]
            place = step.place[rows]
            if len(rows):
                row = place * self._shape[1] + self._next[place]
                put_rows(self._states, row, step.interpolate(rows, due))
            self._next[place] += 1


@dataclass
class _SphereFlow:
    """The flow as the integrator sees it."""

    flow: Flow
    owner: Rows
    recorder: PathRecorder
    stop: "_StandsStill | None"
    hit_time: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.hit_time = np.full(len(self.owner), np.inf)

    def force(self, y: Array, place: Rows) -> tuple[Array, Any]:
        """−∇L + μ w tangent to the sphere through each point."""
        landscape, owner = self.flow.landscape, self.owner[place]
        gradient, local = landscape.gradient(y, owner)
        if self.flow.on_equator:
            gradient = off_signal(gradient, take_rows(landscape.signals, owner))
        xp = namespace(y)
        multiplier = xp.vecdot(y, gradient) / xp.vecdot(y, y)
        force = multiplier[:, None] * y
        force -= gradient
        return force, (local, multiplier)

    def stiffness(self, local: Any, selected: Rows, place: Rows) -> Array:
        """λ_max of the Hessian, from the labels."""
        at_points, multiplier = local
        return self.flow.landscape.stiffness(
            take_rows(at_points, selected), take_rows(multiplier, selected), self.owner[place]
        )

    def project(self, y: Array, place: Rows) -> Array:
        """Back on the sphere, and on the equator if the flow is."""
        if self.flow.on_equator:
            y = off_signal(y, take_rows(self.flow.landscape.signals, self.owner[place]))
        return on_sphere(y)

    def error(self, estimate: Array, y: Array) -> Array:  # noqa: ARG002  protocol
        """r.m.s. over the components."""
        xp = namespace(estimate)
        rms = xp.sqrt(xp.vecdot(estimate, estimate) / self.flow.landscape.dimension)
        return rms / self.flow.tolerance

    def arrive(self, step: Step) -> NDArray[np.int8]:
        """Find which steps end at |m| ≥ 0.99, when within the step that was, and which at rest."""
        signal = take_rows(self.flow.landscape.signals, self.owner[step.place])
        m1 = self._overlap(step.y1, signal)
        level = self.flow.recovered_overlap
        hit = np.abs(m1) >= level
        rows = np.flatnonzero(hit)
        if len(rows):
            parts = (step.y0, step.f0, step.y1, step.f1)
            signal = take_rows(signal, rows)
            m0, d0, m1, d1 = (self._overlap(take_rows(x, rows), signal) for x in parts)
            h = step.h[rows]
            hermites = np.sign(m1) * np.stack([m0, h * d0, m1, h * d1])
            crossings = [_first_crossing(hermite, level) for hermite in hermites.T]
            self.hit_time[step.place[rows]] = step.t[rows] + h * np.array(crossings)
        self.recorder.record(step, np.minimum(step.end, self.hit_time[step.place]))
        outcome = np.where(hit, Outcome.RECOVERED, Outcome.RUNNING).astype(np.int8)
        if self.stop is not None:
            going = np.flatnonzero(~hit)
            outcome[self.stop.at_rest(step, going)] = Outcome.NOT_RECOVERED
        return outcome

    def _overlap(self, x: Array, signal: Array) -> Floats:
        along = namespace(x).vecdot(x, signal) / self.flow.landscape.dimension
        return to_host(along).astype(np.float64)


class _StandsStill:
    """Finds trajectories that stand at a local minimum of the loss.

    Asked of those alone that have moved by no more than the flow's tolerance for a third of their
    time, which is what its steps disturb them by.
    """

    def __init__(self, test: MinimumTest, tolerance: float, w: Array, earliest: float) -> None:
        self._test, self._tolerance, self._earliest = test, tolerance, earliest
        self._seen = namespace(w).asarray(w, copy=True)  # where it was, and when
        self._time = np.ones(w.shape[0])  # at once it has not moved either

    def at_rest(self, step: Step, rows: Rows) -> Rows:
        """Which of `rows` of the step end at a minimum."""
        place = step.place[rows]
        due = step.end[rows] >= _PATIENCE * self._time[place]
        rows, place = rows[due], place[due]
        if not len(rows):
            return rows
        y = take_rows(step.y1, rows)
        moved = y - take_rows(self._seen, place)
        xp = namespace(y)
        still = xp.vecdot(moved, moved) <= self._tolerance**2 * y.shape[-1]
        put_rows(self._seen, place, y)
        self._time[place] = end = step.end[rows]
        still = np.flatnonzero(to_host(still) & (end >= self._earliest))
        if not len(still):
            return rows[:0]
        return rows[still[self._test(take_rows(y, still), place[still])]]


def _first_crossing(hermite: Floats, level: float) -> float:
    """First θ in [0, 1] at which the cubic through (m0, m0', m1, m1') reaches `level`."""
    m0, d0, m1, d1 = hermite
    if m0 >= level:
        return 0.0
    cubic = [2 * (m0 - m1) + d0 + d1, 3 * (m1 - m0) - 2 * d0 - d1, d0, m0 - level]
    roots = np.roots(cubic)
    inside = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real >= 0) & (roots.real <= 1)]
    return float(inside.min()) if len(inside) else 1.0


__all__ = ["RECOVERED_OVERLAP", "DescentResult", "Flow", "Landscape", "Outcome", "PathRecorder"]
