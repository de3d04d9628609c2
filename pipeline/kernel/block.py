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

from pipeline.kernel.along import (
    EQUATOR,
    PREDICTED,
    observe_density,
    observe_equator,
    predict_left_end,
    probes_wanted,
)
from pipeline.kernel.arrays import NUMPY, Array, ArrayLibrary, namespace, take_rows
from pipeline.kernel.batch import Rows
from pipeline.kernel.columns import concatenate, interleave, select, spread
from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import DescentResult, Flow, Outcome
from pipeline.kernel.inits import (
    INITS,
    Starts,
    constrained_starts,
    overlap_starts,
    random_starts,
    spectral_starts,
)
from pipeline.kernel.integrator import Mask
from pipeline.kernel.minimum import at_minimum
from pipeline.kernel.models import Drawn, Model, RunLandscape
from pipeline.kernel.observables import (
    SNAPSHOT,
    HessianSnapshot,
    hessian_snapshot,
    observe_path,
    observe_point,
)
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
    stop_at_minimum : bool
        Whether a run of `flow` ends before T where it stands at a local minimum of the loss;
        on conditional instances, whose eigenpairs are too rough to tell, it does not.
    """

    method: Literal["flow", "descent"]
    duration: float
    tolerance: float
    learning_rate: float
    constrained_time: float
    dtype: Literal["float64", "float32"]
    stop_at_minimum: bool = False


@dataclass(frozen=True)
class Task:
    """What one block computes; nothing else decides its numbers.

    Parameters
    ----------
    model : Model
        The model at this point of the grid.
    streams : tuple of SeedSequence
        Labelled random stream of each seed.
    inits : tuple of str
        Initialisations, of `inits.INITS`, or `overlap`.
    dynamics : Dynamics
    replicas : int
        Independent draws of w(0) on each instance; every init starts from each.
    times : tuple of float
        Ascending times, 0 ≤ t ≤ T, at which the run is observed.
    hessian_along : bool
        Observe the Hessian's lowest eigenpairs too at these times.
    labels : bool
        Predict the left end of the Hessian's spectrum from the labels too at these times.
    gain : bool
        Follow the signal gain to these times, and predict on the equator.
    snapshots : tuple of float
        Ascending times, 0 ≤ t ≤ T, at which the density of the Hessian's eigenvalues is found.
    edges : tuple of float
        Of its bins, ascending.
    """

    model: Model
    streams: tuple[Stream, ...]
    inits: tuple[str, ...]
    dynamics: Dynamics
    replicas: int = 1
    times: tuple[float, ...] = ()
    hessian_along: bool = True
    labels: bool = False
    gain: bool = False
    snapshots: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class BlockResult:
    """What a block gives.

    Parameters
    ----------
    values : mapping of name to array [seeds, inits, replicas]
        The variables of the store's schema.
    trajectory : mapping of name to float array [seeds, inits, replicas, times]
        Observables along the run, NaN after its end and where not asked for; empty without times.
        Those of the equator do not end with the run.
    spectrum : mapping of name to float array [seeds, inits, replicas, snapshots(, bins)]
        The same of the density of eigenvalues; empty without snapshots.
    finished : bool array [seeds, inits, replicas]
        False where a run failed numerically; its values are then NaN, -1 where NaN is no option.
    failures : mapping of (seed, init, replica) indices to text
        Why.
    """

    values: Mapping[str, NDArray[np.generic]]
    trajectory: Mapping[str, NDArray[np.float64]]
    spectrum: Mapping[str, NDArray[np.float64]]
    finished: NDArray[np.bool_]
    failures: Mapping[tuple[int, int, int], str]


def run_block(task: Task, library: ArrayLibrary = NUMPY) -> BlockResult:
    """Run every initialisation of every seed of the task, with the arrays of a library."""
    instance_bytes = task.model.instance_bytes(np.dtype(task.dynamics.dtype))
    most_bytes = _TOGETHER_BYTES if library.is_numpy else _TOGETHER_BYTES_ON_DEVICE
    together = max(1, most_bytes // instance_bytes)
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
        spectrum=concatenate([part.spectrum for part in parts]),
        finished=np.concatenate([part.finished for part in parts]),
        failures=failures,
    )


def _run_instances(task: Task, streams: tuple[Stream, ...], library: ArrayLibrary) -> BlockResult:
    clock = time.perf_counter()
    dynamics, inits = task.dynamics, task.inits
    density_probes = probes_wanted(task.model.dimension) if task.snapshots else 0
    drawn = task.model.draw(
        streams, (task.replicas, density_probes), np.dtype(dynamics.dtype), library
    )
    landscape = drawn.landscape
    starts, at_w0 = _starts(task, drawn, streams)
    shape = (len(streams), len(inits), task.replicas)
    instance, replica = np.indices(shape)[[0, 2]].reshape(2, -1)
    probe = take_rows(drawn.probes, instance * task.replicas + replica)

    alive = np.flatnonzero(starts.outcome == Outcome.RUNNING)
    descent = _descent(task, landscape, dynamics.duration)
    times = tuple(sorted({*task.times, *task.snapshots}))
    start, owner = take_rows(starts.w, alive), instance[alive]
    if isinstance(descent, Flow) and _finds_minima(task):

        def test(w: Array, place: Rows) -> Mask:
            probes = take_rows(probe, alive[place])
            return at_minimum(landscape, w, owner[place], probes, dynamics.tolerance)

        run = descent.run(start, owner, times, test)
    else:
        run = descent.run(start, owner, times)
    outcome = starts.outcome.copy()
    outcome[alive] = run.outcome
    ended = np.isin(run.outcome, (Outcome.RECOVERED, Outcome.NOT_RECOVERED))
    done = alive[ended]
    starts, run, probe = select(starts, done), select(run, ended), take_rows(probe, done)
    known = _known_starts(inits, at_w0, shape, done)
    # snapshots come after the descents, and are forgotten one by one: their directions make all
    # that follows on a conditional instance dearer
    landscape.keep()
    directions = np.array(landscape.directions, dtype=np.float64)
    columns = {
        **_start_columns(landscape, starts.w, instance[done], probe, known),
        **_end_columns(landscape, run, instance[done], probe),
        "gradients_init": starts.gradients,
        "instances": np.full(len(done), task.model.instances == "conditional", dtype=np.int8),
        "directions": directions[instance[done]],
    }
    along = _trajectory(task, landscape, (starts, run), instance[done], probe)
    density = _spectrum(task, drawn, run, instance[done])
    values = {name: spread(column, done, shape) for name, column in columns.items()}
    values["seconds"] = np.full(shape, (time.perf_counter() - clock) / outcome.size)
    finished = np.isin(np.arange(outcome.size), done).reshape(shape)
    outcome = outcome.reshape(shape)
    return BlockResult(
        values,
        {name: spread(column, done, shape) for name, column in along.items()},
        {name: spread(column, done, shape) for name, column in density.items()},
        finished,
        {
            (int(seed), int(init), int(replica)): Outcome(outcome[seed, init, replica]).name
            for seed, init, replica in zip(*np.nonzero(~finished), strict=True)
        },
    )


def _known_starts(
    inits: tuple[str, ...], at_w0: HessianSnapshot | None, shape: tuple[int, ...], rows: Rows
) -> dict[str, NDArray[np.float64]]:
    """What is known of the Hessian at the start of `rows`; NaN where nothing is."""
    seeds, _, replicas = shape
    known = {name: np.full(shape, np.nan) for name in SNAPSHOT}
    if at_w0 is not None and "random" in inits:
        for name, table in known.items():
            table[:, inits.index("random"), :] = getattr(at_w0, name).reshape(seeds, replicas)
    return {name: table.reshape(-1)[rows] for name, table in known.items()}


def _start_columns(
    landscape: RunLandscape,
    w: Array,
    owner: Rows,
    probe: Array,
    known: Mapping[str, NDArray[np.float64]],
) -> dict[str, NDArray[np.float64]]:
    """What is recorded of the starts [trajectories], where it is not `known` yet."""
    missing = np.flatnonzero(np.isnan(known["lambda1"]))
    if len(missing):
        points, probes = take_rows(w, missing), take_rows(probe, missing)
        snapshot = hessian_snapshot(landscape, points, owner[missing], probes)
        for name, column in known.items():
            column[missing] = getattr(snapshot, name)
    return {f"{name}_start": column for name, column in known.items()}


def _end_columns(
    landscape: RunLandscape, run: DescentResult, owner: Rows, probe: Array
) -> dict[str, NDArray[np.generic]]:
    """What is recorded of the end of runs, each [trajectories]."""
    point = observe_point(landscape, run.w, owner)
    snapshot = hessian_snapshot(landscape, run.w, owner, probe)
    return {
        **point,
        "overlap": np.abs(point["overlap"]),
        "recovered": (run.outcome == Outcome.RECOVERED).astype(np.int8),
        "hit_time": run.hit_time,
        "time_end": run.time,
        "gradients": run.gradients.astype(np.float64),
        **{f"{name}_end": getattr(snapshot, name) for name in SNAPSHOT},
    }


def _trajectory(
    task: Task,
    landscape: RunLandscape,
    runs: tuple[Starts, DescentResult],
    owner: Rows,
    probe: Array,
) -> dict[str, NDArray[np.float64]]:
    """What is recorded along runs, each [trajectories, times]; empty without times."""
    if not task.times:
        return {}
    starts, run = runs
    path = _path_at(task, run, task.times)
    probe = probe if task.hessian_along else None
    # on conditional instances the vectors of the snapshot before are forgotten
    follow = task.model.instances == "dense"
    along = observe_path(landscape, path, owner, probe, follow=follow)
    along |= {name: np.full(path.shape[:2], np.nan) for name in (*PREDICTED, *EQUATOR)}
    if task.labels:
        end = predict_left_end(landscape, path, owner)
        along |= {"bulk_edge": end.edge, "outlier": end.outlier}
    if task.gain:
        tolerance = task.dynamics.tolerance or _GAIN_TOLERANCE
        along |= observe_equator(landscape, starts.w, owner, times=task.times, tolerance=tolerance)
    return along


def _spectrum(
    task: Task, drawn: Drawn, run: DescentResult, owner: Rows
) -> dict[str, NDArray[np.float64]]:
    """Densities of eigenvalues, each [trajectories, snapshots(, bins)]; empty without snapshots."""
    if not task.snapshots:
        return {}
    path = _path_at(task, run, task.snapshots)
    return observe_density(drawn.landscape, path, owner, drawn.density_probes, np.array(task.edges))


def _path_at(task: Task, run: DescentResult, times: tuple[float, ...]) -> Array:
    """Points of the runs at some of the times at which they were kept."""
    kept = sorted({*task.times, *task.snapshots})
    if len(times) == len(kept):
        return run.path
    xp = namespace(run.path)
    return xp.stack([run.path[:, kept.index(time), :] for time in times], axis=1)


def _descent(
    task: Task, landscape: RunLandscape, duration: float, *, on_equator: bool = False
) -> Flow | GradientDescent:
    dynamics, recovered = task.dynamics, task.model.recovered_overlap
    if dynamics.method == "flow":
        return Flow(landscape, duration, dynamics.tolerance, on_equator, recovered)
    return GradientDescent(landscape, duration, dynamics.learning_rate, on_equator, recovered)


def _finds_minima(task: Task) -> bool:
    return task.dynamics.stop_at_minimum and task.model.instances == "dense"


def _starts(
    task: Task, drawn: Drawn, streams: tuple[Stream, ...]
) -> tuple[Starts, HessianSnapshot | None]:
    """Starting points of all runs in rows [seed, init, replica].

    And the Hessian at the w(0) [seed, replica], where an initialisation needs it.
    """
    landscape, w0 = drawn.landscape, drawn.starts
    owner = np.repeat(np.arange(len(streams)), task.replicas)
    at_w0 = None
    if "spectral" in task.inits:
        at_w0 = hessian_snapshot(landscape, w0, owner, drawn.probes)
    starts: list[Starts] = []
    for init in task.inits:
        if init == "random":
            starts.append(random_starts(w0))
        elif init == "overlap":
            signals = take_rows(landscape.signals, owner)
            starts.append(overlap_starts(w0, signals, task.model.start_overlap))
        elif init == "spectral" and at_w0 is not None:
            starts.append(spectral_starts(at_w0))
        elif init == "constrained":
            time_on_equator = task.dynamics.constrained_time
            relax = _descent(task, landscape, time_on_equator, on_equator=True)
            starts.append(constrained_starts(w0, owner, relax))
        else:
            raise ValueError(f"init: expected one of {', '.join(INITS)}, overlap, got {init!r}")
    return interleave(starts, len(streams)), at_w0
