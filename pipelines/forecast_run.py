"""What a run of a recipe will take, from a probe of its corpus: rows, disk, memory, core-hours and finish, with errors.

In: a recipe file. Out: a :class:`RunForecast`, or an error where the run cannot fit on the disk or in the memory of a
task. A sample of about 1 % of the bytes goes through the real stages, in four groups: the mean is the forecast, and the
spread between the groups gives its error bar.

What a probe cannot tell: duplicates of rows that it did not draw. The rows left after dedup are an upper bound.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import StageError
from lola_data.layout import TREES, Layout
from lola_data.recipe import load_recipe
from lola_data.text_tables import readable_bytes
from pipelines.corpus import build_stage
from pipelines.download import scratch_folder
from pipelines.estimate import estimate
from pipelines.forecast import measured_rate
from pipelines.foreseen import FORECAST_FILE
from pipelines.probe import GROUPS, Piece, write_probe
from pipelines.probe_worker import STAGES
from pipelines.rates import RATES
from pipelines.shapes import Shape
from pipelines.state import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lola_data.recipe import Recipe

T_95 = {2: 12.706, 3: 4.303, 4: 3.182}
"""Two-sided 95 % points of Student's t by number of groups (one less degrees of freedom)."""
NOT_PROBED = ("tokenizer", "train", "balance")
"""Stages told by :mod:`pipelines.rates`, without an error bar, and left out of the sums."""
TRAIN_BYTES = 1_000_000
DECIDED_BYTES = 1_600
"""Of a document while dedup decides on its language, in a corpus full of near-duplicates; 400 where there are few."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its error bar: 95 % between ``low`` and ``high`` (both None where one group was all there is)."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class StageForecast:
    """One stage. ``disk_bytes`` stay; ``scratch_bytes`` go when it is finished; ``peak_bytes`` are of one task."""

    stage: str
    units: int
    rows: Estimate
    disk_bytes: Estimate
    scratch_bytes: float
    peak_bytes: int
    core_seconds: Estimate
    seconds: Estimate
    settings: str
    """Digest of the settings of the stage that it holds for."""


@dataclass(frozen=True, slots=True)
class RunForecast:
    """A whole run. ``probe_bytes`` of ``source_bytes`` published bytes were read, ``probe_rows`` rows."""

    workdir: str
    workers: int
    memory_mb: int
    source_bytes: int
    probe_bytes: int
    probe_rows: int
    groups: int
    stages: tuple[StageForecast, ...]
    core_seconds: Estimate
    seconds: Estimate
    disk_bytes: Estimate
    free_bytes: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def mean_with_error(values: Sequence[float]) -> Estimate:
    """The mean of groups, and its 95 % interval by Student's t; never below 0."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Estimate(mean, None, None)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = T_95[len(values)] * spread / math.sqrt(len(values))
    return Estimate(mean, max(0.0, mean - half), mean + half)


def added(estimates: Sequence[Estimate]) -> Estimate:
    """The sum of independent estimates: their errors add as squares."""
    value = sum(one.value for one in estimates)
    if any(one.low is None for one in estimates):
        return Estimate(value, None, None)
    below = math.sqrt(sum((one.value - (one.low or 0.0)) ** 2 for one in estimates))
    above = math.sqrt(sum(((one.high or 0.0) - one.value) ** 2 for one in estimates))
    return Estimate(value, max(0.0, value - below), value + above)


def forecast_run(
    path: Path, overrides: list[str], *, say: Callable[[str], None] = lambda line: None, groups: int = GROUPS
) -> RunForecast:
    """Forecast a run of the recipe at ``path`` from download to tokenize.

    Args:
        path: of the recipe.
        overrides: ``KEY=VALUE`` as for a run.
        say: called with lines of progress.
        groups: 2 to 4 parts of the probe.

    Raises:
        StageError: the source cannot be listed, a place in it cannot be read, or a stage fails on the probe.
    """
    recipe = load_recipe(path, overrides=overrides)
    layout = Layout(recipe.workdir)
    download: Any = build_stage("download", recipe, layout).phases[0]  # pyright: ignore[reportAttributeAccessIssue]
    source = download.source()
    shards = download.choose(source)[0]
    total = sum(shard.bytes for shard in shards)
    with tempfile.TemporaryDirectory(prefix="lola-data-plan-") as scratch:
        folders = [Path(scratch) / f"group-{number}" for number in range(groups)]
        pieces = write_probe(source, Shape.of(recipe.download), shards, folders, seed=recipe.seed)
        filled = [number for number in range(groups) if pieces[number]]
        if not filled:
            raise StageError(f"plan: {source.place}: the shards chosen have no rows")
        say(f"probe: {sum(one.rows for group in pieces for one in group):,} rows in {len(filled)} groups")
        answers = _run_groups(source.place, path, overrides, recipe, pieces, folders, filled, total, say)
    rate = measured_rate(source, shards) if source.remote else None
    return _scaled(
        recipe, layout, [pieces[number] for number in filled], answers, total, len(shards), rate, source.remote
    )


def _run_groups(
    source: str,
    path: Path,
    overrides: list[str],
    recipe: Recipe,
    pieces: list[list[Piece]],
    folders: list[Path],
    filled: list[int],
    total: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    model = recipe.tokenizer.model
    answers: list[dict[str, Any]] = []
    for number in filled:
        share = sum(one.file_bytes for one in pieces[number]) / max(1, total)
        asked = {
            "recipe": str(path.resolve()),
            "overrides": [*overrides, *_scaled_overrides(recipe, share)],
            "folder": str(folders[number]),
            "model": model,
        }
        answer = _ask(asked)
        if "error" in answer:
            raise StageError(
                f"plan: a stage fails on the probe: {_at_source(answer['error'], folders[number], source)}"
            )
        if model is None and answer["model"]:
            model = str(Path(folders[number].parent / "tokenizer.model"))
            shutil.copyfile(answer["model"], model)
        answers.append(answer["stages"])
        say(f"probe: group {len(answers)} of {len(filled)} done")
    return answers


def _at_source(message: str, folder: Path, place: str) -> str:
    """A message about a shard of the probe, which is deleted, as one about the shard that its rows are of."""
    found = re.sub(
        rf"{re.escape(str(folder))}(?:/warm)?/raw/([^/]+)/(.+?)-(\d{{5}})\.parquet", r"\1/\2.parquet", message
    )
    return message if found == message else f"{storage.join(place, '')}{found} (rows are counted in the probe)"


def _scaled_overrides(recipe: Recipe, share: float) -> list[str]:
    """A group's part of what a recipe asks for in absolute numbers; and no alarms over a handful of rows."""
    section = recipe.sample
    made = ["dedup.alarm_min_documents=1000000000", "executor.workers=1", "executor.tasks=1", "download.source=sample"]
    made += ["download.path=null", "languages=all", "download.files='{lang}/**'", "download.names={}"]
    if section.total is not None:
        made.append(f"sample.total={max(1, round(section.total * share))}")
    if section.budgets:
        scaled = {lang: round(units * share) for lang, units in section.budgets.items()}
        made.append(f"sample.budgets={json.dumps(scaled)}")
    made.append(f"tokenizer.train_bytes={TRAIN_BYTES}")
    return made


def _ask(asked: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.probe_worker"], input=json.dumps(asked), capture_output=True, text=True
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StageError(f"plan: the probe ended with code {done.returncode}: {last}. This is a bug: report it")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _scaled(
    recipe: Recipe,
    layout: Layout,
    pieces: list[list[Piece]],
    answers: list[dict[str, Any]],
    total: int,
    units: int,
    rate: float | None,
    remote: bool,
) -> RunForecast:
    """From the groups to the whole corpus."""
    shares = [sum(one.file_bytes for one in group) / max(1, total) for group in pieces]
    workers = max(1, min(recipe.executor.workers, units))
    rows = mean_with_error([sum(p.rows for p in group) / share for group, share in zip(pieces, shares, strict=True)])
    fetch = total / rate if rate else total / 1e6 * RATES["download"].per_mb
    whole = Estimate(float(total if remote else 0), float(total if remote else 0), float(total if remote else 0))
    half = Estimate(fetch, fetch / workers, fetch)
    settings = {name: digest(build_stage(name, recipe, layout).settings) for name in TREES}
    fetching = Estimate(fetch / workers, fetch / workers, fetch)
    stages = [StageForecast("download", units, rows, whole, 0.0, 160_000_000, half, fetching, settings["download"])]
    for name in STAGES:
        if not all(name in answer for answer in answers):
            continue
        known = RATES[name]
        tasks = min(recipe.executor.tasks, units)
        fixed = known.driver + units * known.per_unit + known.phases * tasks * known.per_task

        def over(key: str, name: str = name) -> list[float]:
            return [answer[name][key] / share for answer, share in zip(answers, shares, strict=True)]

        peak = max(answer[name]["peak_bytes"] for answer in answers)
        if name == "dedup":
            peak = dedup_peak(peak, _largest_language(pieces) / sum(shares), recipe.executor.memory_mb * 10**6)
        work = mean_with_error(over("seconds"))
        stages.append(
            StageForecast(
                name,
                units,
                mean_with_error(over("rows_out")),
                mean_with_error(over("disk_bytes")),
                sum(over("scratch_bytes")) / len(answers),
                peak,
                _shifted(work, fixed, 1),
                _shifted(work, fixed / workers, workers),
                settings[name],
            )
        )
    rough = {row["stage"]: row for row in estimate(recipe)["stages"]}
    for name in NOT_PROBED:
        seconds, size = Estimate(rough[name]["seconds"], None, None), Estimate(rough[name]["disk_bytes"], None, None)
        stages.append(StageForecast(name, 1, Estimate(0.0, None, None), size, 0.0, 0, seconds, seconds, settings[name]))
    probed = [stage for stage in stages if stage.stage not in NOT_PROBED]
    folder = scratch_folder(layout)
    while not folder.exists():
        folder = folder.parent
    scratch = max(stage.scratch_bytes for stage in stages)
    disk = added([stage.disk_bytes for stage in probed])
    return RunForecast(
        recipe.workdir,
        recipe.executor.workers,
        recipe.executor.memory_mb,
        total,
        round(sum(one.file_bytes for group in pieces for one in group)),
        sum(one.rows for group in pieces for one in group),
        len(pieces),
        tuple(stages),
        added([stage.core_seconds for stage in probed]),
        added([stage.seconds for stage in probed]),
        Estimate(*(None if part is None else part + scratch for part in (disk.value, disk.low, disk.high))),  # pyright: ignore[reportArgumentType]
        shutil.disk_usage(folder).free,
    )


def dedup_peak(probed: int, documents: float, memory_bytes: int) -> int:
    """Peak memory of dedup, in bytes: unlike that of other stages it grows with the documents of a language.

    A language whose columns fit into half of the memory is decided on in one go, with a quarter for texts that are
    compared; a larger one in parts that do.

    Args:
        probed: peak on the probe.
        documents: of the largest language.
        memory_bytes: what a task may take.
    """
    return probed + round(min(documents * DECIDED_BYTES, 0.75 * memory_bytes))


def _largest_language(pieces: list[list[Piece]]) -> int:
    rows: Counter[str] = Counter()
    for group in pieces:
        for piece in group:
            rows[piece.lang] += piece.rows
    return max(rows.values())


def _shifted(work: Estimate, fixed: float, workers: int) -> Estimate:
    parts = (None if part is None else part / workers + fixed for part in (work.value, work.low, work.high))
    return Estimate(*parts)  # pyright: ignore[reportArgumentType]


def refusals(found: RunForecast) -> list[str]:
    """Why a run should not be started: what does not fit, one line each."""
    lines: list[str] = []
    least = found.disk_bytes.low if found.disk_bytes.low is not None else found.disk_bytes.value
    if least > found.free_bytes:
        lines.append(
            f"disk: the run takes {readable_bytes(least)} at least, and the disk of {found.workdir} has "
            f"{readable_bytes(found.free_bytes)} free. Choose less (`download.max_bytes`), or put `workdir` elsewhere"
        )
    for stage in found.stages:
        if stage.peak_bytes > found.memory_mb * 1e6:
            lines.append(
                f"memory: a task of {stage.stage} takes {stage.peak_bytes / 1e6:,.0f} MB, and `executor.memory_mb` is "
                f"{found.memory_mb:,}. Raise it (--memory)"
            )
    return lines


def keep(found: RunForecast) -> None:
    """Leave the forecast in the work folder, where a run puts beside it what the stages then took."""
    storage.write_json(Layout(found.workdir).logs(FORECAST_FILE), found.to_json())
