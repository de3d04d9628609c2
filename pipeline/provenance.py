"""Where the numbers of a store come from, and whether a campaign may add to them."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.campaign import Campaign
from pipeline.campaign_sections import tabulate_measurements
from pipeline.kernel.block import KERNEL_VERSION
from pipeline.plan import choose_block_seeds
from store.array_store import create_store, read_attributes, update_attributes
from store.ledger import Ledger

_PACKAGES = ("hesscape", "numpy", "scipy", "dask", "distributed", "zarr", "xarray")


class StoreMismatchError(ValueError):
    """A store whose numbers are of another physics or kernel than the campaign's."""


def check_store(campaign: Campaign, path: str | os.PathLike[str]) -> None:
    """Refuse a store that the campaign must not add to; reads only.

    Raises
    ------
    StoreMismatchError
        If physics or kernel version differ; the message lists each difference.
    """
    attributes = read_attributes(path)
    differences = campaign.differences(attributes.get("physics", {}))
    version = attributes.get("kernel_version")
    if version != KERNEL_VERSION:
        differences.append(
            f"kernel version: the store has {version!r}, this hesscape {KERNEL_VERSION!r}"
        )
    if differences:
        lines = "\n  ".join(differences)
        raise StoreMismatchError(
            f"{os.fspath(path)} holds other numbers than campaign {campaign.name!r} would add:\n"
            f"  {lines}\n"
            "choose another store with --store PATH, or give the campaign the store's values; "
            "only alpha, N, seeds, inits and lists of parameters can be extended"
        )


def open_ledger(campaign: Campaign, path: str | os.PathLike[str]) -> Ledger:
    """Ledger of the campaign's store, which is created or grown where it lacks labels.

    Raises
    ------
    StoreMismatchError
        As `check_store`.
    store.ledger.StoreLockedError
        If another driver has the store.
    """
    wanted = campaign.grid_labels()
    if not Path(path).exists():
        create_store(
            path,
            wanted,
            campaign.measurements(),
            block_seeds=choose_block_seeds(campaign),
            attributes={"title": campaign.name} | describe(campaign, {}),
            times=campaign.times(),
        )
    check_store(campaign, path)
    ledger = Ledger(path)
    try:
        if wanted.missing_from(ledger.grid):
            grid = ledger.grid.union(wanted)
            attributes = describe(campaign, read_attributes(path))
            ledger.grow(grid, tabulate_measurements(grid.values, grid.N), attributes)
        elif _revision(campaign) != _known_revision(read_attributes(path)):
            update_attributes(path, describe(campaign, read_attributes(path)))
    except BaseException:
        ledger.close()
        raise
    return ledger


def describe(campaign: Campaign, before: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a store for a campaign that adds to it: what made its numbers, and when.

    `revisions` lists every campaign text, kernel and package versions that ever added to the store.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    revision = _revision(campaign)
    return {
        **revision,
        "physics": campaign.physics(),
        "created": before.get("created", now),
        "revisions": [*before.get("revisions", []), {"time": now, **revision}],
    }


def _revision(campaign: Campaign) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in _PACKAGES}
    return {
        "campaign": campaign.to_toml(),
        "kernel_version": KERNEL_VERSION,
        "versions": versions,
        "git_commit": _git_commit(),
    }


def _known_revision(attributes: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("campaign", "kernel_version", "versions", "git_commit")
    return {key: attributes.get(key) for key in keys}


def _git_commit() -> str:
    """Commit of the source tree that runs, "" outside one; "+" marks uncommitted changes."""
    here = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        inside = subprocess.run(  # noqa: S603
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],  # noqa: S607
            cwd=here,
            capture_output=True,
            timeout=10,
            check=False,
        )
        if inside.returncode:
            return ""
        found = subprocess.run(  # noqa: S603
            command, cwd=here, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
