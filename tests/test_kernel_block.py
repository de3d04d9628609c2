"""One block: the schema's names, seeds that stand alone, failures as values."""

from dataclasses import replace

import numpy as np
import pytest

import pipeline.kernel.block as block_module
import pipeline.kernel.flow as flow_module
from pipeline.kernel.block import BlockResult, Dynamics, Task
from pipeline.kernel.flow import Flow
from pipeline.kernel.inits import INITS
from pipeline.kernel.observables import hessian_snapshot
from pipeline.kernel.phase_retrieval import draw_instances, draw_starts
from store.schema import RESULTS, check_results

FLOW = Dynamics(
    method="flow",
    duration=20.0,
    tolerance=1e-2,
    learning_rate=0.0,
    constrained_time=30.0,
    dtype="float64",
)
DESCENT = replace(FLOW, method="descent", tolerance=0.0, learning_rate=0.01)
CODES = ("recovered", "instances")


def streams(*seeds):
    return tuple(np.random.SeedSequence(71, spawn_key=(7, seed)) for seed in seeds)


def task(*seeds, n=32, alpha=3.5, inits=INITS, dynamics=FLOW, a=1.0):
    return Task(
        a=a,
        dimension=n,
        measurements=round(alpha * n),
        streams=streams(*(seeds or range(5))),
        inits=inits,
        dynamics=dynamics,
    )


def run_block(task):
    """Without the axis of replicas, which has one label here."""
    result = block_module.run_block(task)
    assert result.finished.shape == (len(task.streams), len(task.inits), 1)
    assert not result.trajectory
    return BlockResult(
        {name: values[..., 0] for name, values in result.values.items()},
        result.finished[..., 0],
        {place[:2]: reason for place, reason in result.failures.items()},
        {},
    )


def numbers(result):
    """Its values but the clock's."""
    return {name: values for name, values in result.values.items() if name != "seconds"}


def assert_same(one, other):
    for name, values in numbers(one).items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


@pytest.mark.parametrize("dynamics", [FLOW, DESCENT, replace(FLOW, dtype="float32")])
def test_names_shapes_types_and_ranges(dynamics):
    result = run_block(task(dynamics=dynamics))
    check_results(result.values, (5, 3), "block")
    assert set(result.values) == set(RESULTS)
    assert result.finished.all()
    assert not result.failures
    values = result.values
    for name, column in values.items():
        assert column.dtype == (np.int8 if name in CODES else np.float64)
        assert not np.isnan(column).any()
    assert np.isin(values["recovered"], (0, 1)).all()
    assert values["recovered"].any()
    hit = values["recovered"] == 1
    np.testing.assert_array_equal(np.isfinite(values["hit_time"]), hit)
    assert np.all(values["hit_time"][hit] <= 20)
    np.testing.assert_array_equal(values["overlap"] >= 0.99, hit)
    assert np.all(values["overlap"] <= 1 + 1e-6)
    assert np.all(values["loss"] >= 0)
    assert values["loss"][hit].max() < 0.01
    for moment in ("start", "end"):
        assert np.all(values[f"lambda1_{moment}"] <= values[f"lambda2_{moment}"])
        assert np.all((values[f"alignment_{moment}"] >= 0) & (values[f"alignment_{moment}"] <= 1))
        assert np.all(values[f"residual_{moment}"] < 1e-3)
    np.testing.assert_array_equal(values["gradients_init"][:, 0], 0)
    assert np.all(values["gradients_init"][:, 1:] > 10)
    np.testing.assert_array_equal(values["instances"], 0)
    assert np.all(values["seconds"] > 0)


@pytest.mark.parametrize("n", [32, 150])
def test_values_against_the_parts_called_by_hand(n):
    """Random starts of a block are those of the streams; X and w* are shared by the inits."""
    result = run_block(task(0, 1, 2, n=n, inits=("random", "spectral")))
    labels, owner = streams(0, 1, 2), np.arange(3)
    landscape = draw_instances(
        labels, measurements=round(3.5 * n), dimension=n, a=1.0, dtype=np.dtype(float)
    )
    w0, probe = (draw_starts(labels, purpose, n, np.dtype(float)) for purpose in ("start", "probe"))
    at_start = hessian_snapshot(landscape, w0, owner, probe)
    spectral = np.sqrt(n) * at_start.lowest
    starts = np.stack([w0, spectral], axis=1).reshape(6, n)
    six = np.repeat(owner, 2)
    run = Flow(landscape, 20.0, 1e-2).run(starts, six)
    gradient, predictions = landscape.gradient(run.w, six)
    at_end = hessian_snapshot(landscape, run.w, six, probe[six])
    expected = {
        "hit_time": run.hit_time,
        "gradients": run.gradients,
        "overlap": np.abs(landscape.overlap(run.w, six)),
        "loss": landscape.loss(predictions, six),
        "multiplier": np.vecdot(run.w, gradient) / n,
        "lambda1_end": at_end.lambda1,
        "lambda2_end": at_end.lambda2,
        "alignment_end": at_end.alignment,
        "recovered": np.isfinite(run.hit_time),
    }
    for name, column in expected.items():
        np.testing.assert_allclose(
            result.values[name].ravel(), column, rtol=1e-6, atol=1e-6, err_msg=name
        )
    np.testing.assert_array_equal(result.values["lambda1_start"][:, 0], at_start.lambda1)
    at_spectral = hessian_snapshot(landscape, spectral, owner, probe)
    np.testing.assert_allclose(result.values["lambda1_start"][:, 1], at_spectral.lambda1, rtol=1e-6)
    np.testing.assert_array_equal(result.values["gradients_init"][:, 1], at_start.products)


@pytest.mark.parametrize("dynamics", [FLOW, DESCENT, replace(FLOW, dtype="float32")])
@pytest.mark.parametrize("n", [32, 150])
def test_a_seed_does_not_depend_on_the_other_seeds_of_its_block(n, dynamics):
    """To the last bit, in the dense and in the Lanczos regime; so blocks may be cut anywhere."""
    dynamics = replace(dynamics, duration=2.0, constrained_time=3.0)
    together = run_block(task(*range(5), n=n, dynamics=dynamics))
    for seeds in ([0], [4], [1, 3], [2, 3, 4]):
        alone = run_block(task(*seeds, n=n, dynamics=dynamics))
        assert_same(alone, {name: values[seeds] for name, values in together.values.items()})


GOLDEN = {
    "hit_time": [[12.0172723, 3.63533119, np.inf], [19.8856555, 5.57630432, np.inf]],
    "loss": [
        [0.000716757105, 0.00126282776, 0.0656061379],
        [0.00172570512, 0.000916348287, 0.0431804721],
    ],
    "lambda1_start": [
        [-9.10978093, -1.67445781, -0.104896534],
        [-6.11681353, -4.48179956, -0.0086191617],
    ],
    "lambda1_end": [
        [0.258304661, 0.214704966, -0.0276953775],
        [0.294505659, 0.295404257, 0.0856769294],
    ],
}


def test_golden_values():
    """If they must change, so must KERNEL_VERSION: stores of the old numbers are then refused."""
    result = run_block(task(0, 1))
    assert block_module.KERNEL_VERSION == "1"
    for name, expected in GOLDEN.items():
        # other processors and BLAS kernels round differently, and the flow amplifies it
        np.testing.assert_allclose(
            result.values[name], expected, rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_same_task_gives_the_same_numbers():
    assert_same(run_block(task(0, 1)), run_block(task(0, 1)).values)


def test_a_block_larger_than_what_is_advanced_together_is_cut(monkeypatch):
    """Seeds in several parts: same numbers, failures under the right seed."""
    whole = run_block(task())
    monkeypatch.setattr(block_module, "_TOGETHER_BYTES", 2 * 32 * 112 * 8)  # two instances
    assert_same(whole, run_block(task()).values)
    monkeypatch.setattr(flow_module, "_MOST_GRADIENTS", 60)
    cut = run_block(task())
    assert 0 < len(cut.failures) < 15
    assert set(cut.failures) == set(zip(*np.nonzero(~cut.finished), strict=True))


@pytest.mark.parametrize("inits", [("random",), ("constrained",), ("spectral", "random")])
def test_a_subset_of_the_initialisations_agrees_with_all_of_them(inits):
    """Up to rounding, as other rows share the products: starts alike, outcomes too."""
    every, some = run_block(task()), run_block(task(inits=inits))
    columns = [INITS.index(init) for init in inits]
    for name, values in numbers(some).items():
        expected = every.values[name][:, columns]
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_float32_agrees_with_float64_to_its_accuracy():
    dynamics = replace(FLOW, tolerance=1e-3, duration=5.0)
    double = run_block(task(n=64, dynamics=dynamics)).values
    single = run_block(task(n=64, dynamics=replace(dynamics, dtype="float32"))).values
    for name in ("lambda1_start", "lambda2_start", "alignment_start"):
        np.testing.assert_allclose(single[name][:, 0], double[name][:, 0], atol=2e-3)
    np.testing.assert_array_equal(single["recovered"], double["recovered"])
    hit = double["recovered"] == 1
    np.testing.assert_allclose(single["hit_time"][hit], double["hit_time"][hit], rtol=0.01)
    for name in ("overlap", "loss"):
        np.testing.assert_allclose(single[name], double[name], atol=0.02, err_msg=name)


def test_constrained_runs_start_at_the_equator_near_marginality():
    dynamics = replace(FLOW, constrained_time=200.0, duration=1e-6)
    values = run_block(task(n=64, inits=("random", "constrained"), dynamics=dynamics)).values
    assert values["overlap"][:, 1].max() < 1e-6  # nothing has happened since the release
    assert np.abs(values["lambda1_start"][:, 1]).max() < 0.5
    assert values["lambda1_start"][:, 0].max() < -3
    assert values["loss"][:, 1].max() < values["loss"][:, 0].min()


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(ValueError, match=r"init: expected one of random, .*, got 'lucky'"):
        run_block(task(inits=("random", "lucky")))


# -- failures -------------------------------------------------------------------------------------


def check_failed(result, where, reason):
    seeds, inits = where
    assert not result.finished[seeds, inits].any()
    for seed, init in zip(seeds, inits, strict=True):
        assert result.failures[seed, init] == reason
    for name, values in result.values.items():
        if name in CODES:
            np.testing.assert_array_equal(values[seeds, inits], -1, err_msg=name)
        elif name != "seconds":
            assert np.isnan(values[seeds, inits]).all(), name
    check_results(result.values, result.finished.shape, "block")


def test_failures_are_reported_as_values(monkeypatch):
    monkeypatch.setattr(flow_module, "_MOST_GRADIENTS", 60)
    result = run_block(task())
    failed = ~result.finished
    assert failed.any()
    assert not failed.all()
    check_failed(result, np.nonzero(failed), "TOO_MANY_GRADIENTS")
    assert len(result.failures) == failed.sum()
    for name, values in numbers(result).items():
        assert not np.isnan(values[~failed]).any(), name


def test_a_block_whose_runs_all_fail(monkeypatch):
    monkeypatch.setattr(flow_module, "_MOST_GRADIENTS", 3)
    result = run_block(task(0, 1, dynamics=replace(FLOW, duration=1000.0, tolerance=1e-6)))
    assert not result.finished.any()
    check_failed(result, np.nonzero(~result.finished), "TOO_MANY_GRADIENTS")


def test_a_start_that_fails_leaves_the_other_starts_alone(monkeypatch):
    """The relaxation on the equator takes more gradients than the short runs after it."""
    dynamics = replace(FLOW, duration=0.5, constrained_time=200.0)
    without = run_block(task(0, 1, dynamics=dynamics))
    monkeypatch.setattr(flow_module, "_MOST_GRADIENTS", 80)
    result = run_block(task(0, 1, dynamics=dynamics))
    np.testing.assert_array_equal(result.finished, [[True, True, False]] * 2)
    check_failed(result, (np.array([0, 1]), np.array([2, 2])), "TOO_MANY_GRADIENTS")
    for name, values in numbers(result).items():
        np.testing.assert_allclose(
            values[:, :2], without.values[name][:, :2], rtol=1e-6, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("n", [32, 150])
def test_an_instance_that_is_not_finite_is_a_failure_and_not_an_exception(n, monkeypatch):
    """Its runs are reported; the other seeds are as ever, to the last bit."""
    dynamics = replace(FLOW, duration=2.0, constrained_time=3.0)
    sound = run_block(task(0, 1, 2, n=n, dynamics=dynamics))
    draw = block_module.draw_instances

    def spoiled(*args, **options):
        landscape = draw(*args, **options)
        landscape.weights[1, 0] = np.nan
        return landscape

    monkeypatch.setattr(block_module, "draw_instances", spoiled)
    result = run_block(task(0, 1, 2, n=n, dynamics=dynamics))
    check_failed(result, (np.array([1, 1, 1]), np.array([0, 1, 2])), "NOT_FINITE")
    for name, values in numbers(result).items():
        np.testing.assert_array_equal(values[[0, 2]], sound.values[name][[0, 2]], err_msg=name)


def test_a_very_sharp_loss_stays_finite():
    sharp = replace(FLOW, dtype="float32", duration=0.1, constrained_time=0.1)
    assert run_block(task(0, 1, a=1e-60, dynamics=sharp)).finished.all()
