"""Threshold states: against a plain grid over the field z, the potential, the spec's numbers."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss
from scipy.optimize import fsolve

from pipeline.theory import threshold_states
from pipeline.theory.bulk import find_edge, find_outlier
from pipeline.theory.laws import Array, LawError
from pipeline.theory.prox import jump_label, proximal_law
from pipeline.theory.threshold_states import (
    ThresholdStateError,
    bbp_at_threshold,
    find_state,
    follow_branch,
)


def plain_grid(a: float, chi: float, zeta: float, points: int = 400) -> dict[str, float]:
    """Averages by the midpoint rule over y and z."""
    x = (np.arange(points) + 0.5) / points * 8.5
    weights = np.full(points, 1 / points)
    return field_averages(a, chi, zeta, (x, weights), (x, weights))


def log_grid(a: float, chi: float, zeta: float, points: int = 120) -> dict[str, float]:
    """Averages by Gauss–Legendre rules over log z, and over y from where ŷ* begins to jump."""
    x, weights = leggauss(points)
    x, weights = (x + 1) / 2, weights / 2
    near, far = min(jump_label(a, chi), 8.5), 8.5
    y = np.concatenate([near * (1 - x**3), near + (far - near) * x**3])
    y_weights = np.concatenate([near * 3 * x**2 * weights, (far - near) * 3 * x**2 * weights])
    u, u_weights = leggauss(2 * points)
    z = far * np.exp(15 * (u - 1))
    return field_averages(a, chi, zeta, (y, y_weights), (z, z * u_weights))


def field_averages(
    a: float, chi: float, zeta: float, y_rule: tuple[Array, Array], z_rule: tuple[Array, Array]
) -> dict[str, float]:
    """Averages over y and z with nodes and weights of each, ŷ* as the largest root of its cubic."""
    y, z = y_rule[0][:, None], z_rule[0][None, :]
    scale = 1.0 if np.isinf(a) else 1 / (a + y**2)
    p, q = 1 / (chi * scale) - y**2, z / (chi * scale)
    found = np.sqrt(np.maximum(-p, 0)) + np.cbrt(q)
    for _ in range(60):
        found = found - (found**3 + p * found - q) / (3 * found**2 + p)
    loss = (found**2 - y**2) ** 2 * scale / 4
    value = (found - z) ** 2 / (2 * chi) + loss
    plain = np.exp(-(z**2) / 2) * z_rule[1]
    weights = plain * np.exp(-zeta * value)
    norms = weights.sum(axis=1) / plain.sum()
    labels = np.exp(-(y_rule[0] ** 2) / 2) * y_rule[1]
    labels /= labels.sum()
    weights *= (labels / weights.sum(axis=1))[:, None]
    f = (3 * found**2 - y**2) * scale
    r = f / (1 + chi * f)
    values = {"moved": (found - z) ** 2, "r2": r**2, "signal": r * (y**2 - 1), "loss": loss}
    out = {name: float((weights * value).sum()) for name, value in values.items()}
    return out | {"log_norm": float(labels @ np.log(norms))}


def solve_threshold(
    averages: Callable[[float, float], dict[str, float]], guess: tuple[float, float]
) -> float:
    """α where both equations hold and the outlier is at the edge, by a plain root finder."""

    def excess(logs: Array) -> list[float]:
        chi, zeta = (float(x) for x in np.exp(logs))
        at = averages(chi, zeta)
        return [
            np.log(at["moved"] * (chi + zeta) / chi**3 / at["r2"]),
            1 + at["signal"] / (chi * at["r2"]),
        ]

    logs, _, success, said = fsolve(excess, np.log(guess), full_output=True)
    assert success == 1, said
    chi, zeta = (float(x) for x in np.exp(logs))
    return 1 / (chi**2 * averages(chi, zeta)["r2"])


@pytest.mark.parametrize(("a", "chi", "zeta"), [(1.0, 0.7, 1.4), (0.1, 0.4, 0.9), (10.0, 0.9, 1.1)])
def test_averages_are_those_of_a_plain_grid(a: float, chi: float, zeta: float) -> None:
    law = proximal_law(a, chi, zeta)
    r = law.curvature / (1 + chi * law.curvature)
    expected = plain_grid(a, chi, zeta)
    assert law.average(law.slope**2) * chi**2 == pytest.approx(expected["moved"], rel=1e-7)
    assert law.average(r**2) == pytest.approx(expected["r2"], rel=1e-7)
    assert law.average(r * (law.labels_squared - 1)) == pytest.approx(expected["signal"], rel=1e-7)
    assert law.average(law.loss) == pytest.approx(expected["loss"], rel=1e-7)


def test_averages_are_those_of_a_plain_grid_where_predictions_jump() -> None:
    # The grid is coarse where 1 + χ ℓ'' vanishes: its error falls like the root of its spacing.
    a, chi, zeta = np.inf, 0.12, 0.14
    assert jump_label(a, chi) == pytest.approx(1 / np.sqrt(chi))
    law = proximal_law(a, chi, zeta)
    exact = law.average((law.curvature / (1 + chi * law.curvature)) ** 2)
    spacings = np.array([150, 300, 600]) ** -0.5
    coarse = [plain_grid(a, chi, zeta, round(h**-2))["r2"] for h in spacings]
    assert np.polynomial.Polynomial.fit(spacings, coarse, 1)(0.0) == pytest.approx(exact, rel=0.02)
    assert sorted(coarse) == coarse < [exact] * 3
    assert law.average(law.loss) == pytest.approx(plain_grid(a, chi, zeta)["loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("a", "chi", "zeta", "accuracy"),
    [
        (1e-4, 0.35, 0.9, 2e-7),
        (0.01, 0.35, 0.9, 1e-9),
        (1.0, 0.7, 1.4, 1e-12),
        (1.0, 1.0, 2.5, 1e-9),
        (1.0, 1.001, 2.55, 1e-5),
        (1.0, 1.5, 7.0, 1e-5),
        (0.01, 0.98, 20.0, 1e-5),
        (0.01, 1.01, 50.0, 1e-3),
        (100.0, 20.0, 15.0, 1e-5),
        (np.inf, 0.12, 0.14, 1e-5),
    ],
)
def test_averages_converge_as_stated(a: float, chi: float, zeta: float, accuracy: float) -> None:
    def averages(refinement: int) -> Array:
        law = proximal_law(a, chi, zeta, refinement=refinement)
        r = law.curvature / (1 + chi * law.curvature)
        assert (1 + chi * law.curvature > 0).all()
        assert law.curvature.min() > law.lowest
        assert law.weights.sum() == pytest.approx(1, abs=1e-14)
        powers = (law.loss, law.slope**2, r, r**2, r * law.labels_squared)
        return np.array([law.average(values) for values in powers])

    assert averages(1) == pytest.approx(averages(2), rel=accuracy)


def test_numbers_of_the_spec() -> None:
    assert bbp_at_threshold(1.0) == pytest.approx(7.1, abs=0.05)
    assert find_state(follow_branch(1.0), 6.0).energy == pytest.approx(0.080, abs=5e-4)


@pytest.mark.parametrize(
    ("a", "guess"),
    [(0.01, (0.33, 0.85)), (1.0, (0.62, 1.1)), (100.0, (11.0, 13.5)), (np.inf, (0.118, 0.145))],
)
def test_a_quadrature_over_the_field_gives_the_same_threshold(
    a: float, guess: tuple[float, float]
) -> None:
    threshold = solve_threshold(lambda chi, zeta: log_grid(a, chi, zeta), guess)
    assert bbp_at_threshold(a) == pytest.approx(threshold, rel=5e-5)


def test_the_unnormalised_loss_is_the_limit_of_large_a() -> None:
    limit = bbp_at_threshold(np.inf)
    assert limit == pytest.approx(13.802, abs=1e-3)  # 13.8 in the literature
    assert bbp_at_threshold(1e6) == pytest.approx(limit, rel=1e-4)
    assert bbp_at_threshold(100.0) == pytest.approx(13.37, abs=0.01)


def test_plain_grids_come_to_the_unnormalised_threshold_from_far_below() -> None:
    """ŷ* jumps at z = 0, and a grid's error falls like the root of its spacing."""
    limit = bbp_at_threshold(np.inf)
    misses = [
        limit - solve_threshold(lambda chi, zeta, n=n: plain_grid(np.inf, chi, zeta, n), guess)
        for n, guess in ((100, (0.1246, 0.1325)), (400, (0.1209, 0.1381)))
    ]
    assert misses[1] == pytest.approx(0.396, abs=1e-3)  # with 1600 points a side, still 0.24
    assert 0.5 < misses[1] / misses[0] < 0.7


def test_a_state_makes_its_potential_stationary_and_its_hessian_marginal() -> None:
    alpha, step = 6.0, 1e-3
    state = find_state(follow_branch(1.0), alpha)

    def potential(chi: float) -> float:
        log_norm = plain_grid(1.0, chi, state.zeta)["log_norm"]
        return 0.5 * np.log((chi + state.zeta) / chi) + alpha * log_norm

    ends = potential(state.chi + step), potential(state.chi - step)
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(0, abs=1e-5)
    at = plain_grid(1.0, state.chi, state.zeta)
    assert alpha * state.chi**2 * at["r2"] == pytest.approx(1, abs=1e-7)
    edge = find_edge(state.law, alpha)
    assert float(edge.g) == pytest.approx(-state.chi, rel=1e-9)
    assert float(edge.eigenvalue) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("a", [1e-4, 1e-3, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, np.inf])
def test_root_and_scan_of_the_overlap_agree_on_the_threshold(a: float) -> None:
    threshold = bbp_at_threshold(a)
    branch = follow_branch(a)
    alpha = threshold * np.array([0.95, 0.99995, 1.00005, 1.005, 1.01, 1.015, 1.02])
    overlap2 = [float(find_outlier(find_state(branch, x).law, x).overlap2) for x in alpha]
    assert overlap2[:2] == [0, 0]
    assert 0 < overlap2[2] < overlap2[3] < overlap2[4]
    if branch.alpha_marginal < threshold:  # else predictions jump: it does not begin linearly
        crossing = np.polynomial.Polynomial.fit(overlap2[3:], alpha[3:], 3)(0.0)
        assert crossing == pytest.approx(threshold, rel=1e-5)


@pytest.mark.parametrize("a", [1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, np.inf])
def test_the_branch_is_continuous_and_says_where_it_ends(a: float) -> None:
    branch = follow_branch(a, alpha_max=60.0)
    assert branch.alpha[0] >= 60
    assert (np.diff(branch.alpha) < 0).all()
    ratios = branch.zeta[1:] / branch.zeta[:-1]
    assert (np.abs(np.log(ratios)) < 1).all()
    assert 1 < branch.alpha_min <= branch.alpha_marginal
    energies = [find_state(branch, alpha).energy for alpha in (4.0, 12.0, 60.0)]
    assert energies == sorted(energies)
    assert find_state(branch, float(branch.alpha[3])).chi == pytest.approx(branch.chi[3])
    for end in (branch.alpha_min, float(branch.alpha[0])):
        assert find_state(branch, end).alpha == end
    for beyond in (branch.alpha_min * 0.99, branch.alpha[0] * 1.01):
        with pytest.raises(ThresholdStateError, match=r"known from alpha = .*, got"):
            find_state(branch, float(beyond))


def test_states_are_marginal_above_the_alpha_that_says_so() -> None:
    branch = follow_branch(1.0)
    assert branch.alpha_marginal == pytest.approx(3.9901, abs=1e-4)
    edges = [float(find_edge(find_state(branch, x).law, x).eigenvalue) for x in (2.5, 4.0, 10.0)]
    assert edges[0] > 1e-3
    assert edges[1:] == pytest.approx([0, 0], abs=1e-9)
    assert follow_branch(np.inf).alpha_marginal == np.inf


def test_what_cannot_be_solved_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LawError, match="a must be positive"):
        bbp_at_threshold(-1.0)
    with pytest.raises(LawError, match="alpha"):
        follow_branch(1.0, alpha_max=np.nan)
    with pytest.raises(LawError, match="alpha"):
        find_state(follow_branch(1.0), 0.0)
    with pytest.raises(ThresholdStateError, match="only, got alpha_max = 1e\\+40"):
        follow_branch(1.0, alpha_max=1e40)
    branch = follow_branch(1.0)
    monkeypatch.setattr(threshold_states, "_LARGEST", 0.2)
    with pytest.raises(ThresholdStateError, match="no BBP threshold"):
        bbp_at_threshold(1.0)
    monkeypatch.setattr(threshold_states, "_solve_point", lambda *_: None)
    with pytest.raises(ThresholdStateError, match="no threshold state of a = 1 was found"):
        follow_branch(1.0)
    with pytest.raises(ThresholdStateError, match="lost at chi"):
        find_state(branch, 6.0)
