"""Damage of every kind is found, and mended or made pending; nothing that is sound is touched."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from store.array_store import create_store, open_group, read_grid, write_block
from store.groups import GROUPS
from store.keys import Block, Grid
from store.ledger import Ledger, StoreLockedError, counts
from store.schema import RESULTS, SchemaError, Status
from store.verify import verify_store

INITS = ("random", "spectral")
GRID = Grid("alpha", (2.5, 1.5), (64,), tuple(range(6)), INITS)
BLOCKS = [
    Block("alpha", value, 64, seeds, INITS)
    for value in GRID.values
    for seeds in ((0, 1, 2, 3), (4, 5))
]
ATTRIBUTES = {"revisions": [{"kernel_version": "1"}]}
CODES = ("recovered", "instances")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store in which three of four chunks are done."""
    path = tmp_path / "campaign.zarr"
    measurements = np.full((2, 1), 100)
    groups = {"trajectory": {"time": (1.0, 2.0)}}
    create_store(path, GRID, measurements, block_seeds=4, attributes=ATTRIBUTES, groups=groups)
    with Ledger(path) as ledger:
        for block in BLOCKS[:3]:
            fill(path, block)
            ledger.mark(block, Status.DONE)
    return path


def fill(path: Path, block: Block) -> None:
    random = np.random.default_rng(3)
    results = {
        name: np.ones(block.shape, np.int8) if name in CODES else random.random(block.shape)
        for name in RESULTS
    }
    along = {name: random.random((*block.shape, 2)) for name in GROUPS["trajectory"].names}
    write_block(path, block, results, {"trajectory": along})


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def cut_to_nothing(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def replace_by_another(file: Path) -> None:
    """A chunk with a good checksum, of an array of another type."""
    shutil.copy(file.parents[1] / "recovered" / file.name, file)


DAMAGES = [cut, cut_to_nothing, flip, Path.unlink]


def test_a_sound_store_is_left_as_it_is(path: Path) -> None:
    before = snapshot(path)
    found = verify_store(path)
    assert (found.damages, found.leftovers, found.pending) == ([], [], 0)
    along = len(GROUPS["trajectory"].names)
    labels = 5 + 6  # N, M, alpha, seed, init, and again with time along the runs
    assert found.chunks == 3 * (len(RESULTS) + along) + 2 + labels
    assert found.size > 0
    after = snapshot(path)
    assert {key for key in after if before.get(key) != after[key]} <= {"ledger/zarr.json"}


@pytest.mark.parametrize("damage", [*DAMAGES, replace_by_another])
@pytest.mark.parametrize("array", ["overlap", "trajectory/gain"])
def test_a_damaged_chunk_makes_its_runs_pending_and_is_healed(
    path: Path, damage: Callable[[Path], None], array: str
) -> None:
    if damage is replace_by_another and array != "overlap":
        pytest.skip("one array is enough")
    before = snapshot(path)
    key = f"{array}/c.0.0.0.0" + (".0" if "/" in array else "")
    damage(path / key)
    found = verify_store(path)
    assert [each.key for each in found.damages] == [key]
    assert found.damages[0].remedy == "its runs are pending"
    assert found.pending == 8
    assert counts(path) == {"pending": 12, "done": 12, "failed": 0, "quarantined": 0}
    assert (xr.open_zarr(path).revision.sel(alpha=2.5, seed=[0, 1, 2, 3]) == -1).all()
    with Ledger(path) as ledger:  # what the next run does
        for (block,) in ledger.pending(GRID):
            fill(path, block)
            ledger.mark(block, Status.DONE)
    assert counts(path)["done"] == 24
    assert verify_store(path).damages == []
    after = snapshot(path)
    data = [name for name in before if name.split("/")[0] not in {"status", "revision", "ledger"}]
    assert {name for name in data if after[name] != before[name]} == set()


def test_part_of_a_damaged_chunk_can_be_written_again(path: Path) -> None:
    flip(path / "overlap" / "c.0.0.0.0")
    verify_store(path)
    fill(path, Block("alpha", 2.5, 64, (1,), INITS))
    assert np.isfinite(xr.open_zarr(path).overlap.sel(alpha=2.5, seed=1)).all()


def test_a_damaged_chunk_of_pending_runs_is_removed(path: Path) -> None:
    fill(path, BLOCKS[3])  # by a worker whose driver was killed before it could mark it
    cut(path / "loss" / "c.1.0.1.0")
    found = verify_store(path)
    assert [each.key for each in found.damages] == ["loss/c.1.0.1.0"]
    assert found.pending == 0
    assert not (path / "loss" / "c.1.0.1.0").exists()


def test_all_damaged_chunks_are_told_and_runs_counted_once(path: Path) -> None:
    for name in ("overlap", "loss", "recovered"):
        cut(path / name / "c.0.0.1.0")
    (path / "hit_time" / "c.1.0.0.0").unlink()
    found = verify_store(path)
    assert sorted(each.key for each in found.damages) == [
        "hit_time/c.1.0.0.0",
        "loss/c.0.0.1.0",
        "overlap/c.0.0.1.0",
        "recovered/c.0.0.1.0",
    ]
    assert found.pending == 4 + 8
    assert counts(path)["done"] == 8


def test_what_the_driver_writes_is_restored_from_its_copy(path: Path) -> None:
    cube = ("status/c.0.0.0.0", "revision/c.0.0.0.0")
    labels = ("seed/c.0", "init/c.0", "M/c.0.0", "alpha/c.0", "trajectory/time/c.0")
    for key, damage in itertools.product((*cube, *labels), DAMAGES):
        whole = (path / key).read_bytes()
        damage(path / key)
        (damaged,) = verify_store(path).damages
        assert (damaged.key, damaged.remedy) == (key, "restored from its copy")
        assert (path / key).read_bytes() == whole
    assert counts(path) == {"pending": 4, "done": 20, "failed": 0, "quarantined": 0}
    assert read_grid(path) == GRID


def test_runs_made_pending_again_stay_so(path: Path) -> None:
    """The copy of the status follows it also where nothing is done any more."""
    with Ledger(path) as ledger:
        ledger.status[:] = Status.FAILED
        assert ledger.clear() == 24
    assert verify_store(path).damages == []
    assert counts(path)["pending"] == 24


def test_status_without_a_sound_copy_is_reset(path: Path) -> None:
    for key in ("status/c.0.0.0.0", "ledger/copy/status/c.0.0.0.0"):
        flip(path / key)
    found = verify_store(path)
    assert found.damages[0].remedy == "reset; its runs are pending"
    assert counts(path)["pending"] == 24


def test_labels_without_a_sound_copy_are_refused(path: Path) -> None:
    for key in ("seed/c.0", "ledger/copy/seed/c.0"):
        flip(path / key)
    with pytest.raises(SchemaError, match=r"seed/c\.0 is not what was written.*from a backup"):
        verify_store(path)


def test_metadata_are_restored(path: Path) -> None:
    contents = ("", "{", '{"zarr_format": 3}')
    for content, node in itertools.product(contents, ("", "overlap/", "trajectory/gain/")):
        file = path / f"{node}zarr.json"
        before = json.loads(file.read_text())
        file.write_text(content)
        found = verify_store(path)
        assert [each.key for each in found.damages] == [f"{node}zarr.json"]
        assert json.loads(file.read_text()) == before
    assert open_group(path)["overlap"].shape == GRID.shape


def test_what_is_no_store_is_refused(path: Path, tmp_path: Path) -> None:
    for key in ("zarr.json", "ledger/copy/zarr.json"):
        (path / key).write_text("{")
    with pytest.raises(SchemaError, match="expected a store of hesscape"):
        verify_store(path)
    with pytest.raises(FileNotFoundError, match="nothing there"):
        verify_store(tmp_path / "none.zarr")


def test_leftovers_of_killed_processes_are_removed(path: Path) -> None:
    left = [
        path / "overlap" / ".c.0.0.0.0.1234.partial",
        path.with_name(f".{path.name}.5678.partial"),
    ]
    left[0].write_bytes(b"half a chunk")
    (left[1] / "status").mkdir(parents=True)
    other = path.with_name(".other.zarr.5678.partial")
    other.mkdir()
    assert verify_store(path).leftovers == sorted(map(str, left))
    assert not any(each.exists() for each in left)
    assert other.exists()


def test_a_store_at_work_is_not_verified(path: Path) -> None:
    with Ledger(path), pytest.raises(StoreLockedError, match="got one at work"):
        verify_store(path)
