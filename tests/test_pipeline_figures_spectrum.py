"""The figure of the Hessian's spectral density, of made-up stores."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from pipeline.figures_spectrum import has_spectrum, spectrum_figure
from pipeline.reductions import reduce_cube
from pipeline.results import Results
from pipeline.theory.density import spectral_density
from pipeline.theory.laws import gaussian_law
from store.schema import Status

ALPHA = np.array([1.0, 2.0, 3.0, 4.0])
TIMES = np.array([0.0, 1.0, 10.0])
X = np.linspace(-6.0, 20.0, 60)
DIMS = ("alpha", "N", "seed", "init")


def make_results(times: np.ndarray = TIMES, inits: tuple[str, ...] = ("random",)) -> Results:
    """The density at a random start of a = 1, moved to the right in time; a little noise."""
    shape = (len(ALPHA), 2, 4, len(inits))
    coords = {"alpha": ALPHA, "N": [64, 128], "seed": np.arange(4), "init": list(inits)}
    cube = xr.Dataset(
        {
            "status": (DIMS, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (DIMS, np.zeros(shape, dtype=np.int8)),
        },
        coords=coords,
    )
    law = gaussian_law(1.0)
    moved = [spectral_density(law, ALPHA[:, None], X - 0.3 * k) for k in range(len(times))]
    density = np.stack(moved, axis=1)[:, None, None, None]
    noise = 0.002 * np.random.default_rng(0).random((*shape, len(times), len(X)))
    spectrum = xr.Dataset(
        {"density": ((*DIMS, "snapshot", "eigenvalue"), density + noise * (density > 1e-4))},
        coords={**coords, "snapshot": times, "eigenvalue": X},
    )
    physics = {"model": "phase_retrieval", "parameters.a": 1.0}
    return Results(cube, reduce_cube(cube), physics, spectrum=spectrum)


def test_densities_of_the_largest_size_with_theory_at_the_start() -> None:
    results = make_results()
    figure = spectrum_figure(results)
    assert len(figure.axes) == 8
    assert results.spectrum is not None
    for axes in (figure.axes[2], figure.axes[6]):
        *measured, theory = axes.lines
        assert len(measured) == 3
        expected = results.spectrum["density"].sel(alpha=3.0, N=128, snapshot=1.0, init="random")
        assert measured[1].get_ydata() == pytest.approx(expected.mean("seed").to_numpy())
        x, y = theory.get_data()
        assert np.interp(0.0, x, y) == pytest.approx(
            float(spectral_density(gaussian_law(1.0), 3.0, 0.0)), rel=0.01
        )
    low, high = figure.axes[6].get_xlim()
    assert low < -5.6
    below = results.spectrum["density"].sel(alpha=3.0, N=128).mean(["seed", "snapshot"])
    share = below.where(below["eigenvalue"] < high, 0).sum() / below.sum()
    assert float(share) == pytest.approx(0.9, abs=0.02)


def test_no_theory_without_a_start() -> None:
    assert len(spectrum_figure(make_results(TIMES[1:])).axes[0].lines) == 2


def test_no_text_lies_on_another(
    overlapping_texts: Callable[[Figure], list[tuple[str, str]]],
) -> None:
    assert overlapping_texts(spectrum_figure(make_results())) == []


def test_it_wants_spectra_of_random_starts() -> None:
    results = make_results()
    assert has_spectrum(results)
    assert not has_spectrum(make_results(inits=("spectral",)))
    assert not has_spectrum(Results(results.cube, results.reduced, {}))
    assert results.spectrum is not None
    results.spectrum["density"][:] = np.nan
    assert not has_spectrum(results)
