"""A campaign: the TOML file that says which runs are wanted, read, checked and frozen."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails

from pipeline.campaign_axes import (
    Axes,
    Parameters,
    PhaseRetrievalAxes,
    PhaseRetrievalParameters,
    tabulate_measurements,
)
from pipeline.campaign_errors import CampaignError, explain, show_value
from pipeline.campaign_labels import LogSpaced, Section, Spaced, check_together
from pipeline.campaign_overrides import override
from pipeline.campaign_sampling import Sampling
from pipeline.campaign_sections import Dynamics, Spectrum, Trajectory, relate_sections
from pipeline.campaign_spiked import SpikedAxes, SpikedParameters, relate_form
from store import keys

__all__ = [
    "Campaign",
    "CampaignError",
    "bundled_workflows",
    "campaign_fields",
    "load_campaign",
    "parse_campaign",
]

Value = str | int | float | list[float]


class Campaign(Section):
    """Which runs are wanted: a model, its constants, a grid of labels, the dynamics.

    Nothing in it is about machines: the same campaign gives the same numbers anywhere.
    """

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="a name to call files by: letters, digits, `.`, `_`, `-`, at most 100 of them",
        examples=['name = "quickstart"'],
    )
    description: str = Field(
        default="",
        pattern=r"^[^\r\n]*$",
        description="one line of text",
        examples=['description = "what this campaign is for"'],
    )
    model: str
    entropy: int = Field(
        ge=0,
        lt=2**63,  # what TOML integers hold
        description="an integer from 0 to 2^63 - 1, from which all random streams come",
        examples=["entropy = 20240305"],
    )
    instances: Literal["auto", "dense", "conditional"] = Field(
        default="auto",
        description='"auto", "dense" or "conditional"',
        examples=['instances = "auto"'],
    )
    parameters: Parameters
    grid: Axes
    dynamics: Dynamics = Field(
        description="a section with method and T",
        examples=['[dynamics] and below it method = "flow", T = 300.0'],
    )
    trajectory: Trajectory | None = Field(
        default=None,
        description="a section with times",
        examples=["[trajectory] and below it times = [0.1, 1.0, 10.0]"],
    )
    sampling: Sampling | None = Field(
        default=None,
        description="a section with target_halfwidth and max_seeds",
        examples=["[sampling] and below it target_halfwidth = 0.03, max_seeds = 2000"],
    )

    spectrum: Spectrum | None = Field(
        default=None,
        description="a section with times, range and bins",
        examples=["[spectrum] and below it times = [0.0, 1.0], range = [-8.0, 40.0], bins = 240"],
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check_sections(cls, data: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        return check_together(data, build, cls._relate)

    @classmethod
    def _relate(cls, data: Mapping[str, Any]) -> list[InitErrorDetails]:
        return relate_sections(data)

    def grid_labels(self) -> keys.Grid:
        """The labels of all runs, as the store knows them; seeds are 0 … seeds − 1."""
        return keys.Grid(
            control=self.grid.control,
            values=self.grid.values,
            N=self.grid.N,
            seeds=tuple(range(self.grid.seeds)),
            inits=self.grid.inits,
            replicas=self.grid.replicas,
            constants=self.constants(),
        )

    def constants(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """Constants of the model that are axes of the grid, each with its labels."""
        return tuple((name, value) for name, value in self.parameters if isinstance(value, tuple))

    def times(self) -> tuple[float, ...]:
        """Times at which the runs are shown, in units of the flow; none without a trajectory."""
        return self.trajectory.times if self.trajectory else ()

    def groups(self) -> dict[str, dict[str, tuple[float, ...]]]:
        """Labels of the own axes of what the store has beside the cube, by group."""
        groups = {}
        if self.trajectory:
            groups["trajectory"] = {"time": self.trajectory.times}
        if self.spectrum:
            centres = tuple(self.spectrum.centres().tolist())
            groups["spectrum"] = {"snapshot": self.spectrum.times, "eigenvalue": centres}
        return groups

    def all_times(self) -> tuple[float, ...]:
        """Times at which the kernel must keep the runs, ascending."""
        snapshots = self.spectrum.times if self.spectrum else ()
        return tuple(sorted({*self.times(), *snapshots}))

    def measurements(self) -> NDArray[np.int64]:
        """M [control, N] of each pair of labels."""
        return tabulate_measurements(self.model, self.grid.values, self.grid.N)

    def physics(self) -> dict[str, Value]:
        """All that a store keeps for its life, by dotted key: what changes a number or its shape.

        Neither the labels of the grid, which may be added to, nor name and description. Of a
        constant that is an axis, that it is one.
        """
        sections = self.model_dump(
            include={
                "model": True,
                "entropy": True,
                "instances": True,
                "parameters": True,
                "dynamics": True,
                "trajectory": True,
                "spectrum": True,
                "grid": {"replicas"},
            },
            exclude_none=True,
        )
        axes = {f"parameters.{name}": "an axis" for name, _ in self.constants()}
        return dict(_flatten(sections)) | axes

    def differences(self, stored: Mapping[str, Value]) -> list[str]:
        """Where `stored`, the physics of another campaign, is not this one's: a line a key."""
        mine = self.physics()
        lines = []
        for key in dict.fromkeys([*mine, *stored]):
            there, here = stored.get(key), mine.get(key)
            if there != here:
                one, other = _show(there, here), _show(here, there)
                lines.append(f"{key}: {one} in the store, {other} in the campaign")
        return lines

    def to_toml(self) -> str:
        """The campaign as canonical TOML, defaults and labels spelt out; reads back equal."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    def prune(self, n: int) -> Self:
        """The campaign cut down for a trial: `n` seeds, at most `n` labels on the other axes.

        Sizes are kept from the smallest up, the other labels in their order. The physics is the
        same, so that the trial's store can be extended to the whole campaign.

        Raises
        ------
        ValueError
            If `n` is below 1.
        """
        if n < 1:
            raise ValueError(f"prune: expected n of at least 1, got {n!r}; give 1 or more")
        grid = self.grid.model_copy(
            update={
                self.grid.control: self.grid.values[:n],
                "N": tuple(sorted(self.grid.N)[:n]),
                "seeds": min(n, self.grid.seeds),
                "inits": self.grid.inits[:n],
            }
        )
        constants = {name: values[:n] for name, values in self.constants()}
        parameters = self.parameters.model_copy(update=constants)
        return self.model_copy(update={"grid": grid, "parameters": parameters})


_MODEL = '"phase_retrieval" or "spiked_matrix_tensor"'


class PhaseRetrievalCampaign(Campaign):
    """A campaign of phase retrieval."""

    model: Literal["phase_retrieval"] = Field(
        description=_MODEL, examples=['model = "phase_retrieval"']
    )
    parameters: PhaseRetrievalParameters = Field(
        description="a section with a", examples=["[parameters] and below it a = 1.0"]
    )
    grid: PhaseRetrievalAxes = Field(
        description="a section with alpha, N, seeds and inits",
        examples=["[grid] and below it alpha = [2.0, 3.0], N = [64], seeds = 48, inits = [...]"],
    )


class SpikedCampaign(Campaign):
    """A campaign of the spiked matrix-tensor model."""

    model: Literal["spiked_matrix_tensor"] = Field(
        description=_MODEL, examples=['model = "spiked_matrix_tensor"']
    )
    parameters: SpikedParameters = Field(
        description="a section with delta_p",
        examples=["[parameters] and below it delta_p = 1.0"],
    )
    grid: SpikedAxes = Field(
        description="a section with snr, N, seeds and inits",
        examples=["[grid] and below it snr = [1.5, 2.0], N = [64], seeds = 48, inits = [...]"],
    )
    spectrum: None = Field(
        default=None,
        description="nothing: densities of eigenvalues are those of phase retrieval only",
        examples=["no section [spectrum]"],
    )

    @classmethod
    def _relate(cls, data: Mapping[str, Any]) -> list[InitErrorDetails]:
        return [*relate_sections(data), *relate_form(data)]


MODELS: Final[Mapping[str, type[Campaign]]] = {
    "phase_retrieval": PhaseRetrievalCampaign,
    "spiked_matrix_tensor": SpikedCampaign,
}
"""The campaigns of each model, by its name."""


def _flatten(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Value]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{above}{key}.")
        else:
            yield above + key, list(value) if isinstance(value, tuple) else value


def _show(value: Value | None, other: Value | None) -> str:
    """A value that is not the other one; of a list beside another, what makes the difference."""
    if value is None:
        return "nothing"
    if not isinstance(value, list):
        return repr(value)
    if not isinstance(other, list):
        return show_value(value)
    alone = [entry for entry in value if entry not in other]
    shared = f"{len(value) - len(alone)} shared"
    return f"{show_value(alone)} and {shared}" if alone else shared


def campaign_fields(
    kind: type[Campaign] = PhaseRetrievalCampaign,
) -> dict[tuple[str, ...], FieldInfo]:
    """Every key that a campaign file of a model may have, sections before what is in them.

    Its `description` says what is expected, its `examples` how it is written.
    """
    return dict(_walk_fields(kind, ()))


_TABLES = {
    (PhaseRetrievalAxes, "alpha"): Spaced,
    (SpikedAxes, "snr"): Spaced,
    (Trajectory, "times"): LogSpaced,
    (Spectrum, "times"): LogSpaced,
}


def _walk_fields(
    section: type[BaseModel], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in section.model_fields.items():
        yield (*above, name), field
        kind = _TABLES.get((section, name), field.annotation)
        for inner in (kind, *get_args(kind)):  # the second where it may be left out
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _walk_fields(inner, (*above, name))


def bundled_workflows() -> dict[str, str]:
    """The studies that come with hesscape: their names and, a line each, what they are for."""
    return {
        name: parse_campaign(text, source=name).description
        for name, text in _read_bundled().items()
    }


def _read_bundled() -> dict[str, str]:
    files = resources.files("workflows").iterdir()
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in sorted(files, key=lambda file: file.name)
        if file.name.endswith(".toml")
    }


def load_campaign(source: str | Path, overrides: Sequence[str] = ()) -> Campaign:
    """Read a campaign: a workflow that comes with hesscape, or a file.

    Parameters
    ----------
    source
        The name of a bundled workflow, or a path. A name means the workflow even where a file is
        called so too; `./NAME` is the file.
    overrides
        What replaces the file's values, as in `parse_campaign`.

    Raises
    ------
    CampaignError
        With all that is wrong, if nothing is there to read or it is no valid campaign.
    """
    bundled = _read_bundled()
    if isinstance(source, str) and source in bundled:
        return parse_campaign(bundled[source], source=source, overrides=overrides)
    try:
        text = Path(source).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"expected text in UTF-8, got {error.reason} at byte {error.start}; convert it"
    except FileNotFoundError:
        close = difflib.get_close_matches(Path(source).stem, bundled, n=1)
        advice = f"did you mean {close[0]}? " if close else ""
        problem = (
            f"expected a file or a bundled workflow, got {show_value(str(source))}, which is "
            f"neither; {advice}bundled are {', '.join(bundled)}"
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        problem = f"expected a file that can be read, got {reason}; check the path"
    else:
        return parse_campaign(text, source=str(source), overrides=overrides)
    raise CampaignError(str(source), [problem])


def parse_campaign(text: str, *, source: str, overrides: Sequence[str] = ()) -> Campaign:
    """Check the TOML text of a campaign and freeze it.

    Parameters
    ----------
    text
        The campaign, as in a file or as `Campaign.to_toml` wrote it.
    source
        Where it is from, for the messages.
    overrides
        Dotted keys with values in TOML, as `grid.seeds=50`, that replace those of the text. A
        value that is one bare word is a string; `KEY=` with nothing behind removes the key.

    Raises
    ------
    CampaignError
        With all that is wrong.
    """
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise CampaignError(
            source, ["expected TOML, got tables or lists nested too deep; flatten them"]
        ) from None
    except ValueError as error:  # TOMLDecodeError, with line and column, or an absurd integer
        problem = f"expected TOML, got a mistake in it: {error}; correct that place"
        raise CampaignError(source, [problem]) from None
    problems = []
    for assignment in overrides:
        try:
            override(data, assignment)
        except ValueError as error:
            problems.append(str(error))
    named = data.get("model")
    kind = MODELS.get(named if isinstance(named, str) else "", PhaseRetrievalCampaign)
    try:
        campaign = kind.model_validate(data)
    except ValidationError as error:
        problems += explain(error, campaign_fields(kind))
    if problems:
        raise CampaignError(source, problems)
    return campaign
