"""Runs in rows of arrays ↔ tables by seed, initialisation and replica."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.batch import Rows

Columns = TypeVar("Columns")
Values = TypeVar("Values", bound=np.generic)


def interleave(parts: Sequence[Columns], seeds: int) -> Columns:
    """Dataclass of arrays [seeds × replicas, …], one for each init → one [seeds × inits × …]."""
    merged: dict[str, Any] = {}
    for name in _names(parts[0]):
        columns = [getattr(part, name) for part in parts]
        by_seed = [column.reshape(seeds, -1, *column.shape[1:]) for column in columns]
        merged[name] = np.stack(by_seed, axis=1).reshape(-1, *columns[0].shape[1:])
    return type(parts[0])(**merged)


def take_rows(columns: Columns, rows: Rows | NDArray[np.bool_]) -> Columns:
    """Those rows of every array of a dataclass of arrays."""
    return type(columns)(**{name: getattr(columns, name)[rows] for name in _names(columns)})


def spread(column: NDArray[Values], rows: Rows, shape: tuple[int, ...]) -> NDArray[Values]:
    """The column [rows, …] at `rows` of a table of `shape`; elsewhere NaN, or -1 for integers."""
    missing = -1 if column.dtype.kind == "i" else np.nan
    table = np.full((np.prod(shape), *column.shape[1:]), missing, dtype=column.dtype)
    table[rows] = column
    return table.reshape(*shape, *column.shape[1:])


def concatenate(parts: Sequence[Mapping[str, NDArray[Values]]]) -> dict[str, NDArray[Values]]:
    """Tables of consecutive seeds → one, by name."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _names(columns: Any) -> list[str]:
    return [field.name for field in fields(columns)]
