"""The stage engine on a small step of its own: sharing out, failures, kills, resume, refusal."""

from __future__ import annotations

import json
import os
import shutil
import signal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data import storage
from lola_data.errors import ShardError, StageError
from lola_data.layout import Layout
from lola_data.manifest import Counts, OutputFile, UnitReport, build_manifest
from lola_data.recipe import parse_recipe
from lola_data.sample_corpus import sample_root
from lola_data.schemas import RAW
from lola_data.sections import ExecutorSection
from lola_data.shards import ShardWriter, Unit, read_batches
from pipelines.corpus import build_stage
from pipelines.executors import run_phase
from pipelines.phases import plan_phase
from pipelines.run import DriverStage, close_stage, open_stage, run_stage
from pipelines.stage import LanguageWork, Stage, TreeStep, assign
from pipelines.state import StageState, differences, manifest_digest
from pipelines.workdir_lock import workdir_lock


class Copy(TreeStep):
    """Copies shards; misbehaves where a file in the work folder tells it to."""

    def process(self, work: Unit) -> UnitReport:
        marker = Path(self.layout.workdir) / f"{work.shard}.fault"
        fault = marker.read_text() if marker.exists() else ""
        report = UnitReport(work.key)
        target = storage.join(self.layout.tree(self.stage), work.lang, f"{work.name}.parquet")
        with ShardWriter(target, RAW) as writer:
            for batch in read_batches(self.input_tree, work, RAW):
                counts = Counts.of(batch["text"])
                report.take(work.lang, counts)
                report.give(work.lang, counts)
                writer.write(batch)
                if fault == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if fault == "error":
                    raise ShardError(f"{work.path}: row 3 is bad; mend it")
                if fault == "bug":
                    raise ZeroDivisionError("a bug")
        if fault == "lose":
            report.give(work.lang, Counts(documents=-1))
        path = storage.join("identified", work.lang, f"{work.name}.parquet")
        report.files.append(OutputFile(path, storage.size(target), writer.rows))
        return report


def make(tmp_path: Path, *, setting: int = 1, shards: int = 6) -> Stage:
    layout = Layout(str(tmp_path / "work"), {"download": str(tmp_path / "raw")})
    for number in range(shards):
        path = tmp_path / "raw" / ("de" if number % 2 else "sw") / f"s{number}.parquet"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"text": [f"{number} ü"] * (10 + number)}), path, row_group_size=5)
    step = Copy(layout, "identify", input_stage="download", languages=None, unit_bytes=200)
    return Stage("identify", layout, [step], {"setting": setting}, ["download"])


def executor(tasks: int = 1) -> ExecutorSection:
    return ExecutorSection(tasks=tasks, workers=min(tasks, 3))


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "logs" not in path.parts and path.name != "lock"
    }


@given(
    st.lists(st.integers(0, 10**12), max_size=60).map(
        lambda sizes: [LanguageWork(f"l{number}", size) for number, size in enumerate(sizes)]
    ),
    st.integers(1, 20),
)
def test_every_unit_is_done_by_exactly_one_task(works: list[LanguageWork], world: int) -> None:
    shared = [work for rank in range(world) for work in assign(works, rank, world)]
    assert sorted(work.key for work in shared) == sorted(work.key for work in works)
    if works:
        loads = [sum(max(1, work.bytes) for work in assign(works, rank, world)) for rank in range(world)]
        # Graham's bound for longest-first list scheduling.
        best = max(max(max(1, work.bytes) for work in works), sum(loads) / world)
        assert max(loads) <= best * 4 / 3 + max(max(1, work.bytes) for work in works) / 3 + 1


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_outputs_do_not_depend_on_the_number_of_tasks(tmp_path: Path, tasks: int) -> None:
    one = make(tmp_path / "a")
    run_stage(one, executor(1))
    other = make(tmp_path / "b")
    run_stage(other, executor(tasks))
    assert tree(tmp_path / "a/work") == tree(tmp_path / "b/work")
    manifest = storage.read_json(other.layout.manifest("identify"))
    assert manifest["totals"]["in"] == {"documents": 75, "characters": 225, "bytes": 300, "tokens": 0}
    assert manifest["languages"]["sw"]["out"]["documents"] == 10 + 12 + 14


@pytest.mark.parametrize("fault", ["error", "bug", "kill"])
@pytest.mark.parametrize("tasks", [2, 5])
def test_a_failing_unit_leaves_its_siblings_alone_and_resume_is_exact(tmp_path: Path, fault: str, tasks: int) -> None:
    calm = make(tmp_path / "calm")
    run_stage(calm, executor())
    stage = make(tmp_path / "faulty")
    marker = tmp_path / "faulty/work/s3.fault"
    marker.parent.mkdir(parents=True)
    marker.write_text(fault)
    with pytest.raises(StageError) as caught:
        run_stage(stage, executor(tasks))
    message = str(caught.value)
    assert {"error": "row 3 is bad", "bug": "This is a bug", "kill": "was killed"}[fault] in message
    done = stage.phases[0].state.done_keys("main")
    assert not any("s3" in key for key in done)
    if fault != "kill":
        assert {key.split("-")[0] for key in done} == {"de/s1", "de/s5", "sw/s0", "sw/s2", "sw/s4"}
        log = stage.phases[0].state.failures("main")[0]["log"]
        assert ("ZeroDivisionError" if fault == "bug" else "row 3 is bad") in Path(log).read_text()
    assert not storage.exists(stage.layout.manifest("identify"))
    marker.unlink()
    run_stage(stage, executor(tasks))
    assert tree(tmp_path / "faulty/work") == tree(tmp_path / "calm/work")


def test_a_unit_that_loses_a_row_is_a_failure(tmp_path: Path) -> None:
    stage = make(tmp_path)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/s2.fault").write_text("lose")
    with pytest.raises(StageError, match="unaccounted for"):
        run_stage(stage, executor())


def test_finished_work_is_not_done_again_and_lost_output_is(tmp_path: Path) -> None:
    stage = make(tmp_path)
    run_stage(stage, executor())
    before = tree(tmp_path / "work")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "work/identified").rglob("*.parquet")}
    run_stage(make(tmp_path), executor())
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    lost, torn = sorted(stamps)[0], sorted(stamps)[1]
    lost.unlink()
    torn.write_bytes(torn.read_bytes()[:-5])
    run_stage(make(tmp_path), executor())
    assert tree(tmp_path / "work") == before


def test_a_changed_recipe_is_refused_by_field(tmp_path: Path) -> None:
    run_stage(make(tmp_path), executor())
    with pytest.raises(StageError, match=r"settings\.setting: 1 -> 2.*--redo identify"):
        run_stage(make(tmp_path, setting=2), executor())


def test_changed_input_is_refused(tmp_path: Path) -> None:
    run_stage(make(tmp_path), executor())
    with pytest.raises(StageError, match=r"inputs\.download"):
        run_stage(make(tmp_path, shards=7), executor())


def test_missing_input_names_the_stage_to_run(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    step = Copy(layout, "identify", input_stage="download", languages=None, unit_bytes=200)
    with pytest.raises(StageError, match="run the stage `download` first"):
        run_stage(Stage("identify", layout, [step], {}, ["download"]), executor())


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    stage = make(tmp_path)
    left = tmp_path / "work/identified/de/.s1.parquet.abc.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run_stage(stage, executor())
    assert not left.exists()


def test_driver_stages_run_once_and_after_their_inputs(tmp_path: Path) -> None:
    calls: list[int] = []

    def action() -> dict[str, object]:
        calls.append(1)
        return {"answer": 42}

    stage = make(tmp_path)
    driver = DriverStage("balance", stage.layout, {"top": 1}, ["identify"], action)
    with pytest.raises(StageError, match="run the stage `identify` first"):
        run_stage(driver, executor())
    run_stage(stage, executor())
    run_stage(driver, executor())
    assert run_stage(driver, executor())["answer"] == 42
    assert calls == [1]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    with (
        workdir_lock(layout),
        pytest.raises(StageError, match=f"in use by process {os.getpid()}"),
        workdir_lock(layout),
    ):
        pass
    with workdir_lock(layout):
        pass


def test_differences_name_fields() -> None:
    assert differences({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 2, "c": [1]}}) == ["a.b: 1 -> 2", "d: 2 -> null"]
    assert differences({"a": 1}, {"a": 1}) == []


def test_keys_with_slashes_and_odd_names_come_back(tmp_path: Path) -> None:
    state = StageState(Layout(str(tmp_path)), "identify")
    keys = {"de/a b", "de/ü%2F", "x/y/z"}
    for key in keys:
        state.mark_done("main", UnitReport(key))
    assert state.done_keys("main") == keys
    assert [report.key for report in state.reports("main")] == sorted(keys)


def test_reports_survive_json() -> None:
    report = UnitReport("de/x", extra={"a": [1]})
    report.take("de", Counts(3, 30, 40))
    report.give("nl", Counts(2, 20, 25))
    report.remove("de", "empty", Counts(1, 10, 15))
    report.files.append(OutputFile("identified/nl/x.parquet", 10, 2))
    assert UnitReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    report.check()
    report.remove("de", "empty", Counts(1))
    with pytest.raises(StageError, match="3 documents in, but 2 out and 2 removed"):
        report.check()


def test_the_digest_of_a_manifest_is_of_all_that_says_something_about_the_tree() -> None:
    report = UnitReport("de/0", taken={"de": Counts(2)}, given={"de": Counts(2)})
    manifest = build_manifest("identify", [report], fingerprint={"format": 3})
    assert manifest["made_by"] == {"lola-data": version("lola-data")}
    same = manifest_digest(manifest)
    assert manifest_digest({**manifest, "made_by": {"lola-data": "99.0"}, "forecast": {"rows": {}}}) == same
    for key in manifest.keys() - {"made_by"}:
        assert manifest_digest({**manifest, key: "something else"}) != same


def test_a_stage_is_closed_by_what_was_planned_when_it_was_begun(tmp_path: Path) -> None:
    """A shard that failed and was mended is another one than was planned: once it is done, its stage can be closed."""
    source = tmp_path / "source"
    for lang in ("sw", "yo"):
        shutil.copytree(sample_root() / lang, source / lang)
    shard = next((source / "yo").glob("*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1000])
    recipe = parse_recipe(f"workdir: {tmp_path / 'w'}\ndownload: {{source: local, path: {source}}}")
    stage: Any = build_stage("download", recipe, Layout(recipe.workdir))
    (step,) = stage.phases
    assert open_stage(stage) == (True, False)
    for left in (2, 1):
        assert len(plan_phase(stage, step).left) == left
        run_phase(step, tasks=1, workers=1, logging_dir=str(tmp_path / "logs"))
        if left == 2:
            with pytest.raises(StageError, match="1 of 2 units failed"):
                close_stage(stage)
            shard.write_bytes(whole)
    assert close_stage(stage)["totals"]["out"]["documents"] > 0
