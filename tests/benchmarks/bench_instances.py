"""Instances drawn as they are asked for against matrices: time, memory, directions, accuracy."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from unittest.mock import patch

import numpy as np
from bench_limits import FROM_MEMORY, read_bandwidth
from reporting import Section, best_seconds, core_seconds, cores, own_peak_bytes

from pipeline.kernel import phase_retrieval
from pipeline.kernel.arrays import NUMPY
from pipeline.kernel.conditional_operator import TOLERANCE, ConditionalOperator
from pipeline.kernel.flow import DescentResult, Flow
from pipeline.kernel.models import Drawn, PhaseRetrievalModel
from pipeline.kernel.observables import hessian_snapshot

A, FLOW_TOLERANCE = 1.0, 1e-2
OWNER = np.zeros(1, dtype=np.intp)
MOST_MATRIX_BYTES = 2 << 30  # of the matrices that are made, and not only reckoned with
MOST_DENSE_ELEMENTS = 10**9  # of matrix × gradients for which a whole dense descent is waited for


@dataclass(frozen=True)
class Case:
    """One random start on one instance.

    Parameters
    ----------
    N, alpha, T : dimension, M/N, duration
    dtype : str
    tolerance : float
        Of the directions.
    """

    N: int
    alpha: float
    T: float
    dtype: str = "float32"
    tolerance: float = TOLERANCE

    @property
    def measurements(self) -> int:
        """M."""
        return round(self.alpha * self.N)

    def draw(self, instances: str) -> Drawn:
        model = PhaseRetrievalModel(A, self.N, self.measurements, instances)
        stream = np.random.SeedSequence(9, spawn_key=(self.N, self.measurements))
        operator = partial(ConditionalOperator, tolerance=self.tolerance)
        with patch.object(phase_retrieval, "ConditionalOperator", operator):
            return model.draw((stream,), (1, 0), np.dtype(self.dtype), NUMPY)

    def descend(self, drawn: Drawn, times: tuple[float, ...] = ()) -> DescentResult:
        return Flow(drawn.landscape, self.T, FLOW_TOLERANCE).run(drawn.starts, OWNER, times)


@dataclass(frozen=True)
class Measured:
    """What a descent on a conditional instance took."""

    seconds: float
    drawing: float
    peak_bytes: int
    directions: int
    gradients: int
    overlap: float
    loss: float


def measure_conditional(case: Case) -> Measured:
    """A descent, its draws included; in a process of its own, whose peak of memory is its own."""
    found: list[tuple[Drawn, DescentResult]] = []

    def work() -> None:
        drawn = case.draw("conditional")
        found.append((drawn, case.descend(drawn)))

    seconds = core_seconds(work)
    drawn, run = found[0]
    peak = own_peak_bytes()
    directions = drawn.landscape.directions[0]
    rows = np.random.default_rng(0)
    drawing = core_seconds(lambda: rows.standard_normal((8, case.measurements))) / 8 * directions
    _, predictions = drawn.landscape.gradient(run.w, OWNER)
    return Measured(
        seconds,
        drawing,
        peak,
        directions,
        int(run.gradients[0]),
        float(np.abs(drawn.landscape.overlap(run.w, OWNER)[0])),
        float(drawn.landscape.loss(predictions, OWNER)[0]),
    )


def alone(case: Case) -> Measured:
    """`measure_conditional` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure_conditional, case).result()


def dense_seconds(case: Case, gradients: int, rate: float) -> tuple[float, str]:
    """Core seconds of the same descent on a matrix, its draw included, and how they were found."""
    size = case.measurements * case.N
    if size * np.dtype(case.dtype).itemsize > MOST_MATRIX_BYTES:
        return size * (gradients / rate + 1.5e-8), "computed"
    if size * gradients <= MOST_DENSE_ELEMENTS * 20:
        return core_seconds(lambda: case.descend(case.draw("dense"))), "measured"
    drawn: list[Drawn] = []
    drawing = core_seconds(lambda: drawn.append(case.draw("dense")))
    landscape, w = drawn[0].landscape, drawn[0].starts
    one = best_seconds(lambda: landscape.gradient(w, OWNER))
    return drawing + gradients * one, "gradient measured"


def measure(*, small: bool) -> list[Section]:
    return [
        _sizes(small=small),
        _together(small=small),
        _tolerances(small=small),
        _snapshots(small=small),
    ]


def _sizes(*, small: bool) -> Section:
    sizes = {100.0: (1000, 2000, 4000, 10**4, 3 * 10**4, 10**5, 3 * 10**5)}
    sizes[1000.0] = (1000, 2000, 4000, 10**4)
    if small:
        sizes = {3.0: (200, 400)}
    bandwidth = read_bandwidth(FROM_MEMORY >> (5 if small else 0), "float32")
    rate = _dense_rate(small=small)
    rows, crossings = [], []
    for T, column in sizes.items():
        for alpha in (3.0, 4.0):
            ratios = []
            for N in column:
                case = Case(N, alpha, T)
                began = time.perf_counter()
                found = alone(case)
                wall = time.perf_counter() - began
                dense, how = dense_seconds(case, found.gradients, rate)
                ratios.append((N, dense / found.seconds))
                read = 3 * sum(range(found.directions)) * case.measurements * 4
                rows.append(
                    [
                        f"{T:g}", f"{alpha:g}", f"{N}", f"{found.directions}",
                        f"{found.gradients}", f"{found.overlap:.3f}", f"{found.seconds:.2f}",
                        f"{wall:.1f}", f"{found.peak_bytes / 1e9:.2f}",
                        f"{read / found.seconds / 1e9:.1f}",
                        f"{read / found.seconds / bandwidth:.0%}",
                        f"{found.drawing / found.seconds:.0%}",
                        f"{dense:.2f} ({how})",
                        f"{case.measurements * N * 4 / 1e9:.3g}", f"{dense / found.seconds:.1f}",
                    ]
                )  # fmt: skip
            crossings.append(f"T = {T:g}, α = {alpha:g}: {_crossing(ratios)}")
    text = (
        "One random start, float32, flow tolerance 1e-2: draws and descent, without snapshots. "
        "`GB/s`: three reads of the bases a gradient, 12 k M bytes, as the limit of the method; "
        f"`of memory`: share of the read bandwidth of one core, {bandwidth / 1e9:.1f} GB/s; "
        "`drawing`: share of the normal numbers, measured apart. Seconds are core seconds; wall: "
        "the whole process with its start. Dense: the same descent on a matrix, measured where the "
        "matrix takes at most 2 GiB (whole or by its gradients), else computed from "
        f"{rate / 1e9:.2f}·10⁹ elements a second. Both cost the same at N ≈ "
        + "; ".join(crossings)
        + ". Targets of issue 4: N = 10⁵, α = 4, T = 100 in 15 s and 4 GB; N = 10⁴, α = 3, "
        "T = 1000 five times faster than dense."
    )
    columns = [
        "T", "α", "N", "k", "gradients", "overlap", "s", "wall s", "peak GB", "GB/s", "of memory",
        "drawing", "dense s", "matrix GB", "dense / conditional",
    ]  # fmt: skip
    return Section("Descents on conditional instances", text, columns, rows)


def _together(*, small: bool) -> Section:
    """An instance on each core at the same time, as the workers of a campaign have them."""
    cases = (Case(10**5, 4.0, 100.0), Case(10**4, 3.0, 1000.0))
    rows = []
    for case in (Case(300, 4.0, 3.0),) if small else cases:
        count = cores()
        with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(abs, range(count)))  # the processes have started
            began = time.perf_counter()
            found = list(pool.map(measure_conditional, [case] * count))
            wall = time.perf_counter() - began
        rows.append(
            [
                f"{case.N}", f"{case.alpha:g}", f"{case.T:g}", f"{count}", f"{wall:.1f}",
                f"{wall / count:.1f}", f"{max(each.peak_bytes for each in found) / 1e9:.2f}",
            ]
        )  # fmt: skip
    text = "Wall time, the start of the processes left out."
    columns = ["N", "α", "T", "at once", "wall s", "wall s an instance", "peak GB of one"]
    return Section("An instance on each core", text, columns, rows)


def _dense_rate(*, small: bool) -> float:
    """Elements of X in a second of a gradient of one trajectory, X far larger than the caches."""
    case = Case(500 if small else 8000, 4.0, 1.0)
    drawn = case.draw("dense")
    seconds = best_seconds(lambda: drawn.landscape.gradient(drawn.starts, OWNER))
    return case.measurements * case.N / seconds


def _crossing(ratios: list[tuple[int, float]]) -> str:
    """N at which dense / conditional passes 1, between two sizes on a line in the logarithms."""
    if ratios[0][1] >= 1:
        return f"below {ratios[0][0]}"
    for (low, before), (high, after) in pairwise(ratios):
        if after >= 1:
            share = np.log(1 / before) / np.log(after / before)
            return f"{low * (high / low) ** share:.0f}"
    return f"above {ratios[-1][0]}"


def _tolerances(*, small: bool) -> Section:
    """What precision and tolerance of the bases change in one and the same run."""
    N, T = (300, 5.0) if small else (4000, 100.0)
    rows = []
    for dtype, tolerance in (
        ("float64", 1e-10), ("float64", 1e-6), ("float32", 1e-6), ("float32", 1e-5),
        ("float32", 1e-4), ("float32", 1e-3), ("float32", 1e-2),
    ):  # fmt: skip
        case = Case(N, 4.0, T, dtype, tolerance)
        times = (T / 100, T / 10, T)
        found: list[tuple[Drawn, DescentResult]] = []

        def work(case: Case = case, times: tuple[float, ...] = times, found=found) -> None:
            drawn = case.draw("conditional")
            found.append((drawn, case.descend(drawn, times)))

        seconds = core_seconds(work)
        drawn, run = found[0]
        overlaps = [drawn.landscape.overlap(run.path[:, k], OWNER)[0] for k in range(3)]
        _, predictions = drawn.landscape.gradient(run.w, OWNER)
        rows.append(
            [
                dtype, f"{tolerance:g}", f"{drawn.landscape.directions[0]}",
                f"{run.gradients[0]}", *(f"{m:.5f}" for m in overlaps),
                f"{drawn.landscape.loss(predictions, OWNER)[0]:.5f}",
                f"{_orthogonality(drawn):.1e}", f"{seconds:.2f}",
            ]
        )  # fmt: skip
    text = (
        f"N = {N}, α = 4, one instance: the random numbers are the same, so rows agree until "
        "rounding or a direction left out parts them. `orthogonality`: largest entry of V Vᵀ − 1."
    )
    columns = [
        "bases", "tol", "k", "gradients", f"m at t = {T / 100:g}", f"{T / 10:g}", f"{T:g}",
        "final loss", "orthogonality", "s",
    ]  # fmt: skip
    return Section("Precision and tolerance of the bases", text, columns, rows)


def _orthogonality(drawn: Drawn) -> float:
    operator = drawn.landscape.operators[0]
    k = operator.directions
    gram = np.zeros((k, k))
    for _, _, p in operator._bases.sweep(k):
        left = operator._directions.rows @ p.astype(np.float64)
        gram += left @ left.T
    known = gram.diagonal() > 0.5  # the coordinates of the start brought none
    return float(np.abs(gram - np.eye(k))[np.ix_(known, known)].max())


def _snapshots(*, small: bool) -> Section:
    """Directions that the lowest two eigenpairs ask for."""
    N, T = (300, 5.0) if small else (10**4, 100.0)
    case, rows = Case(N, 4.0, T), []
    times = (0.0, T / 100, T / 10, T)
    for residual in (2e-4, 1e-2, 3e-2):
        drawn = case.draw("conditional")
        run = case.descend(drawn, times)
        drawn = replace(drawn, landscape=replace(drawn.landscape, residual=residual))
        drawn.landscape.keep()
        before = drawn.landscape.directions[0]
        for k, t in enumerate(times):
            if not np.isfinite(run.path[0, k, 0]):
                continue
            found = []

            def work(k: int = k, drawn=drawn, run=run, found=found) -> None:
                path, probes = run.path[:, k], drawn.probes
                found.append(hessian_snapshot(drawn.landscape, path, OWNER, probes))

            seconds = core_seconds(work)
            snapshot = found[0]
            rows.append(
                [
                    f"{residual:g}", f"{t:g}", f"{snapshot.products[0]}",
                    f"{drawn.landscape.directions[0] - before}", f"{snapshot.lambda1[0]:.4f}",
                    f"{snapshot.lambda2[0]:.4f}", f"{snapshot.alignment[0]:.4f}",
                    f"{snapshot.residual[0]:.1e}", f"{seconds:.2f}",
                ]
            )  # fmt: skip
    text = (
        f"N = {N}, α = 4, after a descent to T = {T:g} that asked for {before} directions. Blocks "
        "ask for a residual of 1e-2. Each snapshot continues from those of the descent, and is "
        "forgotten before the next: another part of X, so that λ differs between the residuals by "
        "its spread over instances too."
    )
    columns = ["residual", "t", "products", "directions", "λ₁", "λ₂", "alignment", "found", "s"]
    return Section("What a snapshot of the Hessian adds", text, columns, rows)
