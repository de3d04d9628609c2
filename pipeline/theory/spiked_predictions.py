"""What theory says of the spiked matrix-tensor model, in one record."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.theory.spiked_complexity import complexity
from pipeline.theory.spiked_descent import Dynamics, descend
from pipeline.theory.spiked_flow import follow_flow
from pipeline.theory.spiked_growth import threshold_growth_rate
from pipeline.theory.spiked_landscape import (
    SNR_BAYES,
    gradient_flow_line,
    hessian_edges,
    hessian_outlier,
    message_passing_line,
    signal_state,
    triviality_line,
)
from pipeline.theory.spiked_model import SpikedModel, make_spiked_model


def predict_spiked_model(
    delta_p: float, snrs: Sequence[float] = (), order: int = 3
) -> dict[str, Any]:
    """Lines, signal states and complexities, as plain values for JSON.

    Parameters
    ----------
    delta_p : float
        Δ_p.
    snrs : sequence of float
        1/Δ₂ of the rows.
    order : int
        p.

    Returns
    -------
    dict
        `delta_p`; `p`; the lines `snr_gradient_flow`, `snr_amp` (maximum likelihood), `snr_bayes`
        (Bayes-optimal message passing) and `snr_trivial`; `rows`, for each 1/Δ₂: `snr`; of the
        signal state `m_signal` and `mu_signal`, null where there is none; `complexity_equator`,
        of minima at m = 0; of threshold states `mu_threshold` and `growth_rate`, at which the
        overlap leaves them.

    Raises
    ------
    SpikedModelError
        If Δ_p or an snr is not a positive number, or p < 3.
    """
    return {
        "delta_p": float(delta_p),
        "p": int(order),
        "snr_gradient_flow": gradient_flow_line(delta_p, order),
        "snr_amp": message_passing_line(delta_p, order),
        "snr_bayes": SNR_BAYES,
        "snr_trivial": triviality_line(delta_p, order),
        "rows": [_row(make_spiked_model(snr, delta_p, order)) for snr in snrs],
    }


def predict_spiked_dynamics(
    model: SpikedModel, overlap: float, *, duration: float, step: float, descent: bool
) -> dict[str, Any]:
    """Descent for N → ∞ against time, as plain values for JSON.

    Parameters
    ----------
    model : SpikedModel
    overlap : float
        m(0).
    duration, step : float
    descent : bool
        Gradient descent with this step, exactly, instead of gradient flow computed with it.

    Returns
    -------
    dict
        `overlap`, m(0); `learning_rate`, null for the flow; and for each `time`: `m`, `mu`, `e2`,
        `ep`, the left `edge` of the Hessian's bulk and the `outlier` below it, null where there is
        none.

    Raises
    ------
    SpikedModelError
        As `descend` and `follow_flow`.
    """
    follow = descend if descent else follow_flow
    found: Dynamics = follow(model, overlap, duration=duration, step=step)
    outlier, _ = hessian_outlier(model, found.multiplier, found.overlap)
    return {
        "overlap": float(overlap),
        "learning_rate": float(step) if descent else None,
        "time": found.time.tolist(),
        "m": found.overlap.tolist(),
        "mu": found.multiplier.tolist(),
        "e2": found.matrix_energy.tolist(),
        "ep": found.tensor_energy.tolist(),
        "edge": hessian_edges(model, found.multiplier)[0].tolist(),
        "outlier": [None if np.isnan(value) else float(value) for value in outlier],
    }


def _row(model: SpikedModel) -> dict[str, Any]:
    state = signal_state(model)
    return {
        "snr": model.matrix,
        "m_signal": state.overlap if state else None,
        "mu_signal": state.multiplier if state else None,
        "complexity_equator": float(complexity(model, 0.0).value),
        "mu_threshold": 2 * model.sigma,
        "growth_rate": threshold_growth_rate(model),
    }
