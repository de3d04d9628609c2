"""Kills at random moments, of whatever runs: the store is that of an undisturbed campaign."""

import random
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import xarray as xr
from rich.console import Console

from clusters import HESSCAPE, WORKERS, Cluster, kill_group, numbers, wait_until_some_are_done
from pipeline.campaign import load_campaign
from pipeline.cluster import Resources
from pipeline.launch import launch
from store.ledger import counts
from store.verify import verify_store

pytestmark = pytest.mark.slow


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
        self.cluster.close()
        self._log.close()


@pytest.mark.timeout(3600)
def test_soak(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A hundred kills by default; the store is that of an undisturbed campaign."""
    moments = random.Random(20240305)
    soak = Soak(tmp_path, moments)
    kills = request.config.getoption("--kills")
    began = time.monotonic()
    try:
        wait_until_some_are_done(soak.path, soak.driver)
        while soak.kills.total() < kills:
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
