"""The harness: ratios, what is missing, agreement, tables, and one stage run as the command runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.agreement import ids_equal, labels_agree, read_tree, rows_equal
from benchmarks.datatrove_peer import word_pattern
from benchmarks.harness import Agreement, Contender, Row, Run, Stage, compute_ratios, missing, run_stage
from benchmarks.report import COLUMNS, cells, markdown, replace_section
from benchmarks.stages import MODULES, load_stage
from lola_data.sample_corpus import sample_root

if TYPE_CHECKING:
    from benchmarks.corpus import Corpus

ROOT = Path(__file__).resolve().parents[2]


def run_of(wall: float, cpu: float = 1.0) -> Run:
    return Run(wall=wall, cpu=cpu, load=0.5, loaded_rss=10**8, peak_rss=2 * 10**8, out_bytes=10**6)


def idle(task: Any) -> Any:
    raise AssertionError(f"must not be loaded: {task}")


def test_ratio_is_the_median_of_the_rounds_not_of_the_times() -> None:
    ours, theirs = [run_of(1.0), run_of(4.0), run_of(2.0)], [run_of(3.0), run_of(4.0), run_of(10.0)]
    row = Row("peer", False, 2.5, "measured", runs=theirs, ratios=compute_ratios(ours, theirs))
    assert row.ratios == [3.0, 1.0, 5.0]
    # Of the medians it would be 2.
    assert row.ratio == 3.0
    assert row.met is True
    assert row.rate(8_000_000) == 2.0


def test_contender_that_is_not_installed_is_told_of_and_not_run(tmp_path: Path) -> None:
    contender = Contender("peer", idle, needs=("pyarrow", "no_such_module_anywhere"), goal=3)
    assert missing(contender) == ["no_such_module_anywhere"]
    stage = Stage("none", "nothing", (contender,), agree=lambda corpus, outputs: [])
    rows = run_stage(stage, None, tmp_path, rounds=1)  # pyright: ignore[reportArgumentType]
    assert [row.status for row in rows] == ["not installed"]
    assert cells(rows[0], 10)[:4] == ["peer", "not installed: no_such_module_anywhere", "", "3x"]


def test_table_tells_ratio_spread_goal_and_what_did_not_hold() -> None:
    ours = Row("ours", True, None, "measured", runs=[run_of(2.0), run_of(2.0)], ratios=[1.0, 1.0], cpu_ratios=[1.0])
    peer = Row("peer", False, 4.0, "measured", runs=[run_of(6.0), run_of(8.0)], ratios=[3.0, 4.0], cpu_ratios=[5.0])
    peer.agreements = [Agreement("peer", "rows equal", True), Agreement("peer", "labels differ", False)]
    text = markdown([ours, peer], 4_000_000)
    assert cells(peer, 4_000_000) == [
        "peer", "0.57", "3.50x (3.00 to 4.00)", "4x missed", "5.00x", "1.00", "200", "0.5", "1.0",
        "rows equal; NOT HELD: labels differ",
    ]  # fmt: skip
    lines = text.splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert all(line.count("|") == len(COLUMNS) + 1 for line in lines)


def test_a_section_is_replaced_and_the_others_are_kept_in_order() -> None:
    text = "# Results\n\nHead.\n\n## io: old\n\nold rows\n\n## road: kept\n\nroad rows\n"
    text = replace_section(text, "io", "## io: new\n\nnew rows\n", ["io", "identify", "road"])
    assert text == "# Results\n\nHead.\n\n## io: new\n\nnew rows\n\n## road: kept\n\nroad rows\n"
    text = replace_section(text, "identify", "## identify: added\n", ["io", "identify", "road"])
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## io: new",
        "## identify: added",
        "## road: kept",
    ]


def test_rows_equal_sees_bytes_nulls_order_and_number() -> None:
    one = pa.table({"text": ["a", "é", None], "url": [None, "u", "v"]})
    assert rows_equal(one, one.slice(0)) == (True, "all 3 rows byte-equal")
    assert rows_equal(one, one.slice(1)) == (False, "3 and 2 rows")
    assert rows_equal(one, pa.table({"text": ["a", "e\u0301", None], "url": [None, "u", "v"]}))[0] is False
    assert rows_equal(one, pa.table({"text": ["a", "é", ""], "url": [None, "u", "v"]}))[0] is False
    assert rows_equal(one, one.take([1, 0, 2]))[0] is False


def test_labels_agree_at_the_share_and_the_gap_that_are_promised() -> None:
    def table(langs: list[str], scores: list[float]) -> pa.Table:
        return pa.table({"lang": langs, "score": pa.array(scores, pa.float32())})

    many = 20_000
    ours = table(["de"] * many, [0.5] * many)
    assert labels_agree(ours, table(["de"] * (many - 2) + ["nl"] * 2, [0.5] * (many - 2) + [0.1] * 2))[0] is True
    assert labels_agree(ours, table(["de"] * (many - 3) + ["nl"] * 3, [0.5] * many))[0] is False
    assert labels_agree(ours, table(["de"] * many, [0.5] * (many - 1) + [0.5009]))[0] is True
    assert labels_agree(ours, table(["de"] * many, [0.5] * (many - 1) + [0.502]))[0] is False
    assert labels_agree(ours, table(["de"], [0.5]))[0] is False


def test_ids_equal_counts_documents() -> None:
    def side(*documents: list[int]) -> tuple[np.ndarray, np.ndarray]:
        return np.array(list(chain.from_iterable(documents))), np.array([len(document) for document in documents])

    assert ids_equal(side([1, 2], [], [3]), side([1, 2], [], [3])) == (3, 3)
    assert ids_equal(side([1, 2], [], [3]), side([1, 9], [], [3])) == (2, 3)
    assert ids_equal(side([1, 2], [3]), side([1], [2, 3])) == (0, 2)
    assert ids_equal(side([1]), side([1], [2])) == (0, 2)


def test_trees_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/1", "a/2", "a/1"):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": [name]}), path)
    assert read_tree(tmp_path)["id"].to_pylist() == ["a/1", "a/2", "b/1"]


def test_word_pattern_parts_scripts_with_and_without_spaces() -> None:
    regex = pytest.importorskip("regex")
    assert regex.findall(word_pattern(), "two words_3 漢字かな กำ हिन्दी") == [
        "two", "words", "3", "漢", "字", "か", "な", "ก", "ำ", "हिन्दी",
    ]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_every_stage_loads_without_the_other_contenders(name: str) -> None:
    stage = load_stage(name)
    assert stage.name == name
    assert not missing(stage.contenders[0])
    assert len({contender.name for contender in stage.contenders}) == len(stage.contenders) > 1


def test_stage_as_the_command_runs_it(tmp_path: Path) -> None:
    for lang in ("el", "sw", "yo"):
        shutil.copytree(sample_root() / lang, tmp_path / "data" / lang)
    command = ["io", "--runs", "1", "--megabytes", "1", "--languages", "2", "--json"]
    command += ["--data", str(tmp_path / "data"), "--workdir", str(tmp_path / "work")]
    results = tmp_path / "RESULTS.md"
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", *command, "--results", str(results)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(ended.stdout)["stages"]["io"]["rows"]
    assert [(row["status"], len(row["runs"])) for row in rows] == [("measured", 1), ("measured", 1)]
    for row in rows:
        assert row["runs"][0]["wall"] > 0
        assert row["runs"][0]["peak_rss"] > row["runs"][0]["loaded_rss"] * 0.5 > 0
        assert row["agreements"][0]["holds"] is True
    text = results.read_text(encoding="utf-8")
    assert "## io: " in text
    assert f"{rows[0]['megabytes_per_second']:.2f}" in text


def failing(task: Any) -> Any:
    raise RuntimeError("no such thing")


def test_contender_that_fails_is_told_of_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import benchmarks.harness as harness

    def run_once(stage: Stage, row: Row, corpus: Corpus, out: Path) -> Run | str:
        out.mkdir(parents=True)
        return "RuntimeError: no such thing" if row.name == "bad" else run_of(2.0 if row.name == "ours" else 3.0)

    monkeypatch.setattr(harness, "_run_once", run_once)
    contenders = tuple(Contender(name, failing) for name in ("ours", "bad", "good"))
    seen: list[dict[str, Path]] = []
    stage = Stage("three", "three", contenders, agree=lambda corpus, outputs: seen.append(dict(outputs)) or [])

    class Nothing:
        bytes = 10**6

    rows = run_stage(stage, Nothing(), tmp_path, rounds=2)  # pyright: ignore[reportArgumentType]
    assert [(row.status, row.ratios) for row in rows] == [
        ("measured", [1.0, 1.0]),
        ("failed", []),
        ("measured", [1.5, 1.5]),
    ]
    assert rows[1].reason == "RuntimeError: no such thing"
    assert set(seen[0]) == {"ours", "good"}
