"""The spiked matrix-tensor model without couplings in memory: exact in law, at a cost without N.

Spec section 4. A descent stays in the span of the signal, its start and the gradients that it has
seen. Only couplings within this span are drawn, each conditioned on all that is known of it; what
a gradient has outside the span is an independent Gaussian vector, whose direction joins the span.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array
from pipeline.kernel.batch import Rows, on_sphere, owned_rows
from pipeline.kernel.spiked_spectrum import HessianInLaw
from pipeline.kernel.spiked_tensor import signal_pulls
from pipeline.kernel.streams import Stream, generator
from pipeline.kernel.symmetric_form import (
    SymmetricForm,
    count_orderings,
    differentiate_monomials,
    evaluate_monomials,
    list_monomials,
)
from pipeline.theory.samples import LeftEnd
from pipeline.theory.spiked_landscape import hessian_left_end
from pipeline.theory.spiked_model import SpikedModel

Floats = NDArray[np.float64]

_TOLERANCE = 1e-10
_FIRST_ROOM = 32  # directions; doubled where they are not enough


class DirectionsExhaustedError(RuntimeError):
    """An instance would need more directions than there is room for."""


class RevealedCouplings:
    """What has been drawn of one instance, in an orthonormal basis of the span; e_0 = w*/√N.

    At y = x/√N the noise is h(y) = H_noise/N = Σ_i y_i Σ_f c_if f(y), f running over the monomials
    of degree 1 and p − 1. Of an unrevealed direction k the couplings to the span are
    c_kf = s_f ξ_kf/√N, with standard Gaussian ξ and Σ_f s_f² f(y) f(y') = Q'(y·y'): the gradient
    along k is φ(y)·ξ_k/√N, φ_f = s_f f(y). As the gradients seen so far lie in the span, ξ_k is
    orthogonal to their φ.

    Parameters
    ----------
    model : SpikedModel
    dimension : int
        N.
    width : int
        Directions that it may have at most.
    random : Generator
    tolerance : float
        A gradient of which at most this share of the variance is new gives no new direction.
    """

    def __init__(
        self,
        model: SpikedModel,
        dimension: int,
        width: int,
        random: np.random.Generator,
        tolerance: float = _TOLERANCE,
    ) -> None:
        self.count = 0
        self.dimension, self._model, self._width = dimension, model, width
        self._random, self._tolerance = random, tolerance
        self._gradients = 0
        self._rows, self._seen = np.zeros((2, 1, 0))
        self._make_room(min(_FIRST_ROOM, width))
        self.add_direction()

    @property
    def form(self) -> SymmetricForm:
        """h within the span, as a form in (1, y): both its parts together."""
        d, end = self.count, self._end
        return SymmetricForm(self._features[:, :end], ((0, self._rows[: d + 1, :end]),), d + 1)

    @property
    def _end(self) -> int:
        return int(self._ends[self.count])

    def add_direction(self) -> None:
        """Reveal a direction that was chosen without looking at the couplings."""
        self._append(self._draw_couplings())

    def reveal(self, y: Floats) -> None:
        """Extend the span by the gradient at `y` [count]."""
        values = evaluate_monomials(_extend(y[None]), self._features[:, : self._end])[0]
        self._reveal(self._scales[: self._end] * values)

    def reveal_product(self, y: Floats, v: Floats) -> None:
        """Extend the span by the Hessian at `y` times `v`, both [count]."""
        self._reveal(v @ self._slopes(y))

    def _reveal(self, phi: Floats) -> None:
        """Extend the span by what φ·ξ_k is along the unrevealed directions k."""
        if self.count >= self.dimension:
            return
        rest = self._without_seen(phi)
        length2 = float(rest @ rest)
        if length2 <= self._tolerance * float(phi @ phi):
            return
        couplings = self._draw_couplings()
        unit = rest / np.sqrt(length2)
        couplings -= (unit @ couplings) * unit
        couplings += np.sqrt(self._random.chisquare(self.dimension - self.count)) * unit
        self._append(couplings)
        self._seen[self._gradients, : len(unit)] = unit
        self._gradients += 1

    def curvature(self, y: Floats) -> tuple[Floats, Floats]:
        """Hessian of h at `y` [count] within the span, and Γ, both [count, count].

        Γ_ij/N is the covariance of its entries between an unrevealed direction and e_i, e_j: the
        product of ∂φ/∂y_i and ∂φ/∂y_j, without what is known of them.
        """
        rest = self._without_seen(self._slopes(y))
        return self.hessian(y), np.asarray(rest @ rest.T, dtype=np.float64)

    def hessian(self, y: Floats) -> Floats:
        """Hessian of h at `y` [count] within the span [count, count]."""
        inside: Floats = self.form.hessian(_extend(y[None])[0])[1:, 1:]
        return inside

    def _slopes(self, y: Floats) -> Floats:
        """∂φ/∂y_i at `y` [count, features]."""
        features = self._features[:, : self._end]
        slopes = differentiate_monomials(_extend(y[None])[0], features)[1:]
        return np.asarray(slopes * self._scales[: self._end])

    def _draw_couplings(self) -> Floats:
        """ξ of a new direction, conditioned on the gradients seen: it has no part in them."""
        return self._without_seen(self._random.standard_normal(self._end))

    def _without_seen(self, phi: Floats) -> Floats:
        seen = self._seen[: self._gradients, : phi.shape[-1]]
        for _ in range(2):  # the second time for what rounding left
            phi = phi - (phi @ seen.T) @ seen
        return phi

    def _make_room(self, directions: int) -> None:
        """Arrays for so many directions; what they hold stays where it is."""
        self._features = _list_features(directions, self._model.order)
        # how many belong to e_0 … e_{count − 1}, by count
        self._ends = np.searchsorted(self._features[0], np.arange(1, directions + 2))
        tensor = self._model.tensor * count_orderings(self._features)
        is_matrix = self._features[1] == 0
        self._scales = np.sqrt(np.where(is_matrix, self._model.matrix, tensor))
        rows, seen = self._rows, self._seen
        self._rows = np.zeros((directions + 1, len(self._scales)))
        self._seen = np.zeros((directions, len(self._scales)))
        self._rows[: rows.shape[0], : rows.shape[1]] = rows
        self._seen[: seen.shape[0], : seen.shape[1]] = seen

    def _append(self, couplings: Floats) -> None:
        """Add a direction with these ξ, and draw the couplings in which it comes twice or more."""
        if self.count == self._width:
            raise DirectionsExhaustedError(
                f"an instance at N = {self.dimension} needs more than the {self._width} directions "
                "that there is room for; make room for more"
            )
        if self.count + 1 == len(self._rows):
            self._make_room(min(2 * self.count, self._width))
        self.count += 1
        row, old, new = self.count, len(couplings), self._end
        self._rows[row, :old] = self._scales[:old] * couplings / np.sqrt(self.dimension)
        fresh = self._features[:, old:new]
        indices = np.concatenate([np.full((1, new - old), row), fresh])
        p, tensor = self._model.order, self._model.tensor
        variances = np.where(
            fresh[1] == 0, self._model.matrix / 2, tensor / p * count_orderings(indices)
        )
        noise = self._random.standard_normal(new - old)
        self._rows[row, old:new] = np.sqrt(variances / self.dimension) * noise


@dataclass(frozen=True)
class ConditionalSpikedTensor:
    """Instances with energy H = H_noise − N Q(m), drawn as far as their descents see them.

    Points are √width times their coordinates in the instance's basis, so that the sphere is
    |w|² = width: `dimension` is the width, not N, and in these units all else is as in R^N.

    Parameters
    ----------
    model : SpikedModel
    couplings : tuple of RevealedCouplings, one per instance
    width : int
    """

    model: SpikedModel
    couplings: tuple[RevealedCouplings, ...]
    width: int

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return self.width

    @property
    def signals(self) -> Array:
        """w* of each instance [instances, width]: along the first coordinate."""
        signals = np.zeros((len(self.couplings), self.width))
        signals[:, 0] = np.sqrt(self.width)
        return signals

    @property
    def directions(self) -> list[int]:
        """In how many directions of R^N each instance is known."""
        return [couplings.count for couplings in self.couplings]

    def keep(self) -> None:
        """Nothing known is ever forgotten."""

    def gradient(self, w: Array, owner: Rows) -> tuple[Array, Array]:
        """∇H [trajectories, width], and the energies per N of both parts [trajectories, 2].

        Where it leaves the span of an instance, a direction is drawn: the result depends on what
        was asked of the instance before, its law does not.
        """
        y = w / np.sqrt(self.width)
        gradient = np.zeros_like(y)
        value = np.empty(len(y))
        for instance, rows in owned_rows(owner):
            couplings = self.couplings[instance]
            for row in range(rows.start, rows.stop):
                couplings.reveal(y[row, : couplings.count])
            d = couplings.count
            value[rows], slope = couplings.form.value_and_gradient(_extend(y[rows, :d]))
            gradient[rows, :d] = slope[:, 1:]
        p, m = self.model.order, y[:, 0]
        tensor = (np.vecdot(y, gradient) - 2 * value) / (p - 2)
        matrix_pull, tensor_pull = signal_pulls(self.model, m)
        gradient[:, 0] -= matrix_pull + tensor_pull
        energies = np.stack([value - tensor - m * matrix_pull / 2, tensor - m * tensor_pull / p])
        return gradient * np.sqrt(self.width), energies.T

    def gradient_and_product(self, w: Array, u: Array, owner: Rows) -> tuple[Array, Array, Array]:
        """∇H(w), the energies, and ∇²H(w) u, which may take another direction."""
        product = np.zeros_like(u)
        for row, instance in enumerate(owner.tolist()):
            couplings = self.couplings[instance]
            y = w[row] / np.sqrt(self.width)
            couplings.reveal(y[: couplings.count])
            couplings.reveal_product(y[: couplings.count], u[row, : couplings.count])
            d = couplings.count
            product[row, :d] = couplings.hessian(y[:d]) @ u[row, :d]
            product[row, 0] -= float(self.model.curvature(y[0])) * u[row, 0]
        return *self.gradient(w, owner), product

    def hessian(self, w: Array, owner: Rows) -> HessianInLaw:
        """Hessians on the sphere at each row of `w` [trajectories, width], as far as known."""
        gradient, _ = self.gradient(w, owner)
        known, noise = [], []
        for point, instance in zip(w / np.sqrt(self.width), owner.tolist(), strict=True):
            couplings = self.couplings[instance]
            y = point[: couplings.count]
            inside, outside = couplings.curvature(y)
            inside[0, 0] -= float(self.model.curvature(y[0]))
            projector = np.eye(len(y)) - np.outer(y, y) / (y @ y)
            known.append(projector @ inside @ projector)
            noise.append(projector @ outside @ projector)
        return HessianInLaw(
            tuple(known),
            tuple(noise),
            multiplier=np.asarray(np.vecdot(w, gradient) / self.width),
            radius=2 * self.model.sigma,
            dimension=max(couplings.dimension for couplings in self.couplings),
        )

    def left_end(self, w: Array, energies: Array, owner: Rows) -> LeftEnd:
        """Edge of the Hessian's semicircle and outlier of the signal [trajectories]."""
        multiplier = -(2 * energies[:, 0] + self.model.order * energies[:, 1])
        return hessian_left_end(self.model, multiplier, self.overlap(w, owner))

    def loss(self, energies: Array, owner: Rows) -> Array:  # noqa: ARG002  protocol
        """H/N [trajectories]."""
        return np.asarray(energies.sum(axis=-1))

    def overlap(self, w: Array, owner: Rows) -> Array:  # noqa: ARG002  protocol
        """Overlap m = w·w*/N [trajectories], in [-1, 1]."""
        return np.asarray(w[:, 0] / np.sqrt(self.width))

    def stiffness(self, energies: Array, multiplier: Array, owner: Rows) -> Array:  # noqa: ARG002
        """Right edge 2σ − μ of the Hessian's semicircle [trajectories]: nearly its λ_max."""
        return np.asarray(2 * self.model.sigma - multiplier)

    def draw_starts(self, streams: Sequence[Stream], replicas: int = 1) -> Array:
        """Points uniform on the sphere [streams × replicas, width], replicas fastest."""
        starts = np.zeros((len(streams) * replicas, self.width))
        for k, stream in enumerate(streams):
            couplings = self.couplings[k]
            for replica in range(replicas):
                random = generator(stream, "start", replica)
                start, d = starts[k * replicas + replica], couplings.count
                start[:d] = random.standard_normal(d)
                couplings.add_direction()
                start[d] = np.sqrt(random.chisquare(couplings.dimension - d))
        return on_sphere(starts)


def draw_conditional(
    streams: Sequence[Stream],
    *,
    model: SpikedModel,
    dimension: int,
    width: int,
    tolerance: float = _TOLERANCE,
) -> ConditionalSpikedTensor:
    """One instance per random stream, of which nothing but the signal is drawn yet.

    Parameters
    ----------
    streams : sequence of SeedSequence
        The labelled stream of each instance.
    model : SpikedModel
    dimension : int
        N.
    width : int
        Directions that there is room for in each instance: 57 at t = 20, 110 to 170 at t = 60 to
        120 for p = 3. It does not change the numbers.
    tolerance : float
        Share of a gradient's variance that may be left out of the span.
    """
    couplings = tuple(
        RevealedCouplings(model, dimension, width, generator(stream, "couplings"), tolerance)
        for stream in streams
    )
    return ConditionalSpikedTensor(model, couplings, width)


def _extend(y: Floats) -> Floats:
    """(1, y) for each row of `y` [batch, count]."""
    return np.concatenate([np.ones((len(y), 1)), y], axis=1)


def _list_features(width: int, order: int) -> NDArray[np.intp]:
    """Monomials of degree 1 and p − 1 in y, as monomials in (1, y) [p − 1, count].

    Ordered by their largest index: those of e_0 … e_{d − 1} come first, for any d.
    """
    linear = np.zeros((order - 1, width), dtype=np.intp)
    linear[0] = np.arange(1, width + 1)
    features = np.concatenate([linear, list_monomials(width, order - 1) + 1], axis=1)
    return features[:, np.argsort(features[0], kind="stable")]
