"""Where units of work run: on a Dask cluster, or in the driver itself, behind one protocol."""

import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from distributed import Client, Future, KilledWorker, as_completed, get_worker


@dataclass(frozen=True)
class Finished:
    """A task that ended.

    Parameters
    ----------
    key : str
        As submitted.
    value : object
        What it returned; None if it raised.
    error : BaseException or None
        What it raised, or what became of its worker.
    trace : str
        Traceback of the error.
    worker : str
        Where it ended, as far as known.
    attempts : int
        How often it was tried: Dask itself repeats a task whose worker died.
    """

    key: str
    value: Any
    error: BaseException | None = None
    trace: str = ""
    worker: str = ""
    attempts: int = 1


class Executor(Protocol):
    """Runs functions somewhere and hands back what they return, as they end."""

    def capacity(self) -> int:
        """Tasks to keep under way: one for each thread of each worker."""

    def submit(self, key: str, function: Callable[..., object], *arguments: object) -> None:
        """Start a task."""

    def finished(self) -> Iterator[list[Finished]]:
        """Batches of ended tasks; ends when none is under way. May submit in between."""

    def run_everywhere(self, function: Callable[..., object], *arguments: object) -> dict[str, Any]:
        """Call a function on every worker at once; what it returned or raised, by worker."""


class InlineExecutor:
    """Runs each task in the driver as it is submitted: nothing to start, easy to debug."""

    def __init__(self) -> None:
        self._ended: list[Finished] = []

    def capacity(self) -> int:
        """One task: it has ended before the next is submitted."""
        return 1

    def submit(self, key: str, function: Callable[..., object], *arguments: object) -> None:
        """Run a task."""
        try:
            ended = Finished(key, function(*arguments))
        except Exception as error:  # noqa: BLE001  a task's error is its result
            ended = Finished(key, None, error, traceback.format_exc(), "the driver")
        self._ended.append(ended)

    def finished(self) -> Iterator[list[Finished]]:
        """Batches of ended tasks."""
        while self._ended:
            batch, self._ended = self._ended, []
            yield batch

    def run_everywhere(self, function: Callable[..., object], *arguments: object) -> dict[str, Any]:
        """Call a function here."""
        return {"the driver": function(*arguments)}


class ClusterExecutor:
    """Runs tasks on the workers of a Dask client.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._keys: dict[str, str] = {}  # Dask's key → ours
        self._waiting = as_completed(raise_errors=False)

    def capacity(self) -> int:
        """Threads of the cluster as it is now: more would wait at a worker."""
        threads: int = sum(self._client.nthreads().values())
        return max(1, threads)

    def submit(self, key: str, function: Callable[..., object], *arguments: object) -> None:
        """Start a task under a key of its own: Dask would join tasks of one key."""
        future = self._client.submit(
            _run_named, function, *arguments, key=f"{key}-{uuid.uuid4().hex[:8]}", pure=False
        )
        self._keys[str(future.key)] = key
        self._waiting.add(future)

    def finished(self) -> Iterator[list[Finished]]:
        """Batches of ended tasks; their futures are released, so that the cluster forgets them."""
        for batch in self._waiting.batches():
            yield [self._collect(future) for future in batch]

    def run_everywhere(self, function: Callable[..., object], *arguments: object) -> dict[str, Any]:
        """Call a function on every worker at once; what it returned or raised, by worker."""
        answers: dict[str, Any] = self._client.run(function, *arguments, on_error="return")
        return answers

    def _collect(self, future: Future[Any]) -> Finished:
        key = self._keys.pop(str(future.key))
        if future.status == "finished":
            ended = Finished(key, future.result())
        else:
            error = future.exception() if future.status == "error" else _lost(future)
            trace = "".join(traceback.format_exception(error))
            attempts = error.allowed_failures + 1 if isinstance(error, KilledWorker) else 1
            ended = Finished(key, None, error, trace, _name_worker(error), attempts)
        future.release()
        return ended


def _run_named(function: Callable[..., object], *arguments: object) -> object:
    """Call the function; an error is told which worker it happened on, which Dask does not."""
    try:
        return function(*arguments)
    except Exception as error:
        error.__dict__["worker"] = get_worker().address
        raise


def _name_worker(error: BaseException) -> str:
    if isinstance(error, KilledWorker):
        return str(error.last_worker.address)
    return str(getattr(error, "worker", "unknown"))


def _lost(future: Future[Any]) -> RuntimeError:
    return RuntimeError(f"task {future.key}: the cluster gave it up ({future.status})")
