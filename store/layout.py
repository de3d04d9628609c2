"""Which arrays a store has, how long and how they are cut: what follows from its labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from store.chunks import chunk_shape
from store.groups import GROUPS, Labels
from store.keys import Grid
from store.schema import OF_DRIVER, Variable, coordinate_variables, cube_variables

# least chunk of what the driver writes, but for replicas: one file until a campaign is large
_ROOM: Final = {"N": 8, "seed": 256, "init": 4}
_ROOM_OF_VALUES: Final = 16


@dataclass(frozen=True)
class Layout:
    """The arrays of a store.

    Parameters
    ----------
    grid : Grid
        Labels of the axes.
    block_seeds : int
        Seeds in a chunk.
    groups : mapping
        Labels of the own axes of each group beside the cube.
    lacking : tuple of str
        Names of `schema.LATER` that the store, of an earlier version, does not have.
    """

    grid: Grid
    block_seeds: int
    groups: Labels
    lacking: tuple[str, ...] = ()

    @property
    def _own(self) -> dict[str, Sequence[float]]:
        return {dim: labels for axes in self.groups.values() for dim, labels in axes.items()}

    def arrays(self) -> dict[str, Variable]:
        """Row of the schema of each array, by its path below the root."""
        axes = tuple(self.grid.axes())
        labels, cube = coordinate_variables(axes), cube_variables(axes)
        arrays = {row.name: row for row in (*labels, *cube) if row.name not in self.lacking}
        for name in self.groups:
            group = GROUPS[name]
            rows = (*labels, *group.axes, *group.variables(axes))
            arrays |= {f"{name}/{row.name}": row for row in rows}
        return arrays

    def shape(self, row: Variable) -> tuple[int, ...]:
        """Shape of an array."""
        lengths = dict(zip(self.grid.axes(), self.grid.shape, strict=True))
        lengths |= {dim: len(labels) for dim, labels in self._own.items()}
        return tuple(lengths[dim] for dim in row.dims)

    def chunks(self, row: Variable) -> tuple[int, ...]:
        """Chunk of an array: that of a block where workers write, else as few as can be.

        Axes that cannot grow are never cut.
        """
        if self.in_cube(row) and row.name not in OF_DRIVER:
            along = chunk_shape(self.grid, self.block_seeds)
            sizes = dict(zip(self.grid.axes(), along, strict=True))
        else:
            sizes = {
                dim: _round_up(len(labels), _ROOM.get(dim, _ROOM_OF_VALUES))
                for dim, labels in self.grid.axes().items()
            }
            sizes["replica"] = self.grid.replicas or 1
        sizes |= {dim: len(labels) for dim, labels in self._own.items()}
        return tuple(sizes[dim] for dim in row.dims)

    def in_cube(self, row: Variable) -> bool:
        """Whether an array has a number, or several, for each run."""
        return set(self.grid.axes()) <= set(row.dims)

    def labels(self, measurements: NDArray[np.integer[Any]]) -> dict[str, object]:
        """Values of the coordinates by their path; `measurements` [values, N] is one of them."""
        known = {**self.grid.axes(), "M": measurements, **self._own}
        return {path: known[row.name] for path, row in self.arrays().items() if row.name in known}


def _round_up(length: int, least: int) -> int:
    """Power of two that is at least `length` and `least`."""
    return max(least, 1 << (length - 1).bit_length())
