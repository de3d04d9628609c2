"""What a worker does with one unit of work: compute its blocks, write them, report.

A unit is what one Dask task takes: whole chunks of the store, so that no two tasks ever write the
same chunk. Runs in worker processes, in threads, or in the driver, with the same numbers.
"""

import socket
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.campaign import Campaign
from pipeline.campaign_sections import count_measurements
from pipeline.cluster import limit_blas_threads
from pipeline.kernel.block import Dynamics, Task, run_block
from store.array_store import write_block
from store.keys import Block, instance_stream
from store.schema import Status


@dataclass(frozen=True)
class Recipe:
    """What turns the labels of a block into a kernel task: the physics of a campaign.

    Parameters
    ----------
    entropy : int
    model : str
    a : float
    dynamics : Dynamics
    """

    entropy: int
    model: str
    a: float
    dynamics: Dynamics

    @classmethod
    def of(cls, campaign: Campaign) -> "Recipe":
        """Recipe of a campaign; what the chosen method does not use is zero."""
        chosen = campaign.dynamics
        dynamics = Dynamics(
            method=chosen.method,
            duration=chosen.T,
            tolerance=chosen.tolerance or 0.0,
            learning_rate=chosen.learning_rate or 0.0,
            constrained_time=chosen.constrained_time,
            dtype=chosen.dtype,
        )
        return cls(campaign.entropy, campaign.model, campaign.parameters.a, dynamics)

    def task(self, block: Block) -> Task:
        """Kernel task of a block."""
        measurements = count_measurements(block.value, block.N)
        return Task(
            a=self.a,
            dimension=block.N,
            measurements=measurements,
            streams=tuple(
                instance_stream(self.entropy, self.model, block.N, measurements, seed)
                for seed in block.seeds
            ),
            inits=block.inits,
            dynamics=self.dynamics,
        )


@dataclass(frozen=True)
class Unit:
    """One unit of work.

    Parameters
    ----------
    chunks : tuple of tuples of Block
        The pending blocks of each chunk.
    seconds : float
        Predicted time on one core.
    attempts : int
        How often it was tried before.
    """

    chunks: tuple[tuple[Block, ...], ...]
    seconds: float
    attempts: int = 0

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, chunk by chunk."""
        return tuple(block for chunk in self.chunks for block in chunk)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return sum(block.runs for block in self.blocks)

    @property
    def key(self) -> str:
        """Readable name."""
        first, *others = self.blocks
        return f"{first.key},and {len(others)} more" if others else first.key


@dataclass(frozen=True)
class Receipt:
    """What a worker reports of a block whose data are on the disk.

    Parameters
    ----------
    block : Block
    status : int8 array [seeds, inits]
        DONE or FAILED.
    recovered : int
        Runs that recovered the signal.
    seconds : float
        Worker time.
    failures : tuple of (seed, init, reason)
        Runs that failed numerically.
    worker : str
        Host of the worker.
    """

    block: Block
    status: NDArray[np.int8]
    recovered: int
    seconds: float
    failures: tuple[tuple[int, str, str], ...]
    worker: str


def run_unit(path: str, recipe: Recipe, unit: Unit) -> list[Receipt]:
    """Compute and write the blocks of a unit, one after the other."""
    limit_blas_threads()
    return [_run_one(path, recipe, block) for block in unit.blocks]


def _run_one(path: str, recipe: Recipe, block: Block) -> Receipt:
    result = run_block(recipe.task(block))
    write_block(path, block, result.values)
    return Receipt(
        block=block,
        status=np.where(result.finished, Status.DONE, Status.FAILED).astype(np.int8),
        recovered=int(np.sum(result.values["recovered"] == 1)),
        seconds=float(np.sum(result.values["seconds"])),
        failures=tuple(
            (block.seeds[seed], block.inits[init], reason)
            for (seed, init), reason in result.failures.items()
        ),
        worker=socket.gethostname(),
    )
