"""The spiked matrix-tensor model with its couplings in memory: gradient, Hessian, energies.

Spec sections 1 and 4; Sarao Mannelli et al., arXiv:1907.08226. The loss is the energy H(w), and
the flow dw/dt = −∇H + μ w has the kernel's sign of the multiplier, μ = w·∇H/N: minus the papers'.
Everything works on batches `w` [trajectories, N] with their `owner` [trajectories].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array
from pipeline.kernel.batch import Rows, owned_rows
from pipeline.kernel.phase_retrieval import draw_starts
from pipeline.kernel.spectrum import RESIDUAL
from pipeline.kernel.streams import Stream, generator
from pipeline.kernel.symmetric_form import Indices, SymmetricForm, build_form, count_orderings
from pipeline.theory.samples import LeftEnd
from pipeline.theory.spiked_landscape import hessian_left_end
from pipeline.theory.spiked_model import SpikedModel

Form = Literal["isotropic", "strict"]


@dataclass(frozen=True)
class SpikedTensor:
    """Instances with energy H = H_noise − N Q(m), Cov(H_noise(x), H_noise(y)) = N Q(x·y/N).

    Parameters
    ----------
    model : SpikedModel
        Q.
    signals : float array [instances, N]
        w* of each instance, |w*|² = N.
    matrices, tensors : tuple of SymmetricForm, one per instance
        The parts of degree 2 and p.
    planted : bool
        Whether the couplings hold the signal, as in the strict form; else −N Q(m) is added.
    """

    model: SpikedModel
    signals: Array
    matrices: tuple[SymmetricForm, ...]
    tensors: tuple[SymmetricForm, ...]
    planted: bool

    @property
    def dimension(self) -> int:
        """N."""
        return int(self.signals.shape[-1])

    @property
    def directions(self) -> list[int]:
        """In how many directions of R^N each instance is known: N."""
        return [self.dimension] * len(self.matrices)

    def keep(self) -> None:
        """Nothing known is ever forgotten."""

    def gradient(self, w: Array, owner: Rows) -> tuple[Array, Array]:
        """∇H [trajectories, N], and the energies per N of both parts [trajectories, 2].

        Parameters
        ----------
        w : float array [trajectories, N]
            Any point of R^N, also off the sphere.
        owner : int array [trajectories]

        Returns
        -------
        gradient : float array [trajectories, N]
        energies : float array [trajectories, 2]
            e₂ and e_p, which are homogeneous: e_d = w·∇H_d/(d N).
        """
        parts = np.empty((2, *w.shape), dtype=w.dtype)
        for instance, rows in owned_rows(owner):
            for part, forms in zip(parts, (self.matrices, self.tensors), strict=True):
                part[rows] = forms[instance].gradient(w[rows])
        if not self.planted:
            m = self.overlap(w, owner)[:, None]
            parts -= np.stack(signal_pulls(self.model, m)).astype(w.dtype) * self.signals[owner]
        degrees = np.array([2, self.model.order])
        energies = np.vecdot(w, parts).T / (degrees * self.dimension)
        return parts[0] + parts[1], energies

    def gradient_and_product(self, w: Array, u: Array, owner: Rows) -> tuple[Array, Array, Array]:
        """∇H(w), the energies, and ∇²H(w) u, at the price of a Hessian."""
        gradient, energies = self.gradient(w, owner)
        return gradient, energies, np.matvec(self._curvature(w, owner), u).astype(w.dtype)

    def loss(self, energies: Array, owner: Rows) -> Array:  # noqa: ARG002  protocol
        """H/N [trajectories]."""
        return np.asarray(energies.sum(axis=-1))

    def overlap(self, w: Array, owner: Rows) -> Array:
        """Overlap m = w·w*/N [trajectories], in [-1, 1]."""
        return np.asarray(np.vecdot(w, self.signals[owner]) / self.dimension)

    def stiffness(self, energies: Array, multiplier: Array, owner: Rows) -> Array:  # noqa: ARG002
        """Right edge 2σ − μ of the Hessian's semicircle [trajectories]: nearly its λ_max."""
        return np.asarray(2 * self.model.sigma - multiplier)

    def left_end(self, w: Array, energies: Array, owner: Rows) -> LeftEnd:
        """Edge of the Hessian's semicircle and outlier of the signal [trajectories]."""
        multiplier = -(2 * energies[:, 0] + self.model.order * energies[:, 1])
        return hessian_left_end(self.model, multiplier, self.overlap(w, owner))

    def hessian(self, w: Array, owner: Rows) -> "ProjectedHessian":
        """P ∇²H P − μ I at each row of `w` [trajectories, N], P orthogonal to w."""
        gradient, _ = self.gradient(w, owner)
        return ProjectedHessian(
            self._curvature(w, owner),
            (w / np.sqrt(np.vecdot(w, w))[:, None]).astype(np.float64),
            np.asarray(np.vecdot(w, gradient) / self.dimension, dtype=np.float64),
        )

    def _curvature(self, w: Array, owner: Rows) -> NDArray[np.float64]:
        """∇²H [trajectories, N, N]."""
        matrices = np.stack(
            [
                self.matrices[instance].hessian(point) + self.tensors[instance].hessian(point)
                for point, instance in zip(w, owner.tolist(), strict=True)
            ]
        )
        if not self.planted:
            signal = self.signals[owner].astype(np.float64)
            weight = self.model.curvature(self.overlap(w, owner)) / self.dimension
            matrices -= weight[:, None, None] * signal[:, :, None] * signal[:, None, :]
        return matrices


@dataclass(frozen=True)
class ProjectedHessian:
    """P A P − μ I of each trajectory: the Hessian on the sphere, with −μ along the point itself.

    −μ is the middle of the spectrum's semicircle, so the lowest pairs are those of the tangent
    plane.

    Parameters
    ----------
    curvature : float array [trajectories, N, N]
        A.
    normal : float array [trajectories, N]
        Unit vectors w/|w|.
    multiplier : float array [trajectories]
        μ.
    residual : float
        |H v − λ v| at which a pair is good enough.
    """

    curvature: NDArray[np.float64]
    normal: NDArray[np.float64]
    multiplier: NDArray[np.float64]
    residual: float = RESIDUAL

    @property
    def degenerate(self) -> bool:
        """The lowest eigenvalues are simple; −μ alone is fixed, and lies in the middle."""
        return False

    def apply(self, v: Array, rows: Rows) -> Array:
        """The matrix of trajectory rows[k] times the k-th of `v` [k, N]."""
        normal = self.normal[rows]
        tangent = v - np.vecdot(normal, v)[:, None] * normal
        product = np.matvec(self.curvature[rows], tangent)
        product -= np.vecdot(normal, product)[:, None] * normal
        return np.asarray(product - self.multiplier[rows, None] * v, dtype=v.dtype)

    def dense(self, row: int) -> Array:
        """The matrix of one trajectory [N, N]."""
        projector = np.eye(len(self.normal[row])) - np.outer(self.normal[row], self.normal[row])
        tangent = projector @ self.curvature[row] @ projector
        return np.asarray(tangent - self.multiplier[row] * np.eye(len(projector)))


def signal_pulls(model: SpikedModel, m: Array) -> tuple[Array, Array]:
    """The terms a m and b mᵖ⁻¹ of Q'(m), in the shape of m."""
    return np.asarray(model.matrix * m), np.asarray(model.tensor * m ** (model.order - 1))


def draw_spiked(
    streams: Sequence[Stream],
    *,
    model: SpikedModel,
    dimension: int,
    dtype: np.dtype[np.floating],
    form: Form = "isotropic",
) -> SpikedTensor:
    """One instance per random stream: couplings, and w* uniform on the sphere |w*|² = N.

    Parameters
    ----------
    streams : sequence of SeedSequence
        The labelled stream of each instance.
    model : SpikedModel
    dimension : int
        N.
    dtype : float64 or float32
        Working precision; it rounds the instance and does not change it.
    form : "isotropic" or "strict"
        The symmetrised i.i.d. tensor, with the covariance N Q(x·y/N) at every N, or the couplings
        of distinct indices only, as in the papers, with a smaller by 1 − 1/N and b (p = 3) by
        (1 − 1/N)(1 − 2/N).
    """
    signals = draw_starts(streams, "signal", dimension, np.dtype(np.float64))
    matrices, tensors = (
        tuple(
            _draw_form(
                generator(stream, "couplings", index), signal, (strength, degree), dtype, form
            )
            for stream, signal in zip(streams, signals, strict=True)
        )
        for index, (strength, degree) in enumerate(((model.matrix, 2), (model.tensor, model.order)))
    )
    return SpikedTensor(model, signals.astype(dtype), matrices, tensors, form == "strict")


def _draw_form(
    random: np.random.Generator,
    signal: Array,
    part: tuple[float, int],
    dtype: np.dtype[np.floating],
    form: Form,
) -> SymmetricForm:
    """Noise √(s/d) N^((1−d)/2) g(x, x, …), g i.i.d. N(0, 1); strict: with −N s mᵈ/d in it.

    Symmetrised, a coefficient has the variance of as many entries of g as its indices have
    orderings.
    """
    strength, degree = part
    n = len(signal)
    scale = np.sqrt(strength / degree * n ** (1.0 - degree))
    planted = factorial(degree - 1) * strength * n ** (1.0 - degree)

    def fill(row: int, monomials: Indices) -> NDArray[np.float64]:
        indices = np.concatenate([np.full((1, monomials.shape[1]), row), monomials])
        orderings = count_orderings(indices)
        noise = scale * np.sqrt(orderings) * random.standard_normal(monomials.shape[1])
        if form == "isotropic":
            return np.asarray(noise)
        spike = planted * signal[row] * np.prod(signal[monomials], axis=0)
        coefficients: NDArray[np.float64] = np.where(
            orderings == factorial(degree), noise - spike, 0.0
        )
        return coefficients

    return build_form(n, degree, dtype, fill)
