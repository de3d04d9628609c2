"""Campaign and store → what is left to do: units of work, with their predicted cost.

Printable and countable before anything runs; nothing is written here.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from pipeline.campaign import Campaign
from pipeline.campaign_axes import measurements_of
from pipeline.cost import CostModel, nominal_cost
from pipeline.instances import conditional_bytes
from pipeline.kernel.density import LARGEST_DENSE
from pipeline.kernel.models import MOST_SPIKED_DIRECTIONS
from pipeline.work import Unit
from store.array_store import read_block_seeds, read_grid
from store.chunks import pending_blocks
from store.groups import GROUPS
from store.keys import Block
from store.ledger import read_status
from store.place import StorePath, is_there
from store.schema import RESULTS, Status, cube_variables

_MOST_BLOCK_SEEDS = 16
_LONGEST_BLOCK = 20.0  # seconds on a nominal core; a worker that dies loses no more than a block
_UNIT_SECONDS = 2.0  # small blocks are put together up to this, so that Dask's overhead is nothing
_WORKER_BASE_BYTES = 200 << 20  # interpreter and libraries
_TOGETHER_BYTES = 64 << 20  # sensing matrices that the kernel advances together
_ROWS_PER_RUN = 8  # of length M, in a pass over a conditional instance
_VECTORS_PER_RUN = 100  # of length N: the basis of Lanczos, and the stages of a step


@dataclass(frozen=True)
class Plan:
    """What a campaign still has to do.

    Parameters
    ----------
    units : tuple of Unit
        Work in the order in which it is handed out, long units first.
    wanted : int
        Runs of the whole campaign.
    block_seeds : int
        Seeds in a chunk of the store.
    new_bytes : int
        Bytes of the results before compression.
    new_files : int
        Files the store will gain.
    worker_bytes : int
        Memory a worker needs.
    """

    units: tuple[Unit, ...]
    wanted: int
    block_seeds: int
    new_bytes: int
    new_files: int
    worker_bytes: int

    @property
    def runs(self) -> int:
        """Runs left."""
        return sum(unit.runs for unit in self.units)

    @property
    def blocks(self) -> int:
        """Blocks left."""
        return sum(len(unit.blocks) for unit in self.units)

    @property
    def core_seconds(self) -> float:
        """Predicted worker time."""
        return sum(unit.seconds for unit in self.units)

    def wall_seconds(self, workers: int) -> float:
        """Predicted duration on that many workers: each takes the next unit when it is free."""
        free = [0.0] * workers
        for unit in self.units:
            heapq.heapreplace(free, free[0] + unit.seconds)
        return max(free)


def choose_block_seeds(campaign: Campaign) -> int:
    """Seeds in a chunk: a power of two up to 16, so that the costliest block lasts some seconds.

    From a nominal core, so that the layout of a store does not depend on who created it.
    """
    cost = nominal_cost(campaign)
    slowest = max(
        cost.seed_seconds(N, int(column.max()))
        for N, column in zip(campaign.grid.N, campaign.measurements().T, strict=True)
    )
    fitting = max(1, int(_LONGEST_BLOCK / slowest))
    return int(min(_MOST_BLOCK_SEEDS, 2 ** int(np.log2(fitting))))


def make_plan(campaign: Campaign, path: StorePath, cost: CostModel) -> Plan:
    """What is left to do of a campaign in a store, which need not exist yet."""
    wanted = campaign.grid_labels()
    if is_there(path):
        stored, block_seeds = read_grid(path), read_block_seeds(path)
        grid = stored.union(wanted)
        status = np.zeros(grid.shape, dtype=np.int8)
        status[tuple(slice(length) for length in stored.shape)] = read_status(path)
        if not campaign.sampling:
            status[status == Status.UNASKED] = Status.PENDING
    else:
        grid, block_seeds = wanted, choose_block_seeds(campaign)
        status = np.zeros(grid.shape, dtype=np.int8)
    chunks = pending_blocks(grid, wanted, status, block_seeds)
    return plan_chunks(campaign, chunks, cost, block_seeds)


def plan_chunks(
    campaign: Campaign, chunks: Iterable[tuple[Block, ...]], cost: CostModel, block_seeds: int
) -> Plan:
    """Group chunks with pending blocks into units of some seconds, largest N first."""
    units = tuple(
        unit
        for N in sorted(set(campaign.grid.N), reverse=True)
        for unit in _group(campaign, [chunk for chunk in chunks if chunk[0].N == N], cost)
    )
    variables = [row for row in cube_variables(()) if row.name in RESULTS]
    groups = campaign.groups()
    beside = [(axes, row) for name, axes in groups.items() for row in GROUPS[name].variables(())]
    runs = sum(unit.runs for unit in units)
    run_bytes = sum(np.dtype(row.dtype).itemsize for row in variables)
    for axes, row in beside:
        run_bytes += prod(len(axes[dim]) for dim in row.dims) * np.dtype(row.dtype).itemsize
    return Plan(
        units=units,
        wanted=int(np.prod(campaign.grid_labels().shape)),
        block_seeds=block_seeds,
        new_bytes=runs * run_bytes,
        new_files=sum(len(unit.chunks) for unit in units) * (len(variables) + len(beside)),
        worker_bytes=_worker_bytes(campaign, cost, block_seeds, run_bytes),
    )


def _worker_bytes(campaign: Campaign, cost: CostModel, block_seeds: int, run_bytes: int) -> int:
    """Memory of a worker: instances advanced together, their trajectories, a block's results."""
    item = np.dtype(campaign.dynamics.dtype).itemsize
    runs = len(campaign.grid.inits) * (campaign.grid.replicas or 1)
    largest = 0.0
    for (_, place), measurements in np.ndenumerate(campaign.measurements()):
        N, M = campaign.grid.N[place], int(measurements)
        if not M:  # without measurements: points in the basis of what is known of an instance
            N = min(N, MOST_SPIKED_DIRECTIONS)
        vectors = runs * (_VECTORS_PER_RUN + len(campaign.all_times())) * N * item
        if cost.rule.choose(N, M) == "dense":
            instance = 2.0 * M * N * item
        else:
            instance = conditional_bytes(N, M, cost.directions, item)
            vectors += runs * _ROWS_PER_RUN * M * item
        together = min(block_seeds, max(1, _TOGETHER_BYTES // max(1, M * N * item)))
        dense = 4 * 8 * N * N if campaign.spectrum and N <= LARGEST_DENSE else 0
        largest = max(largest, max(instance, 2 * _TOGETHER_BYTES) + together * vectors + dense)
    return int(_WORKER_BASE_BYTES + largest + block_seeds * runs * run_bytes)


def _group(campaign: Campaign, chunks: list[tuple[Block, ...]], cost: CostModel) -> Iterator[Unit]:
    together: list[tuple[Block, ...]] = []
    seconds = 0.0
    for chunk in chunks:
        together.append(chunk)
        seconds += sum(
            cost.block_seconds(
                block,
                measurements_of(campaign.model, block.value, block.N),
                len(campaign.grid.inits),
            )
            for block in chunk
        )
        if seconds >= _UNIT_SECONDS:
            yield Unit(tuple(together), seconds)
            together, seconds = [], 0.0
    if together:
        yield Unit(tuple(together), seconds)
