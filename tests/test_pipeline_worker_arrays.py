"""Which array library a worker computes with, and who is told."""

import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

from pipeline import cli
from pipeline.cluster import ClusterError, Resources, connect
from pipeline.kernel.arrays import NUMPY, ArrayLibraryError
from pipeline.worker_arrays import KEY, choose_arrays, worker_arrays

CAMPAIGN = """
name = "tiny"
description = "for tests"
model = "phase_retrieval"
entropy = 7
parameters = { a = 1.0 }
grid = { alpha = [4.0], N = [12], seeds = 4, inits = ["random", "constrained"] }
dynamics = { method = "flow", T = 20.0, constrained_time = 5.0, dtype = "float64" }
"""


@pytest.fixture
def campaign_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.toml"
    path.write_text(CAMPAIGN)
    return path


def hesscape(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command; its exit code."""
    monkeypatch.setattr(sys, "argv", ["hesscape", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_it_is_numpy_unless_chosen_otherwise() -> None:
    assert worker_arrays() is NUMPY
    with choose_arrays("fortran"):
        with choose_arrays(None), pytest.raises(ArrayLibraryError, match="got 'fortran'"):
            worker_arrays()
        with choose_arrays("numpy"):
            assert worker_arrays() is NUMPY
    assert worker_arrays() is NUMPY


def test_an_environment_variable_chooses_too() -> None:
    settings = dask.config.collect(paths=[], env={"DASK_HESSCAPE__ARRAYS": "torch:cuda:1"})
    assert dask.config.get(KEY, config=settings) == "torch:cuda:1"


def test_workers_of_an_embedded_cluster_inherit_the_choice() -> None:
    with choose_arrays("fortran"), connect(Resources(workers=1)) as client:
        (answer,) = client.run(worker_arrays, on_error="return").values()
    assert isinstance(answer, ArrayLibraryError)


def test_workers_of_a_running_cluster_choose_themselves() -> None:
    with pytest.raises(ClusterError, match="start the workers with DASK_HESSCAPE__ARRAYS=torch"):
        Resources("tcp://127.0.0.1:1", arrays="torch")


def test_a_library_that_is_not_there_stops_a_run_before_anything_is_written(
    campaign_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("run", "tiny.toml", "--arrays", "fortran", "--scheduler")
    for scheduler in ("synchronous", "threads"):
        assert hesscape(monkeypatch, *command, scheduler) == 2
        assert "expected one of numpy, torch, cupy" in capsys.readouterr().err
        assert list(campaign_file.parent.iterdir()) == [campaign_file]


def test_a_run_in_torch_ends_as_in_numpy(
    campaign_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    command = ("run", "tiny.toml", "--scheduler", "synchronous", "--store")
    assert hesscape(monkeypatch, *command, "numpy.zarr") == 0
    assert hesscape(monkeypatch, *command, "torch.zarr", "--arrays", "torch:cpu") == 0
    one, other = (xr.open_zarr(f"{name}.zarr") for name in ("numpy", "torch"))
    assert (one.status == 1).all()
    assert (one.recovered == 1).any()
    for name in ("status", "recovered", "hit_time", "loss", "lambda1_end"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-7, atol=1e-9, err_msg=name)
