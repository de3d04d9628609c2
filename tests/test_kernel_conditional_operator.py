"""X drawn as it is asked for: one matrix in all its answers, and of the right law."""

import numpy as np
import pytest
from scipy import stats

from pipeline.kernel.conditional_operator import TOLERANCE, ConditionalOperator, frame_point
from pipeline.kernel.gaussian_operator import draw_dense
from pipeline.kernel.paired_bases import TriangularMatrix, multiply_transposed

DTYPES = [np.float64, np.float32]
LEVEL = 1e-3  # of p-values; everything is seeded, so a test that passes once passes always


def operator(shape, seed=0, dtype=np.float64, frame=3, **options):
    random = np.random.default_rng([seed, *shape])
    return ConditionalOperator(random, shape, np.dtype(dtype), frame=frame, **options)


def points(count, n, seed=0, dtype=np.float64):
    """Points at places 0 … count − 1 of a frame."""
    draws = [frame_point(np.random.default_rng([seed, k]), k, n) for k in range(count)]
    return np.array(draws, dtype=dtype)


def cube(predicted, _):
    return predicted * predicted * predicted - predicted


def follow(x, u, steps, rate=0.3):
    """Questions as a descent asks them, with their answers: (u, X u, v, Xᵀ v)."""
    asked = []
    scale = np.sqrt(np.vecdot(u, u))[:, None]
    for _ in range(steps):
        pulled, predicted = x.pull_back(u, cube)
        asked.append((u, predicted, cube(predicted, None), pulled))
        u = u - rate * pulled
        u *= scale / np.sqrt(np.vecdot(u, u))[:, None]
    return [np.concatenate(part) for part in zip(*asked, strict=True)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_all_answers_are_those_of_one_matrix(dtype, batch):
    """Xᵀ v · u = v · X u for whatever was asked, also of the v before the u; again, the same."""
    n = 300
    x = operator((900, n), dtype=dtype)
    u, predicted, v, pulled = follow(x, points(3, n, dtype=dtype)[:batch], 25)
    assert predicted.dtype == pulled.dtype == dtype
    size = np.linalg.norm(v, axis=1)[:, None] * np.linalg.norm(u, axis=1)
    bound = 1e-11 if dtype is np.float64 else 3e-6
    np.testing.assert_array_less(np.abs(v @ predicted.T - pulled @ u.T) / size, bound)
    known = x.directions
    change = np.linalg.norm(x.apply_transpose(v) - pulled, axis=1)
    np.testing.assert_array_less(change / np.linalg.norm(v, axis=1), 3 * TOLERANCE)
    np.testing.assert_allclose(x.apply(u), predicted, atol=bound * np.abs(predicted).max() * 10)
    assert x.directions == known  # nothing of it was new


@pytest.mark.parametrize("dtype", DTYPES)
def test_left_directions_stay_orthonormal_where_little_is_new(dtype):
    """Small steps leave ρ/|v| far below 1, where one Gram–Schmidt pass would not do."""
    x = operator((800, 400), dtype=dtype)
    follow(x, points(3, 400, dtype=dtype)[:2], 30, rate=0.02)
    k = x.directions
    left = np.zeros((k, 800))
    for here, _, p in x._bases.sweep(1):
        left[:, here] = x._directions.rows @ p
    left = left[3:]  # those of the frame brought none
    np.testing.assert_allclose(left @ left.T, np.eye(len(left)), atol=20 * np.finfo(dtype).eps)


def test_directions_below_the_tolerance_are_not_drawn():
    u = points(3, 400)[:1]
    counts = []
    for tolerance in (1e-12, 1e-4, 1e-2):
        x = operator((800, 400), tolerance=tolerance)
        follow(x, u, 30, rate=0.02)
        counts.append(x.directions)
    assert counts[0] == 33
    assert counts[0] > counts[1] > counts[2] > 3


def test_when_the_frame_is_all_of_space_nothing_is_drawn_any_more():
    n = 20
    x = operator((50, n))
    follow(x, points(3, n)[:2], 12)
    assert x.directions == n
    random = np.random.default_rng(1)
    u, v = random.standard_normal((4, n)), random.standard_normal((4, 50))
    matrix = x.apply(np.eye(n)).T
    np.testing.assert_allclose(x.apply(u), u @ matrix.T, atol=1e-13)
    np.testing.assert_allclose(x.apply_transpose(v), v @ matrix, atol=1e-13)
    np.testing.assert_array_equal(x.apply(np.eye(n)).T, matrix)
    weights = random.standard_normal(50)
    expected = matrix.T @ np.diag(weights) @ matrix
    np.testing.assert_allclose(x.weighted_gram(weights), expected, atol=1e-12)


def test_few_measurements_are_known_from_the_left():
    m, n = 4, 60
    x = operator((m, n))
    v = np.random.default_rng(2).standard_normal((6, m))
    pulled = x.apply_transpose(v)
    assert x.directions == 3 + m
    gram = x.weighted_gram(np.ones(m))
    assert x.directions == n
    np.testing.assert_allclose(np.linalg.eigvalsh(gram)[: n - m], 0, atol=1e-12)
    matrix = x.apply(np.eye(n)).T
    np.testing.assert_allclose(v @ matrix, pulled, atol=1e-12)


def test_what_is_forgotten_is_drawn_anew_and_what_is_kept_stays():
    n = 300
    x = operator((700, n))
    asked = follow(x, points(3, n)[:2], 4)
    x.forget()  # nothing was told to be kept: all is
    kept = x.directions
    assert kept == 3 + 8
    x.keep()
    v = np.random.default_rng(4).standard_normal((2, 700))
    first = x.apply_transpose(v)
    assert x.directions == kept + 2
    x.forget()
    assert x.directions == kept
    second = x.apply_transpose(v)
    known = slice(0, kept)
    np.testing.assert_allclose(second[:, known], first[:, known], atol=1e-12)
    assert not np.allclose(np.abs(second[:, kept:]), np.abs(first[:, kept:]), atol=1e-3)
    np.testing.assert_allclose(x.apply(asked[0]), asked[1], atol=1e-11)
    np.testing.assert_allclose(x.apply_transpose(asked[2]), asked[3], atol=1e-10)


def test_a_point_outside_the_frame_is_refused():
    x = operator((30, 20))
    u = np.zeros((1, 20))
    u[0, 3] = 1e-9
    with pytest.raises(ValueError, match="expected points of the operator's frame, with 3 known"):
        x.apply(u)
    with pytest.raises(ValueError, match="frame_point"):
        x.pull_back(u, cube)


def test_what_is_not_finite_brings_no_direction_and_spoils_no_other_answer():
    n = 60
    u = points(3, n)[:2]
    u[1] *= np.nan
    x = operator((150, n))
    pulled, predicted = x.pull_back(u, cube)
    assert np.isnan(predicted[1]).all()
    assert np.isnan(pulled[1]).any()
    assert x.directions == 4
    alone, alone_predicted = operator((150, n)).pull_back(u[:1], cube)
    np.testing.assert_allclose(predicted[0], alone_predicted[0], atol=1e-13)
    np.testing.assert_allclose(pulled[0, :3], alone[0, :3], atol=1e-13)
    assert np.isfinite(pulled[0]).all()
    assert np.isfinite(x.apply_transpose(np.ones((1, 150)))).all()


def test_same_questions_same_bytes_and_other_numbers_other_instance():
    u = points(3, 200)
    one, same, other = (follow(operator((500, 200), seed), u, 8)[3] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_precision_rounds_the_instance_and_does_not_choose_it():
    one, other = (
        follow(operator((600, 200), dtype=dtype), points(3, 200, dtype=dtype), 6)[3]
        for dtype in DTYPES
    )
    np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(one).max())


def test_blocks_of_measurements_do_not_choose_the_instance(monkeypatch):
    """More measurements than one block, parts of blocks, bases that outgrow their room."""
    u = points(3, 400)
    whole = follow(operator((2500, 400)), u, 30)[3]  # three blocks, room made for 99 pairs
    monkeypatch.setattr("pipeline.kernel.paired_bases._BLOCK_ELEMENTS", 10_000)
    np.testing.assert_allclose(follow(operator((2500, 400)), u, 30)[3], whole, atol=1e-9)


@pytest.mark.parametrize("dimension", [1, 2, 3, 40])
def test_frame_points_have_the_inner_products_of_normal_points(dimension):
    """Gram matrices of three points: mean N δ_ij; variance 2 N on the diagonal, N off it."""
    count = 3000
    z = np.array([points(3, dimension, seed) for seed in range(count)])
    gram = z @ z.mT
    error = 4.5 * np.sqrt(dimension * (1 + np.eye(3)) / count)
    np.testing.assert_array_less(np.abs(gram.mean(0) - dimension * np.eye(3)), error)
    np.testing.assert_allclose(gram.var(0), dimension * (1 + np.eye(3)), rtol=0.35)
    assert not z[:, 0, 1:].any()


def test_first_products_have_their_exact_law():
    """X u ~ N(0, |u|²/N), independent; N |Xᵀ v|²/|v|² ~ χ²_N; u · Xᵀ v ~ N(0, |u|²|v|²/N)."""
    m, n, count = 12, 9, 1500
    v = np.random.default_rng(3).standard_normal((1, m))
    images, lengths, inner = [], [], []
    for seed in range(count):
        u = points(2, n)[1:]
        images.append(operator((m, n), seed).apply(u)[0] * np.sqrt(n) / np.linalg.norm(u))
        pulled = operator((m, n), seed + count).apply_transpose(v)[0]
        lengths.append(n * pulled @ pulled / np.vecdot(v, v)[0])
        inner.append(np.sqrt(n) * u[0] @ pulled / np.linalg.norm(u) / np.linalg.norm(v))
    images = np.array(images)
    assert stats.kstest(images.ravel(), "norm").pvalue > LEVEL
    assert stats.kstest(lengths, "chi2", args=(n,)).pvalue > LEVEL
    assert stats.kstest(inner, "norm").pvalue > LEVEL
    covariance = images.T @ images / count
    np.testing.assert_allclose(covariance, np.eye(m), atol=5 * np.sqrt(2 / count))


def test_chained_products_have_the_moments_of_a_wishart_matrix():
    """E u·(XᵀX)^p u for p = 1, 2, 3, where each product is conditioned on those before it."""
    m, n, count = 11, 7, 4000
    u = points(1, n)
    square = np.vecdot(u, u)[0]
    moments = []
    for seed in range(count):
        x = operator((m, n), seed, frame=1)
        first = x.apply_transpose(x.apply(u))[0]
        image = x.pull_back(first[None], lambda predicted, _: predicted)[1][0]
        moments.append([u[0] @ first, first @ first, image @ image])
    moments = np.array(moments) / square
    expected = [
        m / n,
        m * (m + n + 1) / n**2,
        m * (m**2 + n**2 + 3 * m * n + 3 * m + 3 * n + 4) / n**3,
    ]
    error = moments.std(0) / np.sqrt(count)
    np.testing.assert_array_less(np.abs(moments.mean(0) - expected), 4 * error)


@pytest.mark.parametrize("shape", [(30, 12), (9, 15)])
def test_the_whole_matrix_after_questions_has_the_spectrum_of_one_drawn_at_once(shape):
    """Trace of XᵀX: χ²_{MN}/N exactly. Largest eigenvalue: as that of dense matrices."""
    m, n = shape
    traces, largest, dense = [], [], []
    for seed in range(400):
        x = operator(shape, seed)
        follow(x, points(3, n, seed)[:2], 3)
        gram = x.weighted_gram(np.ones(m))
        traces.append(n * np.trace(gram))
        largest.append(np.linalg.eigvalsh(gram)[-1])
        matrix = draw_dense(np.random.default_rng([seed, 7]), m, n, np.dtype(float)).matrix
        dense.append(np.linalg.eigvalsh(matrix.T @ matrix)[-1])
    assert stats.kstest(traces, "chi2", args=(m * n,)).pvalue > LEVEL
    assert stats.ks_2samp(largest, dense).pvalue > LEVEL


@pytest.mark.parametrize("batch", [1, 2, 7, 20])
def test_products_of_a_few_rows_are_taken_in_parts(batch):
    random = np.random.default_rng(3)
    v, rows = random.standard_normal((batch, 90)), random.standard_normal((1500, 90))
    np.testing.assert_allclose(multiply_transposed(v, rows), v @ rows.T, rtol=1e-12, atol=1e-12)


def test_rows_of_a_triangle_come_and_go():
    random = np.random.default_rng(4)
    triangle, whole = TriangularMatrix(), np.zeros((0, 0))
    for new, kept in ((3, 3), (1, 2), (4, 6), (2, 8)):
        below = random.standard_normal((new, len(whole)))
        corner = np.tril(random.standard_normal((new, new)))
        triangle.append(below, corner)
        right = np.zeros((len(whole), new))
        whole = np.block([[whole, right], [below, corner]])
        np.testing.assert_array_equal(triangle.rows, whole)
        triangle.truncate(kept)
        whole = whole[:kept, :kept]
        np.testing.assert_array_equal(triangle.rows, whole)
