"""Options and fixtures that every test shares."""

from collections.abc import Iterator

import pytest

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
