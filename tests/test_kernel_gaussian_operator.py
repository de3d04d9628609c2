"""Products of a sensing matrix against plain NumPy."""

import numpy as np
import pytest

from pipeline.kernel.gaussian_operator import DenseOperator, draw_dense

# from a single row to matrices cut into many blocks of rows (the last one shorter)
SHAPES = [(1, 2), (3, 7), (40, 13), (384, 128), (1100, 257)]
BATCHES = [1, 3, 16]
DTYPES = [np.float64, np.float32]


def operands(shape, batch, dtype):
    random = np.random.default_rng([*shape, batch])
    m, n = shape
    operator = draw_dense(random, m, n, np.dtype(dtype))
    u = random.standard_normal((batch, n)).astype(dtype)
    v = random.standard_normal((batch, m)).astype(dtype)
    return operator, operator.matrix.astype(np.float64), u, v


def assert_close(actual, expected, dtype, terms):
    """Equal up to the rounding of a sum of `terms` products, relative to the largest entry."""
    assert actual.dtype == dtype
    scale = np.abs(expected).max()
    bound = 8 * np.sqrt(terms) * np.finfo(dtype).eps * scale
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_against_plain_matrix_products(shape, batch, dtype):
    operator, X, u, v = operands(shape, batch, dtype)
    assert operator.shape == shape
    assert_close(operator.apply(u), u @ X.T, dtype, shape[1])
    assert_close(operator.apply_transpose(v), v @ X, dtype, shape[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_pull_back_is_one_pass_of_both_products(shape, batch, dtype):
    operator, X, u, v = operands(shape, batch, dtype)
    asked = []

    def response(predicted, rows):
        asked.append(rows)
        return np.square(predicted) * v[:, rows]  # needs to know which measurements it is given

    pulled, predictions = operator.pull_back(u, response)
    assert_close(predictions, u @ X.T, dtype, shape[1])
    assert_close(pulled, ((u @ X.T) ** 2 * v) @ X, dtype, shape[0] * 16)
    covered = np.concatenate([np.arange(shape[0])[rows] for rows in asked])
    np.testing.assert_array_equal(covered, np.arange(shape[0]))  # each measurement once


def test_large_matrices_are_cut_into_blocks_and_small_ones_are_not():
    for shape, least, most in (((384, 128), 1, 1), ((1100, 257), 3, 20)):
        operator, _, u, _ = operands(shape, 1, np.float64)
        asked = []

        def response(predicted, rows, asked=asked):
            asked.append(rows)
            return predicted

        operator.pull_back(u, response)
        assert least <= len(asked) <= most


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_row_norms_and_weighted_gram(shape, dtype):
    operator, X, _, v = operands(shape, 1, dtype)
    assert_close(operator.row_norms(), np.sum(X**2, axis=1), dtype, shape[1])
    gram = operator.weighted_gram(v[0].astype(np.float64))
    # summed in float64 whatever the matrix is
    assert_close(gram, X.T @ np.diag(v[0].astype(np.float64)) @ X, np.float64, shape[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_apply_and_apply_transpose_are_adjoint(dtype):
    operator, _, u, v = operands((300, 90), 4, dtype)
    left = np.vecdot(operator.apply(u), v)
    right = np.vecdot(u, operator.apply_transpose(v))
    np.testing.assert_allclose(left, right, rtol=0, atol=2000 * np.finfo(dtype).eps)


def test_operator_answers_do_not_depend_on_earlier_questions():
    operator, _, u, _ = operands((50, 20), 2, np.float64)
    first = operator.apply(u)
    operator.pull_back(u, lambda predicted, rows: predicted)
    np.testing.assert_array_equal(operator.apply(u), first)


def test_drawn_entries_are_standard_normal_over_root_n():
    m, n = 600, 400
    x = draw_dense(np.random.default_rng(3), m, n, np.dtype(np.float64)).matrix * np.sqrt(n)
    count = m * n
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(x**power) - moment) < 4 * np.sqrt(variance / count)
    assert abs(np.mean(x[:, 1:] * x[:, :-1])) < 4 / np.sqrt(count)
    assert abs(np.mean(x[1:] * x[:-1])) < 4 / np.sqrt(count)


def test_precision_rounds_the_matrix_and_does_not_choose_it():
    draws = [
        draw_dense(np.random.default_rng(4), 700, 300, np.dtype(dtype)).matrix for dtype in DTYPES
    ]
    assert [draw.dtype for draw in draws] == DTYPES
    np.testing.assert_array_equal(draws[0].astype(np.float32), draws[1])


def test_matrix_drawn_in_pieces_is_that_drawn_at_once():
    m, n = 1000, 300  # more than one piece
    drawn = draw_dense(np.random.default_rng(5), m, n, np.dtype(np.float64)).matrix
    plain = np.random.default_rng(5).standard_normal((m, n)) * (1 / np.sqrt(n))
    np.testing.assert_array_equal(drawn, plain)
    assert drawn.flags.c_contiguous


def test_operator_keeps_the_matrix_it_was_given():
    matrix = np.eye(3)
    assert DenseOperator(matrix).matrix is matrix
