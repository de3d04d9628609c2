"""Commands about a store that exists: how far it is, whether it is sound, what failed in it."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.cli_json import JsonOption, print_json

StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="A store made by `run`, a path or a URL.")
]
_DAMAGED = 1  # exit code, as of a sweep with quarantined blocks

app = typer.Typer()


@app.command()
def status(store: StoreArgument, *, as_json: JsonOption = False) -> None:
    """Say how far a campaign is; also while it runs."""
    from pipeline.status import describe_status

    state = describe_status(store)
    if as_json:
        print_json(state)
        return
    console = Console()
    table = Table(title=store, show_header=False)
    for name in ("pending", "done", "failed", "quarantined"):
        table.add_row(name, str(state[name]))
    for name, unit in (("rate", "runs/s"), ("eta_seconds", "s left")):
        if state[name] is not None:
            table.add_row(name.removesuffix("_seconds"), f"{state[name]:.1f} {unit}")
    table.add_row("sweep", "under way" if state["running"] else "none under way")
    console.print(table)
    for failure in state["failures"]:
        _say(
            f"quarantined {failure['key']}: {failure['error']} "
            f"(worker {failure['worker']}, {failure['attempts']} attempts, {failure['time']})\n"
            f"  hesscape reproduce {store} '{failure['key']}'"
        )


@app.command()
def retry(store: StoreArgument) -> None:
    """Make failed and quarantined runs pending, so that the next `run` tries them again."""
    from store.ledger import Ledger

    with Ledger(store) as ledger:
        cleared = ledger.clear()
    _say(f"{cleared} runs of {store} are pending again; `hesscape run` does them")


@app.command()
def verify(store: StoreArgument) -> None:
    """Read every chunk again; what is damaged becomes pending, so that the next `run` heals it."""
    from store.verify import verify_store

    found = verify_store(store)
    for damage in found.damages:
        _say(f"{damage.key}: {damage.reason}; {damage.remedy}")
    for leftover in found.leftovers:
        _say(f"{leftover}: left by a process that was killed; removed")
    _say(
        f"{found.chunks} chunks, {found.size / 1e6:.3g} MB read; {len(found.damages)} damaged, "
        f"{found.pending} runs pending because of it"
    )
    if found.damages:
        raise typer.Exit(_DAMAGED)


@app.command()
def reproduce(
    store: StoreArgument,
    block: Annotated[str, typer.Argument(metavar="BLOCK", help="Its key, as `status` prints it.")],
    *,
    debugger: Annotated[
        bool, typer.Option(help="Start it in the debugger, which also stops where it raises.")
    ] = False,
) -> None:
    """Run one block here, in the foreground, and compare it with what is stored; store nothing."""
    from pipeline.reproduce import reproduce_block

    outcome = reproduce_block(store, block, debugger=debugger)
    _say(f"{outcome.block.key}: {outcome.block.runs} runs in {outcome.seconds:.1f} s")
    for run, reason in outcome.failures:
        _say(f"failed numerically: {run}: {reason}")
    if outcome.compared == 0:
        _say("nothing of it is stored to compare with")
    elif outcome.differences:
        _say(f"of {outcome.compared} stored runs, these numbers differ:")
        for line in outcome.differences:
            _say(f"  {line}")
        _say("(runs that were computed in another company may differ in the last digits)")
        raise typer.Exit(_DAMAGED)
    else:
        _say(f"{outcome.compared} stored runs have the same numbers, bit by bit")


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, markup=False, highlight=False)
