"""The forecast of a run against a run, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data import storage
from lola_data.layout import Layout
from lola_data.sample_corpus import sample_root
from pipelines import forecast_run, usage
from pipelines.forecast_run import Estimate, RunForecast, StageForecast, added, dedup_peak, mean_with_error, refusals
from pipelines.foreseen import forecast_of
from pipelines.stage import Stage
from pipelines.state import digest
from pipelines.usage import Usage, leave_usage, usage_of
from tests.console import lola

if TYPE_CHECKING:
    from pathlib import Path


class TestErrors:
    def test_students_t_of_a_known_sample(self) -> None:
        # 4, 6, 8, 10: mean 7, standard deviation 2.58199; 3.182 x 2.58199 / 2 = 4.10794.
        found = mean_with_error([4, 6, 8, 10])
        assert found.value == 7
        assert found.low == pytest.approx(7 - 4.10794, abs=1e-4)
        assert found.high == pytest.approx(7 + 4.10794, abs=1e-4)

    def test_never_below_nothing(self) -> None:
        assert mean_with_error([0, 10]).low == 0

    def test_one_group_has_no_error_bar(self) -> None:
        assert mean_with_error([5]) == Estimate(5, None, None)

    def test_errors_add_as_squares(self) -> None:
        assert added([Estimate(10, 7, 13), Estimate(20, 16, 24)]) == Estimate(30, 25, 35)
        assert added([Estimate(10, 7, 13), Estimate(20, None, None)]) == Estimate(30, None, None)


def _forecast(*, disk: float = 1e9, free: int = 10**12, peak: int = 10**8, memory_mb: int = 4000) -> RunForecast:
    one = Estimate(1.0, 1.0, 1.0)
    size = Estimate(disk, disk * 0.9, disk * 1.1)
    stage = StageForecast("identify", 1, one, size, 0.0, peak, one, one, "")
    return RunForecast("w", 1, memory_mb, 1, 1, 1, 4, (stage,), one, one, size, free)


class TestRefusals:
    def test_what_fits_is_not_refused(self) -> None:
        assert refusals(_forecast()) == []

    def test_a_disk_that_is_surely_too_small(self) -> None:
        (line,) = refusals(_forecast(disk=2e12))
        assert line.startswith("disk: the run takes 1.80 TB at least")
        # Within the error bar it may fit.
        assert refusals(_forecast(disk=1.05e12)) == []

    def test_a_task_that_needs_more_than_it_may_take(self) -> None:
        (line,) = refusals(_forecast(peak=5 * 10**9))
        assert line.startswith("memory: a task of identify takes 5,000 MB, and `executor.memory_mb` is 4,000")


@pytest.mark.parametrize(
    ("documents", "memory_mb", "measured_mb"),
    # Runs over short texts full of near-duplicates, whose probe took 336 MB.
    [(150_000, 4_000, 584), (600_000, 1_000, 1_274)],
)
def test_memory_of_dedup_grows_with_the_documents(documents: int, memory_mb: int, measured_mb: int) -> None:
    assert dedup_peak(336_000_000, documents, memory_mb * 10**6) == pytest.approx(measured_mb * 1e6, rel=0.2)


def test_memory_of_dedup_is_that_of_a_part_at_most() -> None:
    assert dedup_peak(300, 10**12, 4_000) == 3_300


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(
        f"workdir: {tmp_path}/w\nlanguages: [de, en, fr, ru]\nexecutor: {{tasks: 1, workers: 1}}\n"
        f"download: {{source: local, path: {sample_root()}}}\ntokenizer: {{vocab_size: 1000}}\n"
    )
    return path


@pytest.mark.slow
def test_the_forecast_is_near_what_then_happens(recipe: Path, tmp_path: Path) -> None:
    outcome = lola("plan", recipe, "--json")
    assert outcome.code == 0, outcome.stderr
    plan = json.loads(outcome.stdout)
    stages = {stage["stage"]: stage for stage in plan["stages"]}
    assert set(stages) == {"download", "identify", "dedup", "sample", "tokenize", "tokenizer", "train", "balance"}
    # Nothing but the forecast itself is written.
    assert [path.name for path in (tmp_path / "w").rglob("*") if path.is_file()] == ["forecast.json"]
    assert lola("run", recipe, "--only", "download", "--only", "identify").code == 0
    timing = json.loads((tmp_path / "w/logs/identify/timing.json").read_text())
    assert timing["forecast"] == stages["identify"]
    made = json.loads((tmp_path / "w/identified/manifest.json").read_text())["totals"]["out"]["documents"]
    assert timing["outcome"]["rows"] == made
    assert stages["identify"]["rows"]["value"] == pytest.approx(made, rel=0.3)
    assert stages["identify"]["disk_bytes"]["value"] == pytest.approx(timing["outcome"]["disk_bytes"], rel=0.5)
    assert stages["tokenize"]["peak_bytes"] > 10**7
    assert timing["outcome"]["core_seconds"] > 0
    assert timing["outcome"]["peak_bytes"] > 10**7
    manifest = json.loads((tmp_path / "w/identified/manifest.json").read_text())
    assert manifest["forecast"]["rows"] == {
        "forecast": round(stages["identify"]["rows"]["value"]),
        "low": round(stages["identify"]["rows"]["low"]),
        "high": round(stages["identify"]["rows"]["high"]),
        "outcome": made,
    }
    assert manifest["forecast"]["disk_bytes"]["outcome"] == sum(
        path.stat().st_size
        for tree in ("identified", "removed/identify")
        for path in (tmp_path / "w" / tree).rglob("*.parquet")
    )
    # A forecast is no input: without it everything else is the same, and what follows has the same fingerprint.
    dedup = ["run", recipe, "--only", "download", "--only", "identify", "--only", "dedup"]
    assert lola(*dedup).code == 0
    assert lola(*dedup, "--set", f"workdir={tmp_path}/unforeseen").code == 0
    for tree in ("raw", "identified", "deduped"):
        one, other = (
            json.loads((tmp_path / root / tree / "manifest.json").read_text()) for root in ("w", "unforeseen")
        )
        assert one.pop("forecast")["rows"]["outcome"] == one["totals"]["out"]["documents"]
        assert one == other
    assert lola("status", tmp_path / "w").stdout.count("+-") == 3


class TestForecastOf:
    """A forecast stands beside an outcome only if it was made for what was then done."""

    STAGES = ("download", "identify", "dedup")

    def _layout(self, root: Path, **settings: object) -> Layout:
        layout = Layout(str(root))
        told = [{"stage": name, "settings": digest({"of": settings.get(name, name)})} for name in self.STAGES]
        storage.write_json(layout.logs("forecast.json"), {"stages": told})
        return layout

    def _stage(self, layout: Layout, name: str) -> Stage:
        return Stage(name, layout, [], {"of": name}, [])

    def _finished(self, layout: Layout, name: str) -> None:
        storage.write_json(layout.manifest(name), {"fingerprint": {"settings": {"of": name}}})

    def test_none_was_made(self, tmp_path: Path) -> None:
        assert forecast_of(self._stage(Layout(str(tmp_path)), "identify")) is None

    def test_of_these_settings(self, tmp_path: Path) -> None:
        layout = self._layout(tmp_path)
        self._finished(layout, "download")
        told = forecast_of(self._stage(layout, "identify"))
        assert told == {"stage": "identify", "settings": digest({"of": "identify"})}
        # What an earlier stage does that has not run is not asked.
        assert forecast_of(self._stage(layout, "dedup")) is not None

    @pytest.mark.parametrize("other", ["download", "identify"])
    def test_of_other_settings_here_or_before(self, tmp_path: Path, other: str) -> None:
        layout = self._layout(tmp_path, **{other: "something else"})
        self._finished(layout, "download")
        assert forecast_of(self._stage(layout, "identify")) is None

    def test_of_other_settings_later(self, tmp_path: Path) -> None:
        layout = self._layout(tmp_path, dedup="something else")
        self._finished(layout, "download")
        assert forecast_of(self._stage(layout, "identify")) is not None

    def test_by_an_older_version(self, tmp_path: Path) -> None:
        layout = Layout(str(tmp_path))
        storage.write_json(layout.logs("forecast.json"), {"stages": [{"stage": "identify"}]})
        assert forecast_of(self._stage(layout, "identify")) is None


def test_usage_adds_up_over_runs_and_no_second_is_told_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(str(tmp_path))
    assert usage_of(layout, "dedup") == Usage(0.0, 0)
    monkeypatch.setattr(usage._Told, "process", 0)
    # Of the process so far: its start is in the first.
    for seconds in (1.5, 3.75):
        monkeypatch.setattr(usage, "_processor_seconds", lambda seconds=seconds: seconds)
        leave_usage(layout, "dedup", "match", 3, began=0.0)
    found = usage_of(layout, "dedup")
    assert found.core_seconds == 3.75
    assert found.peak_bytes > 10**7
    leave_usage(layout, "sample", "driver", 0, began=0.0, memory=False)
    assert usage_of(layout, "sample") == Usage(0.0, 0)


def test_what_cannot_fit_is_refused_and_not_kept(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_run, "forecast_run", lambda *_, **__: _forecast(disk=2e12))
    outcome = lola("plan", recipe)
    assert outcome.code == 1
    assert "disk: the run takes" in outcome.stderr
    assert not (tmp_path / "w").exists()


def test_a_missing_source_is_one_line(recipe: Path, tmp_path: Path) -> None:
    outcome = lola("plan", recipe, "--set", f"download.path={tmp_path}/nowhere")
    assert outcome.code == 1
    assert "no such folder" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def _source_of(tmp_path: Path, texts: list[bytes]) -> list[str | Path]:
    column = pa.array(texts, pa.binary()).view(pa.string())
    (tmp_path / "source" / "de").mkdir(parents=True)
    pq.write_table(pa.table({"text": column}), tmp_path / "source" / "de" / "a.parquet", row_group_size=5)
    (tmp_path / "r.yaml").write_text("languages: [de]\n")
    more = [f"workdir={tmp_path}/w", "download.source=local", f"download.path={tmp_path}/source"]
    return ["plan", tmp_path / "r.yaml", *(part for one in more for part in ("--set", one))]


def test_shards_without_rows_are_told(tmp_path: Path) -> None:
    outcome = lola(*_source_of(tmp_path, []))
    assert outcome.code == 1
    assert "the shards chosen have no rows" in outcome.stderr


@pytest.mark.slow
def test_a_fault_of_the_text_is_named_at_its_source(tmp_path: Path) -> None:
    outcome = lola(*_source_of(tmp_path, [b"Guten Tag"] * 12 + [b"\xff\xfe"] * 8))
    assert outcome.code == 1
    assert f"{tmp_path}/source/de/a.parquet: row" in outcome.stderr
    assert "lola-data-plan-" not in outcome.stderr
