"""The cube of a store as xarray shows it, its labels sorted."""

import xarray as xr

from store.array_store import open_group
from store.place import StorePath, open_place
from store.schema import CONSTANTS, CONTROLS


def open_store(path: StorePath, group: str | None = None) -> xr.Dataset:
    """Labelled cube with sorted labels, or a group below it, read from disk as it is used.

    Raises as `read_grid`.
    """
    open_group(path)
    place = open_place(path, read_only=True)
    return sort_labels(xr.open_zarr(place, group=group, chunks=None, consolidated=True))


def sort_labels(dataset: xr.Dataset) -> xr.Dataset:
    """Sort the axes of numbers; initialisations keep their order."""
    unsorted = [
        dim
        for dim in (*CONSTANTS, *CONTROLS, "N", "seed")
        if dim in dataset.dims and not dataset.indexes[dim].is_monotonic_increasing
    ]
    return dataset.sortby(unsorted) if unsorted else dataset
