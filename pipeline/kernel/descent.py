"""Plain gradient descent on the sphere with a fixed learning rate.

The scheme of arXiv:2403.02418 (spec, section 2): w ← √N (w − η (∇L − μ w)) / |…|. One step is a
time η of the flow. The learning rate must stay well below 2/λ_max(H); one that is too large does
not only diverge but silently biases the recovery probability.
"""

from dataclasses import dataclass, replace

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array, namespace, put_rows, take_rows, to_host
from pipeline.kernel.batch import Rows, off_signal, on_sphere
from pipeline.kernel.flow import RECOVERED_OVERLAP, DescentResult, Landscape, Outcome


@dataclass(frozen=True)
class GradientDescent:
    """Projected gradient descent of a batch of trajectories.

    Parameters
    ----------
    landscape : Landscape
    duration : float
        T, in time units of the flow; ⌈T/η⌉ steps.
    learning_rate : float
        η.
    on_equator : bool
        Project each step orthogonally to w*, so that m = 0 stays; nothing is then recovered.
    recovered_overlap : float
        |m| at which a run has recovered and ends.
    """

    landscape: Landscape
    duration: float
    learning_rate: float
    on_equator: bool = False
    recovered_overlap: float = RECOVERED_OVERLAP

    def run(self, w: Array, owner: Rows, times: tuple[float, ...] = ()) -> DescentResult:
        """Descend from `w` [trajectories, N] until it recovers or t = T.

        The hitting time is that of the first step after which it has. Of the requested `times`
        w is kept after the nearest step.
        """
        xp, (count, n) = namespace(w), w.shape
        result = DescentResult(
            w=xp.asarray(w, copy=True),
            outcome=np.full(count, Outcome.NOT_RECOVERED, dtype=np.int8),
            time=np.zeros(count),
            hit_time=np.full(count, np.inf),
            gradients=np.zeros(count, dtype=np.int64),
            path=xp.full((count * len(times), n), np.nan, dtype=w.dtype, device=device(w)),
        )
        wanted = np.round(np.array(times) / self.learning_rate).astype(np.int64)
        # what is not finite ends as an outcome, without a warning on its way
        with np.errstate(over="ignore", invalid="ignore"):
            self._run(w, owner, wanted, result)
        return replace(result, path=xp.reshape(result.path, (count, len(times), n)))

    def _run(self, w: Array, owner: Rows, wanted: NDArray[np.int64], result: DescentResult) -> None:
        xp, n = namespace(w), self.landscape.dimension
        place = np.arange(len(owner))
        signal = take_rows(self.landscape.signals, owner)
        point = self._project(w, signal)
        for step in range(self._steps() + 1):
            overlap = to_host(xp.vecdot(point, signal)) / n
            hit = np.abs(overlap) >= self.recovered_overlap
            failed = ~np.isfinite(overlap)
            put_rows(result.w, place, point)
            result.time[place] = step * self.learning_rate
            result.gradients[place] = step
            for k in np.flatnonzero(wanted == step).tolist():
                put_rows(result.path, place * len(wanted) + k, point)
            result.hit_time[place[hit]] = step * self.learning_rate
            result.outcome[place[hit]] = Outcome.RECOVERED
            result.outcome[place[failed]] = Outcome.NOT_FINITE
            going = ~(hit | failed)
            if not going.all():
                place, owner = place[going], owner[going]
                point, signal = take_rows(point, going), take_rows(signal, going)
            if not len(place):
                break
            gradient, _ = self.landscape.gradient(point, owner)
            multiplier = xp.vecdot(point, gradient) / n
            force = multiplier[:, None] * point - gradient
            point = self._project(point + self.learning_rate * force, signal)

    def _steps(self) -> int:
        # T/η may lie off a whole number by rounding: that is no step more
        return int(np.ceil(self.duration / self.learning_rate * (1 - 1e-12)))

    def _project(self, w: Array, signal: Array) -> Array:
        return on_sphere(off_signal(w, signal) if self.on_equator else w)
