"""One block of a store again, in the foreground: to see why it fails, or that its numbers hold."""

import pdb  # noqa: T100  it is what is asked for
import sys
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from pipeline.campaign import parse_campaign
from pipeline.cluster import limit_blas_threads
from pipeline.work import Computed, Recipe, compute_block
from store.array_store import get_array, open_group, read_attributes, read_block_seeds, read_grid
from store.chunks import locate_block
from store.keys import Block, BlockKeyError, parse_block
from store.ledger import read_status
from store.place import StorePath, show_path
from store.schema import RESULTS, Status


@dataclass(frozen=True)
class Reproduced:
    """What came out of a block that was run again.

    Parameters
    ----------
    block : Block
    seconds : float
    failures : tuple of (run, reason)
        Runs that failed numerically.
    compared : int
        Runs of it that the store has.
    differences : tuple of str
        A line for each variable that is not the same there, bit by bit.
    """

    block: Block
    seconds: float
    failures: tuple[tuple[str, str], ...]
    compared: int
    differences: tuple[str, ...]


def reproduce_block(path: StorePath, key: str, *, debugger: bool = False) -> Reproduced:
    """Run a block here, as a worker would, and compare; nothing is written.

    Parameters
    ----------
    path : str or PathLike
        Store, whose campaign says what the labels mean.
    key : str
        Key of the block, as `hesscape status` prints it; any block of the store's labels.
    debugger : bool
        Whether to start it in pdb, which also stops where it raises.

    Raises
    ------
    store.keys.BlockKeyError
        If the key is none, or of labels that the store does not have.
    Exception
        What the block raises.
    """
    block = parse_block(key)
    campaign = parse_campaign(read_attributes(path)["campaign"], source=show_path(path))
    recipe = Recipe.of(campaign)
    try:
        place = locate_block(read_grid(path), block, read_block_seeds(path))
    except ValueError as error:
        raise BlockKeyError(f"{show_path(path)}: block {key!r}: {error}") from None
    limit_blas_threads()
    begun = perf_counter()
    computed = _debug(recipe, block) if debugger else compute_block(recipe, block)
    seconds = perf_counter() - begun
    region, seeds, inits = place
    cells = np.ix_(seeds, inits)
    status = read_status(path)[region][cells]
    known = np.isin(status, (Status.DONE, Status.FAILED))
    group = open_group(path)
    mine = {name: computed.values[name] for name in RESULTS if name != "seconds" and name in group}
    for beside, numbers in computed.groups.items():
        mine |= {f"{beside}/{name}": array for name, array in numbers.items()}
    differences = []
    for name, array in mine.items():
        stored = np.asarray(get_array(group, name)[region])[cells]
        line = _compare(name, array[known].astype(stored.dtype), stored[known])
        differences += [line] if line else []
    return Reproduced(block, seconds, computed.failures, int(known.sum()), tuple(differences))


def _compare(name: str, mine: NDArray[np.generic], stored: NDArray[np.generic]) -> str:
    same = mine == stored
    if mine.dtype.kind == "f":
        same |= np.isnan(mine) & np.isnan(stored)
    if same.all():
        return ""
    first = np.flatnonzero(~same.ravel())[0]
    return (
        f"{name}: {int((~same).sum())} of {same.size} numbers, "
        f"such as {mine.ravel()[first]} here, {stored.ravel()[first]} in the store"
    )


def _debug(recipe: Recipe, block: Block) -> Computed:
    """Start the block in pdb; where it raises, look at the place, then raise."""
    try:
        computed = pdb.Pdb().runcall(compute_block, recipe, block)
    except Exception:
        pdb.post_mortem(sys.exc_info()[2])
        raise
    assert computed is not None
    return computed
