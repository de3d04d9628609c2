"""Campaign files and stores from strangers: nothing in them is executed, whatever they say."""

import ast
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import cli
from pipeline.campaign import CampaignError, parse_campaign
from pipeline.reproduce import reproduce_block
from pipeline.status import describe_status
from store.array_store import create_store, update_attributes, write_block
from store.cube import open_store
from store.keys import Block, Grid
from store.ledger import Ledger, read_failures
from store.schema import RESULTS, Status
from store.verify import verify_store

ROOT = Path(__file__).parents[1]
INITS = ("random",)
BLOCK = Block("alpha", 2.5, 8, (0, 1), INITS)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.file,)  # type: ignore[return-value]


def attacks(file: Path) -> list[str]:
    touch = f"__import__('pathlib').Path({str(file)!r}).touch()"
    return [
        touch,
        f"!!python/object/apply:os.system ['touch {file}']",
        f"$(touch {file})",
        f"`touch {file}`",
        f"{{{{ {touch} }}}}",
        f"{{{touch}}}",
        f"[link=javascript:alert(1)]{touch}[/link]",
        pickle.dumps(Bomb(file)).hex(),
    ]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "x.zarr"
    grid = Grid("alpha", (2.5,), (8,), (0, 1), INITS)
    create_store(path, grid, np.array([[20]]), block_seeds=2, attributes={"revisions": [{}]})
    random = np.random.default_rng(0)
    results = {
        name: np.ones(BLOCK.shape, np.int8)
        if name in ("recovered", "instances")
        else random.random(BLOCK.shape)
        for name in RESULTS
    }
    write_block(path, BLOCK, results)
    with Ledger(path) as ledger:
        ledger.mark(BLOCK, Status.DONE)
    return path


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "hit")))
    assert (tmp_path / "hit").exists()


def test_nothing_in_a_campaign_is_executed(tmp_path: Path) -> None:
    hit = tmp_path / "hit"
    for attack in attacks(hit):
        value = json.dumps(attack)
        for key in ("name", "description", "model", "entropy", "grid.alpha", "dynamics.method"):
            with pytest.raises(CampaignError):
                parse_campaign(f"{key} = {value}", source="stranger", overrides=[f"{key}={attack}"])
    assert not hit.exists()


def test_nothing_in_the_attributes_of_a_store_is_executed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hit = tmp_path / "hit"
    monkeypatch.chdir(tmp_path)
    for attack in attacks(hit):
        names = ("campaign", "kernel_version", "title", "physics", "created", "git_commit")
        update_attributes(store, {name: attack for name in names if name != "physics"})
        update_attributes(store, {"physics": {"parameters.a": attack, attack: attack}})
        failure = {"key": attack, "error": attack, "worker": attack, "attempts": attack}
        with Ledger(store) as ledger:
            ledger._record(failures=[{**failure, "time": attack, "traceback": attack}])
        assert read_failures(store)[0]["error"] == attack
        assert describe_status(store)["failures"][0]["key"] == attack
        with pytest.raises(CampaignError):
            reproduce_block(store, BLOCK.key)
        for command in (["status"], ["status", "--json"], ["verify"]):
            monkeypatch.setattr(sys, "argv", ["hesscape", *command, str(store)])
            with pytest.raises(SystemExit) as stopped:
                cli.main()
            assert not stopped.value.code
        assert "Traceback" not in capsys.readouterr().err
    assert not hit.exists()


def test_a_pickle_in_the_place_of_a_chunk_is_not_read(store: Path, tmp_path: Path) -> None:
    hit = tmp_path / "hit"
    (store / "loss" / "c.0.0.0.0").write_bytes(pickle.dumps(Bomb(hit)))
    with pytest.raises(ValueError, match="checksum"):
        open_store(store).loss.load()
    assert [damage.key for damage in verify_store(store).damages] == ["loss/c.0.0.0.0"]
    assert not hit.exists()


def test_an_array_of_objects_is_no_variable_of_a_store(store: Path, tmp_path: Path) -> None:
    """Metadata that ask for pickled objects, as Zarr 2 knew them, are refused by Zarr."""
    metadata = json.loads((store / "zarr.json").read_text())
    arrays = metadata["consolidated_metadata"]["metadata"]
    arrays["loss"]["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    (store / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises((ValueError, KeyError, zarr.errors.BaseZarrError)):
        xr.open_zarr(store).loss.load()


def test_no_code_of_ours_unpickles_or_evaluates() -> None:
    forbidden = {"eval", "exec", "compile", "__import__", "loads_pickle"}
    modules = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "yaml"}
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "store").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in forbidden, path
            if isinstance(node, ast.Import):
                assert not modules & {alias.name.split(".")[0] for alias in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in modules, path
