"""The recipes: each runs as it stands on a small store, and prints what it should."""

import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipeline.campaign import parse_campaign
from pipeline.cluster import Resources
from pipeline.launch import launch

RECIPES = (Path(__file__).parent.parent / "workflows" / "RECIPES.md").read_text(encoding="utf-8")
CAMPAIGN = """
name = "campaign"
model = "phase_retrieval"
entropy = 5
[parameters]
a = 1.0
[grid]
alpha = [1.5, 3.0, 6.0]
N = [12, 16]
seeds = 10
inits = ["random", "spectral", "constrained"]
[dynamics]
method = "flow"
T = 20.0
constrained_time = 5.0
[trajectory]
times = [0.1, 1.0, 5.0, 20.0]
gain = true
"""


@pytest.mark.filterwarnings("ignore:All-NaN slice", "ignore:Mean of empty slice")
def test_every_recipe_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    campaign = parse_campaign(CAMPAIGN, source="test")
    resources = Resources(scheduler="synchronous")
    launch(campaign, "campaign.zarr", console=Console(quiet=True), resources=resources)
    blocks = re.findall(
        r"^## ([^\n]*)\n.*?```python\n(.*?)```", RECIPES, flags=re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == RECIPES.count("```python") - 1 >= 8
    namespace: dict[str, object] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        opening = RECIPES.split("```python\n")[1].split("```")[0]
        for title, block in [("", opening), *blocks]:
            exec(block, namespace)
            printed = capsys.readouterr().out
            assert not title or printed.strip(), title
