"""What makes a model, from text as ``package.module:function``."""

import functools
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

from torch import nn

from wellposed.errors import WellposedError


def factory_from(text: str) -> Callable[[], nn.Module]:
    """Import what makes a model, with the current directory among those that are searched, as ``python -m`` does.

    Args:
        text: A module's name, a colon, and the name of a function or class without required arguments in it.

    Returns:
        A function that makes the model, whose errors say where they come from. What is printed meanwhile goes to
        standard error.

    Raises:
        WellposedError: If it cannot be imported.

    Example:
        >>> factory_from("torch.nn:Identity")()
        Identity()
    """
    name, colon, path = text.partition(":")
    if not (name and colon and path):
        raise WellposedError(f"{text!r} was given; expected what makes the model in a module, as pkg.module:make")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr):
            module = import_module(name)
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise WellposedError(f"{text!r}: {name} cannot be imported ({_said(error)})") from error
    try:
        make = functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        raise WellposedError(f"{text!r}: there is no {path} in {name} ({error})") from error
    if not callable(make):
        raise WellposedError(f"{text!r} is {type(make).__name__}; expected a function or a class that makes a model")

    def build() -> nn.Module:
        try:
            with redirect_stdout(sys.stderr):
                model = make()
        except (Exception, SystemExit) as error:  # whatever a function of the user's does
            raise WellposedError(f"{text!r} makes no model without memory ({_said(error)})") from error
        if not isinstance(model, nn.Module):
            raise WellposedError(f"{text!r} made {type(model).__name__}; expected a torch.nn.Module")
        return model

    return build


def _said(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
