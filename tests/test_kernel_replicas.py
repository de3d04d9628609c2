"""Replicas of an instance and what is known along their runs, as one block gives them."""

from dataclasses import replace

import numpy as np
import pytest

import pipeline.kernel.integrator as integrator_module
from pipeline.kernel.along import EQUATOR, PREDICTED
from pipeline.kernel.block import Dynamics, Task, run_block
from pipeline.kernel.inits import INITS
from pipeline.kernel.models import PhaseRetrievalModel
from store.groups import GROUPS, check_group
from store.schema import check_results

TRAJECTORY = GROUPS["trajectory"].names

FLOW = Dynamics(
    method="flow",
    duration=20.0,
    tolerance=1e-4,
    learning_rate=0.0,
    constrained_time=30.0,
    dtype="float64",
)
TIMES = (0.0, 0.5, 5.0, 20.0)
HESSIAN = ("lambda1", "lambda2", "alignment", "residual")


def task(replicas=3, times=(), **changes):
    options = {
        "model": PhaseRetrievalModel(1.0, 24, 84),
        "streams": tuple(np.random.SeedSequence(71, spawn_key=(7, seed)) for seed in range(4)),
        "inits": INITS,
        "dynamics": FLOW,
        "replicas": replicas,
        "times": times,
        "hessian_along": bool(times),
        "gain": False,
    }
    return Task(**options | changes)


@pytest.fixture(scope="module")
def followed():
    return run_block(task(times=TIMES))


def test_shapes_are_those_of_the_schema(followed):
    check_results(followed.values, (4, 3, 3), "block")
    check_group("trajectory", followed.trajectory, (4, 3, 3), {"time": len(TIMES)}, "block")
    assert followed.finished.all()
    single = run_block(task(replicas=1))
    check_results(single.values, (4, 3, 1), "block")
    assert not single.trajectory


def test_replicas_are_starts_of_their_own_on_one_instance(followed):
    """The first is the one that a block without others has."""
    start = followed.values["lambda1_start"]
    assert all(len(np.unique(row)) == 3 for row in start.reshape(-1, 3))
    single = run_block(task(replicas=1))
    for name in ("lambda1_start", "alignment_start"):
        np.testing.assert_allclose(
            followed.values[name][..., :1], single.values[name], rtol=1e-5, atol=1e-5
        )
    np.testing.assert_array_equal(followed.values["recovered"][..., :1], single.values["recovered"])
    fewer = run_block(task(replicas=2))
    np.testing.assert_allclose(
        followed.values["lambda1_start"][..., :2],
        fewer.values["lambda1_start"],
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("streams", [[2], [1, 3]])
def test_a_seed_does_not_depend_on_the_other_seeds_of_its_block(followed, streams):
    whole = task(times=TIMES)
    alone = run_block(replace(whole, streams=tuple(whole.streams[k] for k in streams)))
    for name, values in alone.trajectory.items():
        np.testing.assert_array_equal(values, followed.trajectory[name][streams], err_msg=name)
    for name, values in alone.values.items():
        if name != "seconds":
            np.testing.assert_array_equal(values, followed.values[name][streams], err_msg=name)


def test_the_trajectory_begins_at_the_start_and_ends_at_the_end(followed):
    values, along = followed.values, followed.trajectory
    for name in HESSIAN:
        np.testing.assert_allclose(
            along[name][..., 0], values[f"{name}_start"], rtol=1e-5, atol=1e-5, err_msg=name
        )
    late = values["recovered"] == 0
    assert late.any()
    tolerance = {"rtol": 0.05, "atol": 5e-3}  # snapshots may cut the steps of the flow
    np.testing.assert_allclose(
        np.abs(along["overlap"][..., -1])[late], values["overlap"][late], **tolerance
    )
    for name in ("loss", "multiplier"):
        np.testing.assert_allclose(along[name][..., -1][late], values[name][late], **tolerance)
    assert (np.diff(along["loss"], axis=-1)[np.isfinite(np.diff(along["loss"], axis=-1))] < 0).all()
    assert (along["overlap"] < 0).any()
    assert (along["overlap"] > 0).any()


def test_nothing_is_known_after_the_end_of_a_run(followed):
    over = followed.values["hit_time"][..., None] < np.array(TIMES)
    assert over.any()
    for name in set(TRAJECTORY) - {*PREDICTED, *EQUATOR}:
        np.testing.assert_array_equal(np.isnan(followed.trajectory[name]), over, err_msg=name)
    for name in (*PREDICTED, *EQUATOR):
        assert np.isnan(followed.trajectory[name]).all()


def test_what_is_not_asked_for_is_not_known():
    along = run_block(task(times=TIMES[:2], hessian_along=False)).trajectory
    assert set(along) == set(TRAJECTORY)
    for name in HESSIAN:
        assert np.isnan(along[name]).all()
    assert np.isfinite(along["loss"]).all()


def test_times_of_a_descent_are_shown_too():
    descent = replace(FLOW, method="descent", tolerance=0.0, learning_rate=0.01)
    along = run_block(task(times=TIMES[:3], dynamics=descent)).trajectory
    flow = run_block(task(times=TIMES[:3])).trajectory
    np.testing.assert_allclose(along["loss"][..., 1], flow["loss"][..., 1], rtol=0.2)


def test_failures_are_told_by_replica(monkeypatch):
    monkeypatch.setattr(integrator_module, "_MOST_EVALUATIONS", 60)
    result = run_block(task(times=TIMES, dynamics=replace(FLOW, tolerance=1e-2)))
    assert 0 < len(result.failures) < result.finished.size
    assert set(result.failures) == set(zip(*np.nonzero(~result.finished), strict=True))
    check_group("trajectory", result.trajectory, (4, 3, 3), {"time": len(TIMES)}, "block")
