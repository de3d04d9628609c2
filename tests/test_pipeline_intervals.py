"""Intervals of probabilities: against scipy, at their limits, and their coverage by simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from pipeline.intervals import SeedSums, effective_runs, wilson_interval


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 48), (1, 48), (24, 48), (47, 48), (48, 48)])
def test_wilson_interval_equals_scipy(k: int, n: int) -> None:
    low, high = wilson_interval(np.array([k]), np.array([n]))
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert [low[0], high[0]] == pytest.approx([expected.low, expected.high], abs=1e-12)
    assert 0.0 <= low[0] <= k / n <= high[0] <= 1.0


def test_wilson_interval_without_trials_is_nan() -> None:
    assert np.isnan(wilson_interval(np.array([0]), np.array([0]))).all()


@pytest.mark.parametrize("n", [16, 48, 300])
def test_wilson_interval_covers_the_truth_in_95_percent(n: int) -> None:
    k = np.arange(n + 1)
    low, high = wilson_interval(k, np.full(n + 1, n))
    truths = np.linspace(0.02, 0.98, 97)
    coverage = np.array([binom.pmf(k, n, p)[(low <= p) & (p <= high)].sum() for p in truths])
    assert coverage.mean() == pytest.approx(0.95, abs=0.01)
    assert coverage.min() > 0.83  # the known dips of the score interval near 0 and 1


def draw_counts(
    p: float, correlation: float, seeds: int, replicas: int, size: int
) -> NDArray[np.int64]:
    """Recovered replicas [seeds, size] that share the probability of their seed: beta-binomial."""
    rng = np.random.default_rng([seeds, replicas, round(100 * correlation), round(1000 * p)])
    shape = (seeds, size)
    if correlation == 0.0:
        return rng.binomial(replicas, p, shape)
    if correlation == 1.0:
        return replicas * rng.binomial(1, p, shape)
    weight = 1 / correlation - 1
    return rng.binomial(replicas, rng.beta(weight * p, weight * (1 - p), shape))


def sums_of(counts: NDArray[np.int64], replicas: int) -> SeedSums:
    return SeedSums.of(counts, np.full_like(counts, replicas))


def cover(
    p: float, correlation: float, seeds: int, replicas: int, size: int = 4000
) -> tuple[float, float]:
    """Coverage of the interval of effective runs, and of the one of as many independent runs."""
    sums = sums_of(draw_counts(p, correlation, seeds, replicas, size), replicas)
    worth = effective_runs(sums)
    ends = [wilson_interval(sums.recovered, sums.runs, n) for n in (worth, None)]
    right, naive = (float(np.mean((low <= p) & (p <= high))) for low, high in ends)
    return right, naive


def test_single_runs_are_worth_themselves() -> None:
    counts = draw_counts(0.3, 0.0, 48, 1, 50)
    sums = SeedSums.of(counts, np.ones_like(counts))
    np.testing.assert_array_equal(effective_runs(sums), np.full(50, 48.0))
    one, other = (
        wilson_interval(sums.recovered, sums.runs, n) for n in (None, effective_runs(sums))
    )
    np.testing.assert_array_equal(one, other)


def test_nothing_has_run() -> None:
    empty = np.zeros((5, 2), dtype=np.int64)
    sums = SeedSums.of(empty, empty)
    np.testing.assert_array_equal(effective_runs(sums), 0.0)
    assert np.isnan(wilson_interval(sums.recovered, sums.runs, effective_runs(sums))).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_replicas_are_worth_what_they_add(p: float) -> None:
    """Nothing where all of a seed agree, as much as seeds where they are independent."""
    agree = effective_runs(sums_of(draw_counts(p, 1.0, 200, 8, 100), 8))
    assert agree.mean() == pytest.approx(200, rel=0.05)
    independent = effective_runs(sums_of(draw_counts(p, 0.0, 200, 8, 100), 8))
    assert 0.85 * 1600 < independent.mean() <= 1600
    between = effective_runs(sums_of(draw_counts(p, 0.3, 200, 8, 100), 8))
    assert between.mean() == pytest.approx(1600 / (1 + 7 * 0.3), rel=0.1)


def test_runs_without_exception_do_not_show_that_replicas_are_independent() -> None:
    for recovered in (0, 8):
        sums = sums_of(np.full((48, 1), recovered), 8)
        assert 45 < effective_runs(sums)[0] < 150
    one = np.zeros((48, 1), dtype=np.int64)
    one[3] = 1
    few, none = (effective_runs(sums_of(counts, 8))[0] for counts in (one, 0 * one))
    assert none < few < 100  # of 384 runs


def test_a_single_seed_says_next_to_nothing() -> None:
    low, high = wilson_interval(
        np.array([4]), np.array([8]), effective_runs(sums_of(np.array([[4]]), 8))
    )
    assert (low[0] < 0.05, high[0] > 0.95) == (True, True)


def test_sums_add_over_seeds() -> None:
    counts = draw_counts(0.4, 0.3, 30, 4, 7)
    runs = np.random.default_rng(0).integers(4, 7, counts.shape)  # some replicas failed
    whole = SeedSums.of(counts, runs)
    parts = [SeedSums.of(counts[cut], runs[cut]) for cut in (slice(0, 11), slice(11, None))]
    for name, total in vars(whole).items():
        np.testing.assert_array_equal(sum(getattr(part, name) for part in parts), total)
    assert (effective_runs(whole) <= whole.runs).all()


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_interval_covers_the_truth_with_replicas(correlation: float) -> None:
    right, naive = cover(0.3, correlation, 48, 8)
    assert right > 0.935
    if correlation:
        assert naive < 0.85  # what taking replicas as independent would give


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, 8, 32])
@pytest.mark.parametrize("seeds", [8, 16, 48, 300])
def test_interval_covers_the_truth_at_its_level(seeds: int, replicas: int) -> None:
    """As well as the score interval of independent seeds, whose dips are at 0.91 here."""
    covered = [
        cover(p, correlation, seeds, replicas)[0]
        for p in (0.01, 0.05, 0.2, 0.5, 0.9)
        for correlation in (0.0, 0.05, 0.3, 0.7, 1.0)
    ]
    assert min(covered) > 0.90
    assert np.mean(covered) > 0.945
