"""Predictions in the form in which figures mark them."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from pipeline.figures_spiked_runs import spiked_lines
from pipeline.results import Results
from pipeline.theory.bbp import bbp_at_initialisation
from pipeline.theory.bulk import find_edge, find_outlier
from pipeline.theory.laws import Array, gaussian_law
from pipeline.theory.spiked_landscape import gradient_flow_line, hessian_edges, hessian_outlier
from pipeline.theory.spiked_model import make_spiked_model
from pipeline.theory.threshold_states import ThresholdStateError, bbp_at_threshold


def theory_lines(results: Results) -> dict[str, float]:
    """Label → control parameter of the N → ∞ thresholds of a store; none for a model without."""
    if results.model == "spiked_matrix_tensor":
        return spiked_lines(results)
    if results.model != "phase_retrieval" or results.a is None:
        return {}
    return phase_retrieval_thresholds(results.a)


def phase_retrieval_thresholds(a: float) -> dict[str, float]:
    """Label → α of the N → ∞ BBP thresholds, at the start and of threshold states; 0.15 s.

    The second is left out where the threshold states of this a are not found.

    Parameters
    ----------
    a : float
        Parameter of the loss, > 0.

    Raises
    ------
    LawError
        If a is not positive.
    """
    thresholds = {r"$\alpha_\mathrm{BBP}^\mathrm{init}$": bbp_at_initialisation(a)}
    with suppress(ThresholdStateError):
        thresholds[r"$\alpha_\mathrm{BBP}^\mathrm{TS}$"] = bbp_at_threshold(a)
    return thresholds


@dataclass(frozen=True)
class StartSpectrum:
    """The Hessian at a random w(0) for N → ∞, each field but one [control].

    Parameters
    ----------
    edge, outlier : float array
        Left edge of the bulk and the eigenvalue below it; NaN where there is none.
    gap : float array
        edge − outlier; 0 where there is no outlier.
    overlap2 : float array
        (v₁·w*)²/N of the outlier; 0 where there is none.
    threshold : float
        Control parameter above which there is an outlier.
    """

    edge: Array
    outlier: Array
    gap: Array
    overlap2: Array
    threshold: float


def spectrum_at_start(a: float, alpha: Array) -> StartSpectrum:
    """`StartSpectrum` of the loss ℓ_a at each α."""
    law = gaussian_law(a)
    edge = find_edge(law, alpha)
    outlier = find_outlier(law, alpha, edge)
    gap = np.nan_to_num(edge.eigenvalue - outlier.eigenvalue)
    return StartSpectrum(
        edge.eigenvalue, outlier.eigenvalue, gap, outlier.overlap2, bbp_at_initialisation(a)
    )


def spiked_spectrum_at_start(delta_p: float, order: int, snr: Array) -> StartSpectrum:
    """`StartSpectrum` of the spiked model at each 1/Δ₂; the threshold is the gradient-flow line."""
    models = [make_spiked_model(value, delta_p, order) for value in snr.tolist()]
    edge = np.array([float(hessian_edges(model, 0.0)[0]) for model in models])
    outlier, overlap2 = np.array([hessian_outlier(model, 0.0, 0.0) for model in models]).T
    return StartSpectrum(
        edge,
        outlier,
        np.nan_to_num(edge - outlier),
        overlap2,
        gradient_flow_line(delta_p, order),
    )
