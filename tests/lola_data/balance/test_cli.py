"""Command ``balance``: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from lola_data.balance import measure as balance
from lola_data.balance import sample as balance_sample
from lola_data.balance.cli import balance as command
from lola_data.balance.compare import compare
from lola_data.balance.measure import measure
from lola_data.balance.text import table_cells, warning_lines
from lola_data.balance.warnings import BalanceWarning
from lola_data.cli import EntryPointGroup
from lola_data.schemas import RAW
from lola_data.text_tables import plain_table, readable_bytes, readable_share
from tests.lola_data.balance.trees import write_pages, write_rows, write_run, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    import click


def run(*arguments: object) -> Result:
    """The command as the console script runs it."""

    class Group(EntryPointGroup):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return command

    return CliRunner().invoke(Group("lola-data"), ["balance", *map(str, arguments)])


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_run(tmp_path / "work")
    return tmp_path / "work"


def test_plain_table(work: Path) -> None:
    result = run(work, "--min-documents", 2)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    table = lines[: lines.index("")]
    head = re.split(r"  +", table[0])
    assert head[:8] == ["lang", "name", "script", "family", "raw", "identified", "deduped", "sampled"]
    german = dict(zip(head, re.split(r"  +", next(line for line in table if line.startswith("de "))), strict=True))
    assert (german["raw"], german["sampled"], german["removed"], german["target"]) == ("6", "2", "50.0%", "50.0%")
    total = re.split(r"  +", table[-1])
    assert total[:3] == ["total", "9", "7"]
    notes = lines[len(table) + 1 :]
    assert any(line.startswith("evenness, plan: 2.8 effective languages of 4") for line in notes)
    assert "left at identify: 1 empty, 1 relabelled, 1 wrong_language" in notes
    assert "left at sample: 1 not_sampled" in notes
    assert "warning: cy: no documents left: of 1 in raw" in notes


def test_columns_are_aligned_in_cells_and_not_wrapped(tmp_path: Path) -> None:
    for lang in ("vo", "zh", "nds", "漢字"):
        write_rows(tmp_path / f"raw/{lang}/a.parquet", RAW, [{"text": "x" * 1234567}])
    table = plain_table(*table_cells(measure(tmp_path / "raw"), "language"))
    assert max(map(len, table.splitlines())) > 80
    ends = {cell_len(line) for line in table.splitlines()}
    assert len(ends) == 1  # the last column is right-aligned, so all lines end together
    assert len(table.splitlines()) == 2 + 4 + 2


def test_narrow_terminals_lose_columns_not_digits(work: Path) -> None:
    measured = measure(work)
    headers, right, rows = table_cells(measured, "language", width=50)
    assert cell_len(plain_table(headers, right, rows).splitlines()[0]) <= 50
    assert headers[:2] == ["lang", "name"]
    assert "raw" in headers
    assert "family" not in headers
    assert all(len(row) == len(headers) == len(right) for row in rows)


def test_top_says_how_many_more(work: Path) -> None:
    lines = run(work, "--top", 1).stdout.splitlines()
    assert lines[2].startswith("yo")
    assert lines[3] == "... 3 more"
    assert lines[5].startswith("total")


def test_many_warnings_of_a_kind_are_one_line_or_a_few() -> None:
    few = [BalanceWarning("few_documents", f"l{i}", "1 of at least 2") for i in range(9)]
    other = [BalanceWarning("other_language", f"l{i}", "all") for i in range(8)]
    lines = warning_lines([*few, *other])
    assert lines[0] == "warning: 9 languages: few documents: l0, l1, l2, l3, l4, l5 and 3 more"
    assert lines[1:7] == [f"warning: l{i}: mostly detected as another language: all" for i in range(6)]
    assert lines[7].startswith("warning: 2 more: mostly detected as another language")
    assert warning_lines(few[:1]) == ["warning: l0: few documents: 1 of at least 2"]


@pytest.mark.parametrize(("by", "first"), [("script", "Latn"), ("family", "Atlantic-Congo"), ("source", "mC4")])
def test_groups(work: Path, by: str, first: str) -> None:
    lines = run(work, "--by", by).stdout.splitlines()
    assert re.split(r"  +", lines[0])[:2] == [by, "languages"]
    assert lines[2].startswith(first)


def test_json_is_one_document_with_the_api_s_numbers(work: Path) -> None:
    result = run(work, "--json", "--min-documents", 2)
    document = json.loads(result.stdout)
    assert document["format"] == 1
    assert document["stages"] == ["raw", "identified", "deduped", "sampled", "tokens"]
    assert document["rows"] == measure(work).table().to_dicts()
    assert document["totals"]["documents"] == 5
    assert document["evenness"]["plan"]["effective_languages"] == pytest.approx(2**1.5)
    assert {"lang": "de", "step": "dedup", "reason": "near", "documents": 1, "bytes": 10} in document["removed"]
    assert {"kind": "few_documents", "lang": "br", "detail": "1 of at least 2"} in document["warnings"]
    assert document["splits"][0]["stage"] == "tokens"


def test_json_by_family_has_families_as_rows(work: Path) -> None:
    document: dict[str, Any] = json.loads(run(work, "--json", "--by", "family").stdout)
    assert [row["family"] for row in document["rows"]] == ["Atlantic-Congo", "Indo-European"]


def test_csv_and_html(work: Path, tmp_path: Path) -> None:
    result = run(work, "--csv", tmp_path / "out.csv", "--html", tmp_path / "new" / "out.html", "--title", "Ours")
    assert result.exit_code == 0, result.output
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as handle:
        rows = {row["lang"]: row for row in csv.DictReader(handle)}
    assert (rows["de"]["raw_documents"], rows["de"]["epochs"], rows["cy"]["target_share"]) == ("6", "0.75", "")
    steps = ("identify_", "dedup_", "sample_")
    left = {
        lang: {name: int(row[name]) for name in row if name.startswith(steps) and row[name]}
        for lang, row in rows.items()
    }
    german = {"identify_empty": 1, "identify_wrong_language": 1, "dedup_near": 1, "sample_not_sampled": 1}
    assert left == {"de": german, "cy": {"identify_relabelled": 1}, "yo": {}, "br": {}}
    assert "<title>Ours</title>" in (tmp_path / "new" / "out.html").read_text(encoding="utf-8")
    assert f"written: {tmp_path / 'out.csv'}" in result.stderr


def test_domains(work: Path) -> None:
    lines = run(work / "raw", "--by", "domain").stdout.splitlines()
    assert [re.split(r"  +", line) for line in lines[:3]] == [
        ["domain", "languages", "most in", "documents", "share"],
        ["------", "---------", "-------", "---------", "------"],
        ["a.de", "1", "de", "3", "33.3%"],
    ]
    document = json.loads(run(work, "--by", "domain", "--json").stdout)
    assert [row["domain"] for row in document["rows"]] == ["a.de", "y.ng", "(none)"]
    assert document["removed"] == []


def test_tokens_of_a_tokenizer(work: Path, tmp_path: Path) -> None:
    model = write_tokenizer(tmp_path / "a.model")
    result = run(work / "raw", "--tokens", model)
    assert result.exit_code == 0, result.output
    assert "tokens" in re.split(r"  +", result.stdout.splitlines()[0])
    assert f"tokens of the texts of raw by {model}: all of them" in result.stdout
    document = json.loads(run(work / "raw", "--tokens", model, "--json", "--exact").stdout)
    assert document["tokenizer"] == str(model)
    assert {row["lang"]: row["half_width"] for row in document["encoded"]} == {"cy": 0.0, "de": 0.0, "yo": 0.0}
    assert document["totals"]["tokens"] == sum(row["tokens"] for row in document["encoded"])
    result = run(work, "--tokens", tmp_path / "absent.model")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "absent.model" in result.stderr


def test_estimates_in_json_and_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_sample, "SAMPLE_BYTES", 1)
    monkeypatch.setattr(balance, "EXACT_BELOW", 1)
    write_pages(tmp_path / "raw", "de", [f"{'x' * (number % 97)} {number}" for number in range(3000)])
    document = json.loads(run(tmp_path / "raw", "--json", "--csv", tmp_path / "out.csv").stdout)
    assert not document["exact"]
    assert document["confidence"] == 0.95
    assert {"characters", "mean_length", "p50_length"} <= set(document["estimated"])
    [row] = document["rows"]
    assert row["p50_length_low"] <= row["p50_length"] <= row["p50_length_high"]
    [read] = document["read"]
    assert (read["stage"], read["lang"]) == ("raw", "de")
    assert 0 < read["documents"] < 3000 / 2
    assert 0 < read["bytes"] < row["bytes"] / 2
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as handle:
        assert float(next(csv.DictReader(handle))["characters_low"]) == row["characters_low"]
    lines = run(tmp_path / "raw").stdout.splitlines()
    assert any(line.startswith("~ estimated from a sample: ") for line in lines)
    assert "~" not in run(tmp_path / "raw", "--exact").stdout


def test_against_another_corpus(work: Path, tmp_path: Path) -> None:
    for lang, size in (("de", 30), ("sw", 70)):
        write_rows(tmp_path / f"other/{lang}/a.parquet", RAW, [{"text": "x" * size}])
    page = tmp_path / "out.html"
    result = run(work, "--against", tmp_path / "other", "--csv", tmp_path / "out.csv", "--html", page)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    start = lines.index(f"against {tmp_path / 'other'}")
    head = re.split(r"  +", lines[start + 1])
    there = ["documents there", "bytes there", "share there"]
    assert head == ["lang", "name", "documents", there[0], "bytes", there[1], "share", there[2], "ratio"]
    shown = {line.split()[0]: line for line in lines[start + 3 :] if line}
    assert shown["sw"].split()[1:] == ["Swahili", "0", "1", "0", "B", "70", "B", "0.0%", "70.0%", "0"]
    assert any(line.startswith("distance, by bytes: total variation ") for line in lines)
    assert "only here: yo, br" in lines
    assert "only there: sw" in lines
    document = json.loads(run(work, "--against", tmp_path / "other", "--json").stdout)
    assert document["against"]["rows"] == compare(measure(work), measure(tmp_path / "other")).to_dicts()
    assert (document["against"]["unit"], document["against"]["only_there"]) == ("bytes", ["sw"])
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as handle:
        rows = {row["lang"]: row for row in csv.DictReader(handle)}
    assert (rows["sw"]["other_documents"], rows["sw"]["raw_documents"], rows["sw"]["name"]) == ("1", "", "Swahili")
    assert (rows["de"]["raw_documents"], rows["cy"]["raw_documents"], rows["cy"]["other_share"]) == ("6", "1", "")
    assert page.stat().st_size > 0
    result = run(work, "--against", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "nowhere: no such file or folder" in result.stderr


def test_paths_that_hold_nothing_end_with_one_line_and_one(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        result = run(path)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith(f"lola-data: error: {path}: ")
        assert len(result.stderr.splitlines()) == 1


def test_a_broken_shard_ends_with_its_name_and_leaves_nothing(work: Path, tmp_path: Path) -> None:
    (work / "raw/yo/yo_part_00000.parquet").write_bytes(b"PAR1")
    result = run(work, "--csv", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert "yo_part_00000.parquet" in result.stderr
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("exact", [(), ("--exact",)])
def test_names_from_the_web_cannot_steer_the_terminal(tmp_path: Path, exact: tuple[str, ...]) -> None:
    """Source, host and folder come from strangers: escape sequences and overrides are shown, not obeyed."""
    evil = "\x1b[2J\u202eevil"
    rows = [{"text": f"text {n}", "source": evil, "url": f"https://{evil}.example/{n}"} for n in range(20)]
    write_rows(tmp_path / f"raw/d{evil}/a.parquet", RAW, rows)
    outputs = [run(tmp_path / "raw", *exact, "--by", by) for by in ("language", "source", "domain")]
    outputs += [run(tmp_path / "raw", "--against", tmp_path / "raw", *exact)]
    for result in outputs:
        assert result.exit_code == 0, result.output
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result.stdout)
    assert "‹ESC›[2J‹RLO›evil" in outputs[1].stdout
    assert "‹ESC›[2j‹RLO›evil.example" in outputs[2].stdout
    told = run(tmp_path / "raw", "--json", "--by", "source").stdout
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", told)
    assert json.loads(told)["rows"][0]["source"] == evil


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_a_file_that_cannot_be_written_is_named(work: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("x")
    result = run(work, option, tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "file/out: cannot be written" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["x", "--by", "planet"], ["x", "--top", "0"]])
def test_wrong_options_end_with_two(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_raw_with_a_tree_ends_with_two(work: Path) -> None:
    result = run(work / "raw", "--raw", work / "raw")
    assert result.exit_code == 2
    assert "one work folder" in result.stderr


def test_help_has_an_example() -> None:
    assert "lola-data balance work/demo --html balance.html" in run("--help").stdout


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345, "12.3 kB"), (999_499, "999 kB"), (999_500, "1.00 MB"),
     (6.3e12, "6.30 TB")],
)  # fmt: skip
def test_readable_bytes(size: float, shown: str) -> None:
    assert readable_bytes(size) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, "0.0%"), (1, "100.0%"), (0.123, "12.3%"), (0.0123, "1.23%"), (0.0001, "0.01%"), (1e-9, "<0.01%")],
)
def test_readable_share(share: float, shown: str) -> None:
    assert readable_share(share) == shown
