"""Results of a store: what is there, and which figures follow from it."""

from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr
from rich.console import Console

from pipeline.campaign import load_campaign
from pipeline.cluster import Resources
from pipeline.figures import FIGURES, draw_figures
from pipeline.launch import launch
from pipeline.reductions import reduce_cube
from pipeline.results import read_results
from store.schema import SchemaError

TINY = ["grid.alpha=[2.0, 4.0]", "grid.N=[8]", "grid.seeds=2", "dynamics.T=2.0"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign in miniature, with times along the runs."""
    path = tmp_path_factory.mktemp("results") / "tiny.zarr"
    more = ["dynamics.constrained_time=1.0", "trajectory.times=[0.0, 1.0, 2.0]"]
    campaign = load_campaign("quickstart", [*TINY, *more])
    launch(campaign, path, console=Console(quiet=True), resources=Resources("synchronous"))
    return path


def test_results_are_what_the_store_holds(store: Path) -> None:
    results = read_results(store)
    assert (results.model, results.a) == ("phase_retrieval", 1.0)
    assert results.cube["M"].to_numpy().tolist() == [[16], [32]]
    assert results.trajectory is not None
    assert results.trajectory["time"].to_numpy().tolist() == [0, 1, 2]
    xr.testing.assert_identical(results.reduced, read_results(store, results.reduced).reduced)


def test_runs_that_are_not_done_are_missing(store: Path) -> None:
    results = read_results(store)
    cube = results.cube.load()
    cube["status"][0, 0, 1] = 3
    loss = results.finished(cube["loss"])
    assert loss.isnull().sum() == 3
    assert loss[0, 0, 1].isnull().all()


def test_only_a_store_has_results(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a store"):
        read_results(tmp_path / "none.zarr")
    with pytest.raises(SchemaError, match="expected a store"):
        read_results(tmp_path)


def test_recovery_is_drawn_where_something_recovered(store: Path) -> None:
    results = read_results(store)
    assert "recovery" not in [one.name for one in draw_figures(results)]
    results.reduced["recovered"][0, 0, 0] = 1
    assert "recovery" in [one.name for one in draw_figures(results)]


def test_figures_of_a_store_are_those_whose_condition_holds(store: Path) -> None:
    results = read_results(store)
    drawn = list(draw_figures(results))
    assert [one.name for one in drawn] == [kind.name for kind in FIGURES if kind.applies(results)]
    assert [one.name for one in drawn] == [
        "hessian_at_start",
        "overlap_along_descent",
        *(f"hessian_along_descent_{init}" for init in ("random", "spectral", "constrained")),
    ]
    assert all(one.figure.axes and one.caption.endswith(".") for one in drawn)


def test_sizes_that_have_not_begun_are_left_out(store: Path) -> None:
    results = read_results(store)
    assert results.begun() is results
    larger = results.cube.load().reindex(N=[8, 16], fill_value={"status": 0})
    more = replace(results, cube=larger, reduced=reduce_cube(larger))
    begun = more.begun()
    assert begun.cube["N"].to_numpy().tolist() == [8]
    assert begun.reduced["N"].to_numpy().tolist() == [8]
    assert begun.trajectory is not None
    larger["status"][...] = 0
    none = replace(results, cube=larger, reduced=reduce_cube(larger))
    assert none.begun() is none
