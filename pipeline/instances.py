"""Which instances of a campaign are matrices and which are drawn as they are asked for.

The two kinds are other instances of the same law, so the choice decides numbers. It follows from
the physics of the campaign and from (N, M) alone: not from the machine, and not from labels that
may be added later.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.campaign import Campaign
from pipeline.campaign_sections import Dynamics

Kind = Literal["dense", "conditional"]

FLOW_PASSES = 15.0  # of a run that does not recover, over √T, at tolerance 1e-2
LARGE_FLOW_PASSES = 35.0  # the same at N ≥ 1000: 25 at T = 100, 35 at 1000
TIME_TO_MINIMUM = 2000.0  # of a run that stops there; longer at N of some thousands
SNAPSHOT_PASSES = 120.0  # of two lowest eigenpairs by Lanczos
FOLLOWING_PASSES = 80.0  # of the same along a run, from the vectors of the time before
DENSITY_PASSES = 700.0  # of the density of eigenvalues by quadrature
PAIR_ELEMENTS = 4.0  # of a matrix, in the time of one direction at one measurement: three reads
SPARE_ROOM = 1.5  # the bases grow by this factor
_NOMINAL_BYTES = 4 << 30  # for the instance, of a worker


def count_passes(dynamics: Dynamics, duration: float, *, large: bool = False) -> float:
    """Gradients of a run that lasts `duration`, at large N or at one of a few hundred."""
    if dynamics.learning_rate is not None:
        return duration / dynamics.learning_rate
    return (LARGE_FLOW_PASSES if large else FLOW_PASSES) * math.sqrt(duration)


def count_observing_passes(campaign: Campaign) -> float:
    """Products with X for what is recorded along a run."""
    if campaign.trajectory is None:
        return 0.0
    each = FOLLOWING_PASSES if campaign.trajectory.hessian else 1.0
    passes = each * len(campaign.trajectory.times)
    if campaign.trajectory.gain:  # a product with the Hessian in each step
        passes += count_passes(campaign.dynamics, campaign.dynamics.T)
    return passes


def count_densities(campaign: Campaign) -> int:
    """Times at which the density of the eigenvalues is found."""
    return len(campaign.spectrum.times) if campaign.spectrum else 0


def count_directions(campaign: Campaign, descending: float, inits: int) -> float:
    """Most directions that the runs of one instance ask for, if N allows.

    One for each of the `descending` passes of a run, two with the gain, and those of the Hessians
    at one time: what snapshots ask for is forgotten with the next one.
    """
    at_once = DENSITY_PASSES if count_densities(campaign) else SNAPSHOT_PASSES
    along = campaign.trajectory
    if along is not None and along.gain:
        at_once += 2 * count_passes(campaign.dynamics, campaign.dynamics.T, large=True)
    return inits * (campaign.grid.replicas or 1) * (descending + at_once)


@dataclass(frozen=True)
class InstanceRule:
    """Dense or conditional, by N and M.

    Parameters
    ----------
    wanted : "auto", "dense" or "conditional"
        What the campaign says.
    directions : float
        Directions that the random starts of one instance are expected to ask for, if N allows.
    itemsize : int
        Bytes of a number.
    """

    wanted: Literal["auto", "dense", "conditional"]
    directions: float
    itemsize: int

    @classmethod
    def of(cls, campaign: Campaign) -> "InstanceRule":
        """Rule of a campaign."""
        passes = count_passes(campaign.dynamics, campaign.dynamics.T, large=True)
        return cls(
            campaign.instances,
            count_directions(campaign, passes, 1),
            np.dtype(campaign.dynamics.dtype).itemsize,
        )

    def choose(self, N: int, measurements: int) -> Kind:
        """The kind of the instances at (N, M).

        "auto" takes the faster one of those that fit a worker of 4 GiB, by nominal cost, and the
        smaller one if none does.
        """
        if self.wanted != "auto":
            return self.wanted
        costs: dict[Kind, tuple[float, float]] = {
            "dense": (float(N), float(N) * measurements * self.itemsize),
            "conditional": (
                pass_elements(N, self.directions),
                conditional_bytes(N, measurements, self.directions, self.itemsize),
            ),
        }
        fitting = [kind for kind, (_, size) in costs.items() if size <= _NOMINAL_BYTES]
        if fitting:
            return min(fitting, key=lambda kind: costs[kind][0])
        return min(costs, key=lambda kind: costs[kind][1])


def pass_elements(N: int, directions: float) -> float:
    """Mean over its passes of what one costs on a conditional instance.

    In elements of a dense matrix for each measurement, where a dense pass costs N. Directions come
    one by one until there are `directions` of them, or N: from then on passes are dense.
    """
    growing = min(directions, N)
    share = growing / directions  # of the passes
    return share * PAIR_ELEMENTS * growing / 2 + (1 - share) * N


def conditional_bytes(N: int, measurements: int, directions: float, itemsize: int) -> float:
    """Memory of a conditional instance with its bases grown to `directions`, or to N."""
    return 2 * SPARE_ROOM * min(directions, N) * measurements * itemsize
