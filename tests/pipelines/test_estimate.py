"""What a run is foretold to take: counts from the footers, costs by hand from rates that the test sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.layout import Layout
from lola_data.recipe import Recipe
from lola_data.schemas import RAW
from pipelines import estimate as module
from pipelines import rates
from pipelines.estimate import estimate, render
from pipelines.rates import BLOCK, START_SECONDS, Rate
from pipelines.source_size import size_of_source

ROWS = {"sw": [4, 6], "yo": [10]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for lang, shards in ROWS.items():
        for number, rows in enumerate(shards):
            folder = tmp_path / "source" / lang
            folder.mkdir(parents=True, exist_ok=True)
            columns = {"text": [f"{lang} {row} " * 50 for row in range(rows)]}
            columns |= {name: [f"{lang}{number}{row}" for row in range(rows)] for name in RAW.names if name != "text"}
            pq.write_table(pa.table(columns).select(RAW.names).cast(RAW), folder / f"{lang}_{number}.parquet")
    return tmp_path / "source"


def recipe(source: Path, **more: Any) -> Recipe:
    values = {"workdir": str(source.parent / "work"), "download": {"source": "local", "path": str(source)}, **more}
    return Recipe.model_validate(values)


@pytest.fixture(autouse=True)
def _this_machine_is_the_measured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "slowness", lambda: 1.0)
    monkeypatch.setattr(module, "is_compiled", lambda *_: True)


def rows_of(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["stage"]: row for row in plan["stages"]}


def test_the_source_is_counted_from_its_footers(source: Path) -> None:
    loaded = recipe(source)
    size = size_of_source(loaded, Layout(loaded.workdir))
    files = sorted(source.rglob("*.parquet"))
    assert (size.shards, size.units, size.documents) == (3, 3, 20)
    assert size.by_language == {"sw": 10, "yo": 10}
    assert size.files == sum(path.stat().st_size for path in files)
    assert size.text == sum(pq.read_metadata(path).row_group(0).total_byte_size for path in files)
    assert size.cut(0.5).by_language == {"sw": 5, "yo": 5}


def test_core_seconds_and_time_by_hand(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = Rate(1000.0, per_unit=10.0, per_task=100.0, driver=7.0, phases=3, left_share=0.5)
    for name in ("download", "dedup"):
        monkeypatch.setitem(rates.RATES, name, rate)
    monkeypatch.setitem(rates.RATES, "identify", Rate(0.0, left_share=0.5))
    size = size_of_source(recipe(source), Layout("nowhere"))
    rows = rows_of(estimate(recipe(source, executor={"tasks": 2, "workers": 2})))
    # Text by its megabyte, three units, three phases of two tasks. Dedup gets half of the half that download left.
    assert rows["download"]["core_seconds"] == pytest.approx(7 + size.text / 1000 + 3 * 10 + 3 * 2 * 100, abs=0.01)
    assert rows["dedup"]["core_seconds"] == pytest.approx(7 + size.text / 4000 + 3 * 10 + 3 * 2 * 100, abs=0.01)
    assert rows["dedup"]["seconds"] == pytest.approx(rows["dedup"]["core_seconds"] / 2, abs=0.06)
    # There are three units: more tasks have nothing to do.
    many = rows_of(estimate(recipe(source, executor={"tasks": 50, "workers": 50})))
    assert many["dedup"]["tasks"] == 3
    assert many["dedup"]["core_seconds"] == pytest.approx(7 + size.text / 4000 + 3 * 10 + 3 * 3 * 100, abs=0.01)
    # A job of Slurm starts its own Python; one at a time runs as long as they work.
    slurm = {"kind": "slurm", "tasks": 2, "max_running": 1}
    jobs = rows_of(estimate(recipe(source, executor=slurm)))
    more = jobs["dedup"]["core_seconds"] - rows["dedup"]["core_seconds"]
    assert more == pytest.approx(3 * 2 * START_SECONDS, abs=0.01)
    assert jobs["dedup"]["seconds"] == pytest.approx(jobs["dedup"]["core_seconds"], abs=0.06)


def test_a_slower_machine_takes_longer_and_no_more_memory(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = estimate(recipe(source))
    monkeypatch.setattr(module, "slowness", lambda: 2.0)
    after = estimate(recipe(source))
    assert after["core_hours"] == pytest.approx(2 * before["core_hours"], rel=0.01)
    assert (after["peak_bytes"], after["disk_bytes"]) == (before["peak_bytes"], before["disk_bytes"])


def test_what_is_not_compiled_yet_is_compiled_by_each_task_of_the_first(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = recipe(source, executor={"tasks": 3, "workers": 2})
    before = rows_of(estimate(loaded))
    monkeypatch.setattr(module, "is_compiled", lambda source, function: source != "lola_data/minhash.py")
    after = rows_of(estimate(loaded))
    assert [name for name in before if before[name] != after[name]] == ["dedup"]
    more = after["dedup"]["core_seconds"] - before["dedup"]["core_seconds"]
    assert more == pytest.approx(2 * rates.RATES["dedup"].compiling, abs=0.01)


def test_memory_of_matching_grows_with_the_largest_language_up_to_what_a_task_may_take(source: Path) -> None:
    loaded = recipe(source, executor={"memory_mb": 1000})
    size = size_of_source(loaded, Layout(loaded.workdir))
    base = module.RATES["dedup"].memory_mb * 1e6
    few, many = size.cut(100_000 / 10), size.cut(1e9)
    # 1,600 bytes a document, and three quarters of the memory at most.
    assert module._memory("dedup", loaded, few) == pytest.approx(base + 100_000 * 1600)
    assert module._memory("dedup", loaded, many) == pytest.approx(base + 0.75e9)
    assert module._memory("identify", loaded, many) == module._memory("identify", loaded, few)


def test_the_report_comes_after_the_training_in_one_process(source: Path) -> None:
    rows = rows_of(estimate(recipe(source)))
    assert rows["balance"]["peak_bytes"] > rows["train"]["peak_bytes"]
    alone = rows_of(estimate(recipe(source), only=["balance"]))
    slurm = rows_of(estimate(recipe(source, executor={"kind": "slurm"})))
    assert alone["balance"]["peak_bytes"] == slurm["balance"]["peak_bytes"] < rows["balance"]["peak_bytes"]


def test_token_files_take_two_or_four_bytes_a_token(source: Path) -> None:
    size = size_of_source(recipe(source), Layout("nowhere")).cut(1e6)
    records = BLOCK * (module.RATES["tokenize"].unit_files * size.units + 4)
    narrow = recipe(source, tokenizer={"vocab_size": 1 << 16})
    wide = recipe(source, tokenizer={"vocab_size": (1 << 16) + 1})
    ratio = (module._disk("tokenize", wide, size, 1) - records) / (module._disk("tokenize", narrow, size, 1) - records)
    assert ratio == pytest.approx(2.0, rel=1e-4)


def test_training_takes_the_arithmetic_of_its_tokens(source: Path) -> None:
    model = {"layers": 1, "d_model": 8, "heads": 1, "seq_len": 4, "moe_every": 0, "vocab_multiple": 1}
    train = {"model": model, "tokens": 10**6, "batch_size": 1, "eval_tokens": 100_000, "eval_every": 100_000}
    loaded = recipe(source, tokenizer={"vocab_size": 1000}, train=train)
    # 4 d^2 of attention, 8 d^2 of the feed-forward block, 1,000 d of the output; 12 d s for attention over the window.
    flops = 6 * (4 * 64 + 2 * 8 * 32 + 1000 * 8) + 12 * 8 * 4
    # Two languages of 100,000 tokens are scored at steps 100,000 and 200,000, and at the end, at a third of the cost.
    work = rows_of(estimate(loaded))["train"]["core_seconds"]
    assert work == pytest.approx(flops * (10**6 + 3 * 200_000 / 3) / rates.TRAIN_FLOPS, abs=0.01)
    assert module._parameters(loaded) == 4 * 64 + 2 * 8 * 32 + 1000 * 8


def test_the_table_says_core_hours_memory_and_disk(source: Path) -> None:
    plan = estimate(recipe(source))
    plan |= {"core_hours": 12.5, "peak_bytes": 3 * 10**9, "disk_bytes": 4 * 10**9}
    text = render(plan)
    assert "12.5 core-hours" in text
    assert "3.0 GB of memory" in text
    assert "4.0 GB below" in text
    assert text.splitlines()[0].split("  ")[0] == "stage"
    assert "core time" in text.splitlines()[0]


def test_a_plan_of_what_is_complete_says_so(source: Path) -> None:
    plan = estimate(recipe(source))
    for row in plan["stages"][:-1]:
        row["state"] = "complete"
    assert "core-hours" in render(plan)
    plan["stages"][-1]["state"] = "complete"
    assert "core-hours" not in render(plan)
    assert render(plan).endswith("the run has nothing to do.")


def test_the_probe_takes_processor_time() -> None:
    assert rates.probe() > 0


# Of the typical moment, 1.2 times the fast one: within a factor of 1.25 it tells nothing, beyond that the rest counts.
@pytest.mark.parametrize(("times", "told"), [(1.0, 1.2), (1.2, 1.2), (1.5, 1.2), (3.0, 2.4), (0.48, 0.6)])
def test_a_moment_counts_where_it_is_out_of_the_ordinary(
    monkeypatch: pytest.MonkeyPatch, times: float, told: float
) -> None:
    answers = iter([99.0] * 24 + [times * rates.PROBE_SECONDS])
    monkeypatch.setattr(rates, "probe", lambda: next(answers))
    assert rates.slowness() == pytest.approx(told)


def test_the_compiled_functions_that_are_looked_for_are_there() -> None:
    top = Path(rates.__file__).parents[1]
    for rate in rates.RATES.values():
        if rate.kernel is not None:
            text = (top / rate.kernel[0]).read_text(encoding="utf-8")
            assert f"def {rate.kernel[1]}(" in text
            assert "cache=True" in text
