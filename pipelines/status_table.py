"""The table of ``lola-data status``: plain, aligned text."""

from __future__ import annotations

from typing import Any

from pipelines.progress import human_bytes, human_seconds


def render(rows: list[dict[str, Any]], *, with_languages: bool = False) -> str:
    """Rows of :func:`pipelines.corpus.status` as text."""
    foreseen = any("forecast" in row for row in rows)
    more = ("rows foreseen", "time foreseen") if foreseen else ()
    table = [("stage", "state", "units", "documents in", "out", "bytes out", "time", *more)]
    for row in rows:
        totals = row.get("totals") or {}
        done = sum(phase["done"] for phase in row["phases"])
        units = sum(phase["units"] for phase in row["phases"])
        table.append(
            (
                row["stage"],
                row["state"],
                f"{done}/{units}" if units else "",
                f"{totals['in']['documents']:,}" if totals else "",
                f"{totals['out']['documents']:,}" if totals else "",
                human_bytes(totals["out"]["bytes"]) if totals.get("out", {}).get("bytes") else "",
                human_seconds(row["seconds"]) if "seconds" in row else "",
                *(_foreseen(row.get("forecast")) if foreseen else ()),
            )
        )
    lines = align(table, left=2)
    for row in rows:
        for failure in row["failures"]:
            lines += ["", f"{row['stage']}: {failure['message']}", f"  log: {failure['log']}"]
            lines += failure.get("tail", [])
    if with_languages:
        for row in rows:
            if row.get("languages"):
                lines += ["", f"{row['stage']}: documents by language", *_languages(row["languages"])]
    return "\n".join(lines)


def _foreseen(forecast: dict[str, Any] | None) -> tuple[str, str]:
    """Rows and time of a stage as `lola-data plan` foresaw them, with their error bars."""
    if forecast is None:
        return "", ""
    rows, seconds = forecast["rows"], forecast["seconds"]
    count = "" if not rows["value"] else f"{rows['value']:,.0f}"
    if rows["high"] is not None:
        count += f" +-{rows['high'] - rows['value']:,.0f}"
    span = f" to {human_seconds(seconds['high'])}" if seconds["high"] and seconds["high"] != seconds["value"] else ""
    return count, human_seconds(seconds["value"]) + span


def _languages(languages: dict[str, Any]) -> list[str]:
    """A row a language: in, and relabelled in, are out, removed by each reason, and relabelled out."""
    reasons = sorted({reason for one in languages.values() for reason in one["removed"]})
    came, went = (
        [key] if any(key in one for one in languages.values()) else [] for key in ("relabelled_in", "relabelled_out")
    )
    heads = ("in", *came, "out", *reasons, *went)
    table = [("lang", *(head.replace("relabelled_", "relabelled ") for head in heads))]
    for lang, one in languages.items():
        sizes = {**one["removed"], **{key: one[key] for key in ("in", "out", *came, *went) if key in one}}
        table.append((lang, *(f"{sizes.get(head, {}).get('documents', 0):,}" for head in heads)))
    return align(table, left=1)


def align(table: list[tuple[str, ...]], *, left: int) -> list[str]:
    """Rows as lines of equal columns; the first ``left`` columns flush left, the others flush right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
