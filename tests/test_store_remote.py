"""Stores at URLs: the same store on an S3 service and in memory, and its lock."""

import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from pipeline.campaign import Campaign, parse_campaign
from pipeline.cluster import Resources
from pipeline.launch import launch
from pipeline.status import describe_status
from store.array_store import create_store, read_grid, write_block
from store.cube import open_store
from store.keys import Block, Grid
from store.ledger import Ledger, counts
from store.lock import LockLostError, ObjectLock, StoreLockedError
from store.place import PlaceError, StoreWriteError, is_there, open_place
from store.reduced import read_reduced
from store.schema import RESULTS, Status
from store.verify import verify_store

CAMPAIGN = """
name = "tiny"
model = "phase_retrieval"
entropy = 7
[parameters]
a = 1.0
[grid]
alpha = [2.0, 4.0]
N = [12]
seeds = 20
inits = ["random", "spectral"]
[dynamics]
method = "flow"
T = 20.0
"""
INITS = ("random", "spectral")
GRID = Grid("alpha", (2.5, 1.5), (64,), tuple(range(6)), INITS)
BLOCK = Block("alpha", 2.5, 64, (0, 1, 2, 3), INITS)
QUICK = {"beat_seconds": 0.1, "stale_seconds": 1.0}


@pytest.fixture(params=["s3", "memory"])
def url(request: pytest.FixtureRequest) -> str:
    """Where a store can be put."""
    if request.param == "memory":
        return f"memory://{time.monotonic_ns()}/campaign.zarr"
    return f"{request.getfixturevalue('bucket')}/campaign.zarr"


@pytest.fixture
def campaign() -> Campaign:
    return parse_campaign(CAMPAIGN, source="test")


def fill(url: str, block: Block) -> None:
    random = np.random.default_rng(3)
    codes = ("recovered", "instances")
    write_block(
        url,
        block,
        {
            name: np.ones(block.shape, np.int8) if name in codes else random.random(block.shape)
            for name in RESULTS
        },
    )


def make(url: str) -> None:
    create_store(url, GRID, np.full((2, 1), 100), block_seeds=4, attributes={"revisions": [{}]})


def test_a_campaign_at_a_url_is_the_one_in_a_folder(
    campaign: Campaign, url: str, tmp_path: Path
) -> None:
    quiet = {"console": Console(quiet=True), "resources": Resources("synchronous")}
    launch(campaign, tmp_path / "local.zarr", **quiet)
    fewer = parse_campaign(CAMPAIGN, source="test", overrides=["grid.seeds=16"])
    launch(fewer, url, **quiet)
    launch(campaign, url, **quiet)  # grown and completed
    mine, other = (
        open_store(path).drop_vars(["seconds", "revision"])
        for path in (tmp_path / "local.zarr", url)
    )
    xr.testing.assert_identical(mine.load().drop_attrs(), other.load().drop_attrs())
    assert set(np.unique(open_store(url).revision)) == {0, 1}
    xr.testing.assert_equal(read_reduced(url), read_reduced(tmp_path / "local.zarr"))
    assert describe_status(url)["done"] == 80
    assert verify_store(url).damages == []
    assert not is_there(url.replace(".zarr", ".zarr.lock"))


@pytest.mark.slow
def test_worker_processes_write_to_a_service(campaign: Campaign, bucket: str) -> None:
    url = f"{bucket}/campaign.zarr"
    launch(campaign, url, console=Console(quiet=True), resources=Resources(workers=2))
    assert counts(url)["done"] == 80


def test_damage_at_a_url_is_found_and_healed(url: str) -> None:
    make(url)
    with Ledger(url) as ledger:
        fill(url, BLOCK)
        ledger.mark(BLOCK, Status.DONE)
    assert verify_store(url).damages == []
    fs, root = fsspec.url_to_fs(url, use_listings_cache=False)
    fs.pipe_file(f"{root}/overlap/c.0.0.0.0", fs.cat_file(f"{root}/overlap/c.0.0.0.0")[:-1])
    fs.rm_file(f"{root}/loss/c.0.0.0.0")
    fs.pipe_file(f"{root}/status/c.0.0.0.0", b"nothing")
    found = verify_store(url)
    assert len(found.damages) == 3
    assert counts(url)["pending"] == 24
    fill(url, BLOCK)
    with Ledger(url) as ledger:
        ledger.mark(BLOCK, Status.DONE)
    assert verify_store(url).damages == []
    assert read_grid(url) == GRID


def test_one_driver_at_a_time(url: str) -> None:
    make(url)
    lock = f"{url}.lock"
    mine, other = ObjectLock(lock, **QUICK), ObjectLock(lock, **QUICK)
    assert not mine.is_held()
    assert mine.acquire()
    assert other.is_held()
    assert not other.acquire()
    mine.check()
    mine.release()
    assert other.acquire()
    other.release()
    assert not is_there(lock)


def test_a_silent_driver_is_replaced_and_told(url: str) -> None:
    dead, heir = (ObjectLock(f"{url}.lock", **QUICK) for _ in range(2))
    assert dead.acquire()
    dead._stop.set()  # as if the process hung; the object stays
    assert heir.acquire()
    dead._stop.clear()
    beating = threading.Thread(target=dead._beat)
    beating.start()
    beating.join(timeout=5)
    with pytest.raises(LockLostError, match="found it silent for 1 s"):
        dead.check()
    dead.release()
    heir.check()  # the other's release has left it alone
    heir.release()


def test_a_store_at_work_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.lock.BEAT_SECONDS", 0.1)
    monkeypatch.setattr("store.lock.STALE_SECONDS", 1.0)
    make(url)
    with Ledger(url):
        with pytest.raises(StoreLockedError, match="got one at work"):
            Ledger(url)
        assert describe_status(url)["running"]
    assert not describe_status(url)["running"]


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there_is_told(campaign: Campaign) -> None:
    quiet = {"console": Console(quiet=True), "resources": Resources("synchronous")}
    with pytest.raises(StoreWriteError, match=r"s3://nowhere/x\.zarr: .*bucket does not exist"):
        launch(campaign, "s3://nowhere/x.zarr", **quiet)


def test_a_url_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(PlaceError, match=r"hesscape\[remote\]"):
        open_place("nowhere://x.zarr")
