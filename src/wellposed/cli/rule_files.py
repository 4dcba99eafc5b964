"""Rules for a model's weights from a file, TOML or JSON."""

import json
import tomllib
from pathlib import Path
from typing import Any

from wellposed.errors import WellposedError
from wellposed.init.getting import get
from wellposed.init.initializers.initializer import Initializer


def rules_from(path: Path) -> dict[str, Initializer | None]:
    """The rules that a file holds: from globs on parameters' paths to initializers.

    An initializer is its name, or its name under ``type`` with its fields beside it. ``null`` in JSON and ``false`` in
    TOML leave weights as they are.

    Args:
        path: A file that ends in ``.toml`` or ``.json``.

    Returns:
        The rules, in the file's order.

    Raises:
        WellposedError: If the file cannot be read, or a rule is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise WellposedError(f"the file of rules {str(path)!r} cannot be read: {reason}") from error
    try:
        rules = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text, object_pairs_hook=_once)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise WellposedError(f"the file of rules {str(path)!r} is not {kind}: {error}") from error
    if not isinstance(rules, dict):
        raise WellposedError(f"the file of rules {str(path)!r} holds {type(rules).__name__}; expected globs and rules")
    return {glob: _rule(path, glob, value) for glob, value in rules.items()}


def _rule(path: Path, glob: str, value: Any) -> Initializer | None:
    if value is None or value is False:
        return None
    try:
        return get(value)
    except WellposedError as error:
        raise WellposedError(f"the rule {glob!r} in {str(path)!r}: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise WellposedError(f"the file of rules has {name!r} twice; leave one of them out")
        found[name] = value
    return found
