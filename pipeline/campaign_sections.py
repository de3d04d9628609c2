"""The sections of a campaign file: its grid, constants and dynamics, each key with its checks."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.campaign_errors import FULL_SENTENCE, example_of, show_value

MAX_RUNS = 10**8  # the status of the runs is held in memory, one byte each
FLOW_TOLERANCE = 1e-2


def round_label(value: float) -> float:
    """`value` to ten significant digits, so that 0.1 + 0.2 and 0.3 are one label."""
    return float(f"{value:.10g}")


def count_measurements(alpha: float, N: int) -> int:
    """M = round(α N), the number of measurements; a half goes to the even neighbour."""
    return round(alpha * N)


Alpha = Annotated[
    float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False), AfterValidator(round_label)
]
Size = Annotated[int, Field(strict=True, ge=2, le=10**9)]
Init = Literal["random", "spectral", "constrained"]


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


def spell_out(axis: object) -> object:
    """The labels of an axis written as a table `{ start, stop, num }`; any other as it is."""
    return Spaced.model_validate(axis).labels() if isinstance(axis, dict) else axis


class Axes(Section):
    """The axes of phase retrieval; a run is a choice of α, N, seed and initialisation."""

    alpha: Annotated[tuple[Alpha, ...], Field(strict=False), BeforeValidator(spell_out)] = Field(
        description="numbers above 0 (at most 1e6), each once, as a list or as a table "
        "{ start, stop, num }",
        examples=["alpha = [2.0, 2.5, 3.0]"],
    )
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
    inits: Annotated[tuple[Init, ...], Field(strict=False)] = Field(
        description='any of "random", "spectral", "constrained", each once, as a list',
        examples=['inits = ["random", "spectral"]'],
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check_labels(cls, data: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        """Check each label by itself and, in the same pass, the labels against one another.

        The second part looks at the labels that are right by themselves, so that one wrong entry
        does not hide the other mistakes.
        """
        mistakes = _relate_labels(data) if isinstance(data, dict) else []
        try:
            axes = build(data)
        except ValidationError as error:
            mistakes += [
                InitErrorDetails(
                    type=item["type"],
                    loc=item["loc"],
                    input=item["input"],
                    ctx=item.get("ctx", {}),
                )
                for item in error.errors()
            ]
        if mistakes:
            raise ValidationError.from_exception_data(cls.__name__, mistakes)
        return axes


def _relate_labels(data: Mapping[str, object]) -> list[InitErrorDetails]:
    """Find empty axes, labels there twice, M < 1 and too many runs."""
    mistakes: list[InitErrorDetails] = []

    def note(axis: str, expected: str, got: str, remedy: str) -> None:
        said = {"message": f"expected {expected}, got {got}; {remedy}"}
        problem = PydanticCustomError(FULL_SENTENCE, "{message}", said)
        mistakes.append(InitErrorDetails(type=problem, loc=(axis,), input=data[axis]))

    valid: dict[str, list[Any]] = {}
    for axis, kind in (("alpha", Alpha), ("N", Size), ("inits", Init)):
        valid[axis] = _keep_valid(data.get(axis), kind)
        if data.get(axis) in ([], ()):
            example = example_of(Axes.model_fields[axis])
            note(axis, "one label or more", "[]", f"write for example {example}")
        twice = [label for label, times in Counter(valid[axis]).items() if times > 1]
        if twice:
            note(axis, "each label once", f"{show_value(twice)} more than once", "keep one of each")

    smallest = min(valid["N"], default=None)
    if smallest is not None:
        low = [alpha for alpha in valid["alpha"] if count_measurements(alpha, smallest) < 1]
        if low:
            note(
                "alpha",
                "M = round(alpha N) of at least 1",
                f"M = 0 for alpha = {show_value(low)} with N = {smallest}",
                f"keep to alpha > {0.5 / smallest:.4g}, or to larger N",
            )

    seeds = data.get("seeds")
    labels = len(valid["alpha"]) * len(valid["N"]) * len(valid["inits"])
    if isinstance(seeds, int) and labels * seeds > MAX_RUNS >= seeds:
        note(
            "seeds",
            f"at most {MAX_RUNS} runs in all",
            f"{seeds} seeds x {labels} labels of (alpha, N, init) = {labels * seeds}",
            "use fewer seeds or labels, or write several campaigns",
        )
    return mistakes


def _keep_valid(axis: object, kind: Any) -> list[Any]:
    """Those labels of an axis that are right by themselves."""
    check: TypeAdapter[Any] = TypeAdapter(kind)
    valid = []
    with suppress(ValidationError):
        labels = spell_out(axis)
        for label in labels if isinstance(labels, list | tuple) else ():
            with suppress(ValidationError):
                valid.append(check.validate_python(label))
    return valid


class Parameters(Section):
    """The constants of the model."""

    a: float = Field(
        gt=0, description="the constant a of the loss, a number above 0", examples=["a = 1.0"]
    )


class Dynamics(Section):
    """How a run moves, for how long and in which arithmetic; times in units of the flow."""

    method: Literal["flow", "descent"] = Field(
        description='"flow" or "descent"', examples=['method = "flow"']
    )
    T: float = Field(
        gt=0,
        description="the time a run may take, a number above 0 in units of the flow",
        examples=["T = 300.0"],
    )
    tolerance: float | None = Field(
        default=None,
        validate_default=True,
        gt=0,
        description="the r.m.s. error of w allowed in a step of the flow, a number above 0",
        examples=["tolerance = 1e-2"],
    )
    learning_rate: float | None = Field(
        default=None,
        validate_default=True,
        gt=0,
        description="the step of the descent, a number above 0, well below 2/lambda_max of H",
        examples=["learning_rate = 0.005"],
    )
    constrained_time: float = Field(
        default=200.0,
        gt=0,
        description="how long the init `constrained` is held at m = 0, a number above 0 in units "
        "of the flow",
        examples=["constrained_time = 200.0"],
    )
    dtype: Literal["float64", "float32"] = Field(
        default="float64",
        description='the arithmetic of the runs, "float64" or "float32"',
        examples=['dtype = "float64"'],
    )

    @field_validator("tolerance", mode="before")
    @classmethod
    def _settle_tolerance(cls, value: Any, info: ValidationInfo) -> Any:
        """With `flow` it has a default; with `descent` it would be ignored, so it is refused."""
        if value is not None and info.data.get("method") == "descent":
            raise _unused(value, 'method = "descent" (its accuracy is set by learning_rate)')
        return FLOW_TOLERANCE if value is None and info.data.get("method") == "flow" else value

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _settle_learning_rate(cls, value: Any, info: ValidationInfo) -> Any:
        """With `descent` it must be there: too large a step biases the result silently."""
        if value is not None and info.data.get("method") == "flow":
            raise _unused(value, 'method = "flow" (its accuracy is set by tolerance)')
        if value is None and info.data.get("method") == "descent":
            raise PydanticCustomError(
                FULL_SENTENCE,
                'expected a number above 0 with method = "descent", well below 2/lambda_max of H, '
                "got nothing; write for example learning_rate = 0.005",
            )
        return value


def _unused(value: object, method: str) -> PydanticCustomError:
    said = f"expected nothing with {method}, got {show_value(value)}; remove it"
    return PydanticCustomError(FULL_SENTENCE, "{said}", {"said": said})
