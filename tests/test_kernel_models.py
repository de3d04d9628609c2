"""Both models through the same block: what a block gives is of the schema whatever the model."""

import numpy as np
import pytest

from pipeline.kernel.arrays import NUMPY
from pipeline.kernel.block import Dynamics, Task, run_block
from pipeline.kernel.models import SpikedTensorModel
from pipeline.theory.spiked_descent import descend
from pipeline.theory.spiked_model import make_spiked_model
from store.groups import check_group
from store.schema import check_results

INITS = ("random", "overlap", "constrained")
DESCENT = Dynamics(
    method="descent",
    duration=4.0,
    tolerance=0.0,
    learning_rate=0.1,
    constrained_time=2.0,
    dtype="float32",
)
FLOW = Dynamics(
    method="flow",
    duration=4.0,
    tolerance=1e-2,
    learning_rate=0.0,
    constrained_time=2.0,
    dtype="float64",
)
TIMES = (0.0, 1.0, 4.0)


def streams(count, entropy=5):
    return tuple(np.random.SeedSequence(entropy, spawn_key=(k,)) for k in range(count))


def task(instances, n, *, seeds=3, dynamics=FLOW, **options):
    model = make_spiked_model(2.5, 1.0)
    spiked = SpikedTensorModel(model, n, instances, start_overlap=0.3, recovered_overlap=0.7)
    return Task(spiked, streams(seeds), INITS, dynamics, times=TIMES, **options)


@pytest.mark.parametrize("dynamics", [FLOW, DESCENT])
@pytest.mark.parametrize(("instances", "n"), [("dense", 30), ("conditional", 10**5)])
def test_a_block_of_the_spiked_model_is_of_the_schema(instances, n, dynamics):
    dense = instances == "dense"  # many runs with gains would reveal too much of one instance
    replicas = 2 if dense else 1
    result = run_block(task(instances, n, dynamics=dynamics, replicas=replicas, gain=dense))
    check_results(result.values, (3, 3, replicas), "block")
    check_group("trajectory", result.trajectory, (3, 3, replicas), {"time": 3}, "block")
    assert result.finished.all()
    assert not result.failures
    overlap = result.trajectory["overlap"]
    np.testing.assert_allclose(overlap[:, 1, :, 0], 0.3, atol=1e-5)
    np.testing.assert_allclose(overlap[:, 2, :, 0], 0.0, atol=1e-5)
    expected = 0 if instances == "dense" else 1
    np.testing.assert_array_equal(result.values["instances"], expected)
    if instances == "conditional":
        assert (result.values["directions"] < 400).all()
        np.testing.assert_allclose(result.values["lambda1_start"][:, 0, 0], -4.33, atol=0.05)


def test_runs_recover_at_the_overlap_of_the_model():
    result = run_block(task("conditional", 10**6))
    recovered = result.values["recovered"][:, 1, 0]
    np.testing.assert_array_equal(recovered, 1)
    exact = descend(make_spiked_model(2.5, 1.0), 0.3, duration=4.0, step=0.01)
    expected = np.interp(0.7, exact.overlap, exact.time)
    np.testing.assert_allclose(result.values["hit_time"][:, 1, 0], expected, atol=0.05)
    np.testing.assert_array_equal(result.values["recovered"][:, 2, 0], 0)


@pytest.mark.parametrize(("instances", "n"), [("dense", 30), ("conditional", 10**4)])
def test_the_same_block_gives_the_same_numbers_seed_by_seed(instances, n):
    together = run_block(task(instances, n))
    again = run_block(task(instances, n))
    alone = run_block(task(instances, n, seeds=1))
    for name in set(together.values) - {"seconds"}:
        np.testing.assert_array_equal(together.values[name], again.values[name])
        np.testing.assert_allclose(
            alone.values[name][0], together.values[name][0], rtol=1e-6, err_msg=name
        )


def test_instances_are_counted_by_what_they_hold():
    dtype = np.dtype(np.float32)
    dense = [task("dense", n).model.instance_bytes(dtype) for n in (100, 200)]
    assert dense[1] / dense[0] == pytest.approx(8, rel=0.05)
    assert task("conditional", 10**6).model.instance_bytes(dtype) < 1 << 25


def test_densities_need_instances_that_can_be_applied():
    wanted = {"snapshots": (0.0,), "edges": (-10.0, 0.0, 10.0)}
    result = run_block(task("dense", 30, **wanted))
    total = result.spectrum["density"].sum(axis=-1) * 10
    np.testing.assert_allclose(total + result.spectrum["below"] + result.spectrum["above"], 1)
    with pytest.raises(TypeError, match="ask for dense instances"):
        run_block(task("conditional", 10**4, **wanted))


def test_the_strict_form_needs_its_couplings_in_memory():
    model = make_spiked_model(2.5, 1.0)
    strict = SpikedTensorModel(model, 20, "dense", form="strict")
    assert strict.draw(streams(1), (1, 0), np.dtype("float64"), NUMPY).landscape.planted
    with pytest.raises(ValueError, match="needs its couplings in memory, got conditional"):
        SpikedTensorModel(model, 20, "conditional", form="strict")
