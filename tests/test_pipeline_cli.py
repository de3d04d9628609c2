"""The command line: what it prints, writes and exits with."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

from pipeline import cli
from pipeline.kernel.block import KERNEL_VERSION
from store.array_store import update_attributes, write_block
from store.keys import parse_block
from store.ledger import Ledger
from store.schema import RESULTS, Status

CAMPAIGN = """
name = "tiny"
description = "for tests"
model = "phase_retrieval"
entropy = 7
[parameters]
a = 1.0
[grid]
alpha = [2.0, 5.0]
N = [12, 16]
seeds = 5
inits = ["random", "constrained"]
[dynamics]
method = "flow"
T = 20.0
constrained_time = 5.0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a campaign in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(CAMPAIGN)
    return tmp_path


def hesscape(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command; its exit code."""
    monkeypatch.setattr(sys, "argv", ["hesscape", *arguments])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


RUN = ("run", "tiny.toml", "--scheduler", "synchronous")


def test_run_leaves_store_table_and_figure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, *RUN) == 0
    printed = capsys.readouterr().out
    for text in ("40 to do", "random: probability of recovery", "N = 16", "α½", "recovery.png"):
        assert text in printed
    assert (folder / "tiny-figures" / "recovery.png").stat().st_size > 10_000
    cube = xr.open_zarr(folder / "tiny.zarr")
    assert dict(cube.sizes) == {"alpha": 2, "N": 2, "seed": 5, "init": 2}
    assert (cube.status == 1).all()
    for name in ("campaign", "kernel_version", "versions", "git_commit", "created", "revisions"):
        assert name in cube.attrs
    for name, variable in cube.data_vars.items():
        assert {"units", "long_name"} <= variable.attrs.keys(), name
    reduced = xr.open_zarr(folder / "tiny.zarr", group="reduced")
    assert {"probability", "probability_low", "alpha_half"} <= set(reduced)

    assert hesscape(monkeypatch, *RUN) == 0
    assert "40 done before, 0 to do" in capsys.readouterr().out


def test_extending_and_changing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, *RUN) == 0
    assert hesscape(monkeypatch, *RUN, "--set", "grid.seeds=7", "--set", "grid.N=[12]") == 0
    assert "20 done before, 8 to do" in capsys.readouterr().out
    assert len(xr.open_zarr("tiny.zarr").attrs["revisions"]) == 2

    before = sorted(
        (file, file.stat().st_mtime_ns) for file in folder.rglob("*") if "tiny.zarr" in str(file)
    )
    assert hesscape(monkeypatch, *RUN, "--set", "parameters.a=0.5") == cli.BAD_INPUT
    message = capsys.readouterr().err
    assert "parameters.a: 1.0 in the store, 0.5 in the campaign" in message
    assert "--store" in message
    after = sorted(
        (file, file.stat().st_mtime_ns) for file in folder.rglob("*") if "tiny.zarr" in str(file)
    )
    assert before == after


def test_a_list_of_a_is_an_axis_with_tables_and_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, *RUN, "--store", "one.zarr") == 0
    capsys.readouterr()
    several = (*RUN, "--set", "grid.N=[12]", "--set")
    assert hesscape(monkeypatch, *several, "parameters.a=[1.0]") == 0
    assert hesscape(monkeypatch, *several, "parameters.a=[0.1, 1.0]") == 0
    printed = capsys.readouterr().out
    for text in ("20 done before, 20 to do", "random, a = 0.1: probability", "constrained, a = 1:"):
        assert text in printed
    each = {
        f"{kind}-a={a}"
        for kind in ("recovery", "recovery_by_time", "paired_inits")
        for a in ("0.1", "1")
    }
    drawn = {file.stem for file in (folder / "tiny-figures").glob("*.png")}
    assert drawn == {"hessian_at_start", "phase_diagram", *each}
    cube, one = xr.open_zarr("tiny.zarr"), xr.open_zarr("one.zarr").sel(N=[12])
    assert cube.overlap.dims == ("a", "alpha", "N", "seed", "init")
    assert (cube.status == 1).all()
    # the same instances and starts for each a: a run is that of a campaign of its a alone
    for name in set(one.data_vars) - {"seconds"}:
        xr.testing.assert_equal(cube[name].sel(a=1.0, drop=True), one[name])
    assert (cube.lambda1_start.sel(a=0.1) != cube.lambda1_start.sel(a=1.0)).all()

    assert hesscape(monkeypatch, *several, "parameters.a=0.5") == cli.BAD_INPUT
    assert "parameters.a: 'an axis' in the store, 0.5 in the camp" in capsys.readouterr().err


def test_another_kernel_version_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, *RUN) == 0
    update_attributes(folder / "tiny.zarr", {"kernel_version": "0"})
    more = (*RUN, "--set", "grid.seeds=7")
    assert hesscape(monkeypatch, *more) == cli.BAD_INPUT
    message = capsys.readouterr().err
    assert "kernel version: the store has '0'" in message
    assert "--accept-kernel-version" in message

    revisions = xr.open_zarr("tiny.zarr").attrs["revisions"]
    update_attributes(
        folder / "tiny.zarr", {"revisions": [{**revisions[0], "kernel_version": "0"}]}
    )
    assert hesscape(monkeypatch, *more, "--accept-kernel-version") == 0
    cube = xr.open_zarr("tiny.zarr")
    kernels = [revision["kernel_version"] for revision in cube.attrs["revisions"]]
    assert kernels == ["0", KERNEL_VERSION]
    assert (cube.revision.sel(seed=range(5)) == 0).all()
    assert (cube.revision.sel(seed=[5, 6]) == 1).all()


def test_bad_campaigns_name_every_mistake_and_write_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ("grid.alpha=[-1.0]", "grid.N=[]", "dynamics.method=descent", "grid.sedes=3")
    arguments = [part for text in wrong for part in ("--set", text)]
    assert hesscape(monkeypatch, *RUN, *arguments) == cli.BAD_INPUT
    message = capsys.readouterr().err
    for key in ("grid.alpha[0]", "grid.N", "dynamics.learning_rate", "grid.sedes"):
        assert key in message
    assert [file.name for file in folder.iterdir()] == ["tiny.toml"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nowhere.toml"), "nowhere.toml"),
        ((*RUN, "--store", "no/such/folder/x.zarr"), "no/such/folder"),
        (("run", "tiny.toml", "--scheduler-file", "none.json", "--scheduler", "a:1"), "both"),
        (("status", "none.zarr"), "none.zarr"),
        (("reduce", "none.zarr"), "none.zarr"),
        (("plot", "none.zarr"), "none.zarr"),
        (("retry", "none.zarr"), "none.zarr"),
        ((*RUN, "--store", "tiny.toml"), "tiny.toml"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_bad_input_is_a_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    assert hesscape(monkeypatch, *arguments) == cli.BAD_INPUT
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert sorted(path.name for path in Path().iterdir()) == ["tiny.toml"]


def test_plan_counts_what_is_pending_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, "plan", "tiny.toml", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["runs"], record["runs_wanted"], record["blocks"]) == (40, 40, 4)
    assert record["core_hours"] > 0
    assert not (folder / "tiny.zarr").exists()
    assert hesscape(monkeypatch, *RUN, "--set", "grid.N=[12]") == 0
    capsys.readouterr()
    assert hesscape(monkeypatch, "plan", "tiny.toml") == 0
    assert "20 of 40 are pending" in capsys.readouterr().out


def test_status_reduce_plot_and_retry(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, *RUN) == 0
    capsys.readouterr()
    assert hesscape(monkeypatch, "status", "tiny.zarr", "--json") == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["done"], state["pending"], state["running"]) == (40, 0, False)
    assert hesscape(monkeypatch, "status", "tiny.zarr") == 0
    assert "done" in capsys.readouterr().out
    assert hesscape(monkeypatch, "reduce", "tiny.zarr", "--json") == 0
    assert "probability" in json.loads(capsys.readouterr().out)["data_vars"]
    assert hesscape(monkeypatch, "plot", "tiny.zarr", "--out", "pictures") == 0
    kinds = ["recovery", "half_recovery_laws", "collapse", "recovery_by_time", "paired_inits"]
    assert {path.name for path in (folder / "pictures").iterdir()} == {
        f"{kind}.{suffix}" for kind in [*kinds, "hessian_at_start"] for suffix in ("pdf", "png")
    }
    assert hesscape(monkeypatch, "retry", "tiny.zarr") == 0
    assert "0 runs" in capsys.readouterr().out


def test_status_loads_nothing_that_makes_it_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hesscape(monkeypatch, *RUN, "--set", "grid.N=[12]") == 0
    script = """
import sys
from pipeline.cli import app
sys.argv[1:] = ["status", "tiny.zarr"]
app(standalone_mode=False)
heavy = ("dask", "matplotlib", "pandas", "scipy", "xarray")
print("loaded:", *(name for name in heavy if name in sys.modules))
"""
    command = [sys.executable, "-c", script]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "done" in told.stdout
    assert told.stdout.splitlines()[-1].strip() == "loaded:"


def test_theory_as_json_and_as_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ("theory", "phase_retrieval", "--a", "1", "--alpha", "3", "--alpha", "8")
    assert hesscape(monkeypatch, *wanted, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["alpha_bbp_init"] == pytest.approx(1.1349, abs=5e-5)
    assert record["alpha_bbp_threshold"] == pytest.approx(7.094, abs=5e-4)
    first, second = record["rows"]
    assert first["outlier"] == pytest.approx(-5.624, abs=5e-4)
    assert first["outlier_threshold"] is None
    assert second["outlier_threshold"] == pytest.approx(-0.02428, abs=5e-5)
    assert hesscape(monkeypatch, *wanted) == 0
    printed = capsys.readouterr().out
    for text in ("1.1349", "7.094", "-5.5531", "0.28381", "energy"):
        assert text in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_theory_of_the_spiked_model_as_json_and_as_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ("theory", "spiked_matrix_tensor", "--delta-p", "1", "--snr", "1.5", "--snr", "2")
    assert hesscape(monkeypatch, *wanted, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["snr_gradient_flow"] == pytest.approx(2)
    assert record["rows"][1]["m_signal"] == pytest.approx(0.782665, abs=5e-7)
    assert "dynamics" not in record["rows"][1]
    along = (*wanted, "--dynamics", "--duration", "2", "--overlap", "0.2")
    assert hesscape(monkeypatch, *along, "--descent", "--json") == 0
    dynamics = json.loads(capsys.readouterr().out)["rows"][0]["dynamics"]
    assert (dynamics["m"][0], dynamics["time"][-1]) == pytest.approx((0.2, 2.0))
    assert hesscape(monkeypatch, *along, "--figures", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert {file.stem for file in tmp_path.glob("*.png")} >= {"phase_diagram", "complexity"}
    for text in ("2.4628", "0.78267", "Σ equator", "gradient flow at 1/Δ₂ = 1.5", "outlier"):
        assert text in printed
    lines = [line for line in printed.splitlines() if not line.startswith("figure")]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("phase_retrieval", "--a", "0"), "a must be positive"),
        (("phase_retrieval", "--a", "1", "--alpha", "-2"), "alpha = M/N must be positive"),
        (("phase_retrieval", "--a", "1", "--alpha", "1e40"), "threshold states of a = 1 could be"),
        (("phase_retrieval", "--a", "x"), "--a"),
        (("perceptron", "--a", "1"), "phase_retrieval"),
        (("phase_retrieval",), "--a"),
        (("phase_retrieval", "--a", "1", "--snr", "2"), "--snr"),
        (("spiked_matrix_tensor",), "--delta-p"),
        (("spiked_matrix_tensor", "--delta-p", "1", "--a", "1"), "--a"),
        (("spiked_matrix_tensor", "--delta-p", "0"), "Δ_p must be a positive number"),
        (("spiked_matrix_tensor", "--delta-p", "1", "--p", "2"), "an integer ≥ 3"),
        (("spiked_matrix_tensor", "--delta-p", "1", "--snr", "-1"), "snr = 1/Δ₂ must be"),
        (("spiked_matrix_tensor", "--delta-p", "1", "--dynamics"), "with --snr"),
    ],
)
def test_theory_refuses_what_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    assert hesscape(monkeypatch, "theory", *arguments) == cli.BAD_INPUT
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_workflows_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, "workflows") == 0
    assert "quickstart" in capsys.readouterr().out
    assert hesscape(monkeypatch, "workflows", "--json") == 0
    assert "quickstart" in json.loads(capsys.readouterr().out)


def test_a_budget_stops_cleanly_and_says_how_to_resume(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, *RUN, "--budget", "1e9s") == cli.BAD_INPUT
    assert "budget: expected a time above 0 such as 10h, 30m, 90s or 1h30m, got '1e9s'" in (
        capsys.readouterr().err
    )
    assert not (folder / "tiny.zarr").exists()
    assert hesscape(monkeypatch, *RUN, "--budget", "0.001s") == cli.SPENT
    printed = capsys.readouterr().out
    assert "The budget of 0.001s is spent; 0 of 40 runs are in tiny.zarr. To resume:" in printed
    assert hesscape(monkeypatch, *RUN, "--budget", "1h") == 0


def test_verify_finds_damage_and_the_next_run_heals_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, *RUN) == 0
    assert hesscape(monkeypatch, "verify", "tiny.zarr") == 0
    assert "0 damaged" in capsys.readouterr().out
    before = xr.open_zarr("tiny.zarr").drop_vars("seconds").load()
    (folder / "tiny.zarr" / "loss" / "c.0.0.0.0").unlink()
    assert hesscape(monkeypatch, "verify", "tiny.zarr") == 1
    printed = capsys.readouterr().out
    assert "loss/c.0.0.0.0: missing; its runs are pending" in printed
    assert "1 damaged, 10 runs pending because of it" in printed
    assert hesscape(monkeypatch, *RUN) == 0
    assert "30 done before, 10 to do" in capsys.readouterr().out
    after = xr.open_zarr("tiny.zarr").drop_vars("seconds").load()
    xr.testing.assert_equal(after, before)


def test_a_damaged_status_is_told_and_mended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, *RUN) == 0
    file = folder / "tiny.zarr" / "status" / "c.0.0.0.0"
    file.write_bytes(file.read_bytes()[:-1])
    for command in (("status", "tiny.zarr"), RUN, ("retry", "tiny.zarr")):
        assert hesscape(monkeypatch, *command) == cli.BAD_INPUT
        assert "`hesscape verify tiny.zarr` finds and mends it" in capsys.readouterr().err
    assert hesscape(monkeypatch, "verify", "tiny.zarr") == 1
    assert hesscape(monkeypatch, *RUN) == 0
    assert "40 done before, 0 to do" in capsys.readouterr().out


def test_a_block_is_reproduced_and_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hesscape(monkeypatch, *RUN) == 0
    key = "alpha=2.0,N=12,seeds=0-4,inits=random+constrained"
    assert hesscape(monkeypatch, "reproduce", "tiny.zarr", key) == 0
    assert "10 stored runs have the same numbers, bit by bit" in capsys.readouterr().out

    block = parse_block(key)
    cube = xr.open_zarr("tiny.zarr").sel(alpha=2.0, N=12, init=["random", "constrained"])
    results = {name: cube[name].to_numpy().copy() for name in RESULTS}
    results["loss"][1, 0] += 1.0
    write_block("tiny.zarr", block, results)
    assert hesscape(monkeypatch, "reproduce", "tiny.zarr", key) == 1
    assert "loss: 1 of 10 numbers, such as" in capsys.readouterr().out

    with Ledger("tiny.zarr") as ledger:
        ledger.mark(block, Status.PENDING)
    assert hesscape(monkeypatch, "reproduce", "tiny.zarr", key) == 0
    assert "nothing of it is stored" in capsys.readouterr().out
    for wrong in ("alpha=2.0", "alpha=9.0,N=12,seeds=0,inits=random"):
        assert hesscape(monkeypatch, "reproduce", "tiny.zarr", wrong) == cli.BAD_INPUT
        assert "expected" in capsys.readouterr().err


def test_a_quarantined_block_is_shown_and_debugged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError("not this one")

    monkeypatch.setattr("pipeline.work.run_block", fail)
    assert hesscape(monkeypatch, *RUN, "--set", "grid.N=[12]") == cli.QUARANTINED
    capsys.readouterr()
    assert hesscape(monkeypatch, "status", "tiny.zarr") == 0
    printed = capsys.readouterr().out
    key = "alpha=2.0,N=12,seeds=0-4,inits=random+constrained"
    assert f"quarantined {key}: ArithmeticError: not this one (worker the driver, 3 att" in printed
    assert f"hesscape reproduce tiny.zarr '{key}'" in printed

    monkeypatch.setattr(sys, "stdin", io.StringIO("continue\nwhere\nquit\n"))
    monkeypatch.setattr(sys, "argv", ["hesscape", "reproduce", "tiny.zarr", key, "--debugger"])
    with pytest.raises(ArithmeticError, match="not this one"):
        cli.main()
    printed = capsys.readouterr().out
    assert "compute_block()" in printed
    assert 'raise ArithmeticError("not this one")' in printed
