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
from pipeline.cluster import connect, limit_blas_threads
from pipeline.cost import calibrated_cost
from pipeline.executors import ClusterExecutor, Executor, InlineExecutor
from pipeline.plan import make_plan
from pipeline.progress import SweepProgress
from pipeline.provenance import check_store, open_ledger
from pipeline.sweep import Sweep
from pipeline.work import Recipe, run_unit
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

    Raises
    ------
    StoreMismatchError, StoreLockedError, ClusterError
        Before anything is written.
    """
    if path.exists():
        check_store(campaign, path)
    cost = calibrated_cost(campaign)
    with (
        _executor(scheduler, scheduler_file, workers, console) as executor,
        open_ledger(campaign, path) as ledger,
    ):
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
            f"cluster of {sum(threads.values())} workers, "
            f"dashboard {client.dashboard_link}",
            soft_wrap=True,
        )
        yield ClusterExecutor(client)
