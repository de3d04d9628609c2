"""Which instances are matrices and which are drawn as they are asked for, and what that costs."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from pipeline.campaign import load_campaign
from pipeline.cli import app
from pipeline.cost import nominal_cost
from pipeline.instances import InstanceRule, conditional_bytes, pass_elements
from pipeline.plan import make_plan
from pipeline.work import Recipe
from store.keys import Block


def rule(*overrides: str) -> InstanceRule:
    return InstanceRule.of(load_campaign("quickstart", overrides))


def test_auto_takes_matrices_while_they_are_small_and_faster() -> None:
    kinds = [rule().choose(N, 3 * N) for N in (64, 256, 512, 4096, 10**4, 10**5, 10**6)]
    assert kinds == ["dense"] * 3 + ["conditional"] * 4
    # long runs and the gain ask for more directions, and are dense up to larger N
    sizes = np.geomspace(100, 10**5, 50).astype(int).tolist()
    gain = ("trajectory.times=[1, 10]", "trajectory.gain=true")
    crossing = [
        next(N for N in sizes if rule(*more).choose(N, 3 * N) == "conditional")
        for more in (["dynamics.T=100.0"], ["dynamics.T=1000.0"], ["dynamics.T=1000.0", *gain])
    ]
    assert crossing == sorted(set(crossing))
    # snapshots are forgotten
    assert rule("trajectory.times=[1, 10, 100]") == rule()


def test_the_choice_is_that_of_the_physics_and_not_of_the_grid() -> None:
    one, other = (
        rule(*grid)
        for grid in (["grid.seeds=1", 'grid.inits=["random"]'], ["grid.N=[7]", "grid.alpha=[9.0]"])
    )
    assert one == other
    assert rule("grid.replicas=50") != one  # which cannot be changed later


@pytest.mark.parametrize("kind", ["dense", "conditional"])
def test_what_the_campaign_asks_for_is_done(kind: str) -> None:
    assert {rule(f"instances={kind}").choose(N, 3 * N) for N in (2, 10**6)} == {kind}


def test_auto_heeds_memory() -> None:
    """Descent asks for all directions: the bases would be as large as the matrix, and slower."""
    descent = ("dynamics.method=descent", "dynamics.learning_rate=0.005")
    assert rule(*descent).choose(5000, 15000) == "dense"
    # 20 replicas, as fast on either, until the matrix does not fit
    many = rule("grid.replicas=20", "dynamics.T=1000.0")
    assert many.directions > 10**4
    assert many.choose(15000, 30000) == "dense"
    assert many.choose(10**5, 2 * 10**5) == "conditional"


def test_passes_grow_with_the_directions_and_end_dense() -> None:
    assert pass_elements(10**6, 300) == 4 * 300 / 2
    assert pass_elements(100, 10**6) == pytest.approx(100, rel=0.02)
    assert conditional_bytes(10**5, 4 * 10**5, 300, 4) == 2 * 1.5 * 300 * 4e5 * 4
    assert conditional_bytes(50, 200, 300, 4) == 2 * 1.5 * 50 * 200 * 4


def test_a_block_is_told_its_kind() -> None:
    recipe = Recipe.of(load_campaign("quickstart", ["grid.N=[64, 20000]"]))
    kinds = [
        recipe.task(Block("alpha", 3.0, N, (0,), ("random",))).model.instances for N in (64, 20000)
    ]
    assert kinds == ["dense", "conditional"]


def test_time_and_memory_of_a_plan_are_those_of_the_kind(tmp_path: Path) -> None:
    def plan(*overrides: str) -> tuple[float, int]:
        few = ["grid.N=[20000]", "grid.seeds=1", 'grid.inits=["random"]']
        campaign = load_campaign("quickstart", [*few, *overrides])
        made = make_plan(campaign, tmp_path / "new.zarr", nominal_cost(campaign))
        return made.core_seconds, made.worker_bytes

    kinds = ("dense", "conditional", "auto")
    dense, conditional, auto = (plan(f"instances={kind}") for kind in kinds)
    assert auto == conditional
    assert conditional[0] < dense[0] / 3
    assert conditional[1] < dense[1] / 3


def test_a_campaign_of_conditional_instances_records_them(tmp_path: Path) -> None:
    path = tmp_path / "some.zarr"
    smaller = ["grid.N=[24]", "grid.alpha=[3.0]", "grid.seeds=3", "dynamics.T=5.0"]
    options = [
        word
        for text in (*smaller, "dynamics.constrained_time=5.0", "instances=conditional")
        for word in ("--set", text)
    ]
    command = ["run", "quickstart", "--store", str(path), "--scheduler", "synchronous", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    with xr.open_zarr(path) as cube:
        assert np.all(cube.status == 1)
        assert np.all(cube.instances == 1)
        assert np.all((cube.directions > 3) & (cube.directions <= 24))
    dense = CliRunner().invoke(app, [*command, "--set", "instances=dense"])
    assert "instances: 'conditional' in the store, 'dense' in" in str(dense.exception)
