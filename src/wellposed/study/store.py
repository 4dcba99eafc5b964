"""Finished runs on disk: one small file a run, named for everything that its figures depend on."""

import json
import os
import sys
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

import torch

from wellposed.errors import WellposedError
from wellposed.study.train import Figures, Run

SCHEMA = 1


def versions() -> dict[str, str]:
    """What a figure's last digit may depend on, besides its configuration and the data."""
    return {
        "wellposed": version("wellposed"),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "python": ".".join(map(str, sys.version_info[:3])),
    }


class Store:
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

    def path(self, run: Run) -> Path:
        """The file of a run."""
        identity = json.dumps([SCHEMA, asdict(run), self.data, versions()], sort_keys=True)
        return self.folder / f"{blake2b(identity.encode(), digest_size=12).hexdigest()}.json"

    def load(self, run: Run) -> Figures | None:
        """The figures of a run, or ``None`` if it has not been finished."""
        try:
            kept = json.loads(self.path(run).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None
        return kept["figures"] if isinstance(kept, dict) and "figures" in kept else None

    def save(self, run: Run, figures: Figures) -> None:
        """Keep the figures of a run. A file is there whole or not at all, however the process ends."""
        path = self.path(run)
        draft = path.with_suffix(f".{os.getpid()}.part")
        text = json.dumps({"run": asdict(run), "figures": figures}, allow_nan=False)
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            raise WellposedError(
                f"{str(path)!r} cannot be written: {error.strerror}; finished runs are kept"
            ) from error
