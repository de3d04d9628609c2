"""The Dask side of a campaign: a sliding window of units, retries, quarantine, reductions.

Workers write data, the driver writes status: only after a worker's receipt, which it gives when its
chunks are on the disk, are the runs marked. A driver that is killed leaves at most the units under
way to be computed again, to the same bytes.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Protocol

import xarray as xr

from pipeline.executors import Executor, Finished, TaskLostError, WorkerDiedError
from pipeline.reductions import add_scaling, combine, reduce_size
from pipeline.work import Receipt, Unit
from store.array_store import reading
from store.cube import open_store
from store.ledger import Ledger
from store.place import StoreWriteError

MOST_ATTEMPTS = 3
"""How often a chunk's blocks are tried before they are quarantined."""

Work = Callable[[Unit], list[Receipt]]


class Watcher(Protocol):
    """Is told what happens as it happens."""

    def received(self, unit: Unit, receipts: list[Receipt]) -> None:
        """A unit is done and marked."""

    def planned(self, units: Sequence[Unit]) -> None:
        """Units were added to those to do."""

    def retries(self, unit: Unit, error: BaseException) -> None:
        """A unit raised or lost its worker, and will be tried again."""

    def gave_up(self, unit: Unit, error: BaseException) -> None:
        """A unit is quarantined."""


class Sweep:
    """One sweep over the units that a plan leaves to do, and those that are added meanwhile.

    The reductions are tasks like the others: those of one N are handed out as soon as its last unit
    has ended, so that they overlap with the descents of other sizes.

    More units may be given to `add` while `run` is at work, from the watcher's methods, which are
    called in the driver's thread when what they are told of is marked. Their labels must be in the
    ledger's grid, and no other unit may have their chunk.

    Who is to blame: a unit that raises is tried `MOST_ATTEMPTS` times, then quarantined. One whose
    workers died, as often as Dask allows, is tried once more while nothing else runs, and
    quarantined if they die again: units that shared a worker with it are not. A unit that the
    cluster lost is done again without blame, and so is a reduction whose workers died. A store that
    cannot be written ends the sweep.

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
    deadline : float
        On the clock of `time.monotonic`: no unit is started that is predicted to end later.
    more : callable, optional
        Called with an N whose units have all ended; the units to do next for it, none where it is
        decided. The store may grow by it, so that reductions wait for the last size.
    """

    def __init__(
        self,
        ledger: Ledger,
        path: str,
        work: Work,
        executor: Executor,
        watcher: Watcher,
        *,
        deadline: float = math.inf,
        more: Callable[[int], list[Unit]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._path = path
        self._work = work
        self._executor = executor
        self._watcher = watcher
        self._deadline = deadline
        self._more = more
        self._stopped: set[int] = set()  # sizes that the deadline stopped
        self._ended: list[int] = []  # sizes to reduce, once the store grows no more
        self._units: deque[Unit] = deque()
        self._suspects: deque[Unit] = deque()  # to be tried alone
        self._left: Counter[int] = Counter()  # units of each N that have not ended
        self._reductions: deque[int] = deque()
        self._deaths: Counter[int | None] = Counter()  # of workers under reductions
        self._under_way: dict[str, Unit | int | None] = {}  # a unit, an N to reduce, or combining
        self._alone = False

    def run(self, units: Iterable[Unit]) -> xr.Dataset:
        """Do all units; the reductions of the whole store, in memory.

        A unit's error is retried and then quarantined, and the sweep goes on. A reduction's error
        is raised at the end: the data are safe, and `hesscape reduce` repeats it.

        Raises
        ------
        store.place.StoreWriteError
            If a unit's results or the status cannot be written, after `MOST_ATTEMPTS`.
        ClusterLostError
            If there is no cluster any more.
        """
        self.add(units)
        self._ended.extend(size for size in self._ledger.grid.N if not self._left[size])
        self._release()
        parts: dict[int, xr.Dataset] = {}
        whole: xr.Dataset | None = None
        mistakes: list[BaseException] = []
        self._fill()
        for batch in self._executor.finished():
            for ended in batch:
                task = self._under_way.pop(ended.key)
                if isinstance(task, Unit):
                    self._alone = False
                    self._take(task, ended)
                elif self._passes(task, ended.error):
                    self._reductions.extend([] if task is None else [task])
                elif ended.error is not None:
                    mistakes.append(ended.error)
                elif task is None:
                    whole = ended.value
                else:
                    parts[task] = ended.value
            # before a reduction is handed out that relies on it
            self._ledger.flush(lazily=not self._reductions and bool(self._units))
            self._fill()
            every = len(parts) == len(self._ledger.grid.N)
            if every and whole is None and not self._under_way and not mistakes:
                self._submit("combine", None, combine_stored, self._path, list(parts.values()))
        if mistakes:
            raise mistakes[0]
        assert whole is not None
        return whole

    def add(self, units: Iterable[Unit], *, ahead: bool = False) -> None:
        """Put units behind those that wait, or ahead of them."""
        added = list(units)
        self._units = deque([*added, *self._units] if ahead else [*self._units, *added])
        self._left.update(_size(unit) for unit in added)

    def _fill(self) -> None:
        """Hand out reductions and units until every worker has one.

        No more than one: a task that waits at a worker would share the blame if that worker died.
        """
        capacity = self._executor.capacity()
        while len(self._under_way) < capacity and not self._alone:
            if self._reductions:
                size = self._reductions.popleft()
                self._submit(f"reduce,N={size}", size, reduce_stored, self._path, size)
            elif self._suspects:
                if self._under_way:
                    return  # until nothing else runs
                unit = self._suspects.popleft()
                self._alone = True
                self._submit(unit.key, unit, self._work, unit)
            elif self._units:
                unit = self._units.popleft()
                if monotonic() + unit.seconds > self._deadline:
                    self._stopped.add(_size(unit))
                    self._end(unit)
                    continue
                self._submit(unit.key, unit, self._work, unit)
            else:
                return

    def _submit(
        self, key: str, task: Unit | int | None, function: Callable[..., object], *arguments: object
    ) -> None:
        self._under_way[key] = task
        self._executor.submit(key, function, *arguments)

    def _end(self, unit: Unit) -> None:
        """Go on with the unit's N, if it was the last one of it: another round, or reductions."""
        size = _size(unit)
        self._left[size] -= 1
        if self._left[size]:
            return
        units = self._more(size) if self._more and size not in self._stopped else []
        if units:
            self.add(units, ahead=True)  # one size is decided before the next begins
            self._watcher.planned(units)
        else:
            self._ended.append(size)
            self._release()

    def _passes(self, reduction: int | None, error: BaseException | None) -> bool:
        """Whether a reduction is done again: it was lost, or a unit took its worker down."""
        if isinstance(error, WorkerDiedError):
            self._deaths[reduction] += 1
            return self._deaths[reduction] < MOST_ATTEMPTS
        return isinstance(error, TaskLostError)

    def _release(self) -> None:
        """Reduce the sizes that have ended, unless the store may still grow."""
        if self._more is None or not any(self._left.values()):
            self._reductions.extend(self._ended)
            self._ended.clear()

    def _take(self, unit: Unit, ended: Finished) -> None:
        """Mark what a unit gave, or see to it that it is done again."""
        if ended.error is None:
            for receipt in ended.value:
                self._ledger.mark(receipt.block, receipt.status)
            self._watcher.received(unit, ended.value)
        elif isinstance(ended.error, TaskLostError):
            self._watcher.retries(unit, ended.error)
            self._again(unit)
        elif len(unit.chunks) > 1:  # find the guilty chunk, and let the others pass
            self._watcher.retries(unit, ended.error)
            seconds = unit.seconds / len(unit.chunks)
            for chunk in unit.chunks:
                self._again(Unit((chunk,), seconds))
        elif isinstance(ended.error, WorkerDiedError) and not unit.suspect:
            self._watcher.retries(unit, ended.error)
            self._left[_size(unit)] += 1
            self._suspects.append(
                replace(unit, attempts=unit.attempts + ended.attempts, suspect=True)
            )
        elif unit.attempts + ended.attempts < MOST_ATTEMPTS:
            self._watcher.retries(unit, ended.error)
            self._again(replace(unit, attempts=unit.attempts + ended.attempts))
        elif isinstance(ended.error, StoreWriteError):
            raise ended.error
        else:
            self._give_up(unit, ended)
        self._end(unit)

    def _again(self, unit: Unit) -> None:
        """Put a unit before those that wait."""
        self._units.appendleft(unit)
        self._left[_size(unit)] += 1

    def _give_up(self, unit: Unit, ended: Finished) -> None:
        assert ended.error is not None
        for block in unit.blocks:
            self._ledger.quarantine(
                block,
                error=f"{type(ended.error).__name__}: {ended.error}",
                traceback=ended.trace,
                worker=ended.worker,
                attempts=unit.attempts + ended.attempts,
            )
        self._watcher.gave_up(unit, ended.error)


def reduce_stored(path: str, size: int) -> xr.Dataset:
    """Reductions of one N of a store."""
    with reading(path):
        return reduce_size(open_store(path).sel(N=[size]))


def combine_stored(path: str, parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Reductions of all sizes of a store as one, with the laws of what depends on N."""
    return add_scaling(combine(parts), path, path)


def _size(unit: Unit) -> int:
    """The one N of a unit."""
    return unit.blocks[0].N
