"""What a store may have beside the cube: groups whose variables have axes of their own as well.

Each is opened alone, with the labels of the cube repeated in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.schema import HESSIAN, PLURALS, SchemaError, Variable, check_names, check_types

Labels = Mapping[str, Mapping[str, Sequence[float]]]
"""Labels of the own axes of each group that a store has: group → axis → labels."""

TRAJECTORY: Final = "trajectory"
SPECTRUM: Final = "spectrum"


@dataclass(frozen=True)
class Group:
    """A group beside the cube.

    Parameters
    ----------
    axes : tuple of Variable
        Rows of the labels of its own axes, which cannot grow.
    table : tuple of (name, axes, meaning)
        Its variables: the own axes that each has after those of the cube.
    """

    axes: tuple[Variable, ...]
    table: tuple[tuple[str, tuple[str, ...], str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its variables."""
        return tuple(name for name, _, _ in self.table)

    def variables(self, axes: tuple[str, ...]) -> tuple[Variable, ...]:
        """Rows of its variables in a cube with these axes."""
        return tuple(
            Variable(name, (*axes, *own), "float64", "1", meaning, float("nan"))
            for name, own, meaning in self.table
        )


def _axis(name: str, meaning: str) -> Variable:
    return Variable(name, (name,), "float64", "1", meaning, float("nan"))


GROUPS: Final[Mapping[str, Group]] = {
    TRAJECTORY: Group(
        (_axis("time", "time of the run in units of the flow"),),
        tuple(
            (name, ("time",), meaning)
            for name, meaning in (
                ("overlap", "overlap m = w.w*/N, with its sign"),
                ("loss", "loss per measurement"),
                ("multiplier", "spherical multiplier w.grad L/N"),
                *HESSIAN,
                ("bulk_edge", "left edge of the Hessian's bulk, predicted from the labels"),
                ("outlier", "outlier of the signal left of it, predicted; NaN where there is none"),
                ("loss_equator", "loss per measurement of the trajectory that is held at m = 0"),
                ("bulk_edge_equator", "bulk_edge of the trajectory that is held at m = 0"),
                ("outlier_equator", "outlier of the trajectory that is held at m = 0"),
                ("bbp_margin_equator", "margin at m = 0, above 0 where the outlier exists"),
                ("gain", "signal gain G(t): growth of a small overlap with the signal since t = 0"),
            )
        ),
    ),
    SPECTRUM: Group(
        (
            _axis("snapshot", "time of the run in units of the flow"),
            _axis("eigenvalue", "eigenvalue of the Hessian, centre of a bin"),
        ),
        (
            ("density", ("snapshot", "eigenvalue"), "density of the Hessian's eigenvalues"),
            ("density_error", ("snapshot", "eigenvalue"), "standard error of density, 0: exact"),
            ("below", ("snapshot",), "share of the Hessian's eigenvalues below the bins"),
            ("above", ("snapshot",), "share of the Hessian's eigenvalues above the bins"),
        ),
    ),
}
"""Groups by name. Values are NaN after the end of a run, and where the campaign asked for none."""


def check_group(
    name: str,
    arrays: Mapping[str, NDArray[np.generic]],
    shape: tuple[int, ...],
    lengths: Mapping[str, int],
    where: str,
) -> None:
    """Check what a kernel call returned for a group.

    Parameters
    ----------
    name : str
        Of the group.
    arrays : mapping of str to ndarray, [seeds, inits, (replicas,) own axes]
        All of its variables and nothing else.
    shape : tuple of int
        Shape of the results in the cube.
    lengths : mapping of str to int
        Length of each own axis.
    where : str
        What the message should begin with.

    Raises
    ------
    SchemaError
        If a name, shape or type is wrong.
    """
    group = GROUPS[name]
    check_names(arrays, group.names, f"variables of the group {name}", where)
    for row in group.variables(()):
        full = (*shape, *(lengths[dim] for dim in row.dims))
        axes = (*PLURALS[: len(shape)], *(f"{dim}s" for dim in row.dims))
        check_types(arrays, (row,), full, axes, where)


def check_groups(
    arrays: Mapping[str, Mapping[str, NDArray[np.generic]]],
    shape: tuple[int, ...],
    lengths: Mapping[str, Mapping[str, int]],
    where: str,
) -> None:
    """Check what a kernel call returned for all groups of a store, as `check_group`.

    Raises
    ------
    SchemaError
        Also if a group is missing, or one is there that the store has not.
    """
    if set(arrays) != set(lengths):
        raise SchemaError(
            f"{where}: expected numbers for the groups {list(lengths)!r} of the store, "
            f"got them for {list(arrays)!r}"
        )
    for name in arrays:
        check_group(name, arrays[name], shape, lengths[name], where)
