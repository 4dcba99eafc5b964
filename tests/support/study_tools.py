"""What the tests of the study share: a small table and a study that takes a second or two."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from wellposed.study import Settings

HOSTILE = "<script>alert(1)</script>"
SETTINGS = Settings(hidden=(12, 12), deep=(12, 12, 12), seeds=2, steps=12, rows=30, rates=(0.1, 0.5))


def write_table(path: Path, *, rows: int = 90, target: str = "kind", feature: str = "a", numbers: bool = False) -> Path:
    """A CSV whose target follows from its columns: three classes, or a number."""
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=rows), draw.normal(size=rows)
    town = draw.choice(["oslo", "rome", "lima"], size=rows)
    score = a - b + (town == "rome")
    goal = [f"{s:.3f}" if numbers else ("low", "mid", "high")[int(np.digitize(s, [-0.5, 0.8]))] for s in score]
    lines = [f'"{feature}",b,town,"{target}"']
    lines += [f"{x:.4f},{y:.4f},{t},{g}" for x, y, t, g in zip(a, b, town, goal, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def figures(folder: Path) -> dict[str, Any]:
    """What a study wrote down, but for the command that was given."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    del results["command"]
    return results
