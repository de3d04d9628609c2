"""Campaigns of many runs: memory, dispatch, status, files; against the plain way of using Dask.

The kernel is left out: blocks take no time, or one second of sleep, so that what is measured is
what hesscape and Dask add to it.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import xarray as xr
from distributed import Client, wait
from reporting import Section, report

from pipeline.admission import Admission
from pipeline.campaign import Campaign, parse_campaign
from pipeline.cluster import Resources, connect
from pipeline.cost import nominal_cost
from pipeline.executors import ClusterExecutor
from pipeline.plan import make_plan
from pipeline.provenance import open_ledger
from pipeline.status import describe_status
from pipeline.sweep import Sweep
from pipeline.work import Receipt, Unit
from store.array_store import create_store, write_block
from store.keys import Block
from store.schema import RESULTS, Status

CAMPAIGN = """
name = "scale"
model = "phase_retrieval"
entropy = 1
[parameters]
a = 1.0
[grid]
alpha = { start = 2.0, stop = 6.0, num = 10 }
N = [8, 16, 24, 32]
seeds = 12500
inits = ["random", "spectral"]
[dynamics]
method = "flow"
T = 10.0
"""
WORKERS = 2


def no_op(seconds: float, path: str | None, unit: Unit) -> list[Receipt]:
    """In place of the kernel: sleep, and write made-up results where a path is given."""
    receipts = []
    for block in unit.blocks:
        time.sleep(seconds)
        if path is not None:
            write_block(path, block, made_up(block))
        status = np.full(block.shape, Status.DONE, dtype=np.int8)
        receipts.append(Receipt(block, status, 0, seconds, (), "here"))
    return receipts


def made_up(block: Block) -> dict[str, np.ndarray]:
    codes = ("recovered", "instances")
    random = np.random.default_rng(block.seeds[0])
    return {
        name: np.ones(block.shape, np.int8) if name in codes else random.random(block.shape)
        for name in RESULTS
    }


class WithoutReductions(ClusterExecutor):
    """Runs units, and leaves out what comes after them."""

    def submit(self, key: str, function: Callable[..., object], *arguments: object) -> None:
        units = isinstance(function, partial)
        super().submit(key, function if units else nothing, *(arguments if units else ()))


def nothing() -> xr.Dataset:
    return xr.Dataset()


class Meter:
    """Watches a sweep: resident memory of this process, which has driver and scheduler."""

    def __init__(self, blocks: int, points: int) -> None:
        self.curve: list[tuple[float, float]] = []
        self._blocks, self._points, self._done = blocks, points, 0
        self._process = psutil.Process()

    def received(self, unit: Unit, receipts: list[Receipt]) -> None:
        self._done += len(receipts)
        if self._done * self._points >= self._blocks * len(self.curve):
            self.curve.append((self._done / self._blocks, self._process.memory_info().rss / 2**20))

    def retries(self, unit: Unit, error: BaseException) -> None:
        raise error

    def gave_up(self, unit: Unit, error: BaseException) -> None:
        raise error


def campaign_of(seeds: int, *overrides: str) -> Campaign:
    return parse_campaign(CAMPAIGN, source="scale", overrides=[f"grid.seeds={seeds}", *overrides])


def sweep(
    campaign: Campaign, path: Path, *, seconds: float = 0.0, writes: bool = False
) -> tuple[float, int, Meter]:
    """Seconds and blocks of a whole sweep on the embedded cluster, a task for each block."""
    if not path.exists():
        create_store(
            path,
            campaign.grid_labels(),
            campaign.measurements(),
            block_seeds=16,
            attributes={"physics": campaign.physics(), "kernel_version": "1", "revisions": [{}]},
        )
    with (
        connect(Resources(workers=WORKERS)) as client,
        open_ledger(campaign, path, accept_kernel_version=True) as ledger,
    ):
        planned = make_plan(campaign, path, nominal_cost(campaign)).units
        units = [Unit((chunk,), seconds) for unit in planned for chunk in unit.chunks]
        meter = Meter(sum(len(unit.blocks) for unit in units), 10)
        work = partial(no_op, seconds, str(path) if writes else None)
        executor = WithoutReductions(client, Admission(str(path)), print)
        running = Sweep(ledger, str(path), work, executor, meter)
        began = time.perf_counter()
        running.run(units)
        return time.perf_counter() - began, len(units), meter


def count_files(path: Path) -> int:
    return sum(file.is_file() for file in path.rglob("*"))


def best(call: object, times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()  # type: ignore[operator]
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measure_ours(folder: Path, seeds: int) -> list[Section]:
    campaign = campaign_of(seeds)
    path = folder / "scale.zarr"
    seconds, blocks, meter = sweep(campaign, path)
    runs = int(np.prod(campaign.grid_labels().shape))
    curve = Section(
        "Memory while a campaign runs",
        f"{runs} runs in {blocks} blocks of 32, a task each, no kernel and no data written; "
        f"embedded cluster of {WORKERS} workers. Resident memory of the process that is driver and "
        "scheduler. What it keeps are the units to do and the status of all runs.",
        ["done", *(f"{share:.0%}" for share, _ in meter.curve)],
        [["MiB", *(f"{size:.0f}" for _, size in meter.curve)]],
    )
    half = campaign_of(2 * seeds)
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "status", str(path)]
    rows = [
        ["dispatch and marking of a block", f"{1e3 * seconds / blocks:.2f} ms"],
        ["state of the store, read", f"{best(lambda: describe_status(path)):.3f} s"],
        [
            "`hesscape status`, with the start of Python",
            f"{best(lambda: subprocess.run(command, check=True, capture_output=True)):.2f} s",
        ],
        [
            "plan of a resume, everything done",
            f"{best(lambda: make_plan(campaign, path, nominal_cost(campaign))):.3f} s",
        ],
        [
            f"plan of an extension to {2 * runs} runs",
            f"{best(lambda: make_plan(half, path, nominal_cost(half))):.3f} s",
        ],
    ]
    return [curve, Section("What a large campaign costs beside its blocks", "", ["", ""], rows)]


def measure_second_blocks(folder: Path, blocks: int) -> Section:
    """Overhead of blocks of one second, with their results written."""
    campaign = campaign_of(16 * blocks, "grid.alpha=[2.0]", "grid.N=[8]")
    seconds, count, _ = sweep(campaign, folder / "second.zarr", seconds=1.0, writes=True)
    ideal = count / WORKERS
    return Section(
        "Blocks of one second",
        f"{count} blocks of 32 runs that sleep for 1 s and write their results, on {WORKERS} "
        "workers; the rest is dispatch, writing with fsync, and marking.",
        ["ideal", "measured", "overhead"],
        [[f"{ideal:.1f} s", f"{seconds:.1f} s", f"{seconds / ideal - 1:.1%}"]],
    )


def plain_job(path: str, place: tuple[int, int, int, int]) -> None:
    """One run, written to its place in a Zarr store by xarray."""
    dims = ("alpha", "N", "seed", "init")
    values = {name: (dims, np.full((1, 1, 1, 1), 1.0)) for name in RESULTS}
    region = {dim: slice(i, i + 1) for dim, i in zip(dims, place, strict=True)}
    xr.Dataset(values).to_zarr(path, region=region, consolidated=False)


def plain(folder: Path, runs: int) -> tuple[float, int, float]:
    """`client.map` over all runs, chunks of one run; seconds, files, MiB gained."""
    path = folder / "plain.zarr"
    shape = (1, 1, runs, 1)
    dims = ("alpha", "N", "seed", "init")
    empty = {name: (dims, np.full(shape, np.nan)) for name in RESULTS}
    encoding = {name: {"chunks": (1, 1, 1, 1)} for name in RESULTS}
    xr.Dataset(empty).to_zarr(path, encoding=encoding, compute=False, consolidated=False)
    options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with Client(**options) as client:
        before = psutil.Process().memory_info().rss
        began = time.perf_counter()
        futures = client.map(
            partial(plain_job, str(path)), [(0, 0, i, 0) for i in range(runs)], pure=False
        )
        wait(futures)
        seconds = time.perf_counter() - began
        gained = psutil.Process().memory_info().rss - before
    return seconds, count_files(path), gained / 2**20


def plain_memory(tasks: int) -> float:
    """KiB of driver and scheduler for each task of `client.map`, without any work."""
    options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with Client(**options) as client:
        before = psutil.Process().memory_info().rss
        futures = client.map(int, range(tasks), pure=False)
        wait(futures)
        return (psutil.Process().memory_info().rss - before) / tasks / 1024


def measure_plain(folder: Path, runs: int) -> Section:
    seeds = max(16, runs // 2 // 16 * 16)
    campaign = campaign_of(seeds, "grid.alpha=[2.0]", "grid.N=[8]")
    path = folder / "ours.zarr"
    ours, _, meter = sweep(campaign, path, writes=True)
    mine = 2 * seeds
    files = count_files(path)
    seconds, plain_files, _ = plain(folder, runs)
    tasks = 20 * runs
    per_task = plain_memory(tasks)
    return Section(
        "Against the plain way",
        f"No kernel, results written. hesscape: {mine} runs in blocks of 32. Plain: `client.map` "
        f"over {runs} runs, each with its own `to_zarr(region=…)` into chunks of one run (chunks "
        "shared by several tasks would lose data), without fsync, checksum or status; its memory "
        f"from {tasks} tasks that do nothing. The plain way is measured at this size because at "
        "10⁶ runs it would take hours and millions of files; both are in proportion to the runs.",
        ["", "hesscape", "plain"],
        [
            ["time of a run", f"{1e3 * ours / mine:.2f} ms", f"{1e3 * seconds / runs:.2f} ms"],
            ["files of a run", f"{files / mine:.2f}", f"{plain_files / runs:.2f}"],
            [
                "driver and scheduler, 10⁶ runs",
                f"{meter.curve[-1][1]:.0f} MiB in all",
                f"{per_task * 1e6 / 1024:.0f} MiB more",
            ],
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="sizes that only show that it works")
    parser.add_argument("--output", type=Path, help="file to write; by default only printed")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sections = measure_ours(folder, 128 if options.small else 12500)
        sections.append(measure_second_blocks(folder, 6 if options.small else 60))
        sections.append(measure_plain(folder, 64 if options.small else 1024))
    shown = ["--small"] if options.small else []
    command = shlex.join(["python", "tests/benchmarks/bench_scale.py", *shown])
    text = report(sections, command, time.perf_counter() - began)
    text = text.replace("# Benchmarks of the kernel", "# Campaigns of many runs", 1)
    text = text.replace("`make bench`; times are core seconds.", "`make bench-scale`.", 1)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
