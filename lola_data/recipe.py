"""The recipe: one YAML file that says how a corpus is made. Text in, validated and immutable :class:`Recipe` out.

YAML is read by the rules of version 1.2 where 1.1 surprises: ``no`` is Norwegian, not false, ``1e-4`` is a number and
``2024-05-01`` is text. What no recipe needs is refused: aliases, tags, numbers without end.
Every fault is told with file, line, key and, for an unknown key, the nearest valid one.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
import textwrap
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lola_data.errors import RecipeError
from lola_data.languages import language
from lola_data.sections import (
    BalanceSection,
    ChecksSection,
    DedupSection,
    DownloadSection,
    ExecutorSection,
    IdentifySection,
    SampleSection,
    Section,
    TokenizerSection,
    TokenizeSection,
)
from lola_data.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]+)*")
"""What the folder of a language outside the 167 may be called: ``pt-BR``, ``eng_Latn``."""


class Recipe(Section):
    """How a corpus is made and trained on."""

    workdir: str = "corpus"
    """Folder that everything is written to (relative to where the command is run)."""
    seed: int = Field(default=1234, ge=0, lt=2**63)
    """Decides every hash-based choice: samples, held-out documents, MinHash. (The trainer has `train.seed`.)"""
    languages: Literal["all"] | list[str] = "all"
    """CulturaX codes to work on, or `all` that the source has."""
    unit_mb: int = Field(default=512, ge=1, le=100_000)
    """Bigger shards are split into units of work of about this many megabytes (uncompressed), at row groups."""
    download: DownloadSection = DownloadSection()
    checks: ChecksSection = ChecksSection()
    identify: IdentifySection = IdentifySection()
    dedup: DedupSection = DedupSection()
    sample: SampleSection = SampleSection()
    tokenizer: TokenizerSection = TokenizerSection()
    tokenize: TokenizeSection = TokenizeSection()
    train: TrainConfig = TrainConfig()
    balance: BalanceSection = BalanceSection()
    executor: ExecutorSection = ExecutorSection()

    @field_validator("workdir")
    @classmethod
    def _somewhere(cls, value: str) -> str:
        # Joined to an empty path, the trees would lie in the root of the file system.
        if not value.strip():
            raise ValueError("an empty path; name the folder to write to")
        return value

    @field_validator("languages", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        # Told here: pydantic would tell two errors, one for each kind of value that is allowed.
        if value == "all":
            return value
        if not isinstance(value, list) or not all(isinstance(code, str) for code in value):
            example = f"[{value}]" if isinstance(value, str) else "[de, sw]"
            raise ValueError(f"write a list of codes, such as {example}, or `all` (got {_short(value)})")
        if not value:
            raise ValueError("`languages` is empty; list at least one code, or write `all`")
        return value

    @model_validator(mode="after")
    def _languages_exist(self) -> Recipe:
        # Folders of one's own may be called otherwise than the 167; so may those of a tree that is given to one stage.
        published = self.download.source in ("sample", "hub")
        seen: set[str] = set()
        for index, code in enumerate(() if self.languages == "all" else self.languages):
            if code in seen:
                _refuse(f"names a code twice: `{code}`", "languages", index)
            seen.add(code)
            if published:
                _check_code(code, "languages", index)
        for place in self._further_codes():
            if published and "download" in self.model_fields_set:
                _check_code(place[-1], *place[:-1])
            elif not _FOLDER.fullmatch(place[-1]):
                _refuse(f"`{place[-1]}` is neither a CulturaX code nor the name of a language folder", *place[:-1])
        return self

    def _further_codes(self) -> Iterator[tuple[Any, ...]]:
        """Language codes in the sections: their path, and the code."""
        for index, code in enumerate(self.dedup.waive):
            yield "dedup", "waive", index, code
        for code in self.identify.min_score_by_language:
            yield "identify", "min_score_by_language", code, code
        for code in self.sample.budgets:
            yield "sample", "budgets", code, code
        for code in self.train.weights:
            yield "train", "weights", code, code

    @property
    def selected(self) -> list[str] | None:
        """The languages to work on; None: all."""
        return None if self.languages == "all" else sorted(self.languages)

    @property
    def unit_bytes(self) -> int:
        """Bytes of a unit of work."""
        return self.unit_mb * 2**20


def _check_code(code: str, *path: Any) -> None:
    try:
        language(code)
    except RecipeError as error:
        _refuse(str(error), *path)


def _refuse(message: str, *path: Any) -> None:
    """Raise an error of a whole recipe that is to be told with the line of ``path``."""
    raise PydanticCustomError("at", "{message}", {"message": message, "path": path})


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
        raise _fault(node, f"`{_cut(digits)}` is too large a number")
    return value


def _number(_: _Loader, node: yaml.ScalarNode) -> float:
    value = float(str(node.value).replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(value):
        raise _fault(node, f"`{_cut(str(node.value))}` is not a number that can be counted with")
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

_Path = tuple[str | int, ...]
_MOST_BYTES = 2**20
"""A recipe of 200 languages with a budget each has 10 kB. Data or a device taken for one must not fill the memory."""


def parse_value(text: str) -> Any:
    """A single value as a recipe would read it: ``4`` is a number, ``[de, no]`` a list of two codes."""
    return yaml.load(text, _Loader)


def load_recipe(path: str | Path, *, overrides: list[str] | None = None) -> Recipe:
    """Read and validate a recipe file.

    Args:
        path: the YAML file.
        overrides: ``section.key=value`` each, as given to ``--set``; they win over the file.

    Raises:
        RecipeError: unreadable, not YAML, unknown key, wrong type, impossible combination.
    """
    file = Path(path)
    try:
        with file.open("rb") as handle:
            data = handle.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise RecipeError(f"{file}: over {_MOST_BYTES // 2**20} MB, so not a recipe; `lola-data init` writes one")
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such recipe; `lola-data init` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read: {error}") from None
    return parse_recipe(text, name=str(file), overrides=overrides)


def parse_recipe(text: str, *, name: str = "recipe", overrides: list[str] | None = None) -> Recipe:
    """Validate the text of a recipe. See :func:`load_recipe`."""
    values, places = _read_yaml(text, _Place(name))
    if values is None:
        values = {}
    elif not isinstance(values, dict):
        raise RecipeError(f"{places[()]}: a recipe is a mapping of keys to values; `lola-data init` writes one")
    _drop_empty_sections(values)
    for override in overrides or []:
        _apply_override(values, places, override)
    _drop_empty_sections(values)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(fault, places, name) for fault in error.errors())) from None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where YAML stands: a file, whose lines are told, or an option."""

    name: str
    lines: bool = True

    def at(self, line: int) -> str:
        """The place of a line, counted from 0."""
        return f"{self.name}:{line + 1}" if self.lines else self.name


def _read_yaml(text: str, place: _Place) -> tuple[Any, dict[_Path, str]]:
    """The value of a text, and where each part of it stands.

    Raises:
        RecipeError: not YAML, or a kind of YAML that no recipe needs.
    """
    places: dict[_Path, str] = {}
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


def _note_places(node: yaml.Node, path: _Path, places: dict[_Path, str], place: _Place) -> None:
    places.setdefault(path, place.at(node.start_mark.line))
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            where = place.at(key_node.start_mark.line)
            if key_node.tag != "tag:yaml.org,2002:str":
                what = (
                    f"`{_cut(str(key_node.value))}`" if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                )
                raise RecipeError(f"{where}: {what} cannot be a key; a key is text: put it in quotes if it is meant so")
            here = (*path, str(key_node.value))
            if here in places:
                raise RecipeError(f"{where}: `{_dotted(here)}` is given twice")
            places[here] = where
            _note_places(value_node, here, places, place)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_places(item, (*path, index), places, place)


def _drop_empty_sections(values: dict[str, Any]) -> None:
    """Leave out sections with nothing below them: they are what they are by default."""
    train = values.get("train")
    for inner, sections in ((values, _SECTIONS), (train if isinstance(train, dict) else {}, ("model",))):
        for key in sections:
            if key in inner and inner[key] is None:
                del inner[key]


_SECTIONS = tuple(name for name, field in Recipe.model_fields.items() if not isinstance(field.default, (str, int)))


def _apply_override(values: dict[str, Any], places: dict[_Path, str], override: str) -> None:
    option = f"--set {_cut(override)}"
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"{option}: write it as --set section.key=value")
    path = tuple(key.strip().split("."))
    value, _ = _read_yaml(text, _Place(option, lines=False))
    inner = values
    for part in path[:-1]:
        step = inner.setdefault(part, {})
        if not isinstance(step, dict):
            raise RecipeError(f"{option}: `{part}` is a single value and has no keys")
        inner = step
    inner[path[-1]] = value
    for depth in range(1, len(path) + 1):
        places.setdefault(path[:depth], option)
    for old in [place for place in places if place[: len(path)] == path]:
        del places[old]
    places[path] = option


def _dotted(path: _Path) -> str:
    return ".".join(str(part) for part in path)


def _explain(fault: Any, places: dict[_Path, str], name: str) -> str:
    path: _Path = tuple(part for part in fault["loc"] if not str(part).startswith(("literal[", "list[", "function-")))
    if fault["type"] == "at":
        path = fault["ctx"]["path"]
    where = name
    for depth in range(len(path), 0, -1):
        if path[:depth] in places:
            where = places[path[:depth]]
            break
    key = _dotted(path)
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        valid = valid_keys(path[:-1])
        near = difflib.get_close_matches(str(path[-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"valid keys here: {', '.join(valid)}"
        return f"{where}: `{key}`: unknown key; {hint}"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = "" if fault["type"] in ("value_error", "missing", "at") else f" (got {_short(fault['input'])})"
    return f"{where}: `{key}`: {message[:1].lower()}{message[1:]}{given}" if key else f"{where}: {message}"


def _short(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def valid_keys(path: tuple[Any, ...] = ()) -> list[str]:
    """The keys a recipe may have at a path: ``()`` is the top, ``("dedup",)`` a section."""
    schema = Recipe.model_json_schema()
    node = schema
    for part in path:
        node = node.get("properties", {}).get(part, {})
        reference = node.get("$ref") or next((one["$ref"] for one in node.get("allOf", []) if "$ref" in one), None)
        if reference:
            node = schema["$defs"][reference.rsplit("/", 1)[-1]]
    return list(node.get("properties", {}))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def render_recipe(recipe: Recipe, *, title: str) -> str:
    """A recipe as commented YAML: every key with its description. Parses back to the same recipe."""
    lines = [f"# {line}" for line in textwrap.wrap(title, 110)]
    lines.append("# `lola-data recipe schema` prints the JSON Schema of this file for your editor.")
    schema = Recipe.model_json_schema()
    for key, field in schema["properties"].items():
        lines += ["", *_rendered(key, getattr(recipe, key), field, schema["$defs"], "")]
    return "\n".join(lines) + "\n"


def _rendered(key: str, value: Any, field: dict[str, Any], definitions: dict[str, Any], indent: str) -> list[str]:
    if not (isinstance(value, BaseModel) or is_dataclass(value)):
        return _entry(key, value, field.get("description", ""), indent)
    section = type(value)
    lines = [f"{indent}# {line}" for line in textwrap.wrap(inspect.getdoc(section) or "", 110 - len(indent))]
    lines.append(f"{indent}{key}:")
    for name, inner in definitions[section.__name__]["properties"].items():
        lines += _rendered(name, getattr(value, name), inner, definitions, indent + "  ")
    return lines


def _entry(key: str, value: Any, description: str, indent: str) -> list[str]:
    comment = textwrap.wrap(" ".join(description.split()), 110 - len(indent))
    return [*(f"{indent}# {line}" for line in comment), f"{indent}{key}: {_scalar(value)}"]


def _scalar(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    if value is None or isinstance(value, (bool, int, float, dict, list)):
        return json.dumps(value, ensure_ascii=False)
    text = str(value)
    return text if re.fullmatch(r"[A-Za-z_./][\w./:@+-]*", text) and parse_value(text) == text else json.dumps(text)
