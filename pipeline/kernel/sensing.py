"""The sensing matrices of several instances, and how a batch of trajectories is multiplied by them.

One by one where each is large or its products are of a kind of their own; all in one array, for a
library whose device wants few large products rather than many small ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from array_api_compat import device

from pipeline.kernel.arrays import Array, namespace, take_rows
from pipeline.kernel.batch import Rows, owned_rows
from pipeline.kernel.gaussian_operator import DenseOperator, GaussianOperator

BatchResponse = Callable[[Array, slice, slice], Array]
"""φ: predictions [rows, measurements], which rows of the batch, which measurements → same shape."""


class SensingMatrices(Protocol):
    """X of each instance."""

    def __len__(self) -> int:
        """Number of instances."""

    def __getitem__(self, instance: int) -> GaussianOperator:
        """X of one instance."""

    def pull_back(self, u: Array, owner: Rows, response: BatchResponse) -> tuple[Array, Array]:
        """Xᵀ φ(X u) [trajectories, N] and X u [trajectories, M], each row with its owner's X."""


@dataclass(frozen=True)
class SeparateMatrices:
    """Each instance on its own.

    Parameters
    ----------
    operators : sequence of GaussianOperator, one per instance
    """

    operators: Sequence[GaussianOperator]

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.operators)

    def __getitem__(self, instance: int) -> GaussianOperator:
        """X of one instance."""
        return self.operators[instance]

    def pull_back(self, u: Array, owner: Rows, response: BatchResponse) -> tuple[Array, Array]:
        """Xᵀ φ(X u) [trajectories, N] and X u [trajectories, M], each row with its owner's X."""
        return pull_back_each(self.operators, u, owner, response)


@dataclass(frozen=True)
class StackedMatrices:
    """All instances in one array, multiplied by all trajectories in two products.

    Parameters
    ----------
    matrices : float array [instances, M, N]
    """

    matrices: Array

    def __len__(self) -> int:
        """Number of instances."""
        return int(self.matrices.shape[0])

    def __getitem__(self, instance: int) -> DenseOperator:
        """X of one instance."""
        return DenseOperator(self.matrices[instance, :, :])

    def pull_back(self, u: Array, owner: Rows, response: BatchResponse) -> tuple[Array, Array]:
        """Xᵀ φ(X u) [trajectories, N] and X u [trajectories, M], each row with its owner's X."""
        instances, m, n = self.matrices.shape
        counts = np.bincount(owner, minlength=instances)
        if 2 * np.count_nonzero(counts) < instances:  # most have nobody left: spare their X
            return pull_back_each([self[k] for k in range(instances)], u, owner, response)
        xp, most = namespace(u), int(counts.max())
        # each instance has `most` places; those that nobody takes repeat some row, to no effect
        first = np.cumsum(counts) - counts
        place = owner * most + np.arange(len(owner)) - first[owner]
        source = np.zeros(instances * most, dtype=np.intp)
        source[place] = np.arange(len(owner))

        def pack(rows: Array, width: int) -> Array:
            return xp.reshape(take_rows(rows, source), (instances, most, width))

        def unpack(packed: Array, width: int) -> Array:
            return take_rows(xp.reshape(packed, (instances * most, width)), place)

        predictions = unpack(pack(u, n) @ self.matrices.mT, m)
        slopes = response(predictions, slice(0, len(owner)), slice(None))
        return unpack(pack(slopes, m) @ self.matrices, n), predictions


def pull_back_each(
    operators: Sequence[GaussianOperator], u: Array, owner: Rows, response: BatchResponse
) -> tuple[Array, Array]:
    """Xᵀ φ(X u) and X u of each row, instance by instance."""
    if len(owner) and owner[0] == owner[-1]:  # one instance: nothing to put together
        everyone, operator = slice(0, len(owner)), operators[int(owner[0])]
        return operator.pull_back(u, lambda predicted, block: response(predicted, everyone, block))
    xp, m = namespace(u), operators[0].shape[0]
    pulled: Array = xp.empty_like(u)
    predictions: Array = xp.empty((u.shape[0], m), dtype=u.dtype, device=device(u))
    for instance, rows in owned_rows(owner):

        def respond(predicted: Array, block: slice, rows: slice = rows) -> Array:
            return response(predicted, rows, block)

        done = operators[instance].pull_back(u[rows, :], respond)
        pulled[rows, :], predictions[rows, :] = done
    return pulled, predictions
