"""Finite-size scaling: which law c_½(N) the data support, and what they cannot decide."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from scipy.special import chdtrc, ndtri

from pipeline.collapse import Collapse, collapse_quality
from pipeline.intervals import LEVEL
from pipeline.outcomes import control_name, describe, describe_interval
from pipeline.scaling_fit import Cells, Fit, as_cells, dispersion, fit_law, free_law, held_out
from pipeline.scaling_laws import GainTable, Law, candidate_laws

TERMS: Final = ("level", "rate", "steepness", "steepening")
LAWS: Final = ("constant", "logarithm", "inverse", "approach", "gain")
_DECIDED: Final = 6.0  # of AIC: the other law is e³ = 20 times less likely
_REJECTED: Final = 0.01
_FEWEST_SIZES: Final = 3
_FAR: Final = 1e6  # sizes to which laws are followed
_SHOWN: Final = 41


@dataclass(frozen=True)
class Judged:
    """A law with what speaks for and against it.

    Parameters
    ----------
    fit : Fit
    aic, bic : float
        Information criteria: deviance over dispersion, plus 2 a parameter or log(runs).
    misfit : float
        Probability of so large a deviance beside the free law's if this law holds; NaN where it has
        as many parameters as there are sizes.
    held_out : float
        Deviance over dispersion of each size from the fit to the others, summed.
    held_out_largest : float
        The same of the largest size alone: an extrapolation.
    """

    fit: Fit
    aic: float
    bic: float
    misfit: float
    held_out: float
    held_out_largest: float

    @property
    def name(self) -> str:
        """Name of the law."""
        return self.fit.law.name


@dataclass(frozen=True)
class Scaling:
    """The laws of one initialisation, judged.

    Parameters
    ----------
    sizes : tuple of float
        Sizes on which some but not all runs recovered.
    laws : tuple of Judged
        Best AIC first; empty with fewer than two sizes.
    dispersion : float
        Scatter of the counts about the free law, in units of binomial scatter; at least 1.
    collapse : Collapse or None
        Quality of the data collapse; None with fewer than two sizes.
    """

    sizes: tuple[float, ...]
    laws: tuple[Judged, ...] = ()
    dispersion: float = 1.0
    collapse: Collapse | None = None

    def standing(self) -> tuple[Judged, ...]:
        """Laws that the data do not exclude, best first.

        A law is excluded if its own deviance does (probability below 0.01), or if another law beats
        it by 6 of AIC and also predicts held-out sizes better: an information criterion alone is
        not believed where laws are extrapolated.
        """
        fitting = [law for law in self.laws if not law.misfit < _REJECTED]
        return tuple(
            law
            for law in fitting
            if not any(
                law.aic - best.aic >= _DECIDED and best.held_out < law.held_out for best in fitting
            )
        )


def compare_laws(cells: Cells, laws: tuple[Law, ...]) -> Scaling:
    """Fit and judge laws on the counts of one initialisation."""
    mixed = cells.sizes(mixed=True)
    sizes = tuple(mixed.tolist())
    if len(sizes) < 2:
        return Scaling(sizes)
    inside = cells.only(mixed)
    free = fit_law(free_law(mixed), inside)
    scatter = dispersion(free, inside)
    judged = []
    for law in laws:
        if len(law.terms) > len(sizes):
            continue
        fit = fit_law(law, cells)
        left = len(sizes) - len(law.terms)
        excess = max(0.0, fit.deviance_of(cells) - free.deviance) / scatter
        outside = {}
        if len(sizes) > max(2, len(law.terms)):
            outside = held_out(law, cells, sizes)
        judged.append(
            Judged(
                fit,
                aic=fit.deviance / scatter + 2 * fit.parameters,
                bic=fit.deviance / scatter + fit.parameters * float(np.log(cells.runs.sum())),
                misfit=float(chdtrc(left, excess)) if left else np.nan,
                held_out=sum(outside.values()) / scatter if outside else np.nan,
                held_out_largest=outside[sizes[-1]] / scatter if outside else np.nan,
            )
        )
    judged.sort(key=lambda law: law.aic)
    return Scaling(sizes, tuple(judged), scatter, collapse_quality(inside))


def fit_scaling(
    reduced: xr.Dataset,
    *,
    limit: float | None = None,
    gains: Mapping[str, GainTable] | None = None,
) -> xr.Dataset:
    """Laws of the half-recovery point against log N, for each initialisation.

    Parameters
    ----------
    reduced : Dataset
        Counts of `pipeline.recovery.recovery_probability`.
    limit : float, optional
        N → ∞ threshold for the law ``approach``.
    gains : mapping of str to GainTable, optional
        Signal gain of each initialisation, for the law ``gain``.

    Returns
    -------
    Dataset [init, law, …]
        ``law_aic``, ``law_bic``, ``law_misfit``, ``law_held_out``, ``law_held_out_largest`` as in
        `Judged`; ``law_standing``, whether the data do not exclude it; ``law_parameter`` [init,
        law, term] and ``law_covariance`` [init, law, term, term_other], with the dispersion in it;
        ``law_half`` [init, law, size] with ``_low`` and ``_high``, followed to N = 10⁶;
        ``law_limit`` for N → ∞; ``dispersion``, ``collapse`` and what it is expected within;
        ``verdict`` in words. NaN where a law was not fitted.
    """
    control = control_name(reduced)
    inits = [str(init) for init in reduced["init"].to_numpy()]
    N = reduced["N"].to_numpy().astype(np.float64)
    scalings = {}
    for init in inits:
        cells = _cells_of(reduced.sel(init=init), control)
        laws = candidate_laws(limit, (gains or {}).get(init))
        scalings[init] = compare_laws(cells, laws)
    shown = np.geomspace(N.min(), max(_FAR, N.max()), _SHOWN)
    return _as_dataset(scalings, shown, control)


def judge(init: str, scaling: Scaling, symbol: str = "α") -> str:
    """What the data say, and what they cannot decide, in words."""
    sizes = scaling.sizes
    if len(sizes) < 2:
        return (
            f"{init}: {len(sizes)} of the sizes has a curve that crosses one half; nothing can be "
            "said about the dependence on N"
        )
    said = [f"{init}: {_slope_words(scaling, symbol)}"]
    standing = scaling.standing()
    names = " and ".join(law.name for law in standing)
    if len(sizes) < _FEWEST_SIZES:
        said.append("two sizes cannot tell one law from another")
    elif not standing:
        best = scaling.laws[0]
        said.append(
            f"no candidate law describes the data (the best, {best.name}, with probability "
            f"{best.misfit:.1g})"
        )
    elif len(standing) == 1:
        said.append(f"of the laws tried only {names} is not excluded")
    else:
        apart = f"AIC of the first two {standing[1].aic - standing[0].aic:.1f} apart"
        said.append(f"the data do not decide between {names} ({apart})")
    said += [_ending_words(law, scaling, symbol) for law in standing]
    if scaling.collapse is not None:
        said.append(scaling.collapse.words())
    return "; ".join(said)


def _slope_words(scaling: Scaling, symbol: str) -> str:
    low, high = scaling.sizes[0], scaling.sizes[-1]
    where = f"over N = {low:g} to {high:g}, {len(scaling.sizes)} sizes"
    found = next((law.fit for law in scaling.laws if law.name == "logarithm"), None)
    if found is None:
        return f"no slope of {symbol}½ {where}"
    rate = float(found.theta[1])
    reach = _reach(scaling) * float(np.sqrt(found.covariance[1, 1]))
    interval = f"[{rate - reach:+.3f}, {rate + reach:+.3f}]"
    return f"{symbol}½ moves by {rate:+.3f} {interval} per e-fold of N {where}"


def _ending_words(law: Judged, scaling: Scaling, symbol: str) -> str:
    """Where a law leads: at ten million, and for N → ∞."""
    far = np.array([_FAR])
    half, reach = law.fit.half(far)[0], _reach(scaling) * law.fit.half_error(far)[0]
    limit = law.fit.law.limit(law.fit.theta)
    if np.isinf(limit):
        end = "it grows without bound" if limit > 0 else "it falls without bound"
    elif np.isnan(limit):
        end = "it says nothing (beyond its table of gains it follows the last slope)"
    elif law.name == "inverse":
        error = _reach(scaling) * float(np.sqrt(law.fit.covariance[0, 0]))
        end = f"{symbol}½ → {limit:.2f} [{limit - error:.2f}, {limit + error:.2f}]"
    else:
        end = f"{symbol}½ → {limit:.2f}"
    return (
        f"{law.name}: {symbol}½(10⁶) = {half:.2f} [{half - reach:.2f}, {half + reach:.2f}], "
        f"for N → ∞ {end}"
    )


def _reach(scaling: Scaling) -> float:
    """Half-width of an interval at `LEVEL` in units of a standard error of the fit."""
    return float(ndtri((1 + LEVEL) / 2) * np.sqrt(scaling.dispersion))


def _cells_of(part: xr.Dataset, control: str) -> Cells:
    """Counts of one init; runs that share an instance count by what they are worth."""
    runs = part["runs"].transpose(control, "N").to_numpy().astype(np.float64)
    recovered = part["recovered"].transpose(control, "N").to_numpy().astype(np.float64)
    if "effective_runs" in part:
        worth = part["effective_runs"].transpose(control, "N").to_numpy()
        recovered = recovered * worth / np.where(runs > 0, runs, 1)
        runs = worth
    return as_cells(part[control].to_numpy(), part["N"].to_numpy(), recovered, runs)


def _as_dataset(scalings: Mapping[str, Scaling], sizes: Any, control: str) -> xr.Dataset:
    shape = (len(scalings), len(LAWS))
    numbers = {
        name: np.full(shape, np.nan)
        for name in ("aic", "bic", "misfit", "held_out", "held_out_largest", "limit")
    }
    standing = np.zeros(shape, dtype=np.int8)
    parameter = np.full((*shape, len(TERMS)), np.nan)
    covariance = np.full((*shape, len(TERMS), len(TERMS)), np.nan)
    half, low, high = (np.full((*shape, len(sizes)), np.nan) for _ in range(3))
    for i, scaling in enumerate(scalings.values()):
        kept = {law.name for law in scaling.standing()}
        for judged in scaling.laws:
            at = (i, LAWS.index(judged.name))
            for name, array in numbers.items():
                if name != "limit":
                    array[at] = getattr(judged, name)
            numbers["limit"][at] = judged.fit.law.limit(judged.fit.theta)
            standing[at] = judged.name in kept
            terms = [TERMS.index(term) for term in (*judged.fit.law.terms, *TERMS[2:])]
            parameter[at][terms] = [*judged.fit.theta, *judged.fit.steepness]
            covariance[at][np.ix_(terms, terms)] = judged.fit.covariance * scaling.dispersion
            half[at] = judged.fit.half(sizes)
            reach = _reach(scaling) * judged.fit.half_error(sizes)
            low[at], high[at] = half[at] - reach, half[at] + reach
    text = np.dtypes.StringDType()
    both = ("init", "law")
    found = {f"law_{name}": (both, array) for name, array in numbers.items()}
    collapses = [scaling.collapse or Collapse() for scaling in scalings.values()]
    symbol = {"alpha": "α"}.get(control, control)
    words = [judge(init, scaling, symbol) for init, scaling in scalings.items()]
    whole = xr.Dataset(
        {
            **found,
            "law_standing": (both, standing),
            "law_parameter": ((*both, "term"), parameter),
            "law_covariance": ((*both, "term", "term_other"), covariance),
            "law_half": ((*both, "size"), half),
            "law_half_low": ((*both, "size"), low),
            "law_half_high": ((*both, "size"), high),
            "dispersion": ("init", [scaling.dispersion for scaling in scalings.values()]),
            "collapse": ("init", [one.quality for one in collapses]),
            "collapse_low": ("init", [one.low for one in collapses]),
            "collapse_high": ("init", [one.high for one in collapses]),
            "verdict": ("init", np.array(words, dtype=text)),
        },
        coords={
            "init": np.array(list(scalings), dtype=text),
            "law": np.array(LAWS, dtype=text),
            "term": np.array(TERMS, dtype=text),
            "term_other": np.array(TERMS, dtype=text),
            "size": ("size", sizes, {"units": "1", "long_name": "dimension N"}),
        },
    )
    _describe_all(whole, control)
    return whole


def _describe_all(whole: xr.Dataset, control: str) -> None:
    for name, meaning in {
        "law_aic": "AIC of the law: deviance over dispersion + 2 a parameter",
        "law_bic": "BIC of the law: deviance over dispersion + log(runs) a parameter",
        "law_misfit": "probability of so large a deviance if the law holds",
        "law_held_out": "deviance of each size from the fit to the others, summed",
        "law_held_out_largest": "deviance of the largest size from the fit to the others",
        "law_limit": f"{control}_half of the law for N to infinity",
        "law_standing": "1 where the data do not exclude the law",
        "law_parameter": f"level A, rate B of {control}_half; log steepness s0 and s1",
        "law_covariance": "covariance of the parameters, dispersion included",
        "law_half": f"{control} at which half of the runs recover, by the law",
        "dispersion": "scatter of the counts in units of binomial scatter, at least 1",
        "collapse": "mean squared distance of the shifted curves, in standard errors",
        "verdict": "what the data say and cannot decide",
    }.items():
        describe(whole, name, meaning)
    describe_interval(whole, "law_half", "covariance of the fit", LEVEL)
    for end, word in (("low", "lower"), ("high", "upper")):
        meaning = f"{word} end of what curves of one shape have in {LEVEL:.0%} of cases"
        describe(whole, f"collapse_{end}", meaning)
