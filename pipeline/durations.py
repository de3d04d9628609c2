"""Times as people write them on a command line."""

import re


class DurationError(ValueError):
    """A text that is no time."""


def parse_duration(text: str) -> float:
    """Seconds of a text such as ``10h``, ``30m``, ``90s``, ``1h30m`` or ``2d``.

    Raises
    ------
    DurationError
        If it is anything else, or zero.
    """
    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
    part = r"([0-9]+(?:\.[0-9]+)?)([dhms])"
    seconds = 0.0
    if re.fullmatch(f"(?:{part})+", text):
        seconds = sum(float(number) * units[unit] for number, unit in re.findall(part, text))
    if seconds <= 0:
        raise DurationError(
            f"budget: expected a time above 0 such as 10h, 30m, 90s or 1h30m, got {text!r}"
        )
    return seconds
