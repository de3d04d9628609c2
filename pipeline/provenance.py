"""Where the numbers of a store come from, and whether a campaign may add to them."""

import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.admission import installed_versions
from pipeline.campaign import Campaign
from pipeline.campaign_axes import tabulate_measurements
from pipeline.kernel.block import KERNEL_VERSION
from pipeline.plan import choose_block_seeds
from store.array_store import create_store, read_attributes
from store.ledger import Ledger
from store.lock import make_lock
from store.place import StorePath, is_there, show_path, writing


class StoreMismatchError(ValueError):
    """A store whose numbers are of another physics or kernel than the campaign's."""


def check_store(
    campaign: Campaign, path: StorePath, *, accept_kernel_version: bool = False
) -> None:
    """Refuse a store that the campaign must not add to; reads only.

    Parameters
    ----------
    campaign : Campaign
    path : str or PathLike
    accept_kernel_version : bool
        Whether numbers of this kernel may be added to those of another; each run tells which one
        it is from.

    Raises
    ------
    StoreMismatchError
        If physics or kernel version differ; the message lists each difference.
    """
    attributes = read_attributes(path)
    advice = (
        "choose another store with --store PATH, or give the campaign the store's values; "
        f"only {campaign.grid.control}, N, seeds, inits and lists of parameters can be extended"
    )
    differences = campaign.differences(attributes.get("physics", {}))
    version = attributes.get("kernel_version")
    if version != KERNEL_VERSION and not accept_kernel_version:
        differences.append(
            f"kernel version: the store has {version!r}, this hesscape {KERNEL_VERSION!r}"
        )
        advice += (
            ". To mix runs of both kernels, each with its own in `revision`, "
            "say --accept-kernel-version"
        )
    if differences:
        lines = "\n  ".join(differences)
        raise StoreMismatchError(
            f"{show_path(path)} holds other numbers than campaign {campaign.name!r} would add:\n"
            f"  {lines}\n{advice}"
        )


def open_ledger(
    campaign: Campaign, path: StorePath, *, accept_kernel_version: bool = False
) -> Ledger:
    """Ledger of the campaign's store, which is created or grown where it lacks labels.

    What is marked from now on bears the newest of the store's revisions, which is this campaign
    with this software.

    Raises
    ------
    StoreMismatchError
        As `check_store`.
    StoreLockedError
        If another driver has the store.
    StoreWriteError
        If it cannot be written.
    """
    wanted = campaign.grid_labels()
    if not is_there(path):
        _create(campaign, path)
    check_store(campaign, path, accept_kernel_version=accept_kernel_version)
    ledger = Ledger(path)
    try:
        before = read_attributes(path)
        if wanted.missing_from(ledger.grid):
            grid = ledger.grid.union(wanted)
            measurements = tabulate_measurements(campaign.model, grid.values, grid.N)
            ledger.grow(grid, measurements, describe(campaign, before))
        elif _revision(campaign) != _known_revision(before):
            ledger.update_attributes(describe(campaign, before))
        if not campaign.sampling:
            ledger.ask_for(wanted)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _create(campaign: Campaign, path: StorePath) -> None:
    """Create the store, unless another driver is quicker."""
    lock = make_lock(path)
    with writing(path):
        held = lock.acquire()
    try:
        if held and not is_there(path):
            create_store(
                path,
                campaign.grid_labels(),
                campaign.measurements(),
                block_seeds=choose_block_seeds(campaign),
                attributes={"title": campaign.name} | describe(campaign, {}),
                groups=campaign.groups(),
            )
    finally:
        if held:
            lock.release()


def describe(campaign: Campaign, before: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a store for a campaign that adds to it: what made its numbers, and when.

    `revisions` lists every campaign text, kernel and package versions that ever added to the store;
    the variable ``revision`` of the cube has, for each run, the place in that list.
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
    return {
        "campaign": campaign.to_toml(),
        "kernel_version": KERNEL_VERSION,
        "versions": dict(installed_versions()),
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
