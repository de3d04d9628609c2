"""Clusters that are joined: of other versions, with TLS, of SLURM, with a store at a URL."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import trustme
import xarray as xr

from clusters import (
    HESSCAPE,
    SMALL,
    Cluster,
    finish,
    kill_group,
    numbers,
    run,
    status,
    wait_until_some_are_done,
)
from pipeline.kernel.block import KERNEL_VERSION
from store.verify import verify_store

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("by", ["file", "address"])
def test_an_existing_cluster_gives_the_same_store(
    tmp_path: Path, cluster: Cluster, uninterrupted: xr.Dataset, by: str
) -> None:
    path = tmp_path / "remote.zarr"
    arguments = ("--scheduler-file", str(cluster.file))
    if by == "address":
        deadline = time.monotonic() + 30
        while not cluster.file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        arguments = ("--scheduler", json.loads(cluster.file.read_text())["address"])
    process = run(path, *arguments)
    finish(process)
    xr.testing.assert_identical(numbers(path), uninterrupted)


def test_workers_of_a_cluster_write_to_an_object_store(
    tmp_path: Path, bucket: str, uninterrupted: xr.Dataset
) -> None:
    """A worker is killed meanwhile."""
    url = f"{bucket}/campaign.zarr"
    with closing(Cluster(tmp_path)) as cluster:  # after the bucket: workers inherit its address
        process = run(url, "--scheduler-file", str(cluster.file))
        wait_until_some_are_done(url, process)
        kill_group(cluster.workers[0])
        cluster.restart_what_died()
        finish(process)
    assert verify_store(url).damages == []
    xr.testing.assert_identical(numbers(url), uninterrupted)


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
    path = tmp_path / "campaign.zarr"
    with closing(Cluster(tmp_path, workers=0)) as cluster:
        cluster.workers = [cluster.start_worker(PYTHONPATH=other)]
        process = run(path, "--scheduler-file", str(cluster.file))
        printed = finish(process, 2)
        assert re.search(rf"tcp://127.0.0.1:\d+: {re.escape(said)}", printed)
        assert not path.exists()


def test_a_worker_with_another_version_that_joins_later_is_refused_and_its_work_done_again(
    tmp_path: Path, cluster: Cluster, uninterrupted: xr.Dataset
) -> None:
    other = other_hesscape(tmp_path / "other", "0.0.9", "0")
    path = tmp_path / "campaign.zarr"
    process = run(path, "--scheduler-file", str(cluster.file))
    wait_until_some_are_done(path, process)
    cluster.workers.append(cluster.start_worker(PYTHONPATH=other))
    printed = finish(process)
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
    tls = ("--tls-ca-file", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"])
    path = tmp_path / "campaign.zarr"
    credentials = ("--tls-ca", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"])
    with closing(Cluster(tmp_path, "--protocol", "tls", *tls)) as cluster:
        process = run(path, "--scheduler-file", str(cluster.file))
        printed = finish(process, 2)
        assert "--tls-ca" in printed
        assert not path.exists()
        process = run(path, "--scheduler-file", str(cluster.file), *credentials)
        printed = finish(process)
        assert json.loads(cluster.file.read_text())["address"].startswith("tls://")
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
