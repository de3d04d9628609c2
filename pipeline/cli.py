"""The command `hesscape`: thin, the work is done by the modules it calls.

Each command imports what it needs when it is called, so that `status` answers at once.
"""

import math
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from pipeline.cli_json import JsonOption, print_json
from pipeline.cli_store import StoreArgument
from pipeline.cli_store import app as stores
from pipeline.cli_theory import app as theory

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.campaign import Campaign
    from pipeline.results import Results

DONE, QUARANTINED, BAD_INPUT, SPENT, STOPPED, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit codes."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Numerical campaigns on why gradient descent finds good minima.",
)
app.add_typer(theory, name="theory")
app.add_typer(stores)

Workflow = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="A bundled workflow, or a path to a TOML file.")
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="Where the results go, a path or URL; default NAME.zarr here."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a campaign value; repeatable."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder for figures; default STORE-figures.")
]


@app.command()
def run(  # noqa: PLR0913  a flag each
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
    tls_ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authority of a cluster with TLS.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file of this side's certificate.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of this side's key.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Stop, resumable, within this time: 10h, 30m, 90s."),
    ] = None,
    accept_kernel_version: Annotated[
        bool, typer.Option(help="Add to a store whose numbers are of another kernel version.")
    ] = False,
    overrides: SetOption = None,
) -> None:
    """Run a campaign, or resume or extend it where its store exists."""
    from pipeline.cluster import ClusterLostError, Resources
    from pipeline.durations import parse_duration
    from pipeline.launch import launch
    from pipeline.results import read_results
    from store.lock import LockLostError
    from store.place import StoreWriteError

    console = Console()
    campaign, path = _campaign_and_path(workflow, overrides, store)
    place = Resources(scheduler, scheduler_file, workers, tls_ca, tls_cert, tls_key, arrays)
    seconds = math.inf if budget is None else parse_duration(budget)
    with _terminate_like_ctrl_c():
        try:
            outcome = launch(
                campaign,
                path,
                console=console,
                resources=place,
                budget=seconds,
                accept_kernel_version=accept_kernel_version,
            )
        except KeyboardInterrupt:
            _say_how_to_resume(console, "Interrupted", path)
            raise typer.Exit(INTERRUPTED) from None
        except (StoreWriteError, ClusterLostError, LockLostError) as error:
            _say_how_to_resume(console, f"Stopped: {error}", path)
            raise typer.Exit(STOPPED) from None
    _show(console, outcome.reduced)
    try:
        for file in _draw(path, read_results(path, outcome.reduced), None):
            console.print(f"figure: {file}", soft_wrap=True)
    except OSError as error:
        console.print(f"no figures: {error}; `hesscape plot {path} --out DIR` draws them elsewhere")
    console.print(f"store:  {path}", soft_wrap=True)
    if outcome.quarantined:
        console.print(
            f"[red]{outcome.quarantined} runs are quarantined[/]: see `hesscape status {path}`; "
            f"`hesscape retry {path}` makes them pending again",
            soft_wrap=True,
        )
    if outcome.left:
        _say_how_to_resume(console, f"The budget of {budget} is spent", path)
        raise typer.Exit(SPENT)
    if outcome.quarantined:
        raise typer.Exit(QUARANTINED)


@app.command()
def plan(
    workflow: Workflow,
    *,
    store: StoreOption = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Say how long it takes on so many workers; repeatable."),
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a campaign would run, and what it would cost; run nothing."""
    from dask.system import cpu_count

    from pipeline.plan import make_plan
    from pipeline.prediction import predict_cost
    from pipeline.provenance import check_store
    from pipeline.tables import plan_table
    from store.place import is_there

    campaign, path = _campaign_and_path(workflow, overrides, store)
    if is_there(path):
        check_store(campaign, path, accept_kernel_version=True)
    cost = predict_cost(campaign, path)
    todo = make_plan(campaign, path, cost)
    counts = workers or sorted({1, cpu_count(), 16, 64})
    record = {
        "store": path,
        "runs_wanted": todo.wanted,
        "runs": todo.runs,
        "blocks": todo.blocks,
        "tasks": len(todo.units),
        "core_hours": todo.core_seconds / 3600,
        "measured_sizes": sorted({N for _, N in cost.corrections}),
        "wall_hours": {count: todo.wall_seconds(count) / 3600 for count in counts},
        "bytes": todo.new_bytes,
        "files": todo.new_files,
        "worker_bytes": todo.worker_bytes,
    }
    if as_json:
        print_json(record)
        return
    Console().print(plan_table(f"{campaign.name} → {path}", record))
    if campaign.sampling:
        most = campaign.sampling.max_seeds
        Console().print(f"adaptive: this is the next round, cells get up to {most} seeds")


@app.command()
def reduce(
    store: StoreArgument,
    *,
    gain_from: Annotated[
        str | None,
        typer.Option(metavar="STORE", help="Store with the signal gain; default STORE itself."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compute recovery probabilities, half-recovery points and their laws; keep them there."""
    from pipeline.reductions import reduce_store
    from store.array_store import reading
    from store.ledger import Ledger
    from store.reduced import write_reduced

    with Ledger(store), reading(store):
        reduced = reduce_store(store, gain_from)
        write_reduced(store, reduced)
    if as_json:
        print_json(reduced.to_dict())
        return
    _show(Console(), reduced)


@app.command()
def plot(store: StoreArgument, *, out: OutOption = None) -> None:
    """Draw the figures for which a store has what they show."""
    from pipeline.results import read_results

    for file in _draw(store, read_results(store), out):
        Console().print(f"figure: {file}", soft_wrap=True)


@app.command()
def report(
    store: StoreArgument,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file; default STORE-report.html.")
    ] = None,
) -> None:
    """Write one self-contained HTML page: what was run, figures, tables, provenance."""
    from pipeline.report import write_report
    from pipeline.results import read_results
    from store.array_store import read_attributes, reading
    from store.ledger import counts
    from store.place import is_remote, show_path

    beside = Path(show_path(store))
    folder = Path() if is_remote(store) else beside.parent
    file = out or folder / f"{beside.name.removesuffix('.zarr')}-report.html"
    with reading(store):
        page = write_report(read_results(store), read_attributes(store), counts(store))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    Console().print(f"report: {file}", soft_wrap=True)


@app.command()
def workflows(
    *,
    as_json: JsonOption = False,
    slurm: Annotated[
        bool, typer.Option(help="Print a batch script for SLURM instead, to be kept in a file.")
    ] = False,
) -> None:
    """List the bundled studies."""
    from pipeline.campaign import bundled_workflows

    if slurm:
        recipe = resources.files("workflows") / "slurm" / "campaign.sbatch"
        sys.stdout.write(recipe.read_text(encoding="utf-8"))
        return
    bundled = bundled_workflows()
    if as_json:
        print_json(bundled)
        return
    for name, description in bundled.items():
        Console().print(f"[bold]{name}[/]  {description}")


def main() -> NoReturn:
    """Run the command; bad input is a message and exit code 2, never a traceback."""
    try:
        app()
    except Exception as error:
        if not isinstance(error, _bad_input()):
            raise
        Console(stderr=True).print(
            f"hesscape: {error}", style="red", soft_wrap=True, markup=False, highlight=False
        )
        sys.exit(BAD_INPUT)
    sys.exit(DONE)


def _bad_input() -> tuple[type[Exception], ...]:
    from pipeline.campaign import CampaignError
    from pipeline.cluster import ClusterError
    from pipeline.durations import DurationError
    from pipeline.kernel.arrays import ArrayLibraryError
    from pipeline.provenance import StoreMismatchError
    from pipeline.reductions import ReductionError
    from pipeline.theory.laws import LawError
    from pipeline.theory.spiked_model import SpikedModelError
    from pipeline.theory.threshold_states import ThresholdStateError
    from store.keys import BlockKeyError
    from store.lock import StoreLockedError
    from store.place import PlaceError, StoreWriteError
    from store.schema import SchemaError

    return (
        CampaignError,
        ArrayLibraryError,
        BlockKeyError,
        ClusterError,
        DurationError,
        FileNotFoundError,
        LawError,
        PermissionError,
        PlaceError,
        ReductionError,
        SchemaError,
        SpikedModelError,
        StoreLockedError,
        StoreMismatchError,
        StoreWriteError,
        ThresholdStateError,
    )


def _campaign_and_path(
    workflow: str, overrides: list[str] | None, store: str | None
) -> "tuple[Campaign, str]":
    from pipeline.campaign import load_campaign

    campaign = load_campaign(workflow, overrides or [])
    return campaign, store or f"{campaign.name}.zarr"


def _show(console: Console, reduced: "xr.Dataset") -> None:
    from rich.padding import Padding

    from pipeline.tables import law_tables, paired_tables, recovery_tables, verdicts

    for table in (*recovery_tables(reduced), *paired_tables(reduced)):
        console.print(table)
    for table in law_tables(reduced):
        console.print(table)
    for verdict in verdicts(reduced):
        console.print(Padding(verdict, (1, 0, 0, 0)))


def _draw(store: str, results: "Results", out: Path | None) -> Iterator[Path]:
    """Figures beside a store, in the current folder for one at a URL."""
    from pipeline.figures import draw_figures, save_figure
    from store.place import is_remote, show_path

    beside = Path(show_path(store))
    folder = Path() if is_remote(store) else beside.parent
    folder = out or folder / f"{beside.name.removesuffix('.zarr')}-figures"
    for drawn in draw_figures(results):
        yield from save_figure(drawn.figure, folder / drawn.name)


def _say_how_to_resume(console: Console, why: str, path: str) -> None:
    """Say why a sweep ended early, how far it is, and which command goes on."""
    from store.ledger import counts

    try:
        numbers = counts(path)
    except FileNotFoundError:
        how_far = "nothing had begun"
    except (OSError, ValueError):
        how_far = f"{path} cannot be read now"
    else:
        total = sum(numbers.values())
        how_far = f"{total - numbers['pending']} of {total} runs are in {path}"
    console.print(
        f"\n{why}; {how_far}. To resume:\n  {_this_command()}",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


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
