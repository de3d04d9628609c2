"""Campaigns on real clusters and under real kills: nothing is lost, nothing is wrong."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.campaign import load_campaign
from pipeline.cost import calibrated_cost
from pipeline.plan import make_plan

pytestmark = pytest.mark.slow

HESSCAPE = (sys.executable, "-c", "from pipeline.cli import main; main()")
DASK = (sys.executable, "-m", "dask")
SMALL = ("--set", "grid.seeds=40", "--set", "grid.N=[32,48]", "--set", "dynamics.T=100.0")
WORKERS = 2


def run(path: Path, *arguments: str, **options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*HESSCAPE, "run", "quickstart", "--store", str(path), *SMALL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=path.parent,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )


def status(path: Path) -> dict[str, int]:
    command = [*HESSCAPE, "status", str(path), "--json"]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def numbers(path: Path) -> xr.Dataset:
    cube = xr.open_zarr(path, chunks=None).load()
    assert (cube.status == 1).all()
    return cube.drop_vars("seconds").drop_attrs()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    path = tmp_path_factory.mktemp("uninterrupted") / "whole.zarr"
    process = run(path)
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    return numbers(path)


@pytest.fixture
def scheduler_file(tmp_path: Path) -> Iterator[Path]:
    """A real `dask scheduler` with two real `dask worker` processes."""
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    common = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    address = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    processes = [
        subprocess.Popen(
            [*DASK, "scheduler", "--port", "0", "--scheduler-file", str(file), *address], **common
        )
    ]
    processes += [
        subprocess.Popen(
            [*DASK, "worker", "--scheduler-file", str(file), "--nthreads", "1", *address], **common
        )
        for _ in range(WORKERS)
    ]
    yield file
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(timeout=30)


@pytest.mark.parametrize("by", ["file", "address"])
def test_an_existing_cluster_gives_the_same_store(
    tmp_path: Path, scheduler_file: Path, uninterrupted: xr.Dataset, by: str
) -> None:
    path = tmp_path / "remote.zarr"
    arguments = ("--scheduler-file", str(scheduler_file))
    if by == "address":
        deadline = time.monotonic() + 30
        while not scheduler_file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        arguments = ("--scheduler", json.loads(scheduler_file.read_text())["address"])
    process = run(path, *arguments)
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    xr.testing.assert_identical(numbers(path), uninterrupted)


@pytest.mark.parametrize("repetition", range(3))
def test_a_killed_driver_loses_only_what_was_under_way(
    tmp_path: Path, uninterrupted: xr.Dataset, repetition: int
) -> None:
    """SIGKILL at a random moment, then the same command again."""
    path = tmp_path / "killed.zarr"
    moment = random.Random(repetition).uniform(5.0, 12.0)
    process = run(path, "--workers", str(WORKERS))
    time.sleep(moment)
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
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    assert f"{before['done']} done before, {before['pending']} to do" in printed
    # a unit groups chunks; what one worker had under way is one unit
    assert lost_units <= WORKERS * _largest_unit(path)
    xr.testing.assert_identical(numbers(path), uninterrupted)


def _largest_unit(path: Path) -> int:
    campaign = load_campaign("quickstart", [text for text in SMALL if text != "--set"])
    plan = make_plan(campaign, path.parent / "none.zarr", calibrated_cost(campaign))
    return max(len(unit.chunks) for unit in plan.units)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_cleanly_and_says_how_to_resume(
    tmp_path: Path, uninterrupted: xr.Dataset, number: signal.Signals
) -> None:
    path = tmp_path / "stopped.zarr"
    process = run(path)
    time.sleep(7)
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
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_a_store_can_be_read_and_asked_while_it_fills(tmp_path: Path) -> None:
    path = tmp_path / "live.zarr"
    process = run(path)
    seen = []
    while process.poll() is None:
        if path.exists():
            cube = xr.open_zarr(path, chunks=None).load()
            done = cube.status == 1
            assert np.isfinite(cube.overlap.where(done, 0)).all()
            assert (cube.recovered.where(done, 0) >= 0).all()
            state = status(path)
            seen.append((int(done.sum()), state["running"]))
        time.sleep(0.3)
    process.communicate()
    assert process.returncode == 0
    assert any(0 < count < seen[-1][0] and running for count, running in seen)
    shutil.rmtree(path)
