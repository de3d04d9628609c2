"""Real drivers, schedulers and workers, processes that a test may kill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import xarray as xr

from store.ledger import counts
from store.schema import SchemaError

HESSCAPE = (sys.executable, "-c", "from pipeline.cli import main; main()")
DASK = (sys.executable, "-m", "dask")
GRID = ("--set", "grid.seeds=40", "--set", "grid.N=[32,48]", "--set", "grid.alpha=[1.5,3,4,5]")
SMALL = (*GRID, "--set", "dynamics.T=100.0")
WORKERS = 2
LOOPBACK = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")


def run(path: Path | str, *arguments: str, **options: object) -> "subprocess.Popen[str]":
    """The small campaign in a store, as a user starts it."""
    return subprocess.Popen(
        [*HESSCAPE, "run", "quickstart", "--store", str(path), *SMALL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=path.parent if isinstance(path, Path) else None,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )


def status(path: Path) -> dict[str, int]:
    command = [*HESSCAPE, "status", str(path), "--json"]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def numbers(path: Path | str) -> xr.Dataset:
    """What a store holds that is done as a whole, without when it was."""
    cube = xr.open_zarr(path, chunks=None).load()
    assert (cube.status == 1).all()
    return cube.drop_vars(["seconds", "revision"]).drop_attrs()


class Cluster:
    """A real `dask scheduler` and real `dask worker` processes, to be killed."""

    def __init__(self, folder: Path, *options: str, workers: int = WORKERS) -> None:
        self.file = folder / "scheduler.json"
        self._log = (folder / "cluster.log").open("w")
        self._options = options
        self._port = free_port()
        self.scheduler = self.start_scheduler()
        self.workers = [self.start_worker() for _ in range(workers)]

    def start_scheduler(self) -> "subprocess.Popen[str]":
        self.file.unlink(missing_ok=True)
        where = ("--port", str(self._port), "--scheduler-file", str(self.file))
        return self._start("scheduler", *where)

    def start_worker(self, *options: str, **environment: str) -> "subprocess.Popen[str]":
        arguments = ("--scheduler-file", str(self.file), "--nthreads", "1", *options)
        return self._start("worker", *arguments, **environment)

    def _start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        path = os.pathsep.join(filter(None, sys.path))
        return subprocess.Popen(
            [*DASK, *arguments, *LOOPBACK, *self._options],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": path, **environment},
            cwd=self.file.parent,  # Python looks in the current folder first
            start_new_session=True,
            text=True,
        )

    def restart_what_died(self) -> None:
        if self.scheduler.poll() is not None:
            self.scheduler = self.start_scheduler()
        self.workers = [w if w.poll() is None else self.start_worker() for w in self.workers]

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            kill_group(process)
        self._log.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def kill_group(process: "subprocess.Popen[str]") -> None:
    """A worker with its nanny and whatever else it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finish(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """What a driver printed that ends with this exit code."""
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == code, printed
    return printed


def wait_until_some_are_done(path: Path | str, process: "subprocess.Popen[str]") -> int:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError, SchemaError):
            if done := counts(path)["done"]:
                return done
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.1)
    raise AssertionError("nothing was done within 400 s")
