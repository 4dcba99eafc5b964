"""Finished runs on disk: one JSON file a run, named by a hash of everything that its figures depend on."""

import json
import os
import platform
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wellposed.errors import WellposedError
from wellposed.study.training.baselines import BaselineRun
from wellposed.study.training.train import Figures, TrainingRun

SCHEMA = 4
_COMPUTE = ("wellposed", "torch", "numpy", "scikit-learn")
_READ = ("pyarrow",)  # what is read has a digest of its own


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that a study uses."""
    found = computing()
    for package in _READ:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def computing() -> dict[str, str]:
    """The versions that a figure's last digit may depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in _COMPUTE}}


class RunFiles:
    """A folder of finished runs.

    Args:
        folder: Where; made if need be.
        data: The digest of the data.

    Raises:
        WellposedError: If the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, data: str) -> None:
        self.folder, self.data = folder, data
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise WellposedError(
                f"--out was given {str(folder.parent)!r}, which cannot be written to: {error.strerror}"
            ) from error

    def path(self, run: TrainingRun | BaselineRun) -> Path:
        """The file of a run."""
        return self.folder / f"{_digest([SCHEMA, type(run).__name__, asdict(run), self.data, computing()])}.json"

    def load(self, run: TrainingRun | BaselineRun) -> Figures | None:
        """The figures of a run, or ``None`` if it has not been finished or its file is not as it was written."""
        try:
            kept = json.loads(self.path(run).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        whole = isinstance(kept, dict) and kept.get("digest") == _digest(kept.get("figures"))
        return kept["figures"] if whole else None

    def save(self, run: TrainingRun | BaselineRun, figures: Figures) -> None:
        """Keep the figures of a run. A file is there whole or not at all, however the process ends."""
        path = self.path(run)
        draft = path.with_suffix(f".{os.getpid()}.part")
        text = json.dumps({"run": asdict(run), "digest": _digest(figures), "figures": figures}, allow_nan=False)
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            raise WellposedError(
                f"{str(path)!r} cannot be written: {error.strerror}; finished runs are kept"
            ) from error


def _digest(value: Any) -> str:
    """A hash of plain values, the same before and after they were written as JSON."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).hexdigest()
