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

from pipeline.kernel.batch import Array, Rows, on_sphere
from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import Flow, Outcome
from pipeline.kernel.inits import (
    INITS,
    Starts,
    constrained_starts,
    random_starts,
    spectral_starts,
)
from pipeline.kernel.observables import HessianSnapshot, hessian_snapshot
from pipeline.kernel.phase_retrieval import PhaseRetrieval, draw_instances
from pipeline.kernel.streams import Stream, generator

KERNEL_VERSION = "1"
"""Changes whenever the numbers that the kernel gives for a task change."""

_HESSIAN = ("lambda1", "lambda2", "alignment", "residual")

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
        Independent w(0) of each instance; every initialisation starts from each of them.
    times : tuple of float
        When runs are looked at, ascending, 0 ≤ t ≤ T.
    hessian_along : bool
        Whether the lowest eigenpairs of the Hessian are wanted at those times.
    gain : bool
        Whether the signal gain is wanted at those times.
    """

    a: float
    dimension: int
    measurements: int
    streams: tuple[Stream, ...]
    inits: tuple[str, ...]
    dynamics: Dynamics
    replicas: int = 1
    times: tuple[float, ...] = ()
    hessian_along: bool = False
    gain: bool = False


@dataclass(frozen=True)
class BlockResult:
    """What a block gives.

    Parameters
    ----------
    values : mapping of name to array [seeds, inits, replicas]
        The variables of the store's schema.
    finished : bool array [seeds, inits, replicas]
        False where a run failed numerically; its values are then NaN, -1 where NaN is no option.
    failures : mapping of (seed index, init index, replica index) to text
        Why.
    trajectory : mapping of name to array [seeds, inits, replicas, times]
        The variables of the store's group `trajectory`, NaN after the end of a run and where not
        asked for; empty without times.
    """

    values: Mapping[str, NDArray[np.generic]]
    finished: NDArray[np.bool_]
    failures: Mapping[tuple[int, int, int], str]
    trajectory: Mapping[str, NDArray[np.float64]]


def run_block(task: Task) -> BlockResult:
    """Run every initialisation of every seed of the task."""
    if task.gain:
        raise ValueError("gain: expected False, which this kernel can do, got True; leave it out")
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
        values={
            name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values
        },
        finished=np.concatenate([part.finished for part in parts]),
        failures=failures,
        trajectory={
            name: np.concatenate([part.trajectory[name] for part in parts])
            for name in parts[0].trajectory
        },
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
    owner = np.repeat(np.arange(len(streams)), len(inits) * task.replicas)
    alive = np.flatnonzero(starts.outcome == Outcome.RUNNING)
    run = _descent(landscape, dynamics, dynamics.duration).run(starts.w[alive], owner[alive])
    finished = (run.outcome == Outcome.RECOVERED) | (run.outcome == Outcome.NOT_RECOVERED)
    done = alive[finished]
    w, owner = run.w[finished], owner[done]
    drawn = _draw(task, streams, "probe").reshape(len(streams), 1, task.replicas, -1)
    probes = np.repeat(drawn, len(inits), axis=1).reshape(starts.w.shape)
    probe = probes[done]
    at_end = hessian_snapshot(landscape, w, owner, probe)
    gradient, predictions = landscape.gradient(w, owner)

    outcome = starts.outcome.copy()
    outcome[alive] = run.outcome
    columns: dict[str, NDArray[np.generic]] = {
        "recovered": (run.outcome == Outcome.RECOVERED)[finished].astype(np.int8),
        "hit_time": run.hit_time[finished],
        "overlap": np.abs(landscape.overlap(w, owner)).astype(np.float64),
        "loss": landscape.loss(predictions, owner).astype(np.float64),
        "multiplier": (np.vecdot(w, gradient) / task.dimension).astype(np.float64),
        "gradients": run.gradients[finished].astype(np.float64),
        **_snapshot_columns(at_end, "end"),
        **{name: column[done] for name, column in _snapshot_columns(at_start, "start").items()},
        "gradients_init": starts.gradients[done],
        "instances": np.zeros(len(done), dtype=np.int8),
    }
    along = _follow(task, landscape, starts.w, alive, probes)
    shape = (len(streams), len(inits), task.replicas)
    values = {name: _spread(column, done, shape) for name, column in columns.items()}
    values["seconds"] = np.full(shape, (time.perf_counter() - clock) / outcome.size)
    ended = np.isin(np.arange(outcome.size), done).reshape(shape)
    failures = {
        (int(seed), int(init), int(replica)): Outcome(
            outcome.reshape(shape)[seed, init, replica]
        ).name
        for seed, init, replica in zip(*np.nonzero(~ended), strict=True)
    }
    trajectory = {name: column.reshape(*shape, -1) for name, column in along.items()}
    return BlockResult(values, ended, failures, trajectory)


def _follow(
    task: Task, landscape: PhaseRetrieval, w: Array, going: Rows, probe: Array
) -> dict[str, NDArray[np.float64]]:
    """What is known of each run [rows, times], by one descent from each time to the next."""
    if not task.times:
        return {}
    names = ("overlap", "loss", "multiplier", *_HESSIAN, "gain")
    columns = {name: np.full((len(w), len(task.times)), np.nan) for name in names}
    owners = np.repeat(np.arange(len(landscape.signals)), len(w) // len(landscape.signals))
    point, now = w[going], 0.0
    for k, then in enumerate(task.times):
        if then > now:
            run = _descent(landscape, task.dynamics, then - now).run(point, owners[going])
            on_its_way = run.outcome == Outcome.NOT_RECOVERED
            going, point, now = going[on_its_way], run.w[on_its_way], then
        if not len(going):
            break
        owner = owners[going]
        gradient, predictions = landscape.gradient(point, owner)
        columns["overlap"][going, k] = landscape.overlap(point, owner)
        columns["loss"][going, k] = landscape.loss(predictions, owner)
        columns["multiplier"][going, k] = np.vecdot(point, gradient) / task.dimension
        if task.hessian_along:
            snapshot = hessian_snapshot(landscape, point, owner, probe[going])
            for name in _HESSIAN:
                columns[name][going, k] = getattr(snapshot, name)
    return columns


def _descent(
    landscape: PhaseRetrieval, dynamics: Dynamics, duration: float, *, on_equator: bool = False
) -> Flow | GradientDescent:
    if dynamics.method == "flow":
        return Flow(landscape, duration, dynamics.tolerance, on_equator)
    return GradientDescent(landscape, duration, dynamics.learning_rate, on_equator)


def _starts(
    task: Task, landscape: PhaseRetrieval, streams: tuple[Stream, ...]
) -> tuple[Starts, HessianSnapshot]:
    """Starting points of all runs and the Hessian there, in rows [seed, init] flattened."""
    instances = np.repeat(np.arange(len(streams)), task.replicas)
    w0, probe = (_draw(task, streams, purpose) for purpose in ("start", "probe"))
    starts: list[Starts] = []
    snapshots: list[HessianSnapshot] = []
    at_w0 = hessian_snapshot(landscape, w0, instances, probe)
    for init in task.inits:
        if init == "random":
            start = random_starts(w0)
        elif init == "spectral":
            start = spectral_starts(at_w0)
        elif init == "constrained":
            time_on_equator = task.dynamics.constrained_time
            relax = _descent(landscape, task.dynamics, time_on_equator, on_equator=True)
            start = constrained_starts(w0, relax, instances)
        else:
            raise ValueError(f"init: expected one of {', '.join(INITS)}, got {init!r}")
        starts.append(start)
        snapshots.append(
            at_w0 if init == "random" else hessian_snapshot(landscape, start.w, instances, probe)
        )
    return _interleave(starts, task.replicas), _interleave(snapshots, task.replicas)


def _draw(task: Task, streams: Sequence[Stream], purpose: str) -> Array:
    """Points uniform on the sphere |w|² = N [streams × replicas, N]."""
    draws = [
        generator(stream, purpose, replica).standard_normal(task.dimension)
        for stream in streams
        for replica in range(task.replicas)
    ]
    return np.asarray(on_sphere(np.stack(draws)), dtype=np.dtype(task.dynamics.dtype))


Columns = TypeVar("Columns", Starts, HessianSnapshot)


def _interleave(parts: Sequence[Columns], replicas: int) -> Columns:
    """Arrays [seeds × replicas, …] of each init → [seeds × inits × replicas, …]."""
    first = parts[0]
    merged = {}
    for field in fields(first):
        columns = np.stack([getattr(part, field.name) for part in parts])
        tables = columns.reshape(len(parts), -1, replicas, *columns.shape[2:]).swapaxes(0, 1)
        merged[field.name] = tables.reshape(-1, *columns.shape[2:])
    return type(first)(**merged)


def _snapshot_columns(snapshot: HessianSnapshot, moment: str) -> dict[str, NDArray[np.float64]]:
    return {f"{name}_{moment}": getattr(snapshot, name) for name in _HESSIAN}


def _spread(column: NDArray[np.generic], rows: Rows, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """The column at `rows` of a table of `shape`; elsewhere NaN, or -1 for integers."""
    table = np.full(shape, -1 if column.dtype.kind == "i" else np.nan, dtype=column.dtype)
    table.reshape(-1)[rows] = column
    return table
