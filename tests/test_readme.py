"""The README: its code runs, its campaign is valid, its table of keys is complete."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.campaign import MODELS, campaign_fields, load_campaign, parse_campaign
from pipeline.cluster import Resources
from pipeline.launch import launch

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # nothing recovers in so short a run
def test_the_queries_run_on_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["grid.alpha=[2.5, 3.0]", "grid.seeds=2", "dynamics.T=5.0"]
    campaign = load_campaign("quickstart", [*small, "dynamics.constrained_time=2.0"])
    quiet = Console(quiet=True)
    launch(campaign, Path("quickstart.zarr"), console=quiet, resources=Resources("synchronous"))
    more = ["grid.N=[128]", "grid.replicas=2", "trajectory.times=[0.5, 5.0]"]
    replicas = load_campaign("quickstart", [*small, *more, "dynamics.constrained_time=2.0"])
    launch(replicas, Path("replicas.zarr"), console=quiet, resources=Resources("synchronous"))
    namespace: dict[str, object] = {}
    for block in blocks("python"):
        exec(block, namespace)
    printed = capsys.readouterr().out
    for heading in ("constrained", "lambda1_start", "gained", "left", "effective_runs"):
        assert heading in printed


def test_the_campaign_is_valid() -> None:
    (text,) = blocks("toml")
    assert parse_campaign(text, source="README").grid_labels().shape == (10, 3, 48, 3)


def test_every_key_of_a_campaign_is_explained() -> None:
    sections = {"parameters", "grid", "dynamics", "trajectory", "spectrum", "sampling"}
    fields = {key for kind in MODELS.values() for key in campaign_fields(kind)}
    inside = {".".join(key) for key in fields} - sections
    tables = ("grid.alpha", "grid.snr", "trajectory.times", "spectrum.times")
    spaced = {f"{table}.{name}" for table in tables for name in ("start", "stop", "num")}
    rows = set(re.findall(r"^\| `([^`]+)` \|", README, flags=re.MULTILINE))
    assert inside - spaced <= rows
