"""Groups beside the cube, and the check of what a kernel gives for them."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from store.groups import GROUPS, check_group, check_groups
from store.schema import SchemaError, coordinate_variables, cube_axes

AXES = cube_axes("alpha", constants=("a",), replicas=True)
LENGTHS: Mapping[str, Mapping[str, int]] = {
    "trajectory": {"time": 7},
    "spectrum": {"snapshot": 2, "eigenvalue": 5},
}
NAMES = GROUPS["trajectory"].names


def make_arrays(name: str, shape: tuple[int, ...]) -> dict[str, NDArray[np.float64]]:
    return {
        row.name: np.zeros((*shape, *(LENGTHS[name][dim] for dim in row.dims)))
        for row in GROUPS[name].variables(())
    }


@pytest.mark.parametrize("name", GROUPS)
def test_every_variable_says_what_it_is(name: str) -> None:
    group = GROUPS[name]
    rows = (*coordinate_variables(AXES), *group.axes, *group.variables(AXES))
    assert len({row.name for row in rows}) == len(rows)
    own = {row.name for row in group.axes}
    assert own == set(LENGTHS[name])
    for row in rows:
        attributes = row.attributes()
        # xarray reads "seconds", "hours", … as time differences: those words must not be units
        assert attributes["units"] == "1"
        assert attributes["long_name"]
        json.dumps(attributes, allow_nan=False)
    for row in group.variables(AXES):
        assert row.dims[: len(AXES)] == AXES
        assert set(row.dims[len(AXES) :]) <= own
    assert group.names == tuple(row.name for row in group.variables(()))


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 4)])
def test_groups_of_the_schema_pass(shape: tuple[int, ...]) -> None:
    arrays = {name: make_arrays(name, shape) for name in GROUPS}
    check_groups(arrays, shape, LENGTHS, "block")
    check_groups({}, shape, {}, "block")
    arrays["spectrum"]["below"] = arrays["spectrum"]["below"].astype(np.float32)
    check_groups(arrays, shape, LENGTHS, "block")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"^block 7: .*variables of the group trajectory; missing \['overlap'"),
        ({name: np.zeros((3, 2, 7)) for name in NAMES[1:]}, r"missing \['overlap'\], got beside"),
        ({name: np.zeros((3, 2, 7)) for name in (*NAMES, "speed")}, r"beside them \['speed'\]"),
        (
            {name: np.zeros((3, 2, 8)) for name in NAMES},
            r"overlap: expected float64 of shape \(3, 2, 7\) \[seeds, inits, times\], got fl",
        ),
        ({name: np.zeros((3, 2, 7), complex) for name in NAMES}, "overlap: .*, got complex128"),
    ],
)
def test_wrong_groups_are_refused_by_name(
    arrays: dict[str, NDArray[np.generic]], message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        check_group("trajectory", arrays, (3, 2), LENGTHS["trajectory"], "block 7")


def test_groups_must_be_those_of_the_store() -> None:
    one = {"trajectory": make_arrays("trajectory", (3, 2))}
    expected = r"^block 7: expected numbers for the groups \['trajectory', 'spectrum'\] .*, got .*"
    with pytest.raises(SchemaError, match=expected):
        check_groups(one, (3, 2), LENGTHS, "block 7")
    with pytest.raises(SchemaError, match=r"the groups \[\] of the store, got them for \['traj"):
        check_groups(one, (3, 2), {}, "block 7")
