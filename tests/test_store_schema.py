"""The table of variables, and the check of results against it."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from store.schema import (
    CONSTANTS,
    CONTROLS,
    OF_DRIVER,
    RESULTS,
    SchemaError,
    Status,
    check_results,
    coordinate_variables,
    cube_axes,
    cube_variables,
)

AXES = cube_axes("alpha")
Results = dict[str, NDArray[np.generic]]


def make_results(shape: tuple[int, int]) -> Results:
    return {
        row.name: np.zeros(shape, row.dtype) for row in cube_variables(AXES) if row.name in RESULTS
    }


@pytest.mark.parametrize("control", CONTROLS)
def test_every_variable_says_what_it_is(control: str) -> None:
    axes = cube_axes(control, constants=tuple(CONSTANTS), replicas=True)
    labels, cube = coordinate_variables(axes), cube_variables(axes)
    assert [row.name for row in labels] == [*axes, "M"]
    assert len({row.name for row in labels + cube}) == len(labels + cube)
    for row in labels + cube:
        attributes = row.attributes()
        assert attributes["units"]
        assert attributes["long_name"]
        assert set(row.dims) <= set(axes)
        json.dumps(attributes, allow_nan=False)


def test_cube_has_four_axes_and_the_control_first() -> None:
    assert cube_axes("snr") == ("snr", "N", "seed", "init")
    assert all(row.dims == cube_axes("snr") for row in cube_variables(cube_axes("snr")))


def test_replicas_are_the_last_axis_of_the_cube() -> None:
    assert cube_axes("alpha", replicas=True) == ("alpha", "N", "seed", "init", "replica")
    for replicas in (False, True):
        axes = cube_axes("alpha", replicas=replicas)
        assert ("replica" in {row.name for row in coordinate_variables(axes)}) == replicas
        assert all(row.dims == axes for row in cube_variables(axes))


def test_constants_of_the_model_are_the_first_axes() -> None:
    axes = cube_axes("snr", constants=("delta_p",), replicas=True)
    assert axes == ("delta_p", "snr", "N", "seed", "init", "replica")
    names = [row.name for row in coordinate_variables(axes)]
    assert names == [*axes, "M"]
    with pytest.raises(SchemaError, match=r"expected some of a, delta_p, m0, got \['b'\]"):
        cube_axes("alpha", constants=("a", "b"))


def test_results_are_the_cube_without_what_the_driver_writes() -> None:
    for control in CONTROLS:
        assert {*OF_DRIVER, *RESULTS} == {row.name for row in cube_variables(cube_axes(control))}
    assert "status" not in RESULTS


def test_codes_carry_their_meanings() -> None:
    status = cube_variables(AXES)[0].attributes()
    assert status["flag_values"] == [0, 1, 2, 3, 4]
    assert status["flag_meanings"] == "pending done failed quarantined unasked"
    assert cube_variables(AXES)[0].fill == Status.PENDING


def test_units_do_not_turn_numbers_into_durations() -> None:
    """Xarray reads "seconds", "hours", … as time differences; the schema must avoid those words."""
    units = {row.units for row in (*coordinate_variables(AXES), *cube_variables(AXES))}
    assert units == {"1", "s"}


def test_unknown_control_is_refused() -> None:
    with pytest.raises(SchemaError, match="expected one of alpha, snr, got 'beta'"):
        cube_axes("beta")


def test_results_of_the_schema_pass() -> None:
    results = make_results((3, 2))
    check_results(results, (3, 2), "block")
    results["overlap"] = np.zeros((3, 2), np.float32)
    results["recovered"] = np.zeros((3, 2), bool)
    check_results(results, (3, 2), "block")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("overlap", np.zeros((2, 3)), r"overlap: expected float64 of shape \(3, 2\).*\(2, 3\)"),
        ("overlap", np.zeros((3, 2), complex), "overlap: expected float64.*got complex128"),
        ("recovered", np.zeros((3, 2), int), "recovered: expected int8.*got int64"),
        ("speed", np.zeros((3, 2)), r"missing \[\], got beside them \['speed'\]"),
    ],
)
def test_wrong_results_are_refused_by_name(
    name: str, values: NDArray[np.generic], message: str
) -> None:
    results = make_results((3, 2)) | {name: values}
    with pytest.raises(SchemaError, match=f"^block 7: .*{message}"):
        check_results(results, (3, 2), "block 7")


def test_missing_results_are_refused_by_name() -> None:
    results = make_results((3, 2))
    del results["loss"]
    with pytest.raises(SchemaError, match=r"missing \['loss'\], got beside them \[\]"):
        check_results(results, (3, 2), "block")


def test_results_with_replicas_have_their_shape() -> None:
    replicas = {
        name: np.zeros((3, 2, 4), values.dtype) for name, values in make_results((3, 2)).items()
    }
    check_results(replicas, (3, 2, 4), "block")
    with pytest.raises(SchemaError, match=r"shape \(3, 2, 5\) \[seeds, inits, replicas\]"):
        check_results(replicas, (3, 2, 5), "block")
