"""Runs in rows of arrays ↔ tables by seed, initialisation and replica."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import HostRows, namespace, take_rows
from pipeline.kernel.batch import Rows

Columns = TypeVar("Columns")
Values = TypeVar("Values", bound=np.generic)


def interleave(parts: Sequence[Columns], seeds: int) -> Columns:
    """Dataclass of arrays [seeds × replicas, …], one for each init → one [seeds × inits × …]."""
    merged: dict[str, Any] = {}
    for name in _names(parts[0]):
        columns = [getattr(part, name) for part in parts]
        xp, wide = namespace(columns[0]), columns[0].shape[1:]
        by_seed = [xp.reshape(column, (seeds, -1, *wide)) for column in columns]
        merged[name] = xp.reshape(xp.stack(by_seed, axis=1), (-1, *wide))
    return type(parts[0])(**merged)


def select(columns: Columns, rows: HostRows) -> Columns:
    """Those rows of every array of a dataclass of arrays."""
    return type(columns)(
        **{name: take_rows(getattr(columns, name), rows) for name in _names(columns)}
    )


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
