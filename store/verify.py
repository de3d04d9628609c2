"""Does a store still hold what was written? Every chunk is read again and compared with its sum.

Damaged data make their runs pending, so that the next sweep computes them again. What only the
driver writes (labels, status, metadata) would cost more than it can compute: it is restored from
its copies. Leftover temporary files of killed processes are removed. Under the driver's lock.
"""

import asyncio
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs.zstd import Zstd
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from store.array_store import get_array, open_group, read_layout
from store.keys import Grid
from store.ledger import Ledger, hold_store
from store.place import (
    StorePath,
    is_there,
    leftover_places,
    list_keys,
    open_place,
    read_bytes,
    remove_leftovers,
    write_bytes,
    writing,
)
from store.published import COPIES, METADATA, list_chunks
from store.schema import OF_DRIVER, SchemaError, Status

_TOGETHER = 64  # keys read at once
_SUM_BYTES = 4


@dataclass(frozen=True)
class Damage:
    """A key whose content is not what was written.

    Parameters
    ----------
    key : str
        Key in the store: array and chunk, or metadata.
    reason : str
        What is wrong with it.
    remedy : str
        What was done about it.
    """

    key: str
    reason: str
    remedy: str


@dataclass
class Verified:
    """What `verify_store` found.

    Parameters
    ----------
    chunks, size : int
        Chunks read, and their bytes.
    pending : int
        Runs that are pending because of damage.
    damages : list of Damage
    leftovers : list of str
        Temporary files of killed processes, removed.
    """

    chunks: int = 0
    size: int = 0
    pending: int = 0
    damages: list[Damage] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def verify_store(path: StorePath) -> Verified:
    """Read all of a store, mark pending what is damaged, restore what can be restored.

    Parameters
    ----------
    path : str or PathLike

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    SchemaError
        If what is there is not a store, and no copy of its metadata makes it one.
    StoreLockedError
        If a driver is at work on it.
    StoreWriteError
        If something is to be mended and cannot be written.
    """
    found = Verified()
    if not is_there(path):
        open_group(path)  # which says so
    with hold_store(path), writing(path):
        found.leftovers = leftover_places(path)
        remove_leftovers(found.leftovers)
        place = open_place(path)
        _mend_metadata(place, path, found)
        _mend_driver_chunks(place, path, found)
    with Ledger(path) as ledger:
        _check_data(open_place(path), open_group(path), ledger, path, found)
    return found


def _mend_metadata(place: Store, path: StorePath, found: Verified) -> None:
    """Restore the root's metadata from their copy, those of arrays from the root's."""
    if not _is_metadata(read_bytes(place, METADATA)):
        copy = read_bytes(place, COPIES + METADATA)
        if copy is None or not _is_metadata(copy):
            open_group(path)  # says that there is no store
            raise SchemaError(f"{path}: expected metadata of a store, got neither them nor a copy")
        write_bytes(place, METADATA, copy)
        found.damages.append(Damage(METADATA, "unreadable", "restored from its copy"))
    root = json.loads(read_bytes(place, METADATA) or b"")
    for node, metadata in root["consolidated_metadata"]["metadata"].items():
        key = f"{node}/{METADATA}"
        if not _is_metadata(read_bytes(place, key)):
            write_bytes(place, key, json.dumps(metadata, indent=2).encode())
            found.damages.append(Damage(key, "unreadable", "restored from the root's"))


def _is_metadata(content: bytes | None) -> bool:
    try:
        return content is not None and "node_type" in json.loads(content)
    except ValueError:
        return False


def _mend_driver_chunks(place: Store, path: StorePath, found: Verified) -> None:
    """Restore labels and status from their copies; a status without one is computed again."""
    copies = {key.removeprefix(COPIES) for key in list_keys(place, COPIES)} - {METADATA}
    stored = {key for name in OF_DRIVER for key in list_chunks(place, name)}
    keys = sorted(stored | copies)
    found.chunks += len(keys)
    for key, content in _read_all(place, keys):
        reason = _fault(content, None)
        if not reason:
            found.size += len(content or b"")
            continue
        copy = read_bytes(place, COPIES + key)
        if copy is not None and not _fault(copy, None):
            write_bytes(place, key, copy)
            remedy = "restored from its copy"
        elif key.split("/")[0] in OF_DRIVER:
            sync(place.delete(key))
            remedy = "reset; its runs are pending"
        else:
            raise SchemaError(
                f"{path}: {key} is {reason} and has no copy; restore it from a backup of the store"
            )
        found.damages.append(Damage(key, reason, remedy))


def _check_data(
    place: Store, group: zarr.Group, ledger: Ledger, path: StorePath, found: Verified
) -> None:
    """Check all chunks that workers write; those without an ended run may be missing."""
    layout = read_layout(path, ledger.grid)
    names = [
        name
        for name, row in layout.arrays().items()
        if layout.in_cube(row) and row.name not in OF_DRIVER
    ]
    lengths = {name: _chunk_bytes(get_array(group, name)) for name in names}
    for region, place_in_grid in _chunks(ledger.grid, get_array(group, names[0])):
        ended = bool(np.isin(ledger.status[region], (Status.DONE, Status.FAILED)).any())
        keys = {f"{name}/c.{_join(place_in_grid, get_array(group, name))}": name for name in names}
        bad: dict[str, str] = {}
        for key, content in _read_all(place, list(keys)):
            if content is None and not ended:
                continue
            found.chunks += 1
            found.size += len(content or b"")
            reason = _fault(content, lengths[keys[key]])
            if reason:
                bad[key] = reason
        if bad:
            found.pending += ledger.forget(region)
            for key, reason in bad.items():
                sync(place.delete(key))  # the rest of a damaged chunk must not be read again
                found.damages.append(Damage(key, reason, "its runs are pending"))


def _chunks(
    grid: Grid, array: zarr.Array[Any]
) -> Iterator[tuple[tuple[slice, ...], tuple[int, ...]]]:
    """Cells of the cube in each chunk, and the chunk's place, where all axes are the cube's."""
    sizes = array.chunks
    counts = [ceil(length / size) for length, size in zip(grid.shape, sizes, strict=True)]
    for place in itertools.product(*map(range, counts)):
        region = tuple(
            slice(i * size, min((i + 1) * size, length))
            for i, size, length in zip(place, sizes, grid.shape, strict=True)
        )
        yield region, place


def _join(place: tuple[int, ...], array: zarr.Array[Any]) -> str:
    """Name of a chunk; axes behind those of the cube are never cut."""
    return ".".join(map(str, (*place, *([0] * (array.ndim - len(place))))))


def _chunk_bytes(array: zarr.Array[Any]) -> int:
    dtype: np.dtype[Any] = np.dtype(array.dtype)
    return int(prod(array.chunks) * dtype.itemsize)


def _fault(content: bytes | None, length: int | None) -> str:
    """What is wrong with a chunk; nothing, if it is as it was written."""
    if content is None:
        return "missing"
    body, checksum = content[:-_SUM_BYTES], content[-_SUM_BYTES:]
    if len(content) <= _SUM_BYTES:
        return f"cut short to {len(content)} bytes"
    if google_crc32c.value(body) != int.from_bytes(checksum, "little"):
        return f"not what was written (CRC32C of {len(content)} bytes)"
    if length is not None and len(Zstd().decode(body)) != length:
        return f"of another length than {length} bytes"
    return ""


def _read_all(place: Store, keys: list[str]) -> Iterator[tuple[str, bytes | None]]:
    prototype = default_buffer_prototype()

    async def read(some: list[str]) -> list[bytes | None]:
        buffers = await asyncio.gather(*(place.get(key, prototype) for key in some))
        return [None if buffer is None else buffer.to_bytes() for buffer in buffers]

    for start in range(0, len(keys), _TOGETHER):
        some = keys[start : start + _TOGETHER]
        yield from zip(some, sync(read(some)), strict=True)
