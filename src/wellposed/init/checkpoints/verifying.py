"""Checking files of first weights against the seed: everything is made once more, and compared."""

import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wellposed.errors import WellposedError
from wellposed.init.checkpoints.contents import Stored, bytes_of
from wellposed.init.checkpoints.manifest import NAME, VALUES, agree
from wellposed.init.checkpoints.safetensors_files import INDEX, Span, places
from wellposed.init.checkpoints.writing import Progress, files_of, silent
from wellposed.init.planning import Rules
from wellposed.init.schemes.scheme import Scheme
from wellposed.random.key import Key


def verify_checkpoint(
    build: Callable[[], nn.Module],
    out: str | PathLike[str],
    scheme: str | Scheme = "auto",
    *,
    seed: int | Key = 0,
    rules: Rules | None = None,
    example: Any = None,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Compare the tensors in a folder of safetensors files with what a model starts as, bit for bit.

    The files may be those of :func:`write_checkpoint`, or of another program that saved the started model. Memory does
    not grow with the model.

    Args:
        build: Makes the model; it is called on the meta device.
        out: The folder.
        scheme: The name of a scheme, or a scheme.
        seed: Where all keys come from.
        rules: As :func:`initialize` takes them.
        example: As :func:`initialize` takes it.
        dtype: What the model is converted to first; ``None`` leaves it.
        progress: Is told how many bytes are compared, and of how many.

    Returns:
        What is wrong, under the name of the tensor or of the file; empty where nothing is.

    Raises:
        WellposedError: If the folder holds no safetensors files, or says that it was made with another seed, scheme or
            dtype.

    Example:
        >>> import tempfile
        >>> from wellposed.init import write_checkpoint
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plan = write_checkpoint(lambda: nn.Linear(64, 64), folder)
        ...     print(verify_checkpoint(lambda: nn.Linear(64, 64), folder))
        {}
    """
    files = files_of(build, scheme, seed, rules, example, dtype, 2**62, "dcp")
    folder = Path(out)
    try:
        agree(folder, files.made_from, VALUES)
        return _compare(folder, files.entries, progress)
    except OSError as error:
        raise WellposedError(f"{str(folder)!r} cannot be read: {error.strerror}") from error


def _compare(folder: Path, entries: Sequence[Stored], progress: Progress | None) -> dict[str, str]:
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise WellposedError(f"{str(folder)!r} holds no safetensors files to check")
    wrong: dict[str, str] = {}
    found: dict[str, Span] = {}
    for path in paths:
        try:
            found |= dict(places(path))
        except ValueError:
            wrong[path.name] = "is not a whole safetensors file"
    if len(paths) > 1 or (folder / NAME).exists():
        wrong |= _wrong_index(folder / INDEX, found)
    done, total = 0, sum(entry.size for entry in entries)
    told = progress or silent
    told(done, total)
    for entry in entries:
        if not found.keys() & set(entry.names):
            wrong[entry.names[0]] = "is missing"
        for name in found.keys() & set(entry.names):
            if (problem := _problem(found.pop(name), entry)) is not None:
                wrong[name] = problem
        done += entry.size
        told(done, total)
    return wrong | dict.fromkeys(found, "is not a tensor of this model")


def _wrong_index(path: Path, found: Mapping[str, Span]) -> dict[str, str]:
    if not path.exists():
        return {path.name: "is missing: the files were not finished"}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError):
        return {path.name: "is not an index of safetensors files"}
    right = told == {name: place.path.name for name, place in found.items()}
    return {} if right else {path.name: "does not say where the tensors are"}


def _problem(place: Span, entry: Stored) -> str | None:
    if not place.is_for(entry):
        return f"is {place.dtype} of shape {place.shape}; expected {entry.dtype} of shape {entry.shape}"
    with place.path.open("rb") as file:
        file.seek(place.first)
        for piece in entry.pieces():
            expected = bytes_of(piece)
            if file.read(expected.nbytes) != expected.tobytes():
                return "has other values"
    return None
