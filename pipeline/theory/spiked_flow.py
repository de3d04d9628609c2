"""Gradient flow of the spiked matrix-tensor model for N → ∞, to third order in the step.

Spec section 2: the closed equations of C, R and m in continuous time are the limit h → 0 of those
of descent, whose expansion in h is regular. Descents with steps h, h/2 and h/4, extrapolated to
zero at the times they share, solve them to O(h³).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pipeline.theory.spiked_descent import (
    MOST_STEPS,
    Dynamics,
    count_steps,
    descend,
    descend_from_equator,
)
from pipeline.theory.spiked_model import SpikedModel, SpikedModelError

_REFINEMENTS = (1, 2, 4)
_ONE_TIME = ("overlap", "multiplier", "matrix_energy", "tensor_energy")
_TWO_TIMES = ("correlation", "response")


@dataclass(frozen=True)
class FlowDynamics(Dynamics):
    """Gradient flow for N → ∞; fields as in `Dynamics`.

    Parameters
    ----------
    error : float
        Largest change of m, μ, e₂ or e_p by the last order of the extrapolation: what remains is
        smaller by a factor of order h. From the equator it is the relative change of the gain.
    """

    error: float


def follow_flow(
    model: SpikedModel, overlap: float, *, duration: float, step: float
) -> FlowDynamics:
    """Gradient flow from x(0) with m(0) = `overlap`, for N → ∞, at times k h.

    At h = 0.1 and Δ₂ ≈ 0.5 errors are of order 1e-6.

    Parameters
    ----------
    model : SpikedModel
    overlap : float
        m(0) in [-1, 1].
    duration : float
        The last time; a whole number of steps.
    step : float
        h < 2/(μ + 2σ); a quarter of it is computed with.

    Raises
    ------
    SpikedModelError
        If m(0) is outside [-1, 1], the duration not 1 to 2500 whole steps, or h too long.
    """
    return _extrapolate(
        model, step, duration, lambda h: descend(model, overlap, duration=duration, step=h)
    )


def follow_flow_from_equator(model: SpikedModel, *, duration: float, step: float) -> FlowDynamics:
    """The same for m(0) → 0: C, R and μ at m = 0, and as `overlap` the gain m(t)/m(0).

    Raises
    ------
    SpikedModelError
        As `follow_flow`.
    """
    logarithmic = _extrapolate(
        model, step, duration, lambda h: _log_gain(model, duration=duration, step=h)
    )
    return replace(logarithmic, overlap=np.exp(logarithmic.overlap))


def _log_gain(model: SpikedModel, *, duration: float, step: float) -> Dynamics:
    # a gain grows exponentially; it is its logarithm whose error is regular in h
    found = descend_from_equator(model, duration=duration, step=step)
    return replace(found, overlap=np.log(found.overlap))


def _extrapolate(
    model: SpikedModel, step: float, duration: float, solve: Callable[[float], Dynamics]
) -> FlowDynamics:
    steps = count_steps(duration, step)
    most = MOST_STEPS // _REFINEMENTS[-1]
    if steps > most:
        raise SpikedModelError(
            f"the duration of a flow must be at most {most} steps, got {duration!r} with steps of "
            f"{step!r}"
        )
    solutions = [solve(step / refinement) for refinement in _REFINEMENTS]
    fastest = float(solutions[-1].multiplier.max()) + 2 * model.sigma
    if not step * fastest < 2:
        raise SpikedModelError(
            f"the step must be below 2/(μ + 2σ) = {2 / fastest:.3g}, got {step!r}"
        )
    fields, error = {}, 0.0
    for name in (*_ONE_TIME, *_TWO_TIMES):
        thinned = [
            getattr(found, name)[(slice(None, None, k),) * getattr(found, name).ndim]
            for found, k in zip(solutions, _REFINEMENTS, strict=True)
        ]
        first = [2 * fine - coarse for coarse, fine in pairwise(thinned)]
        fields[name] = (4 * first[1] - first[0]) / 3
        if name in _ONE_TIME:
            error = max(error, float(np.abs(fields[name] - first[1]).max()))
    return FlowDynamics(time=solutions[0].time, **fields, error=error)
