"""The cube on disk: what readers see, what writers may do, and what survives a kill."""

import itertools
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray

from store.array_store import (
    create_store,
    grow_store,
    read_attributes,
    read_block_seeds,
    read_grid,
    read_groups,
    update_attributes,
    write_block,
)
from store.chunks import pending_blocks
from store.cube import open_store
from store.groups import GROUPS, Labels
from store.keys import Block, Grid
from store.published import COPIES
from store.schema import (
    LATER,
    OF_DRIVER,
    RESULTS,
    SchemaError,
    coordinate_variables,
    cube_variables,
)
from store.verify import verify_store

INITS = ("random", "spectral", "constrained")
GRID = Grid("alpha", (0.1 + 0.2, 1.5), (64, 128), tuple(range(6)), INITS)
GROWN = GRID.union(Grid("alpha", (1.0,), (32,), tuple(range(9)), (*INITS, "overlap", "fifth")))
TIMES = (0.0, 0.1, 10.0)
ALONG = {"trajectory": {"time": TIMES}}
SPECTRUM = {"spectrum": {"snapshot": (0.0, 5.0), "eigenvalue": (-0.5, 0.5, 1.5)}}


def measure(grid: Grid) -> NDArray[np.int64]:
    return np.rint(np.outer(grid.values, grid.N)).astype(int)


def make_results(block: Block) -> dict[str, NDArray[np.generic]]:
    """Numbers that tell the cell and the variable."""
    cells = np.add.outer(
        1000 * block.value + block.N + np.array(block.seeds) / 8,
        [len(init) for init in block.inits],
    )
    cells = cells + 1e5 * sum(value for _, value in block.constants)
    if block.replicas is not None:
        cells = np.add.outer(cells, np.arange(block.replicas) / 64)
    numbers = {name: cells + 1e4 * place for place, name in enumerate(RESULTS)}
    codes = {name: (cells % 2).astype(np.int8) for name in ("recovered", "instances")}
    return numbers | codes


def make_groups(block: Block, groups: Labels) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Numbers that tell the labels of their own axes as well."""
    made: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in groups}
    for name, axes in groups.items():
        for place, row in enumerate(GROUPS[name].variables(())):
            cells = make_results(block)["overlap"] + 1e6 * place
            for dim in row.dims:
                cells = np.add.outer(cells, axes[dim])
            made[name][row.name] = cells
    return made


def write_numbers(path: Path, block: Block) -> None:
    write_block(path, block, make_results(block), make_groups(block, read_groups(path)))


def fill_store(path: Path, wanted: Grid, done: NDArray[np.int8] | None = None) -> None:
    grid = read_grid(path)
    status = np.zeros(grid.shape, np.int8) if done is None else done
    for blocks in pending_blocks(grid, wanted, status, 4):
        for block in blocks:
            write_numbers(path, block)


def assert_holds(cube: xr.Dataset, wanted: Grid, name: str = "", groups: Labels = ALONG) -> None:
    """Every cell of `wanted` has the numbers of `make_results`, found by its labels."""
    axes = [*wanted.constants, (wanted.control, wanted.values), ("N", wanted.N)]
    for labels in itertools.product(*(values for _, values in axes)):
        place = dict(zip((name for name, _ in axes), labels, strict=True))
        constants = tuple((name, place[name]) for name, _ in wanted.constants)
        value, N = labels[-2:]
        block = Block(wanted.control, value, N, wanted.seeds, wanted.inits)
        block = replace(block, replicas=wanted.replicas, constants=constants)
        cells = cube.sel(**place, seed=list(block.seeds), init=list(block.inits)).load()
        numbers = make_groups(block, groups)[name] if name else make_results(block)
        for key, expected in numbers.items():
            np.testing.assert_array_equal(cells[key], expected, err_msg=f"{key} {block.key}")


def assert_store_holds(path: Path, wanted: Grid) -> None:
    """The same, of the cube and of the groups beside it."""
    assert_holds(xr.open_zarr(path), wanted)
    groups = read_groups(path)
    for name in groups:
        assert_holds(xr.open_zarr(path, group=name), wanted, name, groups)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "campaign.zarr"
    create_store(path, GRID, measure(GRID), block_seeds=4, attributes={"campaign": "a = 1"})
    return path


@dataclass(frozen=True)
class Kind:
    """What a store may have beside the plain cube."""

    replicas: int | None
    groups: Labels
    constants: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def make(self, grid: Grid) -> Grid:
        return replace(grid, replicas=self.replicas, constants=self.constants)

    @property
    def place(self) -> dict[str, float]:
        """The first value of each constant."""
        return {name: values[0] for name, values in self.constants}

    def block(self, seeds: tuple[int, ...], inits: tuple[str, ...]) -> Block:
        constants = tuple(self.place.items())
        return Block("alpha", 1.5, 64, seeds, inits, self.replicas, constants)


KINDS = {
    "plain": Kind(None, {}),
    "replicas": Kind(2, {}),
    "trajectory": Kind(None, ALONG),
    "both": Kind(2, ALONG),
    "spectrum": Kind(None, SPECTRUM),
    "all": Kind(2, ALONG | SPECTRUM, (("a", (0.1,)),)),
}


@pytest.fixture(scope="module", params=["plain", "all"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, kind: Kind) -> Path:
    """A full store, to copy."""
    path = tmp_path_factory.mktemp("filled") / "campaign.zarr"
    create_empty(path, kind)
    fill_store(path, kind.make(GRID))
    return path


def create_empty(path: Path, kind: Kind) -> None:
    grid, attributes = kind.make(GRID), {"campaign": "a = 1"}
    create_store(
        path, grid, measure(grid), block_seeds=4, attributes=attributes, groups=kind.groups
    )


# --- what readers see


def test_plain_xarray_shows_the_labelled_cube(path: Path) -> None:
    cube = xr.open_zarr(path)
    assert cube.sizes == {"alpha": 2, "N": 2, "seed": 6, "init": 3}
    assert cube.init.values.tolist() == list(INITS)
    assert cube.M.sel(alpha=1.5, N=128) == 192
    assert set(cube.coords) == {"alpha", "N", "seed", "init", "M"}
    assert set(cube.data_vars) == {*OF_DRIVER, *RESULTS}
    assert cube.attrs == {"campaign": "a = 1"}
    axes = tuple(GRID.axes())
    for row in coordinate_variables(axes) + cube_variables(axes):
        shown = cube[row.name]
        assert shown.dims == row.dims
        assert (shown.attrs["units"], shown.attrs["long_name"]) == (row.units, row.long_name)
        if row.name in RESULTS:
            assert shown.dtype == row.dtype
            np.testing.assert_array_equal(shown, np.full(shown.shape, row.fill))
    assert int(cube.status.sum()) == 0


def test_control_labels_keep_every_digit(path: Path) -> None:
    assert read_grid(path) == GRID
    assert xr.open_zarr(path).alpha.values.tolist() == [0.1 + 0.2, 1.5]


def test_plain_zarr_and_datatree_read_it_too(filled: Path, kind: Kind) -> None:
    grid = kind.make(GRID)
    assert zarr.open_group(filled, mode="r")["overlap"].shape == grid.shape
    tree = xr.open_datatree(filled, engine="zarr")
    assert_holds(tree.to_dataset(), grid)
    assert set(tree.children) == set(kind.groups)
    for name, child in tree.children.items():
        assert_holds(child.to_dataset(), grid, name, kind.groups)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_replicas_and_times_are_there_where_they_are_asked_for(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "campaign.zarr"
    create_empty(path, kind)
    grid = kind.make(GRID)
    assert (read_grid(path), read_groups(path)) == (grid, kind.groups)
    cube = xr.open_zarr(path)
    assert cube.overlap.dims == cube.status.dims == tuple(grid.axes())
    assert ("replica" in cube.dims) == (kind.replicas is not None)
    write_numbers(path, kind.block((0, 1, 2, 3), INITS))
    chunks = {file.name.count(".") for file in path.glob("overlap/c.*")}
    assert chunks == {len(grid.axes())}  # one for each axis, after the c
    for name in GROUPS:
        assert (path / name).exists() == (name in kind.groups)
    if "trajectory" not in kind.groups:
        with pytest.raises((FileNotFoundError, KeyError)):
            xr.open_zarr(path, group="trajectory")
        return
    along = xr.open_zarr(path, group="trajectory")
    assert set(along.data_vars) == set(GROUPS["trajectory"].names)
    assert set(along.coords) == {*cube.coords, "time"}
    for name in cube.coords:
        np.testing.assert_array_equal(along[name], cube[name])
    assert along.time.values.tolist() == list(TIMES)
    axes = tuple(grid.axes())
    group = GROUPS["trajectory"]
    for row in (*coordinate_variables(axes), *group.axes, *group.variables(axes)):
        shown = along[row.name]
        assert (shown.dims, shown.dtype.kind) == (
            row.dims,
            np.dtype(row.dtype).kind if row.dtype != "string" else "T",
        )
        assert (shown.attrs["units"], shown.attrs["long_name"]) == (row.units, row.long_name)
    done = along.overlap.sel(alpha=1.5, N=64, seed=range(4))
    assert done.notnull().all()
    assert int(along.overlap.notnull().sum()) == done.size
    assert len(list(path.glob("trajectory/overlap/c.*"))) == 1  # all times in one chunk


def test_open_store_sorts_labels_and_reads_lazily(tmp_path: Path) -> None:
    path = tmp_path / "unsorted.zarr"
    grid = Grid("alpha", (2.0, 1.5), (128, 64), (1, 0), ("spectral", "random"))
    create_store(path, grid, measure(grid), block_seeds=4, attributes={})
    fill_store(path, grid)
    cube = open_store(path)
    assert cube.alpha.values.tolist() == [1.5, 2.0]
    assert cube.N.values.tolist() == [64, 128]
    assert cube.init.values.tolist() == ["spectral", "random"]
    assert not cube.overlap.variable._in_memory
    assert_holds(cube, grid)


def test_store_of_the_spiked_model_has_its_own_control(tmp_path: Path) -> None:
    grid = Grid("snr", (1.5,), (64,), (0, 1), ("random",))
    create_store(tmp_path / "s.zarr", grid, measure(grid), block_seeds=2, attributes={})
    write_block(
        tmp_path / "s.zarr",
        block := Block("snr", 1.5, 64, (0, 1), ("random",)),
        make_results(block),
    )
    cube = xr.open_zarr(tmp_path / "s.zarr")
    assert cube.overlap.dims == ("snr", "N", "seed", "init")
    assert read_grid(tmp_path / "s.zarr") == grid


def test_readers_are_never_disturbed_while_blocks_arrive_and_the_store_grows(
    tmp_path: Path, kind: Kind
) -> None:
    """Warnings are errors here, so that each look also shows that there is none."""
    path = tmp_path / "campaign.zarr"
    create_empty(path, kind)
    grid, grown = kind.make(GRID), kind.make(GROWN)

    def work() -> None:
        fill_store(path, grid)
        grow_store(path, grown, measure(grown), {"revision": 2})

    writer = threading.Thread(target=work)
    writer.start()
    looks = 0
    while writer.is_alive():
        cube = xr.open_zarr(path)
        assert cube.sizes["seed"] in {6, 9}
        assert not cube.alpha.isnull().any()
        overlap = cube.overlap.sel(kind.place).sel(alpha=1.5, N=64, init="random").values[:6]
        block = kind.block(GRID.seeds, ("random",))
        expected = make_results(block)["overlap"][:, 0]
        assert np.all(np.isnan(overlap) | (overlap == expected))
        tree = xr.open_datatree(path, engine="zarr")
        if "trajectory" in kind.groups:  # alone and in the tree, with the labels of one moment each
            for along in (xr.open_zarr(path, group="trajectory"), tree["trajectory"].to_dataset()):
                shown = along.overlap.sel(kind.place).sel(alpha=1.5, N=64, init="random")
                expected = make_groups(block, ALONG)["trajectory"]["overlap"][:, 0]
                assert np.all(np.isnan(shown) | (shown[:6] == expected))
        looks += 1
    writer.join()
    assert looks > 3
    assert_store_holds(path, grid)


# --- blocks


def test_blocks_are_found_again_by_their_labels(filled: Path, kind: Kind) -> None:
    assert_store_holds(filled, kind.make(GRID))


def test_partial_blocks_keep_the_other_cells_of_their_chunk(
    filled: Path, kind: Kind, tmp_path: Path
) -> None:
    path = shutil.copytree(filled, tmp_path / "part.zarr")
    part = kind.block((3, 1), ("constrained", "random"))
    results = {name: (-values).astype(values.dtype) for name, values in make_results(part).items()}
    beside = {
        group: {name: -values for name, values in numbers.items()}
        for group, numbers in make_groups(part, kind.groups).items()
    }
    write_block(path, part, results, beside)
    for group, numbers in ((None, results), *beside.items()):
        cube = xr.open_zarr(path, group=group)
        changed = cube.sel(kind.place).sel(
            alpha=1.5, N=64, seed=[3, 1], init=["constrained", "random"]
        )
        for name, values in numbers.items():
            np.testing.assert_array_equal(changed[name], values)
    write_numbers(path, part)
    assert_store_holds(path, kind.make(GRID))


def test_chunks_of_fill_values_are_files_too(tmp_path: Path) -> None:
    path = tmp_path / "campaign.zarr"
    create_empty(path, KINDS["trajectory"])
    names = GROUPS["trajectory"].names
    block = Block("alpha", 1.5, 64, (0, 1, 2, 3), INITS)
    fills = {row.name: row.fill for row in cube_variables(())}
    types = {row.name: row.dtype for row in cube_variables(())}
    write_block(
        path,
        block,
        {name: np.full(block.shape, fills[name], types[name]) for name in RESULTS},
        {"trajectory": {name: np.full((*block.shape, len(TIMES)), np.nan) for name in names}},
    )
    assert all((path / name / "c.1.0.0.0").is_file() for name in RESULTS)
    assert all((path / "trajectory" / name / "c.1.0.0.0.0").is_file() for name in names)


@pytest.mark.parametrize("group", [None, "trajectory", "spectrum"])
def test_flipped_byte_is_noticed(
    filled: Path, kind: Kind, tmp_path: Path, group: str | None
) -> None:
    if group and group not in kind.groups:
        return
    name = "density" if group == "spectrum" else "overlap"
    path = shutil.copytree(filled, tmp_path / "damaged.zarr")
    (chunk,) = (path / (group or "") / name).glob(f"c{'.0' * len(kind.constants)}.1.0.0.0*")
    content = bytearray(chunk.read_bytes())
    for place in (0, len(content) // 2, len(content) - 1):
        damaged = content.copy()
        damaged[place] ^= 0x10
        chunk.write_bytes(damaged)
        with pytest.raises(ValueError, match="checksum"):
            xr.open_zarr(path, group=group)[name].sel(alpha=1.5, N=64).load()
    xr.open_zarr(path, group=group)[name].sel(alpha=1.5, N=128).load()


def test_bad_results_are_refused_before_anything_is_written(path: Path) -> None:
    block = Block("alpha", 1.5, 64, (0, 1, 2, 3), INITS)
    wrong = make_results(block) | {"seconds": np.zeros((4, 2))}
    with pytest.raises(
        SchemaError, match=r"seeds=0-3.*seconds: expected float64 of shape \(4, 3\)"
    ):
        write_block(path, block, wrong)
    assert not list(path.glob("*/c.1.0.0.0"))


def test_bad_trajectories_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "campaign.zarr"
    create_empty(path, KINDS["both"])
    block = Block("alpha", 1.5, 64, (0, 1, 2, 3), INITS, 2)
    along = make_groups(block, ALONG)
    short = {name: values[..., 1:] for name, values in along["trajectory"].items()}
    for wrong, message in (
        ({}, r"seeds=0-3.*expected numbers for the groups \['trajectory'\] .*got them for \[\]"),
        ({"trajectory": {}}, r"seeds=0-3.*variables of the group trajectory; missing \['overlap'"),
        (
            {"trajectory": short},
            r"overlap: .* \(4, 3, 2, 3\) \[seeds, inits, replicas, times\], got .*3, 2, 2\)",
        ),
    ):
        with pytest.raises(SchemaError, match=message):
            write_block(path, block, make_results(block), wrong)
    flat = replace(block, replicas=None)
    with pytest.raises(ValueError, match="axis replica: expected no replicas"):
        write_block(path, flat, make_results(flat), along)
    assert not list(path.rglob("c.1.0.0.0*"))


def test_a_trajectory_without_a_place_is_refused(path: Path) -> None:
    block = Block("alpha", 1.5, 64, (0, 1, 2, 3), INITS)
    with pytest.raises(SchemaError, match=r"the groups \[\] of the store, got them for \['traj"):
        write_block(path, block, make_results(block), make_groups(block, ALONG))
    write_block(path, block, make_results(block), {})


def test_block_outside_the_store_is_refused(path: Path) -> None:
    block = Block("alpha", 7.0, 64, (0,), INITS)
    with pytest.raises(ValueError, match=r"'alpha': \(7.0,\)"):
        write_block(path, block, make_results(block))


# --- creation


def test_existing_path_is_refused(path: Path, tmp_path: Path) -> None:
    for taken in (path, tmp_path):
        with pytest.raises(FileExistsError, match="expected a free path"):
            create_store(taken, GRID, measure(GRID), block_seeds=4, attributes={})
    assert read_attributes(path) == {"campaign": "a = 1"}


@pytest.mark.parametrize(
    ("measurements", "block_seeds", "attributes", "message"),
    [
        (np.ones((2, 3), int), 4, {}, r"measurements: expected integers of shape \(2, 2\)"),
        (np.ones((2, 2)), 4, {}, "measurements: expected integers.*got float64"),
        (np.ones((2, 2), int), 0, {}, "block_seeds: expected at least 1.*got 0"),
        (np.ones((2, 2), int), 4, {"a": float("nan")}, "not JSON compliant"),
    ],
)
def test_failed_creation_leaves_nothing(
    tmp_path: Path,
    measurements: NDArray[np.int64],
    block_seeds: int,
    attributes: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        create_store(
            tmp_path / "x.zarr",
            GRID,
            measurements,
            block_seeds=block_seeds,
            attributes=attributes,
        )
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_store_is_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing there; `hesscape run`"):
        read_grid(tmp_path / "none.zarr")
    assert not (tmp_path / "none.zarr").exists()
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "foreign.zarr")
    (path / "zarr.json").write_text("{", encoding="utf-8")
    for other in ("folder", "foreign.zarr", path.name):
        with pytest.raises(SchemaError, match="expected a store of hesscape"):
            open_store(tmp_path / other)
    with pytest.raises(ValueError, match="or a URL that fsspec knows here, got Protocol"):
        read_grid("nowhere://bucket/campaign.zarr")


def test_attributes_are_kept_and_updated(path: Path) -> None:
    update_attributes(path, {"revision": 2, "versions": {"numpy": "2"}})
    assert read_attributes(path) == {
        "campaign": "a = 1",
        "revision": 2,
        "versions": {"numpy": "2"},
    }
    assert xr.open_zarr(path).attrs["revision"] == 2
    assert read_block_seeds(path) == 4


# --- growth


def test_growth_on_every_axis_keeps_everything(filled: Path, kind: Kind, tmp_path: Path) -> None:
    path = shutil.copytree(filled, tmp_path / "grown.zarr")
    grid, grown = kind.make(GRID), kind.make(GROWN)
    grow_store(path, grown, measure(grown), {"revision": 2})
    assert (read_grid(path), read_groups(path)) == (grown, kind.groups)
    cube = xr.open_zarr(path)
    assert cube.attrs == {"campaign": "a = 1", "revision": 2}
    np.testing.assert_array_equal(cube.M, measure(grown))
    assert_store_holds(path, grid)
    new = np.ones(grown.shape, bool)
    new[np.ix_(*grown.find(grid))] = False
    assert np.isnan(cube.overlap.values[new]).all()
    assert (cube.recovered.values[new] == -1).all()
    if "trajectory" in kind.groups:
        along = xr.open_zarr(path, group="trajectory")
        np.testing.assert_array_equal(along.M, measure(grown))
        assert np.isnan(along.overlap.values[new]).all()

    fill_store(path, grown, np.where(new, 0, 1).astype(np.int8))
    assert_store_holds(path, grown)
    assert_holds(open_store(path), grown)


def forget_later(path: Path) -> None:
    """Make a store one of an earlier version, without the variables that came later."""
    for file in (path / "zarr.json", path / COPIES / "zarr.json"):
        root = json.loads(file.read_text())
        for name in LATER:
            del root["consolidated_metadata"]["metadata"][name]
        file.write_text(json.dumps(root))
    for name in LATER:
        shutil.rmtree(path / name)


def test_a_store_of_an_earlier_version_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "earlier.zarr"
    create_store(path, GRID, measure(GRID), block_seeds=4, attributes={})
    forget_later(path)
    fill_store(path, GRID, np.zeros(GRID.shape, np.int8))
    cube = xr.open_zarr(path)
    assert not set(LATER) & set(cube)
    assert set(cube.data_vars) == {*OF_DRIVER, *RESULTS} - set(LATER)
    old = cube.overlap.values

    grow_store(path, GROWN, measure(GROWN), {})
    new = np.ones(GROWN.shape, bool)
    new[np.ix_(*GROWN.find(GRID))] = False
    fill_store(path, GROWN, np.where(new, 0, 1).astype(np.int8))
    grown = xr.open_zarr(path)
    assert not set(LATER) & set(grown)
    np.testing.assert_array_equal(grown.overlap.values[np.ix_(*GROWN.find(GRID))], old)
    assert np.isfinite(grown.overlap.values).all()
    found = verify_store(path)
    assert not found.damages


@pytest.mark.parametrize(
    "grid",
    [
        Grid("alpha", GRID.values[::-1], GRID.N, GRID.seeds, GRID.inits),
        Grid("alpha", GRID.values, GRID.N, GRID.seeds[:3], GRID.inits),
    ],
)
def test_growth_that_would_move_labels_is_refused(path: Path, grid: Grid) -> None:
    with pytest.raises(ValueError, match="expected the labels of the store first"):
        grow_store(path, grid, measure(grid), {})
    assert read_grid(path) == GRID


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (replace(GRID, control="snr"), "control parameter: expected 'alpha' in both"),
        (replace(GRID, constants=(("a", (1.0,)),)), r"that are axes: expected \[\] .* got \['a'\]"),
        (replace(GRID, replicas=2), "axis replica: expected no replicas .*, got 2 replicas"),
    ],
)
def test_growth_to_another_kind_of_cube_is_refused(path: Path, grid: Grid, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grow_store(path, grid, measure(grid), {})
    assert read_grid(path) == GRID


def test_a_constant_grows(tmp_path: Path) -> None:
    path, kind = tmp_path / "campaign.zarr", KINDS["all"]
    create_empty(path, kind)
    grid = kind.make(GRID)
    fill_store(path, grid)
    grown = grid.union(replace(grid, constants=(("a", (10.0, 0.01)),)))
    assert grown.shape == (3, *grid.shape[1:])
    grow_store(path, grown, measure(grown), {})
    assert read_grid(path) == grown
    assert open_store(path).a.values.tolist() == [0.01, 0.1, 10.0]
    assert_store_holds(path, grid)
    more = replace(grid, constants=(("a", (0.01,)),))
    fill_store(path, more)
    assert_store_holds(path, replace(grid, constants=(("a", (0.01, 0.1)),)))


def test_growth_that_would_change_measurements_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="M: expected the store's numbers"):
        grow_store(path, GROWN, measure(GROWN) + 1, {})
    with pytest.raises(ValueError, match="measurements: expected integers of shape"):
        grow_store(path, GROWN, measure(GRID), {})
    assert read_grid(path) == GRID


# --- killed at any moment

KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import numpy as np
from store.array_store import create_store, grow_store
from store.keys import Grid

folder, grid, groups, *moments = sys.argv[1:]
grid, groups = eval(grid), eval(groups)
measurements = np.rint(np.outer(grid.values, grid.N)).astype(int)

def count_renames(most):
    seen = [0]
    def hook(event, arguments):
        if event == "os.rename":
            if seen[0] == most:
                os.kill(os.getpid(), signal.SIGKILL)
            seen[0] += 1
    sys.addaudithook(hook)
    return seen

def work(path):
    if path.exists():
        grow_store(path, grid, measurements, {"revision": 2})
    else:
        options = {"block_seeds": 4, "attributes": {"revision": 2}, "groups": groups}
        create_store(path, grid, measurements, **options)

renames = 0
for moment in ("whole", *moments):
    end, start = os.pipe()
    pid = os.fork()  # before any thread exists, so that each child is a clean process
    if pid == 0:
        most = -1 if moment == "whole" else int(moment) % renames
        seen = count_renames(most)
        work(Path(folder) / f"{moment}.zarr")
        os.write(start, str(seen[0]).encode())
        os._exit(0)
    os.close(start)
    renames = int(os.read(end, 20) or renames)
    print(moment, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
"""Creates or grows ``{moment}.zarr``, killed just before its rename number `moment`, the last
being -1; and ``whole.zarr`` without being killed."""

MOMENTS = (0, 11, 30, -7, -4, -3, -2, -1)


def run_killed(folder: Path, grid: Grid, kind: Kind) -> None:
    labels = (repr(kind.make(grid)), repr(kind.groups))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), *labels, *map(str, MOMENTS)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    codes = dict(line.split() for line in done.stdout.splitlines())
    assert codes == {"whole": "0"} | {str(moment): "-9" for moment in MOMENTS}, done.stderr


def test_killed_creation_leaves_nothing(tmp_path: Path, kind: Kind) -> None:
    run_killed(tmp_path, GRID, kind)
    assert [path.name for path in tmp_path.glob("*.zarr")] == ["whole.zarr"]
    for moment in (0, -1):
        create_empty(tmp_path / f"{moment}.zarr", kind)
    for moment in (0, -1, "whole"):
        path = tmp_path / f"{moment}.zarr"
        assert (read_grid(path), read_groups(path)) == (kind.make(GRID), kind.groups)


def test_killed_growth_leaves_the_old_cube_and_heals(
    filled: Path, kind: Kind, tmp_path: Path
) -> None:
    for moment in ("whole", *MOMENTS):
        shutil.copytree(filled, tmp_path / f"{moment}.zarr")
    run_killed(tmp_path, GROWN, kind)
    grid, grown = kind.make(GRID), kind.make(GROWN)
    assert read_grid(tmp_path / "whole.zarr") == grown
    smaller = grid.union(kind.make(Grid("alpha", (5.0,), (64,), (6, 7), ("random",))))
    for moment in MOMENTS:
        path = tmp_path / f"{moment}.zarr"
        cube = xr.open_zarr(path)
        assert read_grid(path) == grid
        assert "revision" not in cube.attrs
        np.testing.assert_array_equal(cube.M, measure(grid))
        np.testing.assert_array_equal(cube.seed.values, grid.seeds, err_msg=f"moment {moment}")
        for name, child in xr.open_datatree(path, engine="zarr").children.items():
            own = {dim: len(labels) for dim, labels in kind.groups.get(name, {}).items()}
            assert dict(child.sizes) == {**cube.sizes, **own}
        # go on with the old cube, then grow to another one than was begun
        write_numbers(path, kind.block((4, 5), INITS))
        grow_store(path, smaller, measure(smaller), {})
        assert_store_holds(path, kind.make(Grid("alpha", (1.5,), (64, 128), GRID.seeds, INITS)))
        union = smaller.union(grown)
        grow_store(path, union, measure(union), {})
        assert int(open_store(path).overlap.notnull().sum()) == 72 * (kind.replicas or 1)
    assert_store_holds(tmp_path / "-1.zarr", grid)
