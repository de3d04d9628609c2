"""The law of a recovery curve in the control parameter: what a Gaussian overlap needs to grow.

A random start has an overlap m(0) = Z/√N with the signal, Z Gaussian, and near the equator m grows
by a gain G that depends on the control parameter c; the run recovers if G |m(0)| passes a bound.
With log G linear in c around the transition, and η = b₀ + b₁ c zero at one half,

    p = P(|Z| > z e^(-η)) = erfc(κ e^(-η)),    κ = erfc⁻¹(1/2) = 0.4769

so that p falls off like a double exponential below one half, and tends to 1 like e^(-η) above it.
Of 18 laws (links logit, probit, log-log and this one; c, √c, log c, 1/c …) over the nine curves of
the quickstart campaign with 144 seeds (N = 64, 128, 256; three initialisations) its deviance is
62.7 on 72 degrees of freedom; that of a logistic law is 310 in c, 139 in log c and 75 in 1/c.
NumPy and SciPy only.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, erfc, erfcinv, erfcx

Floats = NDArray[np.float64]

_KAPPA: Final = float(erfcinv(0.5))
_SLOPE: Final = 2 / float(np.sqrt(np.pi))
_FARTHEST: Final = 150.0  # of η: beyond, squares of e^η overflow


def probability(eta: Floats) -> Floats:
    """Probability of recovery p(η)."""
    return np.asarray(erfc(_scale(eta)), dtype=np.float64)


def log_probabilities(eta: Floats) -> tuple[Floats, Floats]:
    """log p and log(1 - p), accurate where either is tiny."""
    s = _scale(eta)
    return np.log(erfcx(s)) - s**2, np.log(erf(s))


def slopes(eta: Floats) -> tuple[Floats, Floats, Floats]:
    """p'/p, p'/(1 - p) and p''/p', derivatives in η."""
    s = _scale(eta)
    return _SLOPE * s / erfcx(s), _SLOPE * s * np.exp(-(s**2)) / erf(s), 2 * s**2 - 1


def predictor_at(p: float) -> float:
    """η at which the probability is p."""
    return float(np.log(_KAPPA / erfcinv(p)))


def _scale(eta: Floats) -> Floats:
    """κ e^(-η)."""
    return np.asarray(_KAPPA * np.exp(-np.clip(eta, -_FARTHEST, _FARTHEST)), dtype=np.float64)
