"""Data for the next program on standard output."""

import json
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print data alone on standard output.")]


def print_json(data: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(data, indent=1, allow_nan=False))  # noqa: T201
