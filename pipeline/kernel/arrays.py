"""Arrays of any library of the array-API standard, and the few verbs that it lacks.

What is wide, N or M numbers for each trajectory, lives in the array library of the worker and on
its device: sensing matrices, points, gradients, stages, bases. What steers stays on the host in
small NumPy arrays: times, steps, outcomes, owners, rows to take. Random numbers are drawn on the
host and then moved, so that no instance depends on the library.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import (
    array_namespace,
    device,
    is_cupy_array,
    is_torch_array,
    to_device,
)
from numpy.typing import NDArray

Array: TypeAlias = Any
"""Real array of the kernel's working precision, in the worker's array library."""

HostRows: TypeAlias = NDArray[np.intp] | NDArray[np.bool_]

LIBRARIES = ("numpy", "torch", "cupy")


class ArrayLibraryError(ValueError):
    """The array library or the device that was asked for is not there."""


@dataclass(frozen=True)
class ArrayLibrary:
    """Where the kernel's arrays live; it changes no number beyond rounding.

    Parameters
    ----------
    namespace : module
        Of the array-API standard.
    device : object
        As the library knows it; None for its default.
    """

    namespace: Any
    device: Any = None

    @property
    def is_numpy(self) -> bool:
        """Whether arrays are NumPy's, in the memory and the caches of this core."""
        return self.namespace is np

    def array(self, host: NDArray[Any]) -> Array:
        """Array of the host, moved here; it is copied only if it must be."""
        return self.namespace.asarray(host, device=self.device)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Array to be filled."""
        xp = self.namespace
        return xp.empty(shape, dtype=getattr(xp, dtype.name), device=self.device)


NUMPY = ArrayLibrary(np)


def open_library(choice: str) -> ArrayLibrary:
    """Array library by the name that its users import and, after a colon, one of its devices.

    Such as ``numpy``, ``torch``, ``torch:cuda:1``, ``cupy``, ``cupy:1``.

    Raises
    ------
    ArrayLibraryError
        If hesscape knows no such library, it is not installed, or it has no such device.
    """
    name, _, device_name = choice.partition(":")
    if name not in LIBRARIES:
        raise ArrayLibraryError(
            f"array library: expected one of {', '.join(LIBRARIES)}, with a device after a colon "
            f"or without, got {choice!r}"
        )
    if name == "numpy":
        if device_name:
            raise ArrayLibraryError(
                f"array library: expected numpy without a device, got {choice!r}; "
                "choose another library to use an accelerator"
            )
        return NUMPY
    try:
        xp = import_module(f"array_api_compat.{name}")
    except ImportError as error:
        raise ArrayLibraryError(
            f"array library {name!r}: expected it on this machine, got {error}; "
            "install it, PyTorch for example with pip install 'hesscape[torch]'"
        ) from error
    try:
        place = device_name or None
        if name == "cupy" and place:
            place = import_module("cupy").cuda.Device(int(place))
        library = ArrayLibrary(xp, place)
        library.empty((1,), np.dtype(np.float32))
    except Exception as error:  # each library has its own for a device that is not there
        raise ArrayLibraryError(
            f"array library: expected a device of {name} that this machine has, got {choice!r}: "
            f"{error}"
        ) from error
    return library


def namespace(array: Array) -> Any:
    """Array-API namespace that an array belongs to."""
    return np if isinstance(array, np.ndarray) else array_namespace(array)


def precision(array: Array) -> float:
    """Distance from 1 to the next number of the array's type."""
    return float(namespace(array).finfo(array.dtype).eps)


def to_host(array: Array) -> NDArray[Any]:
    """As a NumPy array in the host's memory, of the same type."""
    if isinstance(array, np.ndarray):
        return array
    if is_torch_array(array) or is_cupy_array(array):
        array = to_device(array, "cpu")
    return np.asarray(array)


def on_device_of(array: Array, host: NDArray[Any]) -> Array:
    """Numbers from the host beside `array`: its library, device and type."""
    if isinstance(array, np.ndarray):
        return np.asarray(host, dtype=array.dtype)
    return namespace(array).asarray(host, dtype=array.dtype, device=device(array))


def take_rows(array: Array, rows: HostRows) -> Array:
    """Copy of the `rows` of an array, by number or as a mask."""
    if isinstance(array, np.ndarray):
        return array[rows]
    xp = namespace(array)
    numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    return xp.take(array, xp.asarray(numbers, device=device(array)), axis=0)


def put_rows(array: Array, rows: NDArray[np.intp], values: Array) -> None:
    """Overwrite the `rows` of an array, ascending, with those of `values`."""
    if isinstance(array, np.ndarray):
        array[rows] = values
    elif len(rows):
        mask = np.zeros(array.shape[0], dtype=bool)
        mask[rows] = True
        array[namespace(array).asarray(mask, device=device(array))] = values
