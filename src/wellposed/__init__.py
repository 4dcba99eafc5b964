"""Initialization, regularization and dropout for PyTorch, reproducible on every device, thread count and sharding."""

from importlib.metadata import version as _version

from wellposed import random as random
from wellposed.errors import WellposedError as WellposedError
from wellposed.random.box import Box as Box
from wellposed.random.key import Key as Key

__version__ = _version("wellposed")
