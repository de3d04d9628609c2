"""Laws of α_½ against log N: simulated campaigns with a known truth."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from pipeline.collapse import collapse_quality
from pipeline.outcomes import ReductionError
from pipeline.recovery_curve import probability
from pipeline.scaling import LAWS, compare_laws, fit_scaling, judge
from pipeline.scaling_fit import Cells, as_cells, dispersion, fit_law, free_law
from pipeline.scaling_inputs import gain_tables, limit_of
from pipeline.scaling_laws import GainTable, candidate_laws

Floats = NDArray[np.float64]
ALPHA = np.arange(1.5, 7.6, 0.5)
LIMIT = 7.1
GAIN = GainTable(np.array([1.0, 2.0, 3.0, 5.0, 8.0]), np.array([0.0, 3.0, 5.0, 8.0, 11.0]))
TRUTHS: dict[str, Callable[[Floats], Floats]] = {
    "constant": lambda N: np.full_like(N, 3.0),
    "logarithm": lambda N: 0.8 + 0.45 * np.log(N),
    "inverse": lambda N: 6.0 - 15.0 / np.log(N),
    "approach": lambda N: LIMIT - 20.0 / np.log(N),
    "gain": lambda N: GAIN.control_at(np.log(N) + 0.5),
}


def simulate(
    law: str, sizes: list[float], runs: int, rng: np.random.Generator, *, power: float = 0.0
) -> Cells:
    """Counts of curves that steepen with N to a power."""
    N = np.array(sizes)
    c, size = np.meshgrid(ALPHA, N, indexing="ij")
    p = probability(2.2 * (size / 64) ** power * (c - TRUTHS[law](size)))
    return as_cells(ALPHA, N, rng.binomial(runs, p), np.full(p.shape, runs))


@pytest.mark.parametrize("law", LAWS)
def test_a_law_is_fitted_to_its_own_data_with_its_covariance(law: str) -> None:
    """Over repetitions, (estimate - truth)/error has mean 0 and variance 1."""
    rng = np.random.default_rng(1)
    (candidate,) = [each for each in candidate_laws(LIMIT, GAIN) if each.name == law]
    far, scores = np.array([300.0, 1e5]), []
    for _ in range(40):
        cells = simulate(law, [64.0, 256.0, 1024.0, 4096.0], 100, rng, power=0.05)
        fit = fit_law(candidate, cells)
        scores.append((fit.half(far) - TRUTHS[law](far)) / fit.half_error(far))
        assert fit.steepness[1] == pytest.approx(0.05, abs=0.2)
    assert np.mean(scores) == pytest.approx(0.0, abs=0.45)
    assert np.std(scores) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("law", LAWS)
def test_enough_data_leave_the_true_law_standing(law: str) -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(5):
        cells = simulate(law, [64.0, 256.0, 1024.0, 4096.0], 400, rng)
        found.append(
            {one.name for one in compare_laws(cells, candidate_laws(LIMIT, GAIN)).standing()}
        )
    assert sum(law in names for names in found) >= 4
    # a law with one more parameter that contains the true one cannot be excluded
    wider = {"constant": {"logarithm", "inverse"}, "approach": {"inverse"}}.get(law, set())
    assert all(names <= {law, *wider} for names in found), found


@pytest.mark.parametrize("law", ["logarithm", "approach"])
def test_few_sizes_or_runs_decide_nothing(law: str) -> None:
    rng = np.random.default_rng(3)
    undecided = 0
    for _ in range(10):
        scaling = compare_laws(simulate(law, [64.0, 128.0, 256.0], 40, rng), candidate_laws(LIMIT))
        names = {each.name for each in scaling.standing()}
        undecided += {"logarithm", "inverse"} <= names
        if len(names) > 1:
            assert "the data do not decide between" in judge("random", scaling)
    assert undecided >= 8


def test_a_true_law_is_seldom_excluded() -> None:
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(12):
        for law in ("logarithm", "inverse"):
            cells = simulate(law, [64.0, 128.0, 256.0, 512.0], 100, rng)
            wrong += law not in {
                one.name for one in compare_laws(cells, candidate_laws()).standing()
            }
    assert wrong <= 2


def test_sizes_that_never_recover_count_as_evidence() -> None:
    rng = np.random.default_rng(5)
    law = candidate_laws()[1]
    shape = (len(ALPHA), 1)
    cells = simulate("logarithm", [64.0, 128.0, 256.0], 60, rng)
    none = as_cells(ALPHA, np.array([1e6]), np.zeros(shape), np.full(shape, 20))
    names = ("control", "size", "recovered", "runs")
    both = Cells(*(np.concatenate([getattr(cells, n), getattr(none, n)]) for n in names))
    with_them = fit_law(law, both).half(np.array([1e6]))[0]
    assert with_them > ALPHA[-1] - 1.0
    assert both.sizes(mixed=True).tolist() == [64.0, 128.0, 256.0]


def test_dispersion_is_one_for_binomial_counts_and_the_excess_otherwise() -> None:
    rng = np.random.default_rng(6)
    found = []
    for _ in range(20):
        cells = simulate("logarithm", [64.0, 256.0, 1024.0], 50, rng)
        found.append(dispersion(fit_law(free_law(cells.sizes()), cells), cells))
    assert 1.0 <= np.mean(found) < 1.35
    fourfold = Cells(cells.control, cells.size, 4 * cells.recovered, 4 * cells.runs)
    assert dispersion(fit_law(free_law(cells.sizes()), fourfold), fourfold) > 2.0


def test_curves_of_one_shape_collapse_and_others_do_not() -> None:
    rng = np.random.default_rng(7)
    sizes = [64.0, 256.0, 1024.0]
    alike = [collapse_quality(simulate("logarithm", sizes, 100, rng)) for _ in range(20)]
    assert np.mean([one.low <= one.quality <= one.high for one in alike]) >= 0.8
    assert {one.words().split(" (")[0] for one in alike} >= {
        "shifted to their half points the curves collapse"
    }
    other = collapse_quality(simulate("logarithm", sizes, 400, rng, power=0.4))
    assert other.quality > other.high
    assert "do not collapse" in other.words()
    again = [
        collapse_quality(simulate("logarithm", sizes, 50, np.random.default_rng(8)))
        for _ in range(2)
    ]
    assert again[0] == again[1]


def test_curves_that_do_not_say_their_half_point_take_no_part() -> None:
    """Few runs: simulated counts are now and then alike on all points, or fall."""
    sizes = np.array([12.0, 16.0])
    cells = as_cells(np.array([2.0, 5.0]), sizes, np.array([[1, 2], [4, 5]]), np.full((2, 2), 7))
    found = collapse_quality(cells)
    assert np.isfinite([found.quality, found.low, found.high]).all()
    flat = as_cells(np.array([2.0, 5.0]), sizes, np.array([[1, 4], [1, 4]]), np.full((2, 2), 7))
    assert collapse_quality(flat).words() == "curves of different sizes do not overlap"


def reduced_of(counts: dict[str, Cells], sizes: list[int], runs: int) -> xr.Dataset:
    shape = (len(ALPHA), len(sizes))
    recovered = np.stack([cells.recovered.reshape(shape) for cells in counts.values()], axis=-1)
    dims = ("alpha", "N", "init")
    return xr.Dataset(
        {"recovered": (dims, recovered), "runs": (dims, np.full(recovered.shape, runs))},
        coords={"alpha": ALPHA, "N": sizes, "init": list(counts)},
    )


def test_the_dataset_holds_what_was_judged_and_says_it() -> None:
    rng = np.random.default_rng(9)
    sizes = [64, 128, 256, 512]
    counts = {"random": simulate("logarithm", [*map(float, sizes)], 80, rng)}
    reduced = reduced_of(counts, sizes, 80)
    scaling = fit_scaling(reduced, limit=LIMIT, gains={"random": GAIN})
    one = scaling.sel(init="random")
    for law in compare_laws(counts["random"], candidate_laws(LIMIT, GAIN)).laws:
        stored = one.sel(law=law.name)
        assert float(stored["law_aic"]) == pytest.approx(law.aic)
        half = float(law.fit.half(np.array([64.0]))[0])
        assert float(stored["law_half"].sel(size=64, method="nearest")) == pytest.approx(half)
        assert (stored["law_half_low"] <= stored["law_half_high"]).all()
    rate = one["law_parameter"].sel(law="logarithm", term="rate")
    error = np.sqrt(one["law_covariance"].sel(law="logarithm", term="rate", term_other="rate"))
    assert float(abs(rate - 0.45) / error) < 3.0
    words = str(one["verdict"].item())
    assert words.startswith("random: α½ moves by +0.4")
    assert "per e-fold of N over N = 64 to 512, 4 sizes" in words
    for name in scaling:
        assert len(scaling[name].attrs["long_name"]) > 5, name
    with pytest.raises(ReductionError):
        fit_scaling(reduced.isel(alpha=0))


def test_one_size_says_nothing_and_two_do_not_tell_laws_apart() -> None:
    rng = np.random.default_rng(10)
    one = compare_laws(simulate("logarithm", [64.0], 50, rng), candidate_laws())
    assert "nothing can be said" in judge("random", one)
    two = compare_laws(simulate("logarithm", [64.0, 512.0], 50, rng), candidate_laws())
    assert "two sizes cannot tell one law from another" in judge("random", two)
    assert len(two.standing()) >= 2


def test_gain_tables_are_of_the_largest_gain_and_rise() -> None:
    dims = ("alpha", "N", "seed", "init", "time")
    rng = np.random.default_rng(11)
    growth = np.exp(np.array([1.0, 2.0, 2.5, 4.0]))[:, None, None, None, None]
    time = np.array([0.2, 1.0, 0.5])
    gain = growth * time * np.exp(0.01 * rng.standard_normal((4, 2, 5, 1, 1)))
    along = xr.Dataset(
        {"gain": (dims, gain * np.array([1, -1, 1]))},
        coords={"alpha": [1.0, 2.0, 3.0, 4.0], "N": [8, 16], "init": ["random"], "time": time},
    )
    table = gain_tables(along)["random"]
    assert table.control.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert table.doubled_log == pytest.approx([2.0, 4.0, 5.0, 8.0], abs=0.05)
    flat = along.assign(gain=along["gain"].where(along["alpha"] != 3.0, 0.01))
    assert gain_tables(flat)["random"].control.tolist() == [1.0, 2.0, 4.0]
    assert gain_tables(along.drop_vars("gain")) == {}
    assert gain_tables(along.isel(alpha=[0])) == {}


@pytest.mark.parametrize(
    ("control", "doubled_log", "message"),
    [
        ([1.0], [2.0], "two or more ascending values"),
        ([2.0, 1.0], [1.0, 2.0], "two or more ascending values"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], "two or more ascending values"),
        ([1.0, 2.0], [2.0, 2.0], "rises with the control parameter"),
    ],
)
def test_a_table_that_does_not_rise_is_refused(
    control: list[float], doubled_log: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        GainTable(np.array(control), np.array(doubled_log))


def test_the_limit_is_that_of_threshold_states() -> None:
    physics = {"model": "phase_retrieval", "parameters.a": 1.0}
    assert limit_of(physics) == pytest.approx(7.1, abs=0.02)
    assert limit_of({"model": "phase_retrieval"}) is None
    assert limit_of({}) is None
