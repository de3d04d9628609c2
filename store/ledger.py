"""What is done, written by one driver at a time.

The status of all runs is one array, kept in memory by the driver and written as a whole. It says
"done" only after the worker's data are on the disk, so that a killed campaign computes again at
most the blocks that were in flight, to the same bytes. Failures of blocks are kept as attributes
of the group ``ledger``.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
import numpy as np
import zarr
from numpy.typing import NDArray

from store.array_store import (
    StorePath,
    get_array,
    grow_store,
    open_group,
    read_block_seeds,
    read_grid,
)
from store.chunks import locate_block, pending_blocks
from store.durable import DurableStore, local_root
from store.keys import Block, Grid
from store.schema import SchemaError, Status

_PATIENCE = 0.5  # seconds; longer than `read_driver` of another process holds the lock


class StoreLockedError(RuntimeError):
    """Another driver is working on the store."""


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

    def __init__(self, path: StorePath) -> None:
        self._path = path
        self._lock = filelock.FileLock(_lock_path(path), timeout=_PATIENCE, thread_local=False)
        open_group(path)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise StoreLockedError(
                f"{local_root(path)}: expected no other driver, got one at work "
                f"({_describe_driver(path)}); wait for it or stop it, then run again"
            ) from None
        try:
            self._read()
            self._record(
                driver={
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "started": _now(),
                    "ended": int(np.count_nonzero(self.status)),
                }
            )
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
        self.status[region][np.ix_(seeds, inits)] = array
        self._dirty = True

    def flush(self) -> None:
        """Write the status of all runs, if it has changed; on return it is on the disk."""
        if self._dirty:
            get_array(open_group(self._path, mode="r+"), "status")[:] = self.status
            self._dirty = False

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
        self.status[cleared] = Status.PENDING
        self._dirty = True
        self.flush()
        self._record(failures=[])
        return int(cleared.sum())

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
        self._dirty = False

    def _record(self, **attributes: object) -> None:
        """Replace attributes of the group ``ledger``."""
        store = DurableStore(local_root(self._path))
        group = zarr.open_group(store, path="ledger", mode="a", use_consolidated=False)
        group.update_attributes(attributes)


def read_failures(path: StorePath) -> list[dict[str, Any]]:
    """Records of the quarantined blocks, oldest first; needs no lock.

    Each has ``key``, ``block`` (fields of `Block`), ``error``, ``traceback``, ``worker``,
    ``attempts`` and ``time`` (UTC).
    """
    return list(_read_record(path).get("failures", []))


def read_driver(path: StorePath) -> dict[str, Any] | None:
    """Driver at work on a store, or None; a driver that was killed is not at work.

    It has ``host``, ``pid``, ``started`` (UTC) and ``ended``, the number of runs that were not
    pending when it began.
    """
    driver: dict[str, Any] | None = _read_record(path).get("driver")
    if driver is None or not _lock_path(path).exists():
        return None
    try:
        with filelock.FileLock(_lock_path(path), blocking=False):
            return None
    except (filelock.Timeout, PermissionError):  # who may not lock takes the record's word
        return driver


def counts(path: StorePath) -> dict[str, int]:
    """Number of runs ``pending``, ``done``, ``failed``, ``quarantined``; needs no lock.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    SchemaError
        If what is there is not a store of this package.
    """
    numbers = np.bincount(read_status(path).ravel(), minlength=len(Status))
    return {status.name.lower(): int(numbers[status]) for status in Status}


def read_status(path: StorePath) -> NDArray[np.int8]:
    """Status of all runs, in the order of the store; needs no lock, raises as `counts`.

    The axes are those of the cube.
    """
    return np.array(get_array(open_group(path), "status")[:], dtype=np.int8)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_record(path: StorePath) -> dict[str, Any]:
    root = local_root(path)
    if not (root / "ledger").exists():
        return {}
    store = DurableStore(root, read_only=True)
    return dict(zarr.open_group(store, path="ledger", mode="r", use_consolidated=False).attrs)


def _lock_path(path: StorePath) -> Path:
    """Lock file of a store, one for all ways to write its path."""
    root = local_root(path).resolve()
    return root.with_name(f"{root.name}.lock")


def _describe_driver(path: StorePath) -> str:
    driver = read_driver(path)
    return f"process {driver['pid']} on {driver['host']}" if driver else "process not known yet"
