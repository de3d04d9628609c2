"""Decisions of adaptive campaigns: what they ask for, and what stopping on the data costs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.recovery_curve import probability, slopes
from pipeline.sampling import Cell, Curve, Rule, half_width_at_half, next_round
from pipeline.transition import fit_curve

GRID = (1.5, 2.5, 3.5, 4.5, 5.5, 6.5)
RULE = Rule(
    target_halfwidth=0.05, max_seeds=2000, focus="transition", first_seeds=16, block_seeds=16
)


class Simulation:
    """Outcomes of one curve, p = P(slope (α - half)), seed by seed as they are asked for."""

    def __init__(self, half: float, slope: float, rng: np.random.Generator) -> None:
        self.half, self.slope, self.rng = half, slope, rng
        self.outcomes: dict[float, NDArray[np.bool_]] = {}

    def curve(self, asked: dict[Cell, int]) -> Curve:
        values = sorted(value for value, _ in asked)
        counts = [self.draw(value, asked[value, "random"]).sum() for value in values]
        runs = [float(asked[value, "random"]) for value in values]
        return Curve(np.array(values), np.array(counts, dtype=float), np.array(runs))

    def draw(self, value: float, seeds: int) -> NDArray[np.bool_]:
        known = self.outcomes.get(value, np.zeros(0, dtype=bool))
        p = probability(np.array([self.slope * (value - self.half)]))[0]
        more = self.rng.random(max(0, seeds - len(known))) < p
        self.outcomes[value] = np.concatenate([known, more])
        return self.outcomes[value][:seeds]


def sample(simulation: Simulation, rule: Rule, N: int = 256) -> tuple[dict[Cell, int], Curve, int]:
    """Rounds until nothing more is asked for."""
    asked: dict[Cell, int] = {(value, "random"): rule.first_seeds for value in GRID}
    for rounds in range(1, 40):
        curve = simulation.curve(asked)
        wanted = next_round(asked, {"random": curve}, rule, N)
        assert all(wanted[cell] >= seeds for cell, seeds in asked.items())
        if wanted == asked:
            return asked, curve, rounds
        asked = wanted
    raise AssertionError("never decided")


def test_seeds_go_where_the_curve_crosses_one_half_until_the_target_is_met() -> None:
    asked, curve, rounds = sample(Simulation(2.9, 2.2, np.random.default_rng(0)), RULE)
    half, width = half_width_at_half(curve)
    assert half == pytest.approx(2.9, abs=0.1)
    assert width <= 0.05
    assert rounds < 15
    near = sum(seeds for (value, _), seeds in asked.items() if abs(value - 2.9) < 0.6)
    assert near > 0.7 * sum(asked.values())
    assert asked[6.5, "random"] == 16
    new = {value for value, _ in asked} - set(GRID)
    assert new
    assert all(2.5 < value < 3.5 for value in new)


def test_a_curve_that_does_not_cross_is_decided_at_its_end() -> None:
    never, curve, _ = sample(Simulation(9.0, 2.0, np.random.default_rng(1)), RULE)
    assert set(never) == {(value, "random") for value in GRID}
    assert curve.recovered[-1] / curve.runs[-1] < 0.3
    doubtful, curve, _ = sample(Simulation(6.6, 2.0, np.random.default_rng(2)), RULE)
    assert doubtful[6.5, "random"] > 100
    assert doubtful[1.5, "random"] == 16


def test_sizes_whose_measurements_cannot_differ_get_no_new_values() -> None:
    asked, *_ = sample(Simulation(2.9, 30.0, np.random.default_rng(3)), RULE, N=2)
    assert {value for value, _ in asked} <= {*GRID, 3.0}


def test_no_cell_gets_more_than_the_most() -> None:
    rule = Rule(0.01, 100, "transition", 16, 16)
    asked, curve, _ = sample(Simulation(2.9, 2.2, np.random.default_rng(4)), rule)
    assert max(asked.values()) == 100
    assert half_width_at_half(curve)[1] > 0.01


def test_everywhere_sharpens_each_cell() -> None:
    rule = Rule(0.1, 400, "everywhere", 16, 16)
    asked, curve, _ = sample(Simulation(2.9, 2.2, np.random.default_rng(5)), rule)
    assert {value for value, _ in asked} == set(GRID)
    assert asked[2.5, "random"] >= 64
    p = curve.recovered / curve.runs
    assert (1.96 * np.sqrt(p * (1 - p) / curve.runs) < 0.11).all()


def test_initialisations_are_decided_by_themselves() -> None:
    early, late = (Simulation(half, 2.2, np.random.default_rng(6)) for half in (2.0, 5.0))
    asked: dict[Cell, int] = {(v, init): 16 for v in GRID for init in ("random", "constrained")}
    curves = {
        "random": early.curve({(v, "random"): 16 for v in GRID}),
        "constrained": late.curve({(v, "random"): 16 for v in GRID}),
    }
    both = next_round(asked, curves, RULE, 256)
    for init, curve in curves.items():
        own = {cell: seeds for cell, seeds in asked.items() if cell[1] == init}
        alone = next_round(own, {init: curve}, RULE, 256)
        assert alone == {cell: seeds for cell, seeds in both.items() if cell[1] == init}


def test_the_width_is_that_of_the_fit() -> None:
    """Against the scatter of α_½ over simulated curves of fixed runs."""
    rng = np.random.default_rng(7)
    x, runs = np.arange(1.5, 5.1, 0.5), np.full(8, 60.0)
    p = probability(2.0 * (x - 2.9))
    found = np.array([half_width_at_half(Curve(x, rng.binomial(60, p), runs)) for _ in range(300)])
    at_half = slopes(np.zeros(1))[0][0] / 2
    assert 1.96 * found[:, 0].std() * 2.0 * at_half == pytest.approx(found[:, 1].mean(), rel=0.12)
    assert np.isinf(half_width_at_half(Curve(x, p[::-1] * 60, runs))[1])
    assert np.isnan(half_width_at_half(Curve(x[:1], p[:1] * 60, runs[:1]))[1])


@pytest.mark.slow
@pytest.mark.parametrize(("half", "slope"), [(2.9, 2.2), (4.7, 1.1), (2.25, 3.0)])
@pytest.mark.parametrize("target", [0.05, 0.03])
def test_stopping_on_the_data_costs_little(half: float, slope: float, target: float) -> None:
    """Bias below a third of a standard error, coverage of α_½ and of cells near 95 %."""
    rng = np.random.default_rng([round(100 * half), round(100 * target)])
    rule = Rule(target, 4000, "transition", 16, 16)
    halves, held, misses = [], [], []
    for _ in range(400):
        simulation = Simulation(half, slope, rng)
        asked, curve, _ = sample(simulation, rule)
        found, width = half_width_at_half(curve)
        rise = -fit_curve(curve.control, curve.recovered, curve.runs)[0] / found
        halves.append(found)
        held.append(abs(found - half) < width / (rise * slopes(np.zeros(1))[0][0] / 2))
        many = curve.runs > 48
        truth = probability(slope * (curve.control - half))
        misses.append(np.mean((curve.recovered / curve.runs - truth)[many]))
        for value, seeds in ((v, s) for (v, _), s in asked.items()):  # in order, none left out
            assert len(simulation.outcomes[value]) == seeds
    assert abs(np.mean(halves) - half) < np.std(halves) / 3
    assert 0.90 < np.mean(held) < 0.98
    assert abs(np.mean(misses)) < 0.006
