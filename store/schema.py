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
"""Control parameters a cube can have, with their meaning. The first axis bears the name."""


class SchemaError(ValueError):
    """Names, shapes or types that are not those of the schema."""


class Status(IntEnum):
    """State of one run (one cell of the cube). Missing data means PENDING, never "NaN"."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    QUARANTINED = 3


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
        Zarr data type: ``int8``, ``int64``, ``float64`` or ``string``.
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


def cube_axes(control: str) -> tuple[str, str, str, str]:
    """Names of the four axes of the cube, in order.

    Parameters
    ----------
    control : str
        Name of the control parameter, one of `CONTROLS`.

    Raises
    ------
    SchemaError
        If the control parameter is not known.
    """
    if control not in CONTROLS:
        known = ", ".join(CONTROLS)
        raise SchemaError(f"control parameter: expected one of {known}, got {control!r}")
    return (control, "N", "seed", "init")


def coordinate_variables(control: str) -> tuple[Variable, ...]:
    """Rows of the labels of the axes, and of the number of measurements M(control, N)."""
    axes = cube_axes(control)
    return (
        Variable(control, (control,), "float64", "1", CONTROLS[control], float("nan")),
        Variable("N", ("N",), "int64", "1", "dimension", 0),
        Variable("seed", ("seed",), "int64", "1", "label of the instance's random stream", -1),
        Variable("init", ("init",), "string", "1", "initialisation", ""),
        Variable("M", axes[:2], "int64", "1", "number of measurements", 0),
    )


_STATUS_FLAGS = tuple((int(code), code.name.lower()) for code in Status)
_RECOVERED_FLAGS = ((-1, "not_known"), (0, "not_recovered"), (1, "recovered"))
_INSTANCES_FLAGS = ((-1, "not_known"), (0, "dense"), (1, "conditional"))


def cube_variables(control: str) -> tuple[Variable, ...]:
    """Rows of the data variables of the cube; every one has all four axes."""
    axes = cube_axes(control)

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
            for name, meaning in (
                ("lambda1", "lowest eigenvalue of the Hessian"),
                ("lambda2", "second lowest eigenvalue of the Hessian"),
                ("alignment", "(v1.w*)^2/N of the lowest eigenvector of the Hessian"),
                ("residual", "largest |H v - lambda v| of the two lowest eigenpairs (|v| = 1)"),
            )
        ),
        code("instances", "how the instance was drawn", -1, _INSTANCES_FLAGS),
        number("seconds", "worker time of the block divided by its runs", "s"),
    )


RESULTS = tuple(row.name for row in cube_variables("alpha") if row.name != "status")
"""Names that every block supplies: the whole cube but `status`, which is the driver's."""


def check_results(
    results: Mapping[str, NDArray[np.generic]], shape: tuple[int, int], where: str
) -> None:
    """Check what a kernel call returned against the schema.

    Parameters
    ----------
    results : mapping of str to ndarray, [seeds, inits]
        Must hold all of `RESULTS` and nothing else, of types that convert without loss.
    shape : tuple of int
        Number of seeds and of initialisations.
    where : str
        What the message should begin with.

    Raises
    ------
    SchemaError
        If a name, shape or type is wrong.
    """
    missing = [name for name in RESULTS if name not in results]
    unknown = [name for name in results if name not in RESULTS]
    if missing or unknown:
        raise SchemaError(
            f"{where}: expected exactly the names of store.schema.RESULTS; "
            f"missing {missing!r}, got beside them {unknown!r}"
        )
    for row in cube_variables("alpha"):
        if row.name not in RESULTS:
            continue
        values = results[row.name]
        if values.shape != shape or not np.can_cast(values.dtype, row.dtype, "safe"):
            raise SchemaError(
                f"{where}: {row.name}: expected {row.dtype} of shape {shape} [seeds, inits], "
                f"got {values.dtype} of shape {values.shape}"
            )
