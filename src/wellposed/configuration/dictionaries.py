"""Initializers, schemes, penalties, constraints, dropouts and schedules as plain dictionaries, and back."""

import inspect
import math
import operator
from collections.abc import Mapping, Sequence
from importlib import import_module
from numbers import Integral, Real
from typing import Any

from torch import Tensor, nn

from wellposed.configuration.kinds import name_of, type_named
from wellposed.errors import WellposedError

_TYPE = "type"


def to_dict(value: Any) -> dict[str, Any]:
    """A value as a plain dictionary: its class's name under ``"type"``, and its fields beside it.

    Inside are texts, numbers, truth values, ``None``, lists and further such dictionaries alone, so that JSON and YAML
    take it. An infinite number is the text ``"inf"`` or ``"-inf"``, a scheme of the package its name.

    Args:
        value: An initializer, a scheme, a penalty, a constraint, a dropout module, a schedule or axes; or a mapping
            from texts, such as globs, to these or to ``None``.

    Returns:
        The dictionary, from which :func:`from_dict` makes the value again. All fields are in it, also those that have
        their defaults.

    Raises:
        WellposedError: If something in the value cannot be written: a function, a tensor of more than one number, a
            module that holds weights or other modules, a class that no name leads to.

    Example:
        >>> import wellposed as wp
        >>> to_dict(wp.L1(0.001))
        {'type': 'L1', 'lam': 0.001}
        >>> to_dict(2 * wp.GroupLasso(0.5, groups=(0, 1)))
        {'type': 'GroupLasso', 'lam': 1.0, 'groups': [0, 1], 'root_size': False, 'axes': None}
    """
    written = _written(value, "")
    if not isinstance(written, dict):
        raise WellposedError(
            f"to_dict was given {value!r}; expected an initializer, a scheme, a penalty, a dropout module, a schedule, "
            "or a mapping from texts to these"
        )
    return written


def from_dict(spec: Mapping[str, Any] | Sequence[Any] | str) -> Any:
    """The value that a dictionary describes.

    Numbers that are written as text are numbers, since YAML takes ``1e-3`` for text.

    Args:
        spec: What :func:`to_dict` returned, or the like from a file. Fields that are left out have their defaults. A
            list of penalties is their sum; a text is a type without fields; a mapping without ``"type"`` is a mapping
            from its keys to such values, as ``regularize`` and ``initialize`` take them by globs.

    Returns:
        The value.

    Raises:
        WellposedError: If a type or a field is not known, a field is missing, or the type refuses its fields.

    Example:
        >>> from_dict({"type": "L1", "lam": 0.001})
        L1(lam=0.001)
        >>> from_dict([{"type": "L1", "lam": 0.5}, {"type": "L2", "lam": 0.25}])
        ElasticNet(l1=0.5, l2=0.25)
        >>> from_dict({"*.weight": {"type": "He", "distribution": "normal"}, "frozen.*": None})["*.weight"]
        He(scale=2.0, mode='fan_in', distribution='normal', bound='paper')
    """
    if isinstance(spec, str):
        return built(type_named(spec), {})
    if isinstance(spec, Mapping):
        return _read(spec) if _TYPE in spec else {key: each and from_dict(each) for key, each in spec.items()}
    if isinstance(spec, Sequence) and spec:
        terms = [from_dict(each) for each in spec]
        try:
            return sum(terms)
        except TypeError:
            raise WellposedError(
                f"from_dict was given a list of {terms!r}; expected penalties, to be added up"
            ) from None
    raise WellposedError(
        f"from_dict was given {spec!r}; expected a dictionary such as {{'type': 'L1', 'lam': 0.001}}, a list of "
        "penalties' dictionaries, or a mapping from globs to these"
    )


def built(kind: type, given: Mapping[str, Any]) -> Any:
    """A value of a type, from fields as a dictionary has them.

    Raises:
        WellposedError: If a field is not known or missing, or the type refuses its fields.
    """
    name, known = kind.__name__, _fields(kind)
    fields = {key: _read(value) for key, value in given.items()}
    stream = given.get("stream") if issubclass(kind, nn.Module) else None
    if stream is not None:
        del fields["stream"]
    for key in fields:
        if key not in known:
            has = ", ".join(map(repr, known)) or "none"
            raise WellposedError(f"{name} was given the field {key!r}; expected some of its own, which are {has}")
    missing = [key for key, field in known.items() if field.default is field.empty and key not in fields]
    if missing:
        raise WellposedError(f"{name} was given {dict(given)!r}; expected {', '.join(map(repr, missing))} too")
    try:
        value = kind(**fields)
    except WellposedError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise WellposedError(f"{name} was given {dict(given)!r}, which it cannot be made from: {error}") from error
    if stream is not None:
        value.stream = stream
    return value


def _read(spec: Any) -> Any:
    if isinstance(spec, Mapping):
        if _TYPE not in spec:
            return {key: _read(value) for key, value in spec.items()}
        fields = {key: value for key, value in spec.items() if key != _TYPE}
        if spec[_TYPE] == "Scheme" and set(fields) == {"name"}:
            return import_module("wellposed.init.schemes.named").scheme_of(fields["name"])
        return built(type_named(spec[_TYPE]), fields)
    if isinstance(spec, str):
        try:
            return float(spec) if any(sign.isdigit() for sign in spec) or spec in ("inf", "-inf") else spec
        except ValueError:
            return spec
    if isinstance(spec, Sequence):
        return tuple(_read(each) for each in spec)
    return spec


def _written(value: Any, where: str) -> Any:
    """``where`` is the way to what is written, for messages."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return operator.index(value)
    if isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad and not value.is_complex():
        value = value.item()
    if isinstance(value, Real):
        number = float(value)
        if math.isnan(number):
            raise _unwritable(value, where, "NaN, which JSON has no number for")
        return number if math.isfinite(number) else str(number)
    if isinstance(value, Mapping):
        if _TYPE in value or not all(isinstance(key, str) for key in value):
            raise _unwritable(value, where, "a mapping whose keys are no texts, or one of them 'type'")
        return {key: _written(each, f"{where}[{key!r}]") for key, each in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [_written(each, f"{where}[{number}]") for number, each in enumerate(value)]
    return _written_value(value, where)


def _written_value(value: Any, where: str) -> dict[str, Any]:
    name = name_of(type(value))
    if name is None:
        raise _unwritable(value, where, _kind(value))
    if name == "Scheme" and import_module("wellposed.init").SCHEMES.get(value.name) is value:
        return {_TYPE: name, "name": value.name}
    written: dict[str, Any] = {_TYPE: name}
    if isinstance(value, nn.Module):
        if any(True for _ in value.parameters()) or any(True for _ in value.children()):
            raise _unwritable(value, where, f"a {name} that holds weights or modules; save its state_dict()")
        if value.stream is not None:
            written["stream"] = value.stream
    for field in _fields(type(value)):
        written[field] = _written(getattr(value, field), f"{where}.{field}" if where else f"{name}.{field}")
    return written


def _fields(kind: type) -> dict[str, inspect.Parameter]:
    """What a type's constructor takes by name, each of which the value has under the same name."""
    return {
        name: field
        for name, field in inspect.signature(kind).parameters.items()
        if field.kind not in (field.VAR_KEYWORD, field.VAR_POSITIONAL)
    }


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}; a dictionary holds single numbers, torch.save takes tensors"
    if callable(value) and not isinstance(value, nn.Module):
        return "a function, which a dictionary has no text for"
    return f"a {type(value).__name__}, of which no name leads to the class"


def _unwritable(value: Any, where: str, why: str) -> WellposedError:
    return WellposedError(f"{where or type(value).__name__} cannot be written into a dictionary: it is {why}")
