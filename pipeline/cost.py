"""What a campaign will cost: seconds per seed from the passes it needs and the time of a pass.

The passes per run are those measured for phase retrieval, the time of a pass is timed on this
machine. Good to a factor of about two, which is what choosing block sizes and announcing
core-hours needs.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

import numpy as np

from pipeline.campaign import Campaign
from pipeline.campaign_axes import count_measurements
from pipeline.campaign_spiked import SpikedParameters, choose_spiked_instances
from pipeline.instances import (
    DENSITY_PASSES,
    PAIR_ELEMENTS,
    SNAPSHOT_PASSES,
    TIME_TO_MINIMUM,
    InstanceRule,
    Kind,
    count_densities,
    count_directions,
    count_observing_passes,
    count_passes,
    pass_elements,
)
from pipeline.kernel.gaussian_operator import draw_dense
from store.keys import Block

_SECONDS_PER_SNAPSHOT = 1.2e-5  # times N: of a trajectory's own part, whatever X costs
_SECONDS_PER_NUMBER = 1e-8  # that is drawn
_SECONDS_PER_GRADIENT_CALL = 5e-5  # overhead of one tick, shared by the instances of a batch
_NOMINAL_ELEMENTS_PER_SECOND = 1.5e9  # of X in a pass with three trajectories, a slow core
_LARGEST_PROBE = 1 << 22  # elements of the matrix that is timed
_LARGEST_BATCH = 64  # trajectories that are timed; more cost in proportion


_SPIKED_GRADIENT = 5e-4  # seconds of a gradient of the spiked model, whatever N
_SPIKED_SNAPSHOT = 5e-3  # of its lowest eigenvalues
_GRADIENT_PER_COUPLING = 0.8e-9  # more where couplings are in memory
_SNAPSHOT_PER_COUPLING = 8e-9
_DRAW_PER_COUPLING = 4e-8


@dataclass(frozen=True)
class CostModel:
    """Predicted seconds of worker time.

    Parameters
    ----------
    descending : float
        Sequential passes over X for one seed until its runs end, all of them together.
    descending_large : float
        The same of conditional instances.
    observing : float
        The same for what is recorded of them.
    runs : int
        Initialisations times replicas of a seed.
    snapshots : float
        Lowest eigenpairs that are computed for one seed.
    densities : int
        Times at which the density of the eigenvalues is found.
    directions : float
        Directions that all of these runs ask a conditional instance for, if N allows.
    elements_per_second : mapping of int to float
        Elements of X that such a pass covers in a second, by N.
    rule : InstanceRule
        Which instances are conditional.
    corrections : mapping of (control value, N) to float
        Measured over predicted seconds of blocks that were done; see `pipeline.prediction`.
    """

    descending: float
    descending_large: float
    observing: float
    runs: int
    snapshots: float
    densities: int
    directions: float
    elements_per_second: Mapping[int, float]
    rule: InstanceRule
    corrections: Mapping[tuple[float, int], float] = field(default_factory=dict)

    def kind(self, N: int, measurements: int) -> Kind:
        """Of the instances."""
        return self.rule.choose(N, measurements)

    def seed_seconds(self, N: int, measurements: int) -> float:
        """Seconds for one seed with all its initialisations and replicas."""
        descending = observing = drawn = float(N)  # elements of a pass, for each measurement
        passes = self.descending
        if self.kind(N, measurements) == "conditional":
            passes = self.descending_large
            known = self.runs * passes
            descending, drawn = pass_elements(N, known), min(N, self.directions)
            if known < N:  # each snapshot begins where the descents have ended
                observing = PAIR_ELEMENTS * (known + drawn) / 2
        # where a diagonalisation finds the density, it costs about N/2 passes
        observed = self.observing + self.densities * min(N / 2, DENSITY_PASSES)
        elements = passes * descending + observed * observing
        seconds = measurements * elements / self.elements_per_second[N]
        seconds += (passes + observed) * _SECONDS_PER_GRADIENT_CALL
        seconds += _SECONDS_PER_NUMBER * measurements * drawn
        return seconds + self.snapshots * _SECONDS_PER_SNAPSHOT * N

    def block_seconds(self, block: Block, measurements: int, all_inits: int) -> float:
        """Seconds for a block."""
        share = len(block.inits) / all_inits
        seconds = len(block.seeds) * share * self.seed_seconds(block.N, measurements)
        return seconds * self._correction(block.value, block.N, self.kind(block.N, measurements))

    def _correction(self, value: float, N: int, kind: Kind) -> float:
        """Of the same labels where known, else of the same N or the nearest one, else none.

        Instances of one kind say nothing about those of the other.
        """
        if (value, N) in self.corrections:
            return self.corrections[value, N]
        known = self._mean_corrections.get(kind)
        if not known:
            return 1.0
        return known[min(known, key=lambda size: abs(math.log(size / N)))]

    @cached_property
    def _mean_corrections(self) -> dict[Kind, dict[int, float]]:
        """By kind of instances and N; asked for by each block of a plan."""
        known: dict[Kind, dict[int, list[float]]] = {}
        for (value, N), factor in self.corrections.items():
            kind = self.kind(N, count_measurements(value, N))
            known.setdefault(kind, {}).setdefault(N, []).append(factor)
        return {kind: {N: fmean(x) for N, x in sizes.items()} for kind, sizes in known.items()}


@dataclass(frozen=True)
class SpikedCost(CostModel):
    """The same for the spiked matrix-tensor model, nominal.

    Where couplings are in memory, by their number; else it does not depend on N.

    Parameters
    ----------
    order : int
        p of the tensor.
    """

    order: int = 3

    def kind(self, N: int, measurements: int) -> Kind:  # noqa: ARG002  as for matrices
        """Of the instances."""
        return choose_spiked_instances(self.rule.wanted, N, self.order)

    def seed_seconds(self, N: int, measurements: int) -> float:
        """Seconds for one seed with all its initialisations and replicas."""
        gradients, snapshots = self.runs * self.descending, self.snapshots
        seconds = gradients * _SPIKED_GRADIENT + snapshots * _SPIKED_SNAPSHOT
        if self.kind(N, measurements) == "conditional":
            return seconds
        each = gradients * _GRADIENT_PER_COUPLING + snapshots * _SNAPSHOT_PER_COUPLING
        return seconds + (each + _DRAW_PER_COUPLING) * math.comb(N + self.order - 1, self.order)


def nominal_cost(campaign: Campaign) -> CostModel:
    """Cost on a nominal core; the same on every machine, for what must not depend on it."""
    rate = _NOMINAL_ELEMENTS_PER_SECOND / (campaign.grid.replicas or 1)
    rates = dict.fromkeys(campaign.grid.N, rate)
    return _cost(campaign, rates)


def calibrated_cost(campaign: Campaign) -> CostModel:
    """Cost on this machine: a pass is timed for each N (a fraction of a second each)."""
    if campaign.model == "spiked_matrix_tensor":
        return nominal_cost(campaign)
    rule = InstanceRule.of(campaign)
    rates = {}
    for N, column in zip(campaign.grid.N, campaign.measurements().T, strict=True):
        measurements = max(1, int(column.max()))
        dense = rule.choose(N, measurements) == "dense"
        # the bases of a conditional instance are as wide as the directions that it knows
        width = N if dense else min(N, max(2, int(rule.directions)))
        rates[N] = _time_pass(width, measurements, campaign)
    return _cost(campaign, rates)


def _cost(campaign: Campaign, elements_per_second: Mapping[int, float]) -> CostModel:
    large = _descending_passes(campaign, large=True)
    inits = len(campaign.grid.inits)
    cost = CostModel(
        descending=_descending_passes(campaign),
        descending_large=large,
        observing=2 * SNAPSHOT_PASSES + count_observing_passes(campaign),
        runs=inits * (campaign.grid.replicas or 1),
        snapshots=_snapshots(campaign),
        densities=count_densities(campaign),
        directions=count_directions(campaign, large, inits),
        elements_per_second=elements_per_second,
        rule=InstanceRule.of(campaign),
    )
    if isinstance(campaign.parameters, SpikedParameters):
        return SpikedCost(**vars(cost), order=campaign.parameters.p)
    return cost


def _snapshots(campaign: Campaign) -> float:
    """Of one seed: at start and end of each run, at the random start, along the run."""
    inits, along = len(campaign.grid.inits), 0
    if campaign.trajectory is not None and campaign.trajectory.hessian:
        along = len(campaign.trajectory.times)
    return (campaign.grid.replicas or 1) * (inits * (2 + along) + 1)


def _descending_passes(campaign: Campaign, *, large: bool = False) -> float:
    """To the end of the runs, with what their starts need."""
    dynamics, inits = campaign.dynamics, campaign.grid.inits
    duration = dynamics.T
    if dynamics.stop_at_minimum and not large:  # conditional instances do not stop there
        duration = min(duration, max(TIME_TO_MINIMUM, *campaign.all_times(), 0.0))
    passes = count_passes(dynamics, duration, large=large)
    if "constrained" in inits:
        passes += count_passes(dynamics, dynamics.constrained_time, large=large)
    if "spectral" in inits:
        passes += SNAPSHOT_PASSES
    return passes


def _time_pass(N: int, measurements: int, campaign: Campaign) -> float:
    """Elements of X per second in a pass with a trajectory per initialisation and replica."""
    rows = min(measurements, max(16, _LARGEST_PROBE // N))
    dtype = np.dtype(campaign.dynamics.dtype)
    random = np.random.default_rng(0)
    operator = draw_dense(random, rows, N, dtype)
    together = len(campaign.grid.inits) * (campaign.grid.replicas or 1)
    timed = min(together, _LARGEST_BATCH)
    w = random.standard_normal((timed, N)).astype(dtype)
    best = np.inf
    for _ in range(5):
        clock = time.perf_counter()
        operator.pull_back(w, lambda predicted, _: predicted * predicted * predicted)
        best = min(best, time.perf_counter() - clock)
    return rows * N / best * timed / together
