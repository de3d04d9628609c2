"""Campaigns on real clusters and under real kills: nothing is lost, nothing is wrong."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libfaketime
import numpy as np
import psutil
import pytest
import trustme
import xarray as xr
from rich.console import Console

from pipeline.campaign import load_campaign
from pipeline.cluster import Resources
from pipeline.cost import calibrated_cost
from pipeline.kernel.block import KERNEL_VERSION
from pipeline.launch import launch
from pipeline.plan import make_plan
from store.ledger import counts
from store.schema import SchemaError
from store.verify import verify_store

pytestmark = pytest.mark.slow

HESSCAPE = (sys.executable, "-c", "from pipeline.cli import main; main()")
DASK = (sys.executable, "-m", "dask")
SMALL = ("--set", "grid.seeds=40", "--set", "grid.N=[32,48]", "--set", "dynamics.T=100.0")
WORKERS = 2
LOOPBACK = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")


def run(path: Path, *arguments: str, **options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*HESSCAPE, "run", "quickstart", "--store", str(path), *SMALL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=path.parent,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )


def status(path: Path) -> dict[str, int]:
    command = [*HESSCAPE, "status", str(path), "--json"]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def numbers(path: Path) -> xr.Dataset:
    cube = xr.open_zarr(path, chunks=None).load()
    assert (cube.status == 1).all()
    return cube.drop_vars(["seconds", "revision"]).drop_attrs()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    path = tmp_path_factory.mktemp("uninterrupted") / "whole.zarr"
    process = run(path)
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    return numbers(path)


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

    def stop(self) -> None:
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


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.stop()


@pytest.fixture
def scheduler_file(cluster: Cluster) -> Path:
    return cluster.file


def wait_until_some_are_done(path: Path, process: "subprocess.Popen[str]", least: int = 1) -> int:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError, SchemaError):
            if (done := counts(path)["done"]) >= least:
                return done
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.1)
    raise AssertionError("nothing was done within 400 s")


@pytest.mark.parametrize("by", ["file", "address"])
def test_an_existing_cluster_gives_the_same_store(
    tmp_path: Path, scheduler_file: Path, uninterrupted: xr.Dataset, by: str
) -> None:
    path = tmp_path / "remote.zarr"
    arguments = ("--scheduler-file", str(scheduler_file))
    if by == "address":
        deadline = time.monotonic() + 30
        while not scheduler_file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        arguments = ("--scheduler", json.loads(scheduler_file.read_text())["address"])
    process = run(path, *arguments)
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    xr.testing.assert_identical(numbers(path), uninterrupted)


@pytest.mark.parametrize("repetition", range(3))
def test_a_killed_driver_loses_only_what_was_under_way(
    tmp_path: Path, uninterrupted: xr.Dataset, repetition: int
) -> None:
    """SIGKILL at a random moment, then the same command again."""
    path = tmp_path / "killed.zarr"
    moment = random.Random(repetition).uniform(5.0, 12.0)
    process = run(path, "--workers", str(WORKERS))
    time.sleep(moment)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(2)  # the workers notice that their driver is gone

    marked = xr.open_zarr(path, chunks=None).status.load()
    written = xr.open_zarr(path, chunks=None).seconds.load()
    computed_but_not_marked = (marked == 0) & np.isfinite(written)
    chunks = computed_but_not_marked.any("init").coarsen(seed=16, boundary="pad").max()
    lost_units = int(chunks.sum())

    before = status(path)
    process = run(path, "--workers", str(WORKERS))
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    assert f"{before['done']} done before, {before['pending']} to do" in printed
    # a unit groups chunks; what one worker had under way is one unit
    assert lost_units <= WORKERS * _largest_unit(path)
    xr.testing.assert_identical(numbers(path), uninterrupted)


def _largest_unit(path: Path) -> int:
    campaign = load_campaign("quickstart", [text for text in SMALL if text != "--set"])
    plan = make_plan(campaign, path.parent / "none.zarr", calibrated_cost(campaign))
    return max(len(unit.chunks) for unit in plan.units)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_cleanly_and_says_how_to_resume(
    tmp_path: Path, uninterrupted: xr.Dataset, number: signal.Signals
) -> None:
    path = tmp_path / "stopped.zarr"
    process = run(path)
    time.sleep(7)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: the workers get it too
    else:
        os.kill(process.pid, number)
    asked = time.monotonic()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert time.monotonic() - asked < 20
    assert "To resume:" in printed
    assert "Traceback" not in printed
    assert not status(path)["running"]
    process = run(path)
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_a_store_can_be_read_and_asked_while_it_fills(tmp_path: Path) -> None:
    path = tmp_path / "live.zarr"
    process = run(path)
    seen = []
    while process.poll() is None:
        if path.exists():
            cube = xr.open_zarr(path, chunks=None).load()
            done = cube.status == 1
            assert np.isfinite(cube.overlap.where(done, 0)).all()
            assert (cube.recovered.where(done, 0) >= 0).all()
            state = status(path)
            seen.append((int(done.sum()), state["running"]))
        time.sleep(0.3)
    process.communicate()
    assert process.returncode == 0
    assert any(0 < count < seen[-1][0] and running for count, running in seen)
    shutil.rmtree(path)


# --- the cluster


def test_all_workers_killed_and_others_started(
    tmp_path: Path, cluster: Cluster, uninterrupted: xr.Dataset
) -> None:
    path = tmp_path / "campaign.zarr"
    process = run(path, "--scheduler-file", str(cluster.file))
    wait_until_some_are_done(path, process)
    for worker in cluster.workers:
        kill_group(worker)
    time.sleep(2)
    assert process.poll() is None  # it waits
    cluster.restart_what_died()
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_a_killed_scheduler_stops_the_sweep_resumable(
    tmp_path: Path, cluster: Cluster, uninterrupted: xr.Dataset
) -> None:
    path = tmp_path / "campaign.zarr"
    process = run(path, "--scheduler-file", str(cluster.file))
    wait_until_some_are_done(path, process)
    cluster.scheduler.kill()
    cluster.scheduler.wait()
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 4, printed
    assert "Stopped: the scheduler is gone" in printed
    assert "To resume:" in printed
    assert "Traceback" not in printed
    done = status(path)
    assert done["quarantined"] == 0
    assert done["done"] > 0
    cluster.restart_what_died()
    process = run(path, "--scheduler-file", str(cluster.file))
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    assert f"{done['done']} done before" in printed
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_a_scheduler_that_comes_back_goes_on(
    tmp_path: Path, cluster: Cluster, uninterrupted: xr.Dataset
) -> None:
    path = tmp_path / "campaign.zarr"
    process = run(path, "--scheduler-file", str(cluster.file))
    wait_until_some_are_done(path, process)
    cluster.scheduler.kill()
    cluster.scheduler.wait()
    for worker in cluster.workers:
        kill_group(worker)
    cluster.restart_what_died()
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    assert "TaskLostError" in printed
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_workers_that_retire_cost_only_time(tmp_path: Path, uninterrupted: xr.Dataset) -> None:
    """A walltime: each worker leaves after some seconds, and another one comes."""
    retiring = ("--lifetime", "6s", "--lifetime-stagger", "2s")
    cluster = Cluster(tmp_path, workers=0)
    path = tmp_path / "campaign.zarr"
    try:
        cluster.workers = [cluster.start_worker(*retiring) for _ in range(WORKERS)]
        process = run(path, "--scheduler-file", str(cluster.file))
        retired = 0
        while process.poll() is None:
            for place, worker in enumerate(cluster.workers):
                if worker.poll() is not None:
                    retired += 1
                    cluster.workers[place] = cluster.start_worker(*retiring)
            time.sleep(0.2)
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
        assert retired >= 2
        assert "WorkerDiedError" not in printed
    finally:
        cluster.stop()
    xr.testing.assert_identical(numbers(path), uninterrupted)


def other_hesscape(folder: Path, version: str, kernel: str) -> str:
    """A copy of the source tree that calls itself otherwise; what to put on the Python path."""
    root = Path(__file__).parents[1]
    for package in ("pipeline", "store", "workflows"):
        shutil.copytree(root / package, folder / package)
    block = folder / "pipeline" / "kernel" / "block.py"
    text = block.read_text()
    mine = f'KERNEL_VERSION = "{KERNEL_VERSION}"'
    assert mine in text
    block.write_text(text.replace(mine, f'KERNEL_VERSION = "{kernel}"'))
    metadata = folder / f"hesscape-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: hesscape\nVersion: {version}\n"
    )
    return os.pathsep.join([str(folder), *filter(None, sys.path)])


@pytest.mark.parametrize(
    ("version", "kernel", "said"),
    [
        ("0.0.9", KERNEL_VERSION, "expected the driver's hesscape 0.1.0, got 0.0.9"),
        ("0.1.0", "0", f"expected the driver's kernel version '{KERNEL_VERSION}', got '0'"),
    ],
)
def test_a_worker_with_another_version_is_refused_by_name(
    tmp_path: Path, version: str, kernel: str, said: str
) -> None:
    other = other_hesscape(tmp_path / "other", version, kernel)
    cluster = Cluster(tmp_path, workers=0)
    path = tmp_path / "campaign.zarr"
    try:
        cluster.workers = [cluster.start_worker(PYTHONPATH=other)]
        process = run(path, "--scheduler-file", str(cluster.file))
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 2, printed
        assert re.search(rf"tcp://127.0.0.1:\d+: {re.escape(said)}", printed)
        assert not path.exists()
    finally:
        cluster.stop()


def test_a_worker_with_another_version_that_joins_later_is_refused_and_its_work_done_again(
    tmp_path: Path, cluster: Cluster, uninterrupted: xr.Dataset
) -> None:
    other = other_hesscape(tmp_path / "other", "0.0.9", "0")
    path = tmp_path / "campaign.zarr"
    process = run(path, "--scheduler-file", str(cluster.file))
    wait_until_some_are_done(path, process)
    cluster.workers.append(cluster.start_worker(PYTHONPATH=other))
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    assert re.search(r"worker tcp://127.0.0.1:\d+ is refused: expected the driver's", printed)
    xr.testing.assert_identical(numbers(path), uninterrupted)


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Path]:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    issued.cert_chain_pems[0].write_to_path(files["cert"])
    issued.private_key_pem.write_to_path(files["key"])
    return files


def test_a_scheduler_that_requires_tls(
    tmp_path: Path, certificates: dict[str, Path], uninterrupted: xr.Dataset
) -> None:
    files = {name: str(file) for name, file in certificates.items()}
    dask_options = ("--tls-ca-file", files["ca"], "--tls-cert", files["cert"])
    cluster = Cluster(tmp_path, "--protocol", "tls", *dask_options, "--tls-key", files["key"])
    path = tmp_path / "campaign.zarr"
    credentials = ("--tls-ca", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"])
    try:
        process = run(path, "--scheduler-file", str(cluster.file))
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 2, printed
        assert "--tls-ca" in printed
        assert not path.exists()
        process = run(path, "--scheduler-file", str(cluster.file), *credentials)
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 0, printed
        assert json.loads(cluster.file.read_text())["address"].startswith("tls://")
    finally:
        cluster.stop()
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_the_slurm_recipe_runs_a_campaign(tmp_path: Path, uninterrupted: xr.Dataset) -> None:
    """As SLURM would start it: two tasks of an array, on this machine."""
    recipe = tmp_path / "campaign.sbatch"
    printed = subprocess.run(
        [*HESSCAPE, "workflows", "--slurm"], capture_output=True, check=True, text=True
    ).stdout
    recipe.write_text(printed)
    assert re.findall("FILL_IN", printed) == ["FILL_IN"]
    assert re.search(r"^#SBATCH --array=0-\d+$", printed, flags=re.MULTILINE)
    subprocess.run(["bash", "-n", str(recipe)], check=True)
    path = tmp_path / "campaign.zarr"
    commands = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_ARRAY_JOB_ID": "4711",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 400),
        "TMPDIR": str(tmp_path),
    }
    tasks = [
        subprocess.Popen(
            ["bash", str(recipe), "quickstart", "--store", str(path), *SMALL],
            env=environment | {"SLURM_ARRAY_TASK_ID": number},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for number in ("0", "1")
    ]
    try:
        ended = [task.communicate(timeout=390)[0] for task in tasks]
    finally:
        for task in tasks:
            kill_group(task)
    assert tasks[0].returncode == 0, ended
    assert not list(tmp_path.glob("scheduler-*.json"))
    xr.testing.assert_identical(numbers(path), uninterrupted)


# --- the disk


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own, in memory."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill_up(file: Path) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as other:
        while other.write(bytes(1 << 12)):
            pass


def test_a_full_disk_stops_the_sweep_and_the_next_one_completes_it(
    tmp_path: Path, uninterrupted: xr.Dataset
) -> None:
    with small_disk(tmp_path / "disk", "30m") as disk:
        path = disk / "campaign.zarr"
        process = run(path)
        wait_until_some_are_done(path, process)
        fill_up(disk / "other data")
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 4, printed
        assert "No space left on device" in printed
        assert "Make room or restore access, then give the same command" in printed
        assert "Traceback" not in printed
        (disk / "other data").unlink()
        before = status(path)
        assert before["quarantined"] == 0
        assert before["pending"] > 0
        process = run(path)
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 0, printed
        assert f"{before['done']} done before" in printed
        assert verify_store(path).damages == []
        xr.testing.assert_identical(numbers(path), uninterrupted)


def test_a_disk_too_small_for_a_store_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        process = run(disk / "campaign.zarr")
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 4, printed
        assert "No space left on device" in printed
        assert "nothing had begun" in printed
        assert not [file for file in disk.iterdir() if file.suffix != ".lock"]


def test_a_store_made_read_only_stops_the_sweep_and_the_next_one_completes_it(
    tmp_path: Path, uninterrupted: xr.Dataset
) -> None:
    with small_disk(tmp_path / "disk", "50m") as disk:
        path = disk / "campaign.zarr"
        process = run(path)
        wait_until_some_are_done(path, process)
        # the store alone: what has open files, as the lock beside it, is not made read-only
        subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 4, printed
        assert "Read-only file system" in printed
        process = run(path)
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 2, printed
        assert "read-only" in printed
        subprocess.run(["umount", str(path)], check=True)
        process = run(path)
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 0, printed
        xr.testing.assert_identical(numbers(path), uninterrupted)


# --- drivers and clocks


def test_of_two_drivers_one_is_refused(tmp_path: Path, uninterrupted: xr.Dataset) -> None:
    path = tmp_path / "campaign.zarr"
    first = run(path)
    wait_until_some_are_done(path, first)
    second = run(path, "--workers", "1")
    printed, _ = second.communicate(timeout=400)
    assert second.returncode == 2, printed
    assert f"got one at work (process {first.pid} on " in printed
    printed, _ = first.communicate(timeout=400)
    assert first.returncode == 0, printed
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_two_drivers_at_the_same_moment_make_one_store(
    tmp_path: Path, uninterrupted: xr.Dataset
) -> None:
    path = tmp_path / "campaign.zarr"
    pair = [run(path, "--workers", "1") for _ in range(2)]
    ended = [process.communicate(timeout=400)[0] for process in pair]
    assert sorted(process.returncode for process in pair) == [0, 2], ended
    xr.testing.assert_identical(numbers(path), uninterrupted)


@pytest.mark.parametrize("jump", ["+3d", "-3d"])
def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, uninterrupted: xr.Dataset, jump: str
) -> None:
    """The date of driver and workers jumps by three days while they work."""
    path = tmp_path / "campaign.zarr"
    clock = tmp_path / "clock"
    clock.write_text("+0d")
    library = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
    faked = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    process = run(path, env=faked)
    done = wait_until_some_are_done(path, process)
    clock.write_text(jump)
    seen = []
    while process.poll() is None:
        state = status(path)
        if state["running"] and state["rate"] is not None and state["done"] > done:
            seen.append(state["rate"])
        time.sleep(0.3)
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    assert seen
    assert 1.0 < min(seen) < max(seen) < 1e5  # runs/s, not runs in three days
    xr.testing.assert_identical(numbers(path), uninterrupted)


# --- everything at once

SOAK_KILLS = 100
SOAK_SEEDS = 96
SOAK = ("--set", "grid.alpha=[2.0,3.0,5.0]", "--set", "grid.N=[24,32]", "--set", "dynamics.T=60.0")


class Soak:
    """A driver on a cluster, whatever is killed; the campaign grows, so that there is work."""

    def __init__(self, folder: Path, random: random.Random) -> None:
        self.path = folder / "soak.zarr"
        self.cluster = Cluster(folder)
        self.kills: Counter[str] = Counter()
        self.ends: Counter[int] = Counter()
        self.seeds = SOAK_SEEDS
        self._random = random
        self._log = (folder / "drivers.log").open("w")
        self._folder = folder
        self.driver = self._start_driver()

    def _start_driver(self) -> "subprocess.Popen[str]":
        campaign = ("--set", f"grid.seeds={self.seeds}", *SOAK)
        where = ("--scheduler-file", str(self.cluster.file))
        return subprocess.Popen(
            [*HESSCAPE, "run", "quickstart", "--store", str(self.path), *campaign, *where],
            stdout=self._log,
            stderr=self._log,
            text=True,
            cwd=self._folder,
            start_new_session=True,
        )

    def kill_something(self) -> None:
        """SIGKILL for a worker, a worker with its nanny, the scheduler or the driver."""
        what = self._random.choice(("worker", "worker", "worker", "nanny", "scheduler", "driver"))
        if what == "driver":
            kill_group(self.driver)
        elif what == "scheduler":
            kill_group(self.cluster.scheduler)
        else:
            nanny = self._random.choice(self.cluster.workers)
            processes = psutil.Process(nanny.pid).children(recursive=True)
            if what == "worker" and not processes:
                return  # it is just starting
            if what == "worker":
                for process in processes:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            else:
                kill_group(nanny)
        self.kills[what] += 1

    def mend(self) -> None:
        """Start again what is not there; more seeds, when all of them are done."""
        self.cluster.restart_what_died()
        code = self.driver.poll()
        if code is not None:
            self.ends[code] += 1
            self.seeds += SOAK_SEEDS * (code == 0)
            self.driver = self._start_driver()

    def finish(self) -> None:
        """Let the last campaign end, with nothing killed any more."""
        deadline = time.monotonic() + 400
        while self.driver.poll() != 0:
            assert time.monotonic() < deadline, self.log()
            if self.driver.poll() is not None:
                self.ends[self.driver.returncode] += 1
                self.driver = self._start_driver()
            self.cluster.restart_what_died()
            time.sleep(0.5)

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def stop(self) -> None:
        kill_group(self.driver)
        self.cluster.stop()
        self._log.close()


@pytest.mark.timeout(3600)
def test_soak(tmp_path: Path) -> None:
    """Kills at random moments, at least a hundred; the store is that of an undisturbed campaign."""
    moments = random.Random(20240305)
    soak = Soak(tmp_path, moments)
    began = time.monotonic()
    try:
        wait_until_some_are_done(soak.path, soak.driver)
        while soak.kills.total() < SOAK_KILLS:
            time.sleep(moments.uniform(0.2, 9.0))
            soak.kill_something()
            soak.mend()
        soak.finish()
    finally:
        soak.stop()
    print(f"{dict(soak.kills)} killed in {time.monotonic() - began:.0f} s, ends {dict(soak.ends)}")
    assert "Traceback" not in soak.log()
    found = verify_store(soak.path)
    assert found.damages == []
    assert counts(soak.path) == {
        "pending": 0,
        "done": 18 * soak.seeds,
        "failed": 0,
        "quarantined": 0,
    }
    whole = tmp_path / "whole.zarr"
    campaign = load_campaign(
        "quickstart", [f"grid.seeds={soak.seeds}", *(text for text in SOAK if text != "--set")]
    )
    launch(campaign, whole, console=Console(quiet=True), resources=Resources(workers=WORKERS))
    xr.testing.assert_identical(numbers(soak.path), numbers(whole))
