"""A local Zarr store whose writes survive a power cut, and the metadata that readers see.

Zarr's own local store renames its files into place but leaves them in the page cache. Here a file
is on the disk before it takes its name, so that after a power cut a chunk is the old one or the
new one, and a block whose write returned is there.

Readers take shapes and labels from one file, the consolidated metadata in the root's ``zarr.json``;
publishing a change there comes last and is atomic. zarr-python can write that file too, but from
whatever a killed process may have left behind; here only what is named is published.
"""

import asyncio
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

Json = dict[str, Any]
METADATA = "zarr.json"


class DurableStore(LocalStore):
    """Zarr store in a folder; a write returns when its file and its name are on the disk."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write one key, in a thread as zarr's store does."""
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write one key; newer versions of zarr call this directly."""
        self._check_writable()
        write_durably(self.root / key, value.as_buffer_like())


def write_durably(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Replace a file atomically; on return content and name are on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def local_root(path: str | os.PathLike[str]) -> Path:
    """Folder of a store.

    Raises
    ------
    ValueError
        If the path is a URL.
    """
    if "://" in os.fspath(path):
        raise ValueError(f"store: expected a local path, got {os.fspath(path)!r}")
    return Path(path)


def read_metadata(root: Path, node: str = "") -> Json:
    """Metadata of a group or an array, as its file has them.

    Raises
    ------
    FileNotFoundError
        If there is no such node.
    """
    metadata: Json = json.loads((root / node / METADATA).read_text(encoding="utf-8"))
    return metadata


def publish_nodes(
    root: Path,
    nodes: Iterable[str],
    *,
    group: str = "",
    attributes: Mapping[str, object] | None = None,
    withdraw: str | None = None,
) -> None:
    """Show nodes to readers, by one atomic write of the consolidated metadata of a group.

    Parameters
    ----------
    root : Path
        Folder of the store.
    nodes : iterable of str
        Paths of arrays and groups, relative to `group`; others stay as they were.
    group : str
        Group whose consolidated metadata are written; the root by default.
    attributes : mapping, optional
        Attributes to add to the group, in the same write.
    withdraw : str, optional
        Subgroup to hide first, with all that is in it.
    """
    metadata = read_metadata(root, group)
    consolidated = metadata.setdefault(
        "consolidated_metadata", {"kind": "inline", "must_understand": False, "metadata": {}}
    )
    shown = {
        name: node
        for name, node in consolidated["metadata"].items()
        if withdraw is None or name.split("/", 1)[0] != withdraw
    }
    for name in nodes:
        shown[name] = read_metadata(root / group, name)
        if "consolidated_metadata" in shown[name]:
            shown[name]["consolidated_metadata"]["metadata"] = {}  # its members are listed here
    consolidated["metadata"] = dict(sorted(shown.items()))
    metadata["attributes"].update(attributes or {})
    text = json.dumps(metadata, indent=2, allow_nan=False)
    write_durably(root / group / METADATA, text.encode())
