"""What a worker does with one unit of work: compute its blocks, write them, report.

A unit is what one Dask task takes: whole chunks of the store, so that no two tasks ever write the
same chunk. Runs in worker processes, in threads, or in the driver, with the same numbers.
"""

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.campaign import Campaign
from pipeline.campaign_axes import measurements_of
from pipeline.cluster import limit_blas_threads
from pipeline.instances import InstanceRule
from pipeline.kernel.block import Dynamics, Task, run_block
from pipeline.models import make_model
from pipeline.worker_arrays import worker_arrays
from store.array_store import write_block
from store.keys import Block, instance_stream
from store.place import StoreWriteError
from store.schema import Status

Groups = Mapping[str, Mapping[str, NDArray[np.generic]]]

_WRITE_PAUSES = (0.5, 2.0)  # seconds before another try to write


@dataclass(frozen=True)
class Recipe:
    """What turns the labels of a block into a kernel task: the physics of a campaign.

    Parameters
    ----------
    entropy : int
    model : str
    parameters : mapping of str to float, int or str
        Constants of the model that are not axes.
    dynamics : Dynamics
    instances : InstanceRule
        Which instances are drawn as they are asked for.
    times : tuple of float
        When runs are looked at; none without a trajectory.
    hessian_along, labels, gain : bool
        Whether the lowest eigenpairs of the Hessian, what theory predicts of them from the labels,
        and the signal gain are wanted then.
    snapshots, edges : tuple of float
        When the density of eigenvalues is wanted, and the edges of its bins.
    """

    entropy: int
    model: str
    parameters: Mapping[str, float | int | str]
    dynamics: Dynamics
    instances: InstanceRule
    times: tuple[float, ...] = ()
    hessian_along: bool = False
    labels: bool = False
    gain: bool = False
    snapshots: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()

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
            stop_at_minimum=bool(chosen.stop_at_minimum),
        )
        along, spectrum = campaign.trajectory, campaign.spectrum

        def clip(times: tuple[float, ...]) -> tuple[float, ...]:
            # the labels of times have ten digits, T may have more
            return tuple(min(time, chosen.T) for time in times)

        return cls(
            entropy=campaign.entropy,
            model=campaign.model,
            parameters={
                name: value for name, value in campaign.parameters if not isinstance(value, tuple)
            },
            dynamics=dynamics,
            instances=InstanceRule.of(campaign),
            times=clip(campaign.times()),
            hessian_along=along is not None and along.hessian,
            labels=along is not None and along.labels,
            gain=along is not None and along.gain,
            snapshots=clip(spectrum.times) if spectrum else (),
            edges=tuple(spectrum.edges().tolist()) if spectrum else (),
        )

    def task(self, block: Block) -> Task:
        """Kernel task of a block."""
        measurements = measurements_of(self.model, block.value, block.N)
        constants = {**self.parameters, **dict(block.constants)}
        return Task(
            make_model(self.model, constants, (block.value, block.N), self.instances),
            streams=tuple(
                instance_stream(self.entropy, self.model, block.N, measurements, seed)
                for seed in block.seeds
            ),
            inits=block.inits,
            dynamics=self.dynamics,
            replicas=block.replicas or 1,
            times=self.times,
            hessian_along=self.hessian_along,
            labels=self.labels,
            gain=self.gain,
            snapshots=self.snapshots,
            edges=self.edges,
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
    suspect : bool
        Whether workers died under it.
    """

    chunks: tuple[tuple[Block, ...], ...]
    seconds: float
    attempts: int = 0
    suspect: bool = False

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
    status : int8 array [seeds, inits] or [seeds, inits, replicas]
        DONE or FAILED.
    recovered : int
        Runs that recovered the signal.
    seconds : float
        Worker time.
    failures : tuple of (run, reason)
        Runs that failed numerically, each by its labels, such as ``seed=3 random``.
    worker : str
        Host of the worker.
    """

    block: Block
    status: NDArray[np.int8]
    recovered: int
    seconds: float
    failures: tuple[tuple[str, str], ...]
    worker: str


def run_unit(path: str, recipe: Recipe, unit: Unit) -> list[Receipt]:
    """Compute and write the blocks of a unit, one after the other."""
    limit_blas_threads()
    return [_run_one(path, recipe, block) for block in unit.blocks]


@dataclass(frozen=True)
class Computed:
    """What the kernel says of a block, with the axes of the store.

    Parameters
    ----------
    values : mapping of str to ndarray, [seeds, inits] or [seeds, inits, replicas]
    groups : mapping of str to such mappings
        For each group of the store, with its own axes last.
    status : int8 array, of the shape of the values
        DONE or FAILED.
    failures : tuple of (run, reason)
        Runs that failed numerically, each by its labels.
    """

    values: Mapping[str, NDArray[np.generic]]
    groups: Groups
    status: NDArray[np.int8]
    failures: tuple[tuple[str, str], ...]


def compute_block(recipe: Recipe, block: Block) -> Computed:
    """Compute a block; nothing is written."""
    result = run_block(recipe.task(block), worker_arrays())
    # the kernel's arrays have an axis of replicas always, those of the store where it is asked for
    ended = np.where(result.finished, Status.DONE, Status.FAILED)
    return Computed(
        values={name: array.reshape(block.shape) for name, array in result.values.items()},
        groups={
            group: {
                name: array.reshape(*block.shape, *array.shape[3:])
                for name, array in numbers.items()
            }
            for group, numbers in (("trajectory", result.trajectory), ("spectrum", result.spectrum))
            if numbers
        },
        status=ended.astype(np.int8).reshape(block.shape),
        failures=tuple(
            (_name_run(block, *place), reason) for place, reason in result.failures.items()
        ),
    )


def _run_one(path: str, recipe: Recipe, block: Block) -> Receipt:
    computed = compute_block(recipe, block)
    _write_patiently(path, block, computed.values, computed.groups)
    return Receipt(
        block=block,
        status=computed.status,
        recovered=int(np.sum(computed.values["recovered"] == 1)),
        seconds=float(np.sum(np.asarray(computed.values["seconds"], dtype=np.float64))),
        failures=computed.failures,
        worker=socket.gethostname(),
    )


def _write_patiently(
    path: str,
    block: Block,
    values: Mapping[str, NDArray[np.generic]],
    groups: Groups,
) -> None:
    """Write a block; a place that cannot be written is tried again before the work is thrown away.

    Raises
    ------
    StoreWriteError
        If it still cannot be written after the last of `_WRITE_PAUSES`.
    """
    for pause in _WRITE_PAUSES:
        try:
            write_block(path, block, values, groups)
        except StoreWriteError:
            time.sleep(pause)
        else:
            return
    write_block(path, block, values, groups)


def _name_run(block: Block, seed: int, init: int, replica: int) -> str:
    name = f"seed={block.seeds[seed]} {block.inits[init]}"
    return name if block.replicas is None else f"{name} replica={replica}"
