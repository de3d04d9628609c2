"""The command `hesscape`: thin, the work is done by the modules it calls."""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
import xarray as xr
from rich.console import Console
from rich.table import Table

from pipeline.campaign import Campaign, CampaignError, bundled_workflows, load_campaign
from pipeline.cli_json import JsonOption, print_json
from pipeline.cli_theory import app as theory
from pipeline.cluster import ClusterError
from pipeline.cost import calibrated_cost
from pipeline.figures import draw_figures, save_figure
from pipeline.kernel.arrays import ArrayLibraryError
from pipeline.launch import launch
from pipeline.plan import Plan, make_plan
from pipeline.provenance import StoreMismatchError, check_store
from pipeline.reductions import ReductionError, reduce_cube
from pipeline.results import Results, read_results
from pipeline.status import describe_status
from pipeline.tables import paired_tables, recovery_tables
from pipeline.theory.laws import LawError
from pipeline.theory.spiked_model import SpikedModelError
from pipeline.theory.threshold_states import ThresholdStateError
from store.array_store import open_store
from store.ledger import Ledger, StoreLockedError, counts
from store.reduced import write_reduced
from store.schema import SchemaError

DONE, QUARANTINED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Numerical campaigns on why gradient descent finds good minima.",
)
app.add_typer(theory, name="theory")

Workflow = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="A bundled workflow, or a path to a TOML file.")
]
StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="A store made by `run`.")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Where the results go; default NAME.zarr here.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a campaign value; repeatable."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder for figures; default STORE-figures.")
]


@app.command()
def run(
    workflow: Workflow,
    *,
    store: StoreOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers of the embedded cluster; default one a core.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A running Dask scheduler; or `threads`, or `synchronous` for this process alone.",
        ),
    ] = None,
    scheduler_file: Annotated[
        Path | None, typer.Option(help="Scheduler file of a running Dask cluster.")
    ] = None,
    arrays: Annotated[
        str | None,
        typer.Option(
            metavar="LIBRARY[:DEVICE]",
            help="What the workers started here compute with: numpy (default), torch:cuda, cupy …",
        ),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Run a campaign, or resume or extend it where its store exists."""
    console = Console()
    campaign, path = _campaign_and_path(workflow, overrides, store)
    with _terminate_like_ctrl_c():
        try:
            outcome = launch(
                campaign,
                path,
                console=console,
                scheduler=scheduler,
                scheduler_file=scheduler_file,
                workers=workers,
                arrays=arrays,
            )
        except KeyboardInterrupt:
            console.print(
                f"\nInterrupted; {_how_far(path)}. To resume:\n  {_this_command()}",
                soft_wrap=True,
            )
            raise typer.Exit(INTERRUPTED) from None
    _show(console, outcome.reduced)
    for file in _draw(path, read_results(path, outcome.reduced), None):
        console.print(f"figure: {file}", soft_wrap=True)
    console.print(f"store:  {path}", soft_wrap=True)
    if outcome.quarantined:
        console.print(
            f"[red]{outcome.quarantined} runs are quarantined[/]: see `hesscape status {path}`; "
            f"`hesscape retry {path}` makes them pending again",
            soft_wrap=True,
        )
        raise typer.Exit(QUARANTINED)


@app.command()
def plan(
    workflow: Workflow,
    *,
    store: StoreOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a campaign would run, and what it would cost; run nothing."""
    campaign, path = _campaign_and_path(workflow, overrides, store)
    if path.exists():
        check_store(campaign, path)
    todo = make_plan(campaign, path, calibrated_cost(campaign))
    if as_json:
        print_json(_plan_record(todo, path))
        return
    table = Table(title=f"{campaign.name} → {path}", show_header=False)
    for name, text in _plan_lines(todo):
        table.add_row(name, text)
    Console().print(table)


@app.command()
def status(store: StoreArgument, *, as_json: JsonOption = False) -> None:
    """Say how far a campaign is; also while it runs."""
    state = describe_status(store)
    if as_json:
        print_json(state)
        return
    console = Console()
    table = Table(title=str(store), show_header=False)
    for name in ("pending", "done", "failed", "quarantined"):
        table.add_row(name, str(state[name]))
    for name, unit in (("rate", "runs/s"), ("eta_seconds", "s left")):
        if state[name] is not None:
            table.add_row(name.removesuffix("_seconds"), f"{state[name]:.1f} {unit}")
    table.add_row("sweep", "under way" if state["running"] else "none under way")
    console.print(table)
    for failure in state["failures"]:
        console.print(
            f"quarantined {failure['key']}: {failure['error']} "
            f"(worker {failure['worker']}, {failure['attempts']} attempts)",
            soft_wrap=True,
        )


@app.command()
def retry(store: StoreArgument) -> None:
    """Make failed and quarantined runs pending, so that the next `run` tries them again."""
    with Ledger(store) as ledger:
        cleared = ledger.clear()
    Console().print(f"{cleared} runs of {store} are pending again; `hesscape run` does them")


@app.command()
def reduce(store: StoreArgument, *, as_json: JsonOption = False) -> None:
    """Compute recovery probabilities and half-recovery points, and keep them in the store."""
    with Ledger(store):
        reduced = reduce_cube(open_store(store))
        write_reduced(store, reduced)
    if as_json:
        print_json(reduced.to_dict())
        return
    _show(Console(), reduced)


@app.command()
def plot(store: StoreArgument, *, out: OutOption = None) -> None:
    """Draw the figures for which a store has what they show."""
    for file in _draw(store, read_results(store), out):
        Console().print(f"figure: {file}", soft_wrap=True)


@app.command()
def workflows(*, as_json: JsonOption = False) -> None:
    """List the bundled studies."""
    bundled = bundled_workflows()
    if as_json:
        print_json(bundled)
        return
    for name, description in bundled.items():
        Console().print(f"[bold]{name}[/]  {description}")


def main() -> NoReturn:
    """Run the command; bad input is a message and exit code 2, never a traceback."""
    bad_input = (
        CampaignError,
        ArrayLibraryError,
        ClusterError,
        FileNotFoundError,
        LawError,
        PermissionError,
        ReductionError,
        SchemaError,
        SpikedModelError,
        StoreLockedError,
        StoreMismatchError,
        ThresholdStateError,
    )
    try:
        app()
    except bad_input as error:
        Console(stderr=True).print(
            f"hesscape: {error}", style="red", soft_wrap=True, markup=False, highlight=False
        )
        sys.exit(BAD_INPUT)
    sys.exit(DONE)


def _campaign_and_path(
    workflow: str, overrides: list[str] | None, store: Path | None
) -> tuple[Campaign, Path]:
    campaign = load_campaign(workflow, overrides or [])
    return campaign, store or Path(f"{campaign.name}.zarr")


def _plan_record(todo: Plan, path: Path) -> dict[str, Any]:
    return {
        "store": str(path),
        "runs_wanted": todo.wanted,
        "runs": todo.runs,
        "blocks": todo.blocks,
        "tasks": len(todo.units),
        "core_hours": todo.core_seconds / 3600,
        "bytes": todo.new_bytes,
        "files": todo.new_files,
        "worker_bytes": todo.worker_bytes,
    }


def _plan_lines(todo: Plan) -> Iterator[tuple[str, str]]:
    yield "runs", f"{todo.runs} of {todo.wanted} are pending"
    yield "blocks", f"{todo.blocks}, in {len(todo.units)} tasks"
    yield "time", f"about {todo.core_seconds / 3600:.3g} core-hours (to a factor of 2)"
    yield "results", f"{todo.new_bytes / 1e6:.3g} MB in {todo.new_files} files, before compression"
    yield "memory", f"{todo.worker_bytes / 1e6:.0f} MB a worker"


def _show(console: Console, reduced: xr.Dataset) -> None:
    for table in (*recovery_tables(reduced), *paired_tables(reduced)):
        console.print(table)


def _draw(store: Path, results: Results, out: Path | None) -> Iterator[Path]:
    folder = out or store.with_name(f"{store.name.removesuffix('.zarr')}-figures")
    for drawn in draw_figures(results):
        yield from save_figure(drawn.figure, folder / drawn.name)


def _how_far(path: Path) -> str:
    if not path.exists():
        return "nothing had begun"
    numbers = counts(path)
    total = sum(numbers.values())
    return f"{total - numbers['pending']} of {total} runs are in {path}"


def _this_command() -> str:
    return shlex.join(["hesscape", *sys.argv[1:]])


@contextmanager
def _terminate_like_ctrl_c() -> Iterator[None]:
    """A SIGTERM, as batch systems send it, ends a sweep as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
