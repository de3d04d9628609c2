"""What a person sees of a sweep: a bar on a terminal, a line now and then in a log."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.text import Text

from pipeline.work import Receipt, Unit
from store.schema import Status

_LOG_EVERY = 15.0  # seconds between lines where there is no terminal


class SweepProgress:
    """Progress of a sweep: runs done, rate, time left, recovered so far.

    The time left follows from the predicted cost of the units, scaled by how the units done so far
    kept to it, so that cheap small sizes at the end do not mislead.

    Parameters
    ----------
    console : rich.console.Console
    runs : int
        Runs to do.
    predicted : float
        Predicted seconds of all units.
    """

    def __init__(self, console: Console, runs: int, predicted: float) -> None:
        self._console = console
        self._predicted = predicted
        self._predicted_done = 0.0
        self._started = self._logged = time.monotonic()
        self.done = self.recovered = self.failed = self.quarantined = 0
        self._runs = runs
        self._bar = Progress(
            TextColumn("runs"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Words(self),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("runs", total=runs)

    @property
    def ended(self) -> int:
        """Runs that were done or given up."""
        return self.done + self.quarantined

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def received(self, unit: Unit, receipts: list[Receipt]) -> None:
        """Count a unit that is done and marked."""
        for receipt in receipts:
            self.done += receipt.block.runs
            self.recovered += receipt.recovered
            self.failed += int((receipt.status == Status.FAILED).sum())
            for run, reason in receipt.failures:
                block = receipt.block
                values = (*block.constants, (block.control, block.value), ("N", block.N))
                place = " ".join(f"{name}={value:g}" for name, value in values)
                self._console.print(f"failed numerically: {place} {run}: {reason}")
        self._predicted_done += unit.seconds
        self._bar.update(self._task, completed=self.done + self.quarantined)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._logged > _LOG_EVERY:
            self._logged = now
            self._console.print(f"{self.done}/{self._runs} runs{self.words()}")

    def planned(self, units: Sequence[Unit]) -> None:
        """Count units that were added."""
        self._runs += sum(unit.runs for unit in units)
        self._predicted += sum(unit.seconds for unit in units)
        self._bar.update(self._task, total=self._runs)

    def retries(self, unit: Unit, error: BaseException) -> None:
        """Say that a unit is tried again."""
        self._console.print(f"[yellow]trying again[/]: {unit.key}: {_one_line(error)}")

    def gave_up(self, unit: Unit, error: BaseException) -> None:
        """Say that a unit is quarantined."""
        self.quarantined += unit.runs
        self._console.print(f"[red]quarantined[/]: {unit.key}: {_one_line(error)}")

    def words(self) -> str:
        """Rate, time left and recovered so far."""
        elapsed = time.monotonic() - self._started
        if not self.done:
            return ""
        left = elapsed * (self._predicted / self._predicted_done - 1)
        return (
            f", {self.done / elapsed:.1f} runs/s, {_clock(left)} left, "
            f"{self.recovered} recovered ({self.recovered / self.done:.0%})"
        )


class _Words(ProgressColumn):
    def __init__(self, progress: SweepProgress) -> None:
        super().__init__()
        self._progress = progress

    def render(self, task: Task) -> Text:  # noqa: ARG002  rich's signature
        return Text(self._progress.words().removeprefix(", "))


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
