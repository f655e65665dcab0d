"""The forecast of a run against a run, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lola_data.sample_corpus import sample_root
from pipelines import forecast_run
from pipelines.forecast_run import Estimate, RunForecast, StageForecast, added, mean_with_error, refusals
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
    stage = StageForecast("identify", 1, one, size, 0.0, peak, one, one)
    return RunForecast("w", 1, memory_mb, 1, 1, 1, 4, (stage,), one, one, size, free)


class TestRefusals:
    def test_what_fits_is_not_refused(self) -> None:
        assert refusals(_forecast()) == []

    def test_a_disk_that_is_surely_too_small(self) -> None:
        (line,) = refusals(_forecast(disk=2e12))
        assert line.startswith("disk: the run takes 1,800.0 GB at least")
        # Within the error bar it may fit.
        assert refusals(_forecast(disk=1.05e12)) == []

    def test_a_task_that_needs_more_than_it_may_take(self) -> None:
        (line,) = refusals(_forecast(peak=5 * 10**9))
        assert line.startswith("memory: a task of identify takes 5,000 MB, and `executor.memory_mb` is 4,000")


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
