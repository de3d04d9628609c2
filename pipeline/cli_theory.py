"""`hesscape theory MODEL`: each model with the options that its predictions need."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli_json import JsonOption, print_json

_ROWS = 21  # of a table of the dynamics

app = typer.Typer(
    no_args_is_help=True,
    subcommand_metavar="phase_retrieval|spiked_matrix_tensor [OPTIONS]",
    help="Say what theory predicts for N → ∞: thresholds, spectra, threshold states, dynamics.",
)


@app.command("phase_retrieval")
def phase_retrieval(
    *,
    a: Annotated[float, typer.Option(help="Parameter of the loss; inf: unnormalised loss.")],
    alpha: Annotated[
        list[float] | None, typer.Option(help="α = M/N to say more of; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Thresholds, outliers, threshold states of phase retrieval."""
    from pipeline.tables import prediction_table
    from pipeline.theory.predictions import predict_phase_retrieval

    record = predict_phase_retrieval(a, alpha or [])
    if as_json:
        print_json(record)
        return
    Console().print(prediction_table(record))


@app.command("spiked_matrix_tensor")
def spiked_matrix_tensor(  # noqa: PLR0913  one for each option
    *,
    delta_p: Annotated[float, typer.Option(help="Noise Δ_p of the tensor.")],
    p: Annotated[int, typer.Option(help="Order of the tensor.")] = 3,
    snr: Annotated[
        list[float] | None, typer.Option(help="1/Δ₂ to say more of; repeatable.")
    ] = None,
    dynamics: Annotated[
        bool, typer.Option("--dynamics", help="Follow the flow at each --snr too.")
    ] = False,
    overlap: Annotated[float, typer.Option(help="Of --dynamics: m(0).")] = 0.1,
    duration: Annotated[float, typer.Option(help="Of --dynamics: the last time.")] = 10.0,
    step: Annotated[float, typer.Option(help="Of --dynamics: time between two rows.")] = 0.05,
    descent: Annotated[
        bool,
        typer.Option("--descent", help="Of --dynamics: gradient descent with --step, exactly."),
    ] = False,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for figures: phase diagram, complexity and more.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Lines, signal states, complexity and dynamics of the spiked matrix-tensor model."""
    from pipeline.figures_spiked_theory import spiked_figures
    from pipeline.figures_style import save_figure
    from pipeline.tables import dynamics_table, spiked_table
    from pipeline.theory.spiked_model import make_spiked_model
    from pipeline.theory.spiked_predictions import predict_spiked_dynamics, predict_spiked_model

    if dynamics and not snr:
        raise typer.BadParameter("give the 1/Δ₂ to follow with --snr", param_hint="--dynamics")
    record = predict_spiked_model(delta_p, snr or [], p)
    if dynamics:
        for row in record["rows"]:
            model = make_spiked_model(row["snr"], delta_p, p)
            row["dynamics"] = predict_spiked_dynamics(
                model, overlap, duration=duration, step=step, descent=descent
            )
    drawn: list[Path] = []
    if figures is not None:
        for name, figure in spiked_figures(delta_p, snr or [], p):
            drawn += save_figure(figure, figures / name)
    if as_json:
        print_json(record)
        return
    console = Console()
    console.print(spiked_table(record))
    for row in record["rows"] if dynamics else []:
        console.print(dynamics_table(row, most_rows=_ROWS))
    for file in drawn:
        console.print(f"figure: {file}", soft_wrap=True)
