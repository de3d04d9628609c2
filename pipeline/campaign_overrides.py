"""Values of a campaign file that the command line replaces: `--set grid.seeds=50`."""

import re
import tomllib
from typing import Any

from pipeline.campaign_errors import BARE_KEY, show_key, show_value


def override(data: dict[str, Any], text: str) -> None:
    """Set one `dotted.key=value` in the data; a ValueError says what is wrong with it."""
    dotted, equals, value = (part.strip() for part in text.partition("="))
    *section, key = dotted.split(".")
    if not (equals and all(BARE_KEY.fullmatch(part) for part in (*section, key))):
        got = show_value(text)
        raise ValueError(f"override: expected KEY=VALUE, got {got}; write as in grid.seeds=50")
    table: Any = data
    for depth, part in enumerate(section, start=1):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            inner, got = show_key(tuple(section[:depth])), show_value(table)
            raise ValueError(  # noqa: TRY004 - a mistake of the user's, not of the caller's
                f"override {dotted}: expected a table at {inner}, got {got}; set {inner} instead"
            )
    if value:
        table[key] = _read_value(dotted, value)
    else:
        table.pop(key, None)


def _read_value(dotted: str, value: str) -> object:
    if re.fullmatch(r"[A-Za-z][\w-]*", value) and value not in ("true", "false", "inf", "nan"):
        return value
    try:
        data = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        data = {}
    if data.keys() != {"value"}:
        raise ValueError(
            f"override {dotted}: expected a TOML value, got {show_value(value)}; "
            f"quote text with spaces or signs, as in {dotted}='\"some text\"'"
        )
    return data["value"]
