"""Command ``diff``: what it prints, writes and refuses."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from lola_data.cli import EntryPointGroup
from lola_data.diff.cli import diff as command
from lola_data.diff.lines import table_lines
from lola_data.diff.page import table_html
from lola_data.diff.tables import Table
from lola_data.schemas import RAW
from tests.lola_data.balance.trees import write_rows
from tests.lola_data.inspect.test_page import Reader
from tests.lola_data.inspect.trees import Truth, write_small_run

if TYPE_CHECKING:
    from pathlib import Path

    import click


def run(*arguments: object) -> Result:
    """The command as the console script runs it."""

    class Group(EntryPointGroup):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return command

    return CliRunner().invoke(Group("lola-data"), ["diff", *map(str, arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Truth]]:
    root = tmp_path_factory.mktemp("run") / "work"
    return root, write_small_run(root, model=False)


def table(output: str, title: str) -> list[dict[str, str]]:
    """The rows of a printed table, by its headers."""
    rows = output.splitlines()
    start = rows.index(title) + 1
    block = [re.split(r"  +", row.strip()) for row in rows[start : rows.index("", start)]]
    return [dict(zip(block[0], row, strict=False)) for row in block[1:] if len(row) > 1]  # a note is one cell


def test_the_audit_of_a_run(made: tuple[Path, list[Truth]]) -> None:
    root, truth = made
    result = run(root, "--samples", 1)
    assert result.exit_code == 0, result.output
    rows = {row["lang"]: row for row in table(result.stdout, "removed by language")}
    german = [one for one in truth if one.claimed == "de"]
    assert rows["de"]["given"] == str(len(german))
    assert rows["de"]["near"] == str(sum(one.end == "near" for one in german))
    assert rows["de"]["left"] == str(sum(not one.end for one in german))
    removed = sum(bool(one.removed_at) for one in german)
    assert rows["de"]["removed"] == f"{removed / len(german):.1%}"
    assert (rows["br"]["moved in"], rows["cy"]["moved out"]) == ("4", "4")
    total = re.split(r"  +", next(row for row in result.stdout.splitlines() if row.startswith("  total")).strip())
    assert total[1:4] == [str(len(truth)), "4", "4"]
    assert total[-3] == str(sum(not one.end for one in truth))
    assert "[-" in result.stdout
    assert f"lola-data inspect {root} --removed" in result.stdout


def test_the_audit_by_reason_and_source(made: tuple[Path, list[Truth]]) -> None:
    root, truth = made
    rows = table(run(root, "--by", "reason", "--samples", 0).stdout, "removed by reason")
    near = next(row for row in rows if row["reason"] == "near")
    given = sum(one.removed_at != "identify" for one in truth)
    assert (near["documents"], near["share"], near["languages"]) == ("3", f"{3 / given:.2%}", "2")
    rows = table(run(root, "--by", "source", "--samples", 0).stdout, "removed by source")
    assert [row["source"] for row in rows] == ["OSCAR-2301", "mC4", "total"]


def test_json_of_the_audit_adds_up(made: tuple[Path, list[Truth]]) -> None:
    root, truth = made
    value = json.loads(run(root, "--json").stdout)
    counted = sum(row["documents"] for row in value["rows"] if row["stage"] != "sample")
    assert counted == sum(bool(one.removed_at) for one in truth)
    assert sum(row["bytes"] for row in value["rows"] if row["stage"] != "sample") == sum(
        len(one.text.encode()) for one in truth if one.removed_at
    )
    assert {one["id"] for one in value["samples"]} <= {one.id for one in truth if one.removed_at}
    assert value["relabelled"] == [{"from": "cy", "to": "br", "documents": 4}]


def test_two_runs(made: tuple[Path, list[Truth]], tmp_path: Path) -> None:
    root, _ = made
    other = tmp_path / "other"
    shutil.copytree(root, other)
    (other / "state/dedup/fingerprint.json").write_text(json.dumps({"settings": {"threshold": 0.7, "url": True}}))
    shutil.rmtree(other / "sampled/yo")
    result = run(root, other)
    assert result.exit_code == 0, result.output
    assert table(result.stdout, "settings that differ") == [{"setting": "dedup.threshold", "A": "0.8", "B": "0.7"}]
    stages = {row["stage"]: row for row in table(result.stdout, "documents by stage")}
    assert (stages["deduped"]["only in A"], stages["sampled"]["only in A"]) == ("0", "7")
    assert re.search(r"^yo/\S+  only in A$", result.stdout, re.MULTILINE)
    value = json.loads(run(root, other, "--json").stdout)
    assert value["stages"]["sample"]["totals"]["went"] == 7
    assert value["subject"] == "sample"
    assert value["settings"] == [{"stage": "dedup", "key": "threshold", "first": "0.8", "second": "0.7"}]
    same = run(root, root)
    assert "settings that differ" not in same.stdout
    assert "only in A\n  language" not in same.stdout
    by_reason = run(root, other, "--by", "reason", "--lang", "yo")
    removed = {row["reason"]: row for row in table(by_reason.stdout, "removed")}
    assert (removed["url"]["A"], removed["url"]["difference"]) == ("1", "0")
    assert (removed["not_sampled"]["A"], removed["not_sampled"]["B"]) == ("0", "7")


def test_trees_of_other_tools_by_text(made: tuple[Path, list[Truth]], tmp_path: Path) -> None:
    root, truth = made
    german = [one.text for one in truth if one.claimed == "de"]
    write_rows(tmp_path / "b/de/x.parquet", RAW, [{"text": text} for text in ["neu", *german[:5], german[0]]])
    result = run(root / "raw", tmp_path / "b", "--lang", "de")
    assert result.exit_code == 0, result.output
    row = table(result.stdout, "by language")[0]
    left = len(german) - 5
    assert (row["A"], row["B"], row["same"]) == (str(len(german)), "7", "5")
    assert (row["only in A"], row["only in B"]) == (str(left), "2")
    assert "changed" not in row
    assert "\n    neu\n" in result.stdout
    by_id = run(root / "identified", root / "deduped", "--json")
    assert json.loads(by_id.stdout)["match"] == "id"


def test_a_page(made: tuple[Path, list[Truth]], tmp_path: Path) -> None:
    root, truth = made
    for number, arguments in enumerate(([root], [root, root], [root / "raw", root / "sampled"])):
        path = tmp_path / f"{number}.html"
        result = run(*arguments, "--html", path)
        assert (result.exit_code, result.stdout) == (0, ""), result.output
        read = Reader(path.read_text(encoding="utf-8"))
        assert "script" not in {tag for tag, _ in read.tags}
        assert "table" in {tag for tag, _ in read.tags}
        texts = {one.text for one in truth}
        assert {one["content"] for one in read.texts} <= texts


def test_tables() -> None:
    given = Table(
        "t", ("name", "count", "last"), (("漢字", "1", "x"), ("<b>", "1,000", "yy")), last_left=True, note="n"
    )
    rows = [line.spans[0].text for line in table_lines(given)[1:4]]
    assert rows == ["name  count  last", "漢字      1  x", "<b>   1,000  yy"]
    assert [cell_len(row) for row in rows] == [17, 14, 15]
    html = table_html(given)
    assert '<th scope="row">&lt;b&gt;</th><td class="n">1,000</td><td>yy</td>' in html


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["{root}/raw"], 2, "not a work folder"),
        (["{root}", "{root}", "--raw", "x"], 2, "--raw"),
        (["{root}", "--match", "id"], 2, "nothing to match"),
        (["{root}/raw", "{root}/sampled", "--by", "reason"], 2, "of two trees"),
        (["{root}/raw", "{root}/sampled", "--match", "id"], 2, "no column `id`"),
        (["{root}/tokens", "{root}/sampled"], 2, "token shards"),
        (["{root}/removed/dedup", "{root}/sampled"], 2, "removed rows"),
        (["{root}", "--lang", "xx"], 2, "nearest of its"),
        (["{root}", "{root}/nowhere"], 1, "no such file"),
        ([], 2, "Missing argument"),
    ],
)
def test_refusals(made: tuple[Path, list[Truth]], arguments: list[str], code: int, told: str) -> None:
    result = run(*(argument.format(root=made[0]) for argument in arguments))
    assert result.exit_code == code
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_help_has_an_example() -> None:
    assert "lola-data diff work/demo --by reason" in run("--help").stdout
