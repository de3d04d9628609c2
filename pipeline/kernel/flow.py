"""Gradient flow on the sphere to an error tolerance: batched RKC2.

dw/dt = −∇L + μ w (spec, section 1), integrated by the stabilised Runge–Kutta–Chebyshev method of
`chebyshev`. The batch moves in *ticks*: one tick is one gradient of every trajectory still on its
way, each at its own stage of its own step, so no trajectory waits for another and none computes a
stage in vain. A trajectory's numbers depend on its instance and the trajectories that share it, not
on the other instances of the batch.
"""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.batch import Array, Rows, on_sphere
from pipeline.kernel.chebyshev import (
    StageCoefficients,
    stable_step,
    stage_coefficients,
    stages_needed,
)

Floats = NDArray[np.float64]

RECOVERED_OVERLAP = 0.99
"""|m| from which a run counts as recovered (spec, section 2)."""

_MOST_STAGES = 200
_MOST_GRADIENTS = 2_000_000
_STIFFNESS_MARGIN = 1.1  # on the estimate of λ_max; costs 5 % of the stages
_LARGEST_GROWTH = 5  # of a step; the controller of Sommeijer et al. has 10, with the same cost
_SMALLEST_STEP = 1e-12  # below this the error control has nothing left to control


class Outcome(IntEnum):
    """How a trajectory ended; a numerical failure is a value."""

    RUNNING = 0
    RECOVERED = 1
    NOT_RECOVERED = 2
    NOT_FINITE = 3
    STEP_TOO_SMALL = 4
    TOO_MANY_GRADIENTS = 5


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
        First time with |m| ≥ 0.99, inf if none.
    gradients : int array [trajectories]
        Gradients computed.
    """

    w: Array
    outcome: NDArray[np.int8]
    time: Floats
    hit_time: Floats
    gradients: NDArray[np.int64]


@dataclass
class _Batch:
    """State of the trajectories still on their way; every field has one row per trajectory."""

    row: Rows  # place in the result
    owner: Rows
    signal: Array
    t: Floats
    h: Floats  # step under way
    h_next: Floats  # step wanted next
    h_last: Floats  # last accepted step and its error, for the controller; 0 at first
    error_last: Floats
    stiffness: Floats
    stage: NDArray[np.int64]
    stages: NDArray[np.int64]
    overlap: Floats  # at the start of the step, with its time derivative
    overlap_rate: Floats
    gradients: NDArray[np.int64]
    y0: Array  # point and force at the start of the step
    f0: Array
    y1: Array  # last stage, where the next gradient is taken
    y2: Array  # stage before

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drop the trajectories where `mask` is False."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[mask])


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
    """

    landscape: Landscape
    duration: float
    tolerance: float
    on_equator: bool = False

    def run(self, w: Array, owner: Rows) -> DescentResult:
        """Follow the flow from `w` [trajectories, N] until |m| ≥ 0.99 or t = T.

        Parameters
        ----------
        w : float array [trajectories, N]
            Starting points on the sphere; with `on_equator`, projected onto m = 0 first.
        owner : int array [trajectories]
            Instance of each trajectory; rows of one instance adjacent.
        """
        coefficients = stage_coefficients(self._most_stages(w.dtype))
        result = DescentResult(
            w=w.copy(),
            outcome=np.full(len(w), Outcome.RUNNING, dtype=np.int8),
            time=np.zeros(len(w)),
            hit_time=np.full(len(w), np.inf),
            gradients=np.zeros(len(w), dtype=np.int64),
        )
        batch = self._start(w, owner)
        # a step that is too long can overflow on its way to being rejected
        with np.errstate(over="ignore", invalid="ignore"):
            self._run(batch, coefficients, result)
        return result

    def _run(self, batch: _Batch, coefficients: StageCoefficients, result: DescentResult) -> None:
        while len(batch.row):
            gradient, local = self.landscape.gradient(batch.y1, batch.owner)
            batch.gradients += 1
            force, multiplier = self._force(gradient, batch)
            at_end = batch.stage == batch.stages
            if at_end.any():
                self._finish_steps(np.flatnonzero(at_end), batch, force, multiplier, local, result)
                going = result.outcome[batch.row] == Outcome.RUNNING
                if not going.all():
                    batch.keep(going)
                    force = force[going]
            self._next_stage(batch, force, coefficients)

    def _most_stages(self, dtype: np.dtype[np.floating]) -> int:
        # the rounding error of s stages grows like s² (Sommeijer et al., section 2.2)
        bound = int(np.sqrt(self.tolerance / (10 * np.finfo(dtype).eps)))
        return min(max(bound, 4), _MOST_STAGES)

    def _start(self, w: Array, owner: Rows) -> _Batch:
        count = len(w)
        zeros = np.zeros(count)
        batch = _Batch(
            row=np.arange(count),
            owner=owner,
            signal=self.landscape.signals[owner],
            t=zeros.copy(),
            h=zeros.copy(),
            h_next=zeros.copy(),
            h_last=zeros.copy(),
            error_last=zeros.copy(),
            stiffness=zeros.copy(),
            stage=np.zeros(count, dtype=np.int64),
            stages=np.zeros(count, dtype=np.int64),
            overlap=zeros.copy(),
            overlap_rate=zeros.copy(),
            gradients=np.zeros(count, dtype=np.int64),
            y0=w.copy(),
            f0=np.zeros_like(w),
            y1=w.copy(),
            y2=np.zeros_like(w),
        )
        batch.y1 = self._project(batch.y1, batch.signal)
        return batch

    def _project(self, w: Array, signal: Array) -> Array:
        if self.on_equator:
            w = w - (np.vecdot(w, signal) / self.landscape.dimension)[:, None] * signal
        return on_sphere(w)

    def _force(self, gradient: Array, batch: _Batch) -> tuple[Array, Array]:
        """−∇L + μ w tangent to the sphere through each point, and μ."""
        if self.on_equator:
            along = np.vecdot(gradient, batch.signal) / self.landscape.dimension
            gradient -= along[:, None] * batch.signal
        point = batch.y1
        multiplier = np.vecdot(point, gradient) / np.vecdot(point, point)
        force = multiplier[:, None] * point
        force -= gradient
        return force, multiplier

    def _finish_steps(
        self,
        ended: Rows,
        batch: _Batch,
        force: Array,
        multiplier: Array,
        local: Array,
        result: DescentResult,
    ) -> None:
        """Judge the steps that `ended`, accept or reject each, and choose the steps that follow."""
        error = self._local_error(ended, batch, force)
        first = batch.stages[ended] == 0
        accepted = ended[first | (error <= 1)]
        rejected = ended[~first & ~(error <= 1)]
        self._control(ended, batch, error)
        self._accept(accepted, batch, force, result)
        estimate = self.landscape.stiffness(
            local[accepted], multiplier[accepted], batch.owner[accepted]
        )
        batch.stiffness[accepted] = np.maximum(estimate, 1e-8) * _STIFFNESS_MARGIN
        # a step may also fail because λ_max was underestimated
        batch.stiffness[rejected] *= _STIFFNESS_MARGIN
        batch.y1[rejected] = batch.y0[rejected]  # the step starts again
        batch.y2[rejected] = force[rejected] = 0  # not needed there, and may not be finite
        self._begin(ended, batch)
        self._stop_failures(ended, batch, result)

    def _local_error(self, ended: Rows, batch: _Batch, force: Array) -> Floats:
        """Embedded estimate of the local error over the tolerance (Sommeijer et al., eq. 2.8)."""
        h = batch.h[ended].astype(force.dtype)[:, None]
        error = 0.8 * (batch.y0[ended] - batch.y1[ended])
        error += 0.4 * h * (batch.f0[ended] + force[ended])
        rms = np.sqrt(np.vecdot(error, error) / self.landscape.dimension)
        return np.asarray(rms / self.tolerance, dtype=np.float64)

    def _control(self, ended: Rows, batch: _Batch, error: Floats) -> None:
        """Next step from the last two errors (Sommeijer et al., section 2.3)."""
        h, h_last, error_last = batch.h[ended], batch.h_last[ended], batch.error_last[ended]
        error = np.where(np.isfinite(error), np.maximum(error, 1e-12), 1e12)
        elementary = 0.8 * error ** (-1 / 3)
        with np.errstate(divide="ignore", invalid="ignore"):
            predictive = elementary * (h / h_last) * (error_last / error) ** (1 / 3)
        accepted = error <= 1
        factor = np.where(accepted & (h_last > 0), predictive, elementary)
        factor = np.clip(factor, 0.1, np.where(accepted, _LARGEST_GROWTH, 0.8))
        batch.h_next[ended] = h * factor
        batch.h_last[ended] = np.where(accepted, h, h_last)
        batch.error_last[ended] = np.where(accepted, error, error_last)

    def _accept(self, rows: Rows, batch: _Batch, force: Array, result: DescentResult) -> None:
        """Move `rows` to the end of their step and record those that arrived."""
        n = self.landscape.dimension
        t0, h = batch.t[rows], batch.h[rows]
        m0, rate0 = batch.overlap[rows], batch.overlap_rate[rows]
        t1 = np.where(h == self.duration - t0, self.duration, t0 + h)  # T exactly, not an ulp off
        m1 = np.vecdot(batch.y1[rows], batch.signal[rows]).astype(np.float64) / n
        rate1 = np.vecdot(force[rows], batch.signal[rows]).astype(np.float64) / n
        batch.t[rows], batch.overlap[rows], batch.overlap_rate[rows] = t1, m1, rate1
        batch.y0[rows], batch.f0[rows] = batch.y1[rows], force[rows]

        place = batch.row[rows]
        hit = np.abs(m1) >= RECOVERED_OVERLAP
        late = ~hit & (t1 >= self.duration)
        for k in np.flatnonzero(hit):
            result.hit_time[place[k]] = t0[k] + h[k] * _first_crossing(
                np.sign(m1[k]) * np.array([m0[k], h[k] * rate0[k], m1[k], h[k] * rate1[k]])
            )
        result.outcome[place[hit]] = Outcome.RECOVERED
        result.outcome[place[late]] = Outcome.NOT_RECOVERED
        self._record(rows[hit | late], batch, result)

    def _record(self, rows: Rows, batch: _Batch, result: DescentResult) -> None:
        place = batch.row[rows]
        result.w[place] = batch.y0[rows]
        result.time[place] = batch.t[rows]
        result.gradients[place] = batch.gradients[rows]

    def _begin(self, rows: Rows, batch: _Batch) -> None:
        """Set step and number of stages of `rows`, which start a step from (y0, f0)."""
        h, stiffness = batch.h_next[rows], batch.stiffness[rows]
        fresh = h == 0
        h[fresh] = 0.5 / stiffness[fresh]
        most = self._most_stages(batch.y0.dtype)
        h = np.minimum(h, stable_step(most) / stiffness)
        left = self.duration - batch.t[rows]
        # a last step a little longer or shorter than wanted beats one tiny step more
        h = np.where(h * 1.05 >= left, left, np.where(h * 2 > left, left / 2, h))
        batch.h[rows] = h
        batch.stages[rows] = stages_needed(h * stiffness, most)
        batch.stage[rows] = 0

    def _stop_failures(self, rows: Rows, batch: _Batch, result: DescentResult) -> None:
        running = result.outcome[batch.row[rows]] == Outcome.RUNNING
        not_finite = ~np.isfinite(batch.f0[rows]).all(axis=-1) | ~np.isfinite(batch.stiffness[rows])
        too_small = batch.h[rows] < _SMALLEST_STEP
        too_many = batch.gradients[rows] > _MOST_GRADIENTS
        for failed, outcome in (
            (not_finite, Outcome.NOT_FINITE),
            (too_small, Outcome.STEP_TOO_SMALL),
            (too_many, Outcome.TOO_MANY_GRADIENTS),
        ):
            stopped = rows[running & failed]
            result.outcome[batch.row[stopped]] = outcome
            self._record(stopped, batch, result)
            running &= ~failed

    def _next_stage(self, batch: _Batch, force: Array, coefficients: StageCoefficients) -> None:
        """Y_{j+1} of every trajectory from its last two stages; the last one back on the sphere."""
        batch.stage += 1
        s, j = batch.stages, batch.stage
        dtype = batch.y0.dtype

        def column(table: Floats, factor: Floats | float = 1.0) -> Array:
            return np.asarray((table[s, j] * factor)[:, None], dtype=dtype)

        new = column(coefficients.start) * batch.y0
        new += column(coefficients.previous) * batch.y1
        new += column(coefficients.second) * batch.y2
        new += column(coefficients.force, batch.h) * force
        new += column(coefficients.force0, batch.h) * batch.f0
        batch.y1, batch.y2 = new, batch.y1
        last = np.flatnonzero(j == s)
        if len(last):
            batch.y1[last] = self._project(batch.y1[last], batch.signal[last])


def _first_crossing(hermite: Floats) -> float:
    """First θ in [0, 1] at which the cubic through (m0, m0', m1, m1') reaches 0.99."""
    m0, d0, m1, d1 = hermite
    if m0 >= RECOVERED_OVERLAP:
        return 0.0
    cubic = [2 * (m0 - m1) + d0 + d1, 3 * (m1 - m0) - 2 * d0 - d1, d0, m0 - RECOVERED_OVERLAP]
    roots = np.roots(cubic)
    inside = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real >= 0) & (roots.real <= 1)]
    return float(inside.min()) if len(inside) else 1.0
