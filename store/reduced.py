"""The group ``reduced``: what was computed from the cube, beside it."""

import reprlib

import numpy as np
import xarray as xr

from store.array_store import COMPRESSORS, open_group, read_grid
from store.cube import sort_labels
from store.place import StorePath, open_place, show_path, writing
from store.published import publish_nodes


def write_reduced(path: StorePath, dataset: xr.Dataset) -> None:
    """Replace the group ``reduced``; readers see the old one, none, then the new one.

    Parameters
    ----------
    path : str or PathLike
        Store that the reductions were computed from.
    dataset : xarray.Dataset
        Reductions, in any order of labels; axes that the cube also has bear all its labels, which
        `xarray.open_datatree` wants. For the driver only.

    Raises
    ------
    ValueError
        If an axis shared with the cube has other labels than the cube.
    """
    place = open_place(path)
    aligned = dataset.drop_encoding()
    for dim, labels in read_grid(path).axes().items():
        if dim not in dataset.dims:
            continue
        reduced = dataset[dim].values.tolist()
        if set(reduced) != set(labels):
            raise ValueError(
                f"reduced, axis {dim}: expected the labels of the store {reprlib.repr(labels)}, "
                f"got {reprlib.repr(reduced)}; reduce the whole store"
            )
        aligned = aligned.sel({dim: list(labels)})
    for name, variable in list(aligned.variables.items()):
        if variable.dtype.kind in "OU":  # Zarr has one stable type of text
            aligned[name] = variable.astype(np.dtypes.StringDType())
    names = [str(name) for name in aligned.variables]
    with writing(path):
        publish_nodes(place, (), withdraw="reduced")
        aligned.to_zarr(
            place,
            group="reduced",
            mode="w",
            consolidated=False,
            zarr_format=3,
            encoding={name: {"compressors": COMPRESSORS} for name in names},
        )
        publish_nodes(place, names, group="reduced")
        publish_nodes(place, ["reduced", *(f"reduced/{name}" for name in names)])


def read_reduced(path: StorePath) -> xr.Dataset:
    """Reductions of a store in memory, with sorted labels; otherwise raises as `read_grid`.

    Raises
    ------
    FileNotFoundError
        If nothing was reduced yet, or the store has grown since.
    """
    if "reduced" not in open_group(path):
        raise FileNotFoundError(
            f"{show_path(path)}: expected reductions, got a store without; run `hesscape reduce`"
        )
    place = open_place(path, read_only=True)
    reduced = xr.open_zarr(place, group="reduced", chunks=None, consolidated=True)
    return sort_labels(reduced).load()
