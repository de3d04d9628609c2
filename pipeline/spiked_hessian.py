"""λ₁ of the Hessian of the spiked model along a descent, for N → ∞.

The descent is that of one instance in law so large that nothing fluctuates any more. Unlike the
outlier of `pipeline.theory.spiked_landscape` this λ₁ knows that the noise has led the descent.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.inits import overlap_starts
from pipeline.kernel.models import MOST_SPIKED_DIRECTIONS
from pipeline.kernel.spiked_conditional import draw_conditional
from pipeline.theory.spiked_model import SpikedModel

Floats = NDArray[np.float64]

_DIMENSION: Final = 10**14  # fluctuations of relative order 1e-7


def lowest_eigenvalue(
    model: SpikedModel, overlap: float, times: Floats, step: float, *, seed: int = 0
) -> Floats:
    """λ₁ at some times of a gradient descent from m(0) = `overlap`; the bulk's edge if no outlier.

    Parameters
    ----------
    model : SpikedModel
    overlap : float
        m(0), far above 1e-7.
    times : float array [times]
        Ascending, from 0 on.
    step : float
        η.
    seed : int
        Of the instance, which moves the last digits.

    Returns
    -------
    float array [times]
    """
    stream, owner = np.random.SeedSequence(seed), np.zeros(1, dtype=np.intp)
    landscape = draw_conditional(
        (stream,), model=model, dimension=_DIMENSION, width=MOST_SPIKED_DIRECTIONS
    )
    start = overlap_starts(landscape.draw_starts((stream,)), landscape.signals, overlap)
    descent = GradientDescent(landscape, float(times[-1]), step, recovered_overlap=1.0)
    path = descent.run(start.w, owner, tuple(times.tolist())).path
    values = [
        landscape.hessian(path[:, k], owner).lowest_pairs(path[:, k], 1).values[0, 0]
        for k in range(len(times))
    ]
    return np.array(values)
