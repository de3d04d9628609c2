"""Models as a block sees them: what is drawn from the labelled streams of its seeds.

The protocol is all that a model must have to go through the pipeline; the landscape that it draws
knows gradients, Hessians and observables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from pipeline.kernel.along import PredictedLandscape
from pipeline.kernel.arrays import Array, ArrayLibrary
from pipeline.kernel.flow import RECOVERED_OVERLAP
from pipeline.kernel.observables import ObservedLandscape
from pipeline.kernel.phase_retrieval import draw_instances, draw_starts
from pipeline.kernel.spiked_conditional import draw_conditional
from pipeline.kernel.spiked_tensor import Form, draw_spiked
from pipeline.kernel.streams import Stream
from pipeline.kernel.symmetric_form import count_monomials
from pipeline.theory.spiked_model import SpikedModel

Instances = Literal["dense", "conditional"]

_DIRECTIONS = 512  # of a conditional instance, in the size of those advanced together
_SPIKED_DIRECTIONS = 128
MOST_SPIKED_DIRECTIONS = 1024
"""Coordinates of a point of a conditional instance of the spiked model."""


class RunLandscape(PredictedLandscape, ObservedLandscape, Protocol):
    """Instances as runs and their observables need them."""

    @property
    def directions(self) -> list[int]:
        """In how many directions of R^N each instance is known."""

    def keep(self) -> None:
        """Keep for good what is known now; a later Hessian may be forgotten with the next one."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn for some seeds.

    Parameters
    ----------
    landscape : RunLandscape
    starts : float array [seeds × replicas, N]
        w(0), uniform on the sphere, replicas fastest.
    probes : float array [seeds × replicas, N]
        Starting vectors of Lanczos.
    density_probes : float array [seeds, probes, N], optional
        Random vectors for the density of eigenvalues, where any were asked for.
    """

    landscape: RunLandscape
    starts: Array
    probes: Array
    density_probes: Array | None = None


class Model(Protocol):
    """A model at one point of the grid."""

    @property
    def dimension(self) -> int:
        """N."""

    @property
    def instances(self) -> Instances:
        """Whether instances are held whole, or drawn as they are asked for, exact in law."""

    @property
    def start_overlap(self) -> float:
        """m(0) of the initialisation `overlap`."""

    @property
    def recovered_overlap(self) -> float:
        """|m| at which a run has recovered and ends."""

    def instance_bytes(self, dtype: np.dtype[np.floating]) -> int:
        """Size of an instance in memory."""

    def draw(
        self,
        streams: Sequence[Stream],
        counts: tuple[int, int],
        dtype: np.dtype[np.floating],
        library: ArrayLibrary,
    ) -> Drawn:
        """One instance per labelled stream, with starts and probes.

        `counts`: replicas, and probes of the density of eigenvalues.
        """


@dataclass(frozen=True)
class PhaseRetrievalModel:
    """Phase retrieval at one (a, N, M).

    Parameters
    ----------
    a : float
        Parameter of the loss ℓ_a.
    dimension, measurements : int
        N and M.
    instances : "dense" or "conditional"
        X as a matrix, or drawn as it is asked for: another X of the same law, which depends on
        everything else that is asked of a seed.
    """

    a: float
    dimension: int
    measurements: int
    instances: Instances = "dense"
    start_overlap: float = 0.0
    recovered_overlap: float = RECOVERED_OVERLAP

    def instance_bytes(self, dtype: np.dtype[np.floating]) -> int:
        """Of X, or of the bases in which it is drawn."""
        rows = self.dimension
        if self.instances == "conditional":
            rows = 2 * min(self.dimension, _DIRECTIONS)
        return self.measurements * rows * dtype.itemsize

    def draw(
        self,
        streams: Sequence[Stream],
        counts: tuple[int, int],
        dtype: np.dtype[np.floating],
        library: ArrayLibrary,
    ) -> Drawn:
        """One instance per labelled stream, with starts and probes."""
        replicas, density_probes = counts
        conditional = self.instances == "conditional"
        # places in the frame of a conditional instance: w* has the first
        frame = range(1 + 2 * replicas + density_probes)
        of_runs, rest = frame[1 : 1 + 2 * replicas], frame[1 + 2 * replicas :]
        places = {"start": of_runs[::2], "probe": of_runs[1::2], "spectrum": rest}
        landscape = draw_instances(
            streams,
            measurements=self.measurements,
            dimension=self.dimension,
            a=self.a,
            dtype=dtype,
            library=library,
            frame=len(frame) if conditional else None,
        )

        def draw(purpose: str, count: int) -> Array:
            return draw_starts(
                streams,
                purpose,
                self.dimension,
                dtype,
                count,
                library,
                places=places[purpose] if conditional else None,
            )

        starts, probes = draw("start", replicas), draw("probe", replicas)
        if not density_probes:
            return Drawn(landscape, starts, probes)
        rows = draw("spectrum", density_probes)
        shape = (len(streams), density_probes, self.dimension)
        return Drawn(landscape, starts, probes, library.namespace.reshape(rows, shape))


@dataclass(frozen=True)
class SpikedTensorModel:
    """The spiked matrix-tensor model at one (Q, N); its arrays are NumPy's always.

    Parameters
    ----------
    model : SpikedModel
        Q.
    dimension : int
        N.
    instances : "dense" or "conditional"
        Couplings in memory, or drawn as they are asked for: others of the same law, at a cost that
        does not depend on N.
    start_overlap : float
        m(0) of the initialisation `overlap`.
    recovered_overlap : float
        |m| at which a run has recovered and ends; the signal state has |m| < 1.
    form : "isotropic" or "strict"
        Of the couplings; conditional instances have the law of the first.

    Raises
    ------
    ValueError
        For conditional instances of the strict form.
    """

    model: SpikedModel
    dimension: int
    instances: Instances = "conditional"
    start_overlap: float = 0.0
    recovered_overlap: float = 1.0
    form: Form = "isotropic"

    def __post_init__(self) -> None:
        if self.form == "strict" and self.instances == "conditional":
            raise ValueError(
                "the strict form needs its couplings in memory, got conditional instances; "
                "draw dense ones, or the isotropic form"
            )

    def instance_bytes(self, dtype: np.dtype[np.floating]) -> int:
        """Of the couplings, or of those that a run of some length reveals."""
        p = self.model.order
        if self.instances == "dense":
            return count_monomials(self.dimension, p) * dtype.itemsize
        return 2 * _SPIKED_DIRECTIONS * count_monomials(_SPIKED_DIRECTIONS, p - 1) * 8

    def draw(
        self,
        streams: Sequence[Stream],
        counts: tuple[int, int],
        dtype: np.dtype[np.floating],
        library: ArrayLibrary,  # noqa: ARG002  protocol
    ) -> Drawn:
        """One instance per labelled stream, with starts and probes."""
        (replicas, density_probes), random_probes = counts, None
        if density_probes:
            rows = draw_starts(streams, "spectrum", self.dimension, dtype, density_probes)
            random_probes = rows.reshape(len(streams), density_probes, self.dimension)
        if self.instances == "dense":
            dense = draw_spiked(
                streams, model=self.model, dimension=self.dimension, dtype=dtype, form=self.form
            )
            starts, probes = (
                draw_starts(streams, purpose, self.dimension, dtype, replicas)
                for purpose in ("start", "probe")
            )
            return Drawn(dense, starts, probes, random_probes)
        width = min(self.dimension, MOST_SPIKED_DIRECTIONS)
        landscape = draw_conditional(
            streams, model=self.model, dimension=self.dimension, width=width
        )
        starts = landscape.draw_starts(streams, replicas)
        # its Hessian knows its pairs without a probe
        return Drawn(landscape, starts, starts, random_probes)
