"""Which array library a worker computes with.

A resource, like the number of workers: it is in Dask's configuration of the worker and never in a
campaign. An embedded cluster inherits that of the driver.
"""

from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module

import dask

from pipeline.kernel.arrays import ArrayLibrary, open_library

KEY = "hesscape.arrays"
"""Of Dask's configuration: ``numpy``, ``torch``, ``torch:cuda:1``, ``cupy`` …"""


def worker_arrays() -> ArrayLibrary:
    """Array library of this worker.

    Raises
    ------
    ArrayLibraryError
        If it is not there.
    """
    return _open(dask.config.get(KEY, "numpy"))


def choose_arrays(choice: str | None) -> AbstractContextManager[object]:
    """Choose for the workers started in this context; None leaves Dask's configuration as it is."""
    settings: AbstractContextManager[object] = dask.config.set({KEY: choice} if choice else {})
    return settings


@cache
def _open(choice: str) -> ArrayLibrary:
    library = open_library(choice)
    if choice.startswith("torch"):
        import_module("torch").set_num_threads(1)  # on the CPU a worker has one core
    return library
