"""Writing the first weights of a model of any size to files, piece by piece."""

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from os import PathLike, fdatasync
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from wellposed.arguments import model as a_model
from wellposed.errors import WellposedError
from wellposed.init.checkpoints.claims import claimed, is_finished
from wellposed.init.checkpoints.contents import Stored, bytes_of, contents, known_values
from wellposed.init.checkpoints.manifest import manifest, settle
from wellposed.init.checkpoints.safetensors_files import INDEX, ShardFile, index, shards
from wellposed.init.plan import Plan
from wellposed.init.planning import Rules, plan_initialize
from wellposed.init.schemes.named import scheme_of
from wellposed.init.schemes.scheme import Scheme
from wellposed.random.key import Key

Format = Literal["safetensors", "dcp"]
Progress = Callable[[int, int], object]
"""Is told how many bytes are finished, and of how many."""

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_UNITS = {"": 1, "B": 1} | {f"{p}B": 1000**n for n, p in enumerate("KMGT", 1)}
_UNITS |= {f"{p}IB": 1024**n for n, p in enumerate("KMGT", 1)}
_WAITING = 256 * 2**20  # bytes that may wait for the disk
_PAUSE = 0.2  # seconds between two looks at what other processes are writing


@dataclass(frozen=True, eq=False)
class Files:
    """All that a checkpoint is to consist of.

    Attributes:
        plan: What every weight starts as, and why.
        entries: The tensors.
        shards: The files.
        made_from: What the folder is made from.
    """

    plan: Plan
    entries: tuple[Stored, ...]
    shards: tuple[ShardFile, ...]
    made_from: dict[str, Any]


def write_checkpoint(
    build: Callable[[], nn.Module],
    out: str | PathLike[str],
    scheme: str | Scheme = "auto",
    *,
    seed: int | Key = 0,
    rules: Rules | None = None,
    example: Any = None,
    dtype: torch.dtype | None = None,
    shard_size: int | str = "5GB",
    file_format: Format = "safetensors",
    progress: Progress | None = None,
) -> Plan:
    """Write what :func:`initialize` would start a model as to files, without ever having the model in memory.

    The bytes are those that ``initialize`` gives in memory, on any number of devices. Memory does not grow with the
    model: tensors are made in pieces of 32 MB, but for those of initializers that make a matrix as a whole. What was
    interrupted goes on from the files that are finished when it is called again; several processes that are called
    alike share the files between them. A file has its name once it is whole, and the index comes last.

    Args:
        build: Makes the model; it is called on the meta device.
        out: The folder, which is made where it is missing.
        scheme: The name of a scheme, or a scheme.
        seed: Where all keys come from.
        rules: As :func:`initialize` takes them.
        example: As :func:`initialize` takes it.
        dtype: What the model is converted to first; ``None`` leaves it.
        shard_size: The largest size of a file's tensors, in bytes or as text such as ``"5GB"`` or ``"512MiB"``.
        file_format: ``"safetensors"``: files and an index as transformers reads them, a tied weight once.
            ``"dcp"``: the same files with a tied weight under each of its names, as torch.distributed.checkpoint reads
            them with its HuggingFaceStorageReader. Neither has pickles in it.
        progress: Is told how many bytes are finished, and of how many.

    Returns:
        The plan.

    Raises:
        WellposedError: If the plan cannot be made, nothing says what a tensor of the state dict starts as, the scheme
            fits weights to data, the folder was made from something else, or the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plan = write_checkpoint(lambda: nn.Linear(64, 64), folder, seed=1)
        ...     print(*sorted(path.name for path in Path(folder).iterdir()))
        model-00001-of-00001.safetensors model.safetensors.index.json wellposed-init.json
    """
    files = files_of(build, scheme, seed, rules, example, dtype, shard_size, file_format)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_space(folder, files.shards)
        settle(folder, files.made_from)
        _write_all(folder, files.shards, progress or silent)
    except OSError as error:
        raise WellposedError(
            f"{str(folder)!r} cannot be written to: {error.strerror}; files that are finished stay, and the same again "
            "goes on from them"
        ) from error
    return files.plan


def files_of(
    build: Callable[[], nn.Module],
    scheme: str | Scheme,
    seed: int | Key,
    rules: Rules | None,
    example: Any,
    dtype: torch.dtype | None,
    shard_size: int | str,
    file_format: Format,
) -> Files:
    """What :func:`write_checkpoint` is to write; nothing is written."""
    if file_format not in get_args(Format):
        raise WellposedError(f"the file format {file_format!r} was given; expected 'safetensors' or 'dcp'")
    if dtype is not None and dtype not in _DTYPES:
        raise WellposedError(
            f"dtype was given {dtype!r}; expected torch.float32, torch.float64, torch.bfloat16 or torch.float16"
        )
    most = byte_count(shard_size)
    chosen = scheme_of(scheme)
    if chosen.fit is not None:
        raise WellposedError(
            f"the scheme {chosen.name!r} fits the weights to data, which needs the whole model in memory; take another"
        )
    with torch.device("meta"):
        model = a_model(build(), "write_checkpoint")
    known = known_values(model)
    if dtype is not None:
        model.to(dtype)
    plan = plan_initialize(model, chosen, seed=seed, rules=rules, example=example)
    entries = contents(plan, model, known)
    found = shards(entries, most, tied=file_format == "dcp")
    return Files(plan, entries, found, manifest(plan, entries, dtype, file_format, most))


def byte_count(size: int | str) -> int:
    """A number of bytes, from a number or from text with a unit.

    Example:
        >>> byte_count("5GB"), byte_count("1.5 MiB")
        (5000000000, 1572864)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size))
    unit = _UNITS.get(match[2].upper()) if match and not isinstance(size, bool) else None
    count = int(float(match[1]) * unit) if match and unit else 0
    if count < 1:
        raise WellposedError(f"shard_size was given {size!r}; expected bytes, as in '5GB', '512MiB' or 1000000")
    return count


def _check_space(folder: Path, files: Iterable[ShardFile]) -> None:
    wanted = sum(shard.size for shard in files if not (folder / shard.name).exists())
    written = sum(path.stat().st_blocks * 512 for path in folder.glob(".*.part"))
    free = shutil.disk_usage(folder).free + written
    if wanted > free:
        raise WellposedError(
            f"{str(folder)!r} has {free / 1e9:.1f} GB free, and {wanted / 1e9:.1f} GB are to be written; make room"
        )


def _write_all(folder: Path, files: tuple[ShardFile, ...], progress: Progress) -> None:
    left = [shard for shard in files if not is_finished(folder / shard.name)]
    total = sum(shard.size for shard in files)
    done = total - sum(shard.size for shard in left)
    progress(done, total)
    while left:
        others = []
        for shard in left:
            if is_finished(folder / shard.name):
                done += shard.size
                progress(done, total)
                continue
            with claimed(folder / shard.name) as file:
                if file is None:
                    others.append(shard)
                    continue
                for size in _write(file, shard):
                    done += size
                    progress(done, total)
        if len(others) == len(left):
            time.sleep(_PAUSE)
        left = others
    while not is_finished(folder / INDEX):
        with claimed(folder / INDEX) as file:
            if file is not None:
                _write_out(file, memoryview(index(files)))


def _write(file: FileIO, shard: ShardFile) -> Iterator[int]:
    """Write one file, and give the bytes of each piece once it is written; the next one is made meanwhile."""
    _write_out(file, memoryview(shard.header))
    yield len(shard.header)
    with ThreadPoolExecutor(1) as thread:
        before: tuple[Future[None], int] | None = None
        waiting = 0  # bytes that the system may not have brought to the disk
        for piece in _pieces(shard):
            if before is not None:
                before[0].result()
                yield before[1]
            waiting += piece.nbytes
            before = thread.submit(_write_out, file, piece, waiting >= _WAITING), piece.nbytes
            waiting %= _WAITING
        if before is not None:
            before[0].result()
            yield before[1]


def _pieces(shard: ShardFile) -> Iterator[memoryview]:
    return (bytes_of(piece) for _, entry in shard.tensors for piece in entry.pieces())


def _write_out(file: FileIO, data: memoryview, to_disk: bool = False) -> None:
    """Write all of it; have it on the disk now and then, lest the disk is idle at first and waited for at the end."""
    while data:
        data = data[file.write(data) or 0 :]
    if to_disk:
        fdatasync(file.fileno())


def silent(done: int, total: int) -> None:
    """Tell nobody."""
