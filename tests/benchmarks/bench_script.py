"""Trajectories per core second against the script that a user would write."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from bench_gradients import steps_of_descent
from reporting import Instances, Section, core_seconds

from pipeline.kernel.block import Dynamics, Task, run_block
from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import DescentResult, Flow, Outcome
from pipeline.kernel.models import PhaseRetrievalModel

LEARNING_RATE = 0.02
DURATION = 1000.0
TARGET = 300
CASE = Instances(N=512, alpha=3.0, a=1.0, seeds=1, replicas=16)


def descend(X, y, signal, w, a, eta, steps):
    """The script: gradient descent in NumPy as one writes it down first."""
    N = len(w)
    for step in range(steps):
        if abs(w @ signal) / N >= 0.99:
            return step, w
        prediction = X @ w
        slope = prediction * (prediction**2 - y**2) / (a + y**2)
        gradient = X.T @ slope
        w = w - eta * (gradient - (w @ gradient) / N * w)
        w *= np.sqrt(N) / np.linalg.norm(w)
    return steps, w


def script_step_seconds(instances: Instances, steps: int) -> float:
    """Core seconds of one step of the script."""
    arguments = _script_arguments(instances)
    times = [
        core_seconds(lambda: descend(*arguments, instances.a, LEARNING_RATE, steps))
        for _ in range(3)
    ]
    return min(times) / steps


def jax_step_seconds(instances: Instances, steps: int, dtype: str) -> float:
    """Core seconds of one step of the script in JAX, its loop compiled."""
    import jax  # noqa: PLC0415  not a dependency

    jax.config.update("jax_enable_x64", True)
    X, y, signal, start = (jax.numpy.asarray(x, dtype) for x in _script_arguments(instances))
    N, a = len(start), instances.a

    def advance(state):
        w, step = state
        prediction = X @ w
        gradient = X.T @ (prediction * (prediction**2 - y**2) / (a + y**2))
        w = w - LEARNING_RATE * (gradient - (w @ gradient) / N * w)
        return w * (N**0.5 / jax.numpy.linalg.norm(w)), step + 1

    def going(state):
        w, step = state
        return (abs(w @ signal) / N < 0.99) & (step < steps)

    compiled = jax.jit(lambda w: jax.lax.while_loop(going, advance, (w, 0)))
    taken = int(compiled(start)[1])  # compiles
    times = [core_seconds(lambda: int(compiled(start)[1])) for _ in range(3)]
    return min(times) / taken


def _script_arguments(instances: Instances) -> tuple[np.ndarray, ...]:
    landscape = instances.draw()
    X, signal = landscape.operators[0].matrix, landscape.signals[0]
    return X, X @ signal, signal, instances.starts()[0]


@dataclass(frozen=True)
class Measured:
    """Trajectories computed by the kernel, and what the script would do for the same ones."""

    trajectories: int
    recovered: int
    seconds: float
    script_steps: float  # per trajectory


def flow_run(instances: Instances, group: int, duration: float, script_steps: float) -> Measured:
    """The flow alone, `group` starts of the one instance at a time."""
    landscape, starts = instances.draw(), instances.starts()
    flow = Flow(landscape, duration, 1e-2)

    def run() -> Iterator[DescentResult]:
        for k in range(0, len(starts), group):
            yield flow.run(starts[k : k + group], instances.owner[k : k + group])

    runs: list[DescentResult] = []
    seconds = core_seconds(lambda: runs.extend(run()))
    recovered = sum(int((run.outcome == Outcome.RECOVERED).sum()) for run in runs)
    return Measured(len(starts), recovered, seconds, script_steps)


def block_run(instances: Instances, duration: float) -> Measured:
    """All that a campaign does for these starts: X drawn, Hessians at start and end."""
    dynamics = Dynamics("flow", duration, 1e-2, LEARNING_RATE, 200.0, instances.dtype)
    task = Task(
        PhaseRetrievalModel(instances.a, instances.N, instances.measurements),
        instances.streams, ("random",), dynamics,
        replicas=instances.replicas,
    )  # fmt: skip
    values: dict[str, np.ndarray] = {}
    seconds = core_seconds(lambda: values.update(run_block(task).values))
    hit_time = np.where(values["recovered"] == 1, values["hit_time"], duration)
    steps = np.ceil(hit_time / LEARNING_RATE).mean()
    return Measured(hit_time.size, int((values["recovered"] == 1).sum()), seconds, steps)


def measure(*, small: bool) -> list[Section]:
    case = replace(CASE, N=64) if small else CASE
    timed = 100 if small else 1000
    duration = DURATION / (100 if small else 1)
    descent = GradientDescent(case.draw(), duration, LEARNING_RATE)
    counted = descent.run(case.starts(), case.owner)
    expected = Flow(case.draw(), duration, 1e-2).run(case.starts(), case.owner)
    by_hit_time = steps_of_descent(expected, duration, LEARNING_RATE).mean()
    step_seconds = script_step_seconds(case, timed)
    steps = float(counted.gradients.mean())
    recovered = int((counted.outcome == Outcome.RECOVERED).sum())
    script = Measured(case.replicas, recovered, case.replicas * steps * step_seconds, steps)

    rows = [_row("the script, NumPy float64", script, step_seconds)]
    for dtype in ("float64", "float32"):
        name = f"the script compiled by JAX, {dtype}"
        if find_spec("jax") is None:
            rows.append([name, "not measured: JAX is not installed", *[""] * 4])
            continue
        seconds = case.replicas * steps * jax_step_seconds(case, timed, dtype)
        rows.append(_row(name, replace(script, seconds=seconds), step_seconds))
    for dtype in ("float64", "float32"):
        typed = replace(case, dtype=dtype)
        for group in (1, 8, 16):
            name = f"flow, {dtype}, {group} at a time"
            rows.append(_row(name, flow_run(typed, group, duration, steps), step_seconds))
        rows.append(_row(f"whole block, {dtype}, 1 × 16", block_run(typed, duration), step_seconds))
        spread = replace(typed, seeds=case.replicas, replicas=1)
        rows.append(
            _row(f"whole block, {dtype}, 16 × 1", block_run(spread, duration), step_seconds)
        )
    text = (
        f"N = {case.N}, α = {case.alpha:g}, a = {case.a:g}, T = {duration:g}, random starts; "
        f"target {TARGET}×. The script: one trajectory at a time, η = {LEARNING_RATE}, stops at "
        f"|m| ≥ 0.99. Its time is the time of a step ({1e3 * step_seconds:.3f} ms, best of 3 × "
        f"{timed} steps) times the steps that descent with the same η takes for the same 16 starts "
        f"on one instance, counted by running them as a batch: {steps:.0f} each (by the flow's "
        f"hitting times {by_hit_time:.0f}). `whole block` is `run_block`: it draws "
        "X and finds the Hessian's lowest pairs at start and end besides, which the script does "
        "not; instances × starts. `16 × 1` are other trajectories: there the script's steps are "
        "counted by hitting times."
    )
    columns = [
        "what", "trajectories per core second", "faster than the script", "core s per trajectory",
        "recovered", "script's steps",
    ]  # fmt: skip
    return [Section("Trajectories per core second against a script", text, columns, rows)]


def _row(name: str, measured: Measured, step_seconds: float) -> list[str]:
    each = measured.seconds / measured.trajectories
    return [
        name,
        f"{1 / each:.3g}",
        f"{measured.script_steps * step_seconds / each:.3g}×",
        f"{each:.3g}",
        f"{measured.recovered} of {measured.trajectories}",
        f"{measured.script_steps:.0f}",
    ]
