"""The record of predictions: plain values, null for what does not exist, failures by name."""

import json

import numpy as np
import pytest

from pipeline.theory.laws import LawError
from pipeline.theory.predictions import predict_phase_retrieval


def test_every_key_for_several_alpha() -> None:
    record = predict_phase_retrieval(1.0, [1.0, 3.0, 6.0, 8.0])
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    none, spec, low, high = record["rows"]
    assert none["outlier"] is None
    assert none["overlap2"] == 0
    assert none["chi"] is None
    assert "known from alpha = " in none["failure"]
    assert (spec["edge"], spec["outlier"], spec["overlap2"]) == pytest.approx(
        (-5.553, -5.624, 0.284), abs=5e-4
    )
    assert low["energy_threshold"] == pytest.approx(0.080, abs=5e-4)
    assert low["outlier_threshold"] is None
    assert high["outlier_threshold"] < 0
    assert low["failure"] is None
    assert record["threshold_states_from"] < record["threshold_states_marginal_from"] < 4


def test_thresholds_alone() -> None:
    record = predict_phase_retrieval(0.3)
    assert record["rows"] == []
    assert record["alpha_bbp_init"] < record["alpha_bbp_threshold"]


def test_the_unnormalised_loss_has_nulls_where_nothing_exists() -> None:
    record = predict_phase_retrieval(np.inf, [20.0])
    assert (record["a"], record["alpha_bbp_init"]) == (None, None)
    assert record["threshold_states_marginal_from"] is None
    assert record["alpha_bbp_threshold"] == pytest.approx(13.80, abs=0.01)
    (row,) = record["rows"]
    assert (row["edge"], row["outlier"]) == (None, None)
    assert row["energy_threshold"] > 0


def test_alphas_are_a_list_of_numbers() -> None:
    with pytest.raises(LawError, match="a list of numbers"):
        predict_phase_retrieval(1.0, [[1.0]])  # type: ignore[list-item]
