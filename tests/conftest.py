"""Options and fixtures that every test shares."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path

import fsspec
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.text import Text

from clusters import Cluster, free_port, numbers, run
from pipeline.cluster import limit_blas_threads


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--runslow", action="store_true", help="also run statistics and real clusters (minutes)"
    )
    parser.addoption("--kills", type=int, default=100, help="how many the soak test does")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--runslow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --runslow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread() -> Iterator[None]:
    """As in a worker: one BLAS thread, so that tests do not compete for cores."""
    with limit_blas_threads():
        yield


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """Numbers of the small campaign that faults are tried on, run by a command of its own."""
    path = tmp_path_factory.mktemp("uninterrupted") / "whole.zarr"
    process = run(path)
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    return numbers(path)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler with two workers."""
    with closing(Cluster(tmp_path)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def service() -> Iterator[str]:
    """Address of an S3 service on this machine."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture
def bucket(service: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a new bucket of the service, which is named in the environment, as users name it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", service)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"bucket-{os.getpid()}-{time.monotonic_ns()}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def overlapping_texts() -> Callable[[Figure], list[tuple[str, str]]]:
    """Finds the texts of a figure that lie on each other."""
    return find_overlaps


def find_overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of a figure that lie on each other."""
    figure.canvas.draw()
    beyond = {
        id(tick.label1)  # there, but never drawn
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    shown = [
        text
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip()
        if id(text) not in beyond
    ]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    low, high = figure.bbox.p0, figure.bbox.p1
    inside = [(text, box) for text, box in boxes if (box.p1 > low).all() and (box.p0 < high).all()]
    return [
        (one, other) for (one, a), (other, b) in combinations(inside, 2) if a.padded(-1).overlaps(b)
    ]
