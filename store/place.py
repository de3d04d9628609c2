"""Where a store is: a folder of this machine, or any URL that fsspec understands.

In a folder, files survive a power cut and replace each other atomically (see `store.durable`); at
a URL, an object is there or not as the service says, which is the same promise. Bytes are read and
written by key, as Zarr does it.
"""

import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from store.durable import PARTIAL, DurableStore, sync_folder

StorePath = str | os.PathLike[str]


class StoreWriteError(RuntimeError):
    """A store could not be written: disk full, read-only, service away. No fault of the data."""


class PlaceError(ValueError):
    """A URL of which nothing is known here."""


def is_remote(path: StorePath) -> bool:
    """Whether a path is a URL."""
    return "://" in os.fspath(path)


def show_path(path: StorePath) -> str:
    """A path for messages."""
    return os.fspath(path).rstrip("/")


def resolve_path(path: StorePath) -> str:
    """A path that means the same in any folder and, on a shared file system, on any machine."""
    return show_path(path) if is_remote(path) else os.fspath(Path(path).resolve())


def name_beside(path: StorePath, suffix: str) -> str:
    """The path with something added to its last name."""
    return f"{resolve_path(path)}{suffix}"


def open_place(path: StorePath, *, read_only: bool = False) -> Store:
    """Zarr's view of a place.

    Raises
    ------
    PlaceError
        If no file system of the URL's kind is installed.
    """
    if not is_remote(path):
        return DurableStore(Path(path), read_only=read_only)
    options = {"use_listings_cache": False}  # others write there too
    try:
        return FsspecStore.from_url(show_path(path), storage_options=options, read_only=read_only)
    except (ImportError, ValueError) as error:
        raise PlaceError(
            f"store {show_path(path)!r}: expected a path or a URL that fsspec knows here, "
            f"got {error}; `pip install hesscape[remote]` brings s3://"
        ) from None


def is_there(path: StorePath) -> bool:
    """Whether there is anything at a path; at a URL, whether there is a Zarr group."""
    if is_remote(path):
        with writing(path):
            return read_bytes(open_place(path, read_only=True), "zarr.json") is not None
    return Path(path).exists()


def read_bytes(place: Store, key: str) -> bytes | None:
    """Content of a key, None if there is no such key."""
    buffer = sync(place.get(key, default_buffer_prototype()))
    return None if buffer is None else buffer.to_bytes()


def write_bytes(place: Store, key: str, content: bytes) -> None:
    """Replace the content of a key; on return it is safe there."""
    sync(place.set(key, default_buffer_prototype().buffer.from_bytes(content)))


def list_keys(place: Store, prefix: str = "") -> list[str]:
    """All keys that begin with a prefix."""

    async def collect() -> list[str]:
        return [key async for key in place.list_prefix(prefix)]

    return sync(collect())


def delete_folder(place: Store, folder: str) -> None:
    """Delete all keys below a folder, if there are any."""
    sync(place.delete_dir(folder))


def install(built: Store, path: StorePath) -> None:
    """Put a finished store, built elsewhere, in its place: wholly or, after a crash, not at all.

    A folder is filled beside its place and renamed. At a URL, the root's metadata come last,
    without which nothing is a store.

    Raises
    ------
    StoreWriteError
        If the place cannot be written; nothing is left there.
    """
    contents = {key: read_bytes(built, key) for key in list_keys(built)}
    ordered = sorted(contents, key=lambda key: key == "zarr.json")
    with writing(path):
        if is_remote(path):
            place = open_place(path)
            for key in ordered:
                write_bytes(place, key, contents[key] or b"")
            return
        root = Path(path)
        beside = root.with_name(f".{root.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            place = DurableStore(beside)
            for key in ordered:
                write_bytes(place, key, contents[key] or b"")
            beside.rename(root)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        sync_folder(root.parent)


def leftover_places(path: StorePath) -> list[str]:
    """Temporary files that killed processes left in a store and beside it; none at a URL."""
    if is_remote(path):
        return []
    root = Path(path).resolve()
    beside = root.parent.glob(f".{glob.escape(root.name)}.*{PARTIAL}")
    return sorted(os.fspath(each) for each in (*root.rglob(f".*{PARTIAL}"), *beside))


def remove_leftovers(leftovers: list[str]) -> None:
    """Remove what `leftover_places` found."""
    for each in map(Path, leftovers):
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)


def check_writable(path: StorePath) -> None:
    """Refuse a place where nothing can be written, whether or not a store is there.

    Raises
    ------
    FileNotFoundError
        If the folder that it should lie in is not there.
    PermissionError
        If it is read-only.
    """
    if is_remote(path):
        return  # the lock is the first write there
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"store {os.fspath(path)!r}: expected a folder {os.fspath(folder)!r} to put it in, "
            "got none; make it, or choose another place with --store PATH"
        )
    if not can_write(path):
        raise PermissionError(
            f"store {os.fspath(path)!r}: expected a place to write, got one that is read-only; "
            "change its permissions, or choose another place with --store PATH"
        )


def can_write(path: StorePath) -> bool:
    """Whether this process can write where a store is, or is to be; tried, not guessed.

    A URL is taken at its word.
    """
    if is_remote(path):
        return True
    root = Path(path)
    with suppress(OSError), tempfile.TemporaryFile(dir=root if root.is_dir() else root.parent):
        return os.access(root.parent, os.W_OK | os.X_OK)
    return False


@contextmanager
def writing(path: StorePath) -> Iterator[None]:
    """Turn what goes wrong in a write into one error with the place and what to do.

    Raises
    ------
    StoreWriteError
        Instead of any OSError and of what remote file systems raise.
    """
    # what clients of remote services raise is of no common kind
    faults: type[Exception] = Exception if is_remote(path) else OSError
    try:
        yield
    except (PlaceError, StoreWriteError):
        raise
    except faults as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StoreWriteError(
            f"{show_path(path)}: expected to read and write there, "
            f"got {type(error).__name__}: {reason}; "
            "what is marked done is safe. Make room or restore access, then give the same command"
        ) from error
