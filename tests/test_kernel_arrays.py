"""The kernel in other array libraries: the same instances, outcomes and numbers up to rounding."""

from dataclasses import replace
from importlib.util import find_spec

import array_api_strict
import numpy as np
import pytest

from pipeline.kernel.arrays import (
    NUMPY,
    ArrayLibrary,
    ArrayLibraryError,
    namespace,
    on_device_of,
    open_library,
    precision,
    put_rows,
    take_rows,
    to_host,
)
from pipeline.kernel.block import Dynamics, Task, run_block
from pipeline.kernel.inits import INITS
from pipeline.kernel.models import PhaseRetrievalModel
from pipeline.kernel.phase_retrieval import draw_instances, draw_starts
from pipeline.kernel.spectrum import lowest_pairs

FLOW = Dynamics(
    method="flow",
    duration=20.0,
    tolerance=1e-2,
    learning_rate=0.0,
    constrained_time=10.0,
    dtype="float64",
)
DESCENT = replace(FLOW, method="descent", duration=5.0, tolerance=0.0, learning_rate=0.02)


@pytest.fixture(params=["array_api_strict", "torch"], scope="module")
def library(request):
    """A library with nothing beyond the standard, and one that people compute with."""
    if request.param == "array_api_strict":
        return ArrayLibrary(array_api_strict)
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return open_library("torch:cpu")


def task(n, dynamics, seeds=3, **options):
    return Task(
        PhaseRetrievalModel(1.0, n, 3 * n),
        streams=tuple(np.random.SeedSequence(72, spawn_key=(seed,)) for seed in range(seeds)),
        inits=INITS,
        dynamics=dynamics,
        **options,
    )


def assert_close(one, other, tolerance):
    """Tables by name; where one is NaN or infinite, the other is; passes may differ by some."""
    assert set(one) == set(other)
    for name in set(one) - {"seconds"}:
        assert one[name].dtype == other[name].dtype
        atol = 3 if name.startswith("gradients") else tolerance
        np.testing.assert_allclose(other[name], one[name], rtol=tolerance, atol=atol, err_msg=name)


@pytest.mark.parametrize("dynamics", [FLOW, DESCENT], ids=["flow", "descent"])
def test_a_block_gives_the_same_numbers(library, dynamics):
    """All inits, replicas, snapshots along the run and gain; several instances in one array."""
    block = task(24, dynamics, replicas=2, times=(0.0, 0.3, 4.0), gain=True)
    one, other = run_block(block), run_block(block, library)
    assert one.finished.all()
    assert one.values["recovered"].any()
    assert not one.values["recovered"].all()
    np.testing.assert_array_equal(other.values["recovered"], one.values["recovered"])
    assert_close(one.values, other.values, 1e-7)
    assert_close(without_sign(one.trajectory), without_sign(other.trajectory), 1e-7)


def without_sign(trajectory):
    """Of the overlap: that of a spectral start follows that of an eigenvector, which is free."""
    return {**trajectory, "overlap": np.abs(trajectory["overlap"])}


def test_a_block_in_single_precision_has_the_same_outcomes(library):
    """Lanczos instead of dense eigenpairs, and float32."""
    dynamics = replace(FLOW, dtype="float32", duration=6.0, constrained_time=2.0)
    block = task(140, dynamics, seeds=2, times=(0.0, 2.0))
    one, other = run_block(block), run_block(block, library)
    np.testing.assert_array_equal(other.values["recovered"], one.values["recovered"])
    assert_close(one.values, other.values, 2e-3)
    assert_close(without_sign(one.trajectory), without_sign(other.trajectory), 2e-3)


@pytest.mark.parametrize("n", [24, 140])
def test_runs_stop_at_the_same_minima(library, n):
    """By dense eigenpairs and by Lanczos."""
    dynamics = replace(FLOW, duration=500.0, stop_at_minimum=True)
    block = task(n, dynamics, seeds=2)
    one, other = run_block(block), run_block(block, library)
    there = one.values["time_end"] < np.where(one.values["recovered"], 0, dynamics.duration)
    assert there.any()
    np.testing.assert_array_equal(other.values["recovered"], one.values["recovered"])
    np.testing.assert_allclose(other.values["time_end"], one.values["time_end"], rtol=0.02)
    np.testing.assert_allclose(other.values["loss"][there], one.values["loss"][there], rtol=1e-3)


def test_a_failed_run_is_a_value(library):
    """A learning rate that overflows, in single precision."""
    dynamics = replace(DESCENT, learning_rate=1e30, dtype="float32", duration=2e30)
    with np.errstate(all="ignore"):
        one, other = (run_block(task(16, dynamics), x) for x in (NUMPY, library))
    assert one.failures
    assert one.failures == other.failures


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_eigenpairs_are_those_of_a_dense_matrix(library, dtype):
    streams = task(200, FLOW).streams
    landscape = draw_instances(
        streams, measurements=600, dimension=200, a=1.0, dtype=np.dtype(dtype), library=library
    )
    w, probe = (
        draw_starts(streams, purpose, 200, np.dtype(dtype), library=library)
        for purpose in ("start", "probe")
    )
    hessian = landscape.hessian(w, np.arange(3))
    pairs = lowest_pairs(hessian, probe)
    assert pairs.products.max() < 150  # by Lanczos
    for row in range(3):
        exact = np.linalg.eigvalsh(to_host(hessian.dense(row)))
        np.testing.assert_allclose(pairs.values[row], exact[:2], atol=1e-4)
    assert pairs.residuals.max() < 3e-4
    assert to_host(pairs.vectors).dtype == dtype


def test_instances_do_not_depend_on_the_library(library):
    streams = task(16, FLOW).streams
    options = {"measurements": 40, "dimension": 16, "a": 0.5, "dtype": np.dtype(np.float32)}
    one = draw_instances(streams, **options)
    other = draw_instances(streams, **options, library=library)
    np.testing.assert_array_equal(to_host(other.signals), one.signals)
    for instance in range(3):
        matrix = to_host(other.operators[instance].matrix)
        np.testing.assert_array_equal(matrix, one.operators[instance].matrix)


def test_verbs_agree_with_numpy(library):
    host = np.arange(12, dtype=np.float32).reshape(4, 3)
    array = library.array(host.copy())
    assert namespace(array) is library.namespace
    assert precision(array) == np.finfo(np.float32).eps
    np.testing.assert_array_equal(to_host(array), host)
    assert to_host(array).dtype == np.float32
    rows, mask = np.array([0, 2]), np.array([True, False, True, False])
    for chosen in (rows, mask, rows[:0]):
        np.testing.assert_array_equal(to_host(take_rows(array, chosen)), host[chosen])
    beside = on_device_of(array, np.array([[1.0, 2.0, 3.0]]))
    assert beside.dtype == array.dtype
    put_rows(array, np.array([1, 3]), take_rows(array, rows) + beside)
    put_rows(array, rows[:0], take_rows(array, rows[:0]))
    host[[1, 3]] = host[rows] + [1, 2, 3]
    np.testing.assert_array_equal(to_host(array), host)


def test_numpy_is_a_library_like_others():
    assert open_library("numpy") is NUMPY
    assert NUMPY.is_numpy
    host = np.ones(3)
    assert NUMPY.array(host) is host  # nothing is copied
    assert to_host(host) is host


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("fortran", "expected one of numpy, torch, cupy, .* got 'fortran'"),
        ("", "expected one of numpy, torch, cupy, .* got ''"),
        ("numpy:cuda", "expected numpy without a device, got 'numpy:cuda'"),
    ],
)
def test_a_library_that_is_not_known_is_refused(choice, expected):
    with pytest.raises(ArrayLibraryError, match=expected):
        open_library(choice)


@pytest.mark.skipif(find_spec("cupy") is not None, reason="CuPy is installed here")
def test_a_library_that_is_not_installed_is_refused():
    with pytest.raises(ArrayLibraryError, match=r"'cupy': expected it on this machine.*install it"):
        open_library("cupy")


def test_a_device_that_is_not_there_is_refused():
    pytest.importorskip("torch")
    with pytest.raises(ArrayLibraryError, match=r"expected a device of torch .* got 'torch:warp'"):
        open_library("torch:warp")
