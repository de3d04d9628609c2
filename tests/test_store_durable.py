"""Files that replace each other whole, and the metadata that readers see."""

from pathlib import Path

import pytest
import zarr

from store.durable import DurableStore, write_durably
from store.published import publish_nodes, read_metadata


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "c.0.0"
    for content in (b"old", b"newer"):
        write_durably(path, content)
        assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["c.0.0"]


def test_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        write_durably(tmp_path / "taken", b"content")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_zarr_reads_what_it_wrote(tmp_path: Path) -> None:
    group = zarr.create_group(DurableStore(tmp_path / "s.zarr"))
    group.create_array("x", shape=(3,), dtype="int64")[:] = [1, 2, 3]
    assert zarr.open_group(tmp_path / "s.zarr")["x"][:].tolist() == [1, 2, 3]
    assert not list(tmp_path.rglob("*.partial"))


def test_store_opened_for_reading_is_not_written(tmp_path: Path) -> None:
    zarr.create_group(DurableStore(tmp_path / "s.zarr"))
    store = DurableStore(tmp_path / "s.zarr", read_only=True)
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_group(store, mode="r").attrs["a"] = 1


def test_only_what_is_published_is_shown(tmp_path: Path) -> None:
    root = tmp_path / "s.zarr"
    group = zarr.create_group(DurableStore(root), attributes={"a": 1})
    for name in ("x", "y", "half_made"):
        group.create_array(name, shape=(3,), dtype="int64")
    publish_nodes(DurableStore(root), ["x", "y"], attributes={"b": 2})
    shown = zarr.open_group(root, mode="r")
    assert sorted(shown.array_keys()) == ["x", "y"]
    assert dict(shown.attrs) == {"a": 1, "b": 2}
    group["y"].resize((5,))
    assert zarr.open_group(root, mode="r")["y"].shape == (3,)
    publish_nodes(DurableStore(root), ["y"])
    assert zarr.open_group(root, mode="r")["y"].shape == (5,)


def test_subgroup_is_shown_with_its_members_and_withdrawn(tmp_path: Path) -> None:
    root = tmp_path / "s.zarr"
    group = zarr.create_group(DurableStore(root))
    group.create_array("x", shape=(3,), dtype="int64")
    group.create_group("part").create_array("z", shape=(2,), dtype="int64")
    publish_nodes(DurableStore(root), ["z"], group="part")
    publish_nodes(DurableStore(root), ["x", "part", "part/z"])
    assert zarr.open_group(root, mode="r", use_consolidated=True)["part"]["z"].shape == (2,)
    assert zarr.open_group(root, path="part", use_consolidated=True)["z"].shape == (2,)
    publish_nodes(DurableStore(root), [], withdraw="part")
    assert sorted(zarr.open_group(root, mode="r", use_consolidated=True)) == ["x"]


def test_missing_node_is_an_error(tmp_path: Path) -> None:
    zarr.create_group(DurableStore(tmp_path / "s.zarr"))
    with pytest.raises(FileNotFoundError):
        read_metadata(DurableStore(tmp_path / "s.zarr"), "x")
