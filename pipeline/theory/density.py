"""Stieltjes transform and spectral density of the Hessian, for any law of (y, ŷ).

Spec section 5: z(g) = x + μ + i0 is solved for complex g, and the density is |Im g|/π.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.theory.bulk import check_ratio, respond
from pipeline.theory.laws import Array, LabelLaw

Complex = NDArray[np.complex128]

# Height above the axis at which the density is taken, relative to the extent of the x asked for
_HEIGHT = 1e-9
_SWEEPS = 60


class DensityError(ArithmeticError):
    """The equation of the Stieltjes transform was not solved everywhere."""


def spectral_density(law: LabelLaw, alpha: ArrayLike, x: ArrayLike) -> Array:
    """Density of the eigenvalues of H at x, |Im g(x + i0)|/π, normalised to 1 over the whole axis.

    Taken at a height of 1e-9 times the extent of x above the axis: outside the bulk it is of that
    order, not 0, and H's null space (α < 1) is a narrow peak at −μ. Outliers are not in it.

    Parameters
    ----------
    law : LabelLaw
    alpha : float array
        α = M/N > 0.
    x : float array
        Eigenvalues, of a shape that broadcasts with that of α.

    Returns
    -------
    float array
        In the common shape of α and x.

    Raises
    ------
    LawError
        If an α is not a positive number.
    DensityError
        If the equation is not solved at some x.
    """
    x = np.asarray(x, dtype=np.float64)
    extent = float(np.max(np.abs(x), initial=1e-3))
    g = stieltjes_transform(law, alpha, x + 1j * _HEIGHT * extent)
    return np.asarray(np.abs(g.imag) / np.pi)


def stieltjes_transform(law: LabelLaw, alpha: ArrayLike, x: ArrayLike) -> Complex:
    """g(x) = ∫ρ(λ) dλ/(x − λ) of the Hessian's bulk: z(g) = x + μ for Im x > 0, where Im g < 0.

    Newton's method, followed down from far above the axis, where g ≈ 1/x.

    Parameters
    ----------
    law : LabelLaw
    alpha : float array
        α = M/N > 0.
    x : complex array
        Points with Im x > 0, of a shape that broadcasts with that of α.

    Returns
    -------
    complex array
        In the common shape of α and x.

    Raises
    ------
    LawError
        If an α is not a positive number.
    DensityError
        If an x is not above the axis, or the equation is not solved there.
    """
    values = np.asarray(x, dtype=np.complex128)
    shape = np.broadcast_shapes(np.shape(alpha), values.shape)
    points = np.broadcast_to(values, shape)
    if not (values.imag > 0).all():
        raise DensityError(
            "the Stieltjes transform is found above the real axis only, got a point with Im x ≤ 0; "
            "for the density on the axis use spectral_density"
        )
    ratio = np.broadcast_to(check_ratio(alpha), shape).reshape(-1)
    target = points.reshape(-1) + ratio * law.pull
    start = 10 * (np.abs(target) + ratio * float(law.weights @ np.abs(law.curvature)))
    g, height = 1 / _lift(target, start), start
    for _ in range(8):  # the fixed point contracts at this height
        g = 1 / (_lift(target, height) - ratio * respond(law, g).first)
    left = np.arange(target.size)
    fall = np.full(target.size, 4.0)
    for _ in range(_SWEEPS):
        lower = np.maximum(height[left] / fall[left], target.imag[left])
        new, solved = _polish(law, ratio[left], _lift(target[left], lower), g[left])
        done = left[solved]
        g[done], height[done] = new[solved], lower[solved]
        # where Newton's method loses the branch, the next step down is shorter
        fall[left] = np.where(solved, np.minimum(fall[left] * 1.5, 30.0), np.sqrt(fall[left]))
        left = left[~(solved & (lower <= target.imag[left]))]
        if not left.size:
            return np.asarray(g.reshape(points.shape))
    raise DensityError(
        f"the Stieltjes transform was not found at {left.size} of {target.size} points, "
        f"first at x = {points.reshape(-1)[left[0]]:.6g}, alpha = {ratio[left[0]]:.6g}"
    )


def _lift(points: Complex, height: Array) -> Complex:
    """The points, at another height above the real axis."""
    return np.asarray(points.real + 1j * height, dtype=np.complex128)


def _polish(
    law: LabelLaw, alpha: Array, z: Complex, g: Complex
) -> tuple[Complex, NDArray[np.bool_]]:
    """Newton's steps for z(g) = z from g; and where they ended on the branch with Im g < 0."""
    for _ in range(6):
        at = respond(law, g)
        miss = 1 / g + alpha * at.first - z
        step = miss / (alpha * at.second - 1 / g**2)
        g = g - step
        solved = np.abs(step) <= 1e-7 * np.abs(g)  # squared by the step just made
        if solved.all():
            break
    return g, solved & (g.imag < 0)
