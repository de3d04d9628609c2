"""The cube on disk: what readers see, what writers may do, and what survives a kill."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray

from store.array_store import (
    create_store,
    grow_store,
    open_store,
    read_attributes,
    read_block_seeds,
    read_grid,
    update_attributes,
    write_block,
)
from store.chunks import pending_blocks
from store.keys import Block, Grid
from store.schema import RESULTS, SchemaError, coordinate_variables, cube_variables

INITS = ("random", "spectral", "constrained")
GRID = Grid("alpha", (0.1 + 0.2, 1.5), (64, 128), tuple(range(6)), INITS)
GROWN = GRID.union(Grid("alpha", (1.0,), (32,), tuple(range(9)), (*INITS, "overlap", "fifth")))


def measure(grid: Grid) -> NDArray[np.int64]:
    return np.rint(np.outer(grid.values, grid.N)).astype(int)


def make_results(block: Block) -> dict[str, NDArray[np.generic]]:
    """Numbers that tell the cell and the variable."""
    cells = np.add.outer(
        1000 * block.value + block.N + np.array(block.seeds) / 8,
        [len(init) for init in block.inits],
    )
    numbers = {name: cells + 1e4 * place for place, name in enumerate(RESULTS)}
    codes = {name: (cells % 2).astype(np.int8) for name in ("recovered", "instances")}
    return numbers | codes


def fill_store(path: Path, wanted: Grid) -> None:
    grid = read_grid(path)
    for blocks in pending_blocks(grid, wanted, np.zeros(grid.shape, np.int8), 4):
        for block in blocks:
            write_block(path, block, make_results(block))


def assert_holds(cube: xr.Dataset, wanted: Grid) -> None:
    """Every cell of `wanted` has the numbers of `make_results`, found by its labels."""
    for value in wanted.values:
        for N in wanted.N:
            block = Block(wanted.control, value, N, wanted.seeds, wanted.inits)
            cells = cube.sel(
                alpha=value, N=N, seed=list(block.seeds), init=list(block.inits)
            ).load()
            for name, expected in make_results(block).items():
                np.testing.assert_array_equal(cells[name], expected, err_msg=f"{name} {block.key}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "campaign.zarr"
    create_store(path, GRID, measure(GRID), block_seeds=4, attributes={"campaign": "a = 1"})
    return path


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full store, to copy."""
    path = tmp_path_factory.mktemp("filled") / "campaign.zarr"
    create_store(path, GRID, measure(GRID), block_seeds=4, attributes={"campaign": "a = 1"})
    fill_store(path, GRID)
    return path


# --- what readers see


def test_plain_xarray_shows_the_labelled_cube(path: Path) -> None:
    cube = xr.open_zarr(path)
    assert cube.sizes == {"alpha": 2, "N": 2, "seed": 6, "init": 3}
    assert cube.init.values.tolist() == list(INITS)
    assert cube.M.sel(alpha=1.5, N=128) == 192
    assert set(cube.coords) == {"alpha", "N", "seed", "init", "M"}
    assert set(cube.data_vars) == {"status", *RESULTS}
    assert cube.attrs == {"campaign": "a = 1"}
    for row in coordinate_variables("alpha") + cube_variables("alpha"):
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


def test_plain_zarr_and_datatree_read_it_too(filled: Path) -> None:
    assert zarr.open_group(filled, mode="r")["overlap"].shape == GRID.shape
    assert_holds(xr.open_datatree(filled, engine="zarr").to_dataset(), GRID)


def test_open_store_sorts_labels_and_reads_lazily(filled: Path) -> None:
    path = filled.with_name("unsorted.zarr")
    grid = Grid("alpha", (2.0, 1.5), (128, 64), (1, 0), ("spectral", "random"))
    create_store(path, grid, measure(grid), block_seeds=4, attributes={})
    fill_store(path, grid)
    cube = open_store(path)
    assert cube.alpha.values.tolist() == [1.5, 2.0]
    assert cube.N.values.tolist() == [64, 128]
    assert cube.init.values.tolist() == ["spectral", "random"]
    assert not cube.overlap.variable._in_memory
    assert_holds(cube, grid)
    assert_holds(open_store(filled), GRID)


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


def test_readers_are_never_disturbed_while_blocks_arrive_and_the_store_grows(path: Path) -> None:
    """Warnings are errors here, so that each look also shows that there is none."""

    def work() -> None:
        fill_store(path, GRID)
        grow_store(path, GROWN, measure(GROWN), {"revision": 2})

    writer = threading.Thread(target=work)
    writer.start()
    looks = 0
    while writer.is_alive():
        cube = xr.open_zarr(path)
        assert cube.sizes["seed"] in {6, 9}
        assert not cube.alpha.isnull().any()
        overlap = cube.overlap.sel(alpha=1.5, N=64, init="random").values[:6]
        expected = make_results(Block("alpha", 1.5, 64, GRID.seeds, ("random",)))["overlap"][:, 0]
        assert np.all(np.isnan(overlap) | (overlap == expected))
        looks += 1
    writer.join()
    assert looks > 3
    assert_holds(xr.open_zarr(path), GRID)


# --- blocks


def test_blocks_are_found_again_by_their_labels(filled: Path) -> None:
    assert_holds(xr.open_zarr(filled), GRID)


def test_partial_blocks_keep_the_other_cells_of_their_chunk(path: Path) -> None:
    fill_store(path, GRID)
    part = Block("alpha", 1.5, 64, (3, 1), ("constrained", "random"))
    results = {name: (-values).astype(values.dtype) for name, values in make_results(part).items()}
    write_block(path, part, results)
    changed = xr.open_zarr(path).sel(alpha=1.5, N=64, seed=[3, 1], init=["constrained", "random"])
    for name, values in results.items():
        np.testing.assert_array_equal(changed[name], values)
    write_block(path, part, make_results(part))
    assert_holds(xr.open_zarr(path), GRID)


def test_chunks_of_fill_values_are_files_too(path: Path) -> None:
    block = Block("alpha", 1.5, 64, (0, 1, 2, 3), INITS)
    fills = {row.name: row.fill for row in cube_variables("alpha")}
    types = {row.name: row.dtype for row in cube_variables("alpha")}
    write_block(path, block, {n: np.full(block.shape, fills[n], types[n]) for n in RESULTS})
    assert all((path / name / "c.1.0.0.0").is_file() for name in RESULTS)


def test_flipped_byte_is_noticed(filled: Path, tmp_path: Path) -> None:
    path = shutil.copytree(filled, tmp_path / "damaged.zarr")
    chunk = path / "overlap" / "c.1.0.0.0"
    content = bytearray(chunk.read_bytes())
    for place in (0, len(content) // 2, len(content) - 1):
        damaged = content.copy()
        damaged[place] ^= 0x10
        chunk.write_bytes(damaged)
        with pytest.raises(ValueError, match="checksum"):
            xr.open_zarr(path).overlap.sel(alpha=1.5, N=64).load()
    xr.open_zarr(path).overlap.sel(alpha=1.5, N=128).load()


def test_bad_results_are_refused_before_anything_is_written(path: Path) -> None:
    block = Block("alpha", 1.5, 64, (0, 1, 2, 3), INITS)
    wrong = make_results(block) | {"seconds": np.zeros((4, 2))}
    with pytest.raises(
        SchemaError, match=r"seeds=0-3.*seconds: expected float64 of shape \(4, 3\)"
    ):
        write_block(path, block, wrong)
    assert not list(path.glob("*/c.1.0.0.0"))


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
    with pytest.raises(ValueError, match="expected a local path, got 's3://"):
        read_grid("s3://bucket/campaign.zarr")


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


def test_growth_on_every_axis_keeps_everything(filled: Path, tmp_path: Path) -> None:
    path = shutil.copytree(filled, tmp_path / "grown.zarr")
    grow_store(path, GROWN, measure(GROWN), {"revision": 2})
    assert read_grid(path) == GROWN
    cube = xr.open_zarr(path)
    assert cube.attrs == {"campaign": "a = 1", "revision": 2}
    np.testing.assert_array_equal(cube.M, measure(GROWN))
    assert_holds(cube, GRID)
    new = np.ones(GROWN.shape, bool)
    new[:2, :2, :6, :3] = False
    assert np.isnan(cube.overlap.values[new]).all()
    assert (cube.recovered.values[new] == -1).all()

    status = np.where(new, 0, 1).astype(np.int8)
    for blocks in pending_blocks(GROWN, GROWN, status, 4):
        for block in blocks:
            write_block(path, block, make_results(block))
    assert_holds(open_store(path), GROWN)


@pytest.mark.parametrize(
    "grid",
    [
        Grid("alpha", GRID.values[::-1], GRID.N, GRID.seeds, GRID.inits),
        Grid("alpha", GRID.values, GRID.N, GRID.seeds[:3], GRID.inits),
        Grid("snr", GRID.values, GRID.N, GRID.seeds, GRID.inits),
    ],
)
def test_growth_that_would_move_labels_is_refused(path: Path, grid: Grid) -> None:
    with pytest.raises(ValueError, match="expected the labels of the store first"):
        grow_store(path, grid, measure(grid), {})
    assert read_grid(path) == GRID


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

folder, grid, *moments = sys.argv[1:]
grid = eval(grid)
measurements = np.rint(np.outer(grid.values, grid.N)).astype(int)

def count_down(moment):
    left = [moment]
    def hook(event, arguments):
        if event == "os.rename":
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for moment in moments:  # fork before any thread exists, so that each child is a clean process
    pid = os.fork()
    if pid == 0:
        path = Path(folder) / f"{moment}.zarr"
        count_down(int(moment))
        if path.exists():
            grow_store(path, grid, measurements, {"revision": 2})
        else:
            create_store(path, grid, measurements, block_seeds=4, attributes={"revision": 2})
        os._exit(0)
    print(moment, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
"""Creates or grows ``{moment}.zarr``, killed just before its rename number `moment`."""


def run_killed(folder: Path, grid: Grid, moments: list[int]) -> dict[int, bool]:
    """Moments, and whether the process finished before that moment came."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), repr(grid), *map(str, moments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    codes = dict(map(int, line.split()) for line in done.stdout.splitlines())
    assert set(codes.values()) <= {0, -9}, done.stderr
    return {moment: code == 0 for moment, code in codes.items()}


def test_killed_creation_leaves_nothing_or_all(tmp_path: Path) -> None:
    finished = run_killed(tmp_path, GRID, [0, 1, 15, *range(26, 36), 60])
    assert not finished[29]
    assert finished[60]
    for moment, all_done in finished.items():
        path = tmp_path / f"{moment}.zarr"
        assert path.exists() == all_done
        if not all_done:
            create_store(path, GRID, measure(GRID), block_seeds=4, attributes={})
        assert read_grid(path) == GRID


def test_killed_growth_leaves_the_old_cube_and_heals(filled: Path, tmp_path: Path) -> None:
    moments = [0, 1, 11, 22, 23, 24, 26, 28, 29, 30, 60]
    for moment in moments:
        shutil.copytree(filled, tmp_path / f"{moment}.zarr")
    finished = run_killed(tmp_path, GROWN, moments)
    assert not finished[23]
    assert finished[60]
    smaller = GRID.union(Grid("alpha", (5.0,), (64,), (6, 7), ("random",)))
    for moment, all_done in finished.items():
        path = tmp_path / f"{moment}.zarr"
        cube = xr.open_zarr(path)
        assert read_grid(path) == (GROWN if all_done else GRID)
        assert ("revision" in cube.attrs) == all_done
        np.testing.assert_array_equal(cube.M, measure(read_grid(path)))
        np.testing.assert_array_equal(
            cube.seed.values, (GROWN if all_done else GRID).seeds, err_msg=f"moment {moment}"
        )
        if not all_done:  # go on with the old cube, then grow to another one than was begun
            part = Block("alpha", 1.5, 64, (4, 5), INITS)
            write_block(path, part, make_results(part))
            grow_store(path, smaller, measure(smaller), {})
            assert_holds(open_store(path), Grid("alpha", (1.5,), (64, 128), GRID.seeds, INITS))
            union = smaller.union(GROWN)
            grow_store(path, union, measure(union), {})
            np.testing.assert_array_equal(open_store(path).overlap.notnull().sum(), 72)
    assert_holds(open_store(tmp_path / "23.zarr"), GRID)
