"""What a store says of itself, and which campaigns may add to it."""

from pathlib import Path

import pytest

from pipeline.campaign import Campaign, load_campaign, parse_campaign
from pipeline.kernel.block import KERNEL_VERSION
from pipeline.provenance import StoreMismatchError, check_store, open_ledger
from store.array_store import read_attributes, read_grid, read_groups
from store.ledger import Ledger
from store.lock import StoreLockedError


@pytest.fixture
def campaign() -> Campaign:
    return load_campaign("quickstart").prune(2)


def test_the_store_carries_its_campaign_and_versions(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    open_ledger(campaign, path).close()
    attributes = read_attributes(path)
    assert parse_campaign(attributes["campaign"], source="store") == campaign
    assert attributes["kernel_version"] == KERNEL_VERSION
    assert {"python", "hesscape", "numpy", "zarr"} <= attributes["versions"].keys()
    assert len(attributes["git_commit"].rstrip("+")) in {0, 40}
    assert len(attributes["revisions"]) == 1


def test_the_store_has_the_replicas_and_times_of_its_campaign(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    campaign = load_campaign("quickstart", ["grid.replicas=2", "trajectory.times=[1, 10]"]).prune(1)
    open_ledger(campaign, path).close()
    grown = load_campaign("quickstart", ["grid.replicas=2", "trajectory.times=[1, 10]"]).prune(2)
    open_ledger(grown, path).close()
    assert read_grid(path) == grown.grid_labels()
    assert read_groups(path) == grown.groups() == {"trajectory": {"time": (1.0, 10.0)}}


def test_opening_again_adds_no_revision_growing_does(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    open_ledger(campaign, path).close()
    created = read_attributes(path)["created"]
    open_ledger(campaign, path).close()
    assert len(read_attributes(path)["revisions"]) == 1
    grown = load_campaign("quickstart").prune(3)
    open_ledger(grown, path).close()
    attributes = read_attributes(path)
    assert len(attributes["revisions"]) == 2
    assert attributes["created"] == created
    assert attributes["revisions"][0]["campaign"] == campaign.to_toml()
    assert read_grid(path) == campaign.grid_labels().union(grown.grid_labels())


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("parameters.a=0.5", "parameters.a"),
        ("dynamics.T=100.0", "dynamics.T"),
        ("dynamics.dtype=float64", "dynamics.dtype"),
        ("entropy=1", "entropy"),
        ("grid.replicas=2", "grid.replicas"),
        ("trajectory.times=[1.0]", "trajectory.times"),
    ],
)
def test_other_physics_is_refused_with_the_difference(
    campaign: Campaign, tmp_path: Path, override: str, key: str
) -> None:
    path = tmp_path / "a.zarr"
    open_ledger(campaign, path).close()
    other = load_campaign("quickstart", [override])
    with pytest.raises(StoreMismatchError, match=key.replace(".", r"\.")):
        check_store(other, path)
    with pytest.raises(StoreMismatchError, match="--store"):
        open_ledger(other, path)
    assert read_grid(path) == campaign.grid_labels()


def test_a_store_being_driven_is_refused(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with open_ledger(campaign, path), pytest.raises(StoreLockedError):
        open_ledger(campaign, path)
    Ledger(path).close()  # both gave the lock back
