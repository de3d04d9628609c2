"""From a campaign and a place to a finished store: plan, cluster, ledger, sweep."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xarray as xr
from rich.console import Console

from pipeline.campaign import Campaign
from pipeline.cluster import ClusterError, connect, limit_blas_threads
from pipeline.cost import calibrated_cost
from pipeline.executors import ClusterExecutor, Executor, InlineExecutor
from pipeline.kernel.block import KERNEL_VERSION
from pipeline.plan import make_plan
from pipeline.progress import SweepProgress
from pipeline.provenance import check_store, open_ledger
from pipeline.sweep import Sweep
from pipeline.work import Recipe, run_unit
from pipeline.worker_arrays import choose_arrays, worker_arrays
from store.reduced import write_reduced


@dataclass(frozen=True)
class Launched:
    """What a launch leaves.

    Parameters
    ----------
    reduced : xarray.Dataset
        Reductions of the whole store.
    quarantined : int
        Runs that this sweep gave up.
    """

    reduced: xr.Dataset
    quarantined: int


def launch(
    campaign: Campaign,
    path: Path,
    *,
    console: Console,
    scheduler: str | None = None,
    scheduler_file: Path | None = None,
    workers: int | None = None,
    arrays: str | None = None,
) -> Launched:
    """Run what is pending of a campaign in the store at `path`, which is created or grown.

    Parameters
    ----------
    campaign : Campaign
    path : Path
    console : rich.console.Console
        Where progress goes.
    scheduler : str, optional
        Address of a Dask scheduler, `threads` for workers in this process, or `synchronous` for no
        workers at all; by default an embedded cluster of processes.
    scheduler_file : Path, optional
        Scheduler file of a running cluster.
    workers : int, optional
        Workers of the embedded cluster; by default one per core.
    arrays : str, optional
        Array library of the workers started here; by default as Dask's configuration says.

    Raises
    ------
    StoreMismatchError, StoreLockedError, ClusterError, ArrayLibraryError, FileNotFoundError,
    PermissionError
        Before anything is written.
    """
    running = scheduler_file or (scheduler if scheduler not in ("threads", "synchronous") else None)
    if arrays is not None and running is not None:
        raise ClusterError(
            f"expected no array library for the cluster at {os.fspath(running)!r}, whose workers "
            f"have their own, got {arrays!r}; leave it out, and start the workers with "
            f"DASK_HESSCAPE__ARRAYS={arrays}"
        )
    _check_place(path)
    if path.exists():
        check_store(campaign, path)
    with (
        choose_arrays(arrays),
        _executor(scheduler, scheduler_file, workers, console) as executor,
    ):
        check_workers(executor, path)
        return _sweep(campaign, path, executor, console)


def _check_place(path: Path) -> None:
    folder = path.resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"store {os.fspath(path)!r}: expected a folder {os.fspath(folder)!r} to put it in, "
            "got none; make it, or choose another place with --store PATH"
        )
    if not os.access(path if path.exists() else folder, os.W_OK | os.X_OK):
        raise PermissionError(
            f"store {os.fspath(path)!r}: expected a place to write, got one that is read-only; "
            "change its permissions, or choose another place with --store PATH"
        )


def check_workers(executor: Executor, path: Path) -> None:
    """Refuse workers whose numbers would differ or that cannot write where the store is.

    Raises
    ------
    ClusterError
        With what is wrong on each worker, by name.
    """
    folder = os.fspath(path.resolve().parent)
    problems = []
    for worker, answer in executor.run_everywhere(_describe_worker, folder).items():
        if isinstance(answer, BaseException):
            problems.append(f"{worker}: cannot run hesscape ({type(answer).__name__}: {answer})")
        elif answer["kernel_version"] != KERNEL_VERSION:
            problems.append(
                f"{worker}: expected kernel version {KERNEL_VERSION!r}, "
                f"got {answer['kernel_version']!r}"
            )
        elif not answer["writable"]:
            problems.append(
                f"{worker}: expected the driver's folder {folder!r}, cannot write there"
            )
    if problems:
        lines = "\n  ".join(problems)
        raise ClusterError(
            f"workers that cannot take part:\n  {lines}\n"
            "install this hesscape there, and use a store on a file system that all of them share"
        )


def _describe_worker(folder: str) -> dict[str, object]:
    worker_arrays()  # raises where the worker has not what it should compute with
    return {"kernel_version": KERNEL_VERSION, "writable": os.access(folder, os.W_OK | os.X_OK)}


def _sweep(campaign: Campaign, path: Path, executor: Executor, console: Console) -> Launched:
    cost = calibrated_cost(campaign)
    with open_ledger(campaign, path) as ledger:
        todo = make_plan(campaign, path, cost)
        console.print(
            f"{todo.wanted} runs in {path}: {todo.wanted - todo.runs} done before, "
            f"{todo.runs} to do in {len(todo.units)} tasks, "
            f"about {todo.core_seconds / 60:.1f} core-minutes",
            soft_wrap=True,
        )
        where = os.fspath(path.resolve())
        work = partial(run_unit, where, Recipe.of(campaign))
        with SweepProgress(console, todo.runs, todo.core_seconds) as progress:
            reduced = Sweep(ledger, where, work, executor, progress).run(todo.units)
        write_reduced(path, reduced)
    return Launched(reduced, progress.quarantined)


@contextmanager
def _executor(
    scheduler: str | None, scheduler_file: Path | None, workers: int | None, console: Console
) -> Iterator[Executor]:
    if scheduler == "synchronous":
        with limit_blas_threads():
            yield InlineExecutor()
        return
    with connect(scheduler, scheduler_file, workers) as client:
        threads = client.nthreads()
        console.print(
            f"cluster of {sum(threads.values())} workers, dashboard {client.dashboard_link}",
            soft_wrap=True,
        )
        yield ClusterExecutor(client)
