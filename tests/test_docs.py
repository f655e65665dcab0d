"""The manual says what is so: keys, commands, options, links and recipes in it are checked against the code.

The tables of docs/recipe.md are made from the recipe's schema. ``python -m tests.test_docs`` writes them anew.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from lola_data.cli import GROUP, cli
from lola_data.errors import RecipeError
from lola_data.layout import TREES
from lola_data.recipe import Recipe, parse_recipe, valid_keys
from lola_data.recipe_yaml import parse_value
from lola_data.sections import StageResources
from train.subcommands import CommandWithSubcommands

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
RECIPE_PAGE = ROOT / "docs" / "recipe.md"
BEGIN, END = "<!-- made from the schema -->\n", "<!-- end -->\n"

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SHELL = {"", "sh", "bash", "console", "shell"}


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block."""
    for match in FENCE.finditer(page.read_text("utf-8")):
        yield match[2], match[3]


def indented(page: Path) -> str:
    """Lines of indented code, which the manual uses for terminal text too."""
    text = FENCE.sub("", page.read_text("utf-8"))
    return "\n".join(line for line in text.splitlines() if line.startswith("    "))


def command_lines(page: Path) -> list[list[str]]:
    """Every ``lola-data`` command in code blocks of a page, as words.

    Pipes, redirections and comments end one, and so do two spaces: terminal output has remarks in columns.
    """
    found: list[list[str]] = []
    for language, content in [*blocks(page), ("", indented(page))]:
        if language not in SHELL:
            continue
        for line in re.sub(r"\\\n\s*", " ", content).splitlines():
            words: list[str] = []
            text = re.split(r"\s{2,}", line.strip().removeprefix("$ "))[0]
            lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            try:
                split = list(lexer)
            except ValueError:  # prose or output with a lone quotation mark
                continue
            for word in [*split, ";"]:
                if set(word) <= set(";|&<>()"):
                    if words and Path(words[0]).name == "lola-data":
                        found.append(words)
                    words = []
                else:
                    words.append(word)
    return found


def parse(words: list[str]) -> dict[str, Any]:
    """Parameters of a command line, parsed by click and not run. Raises click.ClickException where it would refuse."""
    command: click.Command = cli
    arguments = words[1:]
    while isinstance(command, click.Group) and not _by_itself(command, arguments):
        if not arguments or arguments[0].startswith("-"):
            known = {flag for parameter in command.get_params(click.Context(command)) for flag in parameter.opts}
            if set(arguments) - known:
                raise click.UsageError(f"{' '.join(words)}: no such option")
            return {}
        inner = command.get_command(click.Context(command), arguments[0])
        if inner is None:
            raise click.UsageError(f"{' '.join(words)}: no such command")
        command, arguments = inner, arguments[1:]
    if set(arguments) & {"--help", "-h"}:
        return {}
    return command.make_context(command.name, list(arguments)).params


def _by_itself(command: click.Group, arguments: list[str]) -> bool:
    """Whether the words are those of a command that has subcommands beside arguments of its own."""
    return isinstance(command, CommandWithSubcommands) and not set(arguments[:1]) & set(command.commands)


def all_commands() -> list[str]:
    """``run``, ``tokenizer train``, ...: every command that does something."""
    names: list[str] = []
    for point in entry_points(group=GROUP):
        command = point.load()
        if isinstance(command, click.Group):
            names += [f"{point.name} {inner}" for inner in command.commands]
        if not isinstance(command, click.Group) or isinstance(command, CommandWithSubcommands):
            names.append(point.name)
    return sorted(names)


def slug(heading: str) -> str:
    """Anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text("utf-8"))
    return {slug(match[1]) for match in re.finditer(r"^#+ (.+)$", text, re.MULTILINE)}


# The tables of docs/recipe.md


def escaped(text: str) -> str:
    """A description for a table cell: outside of code nothing is markup."""
    parts = " ".join(text.split()).split("`")
    for number in range(0, len(parts), 2):
        parts[number] = re.sub(r"([<*\[\]])", r"\\\1", parts[number])
    return "`".join(parts).replace("|", "\\|")


def bounds(node: dict[str, Any]) -> str:
    """``>= 1, < 2``, or nothing."""
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {node[key]:,}" for key, sign in signs.items() if key in node)


def kind(node: dict[str, Any]) -> str:
    """What a value may be, in words."""
    if "anyOf" in node:
        return " or ".join(kind(one) for one in node["anyOf"])
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if "$ref" in node:
        return "the keys below"
    if node["type"] == "array":
        return f"list of {kind(node['items'])}"
    if node["type"] == "object":
        return f"mapping to {kind(node['additionalProperties'])}"
    name = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
    limits = bounds(node)
    return name[node["type"]] + (f" {limits}" if limits else "")


def default(value: Any) -> str:
    shown = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else str(value)
    return f"`{shown}`"


def recipe_tables() -> str:
    """A heading and a table for the top of a recipe and for each of its sections."""
    schema = Recipe.model_json_schema()
    titled: list[tuple[str, str, dict[str, Any], Any]] = []

    def add(path: str, title: str, node: dict[str, Any], value: Any) -> None:
        titled.append((path, title, node, value))
        for name, inner in node["properties"].items():
            if "$ref" in inner:
                definition = schema["$defs"][inner["$ref"].rsplit("/", 1)[-1]]
                add(f"{path}{name}.", f"{path}{name}", definition, getattr(value, name))
            elif isinstance(of := inner.get("additionalProperties"), dict) and "$ref" in of:
                definition = schema["$defs"][of["$ref"].rsplit("/", 1)[-1]]
                add(f"{path}{name}.<name>.", f"{path}{name}.<name>", definition, StageResources())

    add("", "top", schema, Recipe())
    lines: list[str] = []
    for path, title, node, value in titled:
        lines += [
            f"## {title}" if path else "## The top",
            "",
            escaped(node.get("description", "").split("\n\n")[0]),
            "",
        ]
        lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        for name, inner in node["properties"].items():
            if "$ref" not in inner:
                text = escaped(inner.get("description", ""))
                lines.append(f"| `{path}{name}` | {kind(inner)} | {default(getattr(value, name))} | {text} |")
        lines.append("")
    return "\n".join(lines)


@cache
def keys() -> tuple[str, ...]:
    """Every key of a recipe that has a value, dotted."""

    def below(path: tuple[str, ...]) -> Iterator[str]:
        for name in valid_keys(path):
            inner = list(below((*path, name)))
            yield from inner or [".".join((*path, name))]

    return tuple(below(()))


def test_there_is_a_manual() -> None:
    assert len(DOCS) >= 14
    assert any(command_lines(page) for page in DOCS)


def test_recipe_page_is_the_schema() -> None:
    page = RECIPE_PAGE.read_text("utf-8")
    made = page[page.index(BEGIN) + len(BEGIN) : page.index(END)]
    assert made == recipe_tables(), "the recipe has changed: run `python -m tests.test_docs`"


def test_recipe_page_names_every_key() -> None:
    page = RECIPE_PAGE.read_text("utf-8")
    assert [key for key in keys() if f"| `{key}` |" not in page] == []


def test_every_command_is_in_the_manual() -> None:
    text = "\n".join(page.read_text("utf-8") for page in DOCS)
    missing = [name for name in all_commands() if not re.search(rf"lola-data {re.escape(name)}(?![\w-])", text)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in LINK.findall(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page_id(page)}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{page_id(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_command_lines_are_accepted(page: Path) -> None:
    for words in command_lines(page):
        line = " ".join(words)
        try:
            options = parse(words)
        except click.ClickException as error:
            pytest.fail(f"{page_id(page)}: {line}: {error.format_message()}")
        if words[1:2] != ["run"]:
            continue
        for stage in (*options["only"], *options["redo"], *([options["start"]] if options["start"] else [])):
            assert stage in TREES, f"{page_id(page)}: {line}"
        for change in options["overrides"]:
            assert change.partition("=")[0] in keys(), f"{page_id(page)}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_in_the_text_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for span in re.findall(r"(?<!`)`(lola-data [^`]+)`(?!`)", text):
        try:
            parse(shlex.split(span))
        except click.MissingParameter:
            pass  # the text names a command without all of its arguments
        except click.ClickException as error:
            pytest.fail(f"{page_id(page)}: {span}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_recipes_are_valid(page: Path) -> None:
    for language, content in blocks(page):
        if language in ("yaml", "yml"):
            parse_recipe(content, name=page_id(page))


def test_the_checks_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\nlola-data run a.yaml --onyl dedup | tail -1  # comment\nlola-data sing\n```\n\n"
        "    $ lola-data dedup --threshold high --workdir w > out\n",
        "utf-8",
    )
    lines = command_lines(page)
    assert [words[1] for words in lines] == ["run", "sing", "dedup"]
    for words in lines:
        with pytest.raises(click.ClickException):
            parse(words)
    with pytest.raises(RecipeError, match="did you mean `threshold`"):
        parse_recipe("dedup:\n  treshold: 0.8\n")
    assert parse(["lola-data", "dedup", "--threshold", "0.9", "--workdir", "w"])["threshold"] == parse_value("0.9")
    assert slug("Blind spots of lid.176.ftz") == "blind-spots-of-lid176ftz"


if __name__ == "__main__":
    page = RECIPE_PAGE.read_text("utf-8")
    start, stop = page.index(BEGIN) + len(BEGIN), page.index(END)
    RECIPE_PAGE.write_text(page[:start] + recipe_tables() + page[stop:], "utf-8")
