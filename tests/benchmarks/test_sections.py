"""Sections that are no races: what they compute, by hand; the summary; a call in a process of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from benchmarks import hard, limits, memory, summary
from benchmarks.alike import all_pairs, grams_of, words
from benchmarks.harness import WITHOUT_GOAL, Agreement, Contender, Row, Run, Stage, run_call, run_stage
from benchmarks.report import replace_section, update
from benchmarks.section import SECTIONS, load_section
from benchmarks.summary import HELD, MET, MISSED, NOT_HELD, Entry, comment, entries_of, read_entries, table
from benchmarks.tables import markdown_table
from benchmarks.tiles import Raw, tile, told_anew, write
from lola_data.sample_corpus import sample_root

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Work


def run_of(cpu: float, wall: float = 1.0, peak: int = 10**8) -> Run:
    return Run(wall=wall, cpu=cpu, load=0.5, loaded_rss=10**8, peak_rss=peak, out_bytes=0)


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_every_section_has_the_name_it_is_called_by() -> None:
    assert [load_section(name).name for name in SECTIONS] == list(SECTIONS)


def test_bound_is_the_parts_one_after_the_other() -> None:
    # 100 MB at 50, 25 and 100 MB/s: 2 s, 4 s (twice 2 s) and 1 s.
    rates = {"read": 50.0, "kernel": 50.0, "write": 100.0}
    found = limits.bound(("read", "kernel", "write", "kernel"), rates)
    assert found.rate == pytest.approx(100 / 7)
    assert found.largest == "kernel"
    assert found.share == pytest.approx(4 / 7)


def test_limits_tell_the_share_of_the_bound_that_is_reached() -> None:
    every = {part for parts in limits.PARTS.values() for part in parts}
    rates = dict.fromkeys(every, 100.0)
    told = limits.tell(rates, {"io": 25.0, "identify": None})
    io, identify = (cells_of(line) for line in told.body.splitlines()[4:6])
    # Reading and writing at 100 MB/s each leave 50 for both.
    assert io[:4] == ["io", "25.00", "50.0", "50%"]
    assert identify[:4] == ["identify", "failed", "100.0", ""]


def test_growth_is_memory_by_text_added() -> None:
    sizes = {1: 16_000_000, 3: 48_000_000, 10: 160_000_000}
    assert memory.growth({1: 300_000_000, 3: 0, 10: 372_000_000}, sizes) == pytest.approx(0.5)


def test_flat_is_a_share_of_the_smallest_peak() -> None:
    assert memory.FLAT == 1.15
    assert memory.is_flat({1: 2 * 10**8, 3: 10**9, 10: 230_000_000})
    assert not memory.is_flat({1: 2 * 10**8, 3: 0, 10: 230_000_001})


def test_memory_holds_every_stage_but_matching_to_be_flat() -> None:
    sizes = {1: 10**8, 10: 10**9}
    flat, steep = {1: 3 * 10**8, 10: 3 * 10**8 + 10**7}, {1: 3 * 10**8, 10: 9 * 10**8}
    told = memory.tell({"identify": flat, "dedup: match": steep}, sizes)
    assert told.sound
    assert [(entry.against, entry.verdict) for entry in told.entries] == [("identify", HELD)]
    assert "grows, as it may" in told.body
    told = memory.tell({"identify": steep, "dedup: match": steep}, sizes)
    assert not told.sound
    assert [(entry.against, entry.verdict) for entry in told.entries] == [("identify", NOT_HELD)]


def test_bars_are_as_long_as_the_peaks() -> None:
    lines = memory.chart({"one": {1: 50_000_000, 10: 100_000_000}}, {1: 1, 10: 10}, width=20).splitlines()
    assert [line.count("#") for line in lines] == [10, 20]
    assert [line.split()[-1] for line in lines] == ["50", "100"]


def test_a_hard_case_is_held_to_the_bytes_of_ordinary_text() -> None:
    ordinary = hard.Case("ordinary", 1_000, 4_000_000)
    case, rows = hard.Case("case", 1, 1_000_000, "ordinary"), hard.Case("rows", 500, 0, "ordinary")
    # 1 s for 4 MB is 0.25 s a MB, and 1 ms a row.
    assert hard.times_ordinary(case, run_of(0.5), ordinary, run_of(1.0)) == pytest.approx(2.0)
    assert hard.times_ordinary(rows, run_of(0.25), ordinary, run_of(1.0)) == pytest.approx(0.5)
    usual: dict[str, Run | str] = dict.fromkeys(hard.WORKS, run_of(1.0))

    def verdicts(*costs: float | str) -> list[str]:
        made: list[Run | str] = [cost if isinstance(cost, str) else run_of(cost) for cost in costs]
        runs: dict[str, Run | str] = dict(zip(hard.WORKS, made, strict=True))
        told = hard.tell([ordinary, case], {"ordinary": dict(usual), "case": runs})
        assert told.sound is (told.entries[0].verdict == HELD)
        return [told.entries[0].verdict, cells_of(told.body.splitlines()[-1])[-1]]

    assert verdicts(0.5, 0.1, 0.25, 0.49) == [HELD, HELD]
    assert verdicts(0.5, 0.1, 0.25, 0.51) == [NOT_HELD, f"{NOT_HELD}: tokenize"]
    assert verdicts(0.5, "no end after 30 s", 0.25, 0.25) == [NOT_HELD, f"{NOT_HELD}: signatures"]


def test_hard_collections_are_what_they_are_called() -> None:
    ordinary = [f"First line {number}.\nAnd a second one, with {number} words" for number in range(4_000)]
    scale = 0.001
    made = {name: (texts, beside) for name, texts, beside in hard.collections(ordinary, scale)}
    assert len(made) == 12
    large, small = (name for name, (_, beside) in made.items() if beside is None)
    assert 100_000 <= sum(map(len, made[large][0])) < 100_100
    assert 20_000 <= sum(map(len, made[small][0])) < 20_100
    assert [made["one document"][0][0].split("\n")[0], len(made["one document"][0])] == ["First line 0.", 1]
    assert "\n" not in made["one document of one line"][0][0]
    for what in ("word", "letter"):
        (one,), beside = made[f"one document of one {what}"]
        assert one.isalpha()
        ten = f"10 documents of one {what}"
        assert beside == ten
        assert "".join(made[ten][0]) == one
    assert len(set(made["100 identical documents"][0])) == 1
    changed = made["100 documents, a word changed in each"][0]
    assert len(set(changed)) == 100
    assert {len(one.split(" ")) for one in changed} == {len(changed[0].split(" "))}
    assert set(made["100 empty texts"][0]) == {""}
    assert made["100 blank texts"][0][0].isspace()
    tens = {f"10 documents of one {what}" for what in ("word", "letter")}
    assert {beside for _, beside in made.values()} == {None, large, small, *tens}


def test_a_text_told_anew_keeps_its_words_and_loses_its_runs() -> None:
    rows = pq.read_table(sample_root() / "en" / "en_part_00000.parquet")["text"].to_pylist()[:30]
    text = " ".join(rows)
    again = told_anew(text, 1)
    assert sorted(again.split(" ")) == sorted(text.split(" "))
    assert len(again.encode()) == len(text.encode())
    assert told_anew(text, 0) == text
    tellings = [told_anew(row, telling) for row in rows if len(words(row)) > 100 for telling in range(4)]
    assert not all_pairs(grams_of(tellings), 0.3).one.size
    # Without spaces it is cut by characters.
    thai = "กขคงจฉชซญฐณดตถทธนบปผฝพฟภมยรลวศสหอฮ" * 3
    assert sorted(told_anew(thai, 1)) == sorted(thai)
    assert told_anew(thai, 1) != thai


def test_an_edited_copy_is_as_like_its_original_in_every_telling() -> None:
    names = [f"w{number}" for number in range(200)]
    edited = ["x" if number == 100 else name for number, name in enumerate(names)]
    one, other = (told_anew(" ".join(some), 2).split(" ") for some in (names, edited))
    assert sum(a != b for a, b in zip(one, other, strict=True)) == 1


def test_a_tiled_tree_has_the_size_and_the_shares_of_its_languages(tmp_path: Path) -> None:
    for lang, size in (("aa", 300), ("bb", 100), ("cc", 20)):
        rows = (Raw(f"{lang} {number} " + "word " * 10, None, "u", "s") for number in range(size))
        write(rows, tmp_path / "raw" / lang, f"{lang}.parquet")
    written = tile(tmp_path / "raw", tmp_path / "tree", 100_000, languages=2)
    tables = {path.name: pq.read_table(path) for path in sorted((tmp_path / "tree").iterdir())}
    found = {lang: sum(len(text.encode()) for text in table["text"].to_pylist()) for lang, table in tables.items()}
    assert sorted(found) == ["aa", "bb"]
    assert written == sum(found.values()) == pytest.approx(100_000, rel=0.01)
    assert found["aa"] / found["bb"] == pytest.approx(3, rel=0.05)
    assert len(set(tables["aa"]["url"].to_pylist())) == len(tables["aa"]) // 300 + 1


def test_summary_of_a_stage_tells_goals_and_what_did_not_hold() -> None:
    ours = Row("ours", True, None, "measured", runs=[run_of(1.0, wall=0.5)], ratios=[1.0], rate_goal=10.0)
    fast = Row("fast", False, 5.0, "measured", runs=[run_of(1.0)], ratios=[6.0])
    slow = Row("slow", False, 5.0, "measured", runs=[run_of(1.0)], ratios=[4.0])
    shown = Row("shown", False, None, "measured", runs=[run_of(1.0)], ratios=[4.0])
    wrong = Row("wrong", False, None, "measured", runs=[run_of(1.0)], ratios=[4.0])
    absent = Row("absent", False, 3.0, "not installed", "module")
    fast.agreements = [Agreement("fast", "equal", True), Agreement("fast", "also", None)]
    wrong.agreements = [Agreement("wrong", "equal", True), Agreement("wrong", "not", False)]
    assert entries_of("road", [ours, fast, slow, shown, wrong, absent], 8_000_000) == [
        Entry("road", "(ours)", "10 MB/s", "16.00 MB/s", MET),
        Entry("road", "fast", "5x", "6.00x", MET, HELD),
        Entry("road", "slow", "5x", "4.00x", MISSED),
        Entry("road", "wrong", "", "", "", NOT_HELD),
        Entry("road", "absent", "3x", "", "not installed"),
    ]
    ours.runs = [run_of(1.0, wall=1.0)]
    assert entries_of("road", [ours], 8_000_000)[0].verdict == MISSED


def test_results_begin_with_the_summary_of_all_sections(tmp_path: Path) -> None:
    path, order = tmp_path / "R.md", ["io", "road", "memory"]
    entries = [Entry("road", "a -- b", "15x", "16.00x", MET, HELD), Entry("road", "c", "5x", "4.00x", MISSED)]
    update(path, "road", f"## road: title\n\nrows\n\n{comment(entries)}\n", order)
    update(path, "memory", f"## memory: title\n\n{comment([Entry('memory', 'd', 'flat', '', NOT_HELD)])}\n", order)
    update(path, "io", f"## io: title\n\n{comment([Entry('io', 'e', '4x', '9.00x', MET)])}\n", order)
    text = path.read_text(encoding="utf-8")
    head = text.partition("\n## ")[0]
    assert "2 of 3 goals met; 1 of 2 promises held." in head
    rows = [cells_of(line) for line in head.splitlines() if line.startswith("|")][2:]
    assert [row[:2] for row in rows] == [["io", "e"], ["road", "a -- b"], ["road", "c"], ["memory", "d"]]
    assert "-->" not in head
    # A section written again takes its old lines with it.
    update(path, "road", f"## road: title\n\n{comment([Entry('road', 'c', '5x', '6.00x', MET)])}\n", order)
    assert "2 of 2 goals met; 0 of 1 promises held." in path.read_text(encoding="utf-8")
    assert len(read_entries(path.read_text(encoding="utf-8"))) == 3
    assert path.read_text(encoding="utf-8").count("# Results") == 1


def test_summary_counts_promises_of_both_columns() -> None:
    told = table(
        [Entry("a", "", "", "", HELD, NOT_HELD), Entry("b", "", "", "", MET), Entry("c", "", "", "", "failed")]
    )
    assert told.startswith("1 of 1 goals met; 1 of 2 promises held.")
    assert replace_section("# R\n", "a", "## a: x\n", ["a"]) == "# R\n\n## a: x\n"
    assert summary.comment([]) == "<!-- summary: [] -->"


def test_tables_line_up_and_keep_their_columns() -> None:
    assert markdown_table([("a", "b|c"), ("long", "")]).splitlines() == [
        "| a    | b/c |",
        "| ---- | --- |",
        "| long |     |",
    ]


def load_call(out: Path, *, number: int) -> Work:
    loaded = number + 1
    block: list[bytearray] = []

    def work() -> None:
        block.append(bytearray(b"x" * 200_000_000))
        block.clear()
        (out / "told").write_text(str(loaded), encoding="utf-8")

    return work


def load_sleeper(out: Path) -> Work:
    return lambda: time.sleep(600)


def load_failure(out: Path) -> Work:
    raise ValueError("no such input")


def test_a_call_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    run = run_call(load_call, tmp_path / "out", number=41)
    assert isinstance(run, Run), run
    assert (tmp_path / "out" / "told").read_text(encoding="utf-8") == "42"
    # The block is gone at the end; the most that was held is told all the same.
    assert run.peak_rss > 200_000_000
    assert run.out_bytes == 2


def test_a_call_that_fails_or_does_not_end_is_told_of(tmp_path: Path) -> None:
    failed = run_call(load_failure, tmp_path / "out")
    assert isinstance(failed, str)
    assert failed.startswith("ValueError: no such input (exit code 1")
    assert run_call(load_sleeper, tmp_path / "out", limit_s=2) == "no end after 2 s"


def never(task: Any) -> Any:
    raise AssertionError(f"must not be loaded: {task}")


def test_contenders_without_a_goal_run_fewer_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import benchmarks.harness as harness

    monkeypatch.setattr(harness, "_run_once", lambda stage, row, corpus, out: run_of(1.0, wall=len(row.runs) + 1.0))
    contenders = (
        Contender("ours", never),
        Contender("goal", never, goal=2),
        Contender("shown", never),
    )

    class Nothing:
        bytes = 10**6

    corpus: Corpus = Nothing()  # pyright: ignore[reportAssignmentType]
    rows = run_stage(Stage("three", "", contenders, agree=lambda corpus, outputs: []), corpus, tmp_path, rounds=5)
    assert [len(row.runs) for row in rows] == [5, 5, WITHOUT_GOAL]
    # Each round beside ours of the same round.
    assert [row.ratios for row in rows] == [[1.0] * 5, [1.0] * 5, [1.0] * WITHOUT_GOAL]
