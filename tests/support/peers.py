"""Libraries whose models are tried: a test that needs one is skipped where it is not installed."""

import importlib
from typing import Any

import torch

_FRAGMENTS: list[Any] = []  # kept alive


def prepare_torchvision() -> None:
    """Let libraries import torchvision: beside a CPU build of torch, the registry's needs two operators declared."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        fragment: Any = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            fragment.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _FRAGMENTS.append(fragment)
    except ImportError:
        pass


def peer(name: str) -> Any:
    """A library."""
    import pytest  # without which the site is built

    prepare_torchvision()
    return pytest.importorskip(name)
