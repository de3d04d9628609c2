"""Batched RKC2: stabilised Runge–Kutta–Chebyshev steps, each trajectory with its own error control.

The batch moves in *ticks*: one tick is one evaluation of the force of every trajectory still on its
way, each at its own stage of its own step, so no trajectory waits for another and none computes a
stage in vain. Sommeijer, Shampine, Verwer, J. Comput. Appl. Math. 88 (1998) 315-326.
"""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import (
    Array,
    namespace,
    on_device_of,
    precision,
    put_rows,
    take_rows,
    to_host,
)
from pipeline.kernel.batch import Rows
from pipeline.kernel.chebyshev import (
    StageCoefficients,
    stable_step,
    stage_coefficients,
    stages_needed,
)

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MOST_STAGES = 200
_MOST_EVALUATIONS = 2_000_000
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


@dataclass(frozen=True)
class Step:
    """Accepted steps of some trajectories; every field has one row per trajectory.

    Parameters
    ----------
    place : int array
        Which trajectories.
    t, end, h : float array
        Time at the start and at the end, and length; h = 0 at the very start of a trajectory.
    y0, f0, y1, f1 : float array [steps, width]
        State and force at the start and at the end.
    """

    place: Rows
    t: Floats
    end: Floats
    h: Floats
    y0: Array
    f0: Array
    y1: Array
    f1: Array

    def interpolate(self, rows: Rows, t: Floats) -> Array:
        """State at times `t` within the steps of `rows` [rows, width], by the Hermite cubic."""
        h = self.h[rows]
        x = np.divide(t - self.t[rows], h, out=np.ones_like(h), where=h > 0)
        start = ((1 + 2 * x) * (1 - x) ** 2, h * x * (1 - x) ** 2)
        end = (x * x * (3 - 2 * x), h * x * x * (x - 1))
        parts = (self.y0, self.f0, self.y1, self.f1)
        terms = [
            on_device_of(part, weight[:, None]) * take_rows(part, rows)
            for weight, part in zip(start + end, parts, strict=True)
        ]
        return sum(terms)


class System(Protocol):
    """A batch of trajectories y' = F(y), each known by its place in the batch."""

    def force(self, y: Array, place: Rows) -> tuple[Array, Any]:
        """F(y) [trajectories, width], and what `stiffness` needs of these points."""

    def stiffness(self, local: Any, selected: Rows, place: Rows) -> Array:
        """Estimate of the largest eigenvalue of −dF/dy for the `selected` rows of `force`."""

    def project(self, y: Array, place: Rows) -> Array:
        """Points moved back onto the manifold of the flow; called at the end of a step."""

    def error(self, estimate: Array, y: Array) -> Array:
        """Norm [trajectories] of estimated local errors [trajectories, width], over tolerance."""

    def arrive(self, step: Step) -> NDArray[np.int8]:
        """Take note of accepted steps; an `Outcome` each, RUNNING where the trajectory goes on."""


@dataclass(frozen=True)
class Integration:
    """Where trajectories ended; every field has one row per trajectory.

    Parameters
    ----------
    y : float array [trajectories, width]
    outcome : int array
        An `Outcome` each.
    time : float array
        Time of the end.
    evaluations : int array
        Forces computed.
    """

    y: Array
    outcome: NDArray[np.int8]
    time: Floats
    evaluations: NDArray[np.int64]


@dataclass
class _Batch:
    """State of the trajectories still on their way; every field has one row per trajectory."""

    place: Rows
    t: Floats
    h: Floats  # step under way
    h_next: Floats  # step wanted next
    h_last: Floats  # last accepted step and its error, for the controller; 0 at first
    error_last: Floats
    stiffness: Floats
    stage: NDArray[np.int64]
    stages: NDArray[np.int64]
    evaluations: NDArray[np.int64]
    y0: Array  # state and force at the start of the step
    f0: Array
    y1: Array  # last stage, where the next force is taken
    y2: Array  # stage before

    def keep(self, mask: Mask) -> None:
        """Drop the trajectories where `mask` is False."""
        for field in fields(self):
            setattr(self, field.name, take_rows(getattr(self, field.name), mask))


def integrate(system: System, y: Array, duration: float, tolerance: float) -> Integration:
    """Follow each trajectory from `y` [trajectories, width] until it recovers or t = duration.

    Second order. A trajectory's numbers depend on those that share its force evaluation (for
    phase retrieval those of its instance), not on the rest of the batch.

    Parameters
    ----------
    system : System
    y : float array [trajectories, width]
    duration : float
    tolerance : float
        Of the system's error norm; it limits the number of stages, by their rounding errors.
    """
    count = y.shape[0]
    result = Integration(
        y=namespace(y).asarray(y, copy=True),
        outcome=np.full(count, Outcome.RUNNING, dtype=np.int8),
        time=np.zeros(count),
        evaluations=np.zeros(count, dtype=np.int64),
    )
    # the rounding error of s stages grows like s² (Sommeijer et al., section 2.2)
    stages = int(np.sqrt(tolerance / (10 * precision(y))))
    most_stages = min(max(stages, 4), _MOST_STAGES)
    # a step that is too long can overflow on its way to being rejected
    with np.errstate(over="ignore", invalid="ignore"):
        _Run(system, duration, stage_coefficients(most_stages), result).run(y)
    return result


@dataclass(frozen=True)
class _Run:
    system: System
    duration: float
    coefficients: StageCoefficients
    result: Integration

    def run(self, y: Array) -> None:
        batch = self._start(y)
        while len(batch.place):
            force, local = self.system.force(batch.y1, batch.place)
            batch.evaluations += 1
            ended = np.flatnonzero(batch.stage == batch.stages)
            if len(ended):
                self._finish_steps(ended, batch, force, local)
                going = self.result.outcome[batch.place] == Outcome.RUNNING
                if not going.all():
                    batch.keep(going)
                    force = take_rows(force, going)
            self._next_stage(batch, force)

    def _start(self, y: Array) -> _Batch:
        count, xp = y.shape[0], namespace(y)
        place = np.arange(count)
        floats = np.zeros((6, count))
        integers = np.zeros((3, count), dtype=np.int64)
        start = self.system.project(y, place)
        t, h, h_next, h_last, error_last, stiffness = floats
        stage, stages, evaluations = integers
        return _Batch(
            place, t, h, h_next, h_last, error_last, stiffness, stage, stages, evaluations,
            y0=start, f0=xp.zeros_like(y), y1=xp.asarray(start, copy=True), y2=xp.zeros_like(y),
        )  # fmt: skip

    def _finish_steps(self, ended: Rows, batch: _Batch, force: Array, local: Any) -> None:
        """Judge the steps that `ended`, accept or reject each, and choose the steps that follow."""
        error = self._local_error(ended, batch, force)
        good = (batch.stages[ended] == 0) | (error <= 1)  # no step leads to the very start
        accepted, rejected = ended[good], ended[~good]
        self._control(ended, batch, error)
        self._accept(accepted, batch, force)
        estimate = to_host(self.system.stiffness(local, accepted, batch.place[accepted]))
        batch.stiffness[accepted] = np.maximum(estimate, 1e-8) * _STIFFNESS_MARGIN
        # a step may also fail because λ_max was underestimated
        batch.stiffness[rejected] *= _STIFFNESS_MARGIN
        if len(rejected):  # the step starts again
            start = take_rows(batch.y0, rejected)
            put_rows(batch.y1, rejected, start)
            # not needed there, and may not be finite
            nothing = namespace(start).zeros_like(start)
            put_rows(batch.y2, rejected, nothing)
            put_rows(force, rejected, nothing)
        self._begin(ended, batch)
        self._stop_failures(ended, batch)

    def _local_error(self, ended: Rows, batch: _Batch, force: Array) -> Floats:
        """Embedded estimate of the local error over the tolerance (Sommeijer et al., eq. 2.8)."""
        h = on_device_of(force, batch.h[ended, None])
        y1 = take_rows(batch.y1, ended)
        estimate = 0.8 * (take_rows(batch.y0, ended) - y1)
        estimate += 0.4 * h * (take_rows(batch.f0, ended) + take_rows(force, ended))
        return to_host(self.system.error(estimate, y1)).astype(np.float64)

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

    def _accept(self, rows: Rows, batch: _Batch, force: Array) -> None:
        """Move `rows` to the end of their step and record those that arrived."""
        t, h = batch.t[rows], batch.h[rows]
        y0, f0 = take_rows(batch.y0, rows), take_rows(batch.f0, rows)
        y1, f1 = take_rows(batch.y1, rows), take_rows(force, rows)
        end = np.where(h == self.duration - t, self.duration, t + h)  # T exactly, not an ulp off
        step = Step(batch.place[rows], t, end, h, y0, f0, y1, f1)
        outcome = self.system.arrive(step)
        batch.t[rows] = end
        put_rows(batch.y0, rows, y1)
        put_rows(batch.f0, rows, f1)
        outcome[(outcome == Outcome.RUNNING) & (end >= self.duration)] = Outcome.NOT_RECOVERED
        for ending in (Outcome.RECOVERED, Outcome.NOT_RECOVERED):
            self._stop(rows[outcome == ending], batch, ending)

    def _stop(self, rows: Rows, batch: _Batch, outcome: Outcome) -> None:
        place, result = batch.place[rows], self.result
        if not len(rows):
            return
        result.outcome[place] = outcome
        put_rows(result.y, place, take_rows(batch.y0, rows))
        result.time[place] = batch.t[rows]
        result.evaluations[place] = batch.evaluations[rows]

    def _begin(self, rows: Rows, batch: _Batch) -> None:
        """Set step and number of stages of `rows`, which start a step from (y0, f0)."""
        h, stiffness = batch.h_next[rows], batch.stiffness[rows]
        fresh = h == 0
        h[fresh] = 0.5 / stiffness[fresh]
        most = self.coefficients.most_stages
        h = np.minimum(h, stable_step(most) / stiffness)
        left = self.duration - batch.t[rows]
        # a last step a little longer or shorter than wanted beats one tiny step more
        h = np.where(h * 1.05 >= left, left, np.where(h * 2 > left, left / 2, h))
        batch.h[rows] = h
        batch.stages[rows] = stages_needed(h * stiffness, most)
        batch.stage[rows] = 0

    def _stop_failures(self, rows: Rows, batch: _Batch) -> None:
        running = self.result.outcome[batch.place[rows]] == Outcome.RUNNING
        xp, force = namespace(batch.f0), take_rows(batch.f0, rows)
        finite = to_host(xp.all(xp.isfinite(force), axis=-1))
        not_finite = ~(finite & np.isfinite(batch.stiffness[rows]))
        too_small = batch.h[rows] < _SMALLEST_STEP
        too_many = batch.evaluations[rows] > _MOST_EVALUATIONS
        for failed, outcome in (
            (not_finite, Outcome.NOT_FINITE),
            (too_small, Outcome.STEP_TOO_SMALL),
            (too_many, Outcome.TOO_MANY_GRADIENTS),
        ):
            self._stop(rows[running & failed], batch, outcome)
            running &= ~failed

    def _next_stage(self, batch: _Batch, force: Array) -> None:
        """Y_{j+1} of every trajectory from its last two stages; the last one is projected."""
        batch.stage += 1
        weights = self.coefficients.at(batch.stages, batch.stage, batch.h)
        weights = on_device_of(force, weights[:, :, None])  # moved at once
        new = weights[0, ...] * batch.y0
        new += weights[1, ...] * batch.y1
        new += weights[2, ...] * batch.y2
        new += weights[3, ...] * force
        new += weights[4, ...] * batch.f0
        batch.y1, batch.y2 = new, batch.y1
        last = np.flatnonzero(batch.stage == batch.stages)
        if len(last):
            put_rows(new, last, self.system.project(take_rows(new, last), batch.place[last]))
