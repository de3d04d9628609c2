"""The Dask side of a campaign: a sliding window of units, retries, quarantine, reductions.

Workers write data, the driver writes status: only after a worker's receipt, which it gives when its
chunks are on the disk, are the runs marked. A driver that is killed leaves at most the units under
way to be computed again, to the same bytes.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

import xarray as xr

from pipeline.executors import Executor, Finished
from pipeline.reductions import combine, reduce_size
from pipeline.work import Receipt, Unit
from store.array_store import open_store
from store.ledger import Ledger

MOST_ATTEMPTS = 3
"""How often a chunk's blocks are tried before they are quarantined."""

Work = Callable[[Unit], list[Receipt]]


class Watcher(Protocol):
    """Is told what happens as it happens."""

    def received(self, unit: Unit, receipts: list[Receipt]) -> None:
        """A unit is done and marked."""

    def retries(self, unit: Unit, error: BaseException) -> None:
        """A unit raised or lost its worker, and will be tried again."""

    def gave_up(self, unit: Unit, error: BaseException) -> None:
        """A unit is quarantined."""


class Sweep:
    """One sweep over the units that a plan leaves to do.

    The reductions are tasks like the others: those of one N are handed out as soon as its last unit
    has ended, so that they overlap with the descents of other sizes.

    Parameters
    ----------
    ledger : Ledger
        Of the store to fill; the sweep marks its runs.
    path : str
        The store as the workers see it.
    work : callable
        What a worker does with a unit; `work.run_unit` with store and recipe bound.
    executor : Executor
    watcher : Watcher
    """

    def __init__(
        self, ledger: Ledger, path: str, work: Work, executor: Executor, watcher: Watcher
    ) -> None:
        self._ledger = ledger
        self._path = path
        self._work = work
        self._executor = executor
        self._watcher = watcher
        self._queue: deque[Unit] = deque()
        self._under_way: dict[str, Unit] = {}
        self._combining = False

    def run(self, units: Iterable[Unit]) -> xr.Dataset:
        """Do all units; the reductions of the whole store, in memory.

        A unit's error is retried and then quarantined, and the sweep goes on. A reduction's error
        is raised at the end: the data are safe, and `hesscape reduce` repeats it.
        """
        self._queue.extend(units)
        left = Counter(_size(unit) for unit in self._queue)
        self._reduce(size for size in self._ledger.grid.N if not left[size])
        self._fill()
        parts: list[xr.Dataset] = []
        mistakes: list[BaseException] = []
        for batch in self._executor.finished():
            ended_units: list[Unit] = []
            for ended in batch:
                unit = self._under_way.pop(ended.key, None)
                if unit is None and ended.error is not None:
                    mistakes.append(ended.error)
                    continue
                if unit is None:
                    parts.append(ended.value)
                    continue
                again = self._take(unit, ended)
                left.update(_size(one) for one in again)
                self._queue.extendleft(again)
                ended_units.append(unit)
            self._ledger.flush()
            left.subtract(_size(unit) for unit in ended_units)
            self._reduce(size for size in {_size(unit) for unit in ended_units} if not left[size])
            if len(parts) == len(self._ledger.grid.N) and not self._combining:
                self._combining = True
                self._executor.submit("combine the reductions", combine, parts)
            self._fill()
        if mistakes:
            raise mistakes[0]
        return parts[-1]

    def _fill(self) -> None:
        """Hand out units until the window is full."""
        capacity = self._executor.capacity()
        while self._queue and len(self._under_way) < capacity:
            unit = self._queue.popleft()
            self._under_way[unit.key] = unit
            self._executor.submit(unit.key, self._work, unit)

    def _take(self, unit: Unit, ended: Finished) -> list[Unit]:
        """Mark what a unit gave; the units to do again in its place."""
        if ended.error is None:
            for receipt in ended.value:
                self._ledger.mark(receipt.block, receipt.status)
            self._watcher.received(unit, ended.value)
            return []
        if len(unit.chunks) > 1:  # find the guilty chunk, and let the others pass
            self._watcher.retries(unit, ended.error)
            seconds = unit.seconds / len(unit.chunks)
            return [Unit((chunk,), seconds) for chunk in unit.chunks]
        if unit.attempts + 1 < MOST_ATTEMPTS:
            self._watcher.retries(unit, ended.error)
            return [replace(unit, attempts=unit.attempts + 1)]
        for block in unit.blocks:
            self._ledger.quarantine(
                block,
                error=f"{type(ended.error).__name__}: {ended.error}",
                traceback=ended.trace,
                worker=ended.worker,
                attempts=MOST_ATTEMPTS,
            )
        self._watcher.gave_up(unit, ended.error)
        return []

    def _reduce(self, sizes: Iterable[int]) -> None:
        for size in sizes:
            self._executor.submit(f"reduce N={size}", reduce_stored, self._path, size)


def reduce_stored(path: str, size: int) -> xr.Dataset:
    """Reductions of one N of a store."""
    return reduce_size(open_store(path).sel(N=[size]))


def _size(unit: Unit) -> int:
    """The one N of a unit."""
    return unit.blocks[0].N
