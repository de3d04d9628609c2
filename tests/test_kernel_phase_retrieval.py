"""Loss, gradient, Hessian and stiffness of phase retrieval against finite differences and eigh."""

import numpy as np
import pytest

from pipeline.kernel.batch import on_sphere
from pipeline.kernel.flow import Flow
from pipeline.kernel.gaussian_operator import DenseOperator
from pipeline.kernel.phase_retrieval import PhaseRetrieval, draw_instances, draw_starts
from pipeline.kernel.sensing import SeparateMatrices

FLOAT64 = np.dtype(np.float64)
FLOAT32 = np.dtype(np.float32)
A = [1.0, 0.01]


def streams(count, entropy=11):
    return [np.random.SeedSequence(entropy, spawn_key=(seed,)) for seed in range(count)]


def drawn(count=2, *, measurements=40, dimension=15, a=1.0, dtype=FLOAT64, entropy=11):
    return draw_instances(
        streams(count, entropy), measurements=measurements, dimension=dimension, a=a, dtype=dtype
    )


def points(landscape, per_instance=2, *, sphere=True, seed=0):
    """Points on or off the sphere, and their owners."""
    owner = np.repeat(np.arange(len(landscape.signals)), per_instance)
    w = np.random.default_rng(seed).standard_normal((len(owner), landscape.dimension))
    w = on_sphere(w) if sphere else 1.3 * w + 0.2
    return w.astype(landscape.signals.dtype), owner


def total_loss(landscape, w, owner):
    """L(w) [trajectories], by the formula of the spec and plain products."""
    out = []
    for point, instance in zip(w, owner, strict=True):
        X = landscape.operators[instance].matrix
        y, predicted = X @ landscape.signals[instance], X @ point
        a = 1 / landscape.weights[instance] - y**2
        out.append(np.sum((predicted**2 - y**2) ** 2 / (4 * (a + y**2))))
    return np.array(out)


def central(function, x, direction, h=1e-5):
    """Derivative of `function` at x along `direction`, of fourth order in h."""
    return (
        8 * (function(x + h * direction) - function(x - h * direction))
        - (function(x + 2 * h * direction) - function(x - 2 * h * direction))
    ) / (12 * h)


def relative(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


# -- the functions of the loss --------------------------------------------------------------------


def one_measurement(y, a):
    """A landscape whose single prediction is w itself: L = ℓ_a(y, w)."""
    return PhaseRetrieval(
        SeparateMatrices([DenseOperator(np.ones((1, 1)))]),
        signals=np.array([[y]]),
        labels_squared=np.array([[y**2]]),
        weights=np.array([[1 / (a + y**2)]]),
        row_norms=np.ones((1, 1)),
    )


@pytest.mark.parametrize("a", A)
@pytest.mark.parametrize("y", [0.0, 0.03, 0.7, -1.9])
@pytest.mark.parametrize("predicted", [0.02, -0.4, 1.1, 2.5])
def test_loss_slope_and_curvature_of_a_measurement(a, y, predicted):
    landscape, owner = one_measurement(y, a), np.array([0])
    at = np.array([[predicted]])

    def loss(x):
        return landscape.loss(x, owner)[0]

    def slope(x):
        return landscape.gradient(x, owner)[0][0, 0]

    one = np.ones((1, 1))
    assert loss(at) == pytest.approx((predicted**2 - y**2) ** 2 / (4 * (a + y**2)), rel=1e-14)
    assert slope(at) == pytest.approx(central(loss, at, one), rel=1e-6, abs=1e-9)
    curvature = landscape.curvature(at, owner)[0, 0]
    assert curvature == pytest.approx(central(slope, at, one), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("a", A)
@pytest.mark.parametrize("sphere", [True, False])
def test_loss_per_measurement_against_the_formula(a, sphere):
    landscape = drawn(a=a)
    w, owner = points(landscape, sphere=sphere)
    _, predictions = landscape.gradient(w, owner)
    expected = total_loss(landscape, w, owner) / 40
    np.testing.assert_allclose(landscape.loss(predictions, owner), expected, rtol=1e-12)


# -- gradient and Hessian -------------------------------------------------------------------------


@pytest.mark.parametrize("a", A)
@pytest.mark.parametrize("sphere", [True, False])
def test_gradient_against_finite_differences(a, sphere):
    landscape = drawn(a=a)
    w, owner = points(landscape, sphere=sphere)
    gradient, _ = landscape.gradient(w, owner)
    differences = np.stack(
        [
            central(lambda x: total_loss(landscape, x, owner), w, axis)
            for axis in np.eye(landscape.dimension)
        ],
        axis=1,
    )
    for row in range(len(w)):
        assert relative(gradient[row], differences[row]) < 1e-6


@pytest.mark.parametrize("a", A)
@pytest.mark.parametrize("sphere", [True, False])
def test_hessian_against_finite_differences_of_the_gradient(a, sphere):
    """∇²L = H + μ I, at any point of R^N."""
    landscape = drawn(a=a)
    w, owner = points(landscape, sphere=sphere)
    hessian = landscape.hessian(w, owner)
    differences = np.stack(
        [
            central(lambda x: landscape.gradient(x, owner)[0], w, axis)
            for axis in np.eye(landscape.dimension)
        ],
        axis=1,
    )
    for row in range(len(w)):
        euclidean = hessian.dense(row) + hessian.multiplier[row] * np.eye(landscape.dimension)
        assert relative(euclidean, differences[row]) < 1e-6


@pytest.mark.parametrize("a", A)
def test_hessian_is_the_second_derivative_along_great_circles(a):
    """L(w cos θ + √N v sin θ) has second derivative N v·Hv at θ = 0, |v| = 1 orthogonal to w."""
    landscape = drawn(a=a)
    n = landscape.dimension
    w, owner = points(landscape)
    v = np.random.default_rng(1).standard_normal(w.shape)
    v -= (np.vecdot(v, w) / n)[:, None] * w
    v /= np.sqrt(np.vecdot(v, v))[:, None]

    def loss(angle):
        return total_loss(landscape, np.cos(angle) * w + np.sqrt(n) * np.sin(angle) * v, owner)

    h = 1e-3
    second = (16 * (loss(h) + loss(-h)) - (loss(2 * h) + loss(-2 * h)) - 30 * loss(0.0)) / (
        12 * h**2
    )
    product = landscape.hessian(w, owner).apply(v, np.arange(len(w)))
    np.testing.assert_allclose(n * np.vecdot(v, product), second, rtol=1e-6, atol=1e-6 * n)


@pytest.mark.parametrize("a", A)
@pytest.mark.parametrize("sphere", [True, False])
def test_multiplier_and_hessian_against_the_formulas(a, sphere):
    """μ = Σ ŷ ℓ'/N and H = Xᵀ diag(f) X − μ I, by plain products."""
    landscape = drawn(a=a)
    w, owner = points(landscape, sphere=sphere)
    hessian = landscape.hessian(w, owner)
    for row, instance in enumerate(owner):
        X = landscape.operators[instance].matrix
        y, predicted = X @ landscape.signals[instance], X @ w[row]
        multiplier = np.sum(predicted**2 * (predicted**2 - y**2) / (a + y**2)) / 15
        f = (3 * predicted**2 - y**2) / (a + y**2)
        assert hessian.multiplier[row] == pytest.approx(multiplier, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(
            hessian.dense(row),
            X.T @ np.diag(f) @ X - multiplier * np.eye(15),
            atol=1e-12 * np.abs(f).max(),
        )


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize(
    ("measurements", "dimension"), [(40, 15), (10, 30), (384, 128), (1500, 200)]
)
def test_hessian_products_against_its_dense_matrix(measurements, dimension, dtype):
    landscape = drawn(3, measurements=measurements, dimension=dimension, dtype=dtype)
    w, owner = points(landscape, 2)
    hessian = landscape.hessian(w, owner)
    v = np.random.default_rng(2).standard_normal((6, dimension)).astype(dtype)
    dense = [hessian.dense(row) for row in range(6)]
    assert all(matrix.dtype == np.float64 for matrix in dense)
    for rows in ([0, 1, 2, 3, 4, 5], [1, 2, 5], [4], []):
        product = hessian.apply(v[: len(rows)], np.array(rows, dtype=np.intp))
        assert product.dtype == dtype
        for k, row in enumerate(rows):
            size = np.linalg.norm(dense[row], 2) * np.linalg.norm(v[k])
            error = np.linalg.norm(product[k] - dense[row] @ v[k])
            assert error <= 20 * np.finfo(dtype).eps * size


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("sphere", [True, False])
@pytest.mark.parametrize(("measurements", "dimension"), [(40, 15), (10, 30), (1500, 200)])
def test_gradient_and_product_against_gradient_and_hessian(measurements, dimension, sphere, dtype):
    """∇²L u = H u + μ u; instances with one, two and three trajectories."""
    landscape = drawn(3, a=0.3, measurements=measurements, dimension=dimension, dtype=dtype)
    w, _ = points(landscape, 2, sphere=sphere)
    owner = np.array([0, 1, 1, 2, 2, 2])
    u = np.random.default_rng(3).standard_normal(w.shape).astype(dtype)
    before = w.copy(), u.copy()
    gradient, predictions, product = landscape.gradient_and_product(w, u, owner)
    np.testing.assert_array_equal((w, u), before)
    expected, expected_predictions = landscape.gradient(w, owner)
    hessian = landscape.hessian(w, owner)
    expected_product = hessian.apply(u, np.arange(6))
    expected_product += hessian.multiplier[:, None].astype(dtype) * u
    for row in range(6):
        accuracy = 30 * np.finfo(dtype).eps
        assert relative(gradient[row], expected[row]) < accuracy
        assert relative(predictions[row], expected_predictions[row]) < accuracy
        size = np.linalg.norm(hessian.dense(row), 2) + abs(hessian.multiplier[row])
        error = np.linalg.norm(product[row] - expected_product[row])
        assert error < accuracy * size * np.linalg.norm(u[row])
    assert gradient.dtype == predictions.dtype == product.dtype == dtype


def test_gradient_and_product_of_a_trajectory_does_not_depend_on_other_instances():
    landscape = drawn(3, measurements=300, dimension=100)
    w, owner = points(landscape, 3)
    u = w[::-1].copy()
    together = landscape.gradient_and_product(w, u, owner)
    for instance in range(3):
        rows = owner == instance
        alone = landscape.gradient_and_product(w[rows], u[rows], owner[rows])
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other[rows])


# -- symmetries and the minimum -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("a", A)
def test_the_sign_of_w_is_not_identifiable(a, dtype):
    """L and H are even and ∇L is odd, to the last bit."""
    landscape = drawn(3, a=a, dtype=dtype)
    w, owner = points(landscape)
    gradient, predictions = landscape.gradient(w, owner)
    mirrored, opposite = landscape.gradient(-w, owner)
    np.testing.assert_array_equal(mirrored, -gradient)
    np.testing.assert_array_equal(opposite, -predictions)
    np.testing.assert_array_equal(
        landscape.loss(opposite, owner), landscape.loss(predictions, owner)
    )
    np.testing.assert_array_equal(landscape.overlap(-w, owner), -landscape.overlap(w, owner))
    np.testing.assert_array_equal(
        landscape.hessian(-w, owner).dense(1), landscape.hessian(w, owner).dense(1)
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_the_signal_is_a_minimum_of_zero_loss(sign):
    landscape = drawn(3)
    owner = np.arange(3)
    w = sign * landscape.signals
    gradient, predictions = landscape.gradient(w, owner)
    assert np.abs(gradient).max() < 1e-13
    np.testing.assert_allclose(landscape.loss(predictions, owner), 0, atol=1e-28)
    np.testing.assert_allclose(landscape.overlap(w, owner), sign, rtol=1e-14)
    assert np.linalg.eigvalsh(landscape.hessian(w, owner).dense(0))[0] > 0


# -- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
def test_drawn_instance_is_what_the_spec_says(dtype):
    landscape = drawn(2, measurements=300, dimension=100, a=0.3, dtype=dtype)
    eps = np.finfo(dtype).eps
    assert landscape.dimension == 100
    np.testing.assert_allclose(np.vecdot(landscape.signals, landscape.signals), 100, rtol=10 * eps)
    for k, operator in enumerate(landscape.operators):
        X = operator.matrix.astype(np.float64)
        y = X @ landscape.signals[k]
        np.testing.assert_allclose(landscape.labels_squared[k], y**2, rtol=1e3 * eps, atol=30 * eps)
        np.testing.assert_allclose(landscape.weights[k], 1 / (0.3 + y**2), rtol=1e3 * eps)
        np.testing.assert_allclose(landscape.row_norms[k], np.sum(X**2, axis=1), rtol=10 * eps)
    for array in (landscape.signals, landscape.labels_squared, landscape.weights):
        assert array.dtype == dtype


def test_labels_and_overlaps_are_of_order_one():
    """y is standard normal, m(0)√N too (spec, section 1)."""
    landscape = drawn(40, measurements=200, dimension=50)
    mean = landscape.labels_squared.mean()
    assert abs(mean - 1) < 4 * np.sqrt(2 / 8000)
    w0 = draw_starts(streams(2000), "start", 50, FLOAT64)
    signal = draw_starts(streams(2000), "signal", 50, FLOAT64)
    scaled = np.vecdot(w0, signal) / np.sqrt(50)
    assert abs(scaled.mean()) < 4 / np.sqrt(2000)
    assert abs(np.mean(scaled**2) - 1) < 4 * np.sqrt(2 / 2000)


def test_precision_rounds_the_instance_and_does_not_choose_it():
    double, single = drawn(2), drawn(2, dtype=FLOAT32)
    for k in range(2):
        np.testing.assert_array_equal(
            double.operators[k].matrix.astype(np.float32), single.operators[k].matrix
        )
    np.testing.assert_array_equal(double.signals.astype(np.float32), single.signals)
    w0 = [draw_starts(streams(2), "start", 15, dtype) for dtype in (FLOAT64, FLOAT32)]
    np.testing.assert_array_equal(w0[0].astype(np.float32), w0[1])


def test_an_instance_does_not_depend_on_the_others_drawn_with_it():
    together = drawn(3)
    alone = draw_instances(streams(3)[2:], measurements=40, dimension=15, a=1.0, dtype=FLOAT64)
    np.testing.assert_array_equal(together.operators[2].matrix, alone.operators[0].matrix)
    for name in ("signals", "labels_squared", "weights", "row_norms"):
        np.testing.assert_array_equal(getattr(together, name)[2], getattr(alone, name)[0])


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
def test_more_replicas_leave_the_first_ones_as_they_are(dtype):
    three = draw_starts(streams(4), "start", 15, dtype, 3)
    assert three.shape == (12, 15)
    assert three.dtype == dtype
    for k in (1, 2):
        fewer = draw_starts(streams(4), "start", 15, dtype, k)
        np.testing.assert_array_equal(fewer.reshape(4, k, 15), three.reshape(4, 3, 15)[:, :k])
    np.testing.assert_array_equal(draw_starts(streams(4), "start", 15, dtype), three[::3])
    assert len(np.unique(three[:, 0])) == 12


def test_gradient_of_a_trajectory_does_not_depend_on_other_instances():
    landscape = drawn(3, measurements=300, dimension=100)
    w, owner = points(landscape, 3)
    gradient, predictions = landscape.gradient(w, owner)
    for instance in range(3):
        rows = owner == instance
        alone, alone_predictions = landscape.gradient(w[rows], owner[rows])
        np.testing.assert_array_equal(alone, gradient[rows])
        np.testing.assert_array_equal(alone_predictions, predictions[rows])


# -- stiffness ------------------------------------------------------------------------------------


def stiffness_over_largest_eigenvalue(landscape, w, owner):
    gradient, predictions = landscape.gradient(w, owner)
    multiplier = np.vecdot(w, gradient) / landscape.dimension
    estimate = landscape.stiffness(predictions, multiplier, owner)
    hessian = landscape.hessian(w, owner)
    exact = [np.linalg.eigvalsh(hessian.dense(row))[-1] for row in range(len(w))]
    return estimate / np.array(exact)


@pytest.mark.parametrize("alpha", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("a", A)
@pytest.mark.parametrize(
    ("n", "count", "low", "high"),
    [(64, 8, 0.8, 1.4), (128, 4, 0.8, 1.3), (256, 2, 0.82, 1.2), (512, 1, 0.85, 1.15)],
)
def test_stiffness_at_the_start_and_along_the_run(n, count, low, high, a, alpha):
    """The band that its docstring states; below 1 an outlier along w or w* has left the bulk."""
    landscape = drawn(count, measurements=round(alpha * n), dimension=n, a=a, entropy=12)
    owner = np.arange(count)
    w = draw_starts(streams(count, 12), "start", n, FLOAT64)
    ratios = [stiffness_over_largest_eigenvalue(landscape, w, owner)]
    for duration in (0.5, 5.0, 30.0):
        w = Flow(landscape, duration, 1e-2).run(w, owner).w
        ratios.append(stiffness_over_largest_eigenvalue(landscape, w, owner))
    assert np.min(ratios) > low
    assert np.max(ratios) < high


def test_stiffness_without_positive_curvature_is_that_of_the_multiplier():
    landscape = drawn(2)
    owner = np.arange(2)
    predictions = np.zeros((2, 40))  # f = −y²/(a + y²) < 0 everywhere
    estimate = landscape.stiffness(predictions, np.array([0.5, -2.0]), owner)
    np.testing.assert_allclose(estimate, [-0.5, 2.0])
