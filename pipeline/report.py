"""One HTML page about a store: what was run, what the data say, figures, tables, provenance.

The page is complete in itself: figures are inside it, it loads nothing and runs nothing, and its
own content policy forbids both. All that comes from the store is escaped.
"""

import base64
import io
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from pipeline.figures import draw_figures
from pipeline.figures_style import figure_style
from pipeline.reductions import describe_runs
from pipeline.results import Results
from pipeline.tables import law_tables, paired_tables, recovery_tables, verdicts


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page.

    Parameters
    ----------
    name, caption : str
    uri : str
        SVG as a data URI.
    """

    name: str
    caption: str
    uri: str


@dataclass(frozen=True)
class PageTable:
    """A table of the page."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def write_report(
    results: Results, attributes: Mapping[str, Any], counted: Mapping[str, int]
) -> str:
    """HTML text of the report.

    Parameters
    ----------
    results : Results
        With the reductions of the whole store.
    attributes : mapping
        Those of the store's root: provenance.
    counted : mapping of str to int
        Numbers of runs by status, from `store.ledger.counts`.
    """
    environment = Environment(
        loader=PackageLoader("pipeline", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    campaign = str(attributes.get("campaign", ""))
    reduced = results.reduced
    found = [*recovery_tables(reduced), *paired_tables(reduced), *law_tables(reduced)]
    return environment.get_template("report.html.j2").render(
        title=str(attributes.get("title", "a store of hesscape")),
        description=_describe(campaign),
        facts=list(_facts(results, attributes, counted)),
        verdicts=verdicts(reduced),
        figures=list(_figures(results)),
        tables=[_page_table(table) for table in found],
        revisions=_revisions(attributes),
        campaign=campaign,
    )


def _describe(campaign: str) -> str:
    try:
        return str(tomllib.loads(campaign).get("description", ""))
    except tomllib.TOMLDecodeError:
        return ""


def _facts(
    results: Results, attributes: Mapping[str, Any], counted: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """What was run, in words and numbers."""
    yield "runs", ", ".join(f"{number} {name}" for name, number in counted.items())
    yield "runs a point", describe_runs(results.reduced)
    for dim, length in results.cube.sizes.items():
        labels = [str(label) for label in results.cube[dim].to_numpy().tolist()]
        shown = ", ".join(labels) if length <= 24 else f"{labels[0]} … {labels[-1]} ({length})"
        yield str(dim), shown
    for key, value in results.physics.items():
        yield key, str(value)
    yield "kernel version", str(attributes.get("kernel_version", ""))
    yield "created", str(attributes.get("created", ""))


def _figures(results: Results) -> Iterator[PageFigure]:
    runs = describe_runs(results.reduced)
    for drawn in draw_figures(results):
        caption = f"{drawn.caption} From {runs} a point."
        yield PageFigure(drawn.name, caption, _data_uri(drawn.figure))


def _data_uri(figure: Figure) -> str:
    svg = io.BytesIO()
    with figure_style():
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.getvalue()).decode()}"


def _page_table(table: Table) -> PageTable:
    """A table for a terminal as one for the page."""
    console = Console(width=1000, color_system=None)
    columns = [[_plain(console, cell) for cell in column.cells] for column in table.columns]
    return PageTable(
        title=str(table.title or ""),
        headings=tuple(str(column.header) for column in table.columns),
        rows=tuple(zip(*columns, strict=True)),
        note=str(table.caption or ""),
    )


def _plain(console: Console, cell: Any) -> str:
    """Text of a cell as it is: no markup is read in what comes from a store."""
    return cell if isinstance(cell, str) else "".join(part.text for part in console.render(cell))


def _revisions(attributes: Mapping[str, Any]) -> PageTable:
    rows = []
    for revision in attributes.get("revisions", []):
        versions = revision.get("versions", {})
        rows.append(
            (
                str(revision.get("time", "")),
                str(revision.get("kernel_version", "")),
                ", ".join(f"{name} {version}" for name, version in versions.items()),
                str(revision.get("git_commit", "")) or "–",
            )
        )
    return PageTable("", ("time", "kernel", "versions", "commit"), tuple(rows))
