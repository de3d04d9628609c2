"""What is done, written by one driver at a time.

The status of all runs is one array, kept in memory by the driver and written as a whole. It says
"done" only after the worker's data are on the disk, so that a killed campaign computes again at
most the blocks that were in flight, to the same bytes. Which revision of campaign and software a
run is from is kept the same way. Failures of blocks are kept as attributes of the group ``ledger``,
and below it a copy of each file that only the driver writes, for `store.verify`.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from time import monotonic
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from store.array_store import (
    get_array,
    grow_store,
    open_group,
    read_attributes,
    read_block_seeds,
    read_grid,
    reading,
    update_attributes,
)
from store.chunks import locate_block, pending_blocks
from store.keys import Block, Grid
from store.lock import Lock, StoreLockedError, make_lock
from store.place import StorePath, open_place, read_bytes, show_path, writing
from store.published import copy_files
from store.schema import OF_DRIVER, SchemaError, Status

NO_REVISION = -1
_IDLE_SHARE = 20.0  # times what writing the status takes, between two lazy writes of it


class Ledger:
    """The driver's hold on a store, and its record of what is done.

    Use it as a context manager: it holds the lock from its creation to `close`. The lock file lies
    beside the store, and the operating system frees the lock when its process dies.

    Parameters
    ----------
    path : str or PathLike
        Store to drive.

    Attributes
    ----------
    grid : Grid
        Labels of the store.
    block_seeds : int
        Seeds in a chunk of the store.
    status : ndarray of int8, of the shape of `grid`
        Status of all runs; `mark` changes it, `flush` writes it.
    revision : ndarray of int16, of the same shape
        For each run that has ended, the place of its revision in the attribute ``revisions``.

    Raises
    ------
    StoreLockedError
        If another driver has the store.
    FileNotFoundError
        If there is nothing at `path`.
    SchemaError
        If what is there is not a store of this package.
    """

    grid: Grid
    block_seeds: int
    status: NDArray[np.int8]
    revision: NDArray[np.int16]

    def __init__(self, path: StorePath) -> None:
        self._path = path
        open_group(path)
        self._next_flush = monotonic()
        self._lock = _take_lock(path)
        try:
            self._read()
            self._started = monotonic()
            self._ended_before = count_ended(self.status)
            self._driver = {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": _now(),
                "ended": self._ended_before,
            }
            self._record(driver=self._driver)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what was marked and free the lock, also if writing fails."""
        try:
            self.flush()
            self._record(driver=None)
        finally:
            self._lock.release()

    def pending(self, wanted: Grid) -> list[tuple[Block, ...]]:
        """Blocks to compute for the wanted cells, a tuple for each chunk; see `pending_blocks`."""
        return pending_blocks(self.grid, wanted, self.status, self.block_seeds)

    def mark(self, block: Block, codes: NDArray[np.integer[Any]] | Status) -> None:
        """Set the status of a block's runs in memory.

        Parameters
        ----------
        block : Block
            Block whose data, if any, are on the disk.
        codes : ndarray of int, [seeds, inits] or [seeds, inits, replicas], or Status
            Status of each run, or of all of them.

        Raises
        ------
        SchemaError
            If the codes have another shape or are not codes of `Status`.
        ValueError
            If the block is not in the store.
        """
        array = np.asarray(codes)
        if array.shape not in {(), block.shape} or not np.isin(array, list(Status)).all():
            raise SchemaError(
                f"status of block {block.key}: expected codes of Status, of shape {block.shape}, "
                f"got {codes!r}"
            )
        region, seeds, inits = locate_block(self.grid, block, self.block_seeds)
        cells = np.ix_(seeds, inits)
        self.status[region][cells] = array
        ended = np.isin(array, (Status.DONE, Status.FAILED))
        self.revision[region][cells] = np.where(ended, self._newest, NO_REVISION)
        self._dirty = True

    def flush(self, *, lazily: bool = False) -> None:
        """Write status and revision of all runs, if they have changed; then they are on the disk.

        Parameters
        ----------
        lazily : bool
            Not yet, if the last time was so recent that writing would take a good part of the
            driver's time: that of large campaigns with short blocks.
        """
        if not self._dirty or (lazily and monotonic() < self._next_flush):
            return
        started = monotonic()
        self._lock.check()
        with writing(self._path):
            group = open_group(self._path, mode="r+")
            for name, values in (("revision", self.revision), ("status", self.status)):
                # also where nothing is done (again), so that a missing file always means damage
                array = get_array(group, name).with_config({"write_empty_chunks": True})
                array[:] = values
            copy_files(open_place(self._path), OF_DRIVER)
        since = count_ended(self.status) - self._ended_before
        elapsed = monotonic() - self._started  # not from dates: clocks jump
        self._record(driver=self._driver | {"ended_since": since, "elapsed": elapsed})
        self._dirty = False
        self._next_flush = monotonic() + _IDLE_SHARE * (monotonic() - started)

    def quarantine(
        self, block: Block, *, error: str, traceback: str, worker: str, attempts: int
    ) -> None:
        """Give up on a block: mark it, and record why, at once on the disk.

        Replicas of it that ended before keep their status, as their data are there.

        Parameters
        ----------
        block : Block
            Block that raised or took its worker down.
        error : str
            The error in one line.
        traceback : str
            Traceback of the last attempt.
        worker : str
            Worker of the last attempt.
        attempts : int
            How often it was tried.
        """
        region, seeds, inits = locate_block(self.grid, block, self.block_seeds)
        before = self.status[region][np.ix_(seeds, inits)]
        self.mark(block, np.where(before == Status.PENDING, Status.QUARANTINED, before))
        failure = {
            "key": block.key,
            "block": asdict(block),
            "error": error,
            "traceback": traceback,
            "worker": worker,
            "attempts": attempts,
            "time": _now(),
        }
        others = [record for record in self.failures() if record["key"] != block.key]
        self._record(failures=[*others, failure])
        self.flush()

    def failures(self) -> list[dict[str, Any]]:
        """Records of the quarantined blocks, oldest first."""
        return read_failures(self._path)

    def clear(self) -> int:
        """Make failed and quarantined runs pending again; return how many."""
        cleared = np.isin(self.status, (Status.FAILED, Status.QUARANTINED))
        self._forget(cleared)
        self._record(failures=[])
        return int(cleared.sum())

    def forget(self, chunk: tuple[slice, ...]) -> int:
        """Make the runs of a chunk pending whose data are damaged; return how many had ended."""
        cells = np.zeros(self.status.shape, dtype=bool)
        cells[chunk] = np.isin(self.status[chunk], (Status.DONE, Status.FAILED))
        self._forget(cells)
        return int(cells.sum())

    def _forget(self, cells: NDArray[np.bool_]) -> None:
        self.status[cells] = Status.PENDING
        self.revision[cells] = NO_REVISION
        self._dirty = True
        self.flush()

    def ask(self, cells: NDArray[np.bool_], *, only: bool = False) -> None:
        """Make cells pending that nobody had asked for.

        Parameters
        ----------
        cells : ndarray of bool, of the shape of `grid`
            What is asked for.
        only : bool
            Whether pending cells that are not among them are asked for no more.
        """
        self.status[cells & (self.status == Status.UNASKED)] = Status.PENDING
        if only:
            self.set_aside(~cells)
        self._dirty = True
        self.flush()

    def ask_for(self, wanted: Grid) -> None:
        """Make all cells of a grid pending that nobody had asked for."""
        if (self.status == Status.UNASKED).any():
            cells = np.zeros(self.status.shape, dtype=bool)
            cells[np.ix_(*self.grid.find(wanted))] = True
            self.ask(cells)

    def set_aside(self, cells: NDArray[np.bool_]) -> None:
        """Ask no more for those of the cells that are pending."""
        self.status[cells & (self.status == Status.PENDING)] = Status.UNASKED
        self._dirty = True
        self.flush()

    def update_attributes(self, attributes: Mapping[str, object]) -> None:
        """Add or replace attributes of the root under the lock; see `update_attributes`."""
        self._lock.check()
        update_attributes(self._path, attributes)
        self._read()

    def grow(
        self,
        grid: Grid,
        measurements: NDArray[np.integer[Any]],
        attributes: Mapping[str, object],
    ) -> None:
        """Append labels to the store under the lock; see `grow_store`.

        A chunk with a block in flight may get new pending cells: its next block must wait.
        """
        self.flush()
        grow_store(self._path, grid, measurements, attributes)
        self._read()

    def _read(self) -> None:
        self.grid = read_grid(self._path)
        self.block_seeds = read_block_seeds(self._path)
        self.status = read_status(self._path)
        with reading(self._path):
            revision = get_array(open_group(self._path), "revision")[:]
        self.revision = np.array(revision, dtype=np.int16)
        self._newest = len(read_attributes(self._path).get("revisions", [])) - 1
        self._dirty = False

    def _record(self, **attributes: object) -> None:
        """Replace attributes of the group ``ledger``."""
        self._lock.check()
        with writing(self._path):
            place = open_place(self._path)
            group = zarr.open_group(place, path="ledger", mode="a", use_consolidated=False)
            group.update_attributes(attributes)


@contextmanager
def hold_store(path: StorePath) -> Iterator[None]:
    """Keep drivers away from a store, also from one whose ledger cannot be read.

    Raises
    ------
    StoreLockedError
        If a driver has the store.
    """
    lock = _take_lock(path)
    try:
        yield
    finally:
        lock.release()


def _take_lock(path: StorePath) -> Lock:
    lock = make_lock(path)
    with writing(path):
        held = lock.acquire()
    if not held:
        raise StoreLockedError(
            f"{show_path(path)}: expected no other driver, got one at work "
            f"({_describe_driver(path)}); wait for it or stop it, then run again"
        )
    return lock


def read_failures(path: StorePath) -> list[dict[str, Any]]:
    """Records of the quarantined blocks, oldest first; needs no lock.

    Each has ``key``, ``block`` (fields of `Block`), ``error``, ``traceback``, ``worker``,
    ``attempts`` and ``time`` (UTC).
    """
    return list(_read_record(path).get("failures", []))


def read_driver(path: StorePath) -> dict[str, Any] | None:
    """Driver at work on a store, or None; a driver that was killed is not at work.

    It has ``host``, ``pid``, ``started`` (UTC) and ``ended``, the number of runs that were not
    pending when it began; after its first marks also ``ended_since`` and ``elapsed``, in seconds of
    a clock that does not jump.
    """
    driver: dict[str, Any] | None = _read_record(path).get("driver")
    return driver if driver is not None and make_lock(path).is_held() else None


def counts(path: StorePath) -> dict[str, int]:
    """Number of runs ``pending``, ``done``, ``failed``, ``quarantined``; needs no lock.

    Of runs that campaigns have asked for: not all cells of an adaptive campaign's store are.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    SchemaError
        If what is there is not a store of this package, or is damaged.
    """
    numbers = np.bincount(read_status(path).ravel(), minlength=len(Status))
    asked = [status for status in Status if status is not Status.UNASKED]
    return {status.name.lower(): int(numbers[status]) for status in asked}


def count_ended(status: NDArray[np.int8]) -> int:
    """Number of runs that are asked for and not pending."""
    return int(np.count_nonzero((status != Status.PENDING) & (status != Status.UNASKED)))


def read_status(path: StorePath) -> NDArray[np.int8]:
    """Status of all runs, in the order of the store; needs no lock, raises as `counts`.

    The axes are those of the cube.
    """
    with reading(path):
        return np.array(get_array(open_group(path), "status")[:], dtype=np.int8)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_record(path: StorePath) -> dict[str, Any]:
    place = open_place(path, read_only=True)
    if read_bytes(place, "ledger/zarr.json") is None:
        return {}
    return dict(zarr.open_group(place, path="ledger", mode="r", use_consolidated=False).attrs)


def _describe_driver(path: StorePath) -> str:
    driver = read_driver(path)
    return f"process {driver['pid']} on {driver['host']}" if driver else "process not known yet"
