"""What the closed equations of the spiked model say of recovery from random starts by a time T.

For N → ∞ the overlap of a random start is Gaussian with standard deviation s(T)/√N as long as it is
small, so that half of the runs have |m| ≥ m* by T where s(T) = m* √N/0.674. Nothing is fitted; the
growth beyond small m is left out, which matters less the larger N is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy.special import ndtri

from pipeline.outcomes import END_OF_RUNS
from pipeline.scaling_laws import Floats, GainTable
from pipeline.theory.spiked_descent import descend_from_equator
from pipeline.theory.spiked_growth import overlap_spread
from pipeline.theory.spiked_model import make_spiked_model

_POINTS: Final = 24  # of 1/Δ₂, over the grid and somewhat beyond it
_MOST_STEPS: Final = 800
_FLOW_STEP: Final = 0.2  # in units of 1/σ; stable below 1/2


def predict_spread(physics: Mapping[str, Any], snrs: Sequence[float]) -> GainTable | None:
    """2 log s(T) against 1/Δ₂, s(T) the spread of √N m(T) over random starts.

    Parameters
    ----------
    physics : mapping
        As in the attributes of a store.
    snrs : sequence of float
        1/Δ₂ of the grid.

    Returns
    -------
    GainTable or None
        None for other models, where Δ_p is an axis, and where it takes more than 800 steps.
    """
    delta_p = physics.get("parameters.delta_p")
    if physics.get("model") != "spiked_matrix_tensor" or not isinstance(delta_p, int | float):
        return None
    duration, rate = float(physics[END_OF_RUNS]), physics.get("dynamics.learning_rate")
    values = np.linspace(0.8 * min(snrs), 1.1 * max(snrs), _POINTS)
    doubled = []
    for snr in values.tolist():
        model = make_spiked_model(snr, float(delta_p), int(physics["parameters.p"]))
        step = float(rate) if rate is not None else _FLOW_STEP / model.sigma
        steps = int(np.ceil(duration / step - 1e-9))
        if steps > _MOST_STEPS:
            return None
        gain = descend_from_equator(model, duration=steps * step, step=step)
        doubled.append(2 * float(np.log(overlap_spread(model, gain)[-1])))
    return GainTable(values, np.array(doubled))


def predict_half_points(
    physics: Mapping[str, Any], snrs: Sequence[float], sizes: Floats
) -> Floats | None:
    """1/Δ₂ at which half of the random starts recover by T, for each size.

    Parameters
    ----------
    physics, snrs
        As for `predict_spread`.
    sizes : float array [sizes]
        N.

    Returns
    -------
    float array [sizes] or None
        NaN far from the grid; None as for `predict_spread`.
    """
    spread = predict_spread(physics, snrs)
    if spread is None:
        return None
    wanted = np.log(sizes) + 2 * np.log(float(physics["parameters.recovered"]) / ndtri(0.75))
    inside = (wanted >= spread.doubled_log[0]) & (wanted <= spread.doubled_log[-1])
    return np.where(inside, spread.control_at(wanted), np.nan)
