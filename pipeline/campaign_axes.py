"""The grid of a campaign and the constants of its model, each key with its checks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, model_validator
from pydantic_core import InitErrorDetails

from pipeline.campaign_errors import example_of, show_value
from pipeline.campaign_labels import (
    Alpha,
    Constant,
    Section,
    Spaced,
    check_together,
    keep_valid,
    mistake,
    spell_out,
)

Size = Annotated[int, Field(strict=True, ge=2, le=10**9)]
Init = Literal["random", "spectral", "constrained"]


Control = Annotated[tuple[Alpha, ...], Field(strict=False), BeforeValidator(spell_out(Spaced))]


def count_measurements(alpha: float, N: int) -> int:
    """M = round(α N), the number of measurements; a half goes to the even neighbour."""
    return round(alpha * N)


def measurements_of(model: str, value: float, N: int) -> int:
    """M of a model at a value of its control parameter; 0 for one that has no measurements."""
    return count_measurements(value, N) if model == "phase_retrieval" else 0


def tabulate_measurements(
    model: str, values: Sequence[float], sizes: Sequence[int]
) -> NDArray[np.int64]:
    """M [control, N] of each pair of labels."""
    table = [[measurements_of(model, value, N) for N in sizes] for value in values]
    return np.array(table, dtype=np.int64)


class Axes(Section):
    """The axes of any model; a run is a choice of its control parameter, N, seed and init."""

    control: ClassVar[str]
    inits: tuple[str, ...]
    N: Annotated[tuple[Size, ...], Field(strict=False)] = Field(
        description="integers from 2 to 1000000000, each once, as a list",
        examples=["N = [64, 128]"],
    )
    seeds: int = Field(
        ge=1,
        le=10**6,
        description="how many seeds, an integer from 1 to 1000000",
        examples=["seeds = 48"],
    )
    replicas: int | None = Field(
        default=None,
        ge=1,
        le=10**4,
        description="how many starts w(0) on each instance, an integer from 1 to 10000",
        examples=["replicas = 4"],
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check_labels(cls, data: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        return check_together(data, build, cls._relate)

    @property
    def values(self) -> tuple[float, ...]:
        """Labels of the control parameter."""
        labels: tuple[float, ...] = getattr(self, self.control)
        return labels

    @classmethod
    def _relate(cls, data: Mapping[str, object]) -> list[InitErrorDetails]:
        return _relate_labels(cls, data)


class PhaseRetrievalAxes(Axes):
    """The axes of phase retrieval."""

    control: ClassVar[str] = "alpha"

    alpha: Control = Field(
        description="numbers above 0 (at most 1e6), each once, as a list or as a table "
        "{ start, stop, num }",
        examples=["alpha = [2.0, 2.5, 3.0]"],
    )
    inits: Annotated[tuple[Init, ...], Field(strict=False)] = Field(
        description='any of "random", "spectral", "constrained", each once, as a list',
        examples=['inits = ["random", "spectral"]'],
    )

    @classmethod
    def _relate(cls, data: Mapping[str, object]) -> list[InitErrorDetails]:
        return [*_relate_labels(cls, data), *_relate_measurements(data)]


def _relate_labels(axes: type[Axes], data: Mapping[str, object]) -> list[InitErrorDetails]:
    """Find empty axes, and labels there twice."""
    mistakes: list[InitErrorDetails] = []

    def note(axis: str, expected: str, got: str, remedy: str) -> None:
        sentence = f"expected {expected}, got {got}; {remedy}"
        mistakes.append(mistake((axis,), data[axis], sentence))

    for axis, kind in ((axes.control, Alpha), ("N", Size), ("inits", str)):
        valid = keep_valid(data.get(axis), kind)
        if data.get(axis) in ([], ()):
            example = example_of(axes.model_fields[axis])
            note(axis, "one label or more", "[]", f"write for example {example}")
        twice = [label for label, times in Counter(valid).items() if times > 1]
        if twice:
            note(axis, "each label once", f"{show_value(twice)} more than once", "keep one of each")
    return mistakes


def _relate_measurements(data: Mapping[str, object]) -> list[InitErrorDetails]:
    """Find M < 1."""
    smallest = min(keep_valid(data.get("N"), Size), default=None)
    if smallest is None:
        return []
    alphas = keep_valid(data.get("alpha"), Alpha)
    low = [alpha for alpha in alphas if count_measurements(alpha, smallest) < 1]
    sentence = (
        f"expected M = round(alpha N) of at least 1, got M = 0 for alpha = {show_value(low)} with "
        f"N = {smallest}; keep to alpha > {0.5 / smallest:.4g}, or to larger N"
    )
    return [mistake(("alpha",), data["alpha"], sentence)] if low else []


class Parameters(Section):
    """The constants of a model; a list of values makes one an axis of the store."""


class PhaseRetrievalParameters(Parameters):
    """The constants of phase retrieval."""

    a: Constant = Field(
        description="the constant a of the loss, a number above 0, or a list of such, each once",
        examples=["a = 1.0"],
    )
