"""Which workers may take part in a sweep: those that would give the driver's numbers."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from pipeline.kernel.block import KERNEL_VERSION
from pipeline.worker_arrays import worker_arrays
from store.place import can_write

PACKAGES = ("hesscape", "numpy", "scipy", "dask", "distributed", "zarr", "xarray")
"""Packages whose versions are recorded in a store, and must be those of the driver."""


@cache
def installed_versions() -> Mapping[str, str]:
    """Versions of Python and of `PACKAGES` in this process."""
    versions = {"python": platform.python_version()}
    return versions | {name: metadata.version(name) for name in PACKAGES}


def describe_worker(path: str) -> dict[str, Any]:
    """What a worker says of itself; `path` is the store as the workers see it.

    Raises
    ------
    ArrayLibraryError
        If the worker has not the array library that it should compute with.
    """
    worker_arrays()
    return {
        "kernel version": KERNEL_VERSION,
        "versions": dict(installed_versions()),
        "writable": can_write(path),
    }


@dataclass(frozen=True)
class Admission:
    """What workers are asked before they get work.

    Parameters
    ----------
    path : str
        The store as the workers see it.
    """

    path: str

    def find_problem(self, answer: object) -> str:
        """Why a worker with this answer cannot take part; empty if it can.

        Parameters
        ----------
        answer : object
            What `describe_worker` returned there, or the exception that it raised.
        """
        if isinstance(answer, BaseException):
            return f"cannot run hesscape ({type(answer).__name__}: {answer})"
        mine = describe_worker(self.path)
        if not isinstance(answer, dict) or answer.keys() != mine.keys():
            return "runs another hesscape, which does not say its version"
        if answer["kernel version"] != mine["kernel version"]:
            expected, got = mine["kernel version"], answer["kernel version"]
            return f"expected the driver's kernel version {expected!r}, got {got!r}"
        others = [
            f"{name} {version}, got {answer['versions'].get(name)}"
            for name, version in mine["versions"].items()
            if answer["versions"].get(name) != version
        ]
        if others:
            return f"expected the driver's {'; '.join(others)}"
        if not answer["writable"]:
            return (
                f"expected to write in the driver's folder {os.path.dirname(self.path)!r}, cannot"  # noqa: PTH120  may be a URL
            )
        return ""
