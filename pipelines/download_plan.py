"""What a download would fetch: a recipe in, shards and bytes of each language out, as values or as a table."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from lola_data.text_tables import plain_table
from pipelines.download import build
from pipelines.forecast import forecast, forecast_words
from pipelines.progress import human_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.layout import Layout
    from lola_data.recipe import Recipe


def download_plan(recipe: Recipe, layout: Layout, folder: Path) -> dict[str, Any]:
    """``languages`` (code -> shards, bytes, all_shards, all_bytes), ``files`` (path, origin, bytes), ``there``
    (so many of them are fetched already), and the ``forecast`` of the rest, as :func:`pipelines.forecast.forecast` has
    it.

    Args:
        recipe: says where from and how much.
        layout: where to.
        folder: on whose disk it is to lie.

    Raises:
        StageError: the source is out of reach or lacks a language, or a limit is too small.
    """
    step: Any = build(recipe, layout).phases[0]
    source = step.source()
    picked, everything = step.choose(source)
    done = step.state.done_keys(step.phase)
    languages: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_COLUMNS, 0))
    for shard in everything:
        languages[shard.lang]["all_shards"] += 1
        languages[shard.lang]["all_bytes"] += shard.bytes
    for shard in picked:
        languages[shard.lang]["shards"] += 1
        languages[shard.lang]["bytes"] += shard.bytes
    left = [shard for shard in picked if shard.key not in done]
    return {
        "languages": dict(sorted(languages.items())),
        "files": [{"path": shard.path, "origin": source.locate(shard), "bytes": shard.bytes} for shard in picked],
        "there": len(picked) - len(left),
        "forecast": forecast(source, left, folder, recipe.executor.workers, probe=True),
    }


_COLUMNS: tuple[str, ...] = ("shards", "bytes", "all_shards", "all_bytes")


def plan_text(plan: dict[str, Any]) -> str:
    """The plan as a table and a line."""
    headers = ["lang", "shards", "of", "bytes", "of"]
    rows: list[list[str]] = []
    sums: dict[str, int] = dict.fromkeys(_COLUMNS, 0)
    for lang, counts in plan["languages"].items():
        rows.append([lang, *_cells(counts)])
        for name in _COLUMNS:
            sums[name] += counts[name]
    rows.append(["total", *_cells(sums)])
    table = plain_table(headers, [False, True, True, True, True], rows)
    lines = [table, "", f"to fetch: {forecast_words(plan['forecast'])}"]
    if plan["there"]:
        lines.append(f"already there: {plan['there']:,} shards")
    return "\n".join(lines)


def _cells(counts: dict[str, int]) -> list[str]:
    return [
        f"{counts['shards']:,}",
        f"{counts['all_shards']:,}",
        human_bytes(counts["bytes"]),
        human_bytes(counts["all_bytes"]),
    ]
