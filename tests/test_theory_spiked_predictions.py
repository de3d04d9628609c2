"""The record of the spiked model's predictions: plain values, null for what does not exist."""

import json

import pytest

from pipeline.theory.spiked_model import make_spiked_model
from pipeline.theory.spiked_predictions import predict_spiked_dynamics, predict_spiked_model


def test_every_key_for_several_snr() -> None:
    record = predict_spiked_model(4.0, [0.5, 1.2, 1.6])
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["snr_gradient_flow"] == pytest.approx(1.3660, abs=5e-5)
    assert record["snr_bayes"] < record["snr_amp"] < record["snr_trivial"]
    none, below, above = record["rows"]
    assert (none["m_signal"], none["mu_signal"]) == (None, None)
    assert below["complexity_equator"] == pytest.approx(1.6727e-4, abs=5e-9)
    assert below["growth_rate"] == 0 < above["growth_rate"]
    assert above["complexity_equator"] < 0
    assert above["mu_signal"] > above["mu_threshold"]


def test_lines_alone() -> None:
    record = predict_spiked_model(1.0)
    assert record["rows"] == []
    assert (record["p"], record["snr_gradient_flow"]) == (3, 2)


@pytest.mark.parametrize(
    ("descent", "snr", "overlap"), [(True, 1.6, 0.6050851891), (False, 1 / 0.6, 0.637150)]
)
def test_the_dynamics_of_flow_and_descent(*, descent: bool, snr: float, overlap: float) -> None:
    model = make_spiked_model(snr, 4.0)
    record = predict_spiked_dynamics(model, 0.1, duration=10.0, step=0.1, descent=descent)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["m"][-1] == pytest.approx(overlap, rel=1e-9 if descent else 1e-5)
    assert record["mu"][-1] == pytest.approx(-2 * record["e2"][-1] - 3 * record["ep"][-1])
    assert record["edge"][0] == pytest.approx(record["mu"][0] - 2 * model.sigma)
    assert record["learning_rate"] == (0.1 if descent else None)
    assert record["outlier"][0] < record["edge"][0]
    assert record["outlier"][-1] is None
