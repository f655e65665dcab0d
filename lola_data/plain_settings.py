"""Dataclasses from plain values, as JSON and YAML have them, and back: strict types, bounds, messages that name a key.

Only the standard library is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lola_data.errors import RecipeError


def flat_settings(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings as plain values, those of inner dicts under ``outer.inner``; an empty dict is a value.

    >>> flat_settings({"seed": 1, "model": {"layers": 6}, "weights": {}})
    {'seed': 1, 'model.layers': 6, 'weights': {}}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def nearest(name: str, known: list[str]) -> str:
    """``" (did you mean ...?)"`` for the known name most like ``name``, or the list of known names if none is."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def check_bounds(config: Any) -> None:
    """Hold the numbers of a dataclass to the bounds (``ge``, ``gt``, ``le``, ``lt``) in the metadata of its fields.

    Raises:
        ValueError: naming the field, its value and the bound.
    """
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        bounds = item.metadata
        for key, sign, holds in (
            ("ge", ">=", value >= bounds.get("ge", value)),
            ("gt", ">", "gt" not in bounds or value > bounds["gt"]),
            ("le", "<=", value <= bounds.get("le", value)),
            ("lt", "<", "lt" not in bounds or value < bounds["lt"]),
        ):
            if not holds or not math.isfinite(value):
                wanted = f"{sign} {bounds[key]}" if key in bounds else "finite"
                raise ValueError(f"{item.name}: {value} is not {wanted}")


def from_plain(cls: type, values: Any, path: str) -> Any:
    """An object of the dataclass ``cls``, strictly; ``path`` stands before the keys in messages.

    Raises:
        RecipeError: an unknown key (the nearest valid one is named), a wrong type, a value that ``cls`` refuses.
    """
    if not isinstance(values, dict):
        raise RecipeError(f"{path.rstrip('.') or 'train'}: expected keys and values, got {values!r}")
    hints = get_type_hints(cls)
    known = [item.name for item in dataclasses.fields(cls)]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise RecipeError(f"{path}{key}: unknown key; {nearest(str(key), known)}")
        arguments[key] = _typed(hints[key], value, path + key)
    try:
        return cls(**arguments)
    except ValueError as error:
        raise RecipeError(f"{path}{error}") from error


def _typed(hint: Any, value: Any, path: str) -> Any:
    """``value`` as ``hint``, strictly: only an int may stand for a float."""
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_plain(hint, value, path + ".")  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        if value is None and NoneType in arguments:
            return None
        return _typed(next(kind for kind in arguments if kind is not NoneType), value, path)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise RecipeError(f"{path}: {value!r} is not one of the choices; {nearest(str(value), list(arguments))}")
        return value
    if origin is dict:
        if not isinstance(value, dict):
            raise RecipeError(f"{path}: expected keys and values, got {value!r}")
        return {str(key): _typed(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise RecipeError(f"{path}: expected {hint.__name__}, got {value!r}")
    return value
