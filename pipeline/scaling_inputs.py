"""What a store knows beside its counts for the laws: the N → ∞ threshold, and the signal gain."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr

from pipeline.outcomes import control_name
from pipeline.scaling_laws import GainTable
from pipeline.spiked_recovery import predict_spread
from pipeline.theory.spiked_landscape import gradient_flow_line
from pipeline.theory.threshold_states import ThresholdStateError, bbp_at_threshold


def limit_of(physics: Mapping[str, Any]) -> float | None:
    """Control parameter above which threshold states are unstable towards the signal at N → ∞.

    Parameters
    ----------
    physics : mapping
        As in the attributes of a store.

    Returns
    -------
    float or None
        None where theory does not give it.
    """
    model, a = physics.get("model"), physics.get("parameters.a")
    if model == "phase_retrieval" and isinstance(a, int | float):
        with suppress(ThresholdStateError):
            return float(bbp_at_threshold(float(a)))
    delta_p = physics.get("parameters.delta_p")
    if model == "spiked_matrix_tensor" and isinstance(delta_p, int | float):
        return gradient_flow_line(float(delta_p), int(physics["parameters.p"]))
    return None


def known_gains(
    physics: Mapping[str, Any], reduced: xr.Dataset, along: xr.Dataset | None
) -> dict[str, GainTable]:
    """Signal gain for each initialisation: that of the runs, or what theory has of random starts.

    Parameters
    ----------
    physics : mapping
        As in the attributes of a store.
    reduced : Dataset
        Whose initialisations and control parameter are asked for.
    along : Dataset, optional
        Group ``trajectory`` of a store.
    """
    measured = gain_tables(along) if along is not None else {}
    if measured or "random" not in reduced["init"].to_numpy():
        return measured
    table = predict_spread(physics, reduced[control_name(reduced)].to_numpy().tolist())
    return {} if table is None else {"random": table}


def gain_tables(along: xr.Dataset) -> dict[str, GainTable]:
    """Signal gain against the control parameter, for each initialisation.

    Parameters
    ----------
    along : Dataset
        Group ``trajectory`` of a store.

    Returns
    -------
    dict of str to GainTable
        2 log max_t |G(t)|, averaged over seeds, replicas and sizes; the running maximum over the
        control parameter, since the gain rises but for its scatter. Without the initialisations
        whose gain is known at fewer than two values.
    """
    if "gain" not in along:
        return {}
    control = control_name(along)
    largest: xr.DataArray = abs(along["gain"]).max("time")
    doubled = largest.where(largest > 0)
    doubled.values = 2 * np.log(doubled.values)
    mean = doubled.mean([dim for dim in doubled.dims if dim not in (control, "init")])
    tables = {}
    for init in mean["init"].to_numpy():
        column = mean.sel(init=init).dropna(control).sortby(control)
        x, y = column[control].to_numpy(), column.to_numpy()
        before = np.concatenate([[-np.inf], np.maximum.accumulate(y)[:-1]])[: y.size]
        rising = y > before
        if rising.sum() >= 2:
            tables[str(init)] = GainTable(x[rising], y[rising])
    return tables
