"""Command ``inspect``: what it prints, writes and refuses."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from lola_data.cli import EntryPointGroup
from lola_data.inspect.cli import inspect as command
from lola_data.inspect.lines import BLANK, Line, fact, heading, print_lines
from lola_data.shown_text import FSI, PDI, RLI, spans
from tests.lola_data.inspect.trees import Truth, write_small_run

if TYPE_CHECKING:
    from pathlib import Path

    import click


def run(*arguments: object) -> Result:
    """The command as the console script runs it."""

    class Group(EntryPointGroup):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return command

    return CliRunner().invoke(Group("lola-data"), ["inspect", *map(str, arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Truth]]:
    root = tmp_path_factory.mktemp("run") / "work"
    return root, {one.id: one for one in write_small_run(root)}


def test_documents_are_printed_plain(made: tuple[Path, dict[str, Truth]]) -> None:
    root, truth = made
    result = run(root, "--lang", "de", "--n", 2, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    heads = [line for line in result.stdout.splitlines() if re.match(r"de/\S+  \d of 2", line)]
    assert len(heads) == 2
    for head in heads:
        text = truth[head.split()[0]].text
        assert all(f"    {line}\n" in result.stdout for line in text.split("\n"))
    german = sum(one.lang == "de" and not one.end for one in truth.values())
    assert result.stdout.splitlines()[-1] == f"2 of {german} documents  sampled, seed 3; --seed N shows others"
    assert run(root, "--lang", "de", "--n", 2, "--seed", 3).stdout == result.stdout


def test_right_to_left_lines_are_isolated(made: tuple[Path, dict[str, Truth]]) -> None:
    result = run(made[0], "--lang", "ar", "--n", 1)
    text = [line for line in result.stdout.splitlines() if line.startswith("    ")]
    assert text
    assert all(line.strip().startswith(FSI) and line.endswith(PDI) for line in text)


def test_removed_documents_beside_what_was_kept(made: tuple[Path, dict[str, Truth]]) -> None:
    root, _ = made
    result = run(root, "--reason", "near-duplicate", "--lang", "de")
    assert result.exit_code == 0, result.output
    assert "removed     dedup: near" in result.stdout
    assert "kept        de/de_part_00000/1  similarity 0.875" in result.stdout
    assert "[-" in result.stdout
    assert "anders-]" in result.stdout
    assert "2 of 2 removed documents" in result.stdout


def test_json_has_the_values_of_the_shards(made: tuple[Path, dict[str, Truth]]) -> None:
    root, truth = made
    value = json.loads(run(root, "--json", "--n", 1000).stdout)
    sampled = {one.id: one for one in truth.values() if not one.end}
    assert value["total"] == len(sampled)
    assert {one["id"]: one["text"] for one in value["documents"]} == {i: one.text for i, one in sampled.items()}
    for one in value["documents"]:
        assert one["cluster_size"] == truth[one["id"]].cluster_size
        assert one["bytes"] == len(truth[one["id"]].text.encode())
    gone = json.loads(run(root, "--json", "--removed", "--n", 1000).stdout)["documents"]
    assert {one["id"]: one["reason"] for one in gone} == {one.id: one.end for one in truth.values() if one.removed_at}
    near = next(one for one in gone if one["reason"] == "near")
    assert near["survivor"]["text"] == truth[near["kept_id"]].text
    assert near["text"] == truth[near["id"]].text
    assert near["survivor"]["id"] == near["kept_id"]


def test_one_document_s_way(made: tuple[Path, dict[str, Truth]]) -> None:
    root, truth = made
    one = truth["de/de_part_00000/1"]
    result = run(root, one.id)
    assert result.exit_code == 0, result.output
    for told in ("origin hub/de_part_00000.parquet".replace("hub/", "hub/de/"), "score 0.750", "cluster size 3",
                 "removed for this document", "de/de_part_00001/2", f"split {one.split}", "│"):  # fmt: skip
        assert told in result.stdout, told
    value = json.loads(run(root, "--id", one.id, "--json").stdout)
    assert [step["stage"] for step in value["steps"]] == ["download", "identify", "dedup", "sample", "tokenize"]
    assert {f["id"] for f in value["favoured"]} == {"de/de_part_00000/7", "de/de_part_00001/2"}
    assert value["text"] == one.text
    assert run(root / "raw", one.id).stdout == result.stdout


def test_a_page_instead(made: tuple[Path, dict[str, Truth]], tmp_path: Path) -> None:
    result = run(made[0], "--n", 2, "--html", tmp_path / "new/out.html")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "written: " in result.stderr
    assert (tmp_path / "new/out.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file/out.html", "/proc/none/out.html"):
        result = run(made[0], "--n", 2, "--html", place)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"lola-data: error: {place}: cannot be written")


def test_a_tree_of_another_tool_with_bad_bytes(tmp_path: Path) -> None:
    values = pa.array([b"\x1b[2J\xff\x00", "\u202eabc".encode()], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, values.buffers())
    (tmp_path / "en").mkdir()
    pq.write_table(pa.table({"text": text, "score": [1, 2]}), tmp_path / "en/a.parquet")
    result = run(tmp_path)
    assert "    ‹ESC›[2J\\xff‹NUL›\n" in result.stdout
    assert "    ‹RLO›abc\n" in result.stdout
    output = run(tmp_path, "--json").stdout
    assert not set(output) & {"\x1b", "\x00", "\u202e"}
    documents = sorted(json.loads(output)["documents"], key=lambda one: one["row"])
    assert [(one["text"], one["valid_utf8"]) for one in documents] == [("\x1b[2J\\xff\x00", False), ("\u202eabc", True)]


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"content": ["a", "b"], "url": ["u", "v"]}, "no column `text`.*content, url"),
        ({"body": ["a", "b"]}, "no column.*`text`.*body"),
    ],
)
def test_a_tree_without_texts(tmp_path: Path, table: dict[str, list[str]], named: str) -> None:
    (tmp_path / "en").mkdir()
    pq.write_table(pa.table(table), tmp_path / "en/a.parquet")
    result = run(tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(rf"lola-data: error: .*en/a\.parquet: {named}.*\n", result.stderr)


def test_a_url(made: tuple[Path, dict[str, Truth]]) -> None:
    memory = fsspec.filesystem("memory")
    root, truth = made
    for path in root.rglob("*"):
        if path.is_file():
            memory.pipe(f"/run/{path.relative_to(root)}", path.read_bytes())
    try:
        assert run("memory://run", "--json").stdout.replace("memory:///run", str(root)) == run(root, "--json").stdout
        near = json.loads(run("memory://run", "--reason", "near", "--json").stdout)["documents"]
        assert {one["text"] for one in near} == {one.text for one in truth.values() if one.end == "near"}
        assert run("memory://run", "de/de_part_00000/7", "--json").exit_code == 0
        way = run("memory://run", "de/de_part_00000/1")
        assert "cluster size 3" in way.stdout
        assert way.stdout == run(root, "de/de_part_00000/1").stdout
    finally:
        memory.rm("/run", recursive=True)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--lang", "xx"], 2, "nearest of its 5 languages"),
        (["--reason", "boring"], 2, "the reasons here are"),
        (["nonsense"], 2, "not an id"),
        (["de/de_part_00000/99"], 1, "has 13 rows"),
        (["de/de_part_00000/1", "--id", "yo/yo_part_00000/1"], 2, "two ids"),
        (["de/de_part_00000/1", "--lang", "de"], 2, "by its id alone"),
        (["--n", "0"], 2, "--n"),
        (["--max-chars", "-1"], 2, "--max-chars"),
    ],
)
def test_refusals_are_one_line(made: tuple[Path, dict[str, Truth]], arguments: list[str], code: int, told: str) -> None:
    result = run(made[0], *arguments)
    assert result.exit_code == code
    assert told in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_an_id_in_a_tree_of_no_run(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "en/a.parquet")
    result = run(tmp_path, "en/a/0")
    assert (result.exit_code, "not the work folder of a run" in result.stderr) == (2, True)


def test_max_chars(made: tuple[Path, dict[str, Truth]]) -> None:
    short = run(made[0], "--max-chars", 3)
    assert "more characters]" in short.stdout
    assert "more characters]" not in run(made[0], "--max-chars", 0).stdout


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_lines_have_colours_and_are_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    arabic = "يولد جميع الناس أحرارا متساوين في الكرامة"
    long = "word " * 12
    print_lines([heading("head"), fact("url", long), Line(tuple(spans(arabic)), 4, True), BLANK], out)
    assert "\x1b[1mhead" in out.getvalue()
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in out.getvalue().splitlines()]
    assert max(map(len, rows)) <= 40 + 2  # the isolates take no cell
    text = [row.strip() for row in rows if RLI in row]
    assert len(text) > 1
    assert all(row.startswith(RLI) and row.endswith(PDI) for row in text)
    assert " ".join(" ".join(row[1:-1] for row in text).split()) == arabic
    values = [row for row in rows if "word" in row]
    assert all(row.startswith("  url         word" if at == 0 else " " * 14 + "word") for at, row in enumerate(values))


def test_help_has_an_example() -> None:
    assert "lola-data inspect work/demo --lang yo" in run("--help").stdout


class TestWithoutAPath:
    """The work folder is the one the command is called in, or the only one below."""

    @pytest.mark.parametrize("place", [".", "..", "sampled/de"])
    def test_an_id_alone(
        self, made: tuple[Path, dict[str, Truth]], monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        root, truth = made
        wanted = next(iter(truth))
        monkeypatch.chdir(root / place)
        assert run(wanted).stdout == run(root, wanted).stdout
        assert run("--n", 2, "--lang", "de").stdout == run(root, "--n", 2, "--lang", "de").stdout

    def test_none_or_several(
        self, made: tuple[Path, dict[str, Truth]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = run("de/de_part_00000/3")
        assert result.exit_code == 2
        assert f"{tmp_path}: the work folder of a run is looked for here, and there is none" in result.output
        for name in ("one", "two"):
            (tmp_path / "work" / name / "state").mkdir(parents=True)
        assert "several: work/one, work/two" in run("de/de_part_00000/3").output

    def test_a_path_that_looks_like_an_id(self, made: tuple[Path, dict[str, Truth]], tmp_path: Path) -> None:
        missing = run(tmp_path / "nowhere/7.parquet")
        assert missing.exit_code != 0
        assert "looked for here" not in missing.output
