"""Reduced datasets as tables for a terminal, readable at 100 columns."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import xarray as xr
from rich.table import Table
from scipy.special import chdtrc

from pipeline.reductions import control_name, describe_runs
from pipeline.transition import Crossing

_SYMBOLS: Final[Mapping[str, str]] = {"alpha": "α"}
_SIZES_PER_TABLE: Final = 4
_MISFIT: Final = 0.01


def recovery_tables(reduced: xr.Dataset) -> list[Table]:
    """Recovery probabilities with intervals, and half-recovery points, for a terminal.

    Parameters
    ----------
    reduced : Dataset
        From `reduce_cube`.

    Returns
    -------
    list of Table
        For each init, rows of the control parameter and columns of N, at most four a table so that
        100 characters suffice; the last row is the half-recovery point, with a star where the
        deviance of the fit has a probability below 0.01.
    """
    control = control_name(reduced)
    symbol = _SYMBOLS.get(control, control)
    sizes = reduced["N"].to_numpy().tolist()
    groups = [sizes[i : i + _SIZES_PER_TABLE] for i in range(0, len(sizes), _SIZES_PER_TABLE)]
    return [
        _table(reduced.sel(init=init, N=group), control, symbol, str(init))
        for init in reduced["init"].to_numpy()
        for group in groups
    ]


def _table(part: xr.Dataset, control: str, symbol: str, init: str) -> Table:
    failed = int(part["failed"].sum())
    caption = f"{describe_runs(part)} a point, 95 % intervals"
    if failed:
        caption += f"\n{failed} more failed numerically"
    table = Table(title=f"{init}: probability of recovery", caption=caption, min_width=46)
    table.add_column(symbol, justify="right", no_wrap=True)
    for N in part["N"].to_numpy():
        table.add_column(f"N = {N}", justify="right", no_wrap=True)
    for value in part[control].to_numpy():
        row = part.sel({control: value})
        names = ("probability", "probability_low", "probability_high")
        cells = zip(*(row[name].to_numpy() for name in names), strict=True)
        table.add_row(f"{value:g}", *(_interval_text(*cell) for cell in cells))
    table.add_section()
    halves = [_half_text(part.isel(N=i), control, symbol) for i in range(part.sizes["N"])]
    if any(half.endswith("*") for half in halves):
        table.caption = f"{caption}\n* the points miss the fitted logistic curve"
    table.add_row(f"{symbol}½", *halves, style="bold")
    return table


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
