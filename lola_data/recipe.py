"""The recipe: one YAML file that says how a corpus is made. Text in, validated and immutable :class:`Recipe` out.

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
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lola_data import credentials
from lola_data.errors import RecipeError
from lola_data.languages import language
from lola_data.recipe_yaml import KeyPath, Place, cut, dotted, parse_value, read_yaml
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

    @model_validator(mode="before")
    @classmethod
    def _without_credentials(cls, values: Any) -> Any:
        # Before all other checks: what they tell of a value shows it.
        for path, text in _texts(values):
            if credentials.in_address(text):
                _refuse(
                    "has credentials in it, which records, manifests and logs would keep. Leave them out: the library "
                    "of the protocol finds them in the environment, a profile or the machine's role",
                    *path,
                )
        return values

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


def _texts(value: Any, *path: Any) -> Iterator[tuple[tuple[Any, ...], str]]:
    """All strings in plain values, each with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, *path, key)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _texts(inner, *path, number)


def _check_code(code: str, *path: Any) -> None:
    try:
        language(code)
    except RecipeError as error:
        _refuse(str(error), *path)


def _refuse(message: str, *path: Any) -> None:
    """Raise an error of a whole recipe that is to be told with the line of ``path``."""
    raise PydanticCustomError("at", "{message}", {"message": message, "path": path})


_MOST_BYTES = 2**20
"""A recipe of 200 languages with a budget each has 10 kB. Data or a device taken for one must not fill the memory."""


def load_recipe(path: str | Path, *, overrides: list[str] | None = None) -> Recipe:
    """Read and validate a recipe file.

    Args:
        path: the YAML file.
        overrides: ``section.key=value`` each, as given to ``--set``; they win over the file.

    Raises:
        RecipeError: unreadable, not YAML, unknown key, wrong type, impossible combination.
    """
    file = Path(path)
    # A path makes one slash of two.
    if (address := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", str(path))) is not None:
        place = credentials.redacted(f"{address[1]}://{address[2]}")
        raise RecipeError(f"{place}: a recipe is read from a file of this machine; copy it here first")
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
    values, places = read_yaml(text, Place(name))
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


def _drop_empty_sections(values: dict[str, Any]) -> None:
    """Leave out sections with nothing below them: they are what they are by default."""
    train = values.get("train")
    for inner, sections in ((values, _SECTIONS), (train if isinstance(train, dict) else {}, ("model",))):
        for key in sections:
            if key in inner and inner[key] is None:
                del inner[key]


_SECTIONS = tuple(name for name, field in Recipe.model_fields.items() if not isinstance(field.default, (str, int)))


def _apply_override(values: dict[str, Any], places: dict[KeyPath, str], override: str) -> None:
    option = f"--set {cut(credentials.redacted(override))}"
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"{option}: write it as --set section.key=value")
    path = tuple(key.strip().split("."))
    value, _ = read_yaml(text, Place(option, lines=False))
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


def _explain(fault: Any, places: dict[KeyPath, str], name: str) -> str:
    path: KeyPath = tuple(part for part in fault["loc"] if not str(part).startswith(("literal[", "list[", "function-")))
    if fault["type"] == "at":
        path = fault["ctx"]["path"]
    where = name
    for depth in range(len(path), 0, -1):
        if path[:depth] in places:
            where = places[path[:depth]]
            break
    key = dotted(path)
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        valid = valid_keys(path[:-1])
        near = difflib.get_close_matches(str(path[-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"valid keys here: {', '.join(valid)}"
        return f"{where}: `{key}`: unknown key; {hint}"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = "" if fault["type"] in ("value_error", "missing", "at") else f" (got {_short(fault['input'])})"
    return f"{where}: `{key}`: {message[:1].lower()}{message[1:]}{given}" if key else f"{where}: {message}"


def _short(value: Any) -> str:
    return cut(credentials.redacted(json.dumps(value, ensure_ascii=False, default=str)))


def valid_keys(path: tuple[Any, ...] = ()) -> list[str]:
    """The keys a recipe may have at a path: ``()`` is the top, ``("dedup",)`` a section."""
    schema = Recipe.model_json_schema()
    node = schema
    for part in path:
        inner = node.get("additionalProperties")
        node = node.get("properties", {}).get(part) or (inner if isinstance(inner, dict) else {})
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
