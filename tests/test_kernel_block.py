"""One block: the schema's names, seeds that stand alone, failures as values."""

from dataclasses import replace

import numpy as np
import pytest

import pipeline.kernel.block as block_module
import pipeline.kernel.integrator as integrator_module
from pipeline.kernel import models as models_module
from pipeline.kernel.along import EQUATOR, PREDICTED
from pipeline.kernel.arrays import NUMPY
from pipeline.kernel.batch import off_signal, on_sphere
from pipeline.kernel.block import Dynamics, Task, run_block
from pipeline.kernel.flow import Flow
from pipeline.kernel.gain import signal_gain
from pipeline.kernel.inits import INITS
from pipeline.kernel.models import PhaseRetrievalModel
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


def task(*seeds, n=32, alpha=3.5, inits=INITS, dynamics=FLOW, a=1.0, instances="dense", **options):
    return Task(
        PhaseRetrievalModel(a, n, round(alpha * n), instances),
        streams=streams(*(seeds or range(5))),
        inits=inits,
        dynamics=dynamics,
        **options,
    )


def only_replica(result):
    """Its values [seeds, inits], of a block with one replica."""
    assert all(column.shape[2:] == (1,) for column in result.values.values())
    return {name: column[:, :, 0] for name, column in result.values.items()}


def numbers(result):
    """Its values but the clock's."""
    return {name: values for name, values in result.values.items() if name != "seconds"}


def assert_same(one, other):
    for name, values in numbers(one).items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


@pytest.mark.parametrize("dynamics", [FLOW, DESCENT, replace(FLOW, dtype="float32")])
def test_names_shapes_types_and_ranges(dynamics):
    result = run_block(task(dynamics=dynamics))
    values = only_replica(result)
    check_results(values, (5, 3), "block")
    assert set(values) == set(RESULTS)
    assert result.finished.shape == (5, 3, 1)
    assert result.finished.all()
    assert not result.failures
    assert result.trajectory == {}
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
        assert np.all(values[f"residual_{moment}"] < 1e-4)  # dense, so to rounding
    np.testing.assert_array_equal(values["gradients_init"][:, 0], 0)
    assert np.all(values["gradients_init"][:, 1:] > 10)
    np.testing.assert_array_equal(values["instances"], 0)
    np.testing.assert_array_equal(values["directions"], 32)
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
    values = only_replica(result)
    np.testing.assert_array_equal(values["lambda1_start"][:, 0], at_start.lambda1)
    at_spectral = hessian_snapshot(landscape, spectral, owner, probe)
    np.testing.assert_allclose(values["lambda1_start"][:, 1], at_spectral.lambda1, rtol=1e-6)
    np.testing.assert_array_equal(values["gradients_init"][:, 1], at_start.products)


@pytest.mark.parametrize("dynamics", [FLOW, DESCENT, replace(FLOW, dtype="float32")])
@pytest.mark.parametrize("n", [32, 150])
def test_a_seed_does_not_depend_on_the_other_seeds_of_its_block(n, dynamics):
    """To the last bit, in the dense and in the Lanczos regime; so blocks may be cut anywhere."""
    dynamics = replace(dynamics, duration=1.0, constrained_time=1.5)
    options = {"n": n, "dynamics": dynamics, "replicas": 2, "times": (0.0, 0.3, 1.0), "gain": True}
    together = run_block(task(*range(3), **options))
    for seeds in ([1], [0, 2]):
        alone = run_block(task(*seeds, **options))
        assert_same(alone, {name: values[seeds] for name, values in together.values.items()})
        for name, along in alone.trajectory.items():
            np.testing.assert_array_equal(along, together.trajectory[name][seeds], err_msg=name)


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

GOLDEN_ABOVE_DENSE = {  # N = 150, where Lanczos finds the eigenpairs and the spectral start
    "hit_time": [[np.inf, 3.25474144, np.inf]],
    "loss": [[0.02765835, 0.000945158, 0.057838478]],
    "lambda1_start": [[-6.906003114, -4.361728689, -0.014755098]],
    "lambda1_end": [[-0.272453202, 0.307811766, -0.07750489]],
}


def test_golden_values():
    """If they must change, so must KERNEL_VERSION: stores of the old numbers are then refused."""
    values = only_replica(run_block(task(0, 1)))
    assert block_module.KERNEL_VERSION == "1"
    for name, expected in GOLDEN.items():
        # other processors and BLAS kernels round differently, and the flow amplifies it
        np.testing.assert_allclose(values[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    values = only_replica(run_block(task(0, n=150, dynamics=replace(FLOW, duration=5.0))))
    for name, expected in GOLDEN_ABOVE_DENSE.items():
        np.testing.assert_allclose(values[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_same_task_gives_the_same_numbers():
    assert_same(run_block(task(0, 1)), run_block(task(0, 1)).values)


def test_a_block_larger_than_what_is_advanced_together_is_cut(monkeypatch):
    """Seeds in several parts: same numbers, failures under the right seed."""
    options = {"times": (0.0, 1.0), "replicas": 2}
    whole = run_block(task(**options))
    monkeypatch.setattr(block_module, "_TOGETHER_BYTES", 2 * 32 * 112 * 8)  # two instances
    cut = run_block(task(**options))
    assert_same(whole, cut.values)
    for name, along in whole.trajectory.items():
        np.testing.assert_array_equal(along, cut.trajectory[name], err_msg=name)
    monkeypatch.setattr(integrator_module, "_MOST_EVALUATIONS", 60)
    cut = run_block(task(**options))
    assert 0 < len(cut.failures) < 30
    check_failed(cut, np.nonzero(~cut.finished), "TOO_MANY_GRADIENTS")


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
    double = only_replica(run_block(task(n=64, dynamics=dynamics)))
    single = only_replica(run_block(task(n=64, dynamics=replace(dynamics, dtype="float32"))))
    for name in ("lambda1_start", "lambda2_start", "alignment_start"):
        np.testing.assert_allclose(single[name][:, 0], double[name][:, 0], atol=2e-3)
    np.testing.assert_array_equal(single["recovered"], double["recovered"])
    hit = double["recovered"] == 1
    np.testing.assert_allclose(single["hit_time"][hit], double["hit_time"][hit], rtol=0.01)
    for name in ("overlap", "loss"):
        np.testing.assert_allclose(single[name], double[name], atol=0.02, err_msg=name)


def test_constrained_runs_start_at_the_equator_near_marginality():
    dynamics = replace(FLOW, constrained_time=200.0, duration=1e-6)
    values = only_replica(run_block(task(n=64, inits=("random", "constrained"), dynamics=dynamics)))
    assert values["overlap"][:, 1].max() < 1e-6  # nothing has happened since the release
    assert np.abs(values["lambda1_start"][:, 1]).max() < 0.5
    assert values["lambda1_start"][:, 0].max() < -3
    assert values["loss"][:, 1].max() < values["loss"][:, 0].min()


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(ValueError, match=r"init: expected one of random, .*, got 'lucky'"):
        run_block(task(inits=("random", "lucky")))


# -- replicas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [32, 150])
def test_the_first_of_three_replicas_is_the_only_one_of_one(n):
    """The draws of w(0) to the last bit; the numbers up to rounding, as products are shared."""
    dynamics = replace(FLOW, duration=5.0, constrained_time=5.0)
    options = {"n": n, "dynamics": dynamics, "times": (0.0, 1.0, 5.0), "gain": True}
    one = run_block(task(0, 1, **options))
    three = run_block(task(0, 1, **options, replicas=3))
    for name, values in numbers(three).items():
        assert values.shape == (2, 3, 3)
        atol = 1e-3 if name.startswith("residual") else 1e-4
        np.testing.assert_allclose(
            values[:, :, :1], one.values[name], rtol=1e-4, atol=atol, err_msg=name
        )
    for name, along in three.trajectory.items():
        atol = 1e-3 if name.startswith("residual") else 1e-4
        np.testing.assert_allclose(
            along[:, :, :1], one.trajectory[name], rtol=1e-4, atol=atol, err_msg=name
        )
    for purpose in ("start", "probe"):
        draws = [draw_starts(streams(0, 1), purpose, n, np.dtype(float), k) for k in (1, 3)]
        np.testing.assert_array_equal(draws[1].reshape(2, 3, n)[:, :1], draws[0][:, None])


def test_replicas_are_independent_draws_on_the_same_instance():
    result = run_block(task(0, 1, replicas=4))
    assert result.finished.shape == (2, 3, 4)
    for name in ("lambda1_start", "loss", "gradients"):
        for cell in result.values[name].reshape(6, 4):
            assert len(np.unique(cell)) > 1, name
    count = 200
    w0 = draw_starts(streams(*range(count)), "start", 20, np.dtype(float), 2).reshape(count, 2, 20)
    overlaps = np.vecdot(w0[:, 0], w0[:, 1]) / np.sqrt(20)
    assert abs(overlaps.mean()) < 4 / np.sqrt(count)
    assert overlaps.var() == pytest.approx(1, abs=4 * np.sqrt(2 / count))


def test_every_initialisation_of_a_replica_starts_from_its_draw():
    """`random` is w(0), `spectral` the lowest eigenvector there, `constrained` its projection."""
    labels, n = streams(0, 1), 32
    landscape = draw_instances(labels, measurements=112, dimension=n, a=1.0, dtype=np.dtype(float))
    dynamics = replace(FLOW, constrained_time=1e-9)
    block = task(0, 1, replicas=3, dynamics=dynamics)
    drawn = block.model.draw(labels, (3, 0), np.dtype(float), NUMPY)
    starts, at_w0 = block_module._starts(block, drawn, labels)
    w = starts.w.reshape(2, 3, 3, n)  # seeds, inits, replicas
    w0 = draw_starts(labels, "start", n, np.dtype(float), 3).reshape(2, 3, n)
    np.testing.assert_array_equal(w[:, 0], w0)
    lambda1 = at_w0.lambda1.reshape(2, 3)
    for seed, replica in np.ndindex(2, 3):
        owner = np.array([seed])
        values, vectors = np.linalg.eigh(landscape.hessian(w0[seed, replica][None], owner).dense(0))
        assert lambda1[seed, replica] == pytest.approx(values[0], abs=1e-9)
        cosine = w[seed, 1, replica] @ vectors[:, 0] / np.sqrt(n)
        assert abs(cosine) == pytest.approx(1, abs=1e-9)
        signal = landscape.signals[owner]
        projected = on_sphere(off_signal(w0[seed, replica][None], signal))
        np.testing.assert_allclose(w[seed, 2, replica], projected[0], atol=1e-6)


def test_more_replicas_do_not_change_how_a_block_is_cut():
    """The same runs whether their instances are advanced together or not, to the last bit."""
    options = {"replicas": 3, "dynamics": replace(FLOW, duration=3.0, constrained_time=3.0)}
    whole = run_block(task(0, 1, 2, **options))
    for seed in range(3):
        alone = run_block(task(seed, **options))
        assert_same(alone, {name: v[[seed]] for name, v in whole.values.items()})


def test_failures_carry_their_replica(monkeypatch):
    monkeypatch.setattr(integrator_module, "_MOST_EVALUATIONS", 60)
    result = run_block(task(replicas=3, times=(0.0, 2.0), gain=False))
    where = np.nonzero(~result.finished)
    assert len(set(where[2].tolist())) == 3
    by_replica = (~result.finished).any(axis=2) & result.finished.any(axis=2)
    assert by_replica.any()  # the same seed and initialisation, some failed and some not
    check_failed(result, where, "TOO_MANY_GRADIENTS")


# -- along the run --------------------------------------------------------------------------------

TIMES = (0.0, 0.1, 1.0, 5.0, 20.0)
ALONG = {"overlap", "loss", "multiplier", "lambda1", "lambda2", "alignment", "residual"}


@pytest.mark.parametrize("dynamics", [FLOW, DESCENT, replace(FLOW, dtype="float32")])
def test_trajectory_begins_at_the_start_and_ends_with_the_run(dynamics):
    result = run_block(task(dynamics=dynamics, times=TIMES, gain=True, replicas=2))
    values, along = result.values, result.trajectory
    assert set(along) == ALONG | {*PREDICTED, *EQUATOR}
    for column in along.values():
        assert column.shape == (5, 3, 2, 5)
        assert column.dtype == np.float64
    single = dynamics.dtype == "float32"
    accuracy = {"rtol": 1e-3, "atol": 2e-3} if single else {"rtol": 1e-6, "atol": 1e-7}
    for name in ("lambda1", "lambda2", "alignment"):
        np.testing.assert_allclose(along[name][..., 0], values[f"{name}_start"], **accuracy)
    late = values["recovered"] == 0
    assert late.any()
    for name in ("loss", "multiplier"):
        np.testing.assert_allclose(along[name][late, -1], values[name][late], **accuracy)
    for name in ("lambda1", "lambda2", "alignment"):
        np.testing.assert_allclose(along[name][late, -1], values[f"{name}_end"][late], **accuracy)
    np.testing.assert_allclose(
        np.abs(along["overlap"][late, -1]), values["overlap"][late], **accuracy
    )
    assert np.nanmin(along["overlap"]) < -0.1  # signed
    np.testing.assert_allclose(along["gain"][..., 0], 1, rtol=1e-5)
    # the gain belongs to the equator, where nothing ends the run
    assert np.isfinite(along["gain"]).all()
    after = np.array(TIMES) > values["hit_time"][..., None] + 1.0
    assert after.any()
    before = np.array(TIMES) <= values["hit_time"][..., None]
    for name in ALONG:
        assert np.isnan(along[name][after]).all()
        assert np.isfinite(along[name][before]).all()


def test_looking_does_not_change_what_is_looked_at():
    plain = run_block(task())
    for options in (
        {"times": TIMES},
        {"times": TIMES, "hessian_along": False},
        {"times": TIMES, "gain": True, "labels": True},
        {"times": TIMES, "snapshots": (0.0, 2.0), "edges": (-1.0, 0.0, 1.0)},
    ):
        assert_same(plain, run_block(task(**options)).values)


def test_what_is_not_asked_for_is_not_known():
    everything = ALONG | {*PREDICTED, *EQUATOR}
    for options, asked in (
        ({}, ALONG),
        ({"hessian_along": False}, {"overlap", "loss", "multiplier"}),
        ({"labels": True}, ALONG | set(PREDICTED)),
        ({"gain": True}, ALONG | set(EQUATOR)),
    ):
        along = run_block(task(0, times=TIMES, **options)).trajectory
        assert set(along) == everything
        for name, values in along.items():
            # an outlier need not be there
            assert np.isfinite(values).any() == (name in asked) or "outlier" in name, name
    assert run_block(task(0, gain=True)).trajectory == {}


def test_densities_of_eigenvalues_at_snapshots():
    options = {"snapshots": (0.0, 5.0, 20.0), "edges": tuple(np.linspace(-4, 4, 9))}
    result = run_block(task(**options, replicas=2, times=(1.0, 5.0)))
    assert result.trajectory["loss"].shape == (5, 3, 2, 2)
    shapes = {name: values.shape[3:] for name, values in result.spectrum.items()}
    assert shapes == {"density": (3, 8), "density_error": (3, 8), "below": (3,), "above": (3,)}
    known = np.array(options["snapshots"]) <= result.values["hit_time"][..., None]
    found = {name: values[known] for name, values in result.spectrum.items()}
    total = found["density"].sum(axis=1) + found["below"] + found["above"]
    np.testing.assert_allclose(total, 1.0)
    first = result.values["lambda1_start"] < -4
    np.testing.assert_array_equal(result.spectrum["below"][..., 0] > 0, first)
    assert np.isnan(result.spectrum["density"][~known]).any()
    same = run_block(task(times=(1.0, 5.0), replicas=2)).trajectory
    for name, values in same.items():
        np.testing.assert_array_equal(result.trajectory[name], values, err_msg=name)
    assert run_block(task(0)).spectrum == {}


def test_gain_is_that_of_the_starts_by_hand():
    """Also where the runs are descents: it follows the flow, at the default tolerance."""
    result = run_block(task(0, 1, dynamics=DESCENT, inits=("random",), times=TIMES, gain=True))
    labels = streams(0, 1)
    landscape = draw_instances(labels, measurements=112, dimension=32, a=1.0, dtype=np.dtype(float))
    w0 = draw_starts(labels, "start", 32, np.dtype(float))
    expected = signal_gain(landscape, w0, np.arange(2), times=TIMES, tolerance=1e-2)
    np.testing.assert_array_equal(result.trajectory["gain"][:, 0, 0], expected)


# -- failures -------------------------------------------------------------------------------------


def check_failed(result, where, reason):
    """Those runs, `where` [seed, init, replica], and no others."""
    failed = np.zeros_like(result.finished)
    failed[where] = True
    np.testing.assert_array_equal(result.finished, ~failed)
    assert set(result.failures) == set(zip(*(index.tolist() for index in where), strict=True))
    assert set(result.failures.values()) == {reason}
    for name, values in result.values.items():
        if name in CODES:
            np.testing.assert_array_equal(values == -1, failed, err_msg=name)
        elif name != "seconds":
            np.testing.assert_array_equal(np.isnan(values), failed, err_msg=name)
    for name, along in result.trajectory.items():
        assert np.isnan(along[failed]).all(), name
        unknown = name in (*EQUATOR, *PREDICTED)
        assert unknown or np.isfinite(along[~failed][:, 0]).all(), name
    for replica in range(failed.shape[2]):
        values = {name: column[:, :, replica] for name, column in result.values.items()}
        check_results(values, failed.shape[:2], "block")


def test_failures_are_reported_as_values(monkeypatch):
    monkeypatch.setattr(integrator_module, "_MOST_EVALUATIONS", 60)
    result = run_block(task())
    failed = ~result.finished
    assert failed.any()
    assert not failed.all()
    check_failed(result, np.nonzero(failed), "TOO_MANY_GRADIENTS")
    assert len(result.failures) == failed.sum()


def test_a_block_whose_runs_all_fail(monkeypatch):
    monkeypatch.setattr(integrator_module, "_MOST_EVALUATIONS", 3)
    result = run_block(task(0, 1, dynamics=replace(FLOW, duration=1000.0, tolerance=1e-6)))
    assert not result.finished.any()
    check_failed(result, np.nonzero(~result.finished), "TOO_MANY_GRADIENTS")


def test_a_start_that_fails_leaves_the_other_starts_alone(monkeypatch):
    """The relaxation on the equator takes more gradients than the short runs after it."""
    dynamics = replace(FLOW, duration=0.5, constrained_time=200.0)
    without = run_block(task(0, 1, dynamics=dynamics))
    monkeypatch.setattr(integrator_module, "_MOST_EVALUATIONS", 80)
    result = run_block(task(0, 1, dynamics=dynamics))
    where = (np.array([0, 1]), np.array([2, 2]), np.array([0, 0]))
    check_failed(result, where, "TOO_MANY_GRADIENTS")
    for name, values in numbers(result).items():
        np.testing.assert_allclose(
            values[:, :2], without.values[name][:, :2], rtol=1e-6, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("n", [32, 150])
def test_an_instance_that_is_not_finite_is_a_failure_and_not_an_exception(n, monkeypatch):
    """Its runs are reported; the other seeds are as ever, to the last bit."""
    dynamics = replace(FLOW, duration=2.0, constrained_time=3.0)
    sound = run_block(task(0, 1, 2, n=n, dynamics=dynamics))
    draw = models_module.draw_instances

    def spoiled(*args, **options):
        landscape = draw(*args, **options)
        landscape.weights[1, 0] = np.nan
        return landscape

    monkeypatch.setattr(models_module, "draw_instances", spoiled)
    result = run_block(task(0, 1, 2, n=n, dynamics=dynamics))
    check_failed(result, (np.array([1, 1, 1]), np.arange(3), np.zeros(3, int)), "NOT_FINITE")
    for name, values in numbers(result).items():
        np.testing.assert_array_equal(values[[0, 2]], sound.values[name][[0, 2]], err_msg=name)


def test_a_very_sharp_loss_stays_finite():
    sharp = replace(FLOW, dtype="float32", duration=0.1, constrained_time=0.1)
    assert run_block(task(0, 1, a=1e-60, dynamics=sharp)).finished.all()
