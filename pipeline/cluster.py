"""The Dask cluster a sweep runs on: embedded, in this process, or one that already exists.

An embedded cluster listens on the loopback interface only, and ends within seconds whatever its
workers are doing. Ctrl-C is for the driver alone: a terminal sends it to the workers too, where it
would kill a block that the driver still counts on.
"""

import asyncio
import gc
import json
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from multiprocessing import resource_tracker
from pathlib import Path
from threading import current_thread, main_thread
from time import monotonic, sleep
from typing import Literal

import dask
from dask.system import cpu_count
from distributed import Client, LocalCluster, Nanny, Worker
from distributed.comm import core as comm_core
from distributed.comm.core import CommClosedError
from distributed.security import Security
from distributed.utils import silence_logging_cmgr
from threadpoolctl import ThreadpoolController

LOOPBACK = "127.0.0.1"
DASHBOARD_PORT = 8787
SECONDS_TO_STOP = 2.0
_KEEP_NANNIES = {"distributed.deploy.lost-worker-timeout": "10000 days"}
"""Its nanny starts a dead worker again. Dask would close the nanny of one that is not there this
long after an earlier death: a block that kills its worker again and again took the cluster along.
"""


class ClusterError(RuntimeError):
    """There is no cluster to run on; the message says what to start or to change."""


class ClusterLostError(RuntimeError):
    """The cluster that a sweep ran on is gone."""


CLUSTER_LOST = (
    "the scheduler is gone, and did not come back; what is marked done is safe. "
    "Start a cluster, then give the same command"
)


@dataclass(frozen=True)
class Resources:
    """Where to run; never what: any of them gives the same numbers.

    Parameters
    ----------
    scheduler : str, optional
        Address of a running scheduler, ``threads`` for workers that are threads of this process, or
        ``synchronous`` for none. Without it and without `scheduler_file`, an embedded cluster of
        processes.
    scheduler_file : Path, optional
        File that a running scheduler wrote.
    workers : int, optional
        Workers of one thread each, if they are to be started here; by default one for each CPU that
        this process may use.
    tls_ca, tls_cert, tls_key : Path, optional
        PEM files of the certificate authority, and of certificate and key of this driver, for a
        running cluster whose scheduler requires TLS.
    arrays : str, optional
        Array library of the workers started here; by default as Dask's configuration says.

    Raises
    ------
    ClusterError
        If they contradict one another.
    """

    scheduler: str | None = None
    scheduler_file: Path | None = None
    workers: int | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    arrays: str | None = None

    def __post_init__(self) -> None:
        if self.scheduler is not None and self.scheduler_file is not None:
            raise ClusterError(
                f"expected a scheduler's address or its file, got both, {self.scheduler!r} and "
                f"{str(self.scheduler_file)!r}; give one of them"
            )
        if self.workers is not None and self.running is not None:
            raise ClusterError(
                f"expected no number of workers for the cluster at {self.running!r}, which has its "
                f"own, got {self.workers!r}; leave it out"
            )
        if self.workers is not None and self.workers < 1:
            raise ClusterError(f"expected one worker or more, got {self.workers!r}; give 1 or more")
        if self.arrays is not None and self.running is not None:
            raise ClusterError(
                f"expected no array library for the cluster at {self.running!r}, whose workers "
                f"have their own, got {self.arrays!r}; leave it out, and start the workers with "
                f"DASK_HESSCAPE__ARRAYS={self.arrays}"
            )
        self._check_credentials()

    def _check_credentials(self) -> None:
        files = {"--tls-ca": self.tls_ca, "--tls-cert": self.tls_cert, "--tls-key": self.tls_key}
        if not any(files.values()):
            return
        missing = [flag for flag, file in files.items() if file is None]
        if missing:
            raise ClusterError(
                f"expected all of {', '.join(files)} for a cluster with TLS, got none for "
                f"{', '.join(missing)}; give all three"
            )
        for flag, file in files.items():
            if file is not None and not file.is_file():
                raise ClusterError(f"{flag}: expected a PEM file, got no file {str(file)!r}")
        if self.running is None:
            raise ClusterError(
                "expected a running cluster for TLS, got none: an embedded one listens on this "
                "machine only; give --scheduler tls://HOST:PORT, or leave the TLS files out"
            )

    @property
    def running(self) -> str | None:
        """The cluster that runs already, as it was named; None if one is to be started here."""
        if self.scheduler_file is not None:
            return str(self.scheduler_file)
        return self.scheduler if self.scheduler not in {"threads", "synchronous"} else None

    def security(self) -> Security:
        """Credentials for Dask; without TLS, what its own configuration says."""
        if self.tls_ca is None:
            return Security()
        return Security(
            require_encryption=True,
            tls_ca_file=str(self.tls_ca),
            tls_client_cert=str(self.tls_cert),
            tls_client_key=str(self.tls_key),
        )


@contextmanager
def connect(
    resources: Resources, *, timeout: float = 10.0, patience: float = 60.0
) -> Iterator[Client]:
    """Client of a cluster with at least one worker, closed with what it started at the end.

    Parameters
    ----------
    resources : Resources
    timeout : float
        Seconds to wait for a running scheduler and for its file.
    patience : float
        Seconds to wait for its first worker, which may have just been started too, and for a
        scheduler that went away.

    Raises
    ------
    ClusterError
        If no scheduler answers, or if it has no workers.
    ClusterLostError
        If it goes away while it is used.
    """
    scheduler = resources.scheduler
    if resources.scheduler_file is not None:
        scheduler = _read_scheduler_file(resources.scheduler_file, timeout)
    if scheduler is None or scheduler == "threads":
        workers = resources.workers or cpu_count()
        with _start_local(workers, processes=scheduler is None) as client:
            yield client
    else:
        with _join(scheduler, resources.security(), timeout, patience) as client:
            try:
                yield client
            except CommClosedError as error:
                raise ClusterLostError(CLUSTER_LOST) from error


@contextmanager
def _start_local(workers: int, *, processes: bool) -> Iterator[Client]:
    """Cluster of this machine, its workers processes of their own or threads of this one."""
    asyncio_log = logging.getLogger("asyncio")
    with ExitStack() as stack:
        stack.callback(asyncio_log.setLevel, asyncio_log.level)
        stack.callback(gc.collect)  # now, while asyncio cannot complain of what the loop left
        stack.enter_context(silence_logging_cmgr(logging.ERROR))  # longer than the cluster does
        stack.enter_context(dask.config.set(_KEEP_NANNIES))
        with _hold_interrupts():
            cluster = stack.enter_context(_local_cluster(workers, processes=processes))
        client = stack.enter_context(Client(cluster))
        stack.callback(asyncio_log.setLevel, logging.CRITICAL)
        yield client


def _local_cluster(workers: int, *, processes: bool) -> LocalCluster:
    try:
        with warnings.catch_warnings():
            # A dashboard port that another cluster has is no news: Dask takes any free one then.
            warnings.filterwarnings("ignore", r"\s*Port \d+ is already in use", UserWarning)
            warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=processes,
                worker_class=PromptNanny if processes else PromptWorker,
                protocol="tcp://",
                host=LOOPBACK,
                dashboard_address=f"{LOOPBACK}:{DASHBOARD_PORT}",
                silence_logs=logging.ERROR,
            )
    except (OSError, RuntimeError) as error:
        raise ClusterError(
            f"expected to start {workers} workers on this machine, got {error!r}; "
            "try with fewer workers, or with --scheduler synchronous"
        ) from error


class PromptNanny(Nanny):
    """Keeper of a worker process that does not wait long for a block under way."""

    async def close(  # type: ignore[override]  # as Nanny's own
        self, timeout: float = SECONDS_TO_STOP, reason: str = "nanny-close"
    ) -> Literal["OK"]:
        """Stop the worker, by force after most of `timeout` seconds."""
        return await super().close(timeout=min(timeout, SECONDS_TO_STOP), reason=reason)


class PromptWorker(Worker):
    """Worker in this process that leaves a block under way to end with the process."""

    async def close(  # type: ignore[override]  # as Worker's own
        self,
        timeout: float = SECONDS_TO_STOP,
        executor_wait: bool = False,  # noqa: ARG002
        nanny: bool = False,
        reason: str = "worker-close",
    ) -> str | None:
        """Stop without waiting for the block, whose thread nothing can stop."""
        return await super().close(
            timeout=min(timeout, SECONDS_TO_STOP), executor_wait=False, nanny=nanny, reason=reason
        )


@contextmanager
def _hold_interrupts() -> Iterator[None]:
    """Hold back SIGINT until the end; what is started meanwhile never gets any.

    Threads and processes inherit which signals are blocked, those that they start later included:
    also a worker that replaces a dead one leaves Ctrl-C to the driver.
    """
    resource_tracker.ensure_running()  # Python starts it later otherwise, and unblocks SIGINT then
    held: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    mine = handler is not None and current_thread() is main_thread()
    if mine:  # threads that run already, as those of BLAS, may take the signal for this one
        signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def _read_scheduler_file(path: Path, timeout: float) -> str:
    """Address in the file, waited for: a scheduler that is starting has not yet written it."""
    deadline = monotonic() + timeout
    while True:
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        except FileNotFoundError:
            got = "no such file"
        except OSError as error:
            got = str(error.strerror)
        except (ValueError, KeyError, TypeError):  # also while it is being written
            got = "a file without an address in JSON"
        if monotonic() > deadline:
            raise ClusterError(
                f"expected the file of a running scheduler at {str(path)!r}, got {got} within "
                f"{timeout:g} s; start one with `dask scheduler --scheduler-file {path}`, or "
                "correct the path"
            )
        sleep(0.1)


@contextmanager
def _join(address: str, security: Security, timeout: float, patience: float) -> Iterator[Client]:
    """Client of a running scheduler, as soon as it has a worker."""
    try:
        asyncio.run(_knock(address, security, timeout))
        # it waits as long for a scheduler that went away and comes back
        client = Client(address, timeout=patience, security=security)
    except (OSError, RuntimeError, ValueError, TypeError) as error:  # the latter where TLS is not
        raise ClusterError(
            f"expected a Dask scheduler at {address!r} within {timeout:g} s, got "
            f"{_deepest_message(error)}; start one with `dask scheduler`, or correct the "
            "address, as in tcp://127.0.0.1:8786 (tls:// with --tls-ca, --tls-cert and --tls-key)"
        ) from error
    # what goes wrong from here on is told by whoever meets it, without Dask's tracebacks
    with silence_logging_cmgr(logging.CRITICAL), client:
        try:
            client.wait_for_workers(1, timeout=patience)
        except CommClosedError as error:
            raise ClusterLostError(CLUSTER_LOST) from error
        except TimeoutError as error:
            raise ClusterError(
                f"expected workers at the scheduler {address!r}, got none within {patience:g} s; "
                f"start some with `dask worker {address} --nthreads 1`"
            ) from error
        yield client


def _deepest_message(error: BaseException | None) -> str:
    """What the first cause of an error says; Dask wraps it in the names of its own objects."""
    message = "silence"
    while error is not None:
        message = str(error) or message
        error = error.__cause__
    return message


async def _knock(address: str, security: Security, timeout: float) -> None:
    """Shake hands with the scheduler: a client would wait for a mute one for ever."""
    credentials = security.get_connection_args("client")
    async with asyncio.timeout(timeout):
        comm = await comm_core.connect(address, timeout=0.9 * timeout, **credentials)
    await comm.close()


@cache
def _find_blas() -> ThreadpoolController:
    """The BLAS libraries of this process; NumPy and SciPy bring one each."""
    import_module("scipy.linalg")
    return ThreadpoolController()


def limit_blas_threads() -> AbstractContextManager[object]:
    """Limit BLAS to one thread in this process, from now on.

    Workers are one to a core, so that more threads would only get in each other's way. As a context
    manager it restores at its end what was before. Calls after the first cost microseconds.
    """
    limiter: AbstractContextManager[object] = _find_blas().limit(limits=1, user_api="blas")
    return limiter
