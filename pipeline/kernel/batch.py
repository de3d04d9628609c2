"""Trajectories in a batch: which instance owns which rows."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array, namespace

Rows = NDArray[np.intp]
"""The instance of each trajectory in a batch; rows of one instance are adjacent."""


def owned_rows(owner: Rows) -> Iterator[tuple[int, slice]]:
    """Instance and its slice of adjacent rows, for each instance that still has any.

    Parameters
    ----------
    owner : int array [trajectories]
        Instance of each row, sorted.
    """
    cuts = np.flatnonzero(np.diff(owner)) + 1
    bounds = [0, *cuts.tolist(), len(owner)]
    for start, stop in pairwise(bounds):
        if stop > start:
            yield int(owner[start]), slice(start, stop)


def off_signal(w: Array, signal: Array) -> Array:
    """Rows of `w` [trajectories, N] without their component along w* [trajectories, N].

    Or along other points of the sphere, in whose tangent spaces they then lie.
    """
    along = namespace(w).vecdot(w, signal) / signal.shape[-1]
    return w - along[:, None] * signal


def on_sphere(w: Array) -> Array:
    """Rows of `w` [trajectories, N] scaled to |w|² = N."""
    xp = namespace(w)
    norm = xp.sqrt(xp.vecdot(w, w) / w.shape[-1])
    return w / norm[:, None]
