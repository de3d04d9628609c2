"""Where units of work run: on a Dask cluster, or in the driver itself, behind one protocol."""

import queue
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Protocol

from distributed import CancelledError, Client, Future, KilledWorker, get_worker
from distributed.client import ClosedClientError

from pipeline.admission import Admission, describe_worker
from pipeline.cluster import CLUSTER_LOST, ClusterError, ClusterLostError

_TICK = 1.0  # seconds between looks at the cluster while nothing ends
_SILENCE = 30.0  # seconds without a worker after which that is said


class TaskLostError(RuntimeError):
    """The cluster lost a task through no fault of the task: it is to be done again."""


class WorkerDiedError(RuntimeError):
    """A task's workers died, one after the other: it took them down, or it was bad luck."""


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
        What it raised; `TaskLostError` or `WorkerDiedError` for what became of its worker.
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
        """Batches of ended tasks, now and then an empty one; ends when none is under way.

        Raises
        ------
        ClusterLostError
            If there is no cluster any more.
        """


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


class ClusterExecutor:
    """Runs tasks on those workers of a Dask client that give the driver's numbers.

    Workers may come and go. One that joins is asked for its versions before it counts; one that is
    refused is told to close, and what it may have returned meanwhile is done again elsewhere.

    Parameters
    ----------
    client : distributed.Client
    admission : Admission
        What workers are asked.
    say : callable
        Is told, in a sentence, when a worker is refused or none is left.

    Raises
    ------
    ClusterError
        If a worker that is there already is refused.
    """

    def __init__(self, client: Client, admission: Admission, say: Callable[[str], None]) -> None:
        self._client = client
        self._admission = admission
        self._say = say
        self._keys: dict[str, str] = {}  # Dask's key → ours
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._threads: dict[str, int] = {}  # of the admitted workers
        self._refused: set[str] = set()
        self._last_seen = monotonic()
        self._looked = -_TICK
        problems = self._look()
        if problems:
            lines = "\n  ".join(f"{worker}: {problem}" for worker, problem in problems.items())
            raise ClusterError(
                f"workers that cannot take part:\n  {lines}\ninstall the driver's packages there, "
                "and use a store on a file system that all of them share"
            )

    def capacity(self) -> int:
        """Threads of the admitted workers as they are now: more tasks would wait at a worker."""
        return max(1, sum(self._threads.values()))

    def submit(self, key: str, function: Callable[..., object], *arguments: object) -> None:
        """Start a task under a key of its own: Dask would join tasks of one key.

        All keys begin with one word, as the scheduler keeps statistics of each first word for ever.
        """
        name = f"hesscape-{key}-{uuid.uuid4().hex[:8]}"
        try:
            future = self._client.submit(_run_signed, function, *arguments, key=name, pure=False)
        except (OSError, ClosedClientError) as error:
            raise ClusterLostError(CLUSTER_LOST) from error
        self._keys[str(future.key)] = key
        future.add_done_callback(self._ended.put)

    def finished(self) -> Iterator[list[Finished]]:
        """Batches of ended tasks; their futures are released, so that the cluster forgets them."""
        while self._keys:
            futures = self._wait()
            self._check_scheduler()
            newly_refused = self._look()
            for worker, problem in newly_refused.items():
                self._say(f"worker {worker} is refused: {problem}")
                with suppress(OSError):  # it went meanwhile
                    self._client.retire_workers([worker], close_workers=True)
            yield [self._collect(future, doubtful=bool(newly_refused)) for future in futures]

    def _wait(self) -> list["Future[Any]"]:
        """What has ended, or nothing within a tick."""
        try:
            futures = [self._ended.get(timeout=_TICK)]
        except queue.Empty:
            return []
        while not self._ended.empty():
            futures.append(self._ended.get())
        return futures

    def _check_scheduler(self) -> None:
        """Wait while the client reconnects; raise when it has given up."""
        deadline = monotonic() + 2 * _SILENCE
        while self._client.status == "connecting" and monotonic() < deadline:
            sleep(_TICK / 10)
        if self._client.status != "running":
            raise ClusterLostError(CLUSTER_LOST)

    def _look(self) -> dict[str, str]:
        """Ask new workers who they are; those that are refused now, with the reason."""
        if monotonic() - self._looked < _TICK / 4:
            return {}
        self._looked = monotonic()
        answers: dict[str, object] = {}
        try:
            there = {worker: n for worker, n in self._client.nthreads().items() if n}
            known = self._threads.keys() | self._refused
            strangers = [worker for worker in there if worker not in known]
            if strangers:
                path = self._admission.path
                answers = self._client.run(
                    describe_worker, path, workers=strangers, on_error="return"
                )
        except OSError:  # the scheduler went meanwhile, which the next tick finds
            return {}
        self._threads = {w: n for w, n in self._threads.items() if w in there}
        problems = {}
        for worker, answer in answers.items():
            if isinstance(answer, OSError):  # the worker went meanwhile
                continue
            problem = self._admission.find_problem(answer)
            if problem:
                problems[worker] = problem
            else:
                self._threads[worker] = there[worker]
        self._refused |= problems.keys()
        self._tell_if_deserted()
        return problems

    def _tell_if_deserted(self) -> None:
        now = monotonic()
        if self._threads:
            self._last_seen = now
        elif now - self._last_seen > _SILENCE:
            self._last_seen = now
            self._say(
                f"no worker for {_SILENCE:g} s: the sweep goes on as soon as one joins "
                "(`dask worker ADDRESS --nthreads 1`); Ctrl-C stops it, resumable"
            )

    def _collect(self, future: "Future[Any]", *, doubtful: bool) -> Finished:
        key = self._keys.pop(str(future.key))
        error: BaseException | None = None
        value, worker, trace, attempts = None, "unknown", "", 1
        if future.status == "finished":
            try:
                worker, value, error, trace = future.result()
            except (OSError, CancelledError, TimeoutError):  # its worker, or all, went meanwhile
                error = TaskLostError("the cluster lost what the task returned")
        elif future.status == "error":
            error = future.exception()
        else:
            error = TaskLostError(f"the cluster lost the task ({future.status})")
        if error is not None and not trace:
            trace = "".join(traceback.format_exception(error))
        if isinstance(error, KilledWorker):
            worker, attempts = str(error.last_worker.address), error.allowed_failures + 1
            error = WorkerDiedError(
                f"{attempts} workers died under it: killed, out of memory, or crashed; "
                "their logs say which"
            )
        elif worker in self._refused or (doubtful and worker == "unknown"):
            value, error = None, TaskLostError(f"done by a worker that is refused, {worker}")
        future.release()
        return Finished(key, value, error, trace, worker, attempts)


def _run_signed(
    function: Callable[..., object], *arguments: object
) -> tuple[str, object, Exception | None, str]:
    """Call the function: the worker that did, what was returned or raised, and where.

    An error is a result too: Dask would write its traceback into every log.
    """
    worker = get_worker().address
    try:
        return worker, function(*arguments), None, ""
    except Exception as error:  # noqa: BLE001
        return worker, None, error, traceback.format_exc()
