"""Reduced datasets and predictions as tables for a terminal, readable at 80 columns."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from rich.table import Table
from scipy.special import chdtrc

from pipeline.outcomes import split_constants
from pipeline.paired import sign_test
from pipeline.recovery import describe_ends
from pipeline.reductions import control_name, describe_runs
from pipeline.transition import Crossing

_SYMBOLS: Final[Mapping[str, str]] = {"alpha": "α"}
_SIZES_PER_TABLE: Final = 3
_MISFIT: Final = 0.01
_TINY: Final = 1e-6


def recovery_tables(reduced: xr.Dataset) -> list[Table]:
    """Recovery probabilities with intervals, and half-recovery points, for a terminal.

    Parameters
    ----------
    reduced : Dataset
        From `reduce_cube`.

    Returns
    -------
    list of Table
        For each value of a constant that is an axis, and each init, rows of the control parameter
        and columns of N, at most three a table so that 80 characters suffice; the last row is the
        half-recovery point, with a star where the deviance of the fit has a probability below 0.01.
    """
    control = control_name(reduced)
    symbol = _SYMBOLS.get(control, control)
    return [
        _table(part.sel(init=init, N=group), control, symbol, _named(str(init), constants))
        for constants, part in split_constants(reduced)
        for init in part["init"].to_numpy()
        for group in _size_groups(reduced)
    ]


def paired_tables(reduced: xr.Dataset) -> list[Table]:
    """Initialisations against each other on the same seeds, for a terminal.

    Seeds of all values of the control parameter together: they are independent instances.

    Returns
    -------
    list of Table
        For each value of a constant that is an axis, rows of pairs, columns of N: seeds gained and
        lost and the probability of so uneven a split if both recover alike; none where there is one
        initialisation.
    """
    if "pair" not in reduced.dims:
        return []
    return [
        _paired_table(
            part.sel(N=group), _named("seeds gained − lost on the same instances", constants)
        )
        for constants, part in split_constants(reduced)
        for group in _size_groups(reduced)
    ]


def _size_groups(reduced: xr.Dataset) -> list[list[int]]:
    """Sizes of each table, shared out evenly."""
    sizes = reduced["N"].to_numpy()
    tables = -(-len(sizes) // _SIZES_PER_TABLE)
    return [group.tolist() for group in np.array_split(sizes, tables)]


def _named(what: str, constants: Mapping[str, float]) -> str:
    return ", ".join([what, *(f"{name} = {value:g}" for name, value in constants.items())])


def _paired_table(reduced: xr.Dataset, title: str) -> Table:
    control = control_name(reduced)
    table = Table(
        title=title,
        caption="of all points together; in brackets McNemar's exact probability of no difference",
        min_width=46,
    )
    table.add_column("pair", no_wrap=True)
    sizes = reduced["N"].to_numpy().tolist()
    for N in sizes:
        table.add_column(f"N = {N}", justify="right", no_wrap=True)
    sums = reduced[["gained", "lost"]].sum(control)
    for pair in reduced["pair"].to_numpy():
        cells = []
        for N in sizes:
            gained, lost = (sums[name].sel(N=N, pair=pair).to_numpy() for name in sums)
            p = float(sign_test(gained, lost))
            shown = f"{p:.1g}" if p > _TINY else f"< {_TINY:g}"
            cells.append(f"{gained} − {lost} [{shown}]")
        table.add_row(str(pair).replace("-", " − "), *cells)
    return table


def law_tables(reduced: xr.Dataset) -> list[Table]:
    """Laws of the half-recovery point against log N, for a terminal; a table for each init.

    Parameters
    ----------
    reduced : Dataset
        From `pipeline.reductions.reduce_store`.
    """
    symbol = _SYMBOLS.get(control_name(reduced), control_name(reduced))
    tables = []
    for constants, part in split_constants(reduced):
        for init in part["init"].to_numpy():
            one = part.sel(init=init)
            if one["law_aic"].notnull().any():
                tables.append(_law_table(one, symbol, _named(str(init), constants)))
    return tables


def verdicts(reduced: xr.Dataset) -> list[str]:
    """What the data say, in words: how runs ended; the laws, for each init and constant."""
    ends = describe_ends(reduced)
    laws = [
        _named(str(words), constants)
        for constants, part in split_constants(reduced)
        for words in part["verdict"].to_numpy()
    ]
    return [ends, *laws] if ends else laws


def _law_table(part: xr.Dataset, symbol: str, name: str) -> Table:
    known = part["law_aic"].dropna("law")
    fitted = known.sortby(known)
    table = Table(
        title=f"{name}: laws of {symbol}½ against log N",
        caption="B per e-fold of N or times log N; ✓ not excluded; held out: deviance of each "
        "size from the fit to the others",
        min_width=46,
    )
    for heading in ("law", "B", "ΔAIC", "ΔBIC", "misfit", "held out", ""):
        table.add_column(heading, justify="left" if heading == "law" else "right", no_wrap=True)
    for law in fitted["law"].to_numpy():
        one = part.sel(law=law)
        misfit, held_out = float(one["law_misfit"]), float(one["law_held_out"])
        table.add_row(
            str(law),
            _rate_text(one),
            f"{float(one['law_aic'] - fitted[0]):.1f}",
            f"{float(one['law_bic'] - part['law_bic'].min()):.1f}",
            f"{misfit:.2g}" if np.isfinite(misfit) else "–",
            f"{held_out:.1f}" if np.isfinite(held_out) else "–",
            "✓" if int(one["law_standing"]) else "",
        )
    return table


def _rate_text(one: xr.Dataset) -> str:
    """Rate of a law with its standard error."""
    rate = float(one["law_parameter"].sel(term="rate"))
    variance = one["law_covariance"].sel(term="rate", term_other="rate")
    return f"{rate:.3f} ± {float(np.sqrt(variance)):.3f}" if np.isfinite(rate) else "–"


def prediction_table(record: Mapping[str, Any]) -> Table:
    """Predictions for phase retrieval, from `predict_phase_retrieval`, for a terminal."""
    a, marginal = (record[key] for key in ("a", "threshold_states_marginal_from"))
    notes = [
        f"BBP threshold at a random start:    α = {_number(record['alpha_bbp_init'], '∞')}",
        f"BBP threshold of threshold states:  α = {_number(record['alpha_bbp_threshold'], '∞')}",
        f"threshold states followed from:     α = {_number(record['threshold_states_from'], '∞')}",
        f"marginal, with edge at 0, from:     α = {_number(marginal, '∞')}",
        *(row["failure"] for row in record["rows"] if row["failure"]),
    ]
    table = Table(
        title=f"phase retrieval, a = {_number(a, '∞')}, N → ∞",
        caption="\n".join(notes),
        caption_justify="left",
        min_width=64,
    )
    columns = {
        "alpha": "α",
        "edge": "edge",
        "outlier": "outlier",
        "overlap2": "overlap²",
        "chi": "χ",
        "zeta": "ζ",
        "energy_threshold": "energy",
        "outlier_threshold": "outlier TS",
    }
    return _fill(table, columns, record["rows"])


def spiked_table(record: Mapping[str, Any]) -> Table:
    """Predictions for the spiked model, from `predict_spiked_model`, for a terminal."""
    lines = {
        "snr_bayes": "Bayes-optimal message passing finds the signal:",
        "snr_amp": "maximum-likelihood message passing finds it:",
        "snr_gradient_flow": "gradient flow leaves threshold states (BBP):",
        "snr_trivial": "no minima are left on the equator:",
    }
    table = Table(
        title=f"spiked matrix-tensor model, p = {record['p']}, Δ_p = {record['delta_p']:g}, N → ∞",
        caption="\n".join(f"{text:<48}1/Δ₂ > {record[key]:.5g}" for key, text in lines.items()),
        caption_justify="left",
        min_width=64,
    )
    columns = {
        "snr": "1/Δ₂",
        "m_signal": "m signal",
        "mu_signal": "μ signal",
        "complexity_equator": "Σ equator",
        "mu_threshold": "μ threshold",
        "growth_rate": "growth rate",
    }
    return _fill(table, columns, record["rows"])


def dynamics_table(row: Mapping[str, Any], *, most_rows: int) -> Table:
    """The `dynamics` of a row of `predict_spiked_dynamics`, for a terminal.

    Parameters
    ----------
    row : mapping
    most_rows : int
        Times shown, evenly spaced.
    """
    found = row["dynamics"]
    step = found["learning_rate"]
    method = "gradient flow" if step is None else f"gradient descent, η = {step:g}"
    table = Table(title=f"{method} at 1/Δ₂ = {row['snr']:g}, m(0) = {found['overlap']:g}, N → ∞")
    columns = {
        "time": "t",
        "m": "m",
        "mu": "μ",
        "e2": "e₂",
        "ep": "e_p",
        "edge": "edge",
        "outlier": "outlier",
    }
    last = len(found["time"]) - 1
    shown = sorted({round(k) for k in np.linspace(0, last, min(most_rows, last + 1))})
    return _fill(table, columns, [{key: found[key][k] for key in columns} for k in shown])


def _fill(table: Table, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> Table:
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(_number(row[key], "–") for key in columns))
    return table


def plan_table(title: str, record: Mapping[str, Any]) -> Table:
    """What a campaign would run and cost, for a terminal; the record is that of `hesscape plan`."""
    sizes = ", ".join(str(N) for N in record["measured_sizes"])
    source = f"blocks of N = {sizes}" if sizes else "the time of a product alone"
    walls = (f"{workers}: {_hours(hours)}" for workers, hours in record["wall_hours"].items())
    table = Table(title=title, show_header=False)
    table.add_row("runs", f"{record['runs']} of {record['runs_wanted']} are pending")
    table.add_row("blocks", f"{record['blocks']}, in {record['tasks']} tasks")
    table.add_row("time", f"about {record['core_hours']:.3g} core-hours, from {source}")
    table.add_row("on workers", ", ".join(walls))
    size = f"{record['bytes'] / 1e6:.3g} MB in {record['files']} files"
    table.add_row("results", f"{size}, before compression")
    table.add_row("memory", f"{record['worker_bytes'] / 1e6:.0f} MB a worker")
    return table


def _hours(hours: float) -> str:
    return f"{hours:.3g} h" if hours >= 1 else f"{60 * hours:.2g} min"


def _number(value: float | None, missing: str) -> str:
    return missing if value is None else f"{value:.5g}"


def _table(part: xr.Dataset, control: str, symbol: str, what: str) -> Table:
    failed = int(part["failed"].sum())
    caption = f"{describe_runs(part)} a point, 95 % intervals"
    if failed:
        caption += f"\n{failed} more failed numerically"
    table = Table(title=f"{what}: probability of recovery", caption=caption, min_width=46)
    table.add_column(symbol, justify="right", no_wrap=True)
    for N in part["N"].to_numpy():
        table.add_column(f"N = {N}", justify="right", no_wrap=True)
    for value in part[control].to_numpy():
        row = part.sel({control: value})
        names = ("probability", "probability_low", "probability_high")
        cells = zip(*(row[name].to_numpy() for name in names), strict=True)
        table.add_row(f"{value:g}", *(_interval_text(*cell) for cell in cells))
    table.add_section()
    halves = [_half_text(one, control, symbol) for one in _sizes(part)]
    if any(half.endswith("*") for half in halves):
        table.caption = f"{caption}\n* the points miss the fitted curve"
    table.add_row(f"{symbol}½", *halves, style="bold")
    if part.sizes.get("horizon", 0) > 1:
        earlier, (before, last) = part.isel(horizon=-2), part["horizon"].to_numpy()[-2:]
        by = (_earlier_text(one, control) for one in _sizes(earlier))
        table.add_row(f"{symbol}½, T/{last / before:.0f}", *by)
    return table


def _sizes(part: xr.Dataset) -> list[xr.Dataset]:
    return [part.isel(N=i) for i in range(part.sizes["N"])]


def _earlier_text(cell: xr.Dataset, control: str) -> str:
    """Half-recovery point had the runs ended at the last horizon before T."""
    half, low, high = (float(cell[f"{control}_half_by{end}"]) for end in ("", "_low", "_high"))
    return _interval_text(half, low, high)


def _interval_text(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "–"
    ends = (
        f"{end:.2f}" if np.isfinite(end) else f"{'−' if end < 0 else ''}∞" for end in (low, high)
    )
    return f"{value:.2f} [{', '.join(ends)}]"


def _half_text(cell: xr.Dataset, control: str, symbol: str) -> str:
    half, low, high = (float(cell[f"{control}_half{end}"]) for end in ("", "_low", "_high"))
    crossing = Crossing(int(cell["crossing"]))
    if crossing is Crossing.ABOVE_GRID:
        return f"> {low:.2f}" if np.isfinite(low) else "not reached"
    if crossing is Crossing.BELOW_GRID:
        return f"< {high:.2f}" if np.isfinite(high) else "not reached"
    if crossing is Crossing.FALLING:
        return f"falls with {symbol}"
    freedom = int(cell["points"]) - 2  # with two points any curve fits
    misfit = freedom > 0 and chdtrc(freedom, float(cell["deviance"])) < _MISFIT
    return _interval_text(half, low, high) + ("*" if misfit else "")
