"""Recovery from random starts as the closed equations predict it, and what the laws get of it."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtri

from pipeline.scaling_inputs import known_gains, limit_of
from pipeline.spiked_recovery import predict_half_points, predict_spread
from pipeline.theory.spiked_descent import descend_from_equator
from pipeline.theory.spiked_growth import overlap_spread
from pipeline.theory.spiked_model import make_spiked_model

PHYSICS = {
    "model": "spiked_matrix_tensor",
    "parameters.delta_p": 1.0,
    "parameters.p": 3,
    "parameters.recovered": 0.2,
    "dynamics.T": 10.0,
    "dynamics.learning_rate": 0.15,
}
SNRS = [1.4, 2.6]


def test_half_of_the_starts_recover_where_their_typical_overlap_does() -> None:
    model = make_spiked_model(2.0, 1.0)
    gain = descend_from_equator(model, duration=10.05, step=0.15)
    size = (overlap_spread(model, gain)[-1] * ndtri(0.75) / 0.2) ** 2
    half = predict_half_points(PHYSICS, SNRS, np.array([size, 1.0, 1e12]))
    assert half is not None
    assert half[0] == pytest.approx(2.0, abs=2e-3)
    assert np.isnan(half[1:]).all()


def test_longer_runs_recover_at_less_and_flows_like_descents() -> None:
    sizes = np.array([1e3])
    short, long, flow = (
        predict_half_points({**PHYSICS, **changed}, SNRS, sizes)
        for changed in ({}, {"dynamics.T": 20.0}, {"dynamics.learning_rate": None})
    )
    assert short is not None
    assert long is not None
    assert flow is not None
    assert long[0] < short[0] - 0.05
    assert flow[0] == pytest.approx(short[0], abs=0.05)


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "phase_retrieval"},
        {"parameters.delta_p": "an axis"},
        {"dynamics.T": 1000.0},
    ],
)
def test_there_is_no_prediction(changed: dict[str, object]) -> None:
    physics = {**PHYSICS, **changed}
    assert predict_spread(physics, SNRS) is None
    assert predict_half_points(physics, SNRS, np.array([1e3])) is None
    reduced = xr.Dataset(coords={"snr": SNRS, "N": [100], "init": ["random"]})
    assert known_gains(physics, reduced, None) == {}


def test_the_laws_get_the_gradient_flow_line_and_the_spread() -> None:
    assert limit_of(PHYSICS) == pytest.approx(2.0)
    assert limit_of({**PHYSICS, "parameters.p": 4}) == pytest.approx((1 + np.sqrt(13)) / 2)
    assert limit_of({**PHYSICS, "parameters.delta_p": "an axis"}) is None
    reduced = xr.Dataset(coords={"snr": SNRS, "N": [100], "init": ["overlap", "random"]})
    gains = known_gains(PHYSICS, reduced, None)
    assert list(gains) == ["random"]
    half = predict_half_points(PHYSICS, SNRS, np.array([1e3]))
    assert half is not None
    wanted = np.log(1e3) + 2 * np.log(0.2 / ndtri(0.75))
    assert gains["random"].control_at(np.array([wanted])) == pytest.approx(half)
    assert known_gains(PHYSICS, reduced.sel(init=["overlap"]), None) == {}
