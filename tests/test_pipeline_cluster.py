"""Clusters, started or joined: what they are, how fast they end, what is said when there is none.

Real schedulers and workers throughout; all addresses are of the loopback interface.
"""

import asyncio
import gc
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread, Timer

import dask
import pytest
from dask.system import cpu_count
from distributed import Client, LocalCluster
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline import cluster as cluster_module
from pipeline.cluster import ClusterError, Resources, connect, limit_blas_threads

ROOT = Path(__file__).parents[1]
PATIENCE = 0.5


@pytest.fixture
def running() -> Iterator[LocalCluster]:
    """A scheduler as a user would have it running, without workers yet."""
    with LocalCluster(
        n_workers=0,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster


def count_blas_threads() -> list[int]:
    return [int(library["num_threads"]) for library in threadpool_info() if is_blas(library)]


def is_blas(library: dict[str, object]) -> bool:
    return library["user_api"] == "blas"


def listening_hosts(pids: list[int]) -> set[str]:
    """Addresses on which the processes accept connections, as the kernel lists them."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(link.readlink().name)
            except FileNotFoundError:
                continue
    hosts = set()
    for table, length in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                hosts.add(fields[1][:length])
    return hosts


# Arguments that contradict one another


@pytest.mark.parametrize(
    ("scheduler", "file", "workers", "said"),
    [
        ("tcp://h:1", Path("s.json"), None, "got both, 'tcp://h:1' and 's.json'; give one"),
        ("threads", Path("s.json"), None, "got both, 'threads' and 's.json'; give one"),
        ("tcp://h:1", None, 3, "cluster at 'tcp://h:1', which has its own, got 3; leave it out"),
        (None, Path("s.json"), 3, "cluster at 's.json', which has its own, got 3; leave it out"),
        (None, None, 0, "expected one worker or more, got 0; give 1 or more"),
        ("threads", None, -1, "expected one worker or more, got -1; give 1 or more"),
    ],
)
def test_contradictions_are_refused(
    scheduler: str | None, file: Path | None, workers: int | None, said: str
) -> None:
    with pytest.raises(ClusterError, match=re.escape(said)):
        Resources(scheduler, file, workers)


# A cluster that exists


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (None, "no such file"),
        ("", "a file without an address in JSON"),
        ("{}", "a file without an address in JSON"),
        ("[1]", "a file without an address in JSON"),
        ("\udcff", "a file without an address in JSON"),
    ],
)
def test_a_scheduler_file_that_says_nothing(tmp_path: Path, content: str | None, got: str) -> None:
    file = tmp_path / "scheduler.json"
    if content is not None:
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with (
        pytest.raises(ClusterError, match=f"got {got} within 0.2 s; start one with `dask sched"),
        connect(Resources(scheduler_file=file), timeout=0.2),
    ):
        pass


def test_a_scheduler_file_that_is_a_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(ClusterError, match=r"got Is a directory within"),
        connect(Resources(scheduler_file=tmp_path), timeout=0.1),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "got"),
    [
        ("foo://127.0.0.1:1", "unknown address scheme 'foo'"),
        ("127.0.0.1", "missing port number"),
        ("tcp://127.0.0.1:1", "(Connection refused|Timed out)"),
        ("tls://127.0.0.1:1", "TLS expects"),
    ],
)
def test_an_address_where_no_scheduler_is(address: str, got: str) -> None:
    begun = time.monotonic()
    with (
        pytest.raises(ClusterError, match=f"{address}' within 0.5 s, got .*{got}.*; start one"),
        connect(Resources(address), timeout=PATIENCE),
    ):
        pass
    assert time.monotonic() - begun < PATIENCE + 1


def test_a_port_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        with (
            pytest.raises(ClusterError, match=r"got silence; start one"),
            connect(Resources(address), timeout=PATIENCE),
        ):
            pass


def test_a_scheduler_without_workers(running: LocalCluster) -> None:
    said = f"got none within 0.5 s; start some with `dask worker {running.scheduler_address}"
    with (
        pytest.raises(ClusterError, match=said),
        connect(Resources(running.scheduler_address), patience=PATIENCE),
    ):
        pass


def test_a_running_cluster_is_joined_and_left_running(
    running: LocalCluster, tmp_path: Path
) -> None:
    running.scale(1)
    file = tmp_path / "scheduler.json"
    late = Timer(0.3, file.write_text, [json.dumps({"address": running.scheduler_address})])
    late.start()  # the file of a scheduler that is still starting
    with connect(Resources(scheduler_file=file)) as client:
        assert client.submit(sum, [1, 2]).result() == 3
    with pytest.raises(KeyError, match="mine"), connect(Resources(running.scheduler_address)):
        raise KeyError("mine")
    with connect(Resources(running.scheduler_address)) as client:
        assert len(client.nthreads()) == 1


# Workers in this process


def test_threads_are_workers_of_this_process() -> None:
    with connect(Resources("threads", workers=3)) as client:
        assert list(client.nthreads().values()) == [1, 1, 1]
        assert set(client.run(os.getpid).values()) == {os.getpid()}
        assert listening_hosts([os.getpid()]) == {"0100007F"}
        assert client.dashboard_link.startswith("http://127.0.0.1:")


def hold(folder: Path) -> None:
    """Run until told to finish."""
    (folder / "begun").touch()
    wait_for((folder / "finish").exists)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def interrupt_while_held(folder: Path) -> None:
    with connect(Resources("threads", workers=2)) as client:
        block = client.submit(hold, folder)
        wait_for((folder / "begun").exists)
        raise KeyboardInterrupt(block.key)


def test_threads_end_at_once_with_a_block_under_way(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="hold"):
        interrupt_while_held(tmp_path)
    assert time.monotonic() - begun < 5
    (tmp_path / "finish").touch()


def test_what_the_loop_leaves_is_collected_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    async def leave_future() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(TimeoutError("nobody asks"))
        knot: list[object] = [future]
        knot.append(knot)  # only the garbage collector frees it, and complains then

    gc.disable()  # it must not come by before the cluster is left
    try:
        with connect(Resources("threads", workers=1)) as client:
            client.sync(leave_future)
    finally:
        gc.enable()
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    assert logging.getLogger("asyncio").level == logging.NOTSET


def test_a_busy_dashboard_port_is_left_alone() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 8787))
            other.listen()
        except OSError:
            pass  # busy already: so much the better
        with connect(Resources("threads", workers=1)) as client:
            assert not client.dashboard_link.endswith(":8787/status")


def test_workers_that_cannot_start() -> None:
    with (
        dask.config.set({"distributed.worker.preload": ["raise RuntimeError('no licence')"]}),
        pytest.raises(ClusterError, match=r"start 1 workers .*, got RuntimeError\('no licence'\)"),
        connect(Resources("threads", workers=1)),
    ):
        pass


# Workers that are processes


def test_processes_one_to_a_cpu_on_the_loopback_interface() -> None:
    with connect(Resources()) as client:
        pids = list(client.run(os.getpid).values())
        assert len(set(pids)) == cpu_count() <= len(os.sched_getaffinity(0))
        assert set(client.nthreads().values()) == {1}
        assert os.getpid() not in pids
        assert listening_hosts([os.getpid(), *pids]) == {"0100007F"}
        assert client.submit(_limit_and_count, pure=False).result() == [1]
        check_that_interrupts_are_ignored(client, pids[0])
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def _limit_and_count() -> list[int]:
    with threadpool_limits(2, user_api="blas"):
        limit_blas_threads()
        limit_blas_threads()
        return sorted(set(count_blas_threads()))


def pids_of(client: Client) -> set[int]:
    return set(client.run(os.getpid, on_error="ignore").values())


def check_that_interrupts_are_ignored(client: Client, pid: int) -> None:
    """Also by the worker that takes the place of a dead one."""
    os.kill(pid, signal.SIGINT)
    assert pid in client.run(os.getpid).values()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in (now := pids_of(client)) and len(now) == cpu_count())
    successors = pids_of(client)
    for successor in successors:
        os.kill(successor, signal.SIGINT)
    time.sleep(0.2)
    assert pids_of(client) == successors


def test_a_worker_that_dies_again_and_again_is_replaced() -> None:
    """Also when Dask's embedded cluster would have given it up before it was there again."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}),
        connect(Resources(workers=1)) as client,
    ):
        for _ in range(2):
            (pid,) = pids_of(client)
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: len(pids_of(client) - {pid}) == 1)  # noqa: B023  called at once
        assert client.submit(sum, [1, 2]).result(timeout=10) == 3


INTERRUPTED = """
import os, sys, time
from pipeline.cluster import Resources, connect

if __name__ == "__main__":
    print("starting", flush=True)
    try:
        with connect(Resources({scheduler!r}, workers=2)) as client:
            blocks = [client.submit(time.sleep, 60, pure=False) for _ in range(6)]
            while not any(client.processing().values()):
                time.sleep(0.05)
            print("started", flush=True)
            blocks[0].result()
    except KeyboardInterrupt:
        print("stopped", flush=True)
        sys.exit(130)
"""


def living_members(group: int) -> list[str]:
    """Processes of the group that have not ended."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                members.append(stat.parent.name)
    return members


def test_an_interrupt_that_another_thread_takes_is_held_back_too() -> None:
    """BLAS has threads before any cluster is started: they do not block what this one blocks."""
    ended = Event()
    other = Thread(target=ended.wait)
    other.start()
    reached = False
    # a shell's background job begins with SIGINT ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), cluster_module._hold_interrupts():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        reached = True
    ended.set()
    other.join()
    assert reached
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [None, "threads"])
@pytest.mark.parametrize("after", ["started", 0.0, 0.3, 0.6, 0.9, 1.2])
def test_ctrl_c_in_a_terminal(tmp_path: Path, scheduler: str | None, after: str | float) -> None:
    """SIGINT goes to all processes of the group, as a terminal sends it."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED.format(scheduler=scheduler))
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "starting\n"
        if isinstance(after, str):
            assert process.stdout.readline() == f"{after}\n"
            time.sleep(0.5)
        else:
            time.sleep(after)
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        took = time.monotonic() - begun
    assert err == ""
    assert out.splitlines()[-1] == "stopped"
    assert process.returncode == 130
    assert took < 6
    wait_for(lambda: not living_members(process.pid))


# BLAS


def test_blas_is_limited_from_the_call_on() -> None:
    with threadpool_limits(2, user_api="blas"):
        assert set(count_blas_threads()) == {2}
        limit_blas_threads()
        assert set(count_blas_threads()) == {1}


def test_blas_is_given_back_at_the_end_of_the_context() -> None:
    with threadpool_limits(2, user_api="blas"):
        with limit_blas_threads():
            limit_blas_threads()  # as each block does
            assert set(count_blas_threads()) == {1}
        assert set(count_blas_threads()) == {2}
        limit_blas_threads()
        assert set(count_blas_threads()) == {1}


def test_limiting_again_is_cheap() -> None:
    limit_blas_threads()
    begun = time.perf_counter()
    for _ in range(100):
        limit_blas_threads()
    assert (time.perf_counter() - begun) / 100 < 1e-3
