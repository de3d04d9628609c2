"""What the benchmarks share: tables, core seconds, instances, work on both cores."""

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_info

from pipeline.kernel.block import KERNEL_VERSION
from pipeline.kernel.phase_retrieval import PhaseRetrieval, draw_instances, draw_starts

Job = TypeVar("Job")
Result = TypeVar("Result")

_TIMED = "every timing is on one of them unless its section says otherwise"


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Parameters
    ----------
    title : str
    text : str
        What was measured, how, and against what.
    columns : sequence of str
    rows : sequence of sequences of str
        Cells, already formatted.
    """

    title: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"## {self.title}\n\n{self.text}\n\n{table}\n"


def report(sections: Iterable[Section], command: str, seconds: float) -> str:
    """All sections as one markdown text, with the machine and the versions at its head."""
    packages = [name for name in ("numpy", "jax", "torch") if find_spec(name)]
    blas = {f"{pool['internal_api']} {pool['version']}" for pool in threadpool_info()}
    facts = [
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {seconds:.0f} s",
        f"- command: `{command}`",
        f"- processor: {_processor()}, {cores()} cores; {_TIMED}",
        f"- Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + f", {', '.join(sorted(blas))}; kernel version {KERNEL_VERSION}",
        "- the kernel's arrays are NumPy's; no GPU was at hand, so nothing was measured on one",
    ]
    head = "# Benchmarks of the kernel\n\nWritten by `make bench`; times are core seconds.\n"
    return "\n".join([head, *facts, "", *(section.markdown() for section in sections)])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_seconds(call: Callable[[], object], *, spend: float = 0.3, least: int = 3) -> float:
    """Core seconds of the fastest of several calls, after one that warms up."""
    call()
    best, spent, calls = np.inf, 0.0, 0
    while spent < spend or calls < least:
        seconds = core_seconds(call)
        best, spent, calls = min(best, seconds), spent + seconds, calls + 1
    return max(best, time.get_clock_info("process_time").resolution)


def core_seconds(call: Callable[[], object]) -> float:
    """Processor time of one call, over all its threads."""
    start = time.process_time()
    call()
    return time.process_time() - start


def on_all_cores(function: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
    """function(job) for each job, a process per core: for what is counted, not timed."""
    with ProcessPoolExecutor(cores()) as pool:
        return list(pool.map(function, jobs))


@dataclass(frozen=True)
class Instances:
    """Seeded instances of phase retrieval and their replicas w(0).

    Parameters
    ----------
    N, alpha, a : dimension, M/N, parameter of the loss
    seeds, replicas : int
        Instances, and starts on each.
    dtype : str
    """

    N: int
    alpha: float
    a: float
    seeds: int
    replicas: int = 1
    dtype: str = "float64"

    @property
    def measurements(self) -> int:
        """M."""
        return round(self.alpha * self.N)

    @property
    def matrix_bytes(self) -> int:
        """Bytes of one X."""
        return self.measurements * self.N * np.dtype(self.dtype).itemsize

    @property
    def streams(self) -> tuple[np.random.SeedSequence, ...]:
        labels = [(self.N, self.measurements, seed) for seed in range(self.seeds)]
        return tuple(np.random.SeedSequence(7, spawn_key=label) for label in labels)

    @property
    def owner(self) -> np.ndarray:
        """Instance of each start."""
        return np.repeat(np.arange(self.seeds), self.replicas)

    def draw(self) -> PhaseRetrieval:
        return draw_instances(
            self.streams,
            measurements=self.measurements,
            dimension=self.N,
            a=self.a,
            dtype=np.dtype(self.dtype),
        )

    def starts(self, purpose: str = "start") -> np.ndarray:
        """w(0) [seeds × replicas, N]."""
        return draw_starts(self.streams, purpose, self.N, np.dtype(self.dtype), self.replicas)


def percentiles(counts: np.ndarray) -> str:
    """10 %, median, 90 % of some counts."""
    return " / ".join(f"{q:.0f}" for q in np.percentile(counts, [10, 50, 90]))


def own_peak_bytes() -> int:
    """Most memory that this process has had, its parent's apart."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins at the size of the parent
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
