"""Disks that are full or read-only, two drivers, a clock that jumps: nothing is lost."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libfaketime
import pytest
import xarray as xr

from clusters import finish, numbers, run, status, wait_until_some_are_done
from store.verify import verify_store

pytestmark = pytest.mark.slow


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own, in memory."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill_up(file: Path) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as other:
        while other.write(bytes(1 << 12)):
            pass


def test_a_full_disk_stops_the_sweep_and_the_next_one_completes_it(
    tmp_path: Path, uninterrupted: xr.Dataset
) -> None:
    with small_disk(tmp_path / "disk", "30m") as disk:
        path = disk / "campaign.zarr"
        process = run(path)
        wait_until_some_are_done(path, process)
        fill_up(disk / "other data")
        printed = finish(process, 4)
        assert "No space left on device" in printed
        assert "Make room or restore access, then give the same command" in printed
        assert "Traceback" not in printed
        (disk / "other data").unlink()
        before = status(path)
        assert before["quarantined"] == 0
        assert before["pending"] > 0
        process = run(path)
        printed = finish(process)
        assert f"{before['done']} done before" in printed
        assert verify_store(path).damages == []
        xr.testing.assert_identical(numbers(path), uninterrupted)


def test_a_disk_too_small_for_a_store_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        process = run(disk / "campaign.zarr")
        printed = finish(process, 4)
        assert "No space left on device" in printed
        assert "nothing had begun" in printed
        assert not [file for file in disk.iterdir() if file.suffix != ".lock"]


def test_a_store_made_read_only_stops_the_sweep_and_the_next_one_completes_it(
    tmp_path: Path, uninterrupted: xr.Dataset
) -> None:
    with small_disk(tmp_path / "disk", "50m") as disk:
        path = disk / "campaign.zarr"
        process = run(path)
        wait_until_some_are_done(path, process)
        # the store alone: what has open files, as the lock beside it, is not made read-only
        subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        printed = finish(process, 4)
        assert "Read-only file system" in printed
        process = run(path)
        printed = finish(process, 2)
        assert "read-only" in printed
        subprocess.run(["umount", str(path)], check=True)
        process = run(path)
        finish(process)
        xr.testing.assert_identical(numbers(path), uninterrupted)


def test_of_two_drivers_one_is_refused(tmp_path: Path, uninterrupted: xr.Dataset) -> None:
    path = tmp_path / "campaign.zarr"
    first = run(path)
    wait_until_some_are_done(path, first)
    second = run(path, "--workers", "1")
    printed = finish(second, 2)
    assert f"got one at work (process {first.pid} on " in printed
    finish(first)
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_two_drivers_at_the_same_moment_make_one_store(
    tmp_path: Path, uninterrupted: xr.Dataset
) -> None:
    path = tmp_path / "campaign.zarr"
    pair = [run(path, "--workers", "1") for _ in range(2)]
    ended = [process.communicate(timeout=400)[0] for process in pair]
    assert sorted(process.returncode for process in pair) == [0, 2], ended
    xr.testing.assert_identical(numbers(path), uninterrupted)


@pytest.mark.parametrize("jump", ["+3d", "-3d"])
def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, uninterrupted: xr.Dataset, jump: str
) -> None:
    """The date of driver and workers jumps by three days while they work."""
    path = tmp_path / "campaign.zarr"
    clock = tmp_path / "clock"
    clock.write_text("+0d")
    library = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
    faked = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # else threads that wait for Python's lock wake up at once, and all is ten times slower
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
    process = run(path, env=faked)
    done = wait_until_some_are_done(path, process)
    clock.write_text(jump)
    seen = []
    while process.poll() is None:
        state = status(path)
        if state["running"] and state["rate"] is not None and state["done"] > done:
            seen.append(state["rate"])
        time.sleep(0.3)
    finish(process)
    assert seen
    assert 1.0 < min(seen) < max(seen) < 1e5  # runs/s, not runs in three days
    xr.testing.assert_identical(numbers(path), uninterrupted)
