"""Core-hours of an adaptive campaign against a uniform grid of equal precision, by simulation.

Half points and steepness of the curves are about those of `quickstart`; a seed costs what the
nominal cost model of `recovery_versus_size` says. The uniform grid has α = 1.5, 1.75, … 7 and as
many seeds as the fit of a curve needs for the same half-width at one half: in the mildest case as
many as each size and start needs for itself, in a campaign file as many as the worst of them needs.

    python tests/benchmarks/bench_adaptive.py
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.campaign import load_campaign
from pipeline.campaign_axes import count_measurements
from pipeline.cost import nominal_cost
from pipeline.plan import choose_block_seeds
from pipeline.recovery_curve import probability, slopes
from pipeline.rounds import rule_of
from pipeline.sampling import Cell, Curve, Rule, half_width_at_half, next_round
from pipeline.transition import fit_curve

REPEATS = 20
UNIFORM = np.arange(1.5, 7.01, 0.25)
SIZES = (64, 128, 256, 512, 1024)
# α½ at N = 64, per e-fold of N, and steepness b1
STARTS = {
    "random": (2.7, 0.19, 2.2),
    "spectral": (2.15, 0.06, 3.0),
    "constrained": (4.4, 0.34, 1.0),
}


def main() -> None:
    """Print the table."""
    campaign = load_campaign("recovery_versus_size")
    cost = nominal_cost(campaign)
    rule = replace(rule_of(campaign, choose_block_seeds(campaign)), block_seeds=16)
    rng = np.random.default_rng(0)

    def hours(N: int, value: float) -> float:
        inits = len(campaign.grid.inits)
        return cost.seed_seconds(N, count_measurements(value, N)) / inits / 3600

    adaptive, errors, mildest, needs, unit = 0.0, [], 0.0, [], 0.0
    for N in SIZES:
        for first, rate, slope in STARTS.values():
            half = first + rate * np.log(N / 64)
            spent = []
            for _ in range(REPEATS):
                found, asked = sample(rng, half, slope, campaign.grid.alpha, rule, N)
                spent.append(sum(n * hours(N, value) for (value, _), n in asked.items()))
                errors.append((found - half) * slope * slopes(np.zeros(1))[0][0] / 2)
            adaptive += float(np.mean(spent))
            each = sum(hours(N, value) for value in UNIFORM)
            seeds = uniform_seeds(half, slope, rule.target_halfwidth)
            needs.append(seeds)
            mildest += seeds * each
            unit += each
    common = max(needs) * unit
    print(f"target half-width {rule.target_halfwidth}, reached {1.96 * np.std(errors):.4f}")
    for name, total in {
        "adaptive": adaptive,
        "uniform, seeds fit for each N and init": mildest,
        "uniform, one number of seeds": common,
    }.items():
        print(f"{name:40} {total:6.2f} core-hours, {total / adaptive:.1f} times")


def sample(
    rng: np.random.Generator, half: float, slope: float, grid: Sequence[float], rule: Rule, N: int
) -> tuple[float, dict[Cell, int]]:
    """Rounds of one curve until it is decided: the half point found, and the seeds asked for."""
    asked: dict[Cell, int] = {(value, ""): rule.first_seeds for value in grid}
    counts: dict[float, tuple[int, int]] = {}
    while True:
        for (value, _), seeds in asked.items():
            n, k = counts.get(value, (0, 0))
            p = float(probability(np.array([slope * (value - half)]))[0])
            counts[value] = (seeds, k + int(rng.binomial(seeds - n, p)))
        x = np.array(sorted(counts))
        n, k = np.array([counts[value] for value in x], dtype=float).T
        wanted = next_round(asked, {"": Curve(x, k, n)}, rule, N)
        if wanted == asked:
            b0, b1 = fit_curve(x, k, n)
            return -b0 / b1, asked
        asked = wanted


def uniform_seeds(half: float, slope: float, target: float) -> int:
    """Seeds at each α of the uniform grid with which the fit reaches the target."""
    many = np.full(len(UNIFORM), 1e5)
    p = probability(slope * (UNIFORM - half))
    _, width = half_width_at_half(Curve(UNIFORM, p * many, many))
    return int(np.ceil(1e5 * (width / target) ** 2))


if __name__ == "__main__":
    main()
