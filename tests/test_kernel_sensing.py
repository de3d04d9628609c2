"""Sensing matrices in one array against those multiplied one by one."""

import numpy as np
import pytest

from pipeline.kernel.gaussian_operator import DenseOperator
from pipeline.kernel.sensing import SeparateMatrices, StackedMatrices

INSTANCES, M, N = 4, 30, 11
OWNERS = [
    [0, 1, 2, 3],
    [0, 0, 0, 1, 1, 2, 3, 3],  # unequal numbers
    [1, 1, 3],  # two have nobody left
    [2, 2, 2],  # most have nobody left
    [],
]


def matrices():
    stack = np.random.default_rng(1).standard_normal((INSTANCES, M, N))
    return stack, StackedMatrices(stack), SeparateMatrices([DenseOperator(x) for x in stack])


@pytest.mark.parametrize("owner", OWNERS, ids=str)
def test_each_row_is_multiplied_by_the_matrix_of_its_owner(owner):
    stack, *both = matrices()
    owner = np.array(owner, dtype=np.intp)
    u = np.random.default_rng(2).standard_normal((len(owner), N))
    table = np.random.default_rng(3).standard_normal((len(owner), M))

    def response(predicted, rows, block):  # needs to know which rows and measurements it is given
        return predicted * table[rows, block]

    expected = np.array([stack[k] @ x for k, x in zip(owner, u, strict=True)]).reshape(-1, M)
    slopes = zip(owner, expected * table, strict=True)
    pulled_back = np.array([stack[k].T @ v for k, v in slopes]).reshape(-1, N)
    for operators in both:
        pulled, predictions = operators.pull_back(u, owner, response)
        np.testing.assert_allclose(predictions, expected, atol=1e-12)
        np.testing.assert_allclose(pulled, pulled_back, atol=1e-11)


def test_one_instance_is_an_operator_of_its_own():
    stack, *both = matrices()
    u = np.random.default_rng(4).standard_normal((2, N))
    for operators in both:
        assert len(operators) == INSTANCES
        assert operators[2].shape == (M, N)
        np.testing.assert_allclose(operators[2].apply(u), u @ stack[2].T, atol=1e-12)
