"""At how many steps each parameter met NaN: counted where the parameters are, read when somebody asks."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from wellposed.penalties.computing.shard import Shard
from wellposed.random.shards import is_sharded

_STEPS_KEPT = 1024  # steps after which those of shards are brought together, so that they take no more memory


class NanCounts:
    """Counts of steps by the parameters' names.

    A step counts for a sharded parameter once, however many processes met NaN in their shards. Which steps these were
    has to be known for that, so they are kept, and brought together now and then: all processes do that at one step.

    Args:
        names: The name of each parameter.
        counts: Those from before.
    """

    def __init__(self, names: Mapping[Tensor, str], counts: Mapping[str, int]) -> None:
        self._names = dict(names)
        self._counts = dict(counts)
        self._there: dict[tuple[str, ...], Tensor] = {}  # of parameters on one device, counted there
        self._sharded = [parameter for parameter in names if is_sharded(parameter)]
        self._steps: dict[torch.device, list[Tensor]] = {}  # whether each sharded one met NaN, step by step
        self._warned = {name for name, count in counts.items() if count}

    def add(self, seen: Iterable[tuple[Tensor, bool | Tensor]], what: str) -> None:
        """Count a step.

        Args:
            seen: For each parameter that was looked at whether there was a NaN; in tensors where reading would wait.
            what: What was seen, for the warning.
        """
        flags = dict(seen)
        there: dict[torch.device, dict[str, Tensor]] = {}
        for parameter, bad in flags.items():
            if not isinstance(bad, Tensor):
                self._warn(self._names[parameter], bad, what)
            if is_sharded(parameter):
                continue
            if isinstance(bad, Tensor):
                there.setdefault(bad.device, {})[self._names[parameter]] = bad
            elif bad:
                self._counts[self._names[parameter]] = self._counts.get(self._names[parameter], 0) + 1
        for those in there.values():  # counted together, since a launch takes longer than counting
            names, counts = tuple(those), torch.stack(list(those.values())).long()
            before = self._there.get(names)
            self._there[names] = counts if before is None else before + counts
        self._keep(flags)

    def read(self) -> dict[str, int]:
        """The counts of those that ever met NaN; of sharded parameters all processes have to ask."""
        self._gather()
        for names, counts in self._there.items():
            for name, count in zip(names, map(int, counts.unbind()), strict=True):
                self._counts[name] = self._counts.get(name, 0) + count
        self._there = {}
        return {name: count for name, count in self._counts.items() if count}

    def _warn(self, name: str, bad: bool, what: str) -> None:
        if bad and name not in self._warned:
            warnings.warn(f"{name!r} {what}; was the loss finite?", RuntimeWarning, stacklevel=2)
            self._warned.add(name)

    def _keep(self, flags: dict[Tensor, bool | Tensor]) -> None:
        """Keep whether each sharded parameter met NaN at this step, whether it was looked at or not."""
        by_device: dict[torch.device, list[bool | Tensor]] = {}
        for parameter in self._sharded:
            by_device.setdefault(parameter.device, []).append(flags.get(parameter, False))
        for device, bad in by_device.items():
            row = torch.stack([torch.as_tensor(b, device=device) for b in bad]) if device.type != "cpu" else None
            self._steps.setdefault(device, []).append(torch.tensor(bad) if row is None else row)
        if any(len(rows) >= _STEPS_KEPT for rows in self._steps.values()):
            self._gather()

    def _gather(self) -> None:
        """Count the steps that were kept."""
        for device, rows in self._steps.items():
            steps, here = torch.stack(rows), [p for p in self._sharded if p.device == device]
            meshes: dict[Any, list[int]] = {}
            for i, parameter in enumerate(here):
                meshes.setdefault(Shard.of(parameter).along, []).append(i)
            for columns in meshes.values():
                met = Shard.of(here[columns[0]]).largest(steps[:, columns].float())
                names = tuple(self._names[here[i]] for i in columns)
                counts, before = met.long().sum(0), self._there.get(names)
                self._there[names] = counts if before is None else before + counts
        self._steps = {}
