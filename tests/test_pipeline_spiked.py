"""Campaigns of the spiked matrix-tensor model: the same pipeline, from the file to the figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipeline.campaign import CampaignError, load_campaign, parse_campaign
from pipeline.cost import calibrated_cost, nominal_cost
from pipeline.figures import draw_figures
from pipeline.figures_theory import theory_lines
from pipeline.kernel.block import run_block
from pipeline.launch import Resources, launch
from pipeline.plan import make_plan
from pipeline.provenance import StoreMismatchError
from pipeline.report import write_report
from pipeline.results import read_results
from pipeline.spiked_recovery import predict_half_points
from pipeline.theory.spiked_descent import descend
from pipeline.theory.spiked_model import make_spiked_model
from pipeline.work import Recipe
from store.array_store import read_attributes
from store.cube import open_store
from store.keys import Block
from store.ledger import counts

SMALL = """
name = "small"
model = "spiked_matrix_tensor"
entropy = 5

[parameters]
delta_p = 1.0
m0 = 0.3
recovered = 1.0

[grid]
snr = [1.5, 2.5]
N = [40, 100000]
seeds = 3
inits = ["random", "overlap"]

[dynamics]
method = "descent"
learning_rate = 0.1
T = 3.0

[trajectory]
times = [0.0, 1.0, 3.0]
"""


def run(path: Path, *overrides: str):  # type: ignore[no-untyped-def]
    campaign = parse_campaign(SMALL, source="small", overrides=overrides)
    return launch(campaign, path, console=Console(quiet=True), resources=Resources("synchronous"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spiked") / "small.zarr"
    run(path)
    return path


def test_the_campaign_reads_back_and_has_its_axes() -> None:
    campaign = parse_campaign(SMALL, source="small")
    assert parse_campaign(campaign.to_toml(), source="again") == campaign
    grid = campaign.grid_labels()
    assert (grid.control, grid.values, grid.shape) == ("snr", (1.5, 2.5), (2, 2, 3, 2))
    assert campaign.physics()["parameters.delta_p"] == 1.0
    assert campaign.physics()["parameters.p"] == 3
    assert (campaign.measurements() == 0).all()
    assert campaign.prune(1).grid_labels().shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("grid.snr=[]", r"grid\.snr: expected one label or more, got \[\]; .*snr = "),
        ("grid.snr=[2.0, 2.0]", r"grid\.snr: expected each label once, got \[2\.0\] more"),
        ("grid.snr=[-1.0]", r"grid\.snr\[0\]: expected 1/Delta_2, .*, got -1\.0"),
        ("grid.inits=['spectral']", r"grid\.inits\[0\]: .*\"overlap\".*, got 'spectral'"),
        ("grid.alpha=[2.0]", r"grid\.alpha: unknown key, got \[2\.0\]"),
        ("parameters.a=1.0", r"parameters\.a: unknown key, got 1\.0"),
        ("parameters.p=2", r"parameters\.p: expected the order .*, got 2"),
        ("parameters.recovered=0.0", r"parameters\.recovered: expected the \|m\| .*, got 0\.0"),
        ("parameters.m0=1.0", r"parameters\.m0: expected m\(0\) .*, got 1\.0"),
        ("parameters.m0=[0.1,0.1]", r"parameters\.m0: expected m\(0\) .*, got \[0\.1, 0\.1\]"),
        ("parameters.m0=[]", r"parameters\.m0: expected m\(0\) .*, got \[\]"),
        ("parameters.form=other", r"parameters\.form: expected the form .*, got 'other'"),
        ("parameters.delta_p=", r"parameters\.delta_p: expected the noise .*, got nothing"),
        ("spectrum={times=[1],range=[0,1],bins=1}", r"spectrum: expected nothing"),
    ],
)
def test_mistakes_name_their_key(override: str, said: str) -> None:
    with pytest.raises(CampaignError, match=said):
        parse_campaign(SMALL, source="small", overrides=[override])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["instances=conditional"], r'instances: expected "dense" or "auto" with .*, got "condi'),
        ([], r"grid\.N: expected sizes with at most 16777216 couplings .*, got \[100000\]; leave"),
        (["parameters.p=4", "grid.N=[100, 200]"], r"grid\.N: expected sizes .*, got \[200\]"),
    ],
)
def test_the_strict_form_wants_couplings_in_memory(overrides: list[str], said: str) -> None:
    with pytest.raises(CampaignError, match=said):
        parse_campaign(SMALL, source="small", overrides=["parameters.form=strict", *overrides])
    parse_campaign(
        SMALL, source="small", overrides=["parameters.form=strict", "instances=dense"]
    )  # who says so has the memory


def test_a_store_is_of_one_form(tmp_path: Path) -> None:
    small = ["grid.N=[40]", "grid.snr=[2.5]", "grid.inits=['overlap']", "parameters.p=4"]
    strict = [*small, "parameters.form=strict"]
    path = tmp_path / "strict.zarr"
    run(path, *strict)
    with pytest.raises(StoreMismatchError, match=r"form: 'strict' in the store(.|\n)*only snr, N"):
        run(path, *small)
    cube = open_store(path)
    assert cube.attrs["physics"]["parameters.form"] == "strict"
    task = Recipe.of(parse_campaign(SMALL, source="small", overrides=strict)).task(
        Block("snr", 2.5, 40, (0, 1, 2), ("overlap",))
    )
    values = run_block(task).values
    np.testing.assert_array_equal(cube.loss.squeeze(), values["loss"].squeeze())
    isotropic = run_block(replace(task, model=replace(task.model, form="isotropic")))
    assert (np.abs(isotropic.values["loss"] - values["loss"]) > 1e-3).all()


def test_several_starting_overlaps_are_an_axis(tmp_path: Path) -> None:
    path = tmp_path / "overlaps.zarr"
    few = ["grid.N=[1000000]", "grid.snr=[2.5]", "grid.inits=['overlap']", "dynamics.T=2.0"]
    few += ["trajectory.times=[0.0, 2.0]"]
    run(path, *few, "parameters.m0=[0.3, -0.1]")
    run(path, *few, "parameters.m0=[0.3, -0.1, 0.05]")
    cube = open_store(path)
    assert cube.sizes["m0"] == 3
    along = open_store(path, "trajectory").overlap
    for m0 in (0.3, -0.1, 0.05):
        assert along.sel(m0=m0, time=0.0).to_numpy() == pytest.approx(m0)
        exact = descend(make_spiked_model(2.5, 1.0), m0, duration=2.0, step=0.1)
        assert along.sel(m0=m0, time=2.0).to_numpy() == pytest.approx(exact.overlap[-1], abs=0.02)


def test_bundled_studies_are_valid_and_have_a_plan(tmp_path: Path) -> None:
    for name in ("spiked_recovery", "spiked_dynamics", "spiked_hitting_times"):
        campaign = load_campaign(name)
        plan = make_plan(campaign, tmp_path / "none.zarr", calibrated_cost(campaign))
        assert plan.runs == np.prod(campaign.grid_labels().shape)
        assert 30 < plan.core_seconds < 3600


def test_cost_grows_with_the_couplings_in_memory_and_not_without() -> None:
    campaign = load_campaign("spiked_recovery", ["grid.N=[100, 400, 1000, 1000000]"])
    small, most, beyond, far = (nominal_cost(campaign).seed_seconds(N, 0) for N in campaign.grid.N)
    assert far == beyond < small < most
    assert most > 10 * beyond  # `make bench-spiked`
    longer = load_campaign("spiked_recovery", ["dynamics.T=400.0"])
    assert nominal_cost(longer).seed_seconds(400, 0) > 5 * most


def test_runs_are_on_the_closed_equations(store: Path) -> None:
    cube = open_store(store)
    assert (cube.status == 1).all()
    assert dict(cube.sizes) == {"snr": 2, "N": 2, "seed": 3, "init": 2}
    assert cube.instances.sel(N=40).to_numpy().max() == 0
    assert cube.instances.sel(N=100000).to_numpy().min() == 1
    for snr in (1.5, 2.5):
        exact = descend(make_spiked_model(snr, 1.0), 0.3, duration=3.0, step=0.1)
        runs = cube.sel(snr=snr, N=100000, init="overlap")
        np.testing.assert_allclose(runs.overlap, exact.overlap[-1], atol=0.03)
        np.testing.assert_allclose(runs.multiplier, -exact.multiplier[-1], atol=0.03)


def test_a_store_resumes_and_grows_in_snr(store: Path) -> None:
    before = open_store(store).load()
    again = run(store)
    assert again.quarantined == 0
    run(store, "grid.snr=[1.5, 2.5, 3.0]", "grid.seeds=4")
    assert counts(store)["done"] == 3 * 2 * 4 * 2
    after = open_store(store).sel(snr=before.snr, seed=before.seed)
    np.testing.assert_array_equal(after.overlap, before.overlap)


def test_figures_of_the_store(store: Path) -> None:
    results = read_results(store)
    assert list(theory_lines(results).values()) == pytest.approx([1.618, 2.0, 2.4628], abs=1e-3)
    names = {drawn.name: drawn.figure for drawn in draw_figures(results)}
    assert "spiked_dynamics" in names
    at_start = names["hessian_at_start"].axes[0]
    (outlier,) = (line for line in at_start.lines if "outlier" in str(line.get_label()))
    assert np.interp(2.5, *outlier.get_data()) == pytest.approx(-4.3, abs=1e-3)
    assert [text.get_text() for text in at_start.texts] == ["flow"]
    first = names["spiked_dynamics"].axes[0]
    curve, *points = (line.get_xydata() for line in first.lines)
    exact = descend(make_spiked_model(1.5, 1.0), 0.3, duration=3.0, step=0.1)
    assert curve[-1] == pytest.approx([3.0, exact.overlap[-1]])
    assert len(points) >= 2


def test_adaptive_sampling_laws_and_report_of_random_starts(tmp_path: Path) -> None:
    path = tmp_path / "adaptive.zarr"
    overrides = [
        "grid.inits=['random']",
        "grid.snr=[1.2, 2.0, 2.8]",
        "grid.N=[1000, 10000]",
        "grid.seeds=8",
        "parameters.recovered=0.2",
        "dynamics.T=12.0",
        "dynamics.learning_rate=0.15",
        "trajectory=",
        "sampling={target_halfwidth=0.15,max_seeds=24}",
    ]
    outcome = run(path, *overrides)
    assert outcome.quarantined == 0
    cube, reduced = open_store(path), read_results(path).reduced
    asked = (cube.status == 1).sum("seed").to_numpy()
    assert 8 < asked.max() <= 24
    assert cube.sizes["snr"] > 3  # refined where the curves cross one half
    half = reduced.snr_half.sel(init="random").to_numpy()
    physics = cube.attrs["physics"]
    theory = predict_half_points(physics, reduced.snr.to_numpy().tolist(), reduced.N.to_numpy())
    assert theory is not None
    assert half[-1] == pytest.approx(theory[-1], abs=0.3)
    laws = reduced.sel(init="random")
    assert laws.law_aic.sel(law=["approach", "gain"]).notnull().all()
    assert laws.law_limit.sel(law="approach") == pytest.approx(2.0)
    recovery = next(draw_figures(read_results(path))).figure
    (curve,) = (
        line.get_xydata() for line in recovery.axes[-1].lines if line.get_label() == "theory at $T$"
    )
    assert np.interp(np.log(10000), np.log(curve[:, 0]), curve[:, 1]) == pytest.approx(theory[-1])
    page = write_report(read_results(path), read_attributes(path), counts(path))
    assert "half_recovery_laws" in page
    assert "spiked_matrix_tensor" in page
