"""The recipe: one YAML file that says how a corpus is made. Text in, validated and immutable :class:`Recipe` out.

YAML is read by the rules of version 1.2 where 1.1 surprises: ``no`` is Norwegian, not false, and ``1e-4`` is a number.
Every fault is told with file, line, key and, for an unknown key, the nearest valid one.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import textwrap
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

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

    @model_validator(mode="after")
    def _languages_exist(self) -> Recipe:
        if self.languages == "all":
            return self
        if not self.languages:
            raise ValueError("`languages` is empty; list at least one code, or write `all`")
        if len(set(self.languages)) != len(self.languages):
            raise ValueError("`languages` names a code twice")
        if self.download.source in ("sample", "hub"):
            for code in self.languages:
                try:
                    language(code)
                except RecipeError as error:
                    raise ValueError(f"`languages`: {error}") from None
        return self

    @property
    def selected(self) -> list[str] | None:
        """The languages to work on; None: all."""
        return None if self.languages == "all" else sorted(self.languages)

    @property
    def unit_bytes(self) -> int:
        """Bytes of a unit of work."""
        return self.unit_mb * 2**20


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[-1] not in ("bool", "int", "float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|nan)$"),
    list("-+0123456789."),
)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(str(node.value).replace("_", "")))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(str(node.value).replace("_", "")))

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
    values, lines = _read_yaml(text, name)
    places: dict[_Path, str] = {path: f"{name}:{line}" for path, line in lines.items()}
    for override in overrides or []:
        _apply_override(values, places, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(fault, places, name) for fault in error.errors())) from None


def _read_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[_Path, int]]:
    loader = _Loader(text)
    lines: dict[_Path, int] = {}
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, lines
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(f"{name}:1: a recipe is a mapping of keys to values; `lola-data init` writes one")
        _note_lines(node, (), lines, name)
        values = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except ValueError as error:
        raise RecipeError(f"{name}: not valid YAML: {error}") from None
    except RecursionError:
        raise RecipeError(f"{name}: nested without end; write every value out, without aliases") from None
    finally:
        loader.dispose()
    return values, lines


def _note_lines(node: yaml.Node, path: _Path, lines: dict[_Path, int], name: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*path, key)
            if here in lines:
                raise RecipeError(f"{name}:{key_node.start_mark.line + 1}: `{_dotted(here)}` is given twice")
            lines[here] = key_node.start_mark.line + 1
            _note_lines(value_node, here, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*path, index), lines, name)


def _apply_override(values: dict[str, Any], places: dict[_Path, str], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: write it as --set section.key=value")
    path = tuple(key.strip().split("."))
    try:
        value = parse_value(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: the value is not valid YAML: {error}") from None
    inner = values
    for part in path[:-1]:
        step = inner.setdefault(part, {})
        if not isinstance(step, dict):
            raise RecipeError(f"--set {override}: `{part}` is a single value and has no keys")
        inner = step
    inner[path[-1]] = value
    for depth in range(1, len(path) + 1):
        places.setdefault(path[:depth], f"--set {override}")
    places[path] = f"--set {override}"


def _dotted(path: _Path) -> str:
    return ".".join(str(part) for part in path)


def _explain(fault: Any, places: dict[_Path, str], name: str) -> str:
    path: _Path = tuple(part for part in fault["loc"] if not str(part).startswith(("literal[", "list[", "function-")))
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
    given = "" if fault["type"] in ("value_error", "missing") else f" (got {_short(fault['input'])})"
    return f"{where}: `{key}`: {message[:1].lower()}{message[1:]}{given}" if key else f"{where}: {message}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
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
