"""The YAML of recipes: text in, plain values and the line of each out.

Read by the rules of version 1.2 where 1.1 surprises: ``no`` is Norwegian, not false, ``1e-4`` is a number and
``2024-05-01`` is text. What no recipe needs is refused: aliases, tags, numbers without end.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from lola_data.errors import RecipeError

KeyPath = tuple[str | int, ...]
"""Keys and indices from the top of a recipe to a value."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars, and without what would let a short text stand for a long value."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node. Refused are aliases, tags and values inside values without end."""
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _fault(event, f"the alias `*{event.anchor}` is not understood here; write the value out")
        if getattr(event, "tag", None) not in (None, "!"):
            raise _fault(event, f"the tag `{event.tag}` is not understood here; write the value without it")
        self._depth += 1
        if self._depth > _MOST_DEEP:
            raise _fault(event, f"nested more than {_MOST_DEEP} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_MOST_DEEP = 20
_WITHOUT = ("bool", "int", "float", "timestamp", "merge", "value")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[-1] not in _WITHOUT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|nan)$"),
    list("-+0123456789."),
)


def _fault(at: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _integer(_: _Loader, node: yaml.ScalarNode) -> int:
    digits = str(node.value).replace("_", "")
    # Long ones are not even read: that takes time by the square of their length.
    if len(digits) > 20 or abs(value := int(digits)) >= 2**63:
        raise _fault(node, f"`{cut(digits)}` is too large a number")
    return value


def _number(_: _Loader, node: yaml.ScalarNode) -> float:
    value = float(str(node.value).replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(value):
        raise _fault(node, f"`{cut(str(node.value))}` is not a number that can be counted with")
    return value


def _text(_: _Loader, node: yaml.ScalarNode) -> str:
    value = str(node.value)
    # JSON, which is YAML, writes what lies beyond U+FFFF as two halves.
    value = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise _fault(node, "a text with a NUL character, or with half of one beyond U+FFFF")
    return value


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def parse_value(text: str) -> Any:
    """A single value as a recipe would read it: ``4`` is a number, ``[de, no]`` a list of two codes."""
    return yaml.load(text, _Loader)


@dataclass(frozen=True, slots=True)
class Place:
    """Where YAML stands: a file, whose lines are told, or an option."""

    name: str
    lines: bool = True

    def at(self, line: int) -> str:
        """The place of a line, counted from 0."""
        return f"{self.name}:{line + 1}" if self.lines else self.name


def read_yaml(text: str, place: Place) -> tuple[Any, dict[KeyPath, str]]:
    """The value of a text, and where each part of it stands.

    Raises:
        RecipeError: not YAML, or a kind of YAML that no recipe needs.
    """
    places: dict[KeyPath, str] = {}
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, places
        _note_places(node, (), places, place)
        return loader.construct_document(node), places
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position))
        raise RecipeError(
            f"{place.at(line)}: not valid YAML: the character U+{int(error.character):04X} may not stand in it"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = place.at(mark.line) if mark else place.name
        raise RecipeError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise RecipeError(f"{place.name}: not valid YAML: nested without end") from None
    finally:
        if loader is not None:
            loader.dispose()


def _note_places(node: yaml.Node, path: KeyPath, places: dict[KeyPath, str], place: Place) -> None:
    places.setdefault(path, place.at(node.start_mark.line))
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            where = place.at(key_node.start_mark.line)
            if key_node.tag != "tag:yaml.org,2002:str":
                what = f"`{cut(str(key_node.value))}`" if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                raise RecipeError(f"{where}: {what} cannot be a key; a key is text: put it in quotes if it is meant so")
            here = (*path, str(key_node.value))
            if here in places:
                raise RecipeError(f"{where}: `{dotted(here)}` is given twice")
            places[here] = where
            _note_places(value_node, here, places, place)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_places(item, (*path, index), places, place)


def dotted(path: KeyPath) -> str:
    """``section.key`` of a path."""
    return ".".join(str(part) for part in path)


def cut(text: str) -> str:
    """A text short enough for a message."""
    return text if len(text) <= 60 else text[:57] + "..."
