"""Libraries that are timed beside ours."""

import importlib
from types import ModuleType
from typing import Any

import torch

_FRAGMENTS: list[Any] = []  # kept alive


def peer(name: str) -> ModuleType:
    """A library; beside a CPU build of torch, the registry's torchvision needs two operators declared first."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        fragment: Any = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            fragment.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _FRAGMENTS.append(fragment)
    return importlib.import_module(name)
