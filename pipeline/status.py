"""How far a campaign is, read from its store without disturbing a sweep that is under way."""

from typing import Any

from store.ledger import counts, read_driver, read_failures
from store.place import StorePath


def describe_status(path: StorePath) -> dict[str, Any]:
    """State of a store, ready for JSON.

    Returns
    -------
    dict
        ``pending``, ``done``, ``failed``, ``quarantined``: numbers of runs. ``running``: whether a
        sweep is under way. ``rate``: runs per second since it began, and ``eta_seconds`` what it
        has left at that rate; None where nothing runs or nothing has ended yet. ``failures``: the
        quarantined blocks with their error, worker, attempts and the time.
    """
    numbers = counts(path)
    driver = read_driver(path)
    rate = eta = None
    if driver is not None:
        ended, elapsed = driver.get("ended_since", 0), driver.get("elapsed", 0.0)
        if ended > 0 and elapsed > 0:
            rate = ended / elapsed
            eta = numbers["pending"] / rate
    return {
        **numbers,
        "running": driver is not None,
        "rate": rate,
        "eta_seconds": eta,
        "failures": [
            {key: failure[key] for key in ("key", "error", "worker", "attempts", "time")}
            for failure in read_failures(path)
        ],
    }
