"""What a campaign will cost, as well as can be known: from its store, else from some seeds."""

import math
import time
from dataclasses import replace

import numpy as np

from pipeline.campaign import Campaign
from pipeline.campaign_axes import measurements_of
from pipeline.cluster import limit_blas_threads
from pipeline.cost import CostModel, calibrated_cost
from pipeline.history import correct_cost
from pipeline.plan import choose_block_seeds
from pipeline.work import Recipe, compute_block
from store.keys import Block
from store.place import StorePath, is_there

_SEEDS = 4  # computed together; one alone beside them tells what all of a block share
_LONGEST_TRIAL = 2.0  # seconds of a size
_MOST_SECONDS = 4.0  # of all sizes
_LEAST_SECONDS = 10.0  # of a campaign: a shorter one has ended before its prediction matters


def predict_cost(campaign: Campaign, path: StorePath) -> CostModel:
    """A model of the cost: calibrated, then corrected by what blocks have taken.

    By those of the store where it has some of a size, else by some seeds that are computed here and
    thrown away. Sizes too large for that take the correction of the nearest one.

    Parameters
    ----------
    campaign : Campaign
    path : str or PathLike
        Its store, which need not exist.
    """
    cost = calibrated_cost(campaign)
    if is_there(path):
        cost = correct_cost(campaign, path, cost)
    return try_seeds(campaign, cost)


def try_seeds(campaign: Campaign, cost: CostModel) -> CostModel:
    """A model of the cost, corrected at small sizes that it has no corrections of, in some seconds.

    A trial that raises ends the trials: the sweep tells which block it is, and why.
    """
    grid = campaign.grid_labels()
    value = sorted(grid.values)[len(grid.values) // 2]
    first = tuple((name, labels[0]) for name, labels in grid.constants)
    untried = sorted(set(grid.N) - {N for _, N in cost.corrections})
    blocks = [
        Block(grid.control, value, N, grid.seeds, grid.inits, grid.replicas, first) for N in untried
    ]
    alike = len(grid.values) * math.prod(len(labels) for _, labels in grid.constants)
    if alike * sum(_predict(campaign, cost, block) for block in blocks) < _LEAST_SECONDS:
        return cost
    began = time.perf_counter()
    together = min(choose_block_seeds(campaign), len(grid.seeds))
    with limit_blas_threads():
        for block in blocks:
            few, one = (replace(block, seeds=block.seeds[:n]) for n in (min(_SEEDS, together), 1))
            expected = sum(_predict(campaign, cost, trial) for trial in (few, one))
            left = _MOST_SECONDS - (time.perf_counter() - began)
            if expected > min(_LONGEST_TRIAL, left):
                break
            try:
                if block is blocks[0]:
                    _measure(campaign, one)  # with what only the first block of a process pays
                alone, seconds = _measure(campaign, one), _measure(campaign, few)
            except Exception:  # noqa: BLE001  whatever it is, the sweep deals with it
                break
            each = _seconds_per_seed(alone, seconds, len(few.seeds))
            seconds += (together - len(few.seeds)) * each
            whole = replace(block, seeds=block.seeds[:together])
            factor = seconds / _predict(campaign, replace(cost, corrections={}), whole)
            cost = replace(cost, corrections={**cost.corrections, (value, block.N): factor})
    return cost


def _seconds_per_seed(alone: float, together: float, seeds: int) -> float:
    """Of one more seed in a block of some, between half of and all of an equal share."""
    share = together / seeds
    if seeds == 1:
        return share
    return float(np.clip((together - alone) / (seeds - 1), share / 2, share))


def _measure(campaign: Campaign, block: Block) -> float:
    began = time.perf_counter()
    compute_block(Recipe.of(campaign), block)
    return time.perf_counter() - began


def _predict(campaign: Campaign, cost: CostModel, block: Block) -> float:
    measurements = measurements_of(campaign.model, block.value, block.N)
    return cost.block_seconds(block, measurements, len(block.inits))
