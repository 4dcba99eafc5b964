"""What a folder of first weights was made from, kept beside them so that no other run goes on with it."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from wellposed.errors import WellposedError
from wellposed.init.checkpoints.claims import claimed, is_finished
from wellposed.init.checkpoints.contents import Stored
from wellposed.init.plan import Plan

NAME = "wellposed-init.json"
STREAM = 1  # the version of the random numbers, as the changelog has it
_SAID = {
    "stream": "version {} of the random numbers",
    "seed": "the seed {}",
    "scheme": "the scheme {!r}",
    "dtype": "the dtype {}",
    "format": "the format {!r}",
    "shard_size": "files of {} bytes",
    "digest": "a model, or rules, of the digest {}",
}
VALUES = ("stream", "seed", "scheme", "dtype")  # what decides the numbers, for one model and its rules


def manifest(
    plan: Plan, entries: Sequence[Stored], dtype: torch.dtype | None, layout: str, shard_size: int
) -> dict[str, Any]:
    """What a folder is made from, in plain values."""
    described = [[*entry.names, str(entry.dtype), entry.shape, entry.recipe] for entry in entries]
    return {
        "schema": 1,
        "stream": STREAM,
        "seed": plan.key.seed,
        "scheme": plan.scheme,
        "dtype": "as the model has them" if dtype is None else str(dtype).removeprefix("torch."),
        "format": layout,
        "shard_size": shard_size,
        "digest": blake2b(json.dumps(described).encode(), digest_size=16).hexdigest(),
    }


def settle(folder: Path, wanted: dict[str, Any]) -> None:
    """Leave a manifest in a folder that has none, or see that the one that is there says the same.

    Raises:
        WellposedError: If the folder was made from something else, or holds weights that nobody knows the origin of.
    """
    path = folder / NAME
    while not is_finished(path):
        strangers = sorted(file.name for file in folder.glob("*.safetensors*"))
        if strangers and not path.exists():
            raise WellposedError(
                f"{str(folder)!r} holds {strangers[0]} and no {NAME}, so it is not known what it was made from; give "
                "another folder"
            )
        with claimed(path) as file:
            if file is not None:
                file.write((json.dumps(wanted, indent=1) + "\n").encode())
    agree(folder, wanted, tuple(_SAID))


def agree(folder: Path, wanted: dict[str, Any], fields: Sequence[str]) -> None:
    """See that a folder's manifest, where there is one, says the same as another in some fields.

    Raises:
        WellposedError: If it does not, or cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        different = next((field for field in fields if kept[field] != wanted[field]), None)
    except (ValueError, KeyError, TypeError) as error:
        raise WellposedError(f"{str(path)!r} is not as it was written; give another folder") from error
    if different is not None:
        said = _SAID[different]
        raise WellposedError(
            f"{str(folder)!r} was made with {said.format(kept[different])}, and {said.format(wanted[different])} was "
            "given now; give the same again, or another folder"
        )
