"""Limits of threshold states: the law is found again, its interval covers."""

import numpy as np
import pytest
import xarray as xr

from pipeline.threshold_fit import extrapolate_threshold, fit_limit
from store.schema import Status

SIZES = np.array([64.0, 128.0, 256.0])
TIMES = np.geomspace(1.0, 300.0, 12)
DIMS = ("alpha", "N", "seed", "init")


def make_store(seeds: int, noise: float, stream: int = 0) -> tuple[xr.Dataset, xr.Dataset]:
    """Energy 0.03 + 1/N + 0.2 t^(−0.7), edge −3/N − 2 t^(−1), beside noise of each run."""
    rng = np.random.default_rng(stream)
    shape = (1, len(SIZES), seeds, 1)
    coords = {"alpha": [3.0], "N": SIZES.astype(int), "seed": np.arange(seeds), "init": ["random"]}
    cube = xr.Dataset(
        {
            "status": (DIMS, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (DIMS, np.zeros(shape, dtype=np.int8)),
        },
        coords=coords,
    )
    inverse = 1 / SIZES[None, :, None, None, None]
    each = noise * rng.normal(size=(*shape, 1))
    along = {
        "loss_equator": 0.03 + inverse + 0.2 * TIMES**-0.7 + each,
        "bulk_edge_equator": -3 * inverse - 2 / TIMES + each,
    }
    return cube, xr.Dataset(
        {name: ((*DIMS, "time"), values) for name, values in along.items()},
        coords={**coords, "time": TIMES},
    )


def test_the_law_is_found_again() -> None:
    means = 0.5 - 2 / SIZES[:, None] + 3 * TIMES**-0.8
    fit = fit_limit(SIZES, TIMES, means, np.full(means.shape, 0.1))
    assert (fit.value, fit.size, fit.time, fit.exponent) == pytest.approx(
        (0.5, -2, 3, 0.8), rel=1e-3
    )
    assert fit.at(SIZES[:, None], TIMES) == pytest.approx(means, rel=1e-4)
    one = fit_limit(SIZES[:1], TIMES, means[:1], np.full((1, len(TIMES)), 0.1))
    assert one.size == 0
    assert one.value == pytest.approx(0.5 - 2 / 64, abs=1e-3)


def test_limits_of_a_store() -> None:
    found = extrapolate_threshold(*make_store(8, 1e-6), since=1.0, resamples=20).sel(alpha=3.0)
    assert float(found["energy"]) == pytest.approx(0.03, abs=1e-4)
    assert float(found["energy_exponent"]) == pytest.approx(0.7, abs=1e-2)
    assert float(found["edge"]) == pytest.approx(0, abs=1e-3)
    assert float(found["edge_size"]) == pytest.approx(-3, rel=1e-2)
    assert float(found["edge_low"]) <= float(found["edge"]) <= float(found["edge_high"])


@pytest.mark.slow
def test_the_interval_covers_at_its_level() -> None:
    covered = []
    for stream in range(200):
        found = extrapolate_threshold(*make_store(16, 0.01, stream), since=1.0, resamples=60)
        covered.append(float(found["energy_low"][0]) <= 0.03 <= float(found["energy_high"][0]))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.05)


def test_too_few_seeds_or_times_have_no_limit() -> None:
    assert np.isnan(float(extrapolate_threshold(*make_store(1, 0.01))["energy"][0]))
    assert np.isnan(float(extrapolate_threshold(*make_store(4, 0.01), since=200.0)["edge"][0]))
