"""Ownership of rows and the sphere."""

import numpy as np
import pytest

from pipeline.kernel.batch import off_signal, on_sphere, owned_rows


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ([], []),
        ([0], [(0, slice(0, 1))]),
        ([3, 3, 3], [(3, slice(0, 3))]),
        ([0, 0, 1, 2, 2, 2], [(0, slice(0, 2)), (1, slice(2, 3)), (2, slice(3, 6))]),
        ([1, 4, 4], [(1, slice(0, 1)), (4, slice(1, 3))]),  # instances that are done are skipped
    ],
)
def test_owned_rows(owner, expected):
    assert list(owned_rows(np.array(owner, dtype=np.intp))) == expected


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_on_sphere_gives_norm_n_and_keeps_direction_and_precision(dtype, scale):
    w = scale * np.random.default_rng(0).standard_normal((5, 37)).astype(dtype)
    point = on_sphere(w)
    assert point.dtype == dtype
    np.testing.assert_allclose(np.vecdot(point, point), 37, rtol=8 * np.finfo(dtype).eps)
    cosine = np.vecdot(point, w) / np.sqrt(np.vecdot(point, point) * np.vecdot(w, w))
    np.testing.assert_allclose(cosine, 1, rtol=8 * np.finfo(dtype).eps)


def test_on_sphere_does_not_depend_on_the_other_rows():
    w = np.random.default_rng(1).standard_normal((4, 53))
    for k in range(4):
        np.testing.assert_array_equal(on_sphere(w)[k], on_sphere(w[k : k + 1])[0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_off_signal_leaves_the_rest(dtype):
    """Rows lose their part along their own w*, |w*|² = N, and nothing else."""
    random = np.random.default_rng(2)
    signal = on_sphere(random.standard_normal((4, 37))).astype(dtype)
    rest = random.standard_normal((4, 37))
    rest -= (np.vecdot(rest, signal) / 37)[:, None] * signal
    part = np.array([0.0, 1.0, -2.5, 1e3])[:, None]
    out = off_signal((rest + part * signal).astype(dtype), signal)
    assert out.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(out, rest, atol=30 * eps * 1e3)
    np.testing.assert_allclose(out[:2], rest[:2], atol=30 * eps)
    np.testing.assert_allclose(np.vecdot(out[:3], signal[:3]) / 37, 0, atol=30 * eps)


def test_off_signal_does_not_depend_on_the_other_rows():
    w, signal = np.random.default_rng(3).standard_normal((2, 4, 53))
    for k in range(4):
        alone = off_signal(w[k : k + 1], signal[k : k + 1])
        np.testing.assert_array_equal(off_signal(w, signal)[k], alone[0])
