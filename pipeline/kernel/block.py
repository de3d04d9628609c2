"""One block: every initialisation of a run of seeds at one (α, N), from streams to numbers.

The only place where the parts of the kernel meet. The same task gives the same bytes on the same
machine wherever and whenever it runs, with BLAS on one thread.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import NUMPY, Array, ArrayLibrary, take_rows
from pipeline.kernel.batch import Rows
from pipeline.kernel.columns import concatenate, interleave, select, spread
from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import DescentResult, Flow, Outcome
from pipeline.kernel.gain import signal_gain
from pipeline.kernel.inits import (
    INITS,
    Starts,
    constrained_starts,
    random_starts,
    spectral_starts,
)
from pipeline.kernel.observables import (
    SNAPSHOT,
    HessianSnapshot,
    hessian_snapshot,
    observe_path,
    observe_point,
)
from pipeline.kernel.phase_retrieval import PhaseRetrieval, draw_instances, draw_starts
from pipeline.kernel.streams import Stream

KERNEL_VERSION = "1"
"""Changes whenever the numbers that the kernel gives for a task change."""

# sensing matrices advanced together: small instances share the overhead of the calls, and an
# accelerator wants large products
_TOGETHER_BYTES = 64 << 20
_TOGETHER_BYTES_ON_DEVICE = 4 << 30
_GAIN_TOLERANCE = 1e-2  # of the flow that the gain follows where runs are descents


@dataclass(frozen=True)
class Dynamics:
    """How a run descends.

    Parameters
    ----------
    method : "flow" or "descent"
    duration : float
        T, in time units of the flow.
    tolerance : float
        Of `flow`: r.m.s. local error of w per step.
    learning_rate : float
        Of `descent`: η.
    constrained_time : float
        T_c, how long `constrained` starts relax on the equator.
    dtype : "float64" or "float32"
    """

    method: Literal["flow", "descent"]
    duration: float
    tolerance: float
    learning_rate: float
    constrained_time: float
    dtype: Literal["float64", "float32"]


@dataclass(frozen=True)
class Task:
    """What one block computes; nothing else decides its numbers.

    Parameters
    ----------
    a : float
        Parameter of the loss ℓ_a.
    dimension, measurements : int
        N and M.
    streams : tuple of SeedSequence
        Labelled random stream of each seed.
    inits : tuple of str
        Initialisations, of `inits.INITS`.
    dynamics : Dynamics
    replicas : int
        Independent draws of w(0) on each instance; every init starts from each.
    times : tuple of float
        Ascending times, 0 ≤ t ≤ T, at which the run is observed.
    hessian_along : bool
        Observe the Hessian's lowest eigenpairs too at these times.
    gain : bool
        Follow the signal gain to these times.
    """

    a: float
    dimension: int
    measurements: int
    streams: tuple[Stream, ...]
    inits: tuple[str, ...]
    dynamics: Dynamics
    replicas: int = 1
    times: tuple[float, ...] = ()
    hessian_along: bool = True
    gain: bool = False


@dataclass(frozen=True)
class BlockResult:
    """What a block gives.

    Parameters
    ----------
    values : mapping of name to array [seeds, inits, replicas]
        The variables of the store's schema.
    trajectory : mapping of name to float array [seeds, inits, replicas, times]
        Observables along the run, NaN after its end and where not asked for; empty without times.
        The gain is followed on the equator, also beyond the end of the run.
    finished : bool array [seeds, inits, replicas]
        False where a run failed numerically; its values are then NaN, -1 where NaN is no option.
    failures : mapping of (seed, init, replica) indices to text
        Why.
    """

    values: Mapping[str, NDArray[np.generic]]
    trajectory: Mapping[str, NDArray[np.float64]]
    finished: NDArray[np.bool_]
    failures: Mapping[tuple[int, int, int], str]


def run_block(task: Task, library: ArrayLibrary = NUMPY) -> BlockResult:
    """Run every initialisation of every seed of the task, with the arrays of a library."""
    matrix_bytes = task.measurements * task.dimension * np.dtype(task.dynamics.dtype).itemsize
    most_bytes = _TOGETHER_BYTES if library.is_numpy else _TOGETHER_BYTES_ON_DEVICE
    together = max(1, most_bytes // matrix_bytes)
    parts = [
        _run_instances(task, task.streams[start : start + together], library)
        for start in range(0, len(task.streams), together)
    ]
    failures = {
        (seed + together * k, init, replica): text
        for k, part in enumerate(parts)
        for (seed, init, replica), text in part.failures.items()
    }
    return BlockResult(
        values=concatenate([part.values for part in parts]),
        trajectory=concatenate([part.trajectory for part in parts]),
        finished=np.concatenate([part.finished for part in parts]),
        failures=failures,
    )


def _run_instances(task: Task, streams: tuple[Stream, ...], library: ArrayLibrary) -> BlockResult:
    clock = time.perf_counter()
    dynamics, inits = task.dynamics, task.inits
    landscape = draw_instances(
        streams,
        measurements=task.measurements,
        dimension=task.dimension,
        a=task.a,
        dtype=np.dtype(dynamics.dtype),
        library=library,
    )
    starts, at_start = _starts(task, landscape, streams, library)
    shape = (len(streams), len(inits), task.replicas)
    instance, replica = np.indices(shape)[[0, 2]].reshape(2, -1)
    probe = take_rows(_draw(task, streams, "probe", library), instance * task.replicas + replica)

    alive = np.flatnonzero(starts.outcome == Outcome.RUNNING)
    descent = _descent(landscape, dynamics, dynamics.duration)
    run = descent.run(take_rows(starts.w, alive), instance[alive], task.times)
    outcome = starts.outcome.copy()
    outcome[alive] = run.outcome
    ended = np.isin(run.outcome, (Outcome.RECOVERED, Outcome.NOT_RECOVERED))
    done = alive[ended]
    starts, at_start, run = (
        select(starts, done),
        select(at_start, done),
        select(run, ended),
    )
    columns = {
        **_end_columns(landscape, run, instance[done], take_rows(probe, done)),
        **_snapshot_columns(at_start, "start"),
        "gradients_init": starts.gradients,
        "instances": np.zeros(len(done), dtype=np.int8),
    }
    along = _trajectory(task, landscape, (starts, run), instance[done], take_rows(probe, done))
    values = {name: spread(column, done, shape) for name, column in columns.items()}
    values["seconds"] = np.full(shape, (time.perf_counter() - clock) / outcome.size)
    finished = np.isin(np.arange(outcome.size), done).reshape(shape)
    outcome = outcome.reshape(shape)
    return BlockResult(
        values,
        {name: spread(column, done, shape) for name, column in along.items()},
        finished,
        {
            (int(seed), int(init), int(replica)): Outcome(outcome[seed, init, replica]).name
            for seed, init, replica in zip(*np.nonzero(~finished), strict=True)
        },
    )


def _end_columns(
    landscape: PhaseRetrieval, run: DescentResult, owner: Rows, probe: Array
) -> dict[str, NDArray[np.generic]]:
    """What is recorded of the end of runs, each [trajectories]."""
    point = observe_point(landscape, run.w, owner)
    return {
        **point,
        "overlap": np.abs(point["overlap"]),
        "recovered": (run.outcome == Outcome.RECOVERED).astype(np.int8),
        "hit_time": run.hit_time,
        "gradients": run.gradients.astype(np.float64),
        **_snapshot_columns(hessian_snapshot(landscape, run.w, owner, probe), "end"),
    }


def _trajectory(
    task: Task,
    landscape: PhaseRetrieval,
    runs: tuple[Starts, DescentResult],
    owner: Rows,
    probe: Array,
) -> dict[str, NDArray[np.float64]]:
    """What is recorded along runs, each [trajectories, times]; empty without times."""
    if not task.times:
        return {}
    starts, run = runs
    along = observe_path(landscape, run.path, owner, probe if task.hessian_along else None)
    along["gain"] = np.full((len(owner), len(task.times)), np.nan)
    if task.gain:
        tolerance = task.dynamics.tolerance or _GAIN_TOLERANCE
        along["gain"] = signal_gain(
            landscape, starts.w, owner, times=task.times, tolerance=tolerance
        )
    return along


def _descent(
    landscape: PhaseRetrieval, dynamics: Dynamics, duration: float, *, on_equator: bool = False
) -> Flow | GradientDescent:
    if dynamics.method == "flow":
        return Flow(landscape, duration, dynamics.tolerance, on_equator)
    return GradientDescent(landscape, duration, dynamics.learning_rate, on_equator)


def _starts(
    task: Task, landscape: PhaseRetrieval, streams: tuple[Stream, ...], library: ArrayLibrary
) -> tuple[Starts, HessianSnapshot]:
    """Starting points of all runs and the Hessian there, in rows [seed, init, replica]."""
    owner = np.repeat(np.arange(len(streams)), task.replicas)
    w0 = _draw(task, streams, "start", library)
    probe = _draw(task, streams, "probe", library)
    starts: list[Starts] = []
    snapshots: list[HessianSnapshot] = []
    at_w0 = hessian_snapshot(landscape, w0, owner, probe)
    for init in task.inits:
        if init == "random":
            start = random_starts(w0)
        elif init == "spectral":
            start = spectral_starts(at_w0)
        elif init == "constrained":
            time_on_equator = task.dynamics.constrained_time
            relax = _descent(landscape, task.dynamics, time_on_equator, on_equator=True)
            start = constrained_starts(w0, owner, relax)
        else:
            raise ValueError(f"init: expected one of {', '.join(INITS)}, got {init!r}")
        starts.append(start)
        snapshots.append(
            at_w0 if init == "random" else hessian_snapshot(landscape, start.w, owner, probe)
        )
    seeds = len(streams)
    return interleave(starts, seeds), interleave(snapshots, seeds)


def _draw(task: Task, streams: tuple[Stream, ...], purpose: str, library: ArrayLibrary) -> Array:
    """Random points [seeds × replicas, N]."""
    dtype = np.dtype(task.dynamics.dtype)
    return draw_starts(streams, purpose, task.dimension, dtype, task.replicas, library)


def _snapshot_columns(snapshot: HessianSnapshot, moment: str) -> dict[str, NDArray[np.float64]]:
    return {f"{name}_{moment}": getattr(snapshot, name) for name in SNAPSHOT}
