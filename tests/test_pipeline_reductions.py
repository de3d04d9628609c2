"""Reductions of synthetic cubes with a known law of recovery."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.outcomes import split_constants
from pipeline.paired import compare_inits
from pipeline.recovery import describe_ends
from pipeline.recovery_curve import predictor_at, probability
from pipeline.reductions import (
    ReductionError,
    combine,
    control_name,
    count_outcomes,
    half_recovery,
    recovery_probability,
    reduce_cube,
    reduce_size,
)
from pipeline.transition import Crossing
from store.array_store import create_store
from store.cube import open_store
from store.keys import Grid
from store.reduced import read_reduced, write_reduced
from store.schema import Status

ALPHA = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
N = (64, 128, 256)
INITS = ("random", "spectral", "constrained")
HALF = np.array([[2.5, 2.0, 4.0], [2.8, 2.2, 4.5], [3.1, 2.4, 5.0]])
SLOPE = 6.0


def make_cube(
    seeds: int = 48,
    *,
    control: str = "alpha",
    replicas: int = 0,
    seed: int = 0,
    inits: Sequence[str] = INITS,
) -> xr.Dataset:
    """Finished cube with curves of the law, half at HALF[N, init]."""
    rng = np.random.default_rng(seed)
    dims = (control, "N", "seed", "init", *(("replica",) if replicas else ()))
    shape = (len(ALPHA), len(N), seeds, len(inits), *((replicas,) if replicas else ()))
    alpha = np.array(ALPHA).reshape(-1, 1, 1, 1)
    p = probability(SLOPE * (alpha / HALF[None, :, None, : len(inits)] - 1))
    if replicas:
        p = p[..., None]
    recovered = (rng.random(shape) < p).astype(np.int8)
    measurements = np.rint(np.outer(ALPHA, N)).astype(np.int64)
    return xr.Dataset(
        {
            "status": (dims, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (dims, recovered),
            "hit_time": (dims, np.where(recovered == 1, 10.0, np.inf)),
        },
        coords={
            control: (control, np.array(ALPHA), {"units": "1", "long_name": "M/N"}),
            "N": np.array(N),
            "seed": np.arange(seeds),
            "init": np.array(inits, dtype=np.dtypes.StringDType()),
            "M": ((control, "N"), measurements),
        },
    )


def with_constant(cubes: dict[float, xr.Dataset]) -> xr.Dataset:
    """Cubes of several a as one."""
    return xr.concat(
        list(cubes.values()),
        dim=xr.IndexVariable("a", list(cubes)),
        data_vars="all",
        coords="minimal",
        compat="override",
        join="exact",
    )


def set_status(cube: xr.Dataset, code: Status, **cells: object) -> None:
    """Cells of the cube, selected by label, that did not end with an outcome."""
    cube["status"].loc[cells] = int(code)
    cube["recovered"].loc[cells] = -1


def test_counts_are_those_of_the_cube() -> None:
    cube = make_cube()
    counts = count_outcomes(cube)
    assert counts["runs"].dims == ("alpha", "N", "init")
    assert (counts["runs"] == 48).all()
    assert (counts["failed"] == 0).all()
    xr.testing.assert_equal(counts["recovered"], (cube["recovered"] == 1).sum("seed"))
    assert counts["M"].sel(alpha=2.5, N=128) == 320
    assert all(counts[name].dtype == np.int64 for name in counts)


@pytest.mark.parametrize("pieces", [2, 5, 48])
def test_counts_add_over_any_split_of_the_seeds(pieces: int) -> None:
    cube = make_cube()
    set_status(cube, Status.FAILED, seed=slice(3, 9), init="random")
    owner = np.random.default_rng(1).integers(0, pieces, cube.sizes["seed"])
    parts = [count_outcomes(cube.isel(seed=owner == piece)) for piece in range(pieces)]
    total = sum(parts[1:], start=parts[0])
    xr.testing.assert_equal(total, count_outcomes(cube))
    xr.testing.assert_identical(
        recovery_probability(total)["probability_low"],
        recovery_probability(count_outcomes(cube))["probability_low"],
    )


def test_counts_of_blocks_are_the_blocks_of_the_counts() -> None:
    cube = make_cube()
    block = cube.sel(alpha=[2.5, 3.0], N=[128], init=["spectral"])
    xr.testing.assert_equal(
        count_outcomes(block),
        count_outcomes(cube).sel(alpha=[2.5, 3.0], N=[128], init=["spectral"]),
    )


def test_failed_runs_are_counted_apart() -> None:
    cube = make_cube()
    set_status(cube, Status.FAILED, alpha=2.5, N=128, seed=slice(0, 11), init="random")
    cell = count_outcomes(cube).sel(alpha=2.5, N=128, init="random")
    assert (int(cell["runs"]), int(cell["failed"])) == (36, 12)
    rest = cube["recovered"].sel(alpha=2.5, N=128, init="random", seed=slice(12, None))
    assert recovery_probability(cell.expand_dims("N"))["probability"].item() == rest.mean()


def with_ends(cube: xr.Dataset, **physics: object) -> xr.Dataset:
    """The cube with runs that did not recover and ended at t = 7, one of them at T = 100."""
    ends = xr.where(cube["recovered"] == 1, 11.0, 7.0)
    lost = np.argwhere(cube["recovered"].to_numpy() == 0)[0]
    ends[tuple(lost)] = 100.0
    return cube.assign(time_end=ends).assign_attrs(physics={"dynamics.T": 100.0, **physics})


def test_runs_that_ended_at_a_minimum_are_counted_and_told() -> None:
    cube = with_ends(make_cube(), **{"dynamics.stop_at_minimum": True})
    set_status(cube, Status.FAILED, alpha=3.0, N=128, seed=slice(0, 2), init="random")
    counts = count_outcomes(cube)
    lost = counts["runs"] - counts["recovered"]
    assert int((lost - counts["at_minimum"]).sum()) == 1
    assert (counts["at_minimum"] <= lost).all()
    reduced = reduce_cube(cube, resamples=20)
    all_lost = int(lost.sum())
    expected = f"of {all_lost} runs that did not recover {all_lost - 1} ended at a local minimum"
    assert describe_ends(reduced).startswith(expected)
    assert describe_ends(reduced).endswith("1 had not by T")
    assert reduced["horizon"].to_numpy() == pytest.approx([1 / 3, 1, 10 / 3, 10, 100 / 3, 100])
    later = cube.assign(time_end=cube["time_end"].clip(max=50.0))
    assert describe_ends(count_outcomes(later)).endswith("no later time adds to them")


@pytest.mark.parametrize("stops", [{}, {"dynamics.stop_at_minimum": False}])
def test_where_runs_go_on_to_the_end_no_minima_are_told(stops: dict[str, object]) -> None:
    reduced = reduce_cube(with_ends(make_cube(), **stops), resamples=20)
    assert "at_minimum" not in reduced
    assert describe_ends(reduced) == ""


def test_a_run_without_known_outcome_counts_as_failed() -> None:
    cube = make_cube()
    cube["recovered"].loc[{"alpha": 3.0, "N": 64, "seed": 5, "init": "random"}] = -1
    cell = count_outcomes(cube).sel(alpha=3.0, N=64, init="random")
    assert (int(cell["runs"]), int(cell["failed"])) == (47, 1)


@pytest.mark.parametrize("code", [Status.PENDING, Status.QUARANTINED])
def test_missing_cells_do_not_count(code: Status) -> None:
    cube = make_cube()
    set_status(cube, code, seed=slice(30, None))
    xr.testing.assert_equal(count_outcomes(cube), count_outcomes(cube.isel(seed=slice(0, 30))))
    xr.testing.assert_equal(reduce_cube(cube), reduce_cube(cube.isel(seed=slice(0, 30))))


def test_nothing_has_run_yet() -> None:
    cube = make_cube(4)
    set_status(cube, Status.PENDING, seed=slice(None))
    reduced = reduce_cube(cube)
    assert (reduced["runs"] == 0).all()
    assert reduced["probability"].isnull().all()
    assert reduced["probability_low"].isnull().all()
    assert (reduced["crossing"] == Crossing.TOO_FEW_POINTS).all()


def test_replicas_are_summed() -> None:
    cube = make_cube(20, replicas=3)
    counts = count_outcomes(cube)
    assert (counts["runs"] == 60).all()
    assert (counts["seeds"] == 20).all()
    assert int(counts["replicas"]) == 3
    assert half_recovery(cube)["alpha_half"].sel(N=128, init="random") == pytest.approx(
        2.8, abs=0.3
    )
    assert set(count_outcomes(make_cube(4))) == {"runs", "recovered", "failed"}


def test_sums_of_replicas_add_over_blocks_of_seeds() -> None:
    cube = make_cube(20, replicas=3)
    set_status(cube, Status.FAILED, seed=slice(3, 9), init="random", replica=[0, 2])
    set_status(cube, Status.PENDING, seed=4)
    parts = [count_outcomes(cube.isel(seed=cut)) for cut in (slice(0, 7), slice(7, None))]
    xr.testing.assert_equal(parts[0] + parts[1], count_outcomes(cube))
    whole = recovery_probability(count_outcomes(cube))
    xr.testing.assert_equal(recovery_probability(parts[0] + parts[1]), whole)
    cell = whole.sel(alpha=3.0, N=64, init="random")
    assert [int(cell[name]) for name in ("seeds", "runs", "failed")] == [19, 45, 12]


def test_replicas_that_agree_add_nothing_and_others_add_runs() -> None:
    alike = make_cube(48).expand_dims(replica=8, axis=-1)
    single, agreeing, apart = (
        reduce_cube(cube).drop_vars("replicas", errors="ignore")
        for cube in (make_cube(48), alike, make_cube(48, replicas=8))
    )
    width = {
        name: reduced["probability_high"] - reduced["probability_low"]
        for name, reduced in (("single", single), ("agreeing", agreeing), ("apart", apart))
    }
    xr.testing.assert_allclose(agreeing["probability"], single["probability"])
    assert float(abs(width["agreeing"] / width["single"] - 1).max()) < 0.05
    inside = single["probability"] * (1 - single["probability"]) > 0.02
    assert float((width["apart"] / width["single"]).where(inside).mean()) < 0.6
    assert float(agreeing["effective_runs"].where(inside).mean()) == pytest.approx(48, rel=0.1)
    assert float(apart["effective_runs"].where(inside).mean()) > 250
    assert (apart["effective_runs"] <= apart["runs"]).all()
    # The fits are the same, and their deviance is not that of eightfold evidence.
    xr.testing.assert_allclose(agreeing["alpha_half"], single["alpha_half"], rtol=0.02)
    assert float(agreeing["deviance"].mean()) < 1.3 * float(single["deviance"].mean())


def test_one_replica_is_as_none() -> None:
    single, axis = (reduce_cube(make_cube(20, replicas=K, seed=4)) for K in (0, 1))
    for name in single:
        xr.testing.assert_identical(
            axis[name].drop_vars("replicas", errors="ignore").drop_attrs(),
            single[name].drop_attrs(),
        )
    xr.testing.assert_equal(axis["effective_runs"], axis["runs"].astype(float))


def test_probability_and_interval_enclose_the_truth() -> None:
    reduced = recovery_probability(count_outcomes(make_cube(2000)))
    half = xr.DataArray(HALF, dims=("N", "init"))
    truth = xr.apply_ufunc(probability, SLOPE * (reduced["alpha"] / half - 1))
    assert float(abs(reduced["probability"] - truth).max()) < 0.05
    held = (reduced["probability_low"] <= truth) & (truth <= reduced["probability_high"])
    assert float(held.mean()) > 0.9


def test_half_points_are_those_of_the_law() -> None:
    halves = half_recovery(make_cube(1000))
    assert halves["alpha_half"].dims == ("N", "init")
    assert halves["alpha_half"].to_numpy() == pytest.approx(HALF, abs=0.1)
    assert (halves["crossing"] == Crossing.FITTED).all()
    held = (halves["alpha_half_low"] <= HALF) & (halves["alpha_half_high"] >= HALF)
    assert int(held.sum()) >= 7
    assert halves["curve_slope"].to_numpy() == pytest.approx(SLOPE / HALF, rel=0.15)
    width = HALF / SLOPE * (predictor_at(0.9) - predictor_at(0.1))
    assert halves["alpha_width"].to_numpy() == pytest.approx(width, rel=0.15)


def test_other_control_parameters_give_their_name() -> None:
    reduced = reduce_cube(make_cube(10, control="snr"))
    assert control_name(reduced) == "snr"
    assert {"snr_half", "snr_half_low", "snr_half_high", "snr_width"} <= set(reduced)


def test_reduce_cube_is_reduce_size_and_combine_in_any_order() -> None:
    cube = make_cube()
    parts = [reduce_size(cube.sel(N=[size])) for size in (256, 64, 128)]
    whole = reduce_cube(cube)
    xr.testing.assert_identical(combine(parts), whole)
    parts = [recovery_probability(count_outcomes(cube)), half_recovery(cube), compare_inits(cube)]
    xr.testing.assert_identical(xr.merge(parts, compat="identical", join="exact"), whole)
    assert whole["N"].to_numpy().tolist() == [64, 128, 256]
    assert whole["runs"].dims == ("alpha", "N", "init")


def test_appended_labels_come_out_sorted_and_change_nothing() -> None:
    cube = make_cube()
    rng = np.random.default_rng(2)
    shuffled = cube.isel(alpha=rng.permutation(len(ALPHA)), N=[2, 0, 1], seed=rng.permutation(48))
    xr.testing.assert_identical(reduce_cube(shuffled), reduce_cube(cube))
    # Initialisations have no order of their own: they keep the store's.
    turned = reduce_cube(cube.isel(init=[2, 0, 1]))
    assert turned["init"].to_numpy().tolist() == ["constrained", "random", "spectral"]
    xr.testing.assert_identical(turned.isel(init=[1, 2, 0]), reduce_cube(cube))


def test_results_are_reproducible_and_keep_when_the_grid_grows() -> None:
    cube = make_cube()
    xr.testing.assert_identical(reduce_cube(cube), reduce_cube(cube.copy(deep=True)))
    alone = reduce_cube(cube.sel(N=[128], init=["spectral"]))
    whole = reduce_cube(cube).sel(N=[128], init=["spectral"]).drop_dims("pair")
    xr.testing.assert_identical(alone, whole)


def test_only_status_and_recovered_are_needed_and_the_cube_is_left_alone() -> None:
    cube = make_cube(10)
    before = cube.copy(deep=True)
    small = reduce_cube(cube[["status", "recovered"]])
    xr.testing.assert_identical(reduce_cube(cube), small)
    xr.testing.assert_identical(cube, before)


@pytest.mark.parametrize("replicas", [0, 2])
def test_every_variable_has_units_and_a_long_name(replicas: int) -> None:
    reduced = reduce_cube(make_cube(10, replicas=replicas))
    for name in (*reduced, *(["replicas"] if replicas else [])):
        assert reduced[name].attrs["units"] == "1"
        assert len(reduced[name].attrs["long_name"]) > 10
    assert reduced["alpha"].attrs["long_name"] == "M/N"
    for name in ("curve_intercept", "curve_slope"):
        assert "b0 + b1 alpha" in reduced[name].attrs["long_name"]
    meanings = reduced["crossing"].attrs["flag_meanings"].split()
    assert meanings == [code.name.lower() for code in Crossing]
    assert reduced["crossing"].attrs["flag_values"] == [0, 1, 2, 3, 4, 5]


def test_a_dataset_with_other_axes_is_refused() -> None:
    cube = make_cube(4)
    for wrong in (cube.isel(alpha=0), cube.isel(N=0), cube.expand_dims("moment")):
        with pytest.raises(ReductionError, match="expected the axes N, init and one control"):
            count_outcomes(wrong)


def test_a_cube_without_status_is_refused() -> None:
    with pytest.raises(ReductionError, match=r"got none named \['status'\]"):
        reduce_cube(make_cube(4).drop_vars("status"))


def test_reduce_size_of_several_sizes_is_refused() -> None:
    with pytest.raises(ReductionError, match=r"expected one N, got \[64, 128, 256\]"):
        reduce_size(make_cube(4))


def test_combine_refuses_what_does_not_fit_together() -> None:
    cube = make_cube(6)
    small, large = (reduce_size(cube.sel(N=[size])) for size in (64, 128))
    with pytest.raises(ReductionError, match="expected at least one"):
        combine([])
    with pytest.raises(ReductionError, match=r"every N once, got \[64, 64\]"):
        combine([small, small])
    with pytest.raises(ReductionError, match="same labels of 'alpha'"):
        combine([small, large.isel(alpha=slice(1, None))])
    with pytest.raises(ReductionError, match="same labels of 'init'"):
        combine([small, large.isel(init=[1, 0, 2])])


@pytest.mark.parametrize("replicas", [0, 3])
def test_reductions_survive_the_store(tmp_path: Path, replicas: int) -> None:
    cube = make_cube(8, replicas=replicas)
    set_status(cube, Status.FAILED, alpha=2.5, seed=slice(0, 2))
    grid = Grid("alpha", ALPHA, N, tuple(range(8)), INITS, replicas or None)
    create_store(tmp_path / "a.zarr", grid, cube["M"].to_numpy(), block_seeds=8, attributes={})
    reduced = reduce_cube(cube)
    write_reduced(tmp_path / "a.zarr", reduced)
    again = read_reduced(tmp_path / "a.zarr")
    xr.testing.assert_equal(again.sel(init=list(INITS)), reduced)
    assert again["crossing"].attrs == reduced["crossing"].attrs
    # A store nobody has written to is a cube without runs.
    assert (reduce_cube(open_store(tmp_path / "a.zarr"))["runs"] == 0).all()


def test_every_value_of_a_constant_is_reduced_as_a_cube_of_its_own(tmp_path: Path) -> None:
    cubes = {1.0: make_cube(seed=1, replicas=2), 0.1: make_cube(seed=2, replicas=2)}
    cube = with_constant(cubes)
    cube.attrs = cubes[1.0].attrs
    assert control_name(cube) == control_name(reduce_size(cube.sel(N=[64]), resamples=5)) == "alpha"
    reduced = reduce_cube(cube, resamples=20)
    assert reduced.probability.dims == ("a", "alpha", "N", "init")
    assert reduced.alpha_half.dims == ("a", "N", "init")
    parts = list(split_constants(reduced))
    assert [constants for constants, _ in parts] == [{"a": 0.1}, {"a": 1.0}]
    for constants, part in parts:
        alone = reduce_cube(cubes[constants["a"]], resamples=20)
        xr.testing.assert_identical(part, alone)
        assert list(split_constants(alone)) == [({}, alone)]
    with pytest.raises(ReductionError, match="combine: expected the same labels of 'a' in every"):
        combine(
            [
                reduce_size(cube.sel(N=[64], a=[1.0]), resamples=5),
                reduce_size(cube.sel(N=[128]), resamples=5),
            ]
        )
    grid = Grid("alpha", ALPHA, N, tuple(range(48)), INITS, 2, (("a", (1.0, 0.1)),))
    create_store(tmp_path / "a.zarr", grid, cube.M.values, block_seeds=16, attributes={})
    write_reduced(tmp_path / "a.zarr", reduced)
    xr.testing.assert_equal(read_reduced(tmp_path / "a.zarr"), reduced)
