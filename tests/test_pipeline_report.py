"""The report: complete in itself, escaped, and looked at by a real browser where there is one."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from pipeline.campaign import parse_campaign
from pipeline.cluster import Resources
from pipeline.launch import launch
from pipeline.report import write_report
from pipeline.results import read_results
from store.array_store import read_attributes
from store.ledger import counts

CAMPAIGN = """
name = "small"
description = "<script>alert(1)</script> & [bold]words[/]"
model = "phase_retrieval"
entropy = 7
[parameters]
a = 1.0
[grid]
alpha = [1.0, 3.0, 6.0]
N = [8, 12]
seeds = 6
inits = ["random", "spectral"]
[dynamics]
method = "flow"
T = 8.0
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "small.zarr"
    campaign = parse_campaign(CAMPAIGN, source="test")
    resources = Resources(scheduler="synchronous")
    launch(campaign, str(path), console=Console(quiet=True), resources=resources)
    results, attributes = read_results(str(path)), read_attributes(str(path))
    hostile = {**attributes, "title": "</title><img src=x onerror=alert(2)>"}
    return write_report(results, hostile, counts(str(path)))


class Tags(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_it_has_what_was_run_figures_tables_and_provenance(page: str) -> None:
    said = ("72 done", "What the data say", "probability of recovery", "Revisions that added")
    for text in (*said, "From 6 runs a point", "dynamics.T", "entropy = 7"):
        assert text in page, text
    tags = Tags()
    tags.feed(page)
    names = [tag for tag, _ in tags.found]
    images = [attributes for tag, attributes in tags.found if tag == "img"]
    assert len(images) >= 3
    assert names.count("figcaption") == len(images)
    for image in images:
        assert len(image["alt"] or "") > 40


def test_it_loads_and_runs_nothing(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert {"script", "link", "iframe", "object", "embed"}.isdisjoint(tag for tag, _ in tags.found)
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), attributes
    assert "url(" not in re.sub(r"data:[^\"]*", "", page)


def test_what_comes_from_the_store_is_escaped(page: str) -> None:
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; [bold]words[/]" in page
    assert "<img src=x" not in page
    assert "&lt;/title&gt;&lt;img src=x onerror=alert(2)&gt;" in page


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_scrolling_sideways(
    page: str, tmp_path: Path, width: int
) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    file, shot = tmp_path / "report.html", tmp_path / "shot.png"
    # the page's own policy forbids scripts; a copy that may measure itself says how wide it is
    measuring = "<script>document.title=document.documentElement.scrollWidth</script></body>"
    measured = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", measuring)
    file.write_text(measured, encoding="utf-8")
    common = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
              f"--window-size={max(width, 500)},2400"]  # fmt: skip
    frame = tmp_path / "frame.html"  # windows are at least 500 wide, a frame can be narrower
    frame.write_text(
        f'<body style="margin:0"><iframe src="report.html" style="border:0;width:{width}px;'
        'height:2400px"></iframe>',
        encoding="utf-8",
    )
    subprocess.run([*common, f"--screenshot={shot}", frame.as_uri()], check=True, timeout=120)
    pixels = matplotlib.image.imread(shot)[:, :width, :3]
    assert np.unique(pixels.reshape(-1, 3)[::97], axis=0).shape[0] > 10
    assert (pixels[:, : width // 2] < 0.9).any()
    outer = subprocess.run(
        [*common, "--dump-dom", "--allow-file-access-from-files", file.as_uri()],
        check=True, timeout=120, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = re.search(r"<title>(\d+)</title>", outer)
    assert found is not None
    assert int(found.group(1)) <= max(width, 500)
