"""The driver's lock on a store: one driver at a time, and a dead one holds nothing.

On a file system it is a lock file beside the store, which the operating system frees when its
process dies. At a URL, where there are no locks, it is an object beside the store that the driver
writes again every few seconds. Another driver takes it over when it has watched the object stay the
same for a minute. It is the watcher's own clock that counts, never a date: clocks of machines
differ, and jump.
"""

import json
import os
import socket
import threading
import time
import uuid
from typing import Protocol, cast

import filelock
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from store.place import StorePath, is_remote, name_beside, show_path

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
_PATIENCE = 0.5  # seconds; longer than `is_held` of another process holds the lock


class StoreLockedError(RuntimeError):
    """Another driver is working on the store."""


class LockLostError(RuntimeError):
    """Another driver has taken the store over from this one."""


class Lock(Protocol):
    """A lock on one store."""

    def acquire(self) -> bool:
        """Take it; False if another driver has it."""

    def release(self) -> None:
        """Give it back."""

    def check(self) -> None:
        """Raise `LockLostError` if it was lost meanwhile."""

    def is_held(self) -> bool:
        """Whether a living driver has it, this one included."""


def make_lock(path: StorePath) -> Lock:
    """Lock of a store, one for all ways to write its path."""
    beside = name_beside(path, ".lock")
    return ObjectLock(beside) if is_remote(path) else FileLock(beside)


class FileLock:
    """Lock file on a file system.

    Parameters
    ----------
    file : str
        Path of the lock file.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._lock = filelock.FileLock(file, timeout=_PATIENCE, thread_local=False)

    def acquire(self) -> bool:
        """Take it, unless another driver has it."""
        try:
            self._lock.acquire()
        except filelock.Timeout:
            return False
        return True

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def check(self) -> None:
        """Nothing can take it from a living process."""

    def is_held(self) -> bool:
        """Whether a living driver has it; who may not lock says yes."""
        if not os.path.exists(self._file):  # noqa: PTH110
            return False
        try:
            with filelock.FileLock(self._file, blocking=False):
                return False
        except (filelock.Timeout, PermissionError):
            return True


class ObjectLock:
    """Lock object on a remote file system, kept alive by a thread.

    Parameters
    ----------
    url : str
        URL of the lock object.
    beat_seconds : float, optional
        Time between two writes of the holder.
    stale_seconds : float, optional
        How long others watch an unchanged object before they take it over; several beats.
    """

    def __init__(
        self,
        url: str,
        *,
        beat_seconds: float | None = None,
        stale_seconds: float | None = None,
    ) -> None:
        fs, self._key = url_to_fs(url, use_listings_cache=False)
        self._fs = cast("AbstractFileSystem", fs)
        self._url = url
        self._beat_seconds = BEAT_SECONDS if beat_seconds is None else beat_seconds
        self._stale_seconds = STALE_SECONDS if stale_seconds is None else stale_seconds
        self._token = uuid.uuid4().hex
        self._beats = 0
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> bool:
        """Take it if it is free, or stays unchanged for `stale_seconds`."""
        try:
            self._fs.pipe_file(self._key, self._content(), mode="create")
        except FileExistsError:
            if self._changes_within(self._stale_seconds):
                return False
            self._fs.pipe_file(self._key, self._content())
            time.sleep(self._beat_seconds / 2)  # who took it over at the same moment shows now
            if self._holder() != self._token:
                return False
        self._lost = False
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="store lock")
        self._thread.start()
        return True

    def release(self) -> None:
        """Delete it, if it is still ours."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        if not self._lost and self._holder() == self._token:
            self._fs.rm_file(self._key)

    def check(self) -> None:
        """Raise if another driver has taken it over."""
        if self._lost:
            raise LockLostError(
                f"{show_path(self._url)}: expected this driver's lock, got that of another, which "
                f"found it silent for {self._stale_seconds:g} s; what is marked done is safe"
            )

    def is_held(self) -> bool:
        """Whether its holder is alive: watches for a beat or two."""
        return self._changes_within(2 * self._beat_seconds)

    def _changes_within(self, seconds: float) -> bool:
        """Whether the object is rewritten; one that is away has no holder."""
        first = self._read()
        deadline = time.monotonic() + seconds
        while first is not None and time.monotonic() < deadline:
            time.sleep(min(0.2, self._beat_seconds / 4))
            if self._read() != first:
                return True
        return False

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            try:
                if self._holder() != self._token:
                    self._lost = True
                    return
                self._beats += 1
                self._fs.pipe_file(self._key, self._content())
            except Exception:  # noqa: BLE001, S112  a service that is away for a moment
                continue

    def _content(self) -> bytes:
        record = {"token": self._token, "host": socket.gethostname(), "beat": self._beats}
        return json.dumps(record).encode()

    def _read(self) -> bytes | None:
        try:
            return cast("bytes", self._fs.cat_file(self._key))
        except FileNotFoundError:
            return None

    def _holder(self) -> str | None:
        content = self._read()
        return None if content is None else str(json.loads(content)["token"])
