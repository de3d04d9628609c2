"""What theory says of phase retrieval at given a and α, in one record."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.theory.bbp import bbp_of_law
from pipeline.theory.bulk import check_ratio, find_edge, find_outlier
from pipeline.theory.laws import LawError, gaussian_law
from pipeline.theory.threshold_states import (
    ThresholdBranch,
    ThresholdStateError,
    bbp_at_threshold,
    find_state,
    follow_branch,
)


def predict_phase_retrieval(a: float, alphas: Sequence[float] = ()) -> dict[str, Any]:
    """Thresholds, spectrum at a random start and threshold states, as plain values for JSON.

    Parameters
    ----------
    a : float
        Parameter of the loss, 0 < a ≤ ∞.
    alphas : sequence of float
        α of the rows.

    Returns
    -------
    dict
        `a`, null for the unnormalised loss; `alpha_bbp_init`; `alpha_bbp_threshold`;
        `threshold_states_from`, the least α to which threshold states were followed;
        `threshold_states_marginal_from`, the α above which the edge of their Hessian is at 0;
        `rows`, for each α: `alpha`, at a random w(0) `edge`, `outlier`, `overlap2`, of the
        threshold state `chi`, `zeta`, `energy_threshold`, `outlier_threshold`, and `failure`, why
        there is no such state. Null: it does not exist, or, a threshold, lies at infinity.

    Raises
    ------
    LawError
        If a or an α is not positive.
    ThresholdStateError
        If the equations of the threshold states cannot be solved for this a.
    """
    law = gaussian_law(a)
    values = check_ratio(list(alphas))
    if values.ndim != 1:
        raise LawError(f"alphas must be a list of numbers, got {alphas!r}")
    edge = find_edge(law, values)
    outlier = find_outlier(law, values, edge)
    branch = follow_branch(a, alpha_max=float(np.max(values, initial=1.0)))
    rows = [
        {
            "alpha": float(alpha),
            "edge": _finite(edge.eigenvalue[k]),
            "outlier": _finite(outlier.eigenvalue[k]),
            "overlap2": float(outlier.overlap2[k]),
            **_threshold_state(branch, float(alpha)),
        }
        for k, alpha in enumerate(values)
    ]
    return {
        "a": _finite(a),
        "alpha_bbp_init": _finite(bbp_of_law(law)),
        "alpha_bbp_threshold": bbp_at_threshold(a),
        "threshold_states_from": branch.alpha_min,
        "threshold_states_marginal_from": _finite(branch.alpha_marginal),
        "rows": rows,
    }


def _threshold_state(branch: ThresholdBranch, alpha: float) -> dict[str, Any]:
    names = ("chi", "zeta", "energy_threshold", "outlier_threshold")
    try:
        state = find_state(branch, alpha)
    except ThresholdStateError as error:
        return {**dict.fromkeys(names), "failure": str(error)}
    outlier = _finite(find_outlier(state.law, alpha).eigenvalue)
    found = (state.chi, state.zeta, state.energy, outlier)
    return {**dict(zip(names, found, strict=True)), "failure": None}


def _finite(value: float | np.ndarray) -> float | None:
    """The number, or None for what JSON has no word for."""
    number = float(value)
    return number if np.isfinite(number) else None
