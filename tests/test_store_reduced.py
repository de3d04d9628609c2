"""The group of reductions beside the cube."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from store.array_store import create_store, grow_store
from store.cube import open_store
from store.keys import Grid
from store.reduced import read_reduced, write_reduced

GRID = Grid("alpha", (2.5, 1.5), (128, 64), (0, 1, 2), ("random", "constrained"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "campaign.zarr"
    create_store(path, GRID, np.full((2, 2), 100), block_seeds=4, attributes={"a": 1})
    return path


def make_reduced(shift: float = 0.0) -> xr.Dataset:
    """Reductions with sorted labels, texts and missing numbers."""
    return xr.Dataset(
        {
            "probability": (
                ("alpha", "N", "init"),
                np.array([[[np.nan, 1], [2, 3]], [[4, 5], [6, 7]]]) + shift,
                {"units": "1", "long_name": "probability of recovery"},
            ),
            "runs": (("alpha", "N"), np.arange(4).reshape(2, 2), {"units": "1"}),
            "reason": (("init",), np.array(["curve never crosses one half", ""])),
        },
        coords={"alpha": [1.5, 2.5], "N": [64, 128], "init": ["constrained", "random"]},
        attrs={"confidence": 0.95},
    )


def test_reductions_come_back_sorted_and_without_warnings(path: Path) -> None:
    write_reduced(path, make_reduced())
    reduced = read_reduced(path)
    assert reduced.alpha.values.tolist() == [1.5, 2.5]
    assert reduced.N.values.tolist() == [64, 128]
    xr.testing.assert_equal(reduced.sel(init=["constrained", "random"]), make_reduced())
    assert reduced.probability.attrs["units"] == "1"
    assert reduced.runs.dtype == np.int64
    assert reduced.attrs == {"confidence": 0.95}


def test_plain_xarray_opens_them_alone_and_as_a_tree(path: Path) -> None:
    write_reduced(path, make_reduced())
    assert xr.open_zarr(path, group="reduced").runs.sel(alpha=2.5, N=128) == 3
    tree = xr.open_datatree(path, engine="zarr")
    assert list(tree.children) == ["reduced"]
    assert tree["reduced/runs"].sel(alpha=2.5, N=128) == 3
    assert xr.open_zarr(path).attrs == {"a": 1}
    assert "probability" not in xr.open_zarr(path)


def test_reductions_are_replaced_whole(path: Path) -> None:
    write_reduced(path, make_reduced().assign(old=("alpha", [1.0, 2.0])))
    write_reduced(path, make_reduced(shift=1.0))
    reduced = read_reduced(path)
    assert "old" not in reduced
    assert reduced.probability.sel(alpha=2.5, N=128, init="random") == 8


def test_reductions_of_the_opened_cube_can_be_written(path: Path) -> None:
    """Encodings that came with the cube's chunks must not get in the way."""
    cube = open_store(path)
    write_reduced(path, cube[["overlap", "recovered"]].isel(seed=0))
    assert read_reduced(path).overlap.dims == ("alpha", "N", "init")


def test_growth_withdraws_the_reductions(path: Path) -> None:
    write_reduced(path, make_reduced())
    grown = GRID.union(Grid("alpha", (4.0,), (64,), (0,), ("random",)))
    grow_store(path, grown, np.full((3, 2), 100), {})
    assert list(xr.open_datatree(path, engine="zarr").children) == []
    with pytest.raises(FileNotFoundError, match="run `hesscape reduce`"):
        read_reduced(path)
    with pytest.raises(
        ValueError, match=r"reduced, axis alpha: .*got \[1.5, 2.5\]; reduce the whole"
    ):
        write_reduced(path, make_reduced())
