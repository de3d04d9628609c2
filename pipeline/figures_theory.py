"""Predictions in the form in which figures mark them."""

from contextlib import suppress

from pipeline.results import Results
from pipeline.theory.bbp import bbp_at_initialisation
from pipeline.theory.threshold_states import ThresholdStateError, bbp_at_threshold


def theory_lines(results: Results) -> dict[str, float]:
    """Label → control parameter of the N → ∞ thresholds of a store; none for a model without."""
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
