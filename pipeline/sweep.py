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
        self._units: deque[Unit] = deque()
        self._reductions: deque[int] = deque()
        self._under_way: dict[str, Unit | None] = {}  # a unit, or a reduction

    def run(self, units: Iterable[Unit]) -> xr.Dataset:
        """Do all units; the reductions of the whole store, in memory.

        A unit's error is retried and then quarantined, and the sweep goes on. A reduction's error
        is raised at the end: the data are safe, and `hesscape reduce` repeats it.
        """
        self._units.extend(units)
        left = Counter(_size(unit) for unit in self._units)
        self._reductions.extend(size for size in self._ledger.grid.N if not left[size])
        parts: list[xr.Dataset] = []
        mistakes: list[BaseException] = []
        self._fill()
        for batch in self._executor.finished():
            for ended in batch:
                unit = self._under_way.pop(ended.key)
                if unit is not None:
                    again = self._take(unit, ended)
                    self._units.extendleft(again)
                    left.update(_size(one) for one in again)
                    left[_size(unit)] -= 1
                    if not left[_size(unit)]:
                        self._reductions.append(_size(unit))
                elif ended.error is not None:
                    mistakes.append(ended.error)
                else:
                    parts.append(ended.value)
            self._ledger.flush()  # before a reduction is handed out that relies on it
            self._fill()
            if len(parts) == len(self._ledger.grid.N) and not self._under_way:
                self._submit("combine", None, combine, parts)
        if mistakes:
            raise mistakes[0]
        return parts[-1]

    def _fill(self) -> None:
        """Hand out reductions and units until every worker has one.

        No more than one: a task that waits at a worker would share the blame if that worker died.
        """
        capacity = self._executor.capacity()
        while len(self._under_way) < capacity and (self._reductions or self._units):
            if self._reductions:
                size = self._reductions.popleft()
                self._submit(f"reduce,N={size}", None, reduce_stored, self._path, size)
            else:
                unit = self._units.popleft()
                self._submit(unit.key, unit, self._work, unit)

    def _submit(
        self, key: str, unit: Unit | None, function: Callable[..., object], *arguments: object
    ) -> None:
        self._under_way[key] = unit
        self._executor.submit(key, function, *arguments)

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
        attempts = unit.attempts + ended.attempts
        if attempts < MOST_ATTEMPTS:
            self._watcher.retries(unit, ended.error)
            return [replace(unit, attempts=attempts)]
        for block in unit.blocks:
            self._ledger.quarantine(
                block,
                error=f"{type(ended.error).__name__}: {ended.error}",
                traceback=ended.trace,
                worker=ended.worker,
                attempts=attempts,
            )
        self._watcher.gave_up(unit, ended.error)
        return []


def reduce_stored(path: str, size: int) -> xr.Dataset:
    """Reductions of one N of a store."""
    return reduce_size(open_store(path).sel(N=[size]))


def _size(unit: Unit) -> int:
    """The one N of a unit."""
    return unit.blocks[0].N
