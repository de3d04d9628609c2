"""One table of what a store holds; template, checks and attributes derive from it.

The names are the contract between the kernel, which supplies them, and the store, which keeps them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTROLS = {
    "alpha": "signal-to-noise ratio M/N (measurements per dimension)",
    "snr": "signal-to-noise ratio 1/Delta_2 of the matrix channel",
}
"""Control parameters a cube can have, with their meaning. An axis bears the name."""

CONSTANTS = {
    "a": "parameter a of the loss",
    "delta_p": "variance Delta_p of the tensor channel's noise",
    "m0": "overlap m(0) of the starts `overlap` with the signal",
}
"""Constants of a model that can be axes of a cube too, before the control parameter; their meaning.
"""


class SchemaError(ValueError):
    """Names, shapes or types that are not those of the schema."""


class Status(IntEnum):
    """State of one run (one cell of the cube). Missing data means PENDING, never "NaN".

    UNASKED: the cube is a box, an adaptive campaign does not want all of its cells.
    """

    PENDING = 0
    DONE = 1
    FAILED = 2
    QUARANTINED = 3
    UNASKED = 4


@dataclass(frozen=True)
class Variable:
    """A row of the schema.

    Parameters
    ----------
    name : str
        Name in the store.
    dims : tuple of str
        Names of the axes, in order.
    dtype : str
        Zarr data type: ``int8``, ``int16``, ``int64``, ``float64`` or ``string``.
    units : str
        Unit; ``1`` for pure numbers and for times in units of the flow.
    long_name : str
        Meaning, for people and for axis labels.
    fill : float, int or str
        Value of a cell that nobody has written.
    flags : tuple of (int, str)
        Codes and their meanings, for variables that hold codes.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    fill: float | int | str
    flags: tuple[tuple[int, str], ...] = ()

    def attributes(self) -> dict[str, Any]:
        """Attributes after the CF conventions, ready for JSON."""
        attributes: dict[str, Any] = {"units": self.units, "long_name": self.long_name}
        if self.flags:
            attributes["flag_values"] = [code for code, _ in self.flags]
            attributes["flag_meanings"] = " ".join(meaning for _, meaning in self.flags)
        return attributes


def cube_axes(
    control: str, *, constants: tuple[str, ...] = (), replicas: bool = False
) -> tuple[str, ...]:
    """Names of the axes of the cube, in order.

    Parameters
    ----------
    control : str
        Name of the control parameter, one of `CONTROLS`.
    constants : tuple of str
        Constants of the model, of `CONSTANTS`, that are axes: the first ones.
    replicas : bool
        Whether the cube has an axis of replicas, the last one.

    Raises
    ------
    SchemaError
        If the control parameter or a constant is not known.
    """
    if control not in CONTROLS:
        known = ", ".join(CONTROLS)
        raise SchemaError(f"control parameter: expected one of {known}, got {control!r}")
    unknown = [name for name in constants if name not in CONSTANTS]
    if unknown:
        known = ", ".join(CONSTANTS)
        raise SchemaError(f"constants of the model: expected some of {known}, got {unknown!r}")
    return (*constants, control, "N", "seed", "init", *(("replica",) if replicas else ()))


def coordinate_variables(axes: tuple[str, ...]) -> tuple[Variable, ...]:
    """Rows of the labels of the axes, and of the number of measurements M(control, N).

    Parameters
    ----------
    axes : tuple of str
        Those of the cube, from `cube_axes`; so in the other tables.
    """
    real = CONSTANTS | CONTROLS
    rows = (
        *(
            Variable(name, (name,), "float64", "1", meaning, float("nan"))
            for name, meaning in real.items()
        ),
        Variable("N", ("N",), "int64", "1", "dimension", 0),
        Variable("seed", ("seed",), "int64", "1", "label of the instance's random stream", -1),
        Variable("init", ("init",), "string", "1", "initialisation", ""),
        Variable("replica", ("replica",), "int64", "1", "label of w(0) on one instance", -1),
        *(
            Variable("M", (control, "N"), "int64", "1", "number of measurements", 0)
            for control in CONTROLS
        ),
    )
    return tuple(row for row in rows if set(row.dims) <= set(axes))


_STATUS_FLAGS = tuple((int(code), code.name.lower()) for code in Status)
_RECOVERED_FLAGS = ((-1, "not_known"), (0, "not_recovered"), (1, "recovered"))
_INSTANCES_FLAGS = ((-1, "not_known"), (0, "dense"), (1, "conditional"))
HESSIAN = (
    ("lambda1", "lowest eigenvalue of the Hessian"),
    ("lambda2", "second lowest eigenvalue of the Hessian"),
    ("alignment", "(v1.w*)^2/N of the lowest eigenvector of the Hessian"),
    ("residual", "largest |H v - lambda v| of the two lowest eigenpairs (|v| = 1)"),
)


def cube_variables(axes: tuple[str, ...]) -> tuple[Variable, ...]:
    """Rows of the data variables of the cube; every one has all the axes."""

    def code(name: str, meaning: str, fill: int, flags: tuple[tuple[int, str], ...]) -> Variable:
        return Variable(name, axes, "int8", "1", meaning, fill, flags)

    def number(name: str, meaning: str, units: str = "1") -> Variable:
        return Variable(name, axes, "float64", units, meaning, float("nan"))

    return (
        code("status", "state of the run", int(Status.PENDING), _STATUS_FLAGS),
        code("recovered", "whether |m| reached 0.99 within T", -1, _RECOVERED_FLAGS),
        number("hit_time", "time of recovery in units of the flow, inf if never"),
        number("overlap", "final |m| = |w.w*|/N"),
        number("loss", "final loss per measurement"),
        number("multiplier", "final spherical multiplier w.grad L/N"),
        number("gradients", "gradient-equivalent passes over X used by the run from t = 0"),
        number("gradients_init", "gradient-equivalent passes over X used by the initialisation"),
        *(
            number(f"{name}_{moment}", f"{meaning} {when}")
            for moment, when in (("start", "at the start"), ("end", "at the end"))
            for name, meaning in HESSIAN
        ),
        Variable("revision", axes, "int16", "1", "place in the attribute revisions", -1),
        code("instances", "how the instance was drawn", -1, _INSTANCES_FLAGS),
        number("directions", "directions of R^N in which the block's runs asked for the instance"),
        number("seconds", "worker time of the block divided by its runs", "s"),
        number("time_end", "time of the end of the run in units of the flow"),
    )


LATER = ("time_end",)
"""Names in the cube that stores of earlier versions lack; they go on without them."""


OF_DRIVER = ("status", "revision")
"""Names in the cube that the driver writes, a file each."""

RESULTS = tuple(row.name for row in cube_variables(()) if row.name not in OF_DRIVER)
"""Names that every block supplies: the whole cube but what is the driver's."""

PLURALS = ("seeds", "inits", "replicas")  # axes of a block's results


def check_results(
    results: Mapping[str, NDArray[np.generic]], shape: tuple[int, ...], where: str
) -> None:
    """Check what a kernel call returned against the schema.

    Parameters
    ----------
    results : mapping of str to ndarray, [seeds, inits] or [seeds, inits, replicas]
        Must hold all of `RESULTS` and nothing else, of types that convert without loss.
    shape : tuple of int
        Number of seeds, of initialisations and, where the cube has that axis, of replicas.
    where : str
        What the message should begin with.

    Raises
    ------
    SchemaError
        If a name, shape or type is wrong.
    """
    check_names(results, RESULTS, "names of store.schema.RESULTS", where)
    check_types(results, cube_variables(()), shape, PLURALS[: len(shape)], where)


def check_names(
    arrays: Mapping[str, NDArray[np.generic]], names: tuple[str, ...], table: str, where: str
) -> None:
    """Raise a SchemaError if the names are not exactly those of a `table`."""
    missing = [name for name in names if name not in arrays]
    unknown = [name for name in arrays if name not in names]
    if missing or unknown:
        raise SchemaError(
            f"{where}: expected exactly the {table}; "
            f"missing {missing!r}, got beside them {unknown!r}"
        )


def check_types(
    arrays: Mapping[str, NDArray[np.generic]],
    rows: tuple[Variable, ...],
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    where: str,
) -> None:
    """Raise a SchemaError if the arrays are not of this shape and of the types of their rows."""
    for row in rows:
        values = arrays.get(row.name)
        if values is None:  # the driver's
            continue
        if values.shape != shape or not np.can_cast(values.dtype, row.dtype, "safe"):
            raise SchemaError(
                f"{where}: {row.name}: expected {row.dtype} of shape {shape} "
                f"[{', '.join(axes)}], got {values.dtype} of shape {values.shape}"
            )
