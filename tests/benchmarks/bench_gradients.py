"""Gradients per trajectory: the flow against descent with a fixed step, at equal outcome."""

from dataclasses import dataclass, replace

import numpy as np
from reporting import Instances, Section, on_all_cores, percentiles

from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import DescentResult, Flow, Outcome


@dataclass(frozen=True)
class Contest:
    """The same trajectories by the flow and by descent."""

    instances: Instances
    learning_rate: float
    duration: float
    target: int  # fewer gradients, by issue 3


CONTESTS = (
    Contest(Instances(N=256, alpha=3.0, a=1.0, seeds=4, replicas=8), 0.02, 1000.0, 30),
    Contest(Instances(N=128, alpha=2.5, a=0.01, seeds=4, replicas=8), 0.002, 300.0, 80),
)


def run_dynamics(contest: Contest, dynamics: str, tolerance: float) -> DescentResult:
    landscape = contest.instances.draw()
    run = {
        "flow": Flow(landscape, contest.duration, tolerance),
        "descent": GradientDescent(landscape, contest.duration, contest.learning_rate),
    }[dynamics]
    return run.run(contest.instances.starts(), contest.instances.owner)


def run_job(job: tuple[Contest, str, float]) -> DescentResult:
    return run_dynamics(*job)


def measure(*, small: bool) -> list[Section]:
    contests = CONTESTS
    if small:
        contests = tuple(
            replace(c, instances=replace(c.instances, replicas=1), duration=c.duration / 30)
            for c in CONTESTS
        )
    ways = (("descent", 0.0), ("flow", 1e-2), ("flow", 1e-3), ("flow", 1e-5))
    jobs = [(contest, *way) for way in ways for contest in contests]
    runs = dict(zip(jobs, on_all_cores(run_job, jobs), strict=True))
    rows = []
    for contest in contests:
        descent, *flows = (runs[contest, *way] for way in ways)
        exact = flows[-1]
        rows.append(_row(contest, f"descent η = {contest.learning_rate}", descent, descent, exact))
        for (_, tolerance), flow in zip(ways[1:], flows, strict=True):
            rows.append(_row(contest, f"flow {tolerance:.0e}", flow, descent, exact))
    text = (
        "Means over the same random starts, few because descent is expensive "
        f"({contests[0].instances.seeds} instances with {contests[0].instances.replicas} starts "
        "each). A start counts as agreeing if it recovers, or not, as in the other dynamics; the "
        "flow at 1e-5 stands for the exact one. `steps by hit time`: what descent would take, by "
        "the flow's hitting times."
    )
    columns = [
        "case", "dynamics", "gradients", "10/50/90 %", "fewer than descent", "target",
        "recovered", "agrees with descent", "agrees with exact", "steps by hit time",
    ]  # fmt: skip
    return [Section("Gradients per trajectory against descent", text, columns, rows)]


def _row(
    contest: Contest, name: str, run: DescentResult, descent: DescentResult, exact: DescentResult
) -> list[str]:
    recovered = run.outcome == Outcome.RECOVERED
    case = contest.instances
    is_flow = run is not descent
    ratio = descent.gradients.mean() / run.gradients.mean()
    steps = steps_of_descent(run, contest.duration, contest.learning_rate).mean()
    return [
        f"N = {case.N}, α = {case.alpha}, a = {case.a}, T = {contest.duration:g}",
        name,
        f"{run.gradients.mean():.0f}",
        percentiles(run.gradients),
        f"{ratio:.0f}×" if is_flow else "",
        f"{contest.target}×" if is_flow else "",
        f"{recovered.sum()} of {len(recovered)}",
        f"{(recovered == (descent.outcome == Outcome.RECOVERED)).sum()}" if is_flow else "",
        f"{(recovered == (exact.outcome == Outcome.RECOVERED)).sum()}" if run is not exact else "",
        f"{steps:.0f}",
    ]


def steps_of_descent(run: DescentResult, duration: float, learning_rate: float) -> np.ndarray:
    """Steps with which descent would follow each trajectory, by its hitting time."""
    return np.ceil(np.minimum(run.hit_time, duration) / learning_rate)
