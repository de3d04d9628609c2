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
from pipeline.kernel.inits import (
    INITS,
    Starts,
    constrained_starts,
    random_starts,
    spectral_starts,
)
from pipeline.kernel.observables import HessianSnapshot, hessian_snapshot
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
    """

    a: float
    dimension: int
    measurements: int
    streams: tuple[Stream, ...]
    inits: tuple[str, ...]
    dynamics: Dynamics


@dataclass(frozen=True)
class BlockResult:
    """What a block gives.

    Parameters
    ----------
    values : mapping of name to array [seeds, inits]
        The variables of the store's schema.
    finished : bool array [seeds, inits]
        False where a run failed numerically; its values are then NaN, -1 where NaN is no option.
    failures : mapping of (seed index, init index) to text
        Why.
    """

    values: Mapping[str, NDArray[np.generic]]
    finished: NDArray[np.bool_]
    failures: Mapping[tuple[int, int], str]


def run_block(task: Task) -> BlockResult:
    """Run every initialisation of every seed of the task."""
    matrix_bytes = task.measurements * task.dimension * np.dtype(task.dynamics.dtype).itemsize
    together = max(1, _TOGETHER_BYTES // matrix_bytes)
    parts = [
        _run_instances(task, task.streams[start : start + together])
        for start in range(0, len(task.streams), together)
    ]
    failures = {
        (seed + together * k, init): text
        for k, part in enumerate(parts)
        for (seed, init), text in part.failures.items()
    }
    return BlockResult(
        values={
            name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values
        },
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
    owner = np.repeat(np.arange(len(streams)), len(inits))
    alive = np.flatnonzero(starts.outcome == Outcome.RUNNING)
    run = _descent(landscape, dynamics, dynamics.duration).run(starts.w[alive], owner[alive])
    finished = (run.outcome == Outcome.RECOVERED) | (run.outcome == Outcome.NOT_RECOVERED)
    done = alive[finished]
    w, owner = run.w[finished], owner[done]
    probe = draw_starts(streams, "probe", task.dimension, w.dtype)[owner]
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
    shape = (len(streams), len(inits))
    values = {name: _spread(column, done, shape) for name, column in columns.items()}
    values["seconds"] = np.full(shape, (time.perf_counter() - clock) / outcome.size)
    ended = np.isin(np.arange(outcome.size), done).reshape(shape)
    failures = {
        (int(seed), int(init)): Outcome(outcome.reshape(shape)[seed, init]).name
        for seed, init in zip(*np.nonzero(~ended), strict=True)
    }
    return BlockResult(values, ended, failures)


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
    dtype = np.dtype(task.dynamics.dtype)
    instances = np.arange(len(streams))
    w0 = draw_starts(streams, "start", task.dimension, dtype)
    probe = draw_starts(streams, "probe", task.dimension, dtype)
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
            start = constrained_starts(w0, relax)
        else:
            raise ValueError(f"init: expected one of {', '.join(INITS)}, got {init!r}")
        starts.append(start)
        snapshots.append(
            at_w0 if init == "random" else hessian_snapshot(landscape, start.w, instances, probe)
        )
    return _interleave(starts), _interleave(snapshots)


Columns = TypeVar("Columns", Starts, HessianSnapshot)


def _interleave(parts: Sequence[Columns]) -> Columns:
    """Arrays [seeds, …] of each init → arrays [seeds × inits, …], inits fastest."""
    first = parts[0]
    merged = {
        field.name: np.stack([getattr(part, field.name) for part in parts], axis=1)
        for field in fields(first)
    }
    return type(first)(**{k: v.reshape(-1, *v.shape[2:]) for k, v in merged.items()})


def _snapshot_columns(snapshot: HessianSnapshot, moment: str) -> dict[str, NDArray[np.float64]]:
    names = ("lambda1", "lambda2", "alignment", "residual")
    return {f"{name}_{moment}": getattr(snapshot, name) for name in names}


def _spread(column: NDArray[np.generic], rows: Rows, shape: tuple[int, int]) -> NDArray[np.generic]:
    """The column at `rows` of a table of `shape`; elsewhere NaN, or -1 for integers."""
    table = np.full(shape, -1 if column.dtype.kind == "i" else np.nan, dtype=column.dtype)
    table.reshape(-1)[rows] = column
    return table
