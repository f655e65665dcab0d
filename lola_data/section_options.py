"""Turns a section of the recipe into options of a command, so that the two can never say different things.

A section is a pydantic model or, for the trainer, a dataclass; a section inside a section gives its own options.
Nothing but click is imported, so that the trainer's command runs where pydantic and PyYAML are not.
"""

from __future__ import annotations

import dataclasses
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from lola_data.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class _Field:
    """One value of a section: where it lies in it, its type (None taken away), its default and its description."""

    path: tuple[str, ...]
    kind: Any
    default: Any
    description: str

    @property
    def name(self) -> str:
        return self.path[-1]


class _Pair(click.ParamType):
    """``key=value``; the value is a number or, for ``str``, any text."""

    name = "key=value"

    def __init__(self, number: type) -> None:
        self.number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals:
            self.fail(f"{value!r} is not key=value", param, ctx)
        try:
            return key, self.number(text)
        except ValueError:
            kind = "a whole number" if self.number is int else "a number"
            self.fail(f"{value!r}: {text!r} is not {kind}", param, ctx)


def _plain(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain(next(one for one in get_args(annotation) if one is not type(None)))
    return annotation


def _fields(section: Any) -> list[_Field]:
    if not dataclasses.is_dataclass(section):
        return [
            _Field(
                (name,),
                _plain(field.annotation),
                field.get_default(call_default_factory=True),
                field.description or "",
            )
            for name, field in section.model_fields.items()
        ]
    hints = get_type_hints(section)
    found: list[_Field] = []
    for field in dataclasses.fields(section):
        kind = _plain(hints[field.name])
        if dataclasses.is_dataclass(kind):
            found += [dataclasses.replace(one, path=(field.name, *one.path)) for one in _fields(kind)]
        else:
            default = field.default_factory() if callable(field.default_factory) else field.default
            found.append(_Field((field.name,), kind, default, field.metadata["description"]))
    return found


def section_options(
    section: type, *, without: tuple[str, ...] = (), show_defaults: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that gives a click command one option per field of ``section``. Options not given are ``None``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for field in reversed(_fields(section)):
            if field.name not in without:
                function = _option(field, show_defaults)(function)
        return function

    return decorate


def _option(field: _Field, show_default: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    kind, default = field.kind, field.default
    flag = "--" + field.name.replace("_", "-")
    text = " ".join(field.description.split())
    if show_default and default not in (None, [], {}):
        text += f"  [default: {str(default).lower() if kind is bool else default}]"
    extra: dict[str, Any] = {"help": text, "default": None}
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, **extra)
    if get_origin(kind) is Literal:
        return click.option(flag, field.name, type=click.Choice(list(get_args(kind))), **extra)
    if get_origin(kind) is dict:
        number = _plain(get_args(kind)[1])
        pair = _Pair(number if number in (int, float, str) else float)
        return click.option(flag, field.name, type=pair, multiple=True, **{**extra, "default": ()})
    if get_origin(kind) is list:
        return click.option(flag, field.name, metavar="A,B,...", **extra)
    if isinstance(kind, type) and issubclass(kind, int) and kind is not int:
        # A number of bytes, which people write as 20GB; the section reads it.
        return click.option(flag, field.name, metavar="SIZE", **extra)
    return click.option(flag, field.name, type=kind if kind in (int, float) else str, **extra)


def section_values(section: type, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as values of the section: nested where it has a section inside."""
    values: dict[str, Any] = {}
    for field in _fields(section):
        value = options.get(field.name)
        if value in (None, ()):
            continue
        kind = get_origin(field.kind)
        if kind is dict:
            value = dict(value)
        elif kind is list:
            value = split_codes(value)
        inner = values
        for part in field.path[:-1]:
            inner = inner.setdefault(part, {})
        inner[field.name] = value
    return values


def split_codes(text: str) -> list[str]:
    """``de, sw`` -> ``["de", "sw"]``. Raises RecipeError when nothing is named."""
    codes = [code.strip() for code in text.split(",") if code.strip()]
    if not codes:
        raise RecipeError("an empty list; write codes separated by commas, such as de,sw,yo")
    return codes
