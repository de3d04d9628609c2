"""Threshold states, where a descent without the signal ends: the 1RSB solution at zero temperature.

Spec section 6; Sarao Mannelli et al., arXiv:2006.06997. With ⟨·⟩ over the law of
`pipeline.theory.prox`:

- stationarity in χ: α E⟨(ŷ* − z)²⟩ = χ/(χ + ζ);
- marginality: α E⟨(χ ℓ''/(1 + χ ℓ''))²⟩ = 1, the edge of the bulk at g = −χ.

For given χ their ratio fixes ζ, and then α follows: the states are a curve over χ, followed from
large α (small χ) to small. An approximation: simulated states lie a little higher in energy.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from pipeline.theory.bulk import check_ratio
from pipeline.theory.laws import Array, LabelLaw, check_parameter
from pipeline.theory.prox import ProximalLaw, loss_scale, proximal_law

# Where the curve is entered, how far apart its points are, and how close before it counts as ended
_ENTRY, _STRIDE, _LEAST_STRIDE = 0.1, 1.3, 1.02
_SMALLEST, _LARGEST = 1e-8, 30.0
# Beyond this ζ the quadrature of the law is not accurate
_LARGEST_ZETA = 60.0
# Of log ζ, extrapolated from the points before; further away it may be another branch
_LARGEST_MISS = 0.4


class ThresholdStateError(ValueError):
    """No threshold state was found at the α asked for."""


@dataclass(frozen=True)
class ThresholdState:
    """The 1RSB solution at one α.

    Parameters
    ----------
    alpha, chi, zeta : float
        α, χ and ζ.
    energy : float
        Loss per measurement, E⟨ℓ⟩.
    law : LabelLaw
        The law of (y, ŷ), for `pipeline.theory.bulk`.
    """

    alpha: float
    chi: float
    zeta: float
    energy: float
    law: LabelLaw


@dataclass(frozen=True)
class ThresholdBranch:
    """The curve of 1RSB solutions, from large α to small; arrays [points].

    Parameters
    ----------
    a : float
        Parameter of the loss.
    alpha, chi, zeta : float array
        Of each point; α falls, χ grows.
    lead : float array
        Below 0 where the signal's outlier has left the bulk, see `bbp_at_threshold`.
    """

    a: float
    alpha: Array
    chi: Array
    zeta: Array
    lead: Array

    @property
    def alpha_min(self) -> float:
        """Least α followed to: the curve ends, or χ reaches 30 or ζ 60, both times max(1, a)."""
        return float(self.alpha[-1])

    @property
    def alpha_marginal(self) -> float:
        """α above which the states are marginal: the edge of their Hessian is at 0.

        Below it (χ > 1; for the unnormalised loss at any α) the proximal point jumps at z = 0. The
        two equations still have a solution, but know nothing of jumps: the bulk's edge then comes
        out a little above 0.
        """
        if np.isinf(self.a):
            return np.inf
        if self.chi[-1] < 1:
            return self.alpha_min
        left, right = _neighbours(self, int(np.searchsorted(self.chi, 1.0)))
        return _find_between(self.a, left, right, lambda point: np.log(point.chi)).alpha


@dataclass(frozen=True)
class _Point:
    alpha: float
    chi: float
    zeta: float
    lead: float


def follow_branch(a: float, *, alpha_max: float = 40.0) -> ThresholdBranch:
    """The threshold states of the loss ℓ_a, from `alpha_max` or more down to where they end.

    Parameters
    ----------
    a : float
        Parameter of the loss, 0 < a ≤ ∞.
    alpha_max : float
        Largest α that will be asked for.

    Raises
    ------
    LawError
        If `a` or `alpha_max` is not positive.
    ThresholdStateError
        If the equations cannot be solved at χ = 0.1, or not up to `alpha_max`.
    """
    a, most = check_parameter(a), float(check_ratio(alpha_max))
    entry = _enter(a)
    points = [entry]
    for point in _walk(a, entry, 1 / _STRIDE):
        if points[0].alpha >= most:
            break
        points.insert(0, point)
    if points[0].alpha < most:
        raise ThresholdStateError(
            f"threshold states of a = {a:g} could be followed up to alpha = {points[0].alpha:.6g} "
            f"only, got alpha_max = {most!r}"
        )
    points += _walk(a, entry, _STRIDE)
    columns = zip(*((p.alpha, p.chi, p.zeta, p.lead) for p in points), strict=True)
    return ThresholdBranch(a, *(np.array(column) for column in columns))


def find_state(branch: ThresholdBranch, alpha: float) -> ThresholdState:
    """The threshold state at α, on the branch.

    Raises
    ------
    LawError
        If α is not a positive number.
    ThresholdStateError
        If the branch does not reach α.
    """
    wanted = float(check_ratio(alpha))
    if not branch.alpha_min <= wanted <= branch.alpha[0]:
        raise ThresholdStateError(
            f"threshold states of a = {branch.a:g} are known from alpha = "
            f"{branch.alpha_min:.6g} to {branch.alpha[0]:.6g}, got {alpha!r}"
        )
    after = int(np.searchsorted(-branch.alpha, -wanted))
    left, right = _neighbours(branch, after)
    point = _find_between(branch.a, left, right, lambda point: point.alpha - wanted)
    law = proximal_law(branch.a, point.chi, point.zeta)
    return ThresholdState(wanted, point.chi, point.zeta, law.average(law.loss), law.label_law())


def bbp_at_threshold(a: float) -> float:
    """α_BBP^TS(a): above it the Hessian at threshold states has an outlier along the signal.

    With g = −χ in the outlier's equation and α from marginality, the outlier leaves the edge where
    1 + E⟨r (y² − 1)⟩/(χ E⟨r²⟩) = 0, r = ℓ''/(1 + χ ℓ''). The branch is followed only so far.
    For the unnormalised loss 13.80, as in the literature; plain grids over y and z, whose error
    falls like the root of their spacing, give less (13.56 with 1600 points a side).

    Parameters
    ----------
    a : float
        Parameter of the loss, 0 < a ≤ ∞.

    Raises
    ------
    LawError
        If a is not positive.
    ThresholdStateError
        If the branch ends before the threshold.
    """
    a = check_parameter(a)
    before = _enter(a)
    if before.lead < 0:
        for point in _walk(a, before, _STRIDE):
            if point.lead >= 0:
                return _find_between(a, before, point, lambda point: point.lead).alpha
            before = point
    raise ThresholdStateError(
        f"no BBP threshold of the threshold states of a = {a:g} was found from chi = {_ENTRY} to "
        f"{before.chi:.6g} (alpha = {before.alpha:.6g})"
    )


def _enter(a: float) -> _Point:
    point = _solve_point(a, _ENTRY, _ENTRY)
    if point is None:
        raise ThresholdStateError(f"no threshold state of a = {a:g} was found at chi = {_ENTRY}")
    return point


def _walk(a: float, start: _Point, stride: float) -> Iterator[_Point]:
    """Points of the branch after `start`, χ growing by the factor `stride` or less at each."""
    before, point = start, start
    growth = 1.0  # d log ζ / d log χ, for a first guess
    scale = loss_scale(a)
    while abs(np.log(stride)) > np.log(_LEAST_STRIDE):
        chi = point.chi * stride
        if not _SMALLEST <= chi <= _LARGEST * scale:
            return
        guess = point.zeta * stride**growth
        new = _solve_point(a, chi, guess)
        if (
            new is None
            or abs(np.log(new.zeta / guess)) > _LARGEST_MISS
            or (new.alpha < point.alpha) != (stride > 1)
        ):
            stride = np.sqrt(stride)
            continue
        if new.zeta > _LARGEST_ZETA * scale:
            return
        before, point = point, new
        growth = np.log(point.zeta / before.zeta) / np.log(point.chi / before.chi)
        yield point


def _neighbours(branch: ThresholdBranch, after: int) -> tuple[_Point, _Point]:
    """The points of the branch before and at the index `after`."""
    columns = (branch.alpha, branch.chi, branch.zeta, branch.lead)
    before = max(after - 1, 0)
    left, right = (_Point(*(float(column[k]) for column in columns)) for k in (before, before + 1))
    return left, right


def _find_between(
    a: float, left: _Point, right: _Point, target: Callable[[_Point], float]
) -> _Point:
    """The point of the branch where `target` is 0, between two on either side."""

    def point_at(share: float) -> _Point:
        if share in (0.0, 1.0):
            return right if share else left
        chi, zeta = (
            float(np.exp((1 - share) * np.log(one) + share * np.log(other)))
            for one, other in ((left.chi, right.chi), (left.zeta, right.zeta))
        )
        point = _solve_point(a, chi, zeta)
        if point is None:
            raise ThresholdStateError(
                f"the branch of threshold states of a = {a:g} was lost at chi = {chi:.6g}, "
                f"zeta near {zeta:.6g}, between alpha = {right.alpha:.6g} and {left.alpha:.6g}"
            )
        return point

    return point_at(brentq(lambda share: target(point_at(share)), 0.0, 1.0, xtol=1e-12))


def _solve_point(a: float, chi: float, guess: float) -> _Point | None:
    """With the ζ nearest to `guess` that solves both equations; None if none within a factor 4."""

    def excess(log_zeta: float) -> float:
        zeta = float(np.exp(log_zeta))
        law = proximal_law(a, chi, zeta)
        moved = law.average(law.slope**2) * chi**2
        return float(np.log(moved * (1 + zeta / chi) / _marginality(law)))

    middle = float(np.log(guess))
    here = excess(middle)
    for reach in (0.02, 0.1, 0.3, 0.7, 1.4):
        for end in (middle - reach, middle + reach):
            if excess(end) * here <= 0:
                zeta = float(np.exp(brentq(excess, middle, end, xtol=1e-12)))
                law = proximal_law(a, chi, zeta)
                return _Point(1 / _marginality(law), chi, zeta, _lead(law))
    return None


def _response(law: ProximalLaw) -> Array:
    return law.curvature / (1 + law.chi * law.curvature)


def _marginality(law: ProximalLaw) -> float:
    """E⟨(χ ℓ''/(1 + χ ℓ''))²⟩ = 1/α."""
    return law.chi**2 * law.average(_response(law) ** 2)


def _lead(law: ProximalLaw) -> float:
    """Outlier's equation at the edge, < 0 where the outlier has left it."""
    r = _response(law)
    return 1 + law.average(r * (law.labels_squared - 1)) / (law.chi * law.average(r**2))
