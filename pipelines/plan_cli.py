"""Command ``plan``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.forecast_run import Estimate, RunForecast


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the recipe.")
@click.option("--memory", "memory_mb", type=int, metavar="MB", help="Memory of a task  [default: the recipe's].")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def plan(recipe: Path, overrides: tuple[str, ...], memory_mb: int | None, as_json: bool) -> None:
    """Forecast a run: rows, disk, memory, core-hours and time of every stage, from a probe of 1 % of the corpus.

    The probe goes through the real stages, in four groups; how these differ gives the error bars (95 %). A run that
    cannot fit on the disk, or in the memory of a task, is refused: exit code 1. The forecast is kept in the work
    folder, and `lola-data status` shows it beside what a stage then took.

    \b
    Examples:
      lola-data plan my.yaml
      lola-data plan my.yaml --set executor.workers=64 --memory 8000 --json
    """
    from pipelines.forecast_run import forecast_run, keep, refusals
    from pipelines.progress import say

    memory = [] if memory_mb is None else [f"executor.memory_mb={memory_mb}"]
    found = forecast_run(recipe, [*overrides, *memory], say=say)
    refused = refusals(found)
    if as_json:
        click.echo(json.dumps({**found.to_json(), "refused": refused}, ensure_ascii=False, indent=1))
    else:
        click.echo(_text(found))
    for line in refused:
        click.echo(f"lola-data: error: {line}", err=True)
    if refused:
        sys.exit(1)
    keep(found)


def _text(found: RunForecast) -> str:
    from pipelines.progress import human_bytes, human_seconds
    from pipelines.status_table import align

    table = [("stage", "units", "rows out", "+-", "disk", "+-", "scratch", "peak memory", "core time", "+-", "time")]
    for stage in found.stages:
        table.append(
            (
                stage.stage,
                f"{stage.units:,}",
                f"{stage.rows.value:,.0f}" if stage.rows.value else "",
                _bar(stage.rows),
                human_bytes(stage.disk_bytes.value),
                _bar(stage.disk_bytes),
                human_bytes(stage.scratch_bytes) if stage.scratch_bytes else "",
                human_bytes(stage.peak_bytes) if stage.peak_bytes else "",
                human_seconds(stage.core_seconds.value),
                _bar(stage.core_seconds),
                human_seconds(stage.seconds.value),
            )
        )
    read = f"{human_bytes(found.probe_bytes)} of {human_bytes(found.source_bytes)}, {found.probe_rows:,} rows"
    took = f"{human_seconds(found.seconds.value)} with {found.workers} workers{_span(found.seconds)}"
    lines = [
        *align(table, left=1),
        "",
        f"In all, but for tokenizer, train and balance: {took}, "
        f"{found.core_seconds.value / 3600:,.2f} core-hours, "
        f"{human_bytes(found.disk_bytes.value)} of disk ({human_bytes(found.free_bytes)} free).",
        f"Probe: {read}, in {found.groups} groups. Rows after dedup are an upper bound: a probe sees few duplicates.",
    ]
    return "\n".join(lines)


def _bar(one: Estimate) -> str:
    if one.high is None or not one.value or one.high == one.value:
        return ""
    return f"{100 * (one.high - one.value) / one.value:.0f}%"


def _span(one: Estimate) -> str:
    from pipelines.progress import human_seconds

    return "" if one.low is None or one.high is None else f" ({human_seconds(one.low)} to {human_seconds(one.high)})"
