"""What is wrong with a campaign file: every mistake at once, each with its key and its remedy."""

import difflib
import json
import re
import reprlib
from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]
Fields = Mapping[tuple[str, ...], FieldInfo]

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
FULL_SENTENCE = "campaign"  # error type of the messages that need nothing added but their key


class CampaignError(ValueError):
    """A campaign that cannot be run, with all its problems.

    Attributes
    ----------
    source
        The file or bundled workflow, as the user named it.
    problems
        One line each: dotted key, what was expected, «got …», what to do.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__(source, tuple(problems))
        self.source = source
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n  ".join([f"campaign {self.source}: {count}", *self.problems])


def show_value(value: object) -> str:
    """`repr` of a value from a file, on one short line whatever its length and depth."""
    short = reprlib.Repr()
    short.maxlevel, short.maxdict, short.maxlist, short.maxtuple = 3, 4, 6, 6
    short.maxstring = short.maxlong = short.maxother = 60
    try:
        return short.repr(value)
    except ValueError:  # Python refuses to print integers beyond 4300 digits
        return "an integer of thousands of digits"


def show_key(location: Location) -> str:
    """Dotted key of a place in the file: ("grid", "alpha", 1) → `grid.alpha[1]`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if BARE_KEY.fullmatch(part) else json.dumps(part)
            text += ("." if text else "") + (name if len(name) <= 60 else name[:59] + "…")
    return text


def explain(error: ValidationError, fields: Fields) -> list[str]:
    """One line for each mistake that pydantic found.

    Parameters
    ----------
    error
        What validating the file's data raised.
    fields
        Every key that a campaign may have, sections included. A field's `description` says what
        is expected and its `examples` how it is written: the documentation of a key is its
        error message.
    """
    return [_line(item, fields) for item in error.errors(include_url=False)]


def _line(item: ErrorDetails, fields: Fields) -> str:
    key, got = show_key(item["loc"]), show_value(item["input"])
    path = tuple(part for part in item["loc"] if isinstance(part, str))
    if item["type"] == FULL_SENTENCE:
        return f"{key}: {item['msg']}"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key, got {got}; {_advise(path, fields)}"
    field = fields[path]
    if item["type"] == "missing":
        got = "nothing"
    return f"{key}: expected {field.description}, got {got}; write for example {example_of(field)}"


def example_of(field: FieldInfo) -> str:
    """How a key is written, with its value."""
    return str((field.examples or [""])[0])


def _advise(path: tuple[str, ...], fields: Fields) -> str:
    """Guess what the writer of an unknown key meant."""
    section, name = path[:-1], path[-1]
    beside = [key[-1] for key in fields if key[:-1] == section]
    elsewhere = [key[:-1] for key in fields if key[-1] == name]
    close = difflib.get_close_matches(name, beside, n=1)
    if close:
        return f"did you mean {show_key((*section, *close))}?"
    if elsewhere:
        place = f"in [{show_key(elsewhere[0])}]" if elsewhere[0] else "above the first [section]"
        return f"{name} belongs {place}"
    return f"remove it; the keys here are {', '.join(beside)}"
