"""How labels are written in a campaign file, and checks of values against one another."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.campaign_errors import FULL_SENTENCE, Location


def round_label(value: float) -> float:
    """`value` to ten significant digits, so that 0.1 + 0.2 and 0.3 are one label."""
    return float(f"{value:.10g}")


Alpha = Annotated[
    float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False), AfterValidator(round_label)
]
Time = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False), AfterValidator(round_label)]
PositiveTime = Annotated[Time, Field(gt=0)]
Positive = Annotated[
    float, Field(strict=True, gt=0, allow_inf_nan=False), AfterValidator(round_label)
]

Overlap = Annotated[
    float, Field(strict=True, gt=-1, lt=1, allow_inf_nan=False), AfterValidator(round_label)
]


class Section(BaseModel):
    """What all parts of a campaign share: nothing is converted, unknown, or changed later."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Spaced(Section):
    """Labels from `start` to `stop`, both included, `num` of them, evenly spaced."""

    start: Alpha = Field(
        description="the first label, a number above 0 (at most 1e6)", examples=["start = 1.5"]
    )
    stop: Alpha = Field(
        description="the last label, a number above 0 (at most 1e6)", examples=["stop = 6.0"]
    )
    num: int = Field(
        ge=1,
        le=10**5,
        description="how many labels, an integer from 1 to 100000",
        examples=["num = 10"],
    )

    def labels(self) -> tuple[float, ...]:
        """The labels one by one; `num = 1` gives `start`."""
        return tuple(np.linspace(self.start, self.stop, self.num).tolist())


class LogSpaced(Section):
    """Times from `start` to `stop`, both included, `num` of them, each a like factor later."""

    start: PositiveTime = Field(
        description="the first time, a number above 0 in units of the flow",
        examples=["start = 0.1"],
    )
    stop: PositiveTime = Field(
        description="the last time, a number above 0 in units of the flow, at most T",
        examples=["stop = 300.0"],
    )
    num: int = Field(
        ge=1,
        le=1000,
        description="how many times, an integer from 1 to 1000",
        examples=["num = 20"],
    )

    def labels(self) -> tuple[float, ...]:
        """The times one by one; `num = 1` gives `start`."""
        return tuple(np.geomspace(self.start, self.stop, self.num).tolist())


Spacing = type[Spaced] | type[LogSpaced]


def spell_out(spacing: Spacing) -> Callable[[object], object]:
    """Function that gives the labels of a table `{ start, stop, num }`, and others as they are."""

    def spell(labels: object) -> object:
        return spacing.model_validate(labels).labels() if isinstance(labels, dict) else labels

    return spell


def keep_valid(labels: object, kind: Any, spacing: Spacing = Spaced) -> list[Any]:
    """Those labels of a list or table that are right by themselves."""
    check: TypeAdapter[Any] = TypeAdapter(kind)
    valid = []
    with suppress(ValidationError):
        spelt = spell_out(spacing)(labels)
        for label in spelt if isinstance(spelt, list | tuple) else ():
            with suppress(ValidationError):
                valid.append(check.validate_python(label))
    return valid


def read_labels_as(kind: Any) -> Callable[[object], float | tuple[float, ...]]:
    """Function that reads a constant: a label of this kind, or a list of such, each once.

    The list makes the labels of an axis. For anything else it raises a ValueError; the field's
    description says what was expected.
    """

    def read(value: object) -> float | tuple[float, ...]:
        labels = value if isinstance(value, list | tuple) else [value]
        valid = keep_valid(labels, kind)
        if not labels or len(set(valid)) < len(labels):
            raise ValueError("neither a label of this kind nor a list of such, each once")
        return tuple(valid) if labels is value else float(valid[0])

    return read


Constant = Annotated[float | tuple[float, ...], PlainValidator(read_labels_as(Positive))]
"""A constant of the model, above 0; a list of values makes it an axis of the store."""

StartOverlap = Annotated[float | tuple[float, ...], PlainValidator(read_labels_as(Overlap))]
"""The overlap m(0) of a start with the signal, between -1 and 1; a list makes it an axis."""


def mistake(location: Location, value: object, sentence: str) -> InitErrorDetails:
    """A mistake with its sentence: what was expected, «got …»; what to do."""
    problem = PydanticCustomError(FULL_SENTENCE, "{message}", {"message": sentence})
    return InitErrorDetails(type=problem, loc=location, input=value)


Built = TypeVar("Built", bound=Section)


def check_together(
    data: Any,
    build: ModelWrapValidatorHandler[Built],
    relate: Callable[[Mapping[str, Any]], list[InitErrorDetails]],
) -> Built:
    """Check each value by itself and, in the same pass, the values against one another.

    `relate` looks at the values that are right by themselves, so that one wrong entry does not hide
    the other mistakes.

    Raises
    ------
    pydantic.ValidationError
        With the mistakes of both kinds.
    """
    mistakes = relate(data) if isinstance(data, dict) else []
    try:
        built = build(data)
    except ValidationError as error:
        for item in error.errors():
            if item["type"] == FULL_SENTENCE:
                mistakes.append(mistake(item["loc"], item["input"], item["msg"]))
            else:
                details = InitErrorDetails(
                    type=item["type"],
                    loc=item["loc"],
                    input=item["input"],
                    ctx=item.get("ctx", {}),
                )
                mistakes.append(details)
    if mistakes:
        raise ValidationError.from_exception_data("campaign", mistakes)
    return built
