"""Pairs of initialisations: the exact test against scipy, intervals by simulated coverage."""

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import binomtest

from pipeline.paired import compare_inits, difference_interval, sign_test
from store.schema import Status

INITS = ("spectral", "random", "constrained")  # not in the order of the alphabet


def make_cube(recovered: NDArray[np.integer]) -> xr.Dataset:
    """Cube of one α and N from outcomes [seeds, inits] or [seeds, inits, replicas]."""
    dims = ("alpha", "N", "seed", "init", "replica")[: recovered.ndim + 2]
    values = recovered[None, None].astype(np.int8)
    return xr.Dataset(
        {
            "status": (dims, np.full(values.shape, int(Status.DONE), np.int8)),
            "recovered": (dims, values),
        },
        coords={
            "alpha": [2.5],
            "N": [64],
            "seed": range(len(recovered)),
            "init": list(INITS[: recovered.shape[1]]),
        },
    )


def test_pairs_are_counted_on_the_same_seeds() -> None:
    #                     spectral, random, constrained
    outcomes = np.array([[1, 0, 0]] * 9 + [[1, 1, 0]] * 4 + [[0, 1, 0]] * 2 + [[0, 0, 0]] * 5)
    compared = compare_inits(make_cube(outcomes)).isel(alpha=0, N=0)
    assert compared["pair"].to_numpy().tolist() == [
        "random-constrained",
        "spectral-constrained",
        "spectral-random",
    ]
    pair = compared.sel(pair="spectral-random")
    assert [int(pair[name]) for name in ("paired_seeds", "gained", "lost")] == [20, 9, 2]
    assert float(pair["gain"]) == pytest.approx(7 / 20)
    assert float(pair["gain_p"]) == pytest.approx(binomtest(2, 11).pvalue, rel=1e-12)
    assert float(pair["gain_low"]) > 0


def test_the_order_of_the_store_and_unknown_runs_change_nothing() -> None:
    rng = np.random.default_rng(1)
    cube = make_cube(rng.integers(0, 2, (30, 3)))
    xr.testing.assert_identical(compare_inits(cube.isel(init=[2, 0, 1])), compare_inits(cube))
    cube["status"].loc[{"seed": [3, 4], "init": "random"}] = int(Status.FAILED)
    cube["status"].loc[{"seed": [5], "init": "spectral"}] = int(Status.PENDING)
    compared = compare_inits(cube).isel(alpha=0, N=0)
    assert compared["paired_seeds"].to_numpy().tolist() == [28, 29, 27]
    whole = cube.sel(seed=[s for s in range(30) if s not in (3, 4, 5)])
    xr.testing.assert_identical(
        compare_inits(whole).isel(alpha=0, N=0, pair=2), compared.isel(pair=2)
    )


def test_nothing_and_one_initialisation() -> None:
    cube = make_cube(np.zeros((4, 3), int))
    cube["status"][:] = int(Status.PENDING)
    compared = compare_inits(cube)
    assert (compared["paired_seeds"] == 0).all()
    assert np.isnan(compared["gain"]).all()
    assert np.isnan(compared["gain_low"]).all()
    assert (compared["gain_p"] == 1).all()
    assert not compare_inits(make_cube(np.zeros((4, 1), int)))


def test_the_sign_test_is_exact() -> None:
    for gained, lost in ((0, 0), (1, 0), (5, 5), (12, 3), (0, 40)):
        expected = binomtest(lost, gained + lost).pvalue if gained + lost else 1.0
        assert sign_test(np.array(gained), np.array(lost)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("replicas", [0, 4])
@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.8, 0.3), (0.03, 0.0)])
def test_the_interval_of_the_difference_holds_the_truth(p: float, q: float, replicas: int) -> None:
    """Outcomes share a seed's difficulty, as those of a real instance do."""
    rng = np.random.default_rng(3)
    repeats, seeds = 2000, 40
    difficulty = rng.random((repeats, seeds, 1))
    own = rng.random((2, repeats, seeds, replicas or 1))
    shared = rng.random((2, repeats, seeds, replicas or 1)) < 0.5
    level = np.where(shared, difficulty, own)
    d = ((level[0] < p).astype(float) - (level[1] < q)).mean(axis=-1)
    mean, low, high = difference_interval(
        d.sum(axis=1), (d * d).sum(axis=1), np.full(repeats, seeds)
    )
    assert mean.mean() == pytest.approx(p - q, abs=0.01)
    held = (low <= p - q) & (p - q <= high)
    assert 0.93 < held.mean() <= 1.0
    if p == 0.5:
        assert held.mean() < 0.985


def test_replicas_of_a_seed_count_as_one_seed() -> None:
    rng = np.random.default_rng(5)
    outcomes = rng.integers(0, 2, (25, 3))
    single = compare_inits(make_cube(outcomes))
    alike = compare_inits(make_cube(np.repeat(outcomes[..., None], 8, axis=-1)))
    xr.testing.assert_allclose(alike, single)
