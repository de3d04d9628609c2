"""λ₁ along a descent for N → ∞: its limits, and what it does not depend on."""

import numpy as np
import pytest

from pipeline.kernel.block import Dynamics, Task, run_block
from pipeline.kernel.models import SpikedTensorModel
from pipeline.spiked_hessian import lowest_eigenvalue
from pipeline.theory.spiked_descent import descend
from pipeline.theory.spiked_landscape import hessian_edges, hessian_outlier
from pipeline.theory.spiked_model import make_spiked_model

MODEL, STEP = make_spiked_model(2.5, 1.0), 0.1
TIMES = np.array([0.0, 0.5, 1.0, 2.0, 20.0])


def test_it_begins_at_the_outlier_and_ends_at_the_edge() -> None:
    found = lowest_eigenvalue(MODEL, 0.1, TIMES, STEP)
    exact = descend(MODEL, 0.1, duration=20.0, step=STEP)
    places = np.round(TIMES / STEP).astype(int)
    outlier, _ = hessian_outlier(MODEL, exact.multiplier[places], exact.overlap[places])
    edge = hessian_edges(MODEL, exact.multiplier[places])[0]
    assert found[0] == pytest.approx(outlier[0], abs=1e-6)
    assert found[-1] == pytest.approx(edge[-1], abs=1e-4)
    assert (found[1:4] < outlier[1:4] - 0.01).all()  # the noise knows of the descent
    assert lowest_eigenvalue(MODEL, 0.1, TIMES, STEP, seed=1) == pytest.approx(found, abs=1e-4)


def test_direct_instances_have_it_too_and_not_the_outlier_without_memory() -> None:
    """Depth of λ₁ below the edge of each instance's bulk, which its μ moves."""
    model, n, count = make_spiked_model(3.5, 1.0), 150, 24
    exact = descend(model, 0.1, duration=1.0, step=STEP)
    edge = float(hessian_edges(model, exact.multiplier[-1])[0])
    infinite = edge - lowest_eigenvalue(model, 0.1, np.array([0.0, 1.0]), STEP)[1]
    without = edge - float(hessian_outlier(model, exact.multiplier[-1], exact.overlap[-1])[0])
    assert infinite > without + 0.2
    spiked = SpikedTensorModel(model, n, "dense", start_overlap=0.1)
    streams = tuple(np.random.SeedSequence(2, spawn_key=(k,)) for k in range(count))
    dynamics = Dynamics("descent", 1.0, 0.0, STEP, 1.0, "float64")
    values = run_block(Task(spiked, streams, ("overlap",), dynamics)).values
    edges = hessian_edges(model, -values["multiplier"])[0]
    depth = (edges - values["lambda1_end"]).ravel()
    error = depth.std(ddof=1) / np.sqrt(count)
    assert depth.mean() == pytest.approx(infinite, abs=3 * error)
    assert depth.mean() > without + 2 * error
