"""Forms with packed coefficients against the full symmetric tensor and finite differences."""

from itertools import permutations
from math import comb, factorial

import numpy as np
import pytest

from pipeline.kernel.symmetric_form import (
    SymmetricForm,
    build_form,
    count_monomials,
    count_orderings,
    list_monomials,
)

SHAPES = [(7, 2), (6, 3), (5, 4)]


def random_form(dimension: int, degree: int, dtype: str = "float64") -> SymmetricForm:
    rng = np.random.default_rng(3)
    return build_form(
        dimension, degree, np.dtype(dtype), lambda row, monomials: rng.normal(size=len(monomials.T))
    )


def full_tensor(form: SymmetricForm) -> np.ndarray:
    """The symmetric tensor T with E(x) = T(x, …, x)."""
    degree = len(form.monomials) + 1
    tensor = np.zeros((form.dimension,) * degree)
    for first, rows in form.blocks:
        for row, coefficients in enumerate(rows, start=first):
            count = count_monomials(row + 1, degree - 1)
            assert (coefficients[count:] == 0).all()
            for monomial, value in zip(form.monomials[:, :count].T, coefficients, strict=False):
                for index in permutations((row, *monomial)):
                    tensor[index] += value / factorial(degree)
    return tensor


@pytest.mark.parametrize(("dimension", "degree"), SHAPES)
def test_value_and_gradient_are_those_of_the_full_tensor(dimension: int, degree: int) -> None:
    form = random_form(dimension, degree)
    tensor = full_tensor(form)
    x = np.random.default_rng(1).normal(size=(3, dimension))
    value, gradient = form.value_and_gradient(x)
    for k, point in enumerate(x):
        contracted = tensor
        for _ in range(degree - 1):
            contracted = contracted @ point
        assert gradient[k] == pytest.approx(degree * contracted)
        assert value[k] == pytest.approx(contracted @ point)


@pytest.mark.parametrize(("dimension", "degree"), SHAPES)
def test_the_hessian_is_that_of_finite_differences(dimension: int, degree: int) -> None:
    form = random_form(dimension, degree)
    x = np.random.default_rng(2).normal(size=dimension)
    step = 1e-5 * np.eye(dimension)
    slopes = (form.gradient(x + step) - form.gradient(x - step)) / 2e-5
    hessian = form.hessian(x)
    assert hessian == pytest.approx(slopes, abs=1e-8)
    assert np.array_equal(hessian, hessian.T)


def test_several_blocks_give_what_one_block_gives() -> None:
    form = random_form(90, 3)
    assert len(form.blocks) > 1
    size = max(first + len(rows) for first, rows in form.blocks)
    whole = np.zeros((size, form.monomials.shape[1]))
    for first, rows in form.blocks:
        whole[first : first + len(rows), : rows.shape[1]] = rows
    one = SymmetricForm(form.monomials, ((0, whole),), form.dimension)
    x = np.random.default_rng(4).normal(size=(2, 90))
    assert form.gradient(x) == pytest.approx(one.gradient(x), rel=1e-10, abs=1e-10)
    assert form.hessian(x[0]) == pytest.approx(one.hessian(x[0]), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_monomials_are_all_and_those_of_fewer_variables_come_first(degree: int) -> None:
    monomials = list_monomials(6, degree)
    assert len({tuple(column) for column in monomials.T}) == monomials.shape[1]
    assert monomials.shape[1] == comb(6 + degree - 1, degree)
    assert (np.diff(monomials, axis=0) <= 0).all()
    for few in range(1, 6):
        assert np.array_equal(
            list_monomials(few, degree), monomials[:, : count_monomials(few, degree)]
        )


def test_orderings_are_counted() -> None:
    monomials = list_monomials(4, 3)
    counted = [len(set(permutations(column))) for column in monomials.T.tolist()]
    assert count_orderings(monomials).tolist() == counted


def test_single_precision_rounds_the_coefficients_only() -> None:
    exact, rounded = random_form(30, 3), random_form(30, 3, "float32")
    x = np.random.default_rng(5).normal(size=(2, 30))
    gradient = rounded.gradient(x.astype(np.float32))
    assert gradient.dtype == np.float32
    assert gradient == pytest.approx(exact.gradient(x), rel=1e-3, abs=1e-3)
