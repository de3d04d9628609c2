"""The sections of a campaign file, each key with its checks."""

from collections.abc import Mapping
from itertools import pairwise
from math import inf, prod
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.campaign_axes import Size
from pipeline.campaign_errors import FULL_SENTENCE, example_of, show_value
from pipeline.campaign_labels import (
    Alpha,
    LogSpaced,
    PositiveTime,
    Section,
    Time,
    check_together,
    keep_valid,
    mistake,
    spell_out,
)
from pipeline.campaign_sampling import relate_sampling

MAX_RUNS = 10**8  # the status of the runs is held in memory, one byte each
MAX_TIMES = 1000  # all times of a block lie in one chunk
FLOW_TOLERANCE = 1e-2
FLOAT32_TOLERANCE = 1e-6  # the smallest that rounding in float32 leaves within reach


Eigenvalue = Annotated[float, Field(strict=True, allow_inf_nan=False)]


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
        default="float32",
        validate_default=True,
        description='the arithmetic of the runs, "float32" or "float64"',
        examples=['dtype = "float64"'],
    )
    stop_at_minimum: bool | None = Field(
        default=None,
        description="whether runs end before T where they stand at a local minimum of the loss, "
        "true or false",
        examples=["stop_at_minimum = true"],
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

    @field_validator("stop_at_minimum")
    @classmethod
    def _settle_stop(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        """Stands in the physics where it is wanted, so that stores without the key stay theirs."""
        if value and info.data.get("method") == "descent":
            raise _unused(
                value, 'method = "descent" (it is the flow that is followed to a minimum)'
            )
        return value or None

    @field_validator("dtype")
    @classmethod
    def _check_precision(cls, value: str, info: ValidationInfo) -> str:
        """Refuse a precision in which the flow cannot keep its tolerance."""
        tolerance = info.data.get("tolerance")
        if value == "float32" and tolerance is not None and tolerance < FLOAT32_TOLERANCE:
            raise PydanticCustomError(
                FULL_SENTENCE,
                "{said}",
                {
                    "said": f'expected "float64" with a tolerance below {FLOAT32_TOLERANCE:g} '
                    f'(here {tolerance:g}), got "float32"; write dtype = "float64"'
                },
            )
        return value


class AtTimes(Section):
    """Times at which runs are looked at."""

    times: Annotated[
        tuple[Time, ...], Field(strict=False), BeforeValidator(spell_out(LogSpaced))
    ] = Field(
        description="times from 0 to T in units of the flow, ascending, as a list, or as a table "
        "{ start, stop, num } of log-spaced ones",
        examples=["times = { start = 0.1, stop = 300.0, num = 20 }"],
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check_times(cls, data: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        return check_together(data, build, _relate_times)


class Trajectory(AtTimes):
    """What is known along each run: when, and how much of it."""

    hessian: bool = Field(
        default=True,
        description="whether the lowest eigenpairs of the Hessian are wanted at each time, "
        "true or false",
        examples=["hessian = true"],
    )
    labels: bool = Field(
        default=True,
        description="whether edge and outlier of the Hessian's bulk are predicted from the labels "
        "at each time, true or false",
        examples=["labels = true"],
    )
    gain: bool = Field(
        default=False,
        description="whether the signal gain is wanted at each time, true or false",
        examples=["gain = false"],
    )


class Spectrum(AtTimes):
    """The density of the Hessian's eigenvalues: when, and in which bins.

    The bins are part of the labels of a store, so they are given, not found from the eigenvalues.
    """

    range: Annotated[tuple[Eigenvalue, Eigenvalue], Field(strict=False)] = Field(
        description="the ends of the bins, two finite numbers that ascend, as a list",
        examples=["range = [-8.0, 40.0]"],
    )
    bins: int = Field(
        ge=1,
        le=10**4,
        description="how many bins of equal width, an integer from 1 to 10000",
        examples=["bins = 240"],
    )

    @field_validator("range")
    @classmethod
    def _check_range(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if not ends[0] < ends[1]:
            raise ValueError("the ends do not ascend")
        return ends

    def edges(self) -> NDArray[np.float64]:
        """Ends of the bins [bins + 1]."""
        return np.linspace(*self.range, self.bins + 1)

    def centres(self) -> NDArray[np.float64]:
        """Centres of the bins [bins], the labels of eigenvalues."""
        edges = self.edges()
        return (edges[1:] + edges[:-1]) / 2


def _relate_times(data: Mapping[str, object]) -> list[InitErrorDetails]:
    """Find no times, too many, and times that do not ascend."""
    written = data.get("times")
    times = keep_valid(written, Time, LogSpaced)
    sentences = []
    if written in ([], ()):
        example = example_of(AtTimes.model_fields["times"])
        sentences.append(f"expected one time or more, got []; write for example {example}")
    if len(times) > MAX_TIMES:
        sentences.append(f"expected at most {MAX_TIMES} times, got {len(times)}; use fewer")
    wrong = [later for before, later in pairwise(times) if later <= before]
    if wrong:
        sentences.append(
            f"expected times that ascend, each once, got {show_value(wrong)} not after the time "
            "before; sort them and keep one of each"
        )
    return [mistake(("times",), written, sentence) for sentence in sentences]


def relate_sections(data: Mapping[str, object]) -> list[InitErrorDetails]:
    """Find too many runs, times later than the end of the runs, and sampling that cannot be."""
    return [
        *_relate_runs(data),
        *_relate_ends(data),
        *_relate_minimum(data),
        *relate_sampling(data),
    ]


def _relate_runs(data: Mapping[str, object]) -> list[InitErrorDetails]:
    grid, parameters = data.get("grid"), data.get("parameters")
    if not isinstance(grid, dict):
        return []
    seeds, replicas = grid.get("seeds"), grid.get("replicas", 1)
    if not (isinstance(seeds, int) and isinstance(replicas, int)):
        return []
    labels = {
        axis: len(keep_valid(grid.get(axis), kind))
        for axis, kind in (("alpha", Alpha), ("snr", Alpha), ("N", Size), ("inits", str))
        if axis in grid
    }
    constants = parameters if isinstance(parameters, dict) else {}
    axes = {name: len(values) for name, values in constants.items() if isinstance(values, list)}
    cells = prod([*axes.values(), *labels.values()])
    runs = cells * seeds * replicas
    if not runs > MAX_RUNS >= max(seeds, replicas):
        return []
    by = f"{seeds} seeds" + (f" x {replicas} replicas" if "replicas" in grid else "")
    names = ", ".join([*axes, *("init" if axis == "inits" else axis for axis in labels)])
    sentence = (
        f"expected at most {MAX_RUNS} runs in all, got {by} x {cells} labels of ({names}) = "
        f"{runs}; use fewer seeds or labels, or write several campaigns"
    )
    return [mistake(("grid", "seeds"), seeds, sentence)]


def _relate_ends(data: Mapping[str, object]) -> list[InitErrorDetails]:
    dynamics = data.get("dynamics")
    if not isinstance(dynamics, dict):
        return []
    (T,) = keep_valid([dynamics.get("T")], PositiveTime) or (inf,)
    mistakes = []
    for name in ("trajectory", "spectrum"):
        section = data.get(name)
        times = section.get("times") if isinstance(section, dict) else None
        late = [time for time in keep_valid(times, Time, LogSpaced) if time > T]
        sentence = (
            f"expected times up to T = {T:.10g}, got {show_value(late)}; leave them out, or set a "
            "larger dynamics.T"
        )
        if late:
            mistakes.append(mistake((name, "times"), late, sentence))
    return mistakes


def _relate_minimum(data: Mapping[str, object]) -> list[InitErrorDetails]:
    """Find a stop at minima where none would be found."""
    dynamics = data.get("dynamics")
    if not isinstance(dynamics, dict) or dynamics.get("stop_at_minimum") is not True:
        return []
    for key, value, why in (
        ("model", "spiked_matrix_tensor", "minima are looked for in phase retrieval only"),
        ("instances", "conditional", "eigenpairs of conditional instances are too rough to tell"),
    ):
        if data.get(key) == value:
            sentence = f'expected nothing with {key} = "{value}" ({why}), got true; remove it'
            return [mistake(("dynamics", "stop_at_minimum"), True, sentence)]
    return []


def _unused(value: object, method: str) -> PydanticCustomError:
    said = f"expected nothing with {method}, got {show_value(value)}; remove it"
    return PydanticCustomError(FULL_SENTENCE, "{said}", {"said": said})
