"""`--json` of the commands that have it."""

import json
import sys
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_json(value: object) -> None:
    """Write `value` to the standard output; what JSON does not know, as text."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
