"""Experiments on data: what initialization, regularization and dropout each do to a network.

The package is called as its function: ``wp.study(data, target)`` is ``wellposed.study.study(data, target)``.
"""

import sys as _sys
from types import ModuleType as _ModuleType
from typing import Any as _Any

from wellposed.study.conduct import Study as Study
from wellposed.study.conduct import study as study
from wellposed.study.design import Settings as Settings


class _CallablePackage(_ModuleType):
    """``wellposed.study`` is one attribute, and Python sets it to the package: so the package takes the calls."""

    def __call__(self, data: _Any = "digits", target: _Any = None, **options: _Any) -> Study:
        return study(data, target, **options)


_sys.modules[__name__].__class__ = _CallablePackage
