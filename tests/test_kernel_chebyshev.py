"""RKC2: consistency conditions, stability polynomial, order on problems with closed forms."""

import numpy as np
import pytest

from pipeline.kernel.chebyshev import stable_step, stage_coefficients, stages_needed

DAMPING = 2 / 13
MOST = 200
STAGES = [2, 3, 4, 5, 7, 10, 20, 50, 100, 200]


@pytest.fixture(scope="module")
def table():
    return stage_coefficients(MOST)


def step(table, s, h, y, force):
    """One step of the recursion the table is for, for dy/dt = force(y)."""
    y0, f0 = y, force(y)
    before, last = np.zeros_like(y), y
    for j in range(1, s + 1):
        new = (
            table.table[0][s, j] * y0
            + table.table[1][s, j] * last
            + table.table[2][s, j] * before
            + h
            * (table.table[3][s, j] * (force(last) if j > 1 else 0 * y) + table.table[4][s, j] * f0)
        )
        before, last = last, new
    return last


def stability(table, s, z):
    """P_s(z), what a step makes of y = 1 for dy/dt = z y, h = 1."""
    return step(table, s, 1.0, np.ones_like(z), lambda y: z * y)


def taylor(table, s):
    """Coefficients of 1, z, z² of P_j(z) for each stage j = 0 … s."""
    stages = [np.array([1.0, 0, 0]), None]
    shift = lambda p: np.array([0, p[0], p[1]])  # noqa: E731  times z
    y0 = stages[0]
    stages[1] = table.table[0][s, 1] * y0 + table.table[4][s, 1] * shift(y0)
    for j in range(2, s + 1):
        stages.append(
            table.table[0][s, j] * y0
            + table.table[1][s, j] * stages[-1]
            + table.table[2][s, j] * stages[-2]
            + table.table[3][s, j] * shift(stages[-1])
            + table.table[4][s, j] * shift(y0)
        )
    return np.array(stages)


def exact_boundary(s):
    """β(s) = (w0 + 1) T_s''(w0)/T_s'(w0), in closed form through hyperbolic functions."""
    w0 = 1 + DAMPING / s**2
    x = np.arccosh(w0)
    t, t1 = np.cosh(s * x), s * np.sinh(s * x) / np.sinh(x)
    t2 = (w0 * t1 - s**2 * t) / (1 - w0**2)  # Chebyshev's equation
    return (w0 + 1) * t2 / t1


def test_shape_and_unused_entries(table):
    assert table.most_stages == MOST
    fields = tuple(table.table)
    for field in fields:
        assert field.shape == (MOST + 1, MOST + 1)
        assert np.isfinite(field).all()
        assert not field[:2].any()
        assert not np.triu(field, 1).any()
        assert not field[:, 0].any()
    # the first stage is an Euler step: it must not touch what stages 0 and −1 left behind
    assert not any(field[:, 1].any() for field in table.table[1:4])


@pytest.mark.parametrize("s", STAGES)
def test_a_constant_stays_and_every_stage_is_consistent(table, s):
    stages = taylor(table, s)
    np.testing.assert_allclose(stages[:, 0], 1, atol=1e-10)  # Y_j → y_0 as h → 0
    c = stages[:, 1]
    assert c[0] == 0
    assert c[1] == pytest.approx(c[2])  # the choice b_1 = 1/w0
    assert np.all(np.diff(c[2:]) > 0)  # stages advance in time, to 1
    # each stage from the second on is itself second order at c_j (Sommeijer et al., eq. 2.5)
    np.testing.assert_allclose(stages[2:, 2], c[2:] ** 2 / 2, rtol=1e-7)


@pytest.mark.parametrize("s", STAGES)
def test_second_order_conditions(table, s):
    np.testing.assert_allclose(taylor(table, s)[-1], [1, 1, 0.5], rtol=1e-10)


@pytest.mark.parametrize("s", STAGES)
def test_smaller_tables_hold_the_same_coefficients(table, s):
    small = stage_coefficients(s)
    np.testing.assert_array_equal(small.table, table.table[:, : s + 1, : s + 1])


def test_weights_of_each_trajectory_at_its_stage(table):
    stages, stage, h = np.array([2, 7, 20]), np.array([1, 7, 3]), np.array([0.5, 2.0, 3.0])
    weights = table.at(stages, stage, h)
    for k in range(3):
        expected = table.table[:, stages[k], stage[k]] * [1, 1, 1, h[k], h[k]]
        np.testing.assert_array_equal(weights[:, k], expected)


@pytest.mark.parametrize("s", STAGES)
def test_stability_interval_and_damping(table, s):
    beta = exact_boundary(s)
    assert beta == pytest.approx(2 / 3 * (s**2 - 1) * (1 - 2 / 15 * DAMPING), rel=5e-3)
    x = np.linspace(0, beta, 40_001)
    inside = np.abs(stability(table, s, -x))
    assert inside.max() <= 1 + 1e-9
    # damped to 1 − ε/3 ≈ 0.949 away from 0, a little less so for few stages
    assert inside[x > 0.06].max() <= (0.952 if s >= 20 else 0.965)
    if s % 2 == 0:  # for odd s the polynomial leaves [-1, 1] on the other side, a little later
        assert stability(table, s, np.array([-1.02 * beta]))[0] > 1


@pytest.mark.parametrize("s", STAGES)
def test_stability_polynomial_is_the_shifted_chebyshev_polynomial(table, s):
    """P_s(z) = a_s + b_s T_s(w0 + w1 z) (Sommeijer et al., eq. 2.2)."""
    w0 = 1 + DAMPING / s**2
    x = np.arccosh(w0)
    t, t1 = np.cosh(s * x), s * np.sinh(s * x) / np.sinh(x)
    t2 = (w0 * t1 - s**2 * t) / (1 - w0**2)
    b, w1 = t2 / t1**2, t1 / t2
    z = -np.linspace(0, exact_boundary(s), 1001)
    chebyshev = np.polynomial.Chebyshev.basis(s)(w0 + w1 * z)
    np.testing.assert_allclose(stability(table, s, z), 1 - b * t + b * chebyshev, atol=1e-6)


def test_stages_needed_are_stable_and_fewest(table):
    x = np.concatenate([np.linspace(0, 50, 501), np.geomspace(50, stable_step(MOST), 300)])
    s = stages_needed(x, MOST)
    assert s.dtype == np.int64
    assert s.min() == 2
    boundary = np.array([exact_boundary(int(k)) for k in s])
    assert np.all(x <= boundary)
    more = s > 2  # one stage less would pass the line 0.6494 (s² − 1) just below β(s)
    assert np.all(x[more] > 0.98 * 0.653 * ((s[more] - 1) ** 2 - 1))


@pytest.mark.parametrize(
    ("x", "most", "expected"), [(0.0, 200, 2), (-3.0, 200, 2), (1e9, 200, 200), (1e9, 17, 17)]
)
def test_stages_needed_stay_within_the_table(x, most, expected):
    assert stages_needed(np.array([x]), most)[0] == expected


@pytest.mark.parametrize("most", [4, 17, 100, 200])
def test_stable_step_needs_no_more_than_the_most_stages(most):
    x = stable_step(most)
    assert x <= exact_boundary(most)
    # the step control may stretch the last step by 5 %, its stiffness has a margin of 10 %
    assert 1.05 / 1.1 * x <= exact_boundary(most)


# dy/dt = force(y), y(0), y(t)
PROBLEMS = {
    "decay": (lambda y: -y, [1.0], lambda t: [np.exp(-t)]),
    "logistic": (lambda y: y * (1 - y), [0.2], lambda t: [1 / (1 + 4 * np.exp(-t))]),
    "riccati": (lambda y: -(y**2), [1.0], lambda t: [1 / (1 + t)]),
    "rotation": (lambda y: np.array([y[1], -y[0]]), [0.0, 1.0], lambda t: [np.sin(t), np.cos(t)]),
    "clock": (  # not autonomous: time is a component
        lambda y: np.array([1 + 0 * y[0], np.cos(y[0]) * y[1]]),
        [0.0, 1.0],
        lambda t: [t, np.exp(np.sin(t))],
    ),
    "meridian": (  # down the sphere: z' = −(1 − z²)
        lambda y: -np.array([0.0, 1.0]) + y[1] * y,
        [1.0, 0.0],
        lambda t: [1 / np.cosh(t), -np.tanh(t)],
    ),
}


@pytest.mark.parametrize("s", [2, 3, 6, 30])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_order_two_by_slope(table, problem, s):
    force, start, solution = PROBLEMS[problem]
    steps = np.array([20, 40, 80, 160])
    errors = []
    for count in steps:
        y = np.array(start)
        for _ in range(count):
            y = step(table, s, 2 / count, y, force)
        errors.append(np.abs(y - solution(2.0)).max())
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(2, abs=0.15)


def test_a_stiff_problem_is_integrated_beyond_the_reach_of_plain_steps(table):
    """dy/dt = −λ (y − cos t) − sin t, λ = 1000, in 20 steps: explicit Euler needs 1000."""
    rate = 1000.0

    def force(y):
        t = y[0]
        return np.array([1.0, -rate * (y[1] - np.cos(t)) - np.sin(t)])

    y, h = np.array([0.0, 1.0]), 0.1
    for _ in range(20):
        y = step(table, int(stages_needed(np.array([h * rate]), MOST)[0]), h, y, force)
    assert y[1] == pytest.approx(np.cos(2.0), abs=1e-3)
