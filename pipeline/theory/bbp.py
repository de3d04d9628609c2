"""The BBP threshold at a random w(0): the α above which the signal shows in the Hessian's spectrum.

Spec section 5; Bonnaire, Biroli, Cammarota, arXiv:2403.02418.
"""

import numpy as np
from scipy.optimize import brentq

from pipeline.theory.bulk import lowest_g, respond
from pipeline.theory.laws import LabelLaw, gaussian_law


def bbp_at_initialisation(a: float) -> float:
    """α_BBP^init(a): above it the Hessian at a random w(0) has an outlier along the signal.

    About a/2 at large a, where the edge sits at g_min; ∞ for the unnormalised loss (a = ∞), whose
    bulk has no left edge.

    Parameters
    ----------
    a : float
        Parameter of the loss, 0 < a ≤ ∞.

    Raises
    ------
    LawError
        If a is not positive.
    """
    return bbp_of_law(gaussian_law(a))


def bbp_of_law(law: LabelLaw) -> float:
    """α_BBP of a law of (y, ŷ) that does not depend on α: the outlier's equation at the edge's g.

    With S = g² E[r²] and T = g E[r (y² − 1)], the edge is at α = 1/S and the outlier leaves it
    where T = S. Seen from g = 0 (α = ∞) the first such point counts. If there is none before
    g_min, the edge has come to rest there and α = 1/T(g_min).

    Returns
    -------
    float
        ∞ where no α detaches the outlier.
    """
    if np.isneginf(law.lowest):
        return np.inf

    def lead(g: float) -> float:
        at = respond(law, g)
        return float(at.signal / g - at.second)

    least = lowest_g(law)
    grid = least * np.geomspace(1e-9, 1, 200)
    leads = np.asarray(respond(law, grid).signal / grid - respond(law, grid).second)
    if leads[0] <= 0:
        return np.inf
    below = np.flatnonzero(leads <= 0)
    if not below.size:
        return float(1 / (least * respond(law, least).signal))
    first = int(below[0])
    g = brentq(lead, grid[first - 1], grid[first], xtol=1e-300, rtol=1e-13)
    return float(1 / (g**2 * respond(law, g).second))
