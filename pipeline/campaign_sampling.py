"""The section `sampling` of a campaign file: how an adaptive campaign spends its seeds."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from pydantic_core import InitErrorDetails

from pipeline.campaign_errors import show_value
from pipeline.campaign_labels import Section, mistake


class Sampling(Section):
    """How an adaptive campaign spends its seeds; each cell begins with `grid.seeds` of them."""

    target_halfwidth: float = Field(
        gt=0,
        lt=0.5,
        description="half-width of a 95 % interval of a recovery probability, a number between "
        "0 and 0.5",
        examples=["target_halfwidth = 0.03"],
    )
    max_seeds: int = Field(
        ge=1,
        le=10**6,
        description="the most seeds of a cell, an integer from grid.seeds to 1000000",
        examples=["max_seeds = 2000"],
    )
    focus: Literal["transition", "everywhere"] = Field(
        default="transition",
        description='"transition" or "everywhere"',
        examples=['focus = "transition"'],
    )


def relate_sampling(data: Mapping[str, object]) -> list[InitErrorDetails]:
    """Find fewer seeds at most than at first, and several values of a constant."""
    sampling, grid, parameters = (data.get(key) for key in ("sampling", "grid", "parameters"))
    if not isinstance(sampling, dict):
        return []
    found = []
    most = sampling.get("max_seeds")
    first = grid.get("seeds") if isinstance(grid, dict) else None
    if isinstance(most, int) and isinstance(first, int) and most < first:
        sentence = f"expected at least grid.seeds = {first}, got {most}; write a larger number"
        found.append(mistake(("sampling", "max_seeds"), most, sentence))
    for key, value in parameters.items() if isinstance(parameters, dict) else ():
        if isinstance(value, list | tuple):
            sentence = (
                f"expected one value of parameters.{key} in a campaign that samples adaptively, "
                f"got {show_value(value)}; write a campaign for each value"
            )
            found.append(mistake(("sampling",), value, sentence))
    return found
