"""Setuptools' build backend, with a compiler from the package registry where the machine has none that will do."""

import shutil

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  # whatever hooks there are

from core import ZIG_REQUIREMENT, compiler


def get_requires_for_build_wheel(config_settings: dict[str, str] | None = None) -> list[str]:
    """What a wheel is built with."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compiler()]


def get_requires_for_build_editable(config_settings: dict[str, str] | None = None) -> list[str]:
    """What an editable install is built with."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compiler()]


def build_wheel(folder: str, config_settings: dict[str, str] | None = None, metadata: str | None = None) -> str:
    """A wheel of what is there now; setuptools would pack the rest of an earlier build with it."""
    shutil.rmtree("build", ignore_errors=True)
    return str(build_meta.build_wheel(folder, config_settings, metadata))


def _compiler() -> list[str]:
    return [] if compiler() else [ZIG_REQUIREMENT]
