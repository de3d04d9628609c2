"""What readers see of a store: the consolidated metadata, published by one atomic write.

Readers take shapes and labels from one file, the consolidated metadata in the root's ``zarr.json``;
publishing a change there comes last and is atomic. zarr-python can write that file too, but from
whatever a killed process may have left behind; here only what is named is published.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from zarr.abc.store import Store

from store.place import list_keys, read_bytes, write_bytes

Json = dict[str, Any]
METADATA = "zarr.json"
COPIES = "ledger/copy/"
"""Where copies of what only the driver writes are kept, as damage there would cost everything."""


def read_metadata(place: Store, node: str = "") -> Json:
    """Metadata of a group or an array, as its file has them.

    Raises
    ------
    FileNotFoundError
        If there is no such node.
    """
    content = read_bytes(place, f"{node}/{METADATA}".lstrip("/"))
    if content is None:
        raise FileNotFoundError(f"{place}: expected metadata of {node or 'the root'!r}, got none")
    metadata: Json = json.loads(content)
    return metadata


def publish_nodes(
    place: Store,
    nodes: Iterable[str],
    *,
    group: str = "",
    attributes: Mapping[str, object] | None = None,
    withdraw: str | None = None,
) -> None:
    """Show nodes to readers, by one atomic write of the consolidated metadata of a group.

    Parameters
    ----------
    place : Store
        The store as Zarr writes it.
    nodes : iterable of str
        Paths of arrays and groups, relative to `group`; others stay as they were.
    group : str
        Group whose consolidated metadata are written; the root by default.
    attributes : mapping, optional
        Attributes to add to the group, in the same write.
    withdraw : str, optional
        Subgroup to hide first, with all that is in it.
    """
    metadata = read_metadata(place, group)
    consolidated = metadata.setdefault(
        "consolidated_metadata", {"kind": "inline", "must_understand": False, "metadata": {}}
    )
    shown = {
        name: node
        for name, node in consolidated["metadata"].items()
        if withdraw is None or name.split("/", 1)[0] != withdraw
    }
    for name in nodes:
        shown[name] = read_metadata(place, f"{group}/{name}")
        if "consolidated_metadata" in shown[name]:
            shown[name]["consolidated_metadata"]["metadata"] = {}  # its members are listed here
    consolidated["metadata"] = dict(sorted(shown.items()))
    metadata["attributes"].update(attributes or {})
    text = json.dumps(metadata, indent=2, allow_nan=False)
    if not group:  # the copy first: all that it shows is there, and readers see the change last
        write_bytes(place, f"{COPIES}{METADATA}", text.encode())
    write_bytes(place, f"{group}/{METADATA}".lstrip("/"), text.encode())


def copy_files(place: Store, arrays: Iterable[str]) -> None:
    """Copy the chunks of arrays, which are few and small, below `COPIES`."""
    for array in arrays:
        for key in list_chunks(place, array):
            content = read_bytes(place, key)
            if content is not None:
                write_bytes(place, f"{COPIES}{key}", content)


def list_chunks(place: Store, array: str) -> list[str]:
    """Keys of the chunks of an array that are there."""
    names = (key.removeprefix(f"{array}/") for key in list_keys(place, f"{array}/"))
    return [f"{array}/{name}" for name in names if name.startswith("c.")]
