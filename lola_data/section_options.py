"""Turns a section of the recipe into options of a command, so that the two can never say different things."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import click

from lola_data.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lola_data.sections import Section


class _Pair(click.ParamType):
    """``key=value`` with a number or text as value."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        from lola_data.recipe import parse_value

        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals:
            self.fail(f"{value!r} is not key=value", param, ctx)
        return key, parse_value(text)


def _plain(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain(next(one for one in get_args(annotation) if one is not type(None)))
    return annotation


def section_options(
    section: type[Section], *, without: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that gives a click command one option per field of ``section``. Options not given are ``None``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(section.model_fields.items()):
            if name not in without:
                function = _option(name, field)(function)
        return function

    return decorate


def _option(name: str, field: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    kind = _plain(field.annotation)
    flag = "--" + name.replace("_", "-")
    text = " ".join((field.description or "").split())
    default = field.get_default(call_default_factory=True)
    shown = "" if default in (None, [], {}) else f"  [default: {str(default).lower() if kind is bool else default}]"
    extra: dict[str, Any] = {"help": text + shown, "default": None}
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, **extra)
    if get_origin(kind) is Literal:
        return click.option(flag, name, type=click.Choice(list(get_args(kind))), **extra)
    if get_origin(kind) is dict:
        return click.option(flag, name, type=_Pair(), multiple=True, **{**extra, "default": ()})
    if get_origin(kind) is list:
        return click.option(flag, name, metavar="A,B,...", **extra)
    return click.option(flag, name, type=kind if kind in (int, float) else str, **extra)


def section_values(section: type[Section], options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as values of the section's fields."""
    values: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        value = options.get(name)
        if value in (None, ()):
            continue
        kind = get_origin(_plain(field.annotation))
        if kind is dict:
            value = dict(value)
        elif kind is list:
            value = split_codes(value)
        values[name] = value
    return values


def split_codes(text: str) -> list[str]:
    """``de, sw`` -> ``["de", "sw"]``. Raises RecipeError when nothing is named."""
    codes = [code.strip() for code in text.split(",") if code.strip()]
    if not codes:
        raise RecipeError("an empty list; write codes separated by commas, such as de,sw,yo")
    return codes
