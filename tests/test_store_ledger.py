"""What is done: written by one driver, seen by all, and never ahead of the data."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from store.array_store import StoreDamagedError, create_store, open_group
from store.keys import Block, Grid
from store.ledger import (
    Ledger,
    counts,
    read_driver,
    read_failures,
    read_status,
)
from store.lock import StoreLockedError
from store.place import StoreWriteError
from store.schema import SchemaError, Status

INITS = ("random", "spectral", "constrained")
GRID = Grid("alpha", (2.5, 1.5), (64,), tuple(range(6)), INITS)
BLOCK = Block("alpha", 1.5, 64, (0, 1, 2, 3), INITS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "campaign.zarr"
    create_store(path, GRID, np.full((2, 1), 100), block_seeds=4, attributes={})
    return path


def give_up(ledger: Ledger, block: Block, error: str = "ValueError: no") -> None:
    ledger.quarantine(block, error=error, traceback="Traceback …", worker="tcp://w", attempts=3)


def test_campaign_is_resumed_where_it_stopped(path: Path) -> None:
    with Ledger(path) as ledger:
        assert (ledger.grid, ledger.block_seeds) == (GRID, 4)
        tasks = ledger.pending(GRID)
        assert len(tasks) == 4
        for blocks in tasks[:3]:
            for block in blocks:
                ledger.mark(block, np.full(block.shape, Status.DONE))
        assert ledger.pending(GRID) == tasks[3:]
    with Ledger(path) as ledger:
        assert ledger.pending(GRID) == tasks[3:]


def test_failed_runs_count_and_are_not_repeated(path: Path) -> None:
    codes = np.full(BLOCK.shape, Status.DONE)
    codes[2, 1] = Status.FAILED
    with Ledger(path) as ledger:
        ledger.mark(BLOCK, codes)
        assert len(ledger.pending(GRID)) == 3
    assert counts(path) == {"pending": 24, "done": 11, "failed": 1, "quarantined": 0}
    status = xr.open_zarr(path).status.sel(alpha=1.5, N=64)
    assert status.dtype == np.int8
    assert status.sel(seed=2, init="spectral") == Status.FAILED


def test_only_what_was_flushed_is_seen(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.mark(BLOCK, Status.DONE)
        assert counts(path)["done"] == 0
        ledger.flush()
        assert counts(path)["done"] == 12


def test_marks_of_ragged_blocks_find_their_cells(path: Path) -> None:
    block = Block("alpha", 2.5, 64, (5, 4), ("constrained", "random"))
    with Ledger(path) as ledger:
        ledger.mark(block, np.array([[1, 2], [3, 1]]))
    status = xr.open_zarr(path).status.sel(alpha=2.5, N=64)
    shown = status.sel(seed=[5, 4], init=["constrained", "random"])
    assert shown.values.tolist() == [[1, 2], [3, 1]]
    assert counts(path)["pending"] == 32


@pytest.mark.parametrize("codes", [np.ones((3, 4), int), np.full((4, 3), 7), np.full((4, 3), 0.5)])
def test_bad_codes_are_refused(path: Path, codes: np.ndarray) -> None:
    with Ledger(path) as ledger:
        with pytest.raises(SchemaError, match=r"seeds=0-3.*expected codes of Status"):
            ledger.mark(BLOCK, codes)
        with pytest.raises(ValueError, match="grow the store"):
            ledger.mark(Block("alpha", 9.0, 64, (0,), INITS), Status.DONE)
        assert not ledger.status.any()


def test_quarantine_is_recorded_at_once_and_cleared_for_a_retry(path: Path) -> None:
    other = Block("alpha", 2.5, 64, (4, 5), INITS)
    with Ledger(path) as ledger:
        assert ledger.failures() == []
        give_up(ledger, BLOCK)
        give_up(ledger, other)
        give_up(ledger, BLOCK, "KilledWorker")
        assert counts(path)["quarantined"] == 18
        assert [record["key"] for record in read_failures(path)] == [other.key, BLOCK.key]
        record = read_failures(path)[1]
        assert (record["error"], record["attempts"]) == ("KilledWorker", 3)
        fields = record["block"]
        again = Block(
            fields["control"],
            fields["value"],
            fields["N"],
            tuple(fields["seeds"]),
            tuple(fields["inits"]),
        )
        assert again == BLOCK
        assert len(ledger.pending(GRID)) == 2

        ledger.mark(Block("alpha", 2.5, 64, (0,), ("random",)), Status.FAILED)
        ledger.mark(Block("alpha", 2.5, 64, (1,), ("random",)), Status.DONE)
        assert ledger.clear() == 19
        assert ledger.failures() == []
    assert counts(path) == {"pending": 35, "done": 1, "failed": 0, "quarantined": 0}


def test_replicas_have_a_status_each_and_are_repeated_together(tmp_path: Path) -> None:
    path = tmp_path / "replicas.zarr"
    grid = replace(GRID, replicas=2)
    block = replace(BLOCK, replicas=2)
    create_store(path, grid, np.full((2, 1), 100), block_seeds=4, attributes={})
    with Ledger(path) as ledger:
        codes = np.full(block.shape, Status.DONE)
        codes[2, 1, 1] = Status.FAILED
        ledger.mark(block, codes)
        with pytest.raises(SchemaError, match=r"of shape \(4, 3, 2\), got"):
            ledger.mark(block, codes[..., 0])
    assert counts(path) == {"pending": 48, "done": 23, "failed": 1, "quarantined": 0}
    status = xr.open_zarr(path).status.sel(alpha=1.5, N=64, seed=2, init="spectral")
    assert status.values.tolist() == [Status.DONE, Status.FAILED]

    with Ledger(path) as ledger:
        assert ledger.clear() == 1
        ((again,), *_) = [task for task in ledger.pending(grid) if task[0].value == 1.5]
        assert again == Block("alpha", 1.5, 64, (2,), ("spectral",), 2)
        give_up(ledger, again)  # the other replica's data are still there
        assert ledger.failures()[0]["key"].endswith("seeds=2,inits=spectral,replicas=2")
    assert counts(path) == {"pending": 48, "done": 23, "failed": 0, "quarantined": 1}


def test_record_of_failures_does_not_disturb_readers(path: Path) -> None:
    with Ledger(path) as ledger:
        give_up(ledger, BLOCK)
        assert xr.open_zarr(path).status.sel(alpha=1.5, seed=0).values.tolist() == [[3, 3, 3]]
        assert list(xr.open_datatree(path, engine="zarr").children) == []


def test_growth_under_the_lock_keeps_marks(path: Path) -> None:
    wanted = Grid("alpha", (2.0,), (64, 128), (0, 7), ("random",))
    with Ledger(path) as ledger:
        ledger.mark(BLOCK, Status.DONE)
        grown = ledger.grid.union(wanted)
        ledger.grow(grown, np.full((3, 2), 100), {"revision": 2})
        assert ledger.grid == grown
        assert ledger.status.shape == grown.shape
        assert len(ledger.pending(wanted)) == 4
    assert counts(path)["done"] == 12


def test_status_is_read_without_the_lock(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.mark(BLOCK, Status.DONE)
        ledger.flush()
        np.testing.assert_array_equal(read_status(path), ledger.status)


# --- the lock


def test_driver_is_seen_while_it_works(path: Path) -> None:
    assert read_driver(path) is None
    with Ledger(path) as ledger:
        ledger.mark(BLOCK, Status.DONE)
    assert read_driver(path) is None
    with Ledger(path):
        driver = read_driver(path)
        assert driver is not None
        assert (driver["pid"], driver["ended"]) == (os.getpid(), 12)


def test_second_driver_in_the_same_process_is_refused(path: Path) -> None:
    with Ledger(path), pytest.raises(StoreLockedError, match="got one at work"):
        Ledger(path)
    with Ledger(path):
        pass


def test_lock_holds_for_other_spellings_of_the_path(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.zarr").symlink_to(path)
    with Ledger(f"{path}/"), pytest.raises(StoreLockedError):
        Ledger(tmp_path / "link.zarr")


DRIVER = """
import sys, time
import numpy as np
from store.ledger import Ledger
from store.keys import Block
from store.schema import Status
with Ledger(sys.argv[1]) as ledger:
    inits = ledger.grid.inits
    ledger.mark(Block("alpha", 1.5, 64, (0, 1, 2, 3), inits), Status.DONE)
    ledger.flush()
    ledger.mark(Block("alpha", 1.5, 64, (4, 5), inits), Status.DONE)
    print("ready", flush=True)
    time.sleep(600)
"""


def test_driver_of_another_process_is_named_and_its_death_frees_the_store(path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "ready\n"
            expected = rf"process {driver.pid} on .*wait for it or stop it, then run again"
            with pytest.raises(StoreLockedError, match=expected):
                Ledger(path)
            assert counts(path)["done"] == 12
            seen = read_driver(path)
            assert seen is not None
            assert (seen["pid"], seen["ended"]) == (driver.pid, 0)
            assert datetime.fromisoformat(seen["started"]) <= datetime.now(UTC)
        finally:
            driver.kill()
    assert read_driver(path) is None
    with Ledger(path) as ledger:
        assert len(ledger.pending(GRID)) == 3


def test_missing_store_is_refused_and_leaves_no_lock_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing there"):
        Ledger(tmp_path / "none.zarr")
    with pytest.raises(FileNotFoundError, match="nothing there"):
        counts(tmp_path / "none.zarr")
    assert not list(tmp_path.iterdir())


def test_lock_is_free_after_a_damaged_status_was_met(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.mark(BLOCK, Status.DONE)
    chunk = path / "status" / "c.0.0.0.0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1])
    with pytest.raises(StoreDamagedError, match=r"checksum.*hesscape verify"):
        Ledger(path)
    chunk.write_bytes(content)
    with Ledger(path) as ledger:
        assert len(ledger.pending(GRID)) == 3


def test_lock_is_free_after_a_write_failed(path: Path) -> None:
    ledger = Ledger(path)
    ledger.mark(BLOCK, Status.DONE)
    shutil.move(path / "status", path / "aside")
    (path / "status").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreWriteError, match="expected to read and write there"):
        ledger.close()
    (path / "status").unlink()
    shutil.move(path / "aside", path / "status")
    with Ledger(path) as again:
        assert len(again.pending(GRID)) == 4
    assert open_group(path)["status"].shape == GRID.shape
