"""A campaign from plan to store: executors agree, interrupted equals uninterrupted, faults pass."""

import io
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from dask.system import cpu_count
from distributed import Client
from distributed.system import MEMORY_LIMIT
from rich.console import Console

from pipeline import plan as plan_module
from pipeline.admission import Admission
from pipeline.campaign import Campaign, parse_campaign
from pipeline.cluster import Resources, connect
from pipeline.cost import nominal_cost
from pipeline.executors import (
    ClusterExecutor,
    Executor,
    Finished,
    InlineExecutor,
    TaskLostError,
    WorkerDiedError,
)
from pipeline.kernel import integrator as integrator_module
from pipeline.launch import launch
from pipeline.plan import make_plan
from pipeline.provenance import open_ledger
from pipeline.reductions import reduce_store
from pipeline.sweep import MOST_ATTEMPTS, Sweep
from pipeline.work import Receipt, Recipe, Unit, run_unit
from store.ledger import counts, read_failures
from store.place import StoreWriteError

CAMPAIGN = """
name = "tiny"
model = "phase_retrieval"
entropy = 7
[parameters]
a = 1.0
[grid]
alpha = [2.0, 4.0]
N = [12, 16]
seeds = 20
inits = ["random", "spectral", "constrained"]
[dynamics]
method = "flow"
T = 20.0
constrained_time = 5.0
"""


@dataclass
class Events:
    """A watcher that remembers."""

    received_units: list[Unit] = field(default_factory=list)
    retried: list[Unit] = field(default_factory=list)
    given_up: list[Unit] = field(default_factory=list)

    def received(self, unit: Unit, receipts: list[Receipt]) -> None:
        self.received_units.append(unit)

    def planned(self, units: Sequence[Unit]) -> None:
        pass

    def retries(self, unit: Unit, error: BaseException) -> None:
        self.retried.append(unit)

    def gave_up(self, unit: Unit, error: BaseException) -> None:
        self.given_up.append(unit)


@pytest.fixture
def campaign() -> Campaign:
    return parse_campaign(CAMPAIGN, source="test")


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """One unit per chunk."""
    monkeypatch.setattr(plan_module, "_UNIT_SECONDS", 0.0)


def sweep(
    campaign: Campaign,
    path: Path,
    executor: Executor,
    *,
    spoil: Callable[[Unit], None] = lambda unit: None,
) -> tuple[Events, xr.Dataset]:
    """Sweep over what is pending; `spoil` may raise before a unit is computed."""
    events = Events()
    work = partial(_spoilt_work, spoil, str(path), Recipe.of(campaign))
    with open_ledger(campaign, path) as ledger:
        units = make_plan(campaign, path, nominal_cost(campaign)).units
        return events, Sweep(ledger, str(path), work, executor, events).run(units)


def _spoilt_work(
    spoil: Callable[[Unit], None], path: str, recipe: Recipe, unit: Unit
) -> list[Receipt]:
    spoil(unit)
    return run_unit(path, recipe, unit)


def numbers(path: Path) -> xr.Dataset:
    """What a store holds, in the order of the labels, without the time it took."""
    cube = xr.open_zarr(path, chunks=None).load().drop_vars("seconds")
    return cube.sortby([dim for dim in cube.dims if dim != "init"]).sel(
        init=["random", "spectral", "constrained"]
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("uninterrupted") / "tiny.zarr"
    sweep(parse_campaign(CAMPAIGN, source="test"), path, InlineExecutor())
    return path


def test_every_run_is_done_and_known(uninterrupted: Path) -> None:
    cube = numbers(uninterrupted)
    assert dict(cube.sizes) == {"alpha": 2, "N": 2, "seed": 20, "init": 3}
    assert (cube.status == 1).all()
    assert cube.recovered.isin([0, 1]).all()
    assert (np.isfinite(cube.hit_time) == (cube.recovered == 1)).all()
    assert cube.M.values.tolist() == [[24, 32], [48, 64]]
    for name in ("overlap", "loss", "multiplier", "lambda1_start", "alignment_end", "gradients"):
        assert np.isfinite(cube[name]).all(), name


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
@pytest.mark.usefixtures("small_units")
def test_schedulers_give_equal_stores(
    campaign: Campaign, tmp_path: Path, uninterrupted: Path, processes: bool
) -> None:
    path = tmp_path / "tiny.zarr"
    launch(
        campaign,
        path,
        console=Console(quiet=True),
        resources=Resources(None if processes else "threads", workers=2),
    )
    xr.testing.assert_identical(numbers(path).drop_attrs(), numbers(uninterrupted).drop_attrs())


@pytest.mark.usefixtures("small_units")
def test_a_resumed_sweep_does_only_what_is_left(
    campaign: Campaign, tmp_path: Path, uninterrupted: Path
) -> None:
    path = tmp_path / "tiny.zarr"
    budget = iter(range(3))

    def stop_after_three(unit: Unit) -> None:
        if next(budget, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(campaign, path, InlineExecutor(), spoil=stop_after_three)
    before = counts(path)
    assert 0 < before["done"] < before["done"] + before["pending"]

    events, _ = sweep(campaign, path, InlineExecutor())
    assert sum(unit.runs for unit in events.received_units) == before["pending"]
    xr.testing.assert_identical(numbers(path).drop_attrs(), numbers(uninterrupted).drop_attrs())

    events, _ = sweep(campaign, path, InlineExecutor())
    assert not events.received_units


def test_growth_on_every_axis_computes_only_new_cells(
    campaign: Campaign, tmp_path: Path, uninterrupted: Path
) -> None:
    path = tmp_path / "tiny.zarr"
    small = parse_campaign(
        CAMPAIGN,
        source="test",
        overrides=["grid.alpha=[4.0]", "grid.N=[16]", "grid.seeds=6", 'grid.inits=["constrained"]'],
    )
    sweep(small, path, InlineExecutor())
    first = xr.open_zarr(path, chunks=None).load()
    events, _ = sweep(campaign, path, InlineExecutor())
    assert sum(unit.runs for unit in events.received_units) == 2 * 2 * 20 * 3 - 6

    grown = xr.open_zarr(path, chunks=None).load()
    same = grown.sel(alpha=[4.0], N=[16], seed=range(6), init=["constrained"])
    xr.testing.assert_equal(same, first)  # bit by bit, `seconds` too: nothing was recomputed
    for name in ("recovered", "M", "status"):
        np.testing.assert_array_equal(numbers(path)[name], numbers(uninterrupted)[name])


def test_numbers_do_not_depend_on_the_other_seeds(
    campaign: Campaign, tmp_path: Path, uninterrupted: Path
) -> None:
    fewer = parse_campaign(CAMPAIGN, source="test", overrides=["grid.seeds=3"])
    path = tmp_path / "fewer.zarr"
    sweep(fewer, path, InlineExecutor())
    xr.testing.assert_equal(numbers(path), numbers(uninterrupted).sel(seed=range(3)))


WIDE = [
    "grid.replicas=3",
    "trajectory.times=[0.0, 0.5, 5.0, 20.0]",
    "spectrum={times = [0.0, 5.0], range = [-3.0, 5.0], bins = 4}",
    "grid.seeds=6",
]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole store with replicas and trajectories."""
    path = tmp_path_factory.mktemp("wide") / "wide.zarr"
    sweep(parse_campaign(CAMPAIGN, source="test", overrides=WIDE), path, InlineExecutor())
    return path


def trajectories(path: Path) -> xr.Dataset:
    along = xr.open_zarr(path, group="trajectory", chunks=None).load()
    return along.sortby(["alpha", "N", "seed"]).sel(init=["random", "spectral", "constrained"])


def test_replicas_and_trajectories_arrive_in_the_store(wide: Path) -> None:
    cube, along = numbers(wide), trajectories(wide)
    assert dict(cube.sizes) == {"alpha": 2, "N": 2, "seed": 6, "init": 3, "replica": 3}
    assert dict(along.sizes) == {**cube.sizes, "time": 4}
    assert (cube.status == 1).all()
    assert counts(wide)["done"] == cube.status.size == 216
    assert (cube.lambda1_start.std("replica") > 0).all()
    known = (cube.hit_time >= along.time).transpose(*along.dims)
    for name in ("overlap", "loss", "multiplier", "lambda1", "lambda2", "alignment", "residual"):
        xr.testing.assert_equal(along[name].notnull().drop_attrs(), known.drop_attrs())
    at_start = along.lambda1.sel(time=0.0)
    np.testing.assert_allclose(at_start, cube.lambda1_start, rtol=1e-5, atol=1e-5)
    late = along.overlap.sel(time=20.0).where(cube.recovered == 0)
    np.testing.assert_allclose(abs(late), cube.overlap.where(late.notnull()), atol=0.05)
    for name in ("bulk_edge", "loss"):
        xr.testing.assert_equal(along[name].notnull().drop_attrs(), known.drop_attrs())
    assert not along.bulk_edge_equator.notnull().any()  # which comes with the gain
    tree = xr.open_datatree(wide, engine="zarr")
    spectrum = tree["spectrum"].to_dataset().load()
    assert dict(spectrum.sizes) == {**cube.sizes, "snapshot": 2, "eigenvalue": 4}
    assert spectrum.eigenvalue.values.tolist() == [-2.0, 0.0, 2.0, 4.0]
    total = 2 * spectrum.density.sum("eigenvalue") + spectrum.below + spectrum.above
    np.testing.assert_allclose(total.sel(snapshot=0.0), 1.0)
    spectrum = spectrum.sortby(["alpha", "N", "seed"]).sel(init=cube.init)
    there = spectrum.density.notnull().all("eigenvalue").sel(snapshot=5.0, drop=True)
    np.testing.assert_array_equal(there, known.sel(time=5.0))
    assert dict(tree["trajectory"].sizes) == dict(along.sizes)


@pytest.mark.usefixtures("small_units")
def test_replicas_and_trajectories_are_the_same_on_threads_and_resumed(
    tmp_path: Path, wide: Path
) -> None:
    path = tmp_path / "wide.zarr"
    campaign = parse_campaign(CAMPAIGN, source="test", overrides=WIDE)
    budget = iter(range(2))

    def stop_after_two(unit: Unit) -> None:
        if next(budget, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(campaign, path, InlineExecutor(), spoil=stop_after_two)
    assert 0 < counts(path)["pending"] < 216
    launch(campaign, path, console=Console(quiet=True), resources=Resources("threads", workers=2))
    xr.testing.assert_identical(numbers(path).drop_attrs(), numbers(wide).drop_attrs())
    xr.testing.assert_identical(trajectories(path).drop_attrs(), trajectories(wide).drop_attrs())


def test_growth_with_replicas_and_trajectories_computes_only_new_cells(
    tmp_path: Path, wide: Path
) -> None:
    path = tmp_path / "wide.zarr"
    few = ["grid.alpha=[4.0]", "grid.N=[16]", "grid.seeds=2", 'grid.inits=["constrained"]']
    small = parse_campaign(CAMPAIGN, source="test", overrides=[*WIDE, *few])
    sweep(small, path, InlineExecutor())
    cube, along = (xr.open_zarr(path, group=g, chunks=None).load() for g in (None, "trajectory"))
    events, _ = sweep(
        parse_campaign(CAMPAIGN, source="test", overrides=WIDE), path, InlineExecutor()
    )
    assert sum(unit.runs for unit in events.received_units) == 216 - 6
    labels = {"alpha": [4.0], "N": [16], "seed": range(2), "init": ["constrained"]}
    for group, first in ((None, cube), ("trajectory", along)):
        grown = xr.open_zarr(path, group=group, chunks=None).load().sel(labels)
        xr.testing.assert_equal(grown, first)  # bit by bit: nothing was recomputed
    np.testing.assert_array_equal(numbers(path).recovered, numbers(wide).recovered)


def test_failed_replicas_are_told_and_done_again_with_the_others(
    tmp_path: Path, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wide.zarr"
    campaign = parse_campaign(CAMPAIGN, source="test", overrides=WIDE)
    monkeypatch.setattr(integrator_module, "_MOST_EVALUATIONS", 40)
    console = Console(record=True, width=200, file=io.StringIO())
    launch(campaign, path, console=console, resources=Resources("synchronous"))
    told = re.findall(r"failed numerically: alpha=[24] N=1[26] (.*)", console.export_text())
    failed = counts(path)["failed"]
    assert 0 < failed < 216
    assert len(told) == failed
    assert re.fullmatch(r"seed=\d \w+ replica=[012]: TOO_MANY_GRADIENTS", told[0])
    monkeypatch.undo()
    with open_ledger(campaign, path) as ledger:
        assert ledger.clear() == failed
    events, _ = sweep(campaign, path, InlineExecutor())
    again = sum(unit.runs for unit in events.received_units)
    assert failed < again < 216
    assert again % 3 == 0
    np.testing.assert_array_equal(numbers(path).status, 1)
    np.testing.assert_array_equal(numbers(path).recovered, numbers(wide).recovered)


@pytest.mark.usefixtures("small_units")
def test_a_passing_fault_is_retried(
    campaign: Campaign, tmp_path: Path, uninterrupted: Path
) -> None:
    path = tmp_path / "tiny.zarr"
    calls = iter(range(10**6))

    def every_third_time(unit: Unit) -> None:
        if next(calls) % 3 == 2:
            raise OSError("disk on strike")

    events, _ = sweep(campaign, path, InlineExecutor(), spoil=every_third_time)
    assert events.retried
    assert not events.given_up
    xr.testing.assert_identical(numbers(path).drop_attrs(), numbers(uninterrupted).drop_attrs())


def _always_fails(unit: Unit) -> None:
    if any((block.N, block.value) == (12, 4.0) for block in unit.blocks):
        raise ArithmeticError("this one never works")


def test_a_lasting_fault_is_quarantined_alone(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "tiny.zarr"
    events, reduced = sweep(campaign, path, InlineExecutor(), spoil=_always_fails)
    assert counts(path) == {"pending": 0, "done": 180, "failed": 0, "quarantined": 60}
    assert {(b.N, b.value) for unit in events.given_up for b in unit.blocks} == {(12, 4.0)}
    for failure in read_failures(path):
        assert failure["error"] == "ArithmeticError: this one never works"
        assert "_always_fails" in failure["traceback"]
        assert failure["attempts"] == MOST_ATTEMPTS
    assert reduced.runs.sel(alpha=4.0, N=12).values.tolist() == [0, 0, 0]

    with open_ledger(campaign, path) as ledger:
        assert ledger.clear() == 60
    sweep(campaign, path, InlineExecutor())
    assert counts(path)["done"] == 240


def test_a_fault_at_one_value_of_a_constant_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "tiny.zarr"
    overrides = ["parameters.a=[0.1, 1.0]", "grid.N=[12]", "grid.alpha=[4.0]", "grid.seeds=2"]
    campaign = parse_campaign(CAMPAIGN, source="test", overrides=overrides)

    def fails(unit: Unit) -> None:
        if any(block.constants == (("a", 0.1),) for block in unit.blocks):
            raise ArithmeticError("not at this a")

    _, reduced = sweep(campaign, path, InlineExecutor(), spoil=fails)
    (failure,) = read_failures(path)
    assert failure["key"].startswith("a=0.1,alpha=4.0,N=12,")
    assert reduced.runs.sel(alpha=4.0, N=12, init="random").to_series().to_dict() == {0.1: 0, 1: 2}
    with open_ledger(campaign, path) as ledger:
        assert ledger.clear() == 6
    sweep(campaign, path, InlineExecutor())
    assert counts(path)["done"] == 12


@pytest.fixture
def client() -> Iterator[Client]:
    with connect(Resources(workers=2)) as client:
        yield client


def on_cluster(client: Client, path: Path, said: list[str] | None = None) -> ClusterExecutor:
    return ClusterExecutor(client, Admission(str(path)), print if said is None else said.append)


def _kills_its_worker(unit: Unit) -> None:
    if any((block.N, block.value) == (12, 4.0) for block in unit.blocks):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.usefixtures("small_units")
def test_a_unit_that_kills_its_worker_is_quarantined(
    campaign: Campaign, tmp_path: Path, client: Client
) -> None:
    path = tmp_path / "tiny.zarr"
    events, _ = sweep(campaign, path, on_cluster(client, path), spoil=_kills_its_worker)
    assert counts(path) == {"pending": 0, "done": 180, "failed": 0, "quarantined": 60}
    assert all("tcp://" in failure["worker"] for failure in read_failures(path))
    assert {(b.N, b.value) for unit in events.given_up for b in unit.blocks} == {(12, 4.0)}
    for failure in read_failures(path):
        assert failure["error"].startswith("WorkerDiedError: 4 workers died under it")
        assert failure["attempts"] == 8  # four of them alone


@pytest.mark.slow
@pytest.mark.usefixtures("small_units")
def test_units_that_shared_a_worker_with_a_deadly_one_are_not_quarantined(
    campaign: Campaign, tmp_path: Path
) -> None:
    """One worker with four threads: whoever is on it dies with it."""
    path = tmp_path / "tiny.zarr"
    options = {"n_workers": 1, "threads_per_worker": 4, "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}),  # its nanny is to stay
        Client(**options) as client,
    ):
        events, _ = sweep(campaign, path, on_cluster(client, path), spoil=_kills_its_worker_late)
    assert {(b.N, b.value) for unit in events.given_up for b in unit.blocks} == {(12, 4.0)}
    assert counts(path) == {"pending": 0, "done": 180, "failed": 0, "quarantined": 60}
    retried = {(block.N, block.value) for unit in events.retried for block in unit.blocks}
    assert retried > {(12, 4.0)}  # others died with it


def _kills_its_worker_late(unit: Unit) -> None:
    time.sleep(0.5)
    _kills_its_worker(unit)
    time.sleep(2.0)


@pytest.mark.slow
@pytest.mark.usefixtures("small_units")
def test_a_unit_beyond_the_memory_of_its_worker_is_quarantined(
    campaign: Campaign, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.zarr"
    share = 600e6 / (MEMORY_LIMIT / cpu_count())  # of what a worker may use by default
    settings = {
        "distributed.worker.memory.monitor-interval": "20ms",
        "distributed.worker.memory.terminate": share,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.target": False,
    }
    with dask.config.set(settings), connect(Resources(workers=2)) as client:
        events, _ = sweep(campaign, path, on_cluster(client, path), spoil=_eats_memory)
    assert {(b.N, b.value) for unit in events.given_up for b in unit.blocks} == {(12, 4.0)}
    assert counts(path)["done"] == 180


def _eats_memory(unit: Unit) -> None:
    hoard = []
    while any((block.N, block.value) == (12, 4.0) for block in unit.blocks):
        hoard.append(np.ones(1 << 20))
        time.sleep(0.005)


@pytest.mark.usefixtures("small_units")
def test_units_are_added_while_the_sweep_runs(
    campaign: Campaign, tmp_path: Path, uninterrupted: Path
) -> None:
    path = tmp_path / "tiny.zarr"

    class Adding(Events):
        def received(self, unit: Unit, receipts: list[Receipt]) -> None:
            super().received(unit, receipts)
            if later:
                running.add([later.pop()])

    with open_ledger(campaign, path) as ledger:
        first, *rest = make_plan(campaign, path, nominal_cost(campaign)).units
        later = list(rest)
        work = partial(run_unit, str(path), Recipe.of(campaign))
        events = Adding()
        running = Sweep(ledger, str(path), work, InlineExecutor(), events)
        reduced = running.run([first])
    assert events.received_units == [first, *reversed(rest)]
    xr.testing.assert_identical(reduced, reduce_store(path))
    xr.testing.assert_identical(numbers(path).drop_attrs(), numbers(uninterrupted).drop_attrs())


@pytest.mark.usefixtures("small_units")
def test_a_deadline_leaves_what_would_not_fit(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "tiny.zarr"
    events = Events()
    with open_ledger(campaign, path) as ledger:
        units = make_plan(campaign, path, nominal_cost(campaign)).units
        short, long = replace(units[0], seconds=1.0), replace(units[1], seconds=1e6)
        work = partial(run_unit, str(path), Recipe.of(campaign))
        deadline = time.monotonic() + 1000.0
        running = Sweep(ledger, str(path), work, InlineExecutor(), events, deadline=deadline)
        reduced = running.run([long, short, *units[2:]])
    assert events.received_units == [short, *units[2:]]
    assert counts(path)["pending"] == long.runs
    xr.testing.assert_identical(reduced, reduce_store(path))


@pytest.mark.usefixtures("small_units")
def test_a_store_that_cannot_be_written_stops_the_sweep_and_blames_no_block(
    campaign: Campaign, tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.zarr"
    budget = iter(range(4))

    def full(unit: Unit) -> None:
        if next(budget, None) is None:
            raise StoreWriteError(f"{path}: expected to write there, got a full disk")

    with pytest.raises(StoreWriteError, match="full disk"):
        sweep(campaign, path, InlineExecutor(), spoil=full)
    done = counts(path)
    assert done["quarantined"] == 0
    assert 0 < done["done"] < 240
    sweep(campaign, path, InlineExecutor())
    xr.testing.assert_identical(numbers(path).drop_attrs(), numbers(uninterrupted).drop_attrs())


@pytest.mark.usefixtures("small_units")
def test_tasks_that_the_cluster_lost_are_done_again_without_blame(
    campaign: Campaign, tmp_path: Path, uninterrupted: Path
) -> None:
    class Forgetful(InlineExecutor):
        calls = 0

        def submit(self, key: str, function: Callable[..., object], *arguments: object) -> None:
            self.calls += 1
            if self.calls % 3:  # reductions too
                self._ended.append(Finished(key, None, TaskLostError("lost")))
            else:
                super().submit(key, function, *arguments)

    path = tmp_path / "tiny.zarr"
    events, reduced = sweep(campaign, path, Forgetful())
    assert len(events.retried) == 2 * len(events.received_units)
    assert not events.given_up
    xr.testing.assert_identical(reduced, reduce_store(path))
    xr.testing.assert_identical(numbers(path).drop_attrs(), numbers(uninterrupted).drop_attrs())


@pytest.mark.parametrize(("deaths", "ends"), [(MOST_ATTEMPTS - 1, True), (MOST_ATTEMPTS, False)])
@pytest.mark.parametrize("reduction", ["reduce,N=12", "combine"])
def test_a_reduction_whose_workers_died_is_done_again(
    campaign: Campaign, tmp_path: Path, reduction: str, deaths: int, ends: bool
) -> None:
    class Deadly(InlineExecutor):
        left = deaths

        def submit(self, key: str, function: Callable[..., object], *arguments: object) -> None:
            if key == reduction and self.left:
                self.left -= 1
                self._ended.append(Finished(key, None, WorkerDiedError("4 workers died")))
            else:
                super().submit(key, function, *arguments)

    path = tmp_path / "tiny.zarr"
    if ends:
        _, reduced = sweep(campaign, path, Deadly())
        xr.testing.assert_identical(reduced, reduce_store(path))
    else:
        with pytest.raises(WorkerDiedError, match="4 workers died"):
            sweep(campaign, path, Deadly())
        assert counts(path)["pending"] == 0


@pytest.mark.usefixtures("small_units")
def test_an_error_on_a_cluster_names_its_worker(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "tiny.zarr"
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1}
    with Client(**options, dashboard_address="127.0.0.1:0") as client:
        sweep(campaign, path, on_cluster(client, path), spoil=_always_fails)
        workers = set(client.scheduler_info()["workers"])
    assert {failure["worker"] for failure in read_failures(path)} <= workers


def test_reductions_of_the_sweep_are_those_of_the_store(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "tiny.zarr"
    _, reduced = sweep(campaign, path, InlineExecutor())
    xr.testing.assert_identical(reduced, reduce_store(path))


@pytest.mark.parametrize("step", ["reduce_stored", "combine_stored"])
def test_an_error_of_a_reduction_is_raised_once(
    step: str, campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(*arguments: object) -> xr.Dataset:
        calls.append(arguments)
        raise MemoryError("too large to reduce")

    monkeypatch.setattr(f"pipeline.sweep.{step}", fail)
    path = tmp_path / "tiny.zarr"
    with pytest.raises(MemoryError, match="too large"):
        sweep(campaign, path, InlineExecutor())
    assert counts(path)["pending"] == 0
    assert len(calls) == (2 if step == "reduce_stored" else 1)  # a size each, or all at once
