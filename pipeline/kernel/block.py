"""One block: every initialisation of a run of seeds at one (α, N), from streams to numbers.

The only place where the parts of the kernel meet. The same task gives the same bytes on the same
machine wherever and whenever it runs, with BLAS on one thread.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.batch import Rows
from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import Flow, Outcome
from pipeline.kernel.gain import signal_gain
from pipeline.kernel.inits import (
    INITS,
    Starts,
    constrained_starts,
    random_starts,
    spectral_starts,
)
from pipeline.kernel.observables import (
    HessianSnapshot,
    hessian_snapshot,
    observe_path,
    observe_point,
)
from pipeline.kernel.phase_retrieval import PhaseRetrieval, draw_instances, draw_starts
from pipeline.kernel.streams import Stream

KERNEL_VERSION = "1"
"""Changes whenever the numbers that the kernel gives for a task change."""

# sensing matrices advanced together: small instances share the overhead of the calls
_TOGETHER_BYTES = 64 << 20


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

    @property
    def gain_tolerance(self) -> float:
        """Of the flow that the signal gain follows, also where runs are descents."""
        return self.tolerance or 1e-2


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
        Observables along the run, NaN after its end; empty if no times were asked for.
    finished : bool array [seeds, inits, replicas]
        False where a run failed numerically; its values are then NaN, -1 where NaN is no option.
    failures : mapping of (seed, init, replica) indices to text
        Why.
    """

    values: Mapping[str, NDArray[np.generic]]
    trajectory: Mapping[str, NDArray[np.float64]]
    finished: NDArray[np.bool_]
    failures: Mapping[tuple[int, int, int], str]


def run_block(task: Task) -> BlockResult:
    """Run every initialisation of every seed of the task."""
    matrix_bytes = task.measurements * task.dimension * np.dtype(task.dynamics.dtype).itemsize
    together = max(1, _TOGETHER_BYTES // matrix_bytes)
    parts = [
        _run_instances(task, task.streams[start : start + together])
        for start in range(0, len(task.streams), together)
    ]
    failures = {
        (seed + together * k, init, replica): text
        for k, part in enumerate(parts)
        for (seed, init, replica), text in part.failures.items()
    }
    return BlockResult(
        values=_concatenate([part.values for part in parts]),
        trajectory=_concatenate([part.trajectory for part in parts]),
        finished=np.concatenate([part.finished for part in parts]),
        failures=failures,
    )


def _run_instances(task: Task, streams: tuple[Stream, ...]) -> BlockResult:
    clock = time.perf_counter()
    dynamics, inits = task.dynamics, task.inits
    landscape = draw_instances(
        streams,
        measurements=task.measurements,
        dimension=task.dimension,
        a=task.a,
        dtype=np.dtype(dynamics.dtype),
    )
    starts, at_start = _starts(task, landscape, streams)
    shape = (len(streams), len(inits), task.replicas)
    instance, replica = np.indices(shape)[[0, 2]].reshape(2, -1)
    probe = draw_starts(streams, "probe", task.dimension, starts.w.dtype, task.replicas)
    probe = probe.reshape(len(streams), task.replicas, -1)[instance, replica]

    alive = np.flatnonzero(starts.outcome == Outcome.RUNNING)
    descent = _descent(landscape, dynamics, dynamics.duration)
    run = descent.run(starts.w[alive], instance[alive], task.times)
    outcome = starts.outcome.copy()
    outcome[alive] = run.outcome
    ended = np.isin(run.outcome, (Outcome.RECOVERED, Outcome.NOT_RECOVERED))
    done = alive[ended]
    w, owner = run.w[ended], instance[done]
    at_end = hessian_snapshot(landscape, w, owner, probe[done])
    point = observe_point(landscape, w, owner)
    columns: dict[str, NDArray[np.generic]] = {
        **point,
        "overlap": np.abs(point["overlap"]),
        "recovered": (run.outcome == Outcome.RECOVERED)[ended].astype(np.int8),
        "hit_time": run.hit_time[ended],
        "gradients": run.gradients[ended].astype(np.float64),
        **_snapshot_columns(at_end, "end"),
        **{name: column[done] for name, column in _snapshot_columns(at_start, "start").items()},
        "gradients_init": starts.gradients[done],
        "instances": np.zeros(len(done), dtype=np.int8),
    }
    trajectory: dict[str, NDArray[np.float64]] = {}
    if task.times:
        along = probe[done] if task.hessian_along else None
        trajectory = observe_path(landscape, run.path[ended], owner, along)
    if task.times and task.gain:
        trajectory["gain"] = signal_gain(
            landscape, starts.w[done], owner, times=task.times, tolerance=dynamics.gain_tolerance
        )
    values = {name: _spread(column, done, shape) for name, column in columns.items()}
    values["seconds"] = np.full(shape, (time.perf_counter() - clock) / outcome.size)
    finished = np.isin(np.arange(outcome.size), done).reshape(shape)
    outcome = outcome.reshape(shape)
    return BlockResult(
        values,
        {name: _spread(column, done, shape) for name, column in trajectory.items()},
        finished,
        {
            (int(seed), int(init), int(replica)): Outcome(outcome[seed, init, replica]).name
            for seed, init, replica in zip(*np.nonzero(~finished), strict=True)
        },
    )


def _descent(
    landscape: PhaseRetrieval, dynamics: Dynamics, duration: float, *, on_equator: bool = False
) -> Flow | GradientDescent:
    if dynamics.method == "flow":
        return Flow(landscape, duration, dynamics.tolerance, on_equator)
    return GradientDescent(landscape, duration, dynamics.learning_rate, on_equator)


def _starts(
    task: Task, landscape: PhaseRetrieval, streams: tuple[Stream, ...]
) -> tuple[Starts, HessianSnapshot]:
    """Starting points of all runs and the Hessian there, in rows [seed, init, replica]."""
    dtype = np.dtype(task.dynamics.dtype)
    owner = np.repeat(np.arange(len(streams)), task.replicas)
    w0 = draw_starts(streams, "start", task.dimension, dtype, task.replicas)
    probe = draw_starts(streams, "probe", task.dimension, dtype, task.replicas)
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
    return _interleave(starts, seeds), _interleave(snapshots, seeds)


Columns = TypeVar("Columns", Starts, HessianSnapshot)


def _interleave(parts: Sequence[Columns], seeds: int) -> Columns:
    """Arrays [seeds × replicas, …] of each init → arrays [seeds × inits × replicas, …]."""
    merged = {}
    for field in fields(parts[0]):
        columns = [getattr(part, field.name) for part in parts]
        by_seed = [column.reshape(seeds, -1, *column.shape[1:]) for column in columns]
        merged[field.name] = np.stack(by_seed, axis=1).reshape(-1, *columns[0].shape[1:])
    return type(parts[0])(**merged)


Values = TypeVar("Values", bound=np.generic)


def _concatenate(parts: Sequence[Mapping[str, NDArray[Values]]]) -> dict[str, NDArray[Values]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _snapshot_columns(snapshot: HessianSnapshot, moment: str) -> dict[str, NDArray[np.float64]]:
    names = ("lambda1", "lambda2", "alignment", "residual")
    return {f"{name}_{moment}": getattr(snapshot, name) for name in names}


def _spread(column: NDArray[Values], rows: Rows, shape: tuple[int, ...]) -> NDArray[Values]:
    """The column at `rows` of a table of `shape`; elsewhere NaN, or -1 for integers."""
    missing = -1 if column.dtype.kind == "i" else np.nan
    table = np.full((np.prod(shape), *column.shape[1:]), missing, dtype=column.dtype)
    table[rows] = column
    return table.reshape(*shape, *column.shape[1:])
