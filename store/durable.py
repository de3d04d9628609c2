"""A local Zarr store whose writes survive a power cut.

Zarr's own local store renames its files into place but leaves them in the page cache. Here a file
is on the disk before it takes its name, so that after a power cut a chunk is the old one or the
new one, and a block whose write returned is there.
"""

import asyncio
import os
import uuid
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

PARTIAL = ".partial"
"""End of the names of files that are being written."""


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
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
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
