"""Adaptive campaigns on real stores: the same whoever computes, resumed, and counted rightly."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from pipeline.campaign import Campaign, CampaignError, parse_campaign
from pipeline.cluster import Resources
from pipeline.cost import nominal_cost
from pipeline.executors import InlineExecutor
from pipeline.launch import launch
from pipeline.plan import make_plan
from pipeline.progress import SweepProgress
from pipeline.provenance import open_ledger
from pipeline.rounds import Rounds, read_curves
from pipeline.sweep import Sweep
from pipeline.work import Receipt, Recipe, Unit, run_unit
from store.ledger import counts
from store.schema import Status

CAMPAIGN = """
name = "tiny"
model = "phase_retrieval"
entropy = 7
instances = "dense"
[parameters]
a = 1.0
[grid]
alpha = [1.5, 3.0, 5.0]
N = [8, 12]
seeds = 8
inits = ["random", "spectral"]
[dynamics]
method = "flow"
T = 8.0
[sampling]
target_halfwidth = 0.12
max_seeds = 64
"""
QUIET = Console(quiet=True)


def read(*overrides: str) -> Campaign:
    return parse_campaign(CAMPAIGN, source="test", overrides=list(overrides))


def run(campaign: Campaign, path: Path, scheduler: str = "synchronous") -> xr.Dataset:
    resources = Resources(scheduler=scheduler)
    return launch(campaign, str(path), console=QUIET, resources=resources).reduced


def numbers(path: Path) -> xr.Dataset:
    cube = xr.open_zarr(path, chunks=None).load().drop_vars(["seconds", "revision"])
    return cube.sortby(["alpha", "N", "seed"]).sel(init=["random", "spectral"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "tiny.zarr"
    run(read(), path)
    return path


def test_seeds_are_spent_near_one_half_and_only_asked_runs_count(whole: Path) -> None:
    cube = numbers(whole)
    done = (cube.status == Status.DONE).sum("seed")
    assert (done.sel(alpha=[1.5, 3.0, 5.0]) >= 8).all()
    assert int(done.max()) > 16
    assert cube.sizes["alpha"] > 3  # refined between the points that bracket one half
    assert (cube.status == Status.UNASKED).any()
    assert counts(whole) == {
        "pending": 0, "done": int(done.sum()), "failed": 0, "quarantined": 0
    }  # fmt: skip
    # the seeds of each cell are the first ones, none left out
    ended = (cube.status == Status.DONE).transpose(..., "seed").to_numpy()
    assert (np.diff(ended.astype(int), axis=-1) <= 0).all()
    reduced = xr.open_zarr(whole, group="reduced").sortby("alpha").sel(init=cube.init)
    np.testing.assert_array_equal(reduced.runs, done.transpose("alpha", "N", "init"))


def test_running_again_asks_for_nothing(whole: Path) -> None:
    before = numbers(whole)
    with open_ledger(read(), str(whole)) as ledger:
        rounds = Rounds(read(), ledger, str(whole), nominal_cost(read()))
        assert not rounds.start().units
        assert not rounds.more(12)
    assert not make_plan(read(), str(whole), nominal_cost(read())).units
    xr.testing.assert_equal(numbers(whole), before)


@pytest.mark.slow
def test_threads_decide_the_same(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.zarr"
    run(read(), path, "threads")
    xr.testing.assert_identical(numbers(path).drop_attrs(), numbers(whole).drop_attrs())


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_campaign_resumes_in_its_round(
    whole: Path, tmp_path: Path, after: int
) -> None:
    path = tmp_path / "tiny.zarr"
    campaign, budget = read(), iter(range(after))

    def work(recipe: Recipe, unit: Unit) -> list[Receipt]:
        if next(budget, None) is None:
            raise KeyboardInterrupt
        return run_unit(str(path), recipe, unit)

    with open_ledger(campaign, str(path)) as ledger, SweepProgress(QUIET, 0, 0.0) as progress:
        rounds = Rounds(campaign, ledger, str(path), nominal_cost(campaign))
        units = rounds.start().units
        sweep = Sweep(
            ledger, str(path), partial(work, Recipe.of(campaign)), InlineExecutor(), progress,
            more=rounds.more,
        )  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            sweep.run(units)
    run(campaign, path)
    xr.testing.assert_identical(numbers(path).drop_attrs(), numbers(whole).drop_attrs())


@pytest.mark.slow
def test_a_spent_budget_leaves_a_round_that_goes_on(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.zarr"
    resources = Resources(scheduler="synchronous")
    left = launch(read(), str(path), console=QUIET, resources=resources, budget=0.0)
    assert counts(path)["done"] == 0
    assert counts(path)["pending"] == 3 * 2 * 8 * 2
    assert (left.reduced.runs == 0).all()
    run(read(), path)
    xr.testing.assert_identical(numbers(path).drop_attrs(), numbers(whole).drop_attrs())


@pytest.mark.slow
def test_a_sharper_target_goes_on_and_a_plain_campaign_fills_the_box(
    whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.zarr"
    run(read("sampling.target_halfwidth=0.2"), path)
    first = counts(path)["done"]
    run(read(), path)
    assert counts(path)["done"] >= max(first, counts(whole)["done"])
    plain = read("sampling=", "grid.seeds=16")
    run(plain, path)
    cube = numbers(path).sel(alpha=[1.5, 3.0, 5.0], seed=slice(0, 15))
    assert (cube.status == Status.DONE).all()


def test_a_round_with_pending_or_unknown_cells_has_not_ended(whole: Path) -> None:
    cube = numbers(whole).sel(N=12)
    asked = {(alpha, init): 8 for alpha in (1.5, 3.0, 5.0) for init in ("random", "spectral")}
    curves = read_curves(cube, asked)
    assert curves is not None
    assert curves["random"].runs.tolist() == [8.0, 8.0, 8.0]
    assert read_curves(cube, asked | {(2.9, "random"): 8}) is None
    assert read_curves(cube, asked | {(3.0, "random"): 10**4}) is None
    cube["status"].loc[{"alpha": 3.0, "seed": 2, "init": "spectral"}] = Status.PENDING
    assert read_curves(cube, asked) is None
    cube["status"].loc[{"alpha": 3.0, "seed": 2, "init": "spectral"}] = Status.QUARANTINED
    again = read_curves(cube, asked)
    assert again is not None
    assert again["spectral"].runs.tolist() == [8.0, 7.0, 8.0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampling.max_seeds=4", r"sampling\.max_seeds: expected at least grid\.seeds = 8, got 4"),
        ("sampling.target_halfwidth=0.5", r"sampling\.target_halfwidth: expected half-width"),
        ("sampling.focus=nowhere", r'sampling\.focus: expected "transition" or "everywhere"'),
        ("parameters.a=[0.5, 1.0]", r"sampling: expected one value of parameters\.a"),
    ],
)
def test_what_cannot_be_sampled_is_refused(override: str, message: str) -> None:
    with pytest.raises(CampaignError, match=message):
        read(override)
