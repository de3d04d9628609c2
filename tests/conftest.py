"""Options and fixtures that every test shares."""

from collections.abc import Callable, Iterator
from itertools import combinations

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.cluster import limit_blas_threads


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--runslow", action="store_true", help="also run statistics and real clusters (minutes)"
    )


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
