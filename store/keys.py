"""Labels of cells and blocks, and the random streams that follow from them.

A cell of the cube is known by its labels. Its place on disk depends on the order in which labels
were appended (see `store.chunks`); its random stream depends on the labels alone, so that a grid
can grow on every axis and any block can be computed again anywhere.
"""

import math
import re
import reprlib
import zlib
from dataclasses import dataclass
from typing import cast

import numpy as np

from store.schema import cube_axes

Labels = tuple[float, ...] | tuple[int, ...] | tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """Labels of the axes of a cube, in the order in which they were added.

    Parameters
    ----------
    control : str
        Name of the control parameter, ``alpha`` or ``snr``.
    values : tuple of float
        Labels of the control parameter.
    N : tuple of int
        Dimensions.
    seeds : tuple of int
        Labels of the instances.
    inits : tuple of str
        Initialisations.
    replicas : int, optional
        Length of the axis of replicas, labelled 0, 1, …; a cube without it has no such axis. Unlike
        the others it cannot grow.
    constants : tuple of (str, tuple of float)
        Constants of the model that are axes, each with its labels; by default none is.

    Raises
    ------
    ValueError
        If an axis is empty or has a label twice, or a value of a constant or of the control
        parameter is not finite.
    """

    control: str
    values: tuple[float, ...]
    N: tuple[int, ...]
    seeds: tuple[int, ...]
    inits: tuple[str, ...]
    replicas: int | None = None
    constants: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def __post_init__(self) -> None:
        for dim, labels in self.axes().items():
            if not labels:
                raise ValueError(f"axis {dim}: expected at least one label, got none")
            if len(set(labels)) < len(labels):
                raise ValueError(
                    f"axis {dim}: expected each label once, got {reprlib.repr(labels)}"
                )
        for dim, values in (*self.constants, (self.control, self.values)):
            if not all(map(math.isfinite, values)):
                raise ValueError(f"axis {dim}: expected finite labels, got {reprlib.repr(values)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of labels of each axis."""
        return tuple(map(len, self.axes().values()))

    def axes(self) -> dict[str, Labels]:
        """Labels of each axis by its name, in the order of the axes."""
        labels: list[Labels] = [values for _, values in self.constants]
        labels += [self.values, self.N, self.seeds, self.inits]
        if self.replicas is not None:
            labels.append(tuple(range(self.replicas)))
        names = cube_axes(
            self.control,
            constants=tuple(name for name, _ in self.constants),
            replicas=self.replicas is not None,
        )
        return dict(zip(names, labels, strict=True))

    def union(self, other: "Grid") -> "Grid":
        """Grid with the labels of both: those of `self` first, new ones appended.

        Nothing that is stored moves when a store grows from `self` to the union.

        Raises
        ------
        ValueError
            If the control parameters, the constants that are axes, or the numbers of replicas
            differ.
        """
        self._check_kind(other)
        added = dict(other.constants)
        return Grid(
            self.control,
            tuple(dict.fromkeys(self.values + other.values)),
            tuple(dict.fromkeys(self.N + other.N)),
            tuple(dict.fromkeys(self.seeds + other.seeds)),
            tuple(dict.fromkeys(self.inits + other.inits)),
            self.replicas,
            tuple(
                (name, tuple(dict.fromkeys(values + added[name])))
                for name, values in self.constants
            ),
        )

    def missing_from(self, other: "Grid") -> dict[str, Labels]:
        """Labels of `self` that `other` lacks, by axis; empty if `other` covers `self`.

        Raises
        ------
        ValueError
            As `union`.
        """
        self._check_kind(other)
        known = other.axes()
        missing: dict[str, Labels] = {}
        for dim, labels in self.axes().items():
            lacking = set(labels) - set(known[dim])
            if lacking:
                missing[dim] = cast("Labels", tuple(x for x in labels if x in lacking))
        return missing

    def find(self, wanted: "Grid") -> tuple[list[int], ...]:
        """Positions of the labels of `wanted` on each axis of `self`.

        Raises
        ------
        ValueError
            As `union`, or if a label is not in `self`.
        """
        missing = wanted.missing_from(self)
        if missing:
            raise ValueError(
                f"expected labels that the store has, got {reprlib.repr(missing)} beside them; "
                "grow the store before using new labels"
            )
        found = []
        for labels, sought in zip(self.axes().values(), wanted.axes().values(), strict=True):
            places: dict[object, int] = {label: place for place, label in enumerate(labels)}
            found.append([places[label] for label in sought])
        return tuple(found)

    def _check_kind(self, other: "Grid") -> None:
        if other.control != self.control:
            raise ValueError(
                f"control parameter: expected {self.control!r} in both grids, got {other.control!r}"
            )
        mine, others = ([name for name, _ in grid.constants] for grid in (self, other))
        if mine != others:
            raise ValueError(
                f"constants of the model that are axes: expected {mine!r} in both grids, got "
                f"{others!r}; which they are is fixed when a store is created"
            )
        if other.replicas != self.replicas:
            raise ValueError(
                f"axis replica: expected {_count_replicas(self.replicas)} in both grids, got "
                f"{_count_replicas(other.replicas)}; replicas are fixed when a store is created"
            )


class BlockKeyError(ValueError):
    """A text that is no key of a block."""


@dataclass(frozen=True)
class Block:
    """Cells that one kernel call computes; always inside one chunk of the store.

    Parameters
    ----------
    control : str
        Name of the control parameter, ``alpha`` or ``snr``.
    value : float
        Label of the control parameter.
    N : int
        Dimension.
    seeds : tuple of int
        Labels of the instances.
    inits : tuple of str
        Initialisations; all of them start from the same instances.
    replicas : int, optional
        Length of the axis of replicas, where the cube has one: a block has all replicas of its
        seeds and inits.
    constants : tuple of (str, float)
        The label of each constant of the model that is an axis.
    """

    control: str
    value: float
    N: int
    seeds: tuple[int, ...]
    inits: tuple[str, ...]
    replicas: int | None = None
    constants: tuple[tuple[str, float], ...] = ()

    @property
    def grid(self) -> Grid:
        """The block's cells as a grid of its own."""
        return Grid(
            self.control,
            (self.value,),
            (self.N,),
            self.seeds,
            self.inits,
            self.replicas,
            tuple((name, (value,)) for name, value in self.constants),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the results: [seeds, inits], or [seeds, inits, replicas] with that axis."""
        shape = (len(self.seeds), len(self.inits))
        return shape if self.replicas is None else (*shape, self.replicas)

    @property
    def runs(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)

    @property
    def key(self) -> str:
        """Stable, readable name, such as ``alpha=2.5,N=128,seeds=16-31,inits=random+spectral``."""
        values = "".join(
            f"{name}={float(value)!r},"
            for name, value in (*self.constants, (self.control, self.value))
        )
        replicas = "" if self.replicas is None else f",replicas={self.replicas}"
        return (
            f"{values}N={self.N},"
            f"seeds={_join_ranges(self.seeds)},inits={'+'.join(self.inits)}{replicas}"
        )


def parse_block(key: str) -> Block:
    """The block of a key, as `Block.key` writes it.

    Raises
    ------
    BlockKeyError
        If it is no such key.
    """
    pattern = (
        r"(?P<values>(?:\w+=[-+.\de]+,)+)N=(?P<N>\d+),seeds=(?P<seeds>\d[-+\d]*)"
        r",inits=(?P<inits>\w+(?:\+\w+)*)(?:,replicas=(?P<replicas>\d+))?"
    )
    match = re.fullmatch(pattern, key.strip())
    fields = match.groupdict() if match else {}
    try:
        pairs = (pair.split("=") for pair in fields["values"].split(",")[:-1])
        *constants, (control, value) = ((name, float(label)) for name, label in pairs)
        block = Block(
            control,
            value,
            int(fields["N"]),
            tuple(seed for part in fields["seeds"].split("+") for seed in _read_range(part)),
            tuple(fields["inits"].split("+")),
            None if fields["replicas"] is None else int(fields["replicas"]),
            tuple(constants),
        )
        _ = block.grid  # or it raises
    except (KeyError, ValueError):
        raise BlockKeyError(
            f"block: expected a key such as 'alpha=2.5,N=128,seeds=16-31,inits=random+spectral', "
            f"as `hesscape status` prints it, got {key!r}"
        ) from None
    return block


def _read_range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def instance_stream(entropy: int, model: str, N: int, M: int, seed: int) -> np.random.SeedSequence:
    """Random stream of one instance, a function of its labels only.

    Consumers append to ``spawn_key`` to derive the streams of the matrix, the signal and w(0).

    Parameters
    ----------
    entropy : int
        Entropy of the campaign, from 0 to 2**128 - 1.
    model : str
        Name of the model.
    N, M, seed : int
        Dimension, number of measurements and label of the instance, each from 0 to 2**32 - 1.

    Raises
    ------
    ValueError
        If a number is outside its range: there, two sets of labels could share a stream.
    """
    limits = {"entropy": (entropy, 128), "N": (N, 32), "M": (M, 32), "seed": (seed, 32)}
    for name, (number, bits) in limits.items():
        if not 0 <= number < 2**bits:
            raise ValueError(f"{name}: expected 0 to 2**{bits} - 1, got {number!r}")
    spawn_key = (zlib.crc32(model.encode()), int(N), int(M), int(seed))
    return np.random.SeedSequence(int(entropy), spawn_key=spawn_key)


def _join_ranges(seeds: tuple[int, ...]) -> str:
    """Write seeds as runs: (0, 1, 2, 7) becomes ``0-2+7``."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return "+".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _count_replicas(replicas: int | None) -> str:
    return "no replicas" if replicas is None else f"{replicas} replicas"
