"""Rounds of an adaptive campaign on a store: what has ended, what is asked for next."""

from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.campaign import Campaign
from pipeline.campaign_axes import tabulate_measurements
from pipeline.cost import CostModel
from pipeline.outcomes import outcomes
from pipeline.plan import Plan, plan_chunks
from pipeline.provenance import describe
from pipeline.sampling import Asked, Cell, Curve, Rule, next_round
from pipeline.work import Unit
from store.array_store import read_attributes, reading
from store.cube import open_store
from store.keys import Grid
from store.ledger import Ledger
from store.place import StorePath
from store.schema import Status


class Rounds:
    """Decides, for each size by itself, what an adaptive campaign computes next.

    Parameters
    ----------
    campaign : Campaign
        With a section `sampling`.
    ledger : Ledger
        Of its store, which `more` grows as decisions need it.
    path : str
    cost : CostModel
    """

    def __init__(
        self, campaign: Campaign, ledger: Ledger, path: StorePath, cost: CostModel
    ) -> None:
        self._campaign = campaign
        self._ledger = ledger
        self._path = path
        self._cost = cost
        self._rule = rule_of(campaign, ledger.block_seeds)

    def start(self) -> Plan:
        """The rounds in which the sizes are; all that nobody asks for is marked so."""
        rounds = {N: self._follow(N) for N in self._campaign.grid.N}
        self._grow(rounds)
        asked = np.zeros(self._ledger.grid.shape, dtype=bool)
        for N, cells in rounds.items():
            asked |= mark_asked(self._ledger.grid, N, cells)
        self._ledger.ask(asked, only=True)
        return self._plan(tuple(rounds))

    def more(self, N: int) -> list[Unit]:
        """Units of the next round of a size whose round has ended; none where it is decided."""
        cells = self._follow(N)
        self._grow({N: cells})
        self._ledger.ask(mark_asked(self._ledger.grid, N, cells))
        return list(self._plan((N,)).units)

    def _follow(self, N: int) -> dict[Cell, int]:
        """The round that has not ended yet, or the last one, from the results in the store."""
        grid = self._campaign.grid
        asked: dict[Cell, int] = {
            (value, init): grid.seeds for value in grid.values for init in grid.inits
        }
        if N not in self._ledger.grid.N:
            return asked
        self._ledger.flush()
        with reading(self._path):
            cube = open_store(self._path).sel(N=N)[["status", "recovered"]].load()
        while True:
            curves = read_curves(cube, asked)
            if curves is None:
                return asked
            wanted = next_round(asked, curves, self._rule, N)
            if wanted == asked:
                return asked
            asked = wanted

    def _grow(self, rounds: dict[int, dict[Cell, int]]) -> None:
        """Append the control values and seeds that the store lacks."""
        stored = self._ledger.grid
        cells = [item for asked in rounds.values() for item in asked.items()]
        wanted = Grid(
            stored.control,
            tuple(sorted({value for (value, _), _ in cells})),
            tuple(rounds),
            tuple(range(max(seeds for _, seeds in cells))),
            tuple(dict.fromkeys(init for (_, init), _ in cells)),
            stored.replicas,
        )
        if not wanted.missing_from(stored):
            return
        grid = stored.union(wanted)
        before = self._ledger.status
        attributes = describe(self._campaign, read_attributes(self._path))
        measurements = tabulate_measurements(self._campaign.model, grid.values, grid.N)
        self._ledger.grow(grid, measurements, attributes)
        new = np.ones(grid.shape, dtype=bool)
        new[tuple(slice(length) for length in before.shape)] = False
        self._ledger.set_aside(new)

    def _plan(self, sizes: tuple[int, ...]) -> Plan:
        """What is pending of some sizes."""
        grid = self._ledger.grid
        whole = Grid(grid.control, grid.values, sizes, grid.seeds, grid.inits, grid.replicas)
        chunks = self._ledger.pending(whole)
        plan = plan_chunks(self._campaign, chunks, self._cost, self._ledger.block_seeds)
        asked = np.isin(self._ledger.status, (Status.UNASKED,), invert=True)
        # small sizes first: they are decided soon, so that any budget leaves something complete
        units = tuple(sorted(plan.units, key=lambda unit: unit.blocks[0].N))
        return replace(plan, units=units, wanted=int(asked.sum()))


def rule_of(campaign: Campaign, block_seeds: int) -> Rule:
    """The rule of a campaign with a section `sampling`."""
    sampling = campaign.sampling
    assert sampling is not None
    return Rule(
        target_halfwidth=sampling.target_halfwidth,
        max_seeds=sampling.max_seeds,
        focus=sampling.focus,
        first_seeds=campaign.grid.seeds,
        block_seeds=block_seeds,
    )


def read_curves(cube: xr.Dataset, asked: Asked) -> dict[str, Curve] | None:
    """Results of the cells that are asked for; None while one of them is pending.

    Parameters
    ----------
    cube : Dataset [control, seed, init, (replica)]
        `status` and `recovered` of one size, in memory.
    asked : mapping of (control value, init) to int
    """
    (control,) = (str(dim) for dim in cube.dims if dim not in ("seed", "init", "replica"))
    labels = set(cube[control].to_numpy().tolist())
    ended = outcomes(cube)
    pending = (cube["status"] == Status.PENDING) | (cube["status"] == Status.UNASKED)
    curves = {}
    for init in dict.fromkeys(init for _, init in asked):
        values = sorted(value for value, own in asked if own == init)
        most = max(asked[value, init] for value in values)
        if not set(values) <= labels or cube.sizes["seed"] < most:
            return None
        at = {control: values, "init": init, "seed": list(range(most))}
        seeds = np.arange(most)[:, None]
        wanted = seeds < np.array([asked[value, init] for value in values])
        if (_by_seed(pending.sel(at), control) * wanted).any():
            return None
        runs, recovered = (
            _by_seed(array.sel(at), control) * wanted for array in (ended.finished, ended.recovered)
        )
        curves[init] = Curve.of(np.array(values), recovered, runs)
    return curves


def mark_asked(grid: Grid, N: int, asked: Asked) -> NDArray[np.bool_]:
    """Cells of a store that a round of one size asks for, of the shape of its grid."""
    cells = np.zeros(grid.shape, dtype=bool)
    size, seeds = grid.N.index(N), np.array(grid.seeds)
    for (value, init), count in asked.items():
        if value in grid.values and init in grid.inits:
            place = (grid.values.index(value), size, seeds < count, grid.inits.index(init))
            cells[place] = True
    return cells


def _by_seed(array: xr.DataArray, control: str) -> NDArray[np.int64]:
    """Sums over replicas [seeds, control values]."""
    summed = array.sum("replica") if "replica" in array.dims else array
    return np.asarray(summed.transpose("seed", control).to_numpy(), dtype=np.int64)
