"""From a campaign and a place to a finished store: plan, cluster, ledger, sweep."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic

import xarray as xr
from rich.console import Console

from pipeline.admission import Admission
from pipeline.campaign import Campaign
from pipeline.cluster import Resources, connect, limit_blas_threads
from pipeline.executors import ClusterExecutor, Executor, InlineExecutor
from pipeline.plan import make_plan
from pipeline.prediction import predict_cost
from pipeline.progress import SweepProgress
from pipeline.provenance import check_store, open_ledger
from pipeline.rounds import Rounds
from pipeline.sweep import Sweep
from pipeline.work import Recipe, run_unit
from pipeline.worker_arrays import choose_arrays, worker_arrays
from store.ledger import counts
from store.place import StorePath, check_writable, is_there, resolve_path, show_path
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
    left : int
        Runs that the budget left pending.
    """

    reduced: xr.Dataset
    quarantined: int
    left: int


def launch(
    campaign: Campaign,
    path: StorePath,
    *,
    console: Console,
    resources: Resources | None = None,
    budget: float = math.inf,
    accept_kernel_version: bool = False,
) -> Launched:
    """Run what is pending of a campaign in the store at `path`, which is created or grown.

    Parameters
    ----------
    campaign : Campaign
    path : str or PathLike
    console : rich.console.Console
        Where progress goes.
    resources : Resources, optional
        Where to run; by default an embedded cluster of processes, one a core.
    budget : float
        Seconds from now within which the sweep is to end: no unit is started that is predicted to
        take longer than what is left of them.
    accept_kernel_version : bool
        Whether to add to a store of another kernel version; each run tells which it is from.

    Raises
    ------
    StoreMismatchError, StoreLockedError, ClusterError, ArrayLibraryError, FileNotFoundError,
    PermissionError
        Before anything is written.
    StoreWriteError
        If the store cannot be written any more.
    ClusterError
        If the cluster is lost.
    """
    deadline = monotonic() + budget
    check_writable(path)
    if is_there(path):
        check_store(campaign, path, accept_kernel_version=accept_kernel_version)
    resources = resources or Resources()
    with choose_arrays(resources.arrays):
        cost = predict_cost(campaign, path)  # trials are timed before the workers start
        with (
            _executor(resources, path, console) as executor,
            open_ledger(campaign, path, accept_kernel_version=accept_kernel_version) as ledger,
        ):
            where = resolve_path(path)
            rounds = Rounds(campaign, ledger, where, cost) if campaign.sampling else None
            todo = rounds.start() if rounds else make_plan(campaign, path, cost)
            console.print(
                f"{todo.wanted} runs in {show_path(path)}: {todo.wanted - todo.runs} done before, "
                f"{todo.runs} to do in {len(todo.units)} tasks, "
                f"about {todo.core_seconds / 60:.1f} core-minutes",
                soft_wrap=True,
            )
            work = partial(run_unit, where, Recipe.of(campaign))
            with SweepProgress(console, todo.runs, todo.core_seconds) as progress:
                more = rounds.more if rounds else None
                sweep = Sweep(ledger, where, work, executor, progress, deadline=deadline, more=more)
                reduced = sweep.run(todo.units)
            left = counts(path)["pending"] if rounds else todo.runs - progress.ended
            write_reduced(path, reduced)
    return Launched(reduced, progress.quarantined, left)


@contextmanager
def _executor(resources: Resources, path: StorePath, console: Console) -> Iterator[Executor]:
    if resources.scheduler == "synchronous":
        worker_arrays()  # raises where this process has not what it should compute with
        with limit_blas_threads():
            yield InlineExecutor()
        return
    with connect(resources) as client:
        say = partial(console.print, style="yellow", soft_wrap=True, highlight=False, markup=False)
        executor = ClusterExecutor(client, Admission(resolve_path(path)), say)
        console.print(
            f"cluster of {len(client.nthreads())} workers, dashboard {client.dashboard_link}",
            soft_wrap=True,
        )
        yield executor
