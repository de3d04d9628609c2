"""Tables of reduced datasets, as a terminal of 80 columns shows them."""

import io

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from pipeline.reductions import reduce_cube
from pipeline.tables import recovery_tables
from store.schema import Status

ALPHA = (1.5, 2.0, 2.5, 3.0)


def cube_of(proportions: dict[str, list[float]], sizes: tuple[int, ...] = (64,)) -> xr.Dataset:
    """Finished cube of 40 seeds with these proportions recovered, for each init."""
    dims = ("alpha", "N", "seed", "init")
    shape = (len(ALPHA), len(sizes), 40, len(proportions))
    wanted = np.round(40 * np.array(list(proportions.values()))).T[:, None, None, :]
    rank = np.random.default_rng(0).permuted(
        np.broadcast_to(np.arange(40)[None, None, :, None], shape), axis=2
    )
    return xr.Dataset(
        {
            "status": (dims, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (dims, (rank < wanted).astype(np.int8)),
        },
        coords={
            "alpha": np.array(ALPHA),
            "N": np.array(sizes),
            "seed": np.arange(40),
            "init": list(proportions),
        },
    )


def show(cube: xr.Dataset) -> list[str]:
    """Text of each table."""
    texts = []
    for table in recovery_tables(reduce_cube(cube)):
        console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
        console.print(table)
        texts.append(console.export_text())
    return texts


def test_a_table_for_each_init_with_intervals_and_the_half_point() -> None:
    texts = show(cube_of({"random": [0.1, 0.3, 0.6, 0.9], "spectral": [0.3, 0.5, 0.9, 1.0]}))
    assert [text.split(":")[0].strip() for text in texts] == ["random", "spectral"]
    first = " ".join(texts[0].split())
    assert "│ 2.5 │ 0.60 [0.45, 0.74] │" in first
    assert "│ α½ │ 2.22 [2.07, 2.38] │" in first
    assert "40 runs a point, 95 % intervals" in texts[0]
    assert "failed" not in texts[0]


@pytest.mark.parametrize(
    ("proportions", "text"),
    [
        ([0, 0, 1, 1], "[2.00, 2.50]"),
        ([0, 0, 0, 0], "> 3.00"),
        ([1, 1, 1, 1], "< 1.50"),
        ([0.9, 0.8, 0.2, 0.1], "falls with α"),
        ([0.45, 0.5, 0.5, 0.55], "[−∞, ∞]"),
        ([0.1, 0.9, 0.1, 0.95], "*"),
    ],
)
def test_the_last_row_says_what_is_known(proportions: list[float], text: str) -> None:
    (shown,) = show(cube_of({"random": proportions}))
    (last,) = [line for line in shown.splitlines() if "α½" in line]
    assert text in last
    assert ("the points miss the fitted curve" in shown) == (text == "*")


def test_each_value_of_a_constant_has_its_tables() -> None:
    cubes = [cube_of({"random": [0.1, low, 0.6, 0.9]}) for low in (0.3, 0.4)]
    together = xr.concat(cubes, dim=xr.IndexVariable("a", [0.1, 10.0]), join="exact")
    texts = show(together)
    titles = [text.split(":")[0].strip() for text in texts]
    assert titles == ["random, a = 0.1", "random, a = 10"]
    bodies = [text.splitlines()[1:] for text in texts]
    assert bodies == [text.splitlines()[1:] for cube in cubes for text in show(cube)]


def test_seeds_and_replicas_are_said() -> None:
    cube = cube_of({"random": [0.1, 0.3, 0.6, 0.9]}).expand_dims(replica=8, axis=-1)
    (shown,) = show(cube)
    assert "40 seeds × 8 replicas a point, 95 % intervals" in shown
    assert "│ 2.5 │ 0.60 [0.44, 0.74] │" in " ".join(shown.split())  # as 40 seeds, since they agree
    cube = cube.copy(deep=True)
    cube["status"].loc[{"alpha": 2.0, "seed": [1, 2]}] = int(Status.FAILED)
    cube["status"].loc[{"alpha": 3.0, "seed": 5, "replica": [0, 1, 2]}] = int(Status.FAILED)
    (shown,) = show(cube)
    assert "38–40 seeds × 8 replicas a point" in shown
    assert "19 more failed numerically" in shown


def test_a_bound_that_few_runs_cannot_give_is_said() -> None:
    for proportion in (0.0, 1.0):
        (shown,) = show(cube_of({"random": [proportion] * 4}).isel(seed=slice(0, 2)))
        assert "not reached" in shown


def test_failed_and_missing_runs_are_said() -> None:
    cube = cube_of({"random": [0.1, 0.3, 0.6, 0.9]})
    cube["status"].loc[{"alpha": 2.0, "seed": [1, 2]}] = int(Status.FAILED)
    cube["status"].loc[{"alpha": 3.0}] = int(Status.PENDING)
    (shown,) = show(cube)
    assert "2 more failed numerically" in shown
    assert "38–40 runs a point" in shown
    (empty,) = [line for line in shown.splitlines() if line.startswith("│") and " 3 │" in line]
    assert empty.split("│")[2].strip() == "–"


def test_nothing_has_run() -> None:
    cube = cube_of({"random": [0, 0, 0, 0]})
    cube["status"][:] = int(Status.PENDING)
    (shown,) = show(cube)
    assert "0 runs a point" in shown


def test_many_sizes_stay_within_80_columns() -> None:
    texts = show(cube_of({"random": [0.1, 0.3, 0.6, 0.9]}, (64, 128, 256, 512, 1024, 2048, 100000)))
    assert [text.count("N = ") for text in texts] == [3, 2, 2]
    assert "N = 100000" in texts[-1]
    for text in texts:
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
