"""A law c_½(N) fitted to all binomial data of one initialisation at once. NumPy and SciPy only.

    p(c, N) = P(s(N) [c - c_½(N; θ)]),    log s(N) = s₀ + s₁ (log N - mean)

with the law P of `pipeline.recovery_curve`. The steepness s of the curves is a nuisance that may
change with N as a power. Sizes whose curves do not reach one half take part: that none of 20 runs
recovered at the largest c is evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import gammaln, xlog1py, xlogy

from pipeline.recovery_curve import log_probabilities, probability
from pipeline.scaling_laws import Floats, Law

_STEEPNESS = 4.0  # to start from, times c_½


@dataclass(frozen=True)
class Cells:
    """Counts of one initialisation, a cell for each control value and size with runs.

    Parameters
    ----------
    control, size : ndarray [cells]
        Control parameter c > 0, and N.
    recovered, runs : ndarray [cells]
        Counts; with replicas those that independent runs of the same worth would have.
    """

    control: Floats
    size: Floats
    recovered: Floats
    runs: Floats

    @property
    def log_size(self) -> Floats:
        """log N of each cell."""
        return np.log(self.size)

    def sizes(self, *, mixed: bool = False) -> Floats:
        """Sizes, ascending; of `mixed` ones some but not all runs recovered."""
        every = np.unique(self.size)
        if not mixed:
            return np.asarray(every, dtype=np.float64)
        sums = [self.only(np.array([N])) for N in every]
        kept = [0 < one.recovered.sum() < one.runs.sum() for one in sums]
        return np.asarray(every[np.array(kept, dtype=bool)], dtype=np.float64)

    def only(self, sizes: Floats) -> "Cells":
        """Cells of some sizes."""
        kept = np.isin(self.size, sizes)
        return Cells(self.control[kept], self.size[kept], self.recovered[kept], self.runs[kept])


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    Parameters
    ----------
    law : Law
    theta : ndarray [terms]
        The law's own parameters.
    steepness : tuple of float
        s₀ and s₁.
    centre : float
        Mean of log N, that s₁ refers to.
    deviance : float
        2 Σ observed log(observed/expected).
    covariance : ndarray [terms + 2, terms + 2]
        Of θ, s₀, s₁: inverse Fisher information; it wants the factor `dispersion`.
    """

    law: Law
    theta: Floats
    steepness: tuple[float, float]
    centre: float
    deviance: float
    covariance: Floats

    @property
    def parameters(self) -> int:
        """Number of fitted parameters."""
        return len(self.theta) + len(self.steepness)

    def half(self, sizes: Floats) -> Floats:
        """c_½ at sizes N."""
        return np.asarray(self.law.half(self.theta, np.log(sizes)), dtype=np.float64)

    def half_error(self, sizes: Floats) -> Floats:
        """Standard error of c_½ at sizes N, to first order in that of θ; wants √dispersion."""
        x = np.log(sizes)
        steps = 1e-4 * np.maximum(np.abs(self.theta), 1e-2)
        slopes = [
            (self.law.half(self.theta + step, x) - self.law.half(self.theta - step, x))
            / (2 * step.sum())
            for step in np.diag(steps)
        ]
        gradient, own = np.array(slopes), self.covariance[: len(self.theta), : len(self.theta)]
        variance = np.einsum("ts,tu,us->s", gradient, own, gradient)
        return np.asarray(np.sqrt(variance), dtype=np.float64)

    def predictor(self, cells: Cells) -> Floats:
        """η of each cell."""
        half = self.law.half(self.theta, cells.log_size)
        return _predictor(half, self.steepness, cells, self.centre)

    def deviance_of(self, cells: Cells) -> float:
        """Deviance of other cells from this fit."""
        return float((_residuals(self.predictor(cells), cells) ** 2).sum())


def fit_law(law: Law, cells: Cells, start: Floats | None = None) -> Fit:
    """Maximum-likelihood fit of a law to the cells.

    The deviance is a sum of squares, of the deviance residuals, and is minimised as such
    (Levenberg–Marquardt).

    Parameters
    ----------
    law : Law
    cells : Cells
    start : ndarray [terms], optional
        θ to start from; by default from the half-recovery points of the sizes by themselves.
    """
    centre = float(np.unique(cells.log_size).mean())
    count = len(law.terms)

    def residuals(x: Floats) -> Floats:
        half = law.half(x[:count], cells.log_size)
        return _residuals(_predictor(half, (x[count], x[count + 1]), cells, centre), cells)

    logs, halves = _rough_halves(cells)
    if start is None:
        start = law.start(logs, halves)
    begin = np.concatenate([start, [np.log(_STEEPNESS / halves.mean()), 0.0]])
    found = least_squares(residuals, begin, method="trf", x_scale="jac", max_nfev=80)
    information = found.jac.T @ found.jac
    return Fit(
        law,
        theta=found.x[:count],
        steepness=(float(found.x[count]), float(found.x[count + 1])),
        centre=centre,
        deviance=float(2 * found.cost),
        covariance=np.linalg.pinv(information, hermitian=True),
    )


def free_law(sizes: Floats) -> Law:
    """The law with a half-recovery point for each size: what the others are held against."""
    logs = np.log(sizes)
    return Law(
        "free",
        "one level a size",
        tuple(f"N = {N:g}" for N in sizes),
        lambda t, x: t[np.searchsorted(logs, x - 1e-9)],
        lambda _, half: half,
        lambda _: np.nan,
    )


def dispersion(fit: Fit, cells: Cells) -> float:
    """Deviance of a fit over what binomial counts about it have on average; at least 1.

    The average is summed over all outcomes of each cell, since cells in which nearly nothing or
    nearly everything recovers have next to none.
    """
    runs = np.maximum(np.rint(cells.runs), 1).astype(int).tolist()
    logs = log_probabilities(fit.predictor(cells))
    expected = sum(map(_mean_deviance, runs, *(column.tolist() for column in logs)))
    free = expected - fit.parameters
    return max(1.0, fit.deviance / free) if free > 0 else 1.0


def held_out(law: Law, cells: Cells, sizes: Sequence[float]) -> dict[float, float]:
    """Deviance of each size's cells from the law fitted to the other sizes."""
    found = {}
    for N in sizes:
        others = cells.only(cells.sizes()[cells.sizes() != N])
        found[N] = fit_law(law, others).deviance_of(cells.only(np.array([N])))
    return found


def _predictor(half: Floats, steepness: tuple[float, float], cells: Cells, centre: float) -> Floats:
    slope = np.exp(np.clip(steepness[0] + steepness[1] * (cells.log_size - centre), -20, 20))
    return np.asarray(slope * (cells.control - half), dtype=np.float64)


def _residuals(eta: Floats, cells: Cells) -> Floats:
    """Deviance residuals, with the sign of observed minus expected."""
    k, n = cells.recovered, cells.runs
    p = k / n
    log_p, log_q = log_probabilities(eta)
    terms = xlogy(k, p) + xlog1py(n - k, -p) - k * log_p - (n - k) * log_q
    signed = np.sign(p - probability(eta)) * np.sqrt(2 * np.maximum(terms, 0))
    return np.asarray(np.clip(signed, -1e6, 1e6), dtype=np.float64)


def _mean_deviance(n: int, log_p: float, log_q: float) -> float:
    """Mean of the deviance of binomial counts of n trials about their own probability."""
    k = np.arange(n + 1.0)
    weight = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + k * log_p + (n - k) * log_q
    deviance = xlogy(k, k / n) + xlogy(n - k, (n - k) / n) - k * log_p - (n - k) * log_q
    return float(2 * (np.exp(weight) * np.minimum(deviance, 1e300)).sum())


def _rough_halves(cells: Cells) -> tuple[Floats, Floats]:
    """log N and c_½ of each mixed size: where the curve first stays above one half."""
    sizes, halves = cells.sizes(mixed=True), []
    for N in sizes:
        one = cells.only(np.array([N]))
        order = np.argsort(one.control)
        c, p = one.control[order], (one.recovered / one.runs)[order]
        rising = np.maximum.accumulate(p)
        halves.append(float(np.interp(0.5, rising, c)))
    return np.log(sizes), np.array(halves, dtype=np.float64)


def as_cells(
    control: Floats, sizes: Floats, recovered: NDArray[np.number], runs: NDArray[np.number]
) -> Cells:
    """Cells with runs of arrays [control, N]."""
    c, N = np.meshgrid(control, sizes, indexing="ij")
    kept = np.asarray(runs) > 0
    return Cells(
        c[kept].astype(np.float64),
        N[kept].astype(np.float64),
        np.asarray(recovered, dtype=np.float64)[kept],
        np.asarray(runs, dtype=np.float64)[kept],
    )
