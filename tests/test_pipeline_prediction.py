"""The prediction of a campaign's cost: from its store, from seeds that are tried, from neither."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import prediction as prediction_module
from pipeline.campaign import Campaign, load_campaign
from pipeline.cost import nominal_cost
from pipeline.plan import choose_block_seeds, make_plan
from pipeline.prediction import predict_cost, try_seeds
from pipeline.provenance import open_ledger
from pipeline.work import Recipe, run_unit
from store.keys import Block
from store.ledger import counts

LARGE = 8192


@pytest.fixture
def campaign() -> Campaign:
    """Of some core-hours, most of them at a size that cannot be tried."""
    overrides = [f"grid.N=[16, {LARGE}]", "grid.alpha=[2.0, 3.0, 4.0]", "dynamics.T=10.0"]
    return load_campaign("quickstart", [*overrides, "instances=dense"])


def test_small_sizes_are_tried_and_the_larger_follow(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "new.zarr"
    cost = predict_cost(campaign, path)
    ((label, factor),) = cost.corrections.items()
    assert label == (3.0, 16)
    assert 0.01 < factor < 100
    whole, plain = (make_plan(campaign, path, one) for one in (cost, replace(cost, corrections={})))
    assert whole.core_seconds == pytest.approx(factor * plain.core_seconds)
    assert list(tmp_path.iterdir()) == []


def test_a_short_campaign_is_not_tried(tmp_path: Path) -> None:
    campaign = load_campaign("quickstart", ["grid.N=[16]", "grid.seeds=2"])
    assert predict_cost(campaign, tmp_path / "new.zarr").corrections == {}


def test_what_is_known_of_a_size_is_kept(campaign: Campaign) -> None:
    known = replace(nominal_cost(campaign), corrections={(2.0, LARGE): 5.0})
    cost = try_seeds(campaign, known)
    assert cost.corrections.keys() == {(2.0, LARGE), (3.0, 16)}
    assert cost.corrections[2.0, LARGE] == 5.0
    assert try_seeds(campaign, cost) == cost


def test_one_kind_of_instances_does_not_correct_the_other() -> None:
    campaign = load_campaign("quickstart", ["grid.N=[64, 128, 20000]"])
    plain = nominal_cost(campaign)
    cost = replace(plain, corrections={(3.0, 64): 5.0, (4.0, 64): 3.0})
    grid = campaign.grid_labels()
    for N, factor in ((64, 5.0), (128, 4.0), (20000, 1.0)):
        block = Block(grid.control, 3.0, N, grid.seeds[:1], grid.inits, grid.replicas)
        seconds, before = (one.block_seconds(block, 3 * N, 3) for one in (cost, plain))
        assert seconds == pytest.approx(factor * before)


def test_a_store_that_knows_all_sizes_is_believed(tmp_path: Path) -> None:
    campaign = load_campaign("quickstart", ["grid.N=[48]", "grid.alpha=[3.0]", "grid.seeds=16"])
    path = tmp_path / "some.zarr"
    with open_ledger(campaign, path) as ledger:
        (unit, *_) = make_plan(campaign, path, nominal_cost(campaign)).units
        for receipt in run_unit(str(path), Recipe.of(campaign), unit):
            ledger.mark(receipt.block, receipt.status)
    assert counts(path)["pending"] == 0
    larger = load_campaign("quickstart", ["grid.N=[48]", "grid.alpha=[3.0]", "grid.seeds=9000"])
    cost = predict_cost(larger, path)
    assert cost.corrections.keys() == {(3.0, 48)}
    took = receipt.seconds / 16
    assert cost.corrections[3.0, 48] * cost.seed_seconds(48, 144) == pytest.approx(took)


def test_a_trial_that_raises_leaves_it_to_the_sweep(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError("this one never works")

    monkeypatch.setattr(prediction_module, "compute_block", fail)
    cost = nominal_cost(campaign)
    assert try_seeds(campaign, cost) == cost


def test_trials_do_not_decide_how_a_store_is_cut(campaign: Campaign) -> None:
    before = choose_block_seeds(campaign)
    try_seeds(campaign, nominal_cost(campaign))
    assert choose_block_seeds(campaign) == before


@pytest.mark.parametrize(
    ("alone", "together", "each"), [(1.0, 2.5, 0.5), (0.1, 2.0, 0.5), (3.0, 2.0, 0.25)]
)
def test_seconds_of_one_more_seed(alone: float, together: float, each: float) -> None:
    assert prediction_module._seconds_per_seed(alone, together, 4) == pytest.approx(each)
