"""What a store holds, as its figures see it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from pipeline.outcomes import split_constants
from pipeline.reductions import reduce_store
from store.array_store import open_group, read_attributes
from store.cube import open_store
from store.groups import SPECTRUM, TRAJECTORY
from store.place import StorePath
from store.reduced import read_reduced
from store.schema import Status


@dataclass(frozen=True)
class Results:
    """The datasets of a store and what they were computed from; read from disk as they are used.

    Parameters
    ----------
    cube : Dataset
        Root group: a number for each run.
    reduced : Dataset
        From `pipeline.reductions.reduce_store`.
    physics : mapping
        What decides the numbers, by dotted key of the campaign.
    trajectory : Dataset, optional
        What is known along the runs, where the campaign asked for times.
    spectrum : Dataset, optional
        Densities of the Hessian's eigenvalues, where the campaign asked for them.
    """

    cube: xr.Dataset
    reduced: xr.Dataset
    physics: Mapping[str, Any]
    trajectory: xr.Dataset | None = None
    spectrum: xr.Dataset | None = None

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.physics.get("model", ""))

    @property
    def a(self) -> float | None:
        """Parameter of the loss, where there is one; None where it is an axis."""
        a = self.physics.get("parameters.a")
        return float(a) if isinstance(a, int | float) else None

    def split(self) -> Iterator[tuple[dict[str, float], "Results"]]:
        """Values of the constants of the model that are axes, and the results of these values."""
        for constants, cube in split_constants(self.cube):
            along, spectrum = self.trajectory, self.spectrum
            yield (
                constants,
                replace(
                    self,
                    cube=cube,
                    reduced=self.reduced.sel(constants, drop=True),
                    physics={
                        **self.physics,
                        **{f"parameters.{k}": x for k, x in constants.items()},
                    },
                    trajectory=along and along.sel(constants, drop=True),
                    spectrum=spectrum and spectrum.sel(constants, drop=True),
                ),
            )

    def begun(self) -> "Results":
        """Of the sizes of which a run has ended: a campaign may have reached the small ones only.

        All sizes where none has.
        """
        ended = self.reduced["runs"] + self.reduced["failed"] > 0
        there = ended.any([dim for dim in ended.dims if dim != "N"])
        if there.all() or not there.any():
            return self
        sizes = there["N"].to_numpy()[there.to_numpy()]
        along, spectrum = self.trajectory, self.spectrum
        return replace(
            self,
            cube=self.cube.sel(N=sizes),
            reduced=self.reduced.sel(N=sizes),
            trajectory=along and along.sel(N=sizes),
            spectrum=spectrum and spectrum.sel(N=sizes),
        )

    def finished(self, dataset: xr.Dataset) -> xr.Dataset:
        """A dataset with the axes of the cube, NaN where a run did not end with a known outcome."""
        return dataset.where(self.cube["status"] == Status.DONE)


def read_results(path: StorePath, reduced: xr.Dataset | None = None) -> Results:
    """Open a store, with its reductions or, where it has none yet, new ones.

    Parameters
    ----------
    path : str or PathLike
    reduced : Dataset, optional
        Reductions of this store, if they are at hand.

    Raises
    ------
    FileNotFoundError, SchemaError
        If there is no store.
    """
    cube = open_store(path)
    if reduced is None:
        try:
            reduced = read_reduced(path)
        except FileNotFoundError:
            reduced = reduce_store(path)
    there = open_group(path)
    return Results(
        cube,
        reduced,
        read_attributes(path).get("physics", {}),
        trajectory=open_store(path, TRAJECTORY) if TRAJECTORY in there else None,
        spectrum=open_store(path, SPECTRUM) if SPECTRUM in there else None,
    )
