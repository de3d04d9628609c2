"""The grid and the constants of a campaign of the spiked matrix-tensor model, with their checks."""

from collections.abc import Mapping
from math import comb
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic_core import InitErrorDetails

from pipeline.campaign_axes import Axes, Control, Parameters, Size
from pipeline.campaign_errors import show_value
from pipeline.campaign_labels import Constant, StartOverlap, keep_valid, mistake

SpikedInit = Literal["random", "overlap", "constrained"]

# couplings of an instance up to which they are held in memory, 64 MiB in float32: N = 464 at p = 3
_MOST_COUPLINGS = 1 << 24
_LEAST_ORDER, _MOST_ORDER = 3, 6


class SpikedAxes(Axes):
    """The axes of the spiked matrix-tensor model."""

    control: ClassVar[str] = "snr"

    snr: Control = Field(
        description="1/Delta_2, numbers above 0 (at most 1e6), each once, as a list or as a table "
        "{ start, stop, num }",
        examples=["snr = [1.5, 2.0, 2.5]"],
    )
    inits: Annotated[tuple[SpikedInit, ...], Field(strict=False)] = Field(
        description='any of "random", "overlap", "constrained", each once, as a list',
        examples=['inits = ["random", "overlap"]'],
    )


class SpikedParameters(Parameters):
    """The constants of the spiked matrix-tensor model."""

    delta_p: Constant = Field(
        description="the noise Delta_p of the tensor, a number above 0, or a list of such, each "
        "once",
        examples=["delta_p = 1.0"],
    )
    p: int = Field(
        default=_LEAST_ORDER,
        ge=_LEAST_ORDER,
        le=_MOST_ORDER,
        description="the order of the tensor, an integer from 3 to 6",
        examples=["p = 3"],
    )
    form: Literal["isotropic", "strict"] = Field(
        default="isotropic",
        description='the form of the couplings, "isotropic" or "strict"',
        examples=['form = "isotropic"'],
    )
    m0: StartOverlap = Field(
        default=0.1,
        description="m(0) of the init `overlap`, a number between -1 and 1, or a list of such, "
        "each once",
        examples=["m0 = 0.1"],
    )
    recovered: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="the |m| at which a run has recovered and ends, a number above 0, at most 1: "
        "with 1 no run ends before T",
        examples=["recovered = 0.2"],
    )


def choose_spiked_instances(
    wanted: Literal["auto", "dense", "conditional"], N: int, order: int
) -> Literal["dense", "conditional"]:
    """What is wanted; "auto": couplings in memory at small N, else drawn as they are asked for."""
    if wanted != "auto":
        return wanted
    couplings = comb(N + order - 1, order)
    return "dense" if couplings <= _MOST_COUPLINGS else "conditional"


def relate_form(data: Mapping[str, object]) -> list[InitErrorDetails]:
    """Find sizes whose couplings would be drawn as they are asked for, in the strict form.

    Only the isotropic form has the law of these: its covariance is N Q(x·y/N) at every N.
    """
    parameters, grid, wanted = (data.get(key) for key in ("parameters", "grid", "instances"))
    if not isinstance(parameters, dict) or parameters.get("form") != "strict":
        return []
    strict = 'with parameters.form = "strict"'
    if wanted == "conditional":
        sentence = (
            f'expected "dense" or "auto" {strict}, whose couplings must be in memory, got '
            '"conditional"; write instances = "dense", or form = "isotropic"'
        )
        return [mistake(("instances",), wanted, sentence)]
    order = parameters.get("p", _LEAST_ORDER)
    if wanted not in (None, "auto") or not isinstance(grid, dict) or not isinstance(order, int):
        return []
    sizes = keep_valid(grid.get("N"), Size)
    large = [N for N in sizes if choose_spiked_instances("auto", N, order) != "dense"]
    sentence = (
        f"expected sizes with at most {_MOST_COUPLINGS} couplings {strict}, which are kept in "
        f'memory, got {show_value(large)}; leave them out, write instances = "dense" where there '
        'is the memory, or form = "isotropic"'
    )
    return [mistake(("grid", "N"), grid.get("N"), sentence)] if large else []
