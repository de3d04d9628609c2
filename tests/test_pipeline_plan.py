"""Plans: what is pending, how it is cut and grouped, what it is said to cost."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.campaign import Campaign, load_campaign
from pipeline.campaign_axes import count_measurements
from pipeline.cost import calibrated_cost, nominal_cost
from pipeline.history import correct_cost
from pipeline.plan import Plan, choose_block_seeds, make_plan, plan_chunks
from pipeline.provenance import open_ledger
from pipeline.work import Recipe, Unit, run_unit
from store.array_store import write_block
from store.groups import GROUPS
from store.keys import Block
from store.schema import RESULTS, Status


@pytest.fixture
def campaign() -> Campaign:
    return load_campaign("quickstart", ["grid.alpha=[2.0, 3.0]", "grid.seeds=40"])


def test_a_new_campaign_is_pending_as_a_whole(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "new.zarr"
    plan = make_plan(campaign, path, nominal_cost(campaign))
    assert plan.runs == plan.wanted == 2 * 3 * 40 * 3
    cells = [
        (block.value, block.N, seed, init)
        for unit in plan.units
        for block in unit.blocks
        for seed, init in itertools.product(block.seeds, block.inits)
    ]
    assert len(set(cells)) == len(cells) == plan.runs
    assert not path.exists()


def test_units_are_whole_chunks_of_one_size_of_some_seconds(
    campaign: Campaign, tmp_path: Path
) -> None:
    plan = make_plan(campaign, tmp_path / "new.zarr", nominal_cost(campaign))
    sizes = [unit.blocks[0].N for unit in plan.units]
    assert sizes == sorted(sizes, reverse=True)
    for unit in plan.units:
        assert len({block.N for block in unit.blocks}) == 1
        assert unit.seconds <= 60
    last_of_size = {size: place for place, size in enumerate(sizes)}
    full = [u.seconds for k, u in enumerate(plan.units) if k not in last_of_size.values()]
    assert min(full) >= 2.0
    assert plan.core_seconds == pytest.approx(sum(unit.seconds for unit in plan.units))


def test_only_pending_cells_of_a_store_are_planned(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "some.zarr"
    with open_ledger(campaign, path) as ledger:
        blocks = ledger.pending(campaign.grid_labels())[0]
        for block in blocks:
            ledger.mark(block, Status.DONE)
    done = sum(block.runs for block in blocks)
    plan = make_plan(campaign, path, nominal_cost(campaign))
    assert plan.runs == plan.wanted - done
    larger = load_campaign("quickstart", ["grid.alpha=[2.0, 3.0, 4.0]", "grid.seeds=40"])
    assert make_plan(larger, path, nominal_cost(larger)).runs == plan.runs + 3 * 40 * 3


def test_replicas_and_times_are_in_the_plan(campaign: Campaign, tmp_path: Path) -> None:
    def plan(*overrides: str) -> Plan:
        grid = ("grid.alpha=[2.0, 3.0]", "grid.seeds=40")
        wide = load_campaign("quickstart", [*grid, *overrides])
        return make_plan(wide, tmp_path / "new.zarr", nominal_cost(wide))

    plain, replicas = plan(), plan("grid.replicas=5")
    times = plan("trajectory.times=[1, 10]")
    both = plan("grid.replicas=5", "trajectory.times=[1, 10]")
    assert replicas.runs == replicas.wanted == both.runs == 5 * plain.runs
    assert times.runs == plain.runs
    assert replicas.new_bytes == 5 * plain.new_bytes
    per_run = plain.new_bytes // plain.runs
    assert times.new_bytes == plain.runs * (per_run + 2 * 8 * len(GROUPS["trajectory"].names))
    assert both.new_bytes == 5 * times.new_bytes
    chunks = plain.new_files // len(RESULTS)
    assert times.new_files == chunks * (len(RESULTS) + len(GROUPS["trajectory"].names))
    assert plain.worker_bytes < replicas.worker_bytes < both.worker_bytes
    assert plain.core_seconds < times.core_seconds
    assert plain.core_seconds < replicas.core_seconds < both.core_seconds


def test_a_spectrum_is_in_the_plan(tmp_path: Path) -> None:
    def plan(*overrides: str) -> Plan:
        wide = load_campaign("quickstart", ["grid.alpha=[2.0, 3.0]", *overrides])
        return make_plan(wide, tmp_path / "new.zarr", nominal_cost(wide))

    plain = plan()
    dense = plan("spectrum={times = [0.0, 1.0], range = [-8.0, 40.0], bins = 50}")
    assert dense.new_bytes == plain.new_bytes + plain.runs * 8 * (2 * 2 * 50 + 2 * 2)
    assert dense.new_files == plain.new_files // len(RESULTS) * (len(RESULTS) + 4)
    assert dense.core_seconds > plain.core_seconds
    assert dense.worker_bytes > plain.worker_bytes


def test_constants_are_in_the_plan(tmp_path: Path) -> None:
    def plan(*overrides: str) -> Plan:
        wide = load_campaign("quickstart", ["grid.alpha=[2.0, 3.0]", *overrides])
        return make_plan(wide, tmp_path / "new.zarr", nominal_cost(wide))

    plain, three = plan(), plan("parameters.a=[0.1, 1.0, 10.0]")
    assert (three.runs, three.wanted, three.blocks) == (3 * plain.runs, 3 * plain.wanted, 3 * 18)
    assert three.core_seconds == pytest.approx(3 * plain.core_seconds)
    assert (three.new_bytes, three.new_files) == (3 * plain.new_bytes, 3 * plain.new_files)
    assert three.worker_bytes == plain.worker_bytes
    assert [unit.blocks[0].N for unit in three.units] == sorted(
        (unit.blocks[0].N for unit in three.units), reverse=True
    )


def test_some_replicas_of_a_pair_pending_is_all_of_them_to_do(tmp_path: Path) -> None:
    path = tmp_path / "some.zarr"
    campaign = load_campaign("quickstart", ["grid.replicas=3"]).prune(1)
    with open_ledger(campaign, path) as ledger:
        ((block,),) = ledger.pending(campaign.grid_labels())
        ledger.mark(block, np.array([[[Status.DONE, Status.FAILED, Status.DONE]]]))
        ledger.flush()
        assert make_plan(campaign, path, nominal_cost(campaign)).runs == 0
        ledger.clear()
    assert make_plan(campaign, path, nominal_cost(campaign)).runs == 3


def test_block_seeds_shrink_with_size_and_are_powers_of_two() -> None:
    found = [
        choose_block_seeds(load_campaign("quickstart", [f"grid.N=[{N}]"]))
        for N in (16, 256, 1024, 4096)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] == 16
    assert found[-1] == 1
    assert all(np.log2(n) % 1 == 0 for n in found)
    many = load_campaign("quickstart", ["grid.N=[256]", "grid.replicas=100"])
    assert choose_block_seeds(many) < found[1]


def test_an_empty_plan_has_nothing(campaign: Campaign) -> None:
    plan = plan_chunks(campaign, [], nominal_cost(campaign), 16)
    assert (plan.runs, plan.blocks, plan.core_seconds, plan.new_bytes) == (0, 0, 0, 0)


def test_cost_grows_with_time_size_and_learning_rate() -> None:
    def seconds(*overrides: str) -> float:
        campaign = load_campaign("quickstart", ["grid.N=[128]", *overrides])
        return nominal_cost(campaign).seed_seconds(128, 384)

    base = seconds()
    assert seconds("dynamics.T=1200.0") > base
    stop = "dynamics.stop_at_minimum=true"
    assert seconds("dynamics.T=1e6", stop) == seconds("dynamics.T=1e4", stop)
    assert seconds("dynamics.T=1e4", stop) < seconds("dynamics.T=1e4")
    assert seconds('grid.inits=["random"]') < base
    assert seconds("dynamics.method=descent", "dynamics.learning_rate=0.005") > 10 * base
    assert 2 * base < seconds("grid.replicas=5") < 5 * base
    times = "trajectory.times={start = 0.1, stop = 300, num = 20}"
    plain, hessian, gain = (
        seconds(times, f"trajectory.hessian={hessian}", f"trajectory.gain={gain}")
        for hessian, gain in (("false", "false"), ("true", "false"), ("true", "true"))
    )
    assert base < plain < 1.2 * base < hessian < gain


@pytest.mark.slow
def test_calibrated_cost_is_right_to_a_factor_of_three(tmp_path: Path) -> None:
    """On real blocks; the factor allows for a machine that is busy with other things."""
    campaign = load_campaign("quickstart", ["grid.seeds=16", "grid.alpha=[3.0]"])
    path = tmp_path / "timed.zarr"
    cost = calibrated_cost(campaign)
    with open_ledger(campaign, path) as ledger:
        for (block,) in ledger.pending(campaign.grid_labels()):
            unit = plan_chunks(campaign, [(block,)], cost, 16).units[0]
            (receipt,) = run_unit(str(path), Recipe.of(campaign), unit)
            assert unit.seconds / 3 < receipt.seconds < 3 * unit.seconds, block.key


def test_duration_on_workers_is_that_of_handing_out_units(campaign: Campaign) -> None:
    plan = plan_chunks(campaign, [], nominal_cost(campaign), 16)
    units = tuple(Unit((), seconds) for seconds in (5.0, 4.0, 3.0, 3.0, 3.0))
    plan = replace(plan, units=units)
    assert plan.wall_seconds(1) == plan.core_seconds == 18.0
    assert plan.wall_seconds(2) == 10.0
    assert plan.wall_seconds(9) == 5.0


def test_history_corrects_the_cost(campaign: Campaign, tmp_path: Path) -> None:
    """Blocks that took three times as long as predicted, at one N; the other follows."""
    path = tmp_path / "some.zarr"
    cost = nominal_cost(campaign)
    random = np.random.default_rng(0)
    with open_ledger(campaign, path) as ledger:
        assert correct_cost(campaign, path, cost).corrections == {}
        for (block,) in ledger.pending(campaign.grid_labels()):
            if block.N != 128:
                continue
            measurements = count_measurements(block.value, block.N)
            slow = 3 if block.value == 2.0 else 1
            seconds = slow * cost.block_seconds(block, measurements, 3)
            results = {
                name: np.ones(block.shape, np.int8)
                if name in ("recovered", "instances")
                else random.random(block.shape)
                for name in RESULTS
            }
            results["seconds"] = np.full(block.shape, seconds / block.runs)
            write_block(path, block, results)
            ledger.mark(block, Status.DONE)
    corrected = correct_cost(campaign, path, cost)
    assert corrected.corrections == pytest.approx({(2.0, 128): 3.0, (3.0, 128): 1.0})
    for value, N, factor in ((2.0, 128, 3.0), (9.0, 128, 2.0), (3.0, 256, 2.0)):
        block = Block("alpha", value, N, (0,), ("random",))
        ratio = corrected.block_seconds(block, 300, 3) / cost.block_seconds(block, 300, 3)
        assert ratio == pytest.approx(factor)
