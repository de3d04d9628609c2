"""Drivers, workers and schedulers that are killed, interrupted, or retire: nothing is lost."""

import os
import random
import signal
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from clusters import (
    SMALL,
    WORKERS,
    Cluster,
    finish,
    kill_group,
    numbers,
    run,
    status,
    wait_until_some_are_done,
)
from pipeline.campaign import load_campaign
from pipeline.plan import make_plan
from pipeline.prediction import predict_cost

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("repetition", range(3))
def test_a_killed_driver_loses_only_what_was_under_way(
    tmp_path: Path, uninterrupted: xr.Dataset, repetition: int
) -> None:
    """SIGKILL at a random moment, then the same command again."""
    path = tmp_path / "killed.zarr"
    process = run(path, "--workers", str(WORKERS))
    wait_until_some_are_done(path, process)
    time.sleep(random.Random(repetition).uniform(0.0, 3.0))
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(2)  # the workers notice that their driver is gone

    marked = xr.open_zarr(path, chunks=None).status.load()
    written = xr.open_zarr(path, chunks=None).seconds.load()
    computed_but_not_marked = (marked == 0) & np.isfinite(written)
    chunks = computed_but_not_marked.any("init").coarsen(seed=16, boundary="pad").max()
    lost_units = int(chunks.sum())

    before = status(path)
    process = run(path, "--workers", str(WORKERS))
    printed = finish(process)
    assert f"{before['done']} done before, {before['pending']} to do" in printed
    # a unit groups chunks; what one worker had under way is one unit
    assert lost_units <= WORKERS * _largest_unit(path)
    xr.testing.assert_identical(numbers(path), uninterrupted)


def _largest_unit(path: Path) -> int:
    campaign = load_campaign("quickstart", [text for text in SMALL if text != "--set"])
    none = path.parent / "none.zarr"
    plan = make_plan(campaign, none, predict_cost(campaign, none))
    return max(len(unit.chunks) for unit in plan.units)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_cleanly_and_says_how_to_resume(
    tmp_path: Path, uninterrupted: xr.Dataset, number: signal.Signals
) -> None:
    path = tmp_path / "stopped.zarr"
    process = run(path)
    wait_until_some_are_done(path, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: the workers get it too
    else:
        os.kill(process.pid, number)
    asked = time.monotonic()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert time.monotonic() - asked < 20
    assert "To resume:" in printed
    assert "Traceback" not in printed
    assert not status(path)["running"]
    process = run(path)
    finish(process)
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_all_workers_killed_and_others_started(
    tmp_path: Path, cluster: Cluster, uninterrupted: xr.Dataset
) -> None:
    path = tmp_path / "campaign.zarr"
    process = run(path, "--scheduler-file", str(cluster.file))
    wait_until_some_are_done(path, process)
    for worker in cluster.workers:
        kill_group(worker)
    time.sleep(2)
    assert process.poll() is None  # it waits
    cluster.restart_what_died()
    finish(process)
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_a_killed_scheduler_stops_the_sweep_resumable(
    tmp_path: Path, cluster: Cluster, uninterrupted: xr.Dataset
) -> None:
    path = tmp_path / "campaign.zarr"
    process = run(path, "--scheduler-file", str(cluster.file))
    wait_until_some_are_done(path, process)
    cluster.scheduler.kill()
    cluster.scheduler.wait()
    printed = finish(process, 4)
    assert "Stopped: the scheduler is gone" in printed
    assert "To resume:" in printed
    assert "Traceback" not in printed
    done = status(path)
    assert done["quarantined"] == 0
    assert done["done"] > 0
    cluster.restart_what_died()
    process = run(path, "--scheduler-file", str(cluster.file))
    printed = finish(process)
    assert f"{done['done']} done before" in printed
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_a_scheduler_that_comes_back_goes_on(
    tmp_path: Path, cluster: Cluster, uninterrupted: xr.Dataset
) -> None:
    path = tmp_path / "campaign.zarr"
    process = run(path, "--scheduler-file", str(cluster.file))
    wait_until_some_are_done(path, process)
    cluster.scheduler.kill()
    cluster.scheduler.wait()
    for worker in cluster.workers:
        kill_group(worker)
    cluster.restart_what_died()
    printed = finish(process)
    assert "TaskLostError" in printed
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_workers_that_retire_cost_only_time(tmp_path: Path, uninterrupted: xr.Dataset) -> None:
    """A walltime: each worker leaves after some seconds, and another one comes."""
    retiring = ("--lifetime", "6s", "--lifetime-stagger", "2s")
    path = tmp_path / "campaign.zarr"
    with closing(Cluster(tmp_path, workers=0)) as cluster:
        cluster.workers = [cluster.start_worker(*retiring) for _ in range(WORKERS)]
        process = run(path, "--scheduler-file", str(cluster.file))
        retired = 0
        while process.poll() is None:
            for place, worker in enumerate(cluster.workers):
                if worker.poll() is not None:
                    retired += 1
                    cluster.workers[place] = cluster.start_worker(*retiring)
            time.sleep(0.2)
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
        assert retired >= 2
        assert "WorkerDiedError" not in printed
    xr.testing.assert_identical(numbers(path), uninterrupted)
