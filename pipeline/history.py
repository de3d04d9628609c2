"""What blocks have cost: the seconds that a store has recorded, to correct a prediction."""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from pipeline.campaign import Campaign
from pipeline.campaign_axes import measurements_of
from pipeline.cost import CostModel
from store.array_store import get_array, open_group, read_block_seeds, read_grid, reading
from store.chunks import locate_block, pending_blocks
from store.keys import Block
from store.ledger import read_status
from store.place import StorePath
from store.schema import Status

_MOST_CHUNKS = 200  # that are read: a large store has tens of thousands
_LEAST_SECONDS = 0.02  # of a block: shorter ones are the start of a worker rather than their work


def correct_cost(campaign: Campaign, path: StorePath, cost: CostModel) -> CostModel:
    """A model of the cost, corrected by what blocks of the store took, wherever they ran.

    Where the store has none, as it was.

    Parameters
    ----------
    campaign : Campaign
        That the model is of; the store has its physics.
    path : str or PathLike
        A store.
    cost : CostModel
    """
    inits = len(campaign.grid.inits)
    measured: dict[tuple[float, int], list[float]] = defaultdict(list)
    for block, seconds in _read_history(path):
        if block.N not in cost.elements_per_second or seconds <= _LEAST_SECONDS:
            continue
        measurements = measurements_of(campaign.model, block.value, block.N)
        predicted = replace(cost, corrections={}).block_seconds(block, measurements, inits)
        measured[block.value, block.N].append(seconds / predicted)
    corrections = {place: float(np.mean(ratios)) for place, ratios in measured.items()}
    return replace(cost, corrections=corrections)


def _read_history(path: StorePath) -> list[tuple[Block, float]]:
    """Blocks that are done, a sample of them, and the seconds of each."""
    grid, block_seeds = read_grid(path), read_block_seeds(path)
    # the blocks that would be pending if what is done were not
    done = np.where(read_status(path) == Status.DONE, Status.PENDING, Status.DONE)
    blocks = [block for chunk in pending_blocks(grid, grid, done, block_seeds) for block in chunk]
    step = max(1, len(blocks) // _MOST_CHUNKS)
    array = get_array(open_group(path), "seconds")
    found = []
    with reading(path):
        for block in blocks[::step]:
            region, seeds, inits = locate_block(grid, block, block_seeds)
            seconds = np.asarray(array[region])[np.ix_(seeds, inits)]
            found.append((block, float(np.sum(seconds))))
    return found
