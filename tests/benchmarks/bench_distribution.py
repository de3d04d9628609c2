"""Where the gradients of a trajectory go, over the regimes."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from reporting import Instances, Section, on_all_cores, percentiles

from pipeline.kernel.batch import on_sphere
from pipeline.kernel.flow import Flow, Outcome, PathRecorder, _SphereFlow
from pipeline.kernel.integrator import Integration, Step, System, integrate
from pipeline.kernel.observables import hessian_snapshot

DURATION = 1000.0
TIME_ON_EQUATOR = 200.0
TOLERANCE = 1e-2
DECADES = (1.0, 10.0, 100.0)
INSTANCES = {  # N: seeds, replicas, dtype
    128: (32, 1, "float64"),
    512: (8, 2, "float64"),
    2048: (1, 4, "float32"),
}


class Tally:
    """A system that counts what the integrator asks of it.

    Uses only the protocol: `project` is called with a trajectory before the last force of each
    attempted step, `arrive` after the force of an accepted one.

    Parameters
    ----------
    system : System
    count : int
        Trajectories.
    """

    def __init__(self, system: System, count: int) -> None:
        self.system = system
        self.accepted = np.zeros((count, len(DECADES) + 1), dtype=np.int64)
        self.rejected = np.zeros(count, dtype=np.int64)
        self._spent = np.zeros(count, dtype=np.int64)  # since the last accepted step
        self._failed = np.zeros(count, dtype=np.int64)  # of it, by attempts before this one
        self._attempted = np.zeros(count, dtype=np.int64)  # of it, at the end of this attempt

    def force(self, y: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, Any]:
        self._spent[place] += 1
        return self.system.force(y, place)

    def project(self, y: np.ndarray, place: np.ndarray) -> np.ndarray:
        self._failed[place] = self._attempted[place]
        self._attempted[place] = self._spent[place] + 1
        return self.system.project(y, place)

    def arrive(self, step: Step) -> np.ndarray:
        place = step.place
        decade = np.searchsorted(DECADES, step.t, side="right")
        self.accepted[place, decade] += self._spent[place] - self._failed[place]
        self.rejected[place] += self._failed[place]
        for counts in (self._spent, self._failed, self._attempted):
            counts[place] = 0
        return self.system.arrive(step)

    def stiffness(self, local: Any, selected: np.ndarray, place: np.ndarray) -> np.ndarray:
        return self.system.stiffness(local, selected, place)

    def error(self, estimate: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.system.error(estimate, y)


@dataclass(frozen=True)
class Counts:
    """Of the trajectories of one regime and one initialisation, each [trajectories]."""

    start: np.ndarray  # gradient-equivalent passes spent on finding the start
    run: np.ndarray
    accepted: np.ndarray  # [trajectories, decades], by the time at which the step begins
    rejected: np.ndarray
    recovered: np.ndarray


def count_gradients(instances: Instances) -> dict[str, Counts]:
    """What each initialisation costs on these instances, and the relaxation on the equator."""
    landscape, owner, w0 = instances.draw(), instances.owner, instances.starts()
    flow = Flow(landscape, DURATION, TOLERANCE)
    at_w0 = hessian_snapshot(landscape, w0, owner, instances.starts("probe"))
    on_equator = Flow(landscape, TIME_ON_EQUATOR, TOLERANCE, on_equator=True)
    relaxed, tally = _integrate(on_equator, w0, owner)
    starts = {
        "random": (w0, np.zeros(len(w0))),
        "spectral": (on_sphere(at_w0.lowest), at_w0.products),
        "constrained": (relaxed.y, relaxed.evaluations),
    }
    counts = {"relaxation": _counts(relaxed, tally, np.zeros(len(w0)))}
    for init, (w, spent) in starts.items():
        ended, tally = _integrate(flow, w, owner)
        counts[init] = _counts(ended, tally, spent)
    return counts


def _counts(ended: Integration, tally: Tally, spent: np.ndarray) -> Counts:
    recovered = ended.outcome == Outcome.RECOVERED
    return Counts(spent, ended.evaluations, tally.accepted, tally.rejected, recovered)


def _integrate(flow: Flow, w: np.ndarray, owner: np.ndarray) -> tuple[Integration, Tally]:
    tally = Tally(_SphereFlow(flow, owner, PathRecorder(w, ())), len(w))
    ended = integrate(tally, w, flow.duration, flow.tolerance)
    counted = tally.accepted.sum(axis=1) + tally.rejected
    if not np.array_equal(counted, ended.evaluations):
        raise RuntimeError(
            f"gradients: expected the tally to find the integrator's {ended.evaluations.sum()}, "
            f"got {counted.sum()}; does it still project once in each attempted step?"
        )
    return ended, tally


def measure(*, small: bool) -> list[Section]:
    regimes = [
        Instances(N, alpha, a, *INSTANCES[N])
        for N, a, alpha in product((2048, 512, 128), (1.0, 0.01), (2.0, 3.0, 4.0, 6.0))
    ]
    if small:
        regimes = [replace(regime, seeds=1, N=regime.N // 16) for regime in regimes]
    measured = dict(zip(regimes, on_all_cores(count_gradients, regimes), strict=True))
    rows = [
        _row(regime, init, counts)
        for regime in sorted(regimes, key=lambda regime: (-regime.a, regime.alpha, regime.N))
        for init, counts in measured[regime].items()
    ]
    text = (
        f"Flow at tolerance {TOLERANCE:g} to T = {DURATION:g}; `relaxation` is that of constrained "
        f"starts, on the equator to T_c = {TIME_ON_EQUATOR:g}. `run` and `start`: 10, 50, 90 % of "
        "trajectories; `start` is the products with H of the spectral start, or the gradients of "
        "the relaxation. The other columns are means of the gradients in accepted steps, by the "
        "time at which a step begins, and in rejected ones. Instances × starts: "
        + ", ".join(f"{s} × {r} at N = {N} ({d})" for N, (s, r, d) in INSTANCES.items())
        + ". At N = 128 eigenpairs are dense and counted as N products."
    )
    columns = [
        "a", "α", "N", "init", "recovered", "run", "t < 1", "1–10", "10–100", "> 100",
        "rejected", "start",
    ]  # fmt: skip
    return [Section("Where the gradients go", text, columns, rows)]


def _row(regime: Instances, init: str, counts: Counts) -> list[str]:
    return [
        f"{regime.a:g}",
        f"{regime.alpha:g}",
        f"{regime.N}",
        init,
        f"{counts.recovered.sum()} of {len(counts.run)}",
        percentiles(counts.run),
        *(f"{mean:.0f}" for mean in counts.accepted.mean(axis=0)),
        f"{counts.rejected.mean():.0f}",
        percentiles(counts.start) if counts.start.any() else "",
    ]
