"""The labelled cube on disk: created from the schema, grown, written in whole chunks, read.

``xr.open_zarr(path)`` reads it without this package, also while a sweep runs. Labels are appended
in the order in which campaigns ask for them; `store.cube` sorts them for reading.

Who may write: workers the chunks of their blocks, the single driver all else. Nothing here takes
the lock; see `store.ledger`.
"""

import math
import reprlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from store.chunks import locate_block
from store.groups import GROUPS, Labels, check_groups
from store.keys import Block, Grid
from store.layout import Layout
from store.place import StorePath, delete_folder, install, is_there, open_place, show_path, writing
from store.published import copy_files, publish_nodes
from store.schema import (
    CONSTANTS,
    CONTROLS,
    LATER,
    RESULTS,
    SchemaError,
    check_results,
    coordinate_variables,
    cube_axes,
    cube_variables,
)


class StoreDamagedError(SchemaError):
    """A chunk is not what was written."""


COMPRESSORS = (ZstdCodec(level=1), Crc32cCodec())  # the checksum last: it covers what is on disk


def create_store(
    path: StorePath,
    grid: Grid,
    measurements: NDArray[np.integer[Any]],
    *,
    block_seeds: int,
    attributes: Mapping[str, object],
    groups: Labels = MappingProxyType({}),
) -> None:
    """Create the empty cube: labels, units and fill values, nothing computed.

    It is built elsewhere and put in its place, so that a crash leaves nothing half-made there.

    Parameters
    ----------
    path : str or PathLike
        Folder to create.
    grid : Grid
        Labels of the axes.
    measurements : ndarray of int, [values, N]
        Number of measurements M.
    block_seeds : int
        Seeds in a chunk, fixed for the life of the store.
    attributes : mapping
        Provenance, kept as the attributes of the root; anything JSON can hold.
    groups : mapping
        Labels of the own axes of each group of `store.groups.GROUPS` that the store is to have,
        fixed for its life.

    Raises
    ------
    FileExistsError
        If there is something at `path`.
    ValueError
        If `measurements` does not fit the grid or `block_seeds` is not positive.
    """
    if is_there(path):
        raise FileExistsError(
            f"{show_path(path)}: expected a free path for a new store, got an existing one"
        )
    _check_measurements(grid, measurements)
    if block_seeds < 1:
        raise ValueError(f"block_seeds: expected at least 1 seed in a chunk, got {block_seeds!r}")
    layout = Layout(grid, block_seeds, groups)
    building = MemoryStore()
    group = zarr.create_group(building, zarr_format=3)
    for name in layout.groups:
        group.create_group(name)
    for array, variable in layout.arrays().items():
        group.create_array(
            array,
            shape=layout.shape(variable),
            chunks=layout.chunks(variable),
            dtype=variable.dtype,
            fill_value=variable.fill,
            compressors=COMPRESSORS,
            # One folder for the chunks of a variable: half the inodes of nested folders.
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=variable.dims,
            attributes=variable.attributes()
            | ({"coordinates": "M"} if layout.in_cube(variable) else {}),
        )
    _write_labels(group, layout, measurements)
    copy_files(building, layout.labels(measurements))
    _publish(building, layout, attributes)
    install(building, path)


def grow_store(
    path: StorePath,
    grid: Grid,
    measurements: NDArray[np.integer[Any]],
    attributes: Mapping[str, object],
) -> None:
    """Append labels; nothing that is stored moves.

    Readers see the old cube until the last write, then the new one; a reader of a group alone, such
    as ``trajectory``, sees it grow a moment earlier. A growth that was interrupted leaves the old
    cube as it was, and is completed by growing again. What was reduced from the smaller cube is
    withdrawn.

    Parameters
    ----------
    path : str or PathLike
        Store to grow.
    grid : Grid
        Labels of the grown store, such as ``read_grid(path).union(campaign)``: those of the store
        first, in their order.
    measurements : ndarray of int, [values, N]
        Number of measurements M of the grown store.
    attributes : mapping
        Attributes of the root to add or replace, in the same last write.

    Raises
    ------
    ValueError
        If `grid` does not start with the labels of the store, or has other replicas or constants,
        or `measurements` does not fit it or changes a stored number.
    """
    old = read_grid(path)
    old.union(grid)  # or it raises
    for (dim, labels), new in zip(old.axes().items(), grid.axes().values(), strict=True):
        if new[: len(labels)] != labels:
            raise ValueError(
                f"axis {dim}: expected the labels of the store first, {reprlib.repr(labels)}, "
                f"got {reprlib.repr(new)}"
            )
    _check_measurements(grid, measurements)
    place = open_place(path)
    group = zarr.open_group(place, mode="r+", use_consolidated=False)
    values, sizes = len(old.values), len(old.N)
    stored = get_array(open_group(path), "M")[:]
    if not np.array_equal(measurements[:values, :sizes], stored):
        raise ValueError(
            f"M: expected the store's numbers of measurements {stored!r} for its labels, "
            f"got {measurements[:values, :sizes]!r}"
        )
    layout = read_layout(path, grid)
    with writing(path):
        for array, variable in layout.arrays().items():
            get_array(group, array).resize(layout.shape(variable))
        _write_labels(group, layout, measurements)
        copy_files(place, layout.labels(measurements))
        _publish(place, layout, attributes, withdraw="reduced")
        delete_folder(place, "reduced")


def write_block(
    path: StorePath,
    block: Block,
    results: Mapping[str, NDArray[np.generic]],
    groups: Mapping[str, Mapping[str, NDArray[np.generic]]] = MappingProxyType({}),
) -> None:
    """Write what a kernel call computed; on return it is on the disk.

    Other cells of the chunk are kept. A chunk must have one writer at a time, which holds where
    blocks come from `pending_blocks` and those of a chunk stay in one task.

    Parameters
    ----------
    path : str or PathLike
        Store that has the labels of the block.
    block : Block
        Cells to write.
    results : mapping of str to ndarray, [seeds, inits] or [seeds, inits, replicas]
        All of `RESULTS`, of types that convert to the schema's without loss. Those that came later
        than the store (`schema.LATER`) are not kept.
    groups : mapping of str to such mappings
        For each group of the store all its variables, their own axes last.

    Raises
    ------
    SchemaError
        If names, shapes or types are not those of the schema; nothing is written then.
    ValueError
        If the block is not in the store, or spans several chunks.
    """
    group = open_group(path, mode="r+")
    region, seeds, inits = locate_block(_read_labels(group), block, _block_seeds(group))
    check_results(results, block.shape, f"block {block.key}")
    lengths = {
        name: {axis: get_array(group, f"{name}/{axis}").shape[0] for axis in axes}
        for name, axes in _own_axes(group).items()
    }
    check_groups(groups, block.shape, lengths, f"block {block.key}")
    held = tuple(part.stop - part.start for part in region if isinstance(part, slice))
    whole = block.runs == math.prod(held)

    def write_variable(name: str, values: NDArray[np.generic]) -> None:
        # Also chunks of fill values are written, so that a missing file always means damage.
        array = get_array(group, name).with_config({"write_empty_chunks": True})
        shape = (*held, *array.shape[len(region) :])
        cells = np.empty(shape, array.dtype) if whole else np.array(array[region])
        cells[np.ix_(seeds, inits)] = values
        array[region] = cells

    beside = {f"{name}/{key}": each[key] for name, each in groups.items() for key in each}
    lacking = _lacking(group)
    known = {name: values for name, values in results.items() if name not in lacking}
    arrays = {**known, **beside}
    with (
        writing(path),
        reading(path),
        ThreadPoolExecutor(4) as pool,
    ):  # the waits for the disk overlap
        for _ in pool.map(write_variable, arrays.keys(), arrays.values()):
            pass


def read_grid(path: StorePath) -> Grid:
    """Labels of a store, in the order in which they were added.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    SchemaError
        If what is there is not a store of this package.
    """
    with reading(path):
        return _read_labels(open_group(path))


def read_block_seeds(path: StorePath) -> int:
    """Seeds in a chunk of a store; raises as `read_grid`."""
    return _block_seeds(open_group(path))


def read_groups(path: StorePath) -> dict[str, dict[str, tuple[float, ...]]]:
    """Labels of the own axes of each group beside the cube; raises as `read_grid`."""
    group = open_group(path)
    return {
        name: {
            axis: tuple(np.asarray(get_array(group, f"{name}/{axis}")[:]).tolist()) for axis in axes
        }
        for name, axes in _own_axes(group).items()
    }


def read_layout(path: StorePath, grid: Grid) -> Layout:
    """The arrays of a store, with the labels of a `grid`; raises as `read_grid`."""
    lacking = _lacking(open_group(path))
    return Layout(grid, read_block_seeds(path), read_groups(path), lacking)


def read_attributes(path: StorePath) -> dict[str, Any]:
    """Attributes of the root, such as provenance; raises as `read_grid`."""
    return dict(open_group(path).attrs)


def update_attributes(path: StorePath, attributes: Mapping[str, object]) -> None:
    """Add or replace attributes of the root; raises as `read_grid`. For the driver only."""
    open_group(path)
    with writing(path):
        publish_nodes(open_place(path), (), attributes=attributes)


def open_group(path: StorePath, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """Root group as readers see it; raises as `read_grid`."""
    if not is_there(path):
        raise FileNotFoundError(
            f"{show_path(path)}: expected a store, got nothing there; `hesscape run` it"
        )
    try:
        place = open_place(path, read_only=mode == "r")
        group = zarr.open_group(place, mode=mode, use_consolidated=True)
        axes = cube_axes(_control(group))
        rows = (*coordinate_variables(axes), *cube_variables(axes))
        complete = {row.name for row in rows} <= _shown(group) | set(LATER)
    except (FileNotFoundError, StopIteration, ValueError):
        complete = False
    if not complete:
        raise SchemaError(
            f"{show_path(path)}: expected a store of hesscape, got something else there"
        )
    return group


@contextmanager
def reading(path: StorePath) -> Iterator[None]:
    """Say what to do where a chunk is not what was written.

    Raises
    ------
    StoreDamagedError
        Instead of the codec's error.
    """
    try:
        yield
    except ValueError as error:
        if "checksum" not in str(error):
            raise
        raise StoreDamagedError(
            f"{show_path(path)}: expected chunks as they were written, got one that is damaged "
            f"(checksum); `hesscape verify {show_path(path)}` finds and mends it"
        ) from error


def get_array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Array of a group, by its name."""
    array = group[name]
    assert isinstance(array, zarr.Array), name
    return array


def _block_seeds(group: zarr.Group) -> int:
    before = len(_constants(group)) + 2
    return int(get_array(group, RESULTS[0]).chunks[before])


def _control(group: zarr.Group) -> str:
    shown = _shown(group)
    return next(name for name in CONTROLS if name in shown)


def _constants(group: zarr.Group) -> list[str]:
    shown = _shown(group)
    return [name for name in CONSTANTS if name in shown]


def _lacking(group: zarr.Group) -> tuple[str, ...]:
    """Names that came later than the store."""
    shown = _shown(group)
    return tuple(name for name in LATER if name not in shown)


def _shown(group: zarr.Group) -> set[str]:
    """Names in the consolidated metadata; asking the group for each costs 50 µs a name."""
    consolidated = group.metadata.consolidated_metadata
    return set(consolidated.metadata) if consolidated else set()


def _read_labels(group: zarr.Group) -> Grid:
    control = _control(group)
    constants = _constants(group)
    values, sizes, seeds, inits, *labels = (
        tuple(np.asarray(get_array(group, dim)[:]).tolist())
        for dim in (*cube_axes(control), *constants)
    )
    replicas = get_array(group, "replica").shape[0] if "replica" in _shown(group) else None
    pairs = tuple(zip(constants, labels, strict=True))
    return Grid(control, values, sizes, seeds, inits, replicas, pairs)


def _own_axes(group: zarr.Group) -> dict[str, list[str]]:
    """Own axes of each group beside the cube that the store has."""
    shown = _shown(group)
    return {name: [row.name for row in kind.axes] for name, kind in GROUPS.items() if name in shown}


def _write_labels(
    group: zarr.Group, layout: Layout, measurements: NDArray[np.integer[Any]]
) -> None:
    for name, labels in layout.labels(measurements).items():
        array = get_array(group, name)
        array[:] = np.array(labels, array.dtype)


def _publish(
    place: Store, layout: Layout, attributes: Mapping[str, object], *, withdraw: str | None = None
) -> None:
    """Show all arrays to readers, the root's last: from then on the store is what it says."""
    arrays = list(layout.arrays())
    for name in layout.groups:
        inside = [
            array.removeprefix(f"{name}/") for array in arrays if array.startswith(f"{name}/")
        ]
        publish_nodes(place, inside, group=name)
    publish_nodes(place, [*layout.groups, *arrays], attributes=attributes, withdraw=withdraw)


def _check_measurements(grid: Grid, measurements: NDArray[np.integer[Any]]) -> None:
    shape = (len(grid.values), len(grid.N))
    if measurements.shape != shape or measurements.dtype.kind not in "iu":
        raise ValueError(
            f"measurements: expected integers of shape {shape} ({grid.control}, N), "
            f"got {measurements.dtype} of shape {measurements.shape}"
        )
