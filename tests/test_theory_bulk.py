"""Edge, outlier and density: closed forms, the spec's numbers, and diagonalised Hessians."""

import numpy as np
import pytest

from pipeline.theory import density
from pipeline.theory.bulk import eigenvalue_at, find_edge, find_outlier, respond
from pipeline.theory.density import DensityError, spectral_density, stieltjes_transform
from pipeline.theory.laws import Array, LabelLaw, LawError, gaussian_law, make_law


def constant_law(f: float) -> LabelLaw:
    """All measurements with the same f: H is f times a Wishart matrix."""
    ones = np.ones(1)
    return LabelLaw(ones, f * ones, ones, pull=0.0, lowest=f)


def hessian_of(seed: int, N: int, alpha: float, a: float) -> tuple[LabelLaw, Array, Array]:
    """Law of the labels at a random w(0), eigenvalues of H and (v₁·w*)²/N, drawn by numpy alone."""
    rng = np.random.default_rng([seed, N])
    M = round(alpha * N)
    X = rng.standard_normal((M, N)) / np.sqrt(N)
    signal, w = (v * np.sqrt(N) / np.linalg.norm(v) for v in rng.standard_normal((2, N)))
    y, predicted = X @ signal, X @ w
    f = (3 * predicted**2 - y**2) / (a + y**2)
    mu = predicted @ (predicted * (predicted**2 - y**2) / (a + y**2)) / N
    eigenvalues, vectors = np.linalg.eigh(X.T @ (f[:, None] * X) - mu * np.eye(N))
    return make_law(y, predicted, a), eigenvalues, (vectors[:, 0] @ signal) ** 2 / N


def kolmogorov_distance(law: LabelLaw, alpha: float, eigenvalues: Array) -> float:
    """Between the predicted density, integrated, and the eigenvalues."""
    low = float(find_edge(law, alpha).eigenvalue)
    x = low + (eigenvalues[-1] - low) * np.linspace(0, 1, 300) ** 2
    rho = spectral_density(law, alpha, x)
    steps = (rho[1:] + rho[:-1]) / 2 * np.diff(x)
    below = np.searchsorted(eigenvalues, x, side="right") / len(eigenvalues)
    return float(np.abs(np.cumsum([0, *steps]) - below).max())


ALPHA = np.array([0.5, 1.5, 4.0])


def test_edges_of_wishart_matrices() -> None:
    negative = find_edge(constant_law(-2.0), ALPHA)
    assert negative.eigenvalue == pytest.approx(-2 * (1 + np.sqrt(ALPHA)) ** 2, rel=1e-12)
    assert not negative.hard.any()
    positive = find_edge(constant_law(2.0), ALPHA)
    expected = np.where(ALPHA < 1, 0, 2 * (1 - np.sqrt(ALPHA)) ** 2)
    assert positive.eigenvalue == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert positive.hard.tolist() == [True, False, False]
    # no signal in a law without labels
    outlier = find_outlier(constant_law(-2.0), ALPHA)
    assert np.isnan(outlier.eigenvalue).all()
    assert outlier.overlap2.tolist() == [0, 0, 0]


@pytest.mark.parametrize("alpha", [0.5, 4.0])
def test_density_of_wishart_matrices(alpha: float) -> None:
    low, high = ((1 - np.sqrt(alpha)) ** 2, (1 + np.sqrt(alpha)) ** 2)
    x = low + (high - low) * np.array([0.01, 0.2, 0.5, 0.9, 0.99])
    expected = np.sqrt((x - low) * (high - x)) / (2 * np.pi * x)
    assert spectral_density(constant_law(1.0), alpha, x) == pytest.approx(expected, rel=1e-6)
    outside = np.array([low / 2, high + 0.1, high + 10])
    assert spectral_density(constant_law(1.0), alpha, outside) == pytest.approx(0, abs=1e-5)


def test_stieltjes_transform_solves_its_equation() -> None:
    law = gaussian_law(0.1)
    x = np.array([[-30 + 0.1j, -4 + 1e-6j], [0.5 + 2j, 40 + 1e-3j]])
    g = stieltjes_transform(law, 2.0, x)
    assert g.shape == x.shape
    assert (g.imag < 0).all()
    assert 1 / g + 2 * (respond(law, g).first - law.pull) == pytest.approx(x, rel=1e-10)
    far = np.array([1e6 + 1e3j])
    assert stieltjes_transform(law, 2.0, far) == pytest.approx(1 / far, rel=1e-3)


def test_density_for_many_alpha_at_once() -> None:
    law = gaussian_law(1.0)
    alpha, x = np.array([1.0, 3.0, 8.0])[:, None], np.linspace(-4, 10, 5)
    together = spectral_density(law, alpha, x)
    assert together.shape == (3, 5)
    for row, ratio in zip(together, alpha[:, 0], strict=True):
        assert row == pytest.approx(spectral_density(law, ratio, x), rel=1e-6, abs=1e-8)


def test_numbers_of_the_spec() -> None:
    law = gaussian_law(1.0)
    assert float(find_edge(law, 3.0).eigenvalue) == pytest.approx(-5.553, abs=5e-4)
    outlier = find_outlier(law, 3.0)
    assert float(outlier.eigenvalue) == pytest.approx(-5.624, abs=5e-4)
    assert float(outlier.overlap2) == pytest.approx(0.284, abs=5e-4)


@pytest.mark.parametrize("a", [1e-3, 1.0, 30.0])
def test_edge_and_outlier_satisfy_their_equations_for_many_alpha_at_once(a: float) -> None:
    law = gaussian_law(a)
    alpha = np.geomspace(0.01, 200, 40).reshape(8, 5)
    edge = find_edge(law, alpha)
    assert edge.g.shape == edge.eigenvalue.shape == edge.hard.shape == (8, 5)
    soft = ~edge.hard
    assert 0 < soft.sum() < soft.size or a < 1
    at = respond(law, edge.g)
    assert (alpha * edge.g**2 * at.second)[soft] == pytest.approx(1, rel=1e-10)
    assert (alpha * edge.g**2 * at.second)[edge.hard] == pytest.approx(
        np.minimum(alpha * edge.g**2 * at.second, 1)[edge.hard]
    )
    assert edge.g[edge.hard] == pytest.approx(-1)
    # z(g) has its maximum over the admissible g there
    for share in (0.99, 0.9):
        assert (eigenvalue_at(law, alpha, edge.g * share) < edge.eigenvalue).all()
    outlier = find_outlier(law, alpha, edge)
    there = outlier.overlap2 > 0
    assert (np.isfinite(outlier.eigenvalue) == there).all()
    assert (outlier.eigenvalue < edge.eigenvalue)[there].all()
    signal = respond(law, outlier.g[there]).signal
    assert outlier.g[there] * alpha[there] * signal == pytest.approx(1, rel=1e-10)
    one = find_outlier(law, float(alpha[7, 4]))
    assert float(one.overlap2) == pytest.approx(outlier.overlap2[7, 4], rel=1e-10)


def test_a_bulk_without_end_has_no_edge() -> None:
    edge = find_edge(gaussian_law(np.inf), ALPHA)
    assert (edge.eigenvalue == -np.inf).all()
    assert np.isnan(find_outlier(gaussian_law(np.inf), ALPHA).eigenvalue).all()


def test_density_does_not_depend_on_the_step_of_the_quadrature() -> None:
    x = np.linspace(-5.5, 5, 20)
    default, fine = (spectral_density(gaussian_law(1.0, step=s), 3.0, x) for s in (0.12, 0.06))
    assert default == pytest.approx(fine, abs=2e-5)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.nan, np.inf])
def test_alpha_must_be_positive(alpha: float) -> None:
    law = gaussian_law(1.0)
    for function in (find_edge, find_outlier):
        with pytest.raises(LawError, match="alpha"):
            function(law, [1.0, alpha])
    with pytest.raises(LawError, match="alpha"):
        spectral_density(law, alpha, 0.0)


def test_the_transform_is_given_above_the_axis_only() -> None:
    with pytest.raises(DensityError, match="above"):
        stieltjes_transform(gaussian_law(1.0), 3.0, [1.0 + 0j])


def test_an_unsolved_equation_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "_SWEEPS", 2)
    with pytest.raises(DensityError, match="not found at 2 of 2 points"):
        spectral_density(gaussian_law(1.0), 3.0, [0.0, 1.0])


def test_density_is_that_of_a_diagonalised_hessian() -> None:
    for a, alpha in ((1.0, 3.0), (0.01, 2.5)):
        law, eigenvalues, _ = hessian_of(0, 400, alpha, a)
        assert kolmogorov_distance(law, alpha, eigenvalues) < 0.012


@pytest.mark.slow
def test_edge_and_outlier_of_single_instances_at_n_2000() -> None:
    N, alpha, a = 2000, 3.0, 1.0
    good, overlaps = [], []
    for seed in range(10):
        law, eigenvalues, overlap2 = hessian_of(seed, N, alpha, a)
        edge = find_edge(law, alpha)
        outlier = find_outlier(law, alpha, edge)
        errors = np.abs(
            [outlier.eigenvalue / eigenvalues[0] - 1, edge.eigenvalue / eigenvalues[1] - 1]
        )
        good.append(bool((errors < 0.02).all()))
        overlaps.append(float(overlap2))
        if seed == 0:
            assert kolmogorov_distance(law, alpha, eigenvalues) < 0.01
    assert sum(good) >= 9
    # the Gaussian law's overlap² is 0.284; single instances scatter by about 0.03
    assert np.mean(overlaps) == pytest.approx(0.284, abs=0.04)
