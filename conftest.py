"""What the examples in the docstrings share with the tests."""

from pathlib import Path

from peers import prepare_torchvision


def pytest_collect_file(file_path: Path) -> None:
    """Lightning and transformers import torchvision, and the modules that use them are collected for their examples."""
    if file_path.parent.name == "integrations":
        prepare_torchvision()
