"""Trajectories per core second against the script that a user would write."""

import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product

import numpy as np
from bench_gradients import steps_of_descent
from reporting import Instances, Section, core_seconds

from pipeline.kernel.block import Dynamics, Task, run_block
from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import DescentResult, Flow, Outcome
from pipeline.kernel.models import PhaseRetrievalModel
from pipeline.kernel.phase_retrieval import PhaseRetrieval

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


def jax_step_seconds(instances: Instances, steps: int, dtype: str, together: int) -> float:
    """Core seconds of one step of the script for one trajectory, its loop compiled by JAX."""
    import jax  # noqa: PLC0415  not a dependency

    jax.config.update("jax_enable_x64", True)
    X, y, signal, _ = (jax.numpy.asarray(x, dtype) for x in _script_arguments(instances))
    starts = jax.numpy.asarray(instances.starts()[:together], dtype)
    N, a = len(signal), instances.a

    def advance(state):
        w, step = state
        prediction = w @ X.T
        gradient = (prediction * (prediction**2 - y**2) / (a + y**2)) @ X
        along = (w * gradient).sum(-1, keepdims=True) / N
        w = w - LEARNING_RATE * (gradient - along * w)
        return w * (N**0.5 / jax.numpy.linalg.norm(w, axis=-1, keepdims=True)), step + 1

    def going(state):
        w, step = state
        return (abs(w @ signal) / N < 0.99).any() & (step < steps)

    compiled = jax.jit(lambda w: jax.lax.while_loop(going, advance, (w, 0)))
    taken = int(compiled(starts)[1])  # compiles
    times = [core_seconds(lambda: int(compiled(starts)[1])) for _ in range(3)]
    return min(times) / taken / together


def torch_step_seconds(instances: Instances, steps: int, dtype: str, together: int) -> float:
    """Core seconds of one step of the script for one trajectory, its step compiled by PyTorch."""
    import torch  # noqa: PLC0415  not a dependency

    torch.set_num_threads(1)
    kind = getattr(torch, dtype)
    X, y, signal, _ = (torch.asarray(x, dtype=kind) for x in _script_arguments(instances))
    starts = torch.asarray(instances.starts()[:together], dtype=kind)
    N, a = len(signal), instances.a

    @torch.compile
    def advance(w):
        prediction = w @ X.T
        gradient = (prediction * (prediction**2 - y**2) / (a + y**2)) @ X
        along = (w * gradient).sum(-1, keepdim=True) / N
        w = w - LEARNING_RATE * (gradient - along * w)
        return w * (N**0.5 / torch.linalg.norm(w, dim=-1, keepdim=True))

    def descend_compiled():
        w = starts
        for step in range(steps):
            if not bool((abs(w @ signal) / N < 0.99).any()):
                return step
            w = advance(w)
        return steps

    with torch.inference_mode():
        taken = descend_compiled()  # compiles
        times = [core_seconds(descend_compiled) for _ in range(3)]
    return min(times) / taken / together


COMPILED = {"JAX": ("jax", jax_step_seconds), "PyTorch": ("torch", torch_step_seconds)}


def compiled_rows(case: Instances, steps: int, script: "Measured", step: float) -> list[list[str]]:
    """The script compiled by each library that is installed, one and all trajectories at a time."""
    rows = []
    for library, (module, step_seconds) in COMPILED.items():
        if find_spec(module) is None:
            rows.append([f"the script in {library}", "not measured: not installed", *[""] * 5])
            continue
        for dtype, together in product(("float64", "float32"), (1, case.replicas)):
            name = f"the script compiled by {library}, {dtype}, {together} at a time"
            try:
                seconds = step_seconds(case, steps, dtype, together)
            except Exception as error:  # noqa: BLE001  such as no C++ compiler for PyTorch's
                cause = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
                rows.append([name, f"not measured: {cause}", *[""] * 5])
                continue
            total = case.replicas * script.script_steps * seconds
            rows.append(_row(name, replace(script, seconds=total), step))
    return rows


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
    in_passes: float | None = None  # share of the seconds


class TimedGradients:
    """A landscape that adds up the core seconds of its gradients."""

    def __init__(self, landscape: PhaseRetrieval) -> None:
        self._landscape = landscape
        self.seconds = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._landscape, name)

    def gradient(self, w: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start = time.process_time()
        answer = self._landscape.gradient(w, owner)
        self.seconds += time.process_time() - start
        return answer


def flow_run(instances: Instances, group: int, duration: float, script_steps: float) -> Measured:
    """The flow alone, `group` starts of the one instance at a time; best of three."""
    starts = instances.starts()
    best = None
    for _ in range(3):
        landscape = TimedGradients(instances.draw())
        flow = Flow(landscape, duration, 1e-2)
        runs: list[DescentResult] = []

        def run(flow: Flow = flow, runs: list[DescentResult] = runs) -> None:
            groups = (slice(k, k + group) for k in range(0, len(starts), group))
            runs.extend(flow.run(starts[rows], instances.owner[rows]) for rows in groups)

        seconds = core_seconds(run)
        recovered = sum(int((run.outcome == Outcome.RECOVERED).sum()) for run in runs)
        share = landscape.seconds / seconds
        measured = Measured(len(starts), recovered, seconds, script_steps, share)
        best = measured if best is None or seconds < best.seconds else best
    return best


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
    rows += compiled_rows(case, timed, script, step_seconds)
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
        "counted by hitting times. `in passes`: share of the time in gradients; the rest is the "
        "integrator, mostly at the ends of steps. The compiled scripts do the same steps, JAX with "
        "its loop compiled and PyTorch with its step; 16 at a time they read X once for all, and "
        "are taken to lose nothing by waiting for the last."
    )
    columns = [
        "what", "trajectories per core second", "faster than the script", "core s per trajectory",
        "recovered", "script's steps", "in passes",
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
        "" if measured.in_passes is None else f"{measured.in_passes:.0%}",
    ]
