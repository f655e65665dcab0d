"""Tables beside the figures: the runs, the settings in which they differ, every language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lola_data.errors import LolaError
from lola_data.plain_settings import flat_settings
from train.plot.measures import median_speed, smoothed
from train.plot.read import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from train.plot.languages import Languages
    from train.plot.read import RunRecords

Table = tuple[list[str], list[list[str]]]
"""Heads and rows of text; the first column names the row."""
NOTHING = "–"


def run_rows(runs: Sequence[RunRecords], width: float) -> list[dict[str, Any]]:
    """The runs as plain values for JSON; None where something is not known.

    Keys: ``name``, ``path``, ``complete``, ``step`` and ``steps`` (of the whole run), ``tokens``, ``parameters``,
    ``active_parameters``, ``loss`` (last record with one), ``smoothed_loss`` (there, with ``width``), ``held_out_loss``
    and ``unigram_loss`` (nats a token, mean of languages, last evaluation), ``bits_per_byte`` (mean of languages,
    last evaluation), ``tokens_per_second`` (median of the records).
    """
    return [_run_row(run, width) for run in runs]


def _run_row(run: RunRecords, width: float) -> dict[str, Any]:
    losses = [number(record, "loss") for record in run.train]
    means = smoothed([record["step"] for record in run.train], losses, width)
    last = next((place for place in reversed(range(len(losses))) if losses[place] is not None), None)
    valid = run.valid[-1] if run.valid else {}
    bits = valid.get("bits_per_byte")
    known = [bits[code] for code in bits if number(bits, code) is not None] if isinstance(bits, dict) else []
    parameters, active = _parameters(run)
    return {
        "name": run.name,
        "path": str(run.path),
        "complete": run.summary is not None,
        "step": run.step,
        "steps": run.steps,
        "tokens": run.tokens,
        "parameters": parameters,
        "active_parameters": active,
        "loss": None if last is None else losses[last],
        "smoothed_loss": None if last is None else means[last],
        "held_out_loss": number(valid, "mean"),
        "unigram_loss": number(valid, "unigram_mean"),
        "bits_per_byte": sum(known) / len(known) if known else None,
        "tokens_per_second": median_speed(run),
    }


def _parameters(run: RunRecords) -> tuple[int | None, int | None]:
    """Parameters and active parameters: of the summary, else counted from the settings."""
    if run.summary is not None and number(run.summary, "parameters") is not None:
        return number(run.summary, "parameters"), number(run.summary, "active_parameters")
    vocabulary = number(run.tokenizer, "vocab_size")
    if not vocabulary or not isinstance(run.settings.get("model"), dict):
        return None, None
    try:
        from lola_data.train_config import TrainConfig
        from train.model import count_parameters

        return count_parameters(TrainConfig.from_dict(run.settings).model, vocabulary)
    except (LolaError, ImportError, TypeError, ValueError):
        # Settings of another version: a missing number is no reason to draw nothing.
        return None, None


def run_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The runs, as text."""
    heads = ["run", "step", "tokens", "parameters", "active", "loss", "held out", "unigram", "bits/byte", "tokens/s"]
    return heads, [
        [
            row["name"],
            f"{row['step']:,}" + ("" if row["complete"] or row["steps"] is None else f" of {row['steps']:,}"),
            whole(row["tokens"]),
            whole(row["parameters"]),
            whole(row["active_parameters"]),
            decimal(row["smoothed_loss"]),
            decimal(row["held_out_loss"]),
            decimal(row["unigram_loss"]),
            decimal(row["bits_per_byte"]),
            whole(row["tokens_per_second"]),
        ]
        for row in rows
    ]


def settings_table(runs: Sequence[RunRecords]) -> Table | None:
    """The settings that are not the same in all runs; None if none differs."""
    flat = [
        flat_settings(run.settings) | {f"tokenizer.{key}": v for key, v in flat_settings(run.tokenizer).items()}
        for run in runs
    ]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    differing = [key for key in keys if len({repr(one.get(key, _MISSING)) for one in flat}) > 1]
    if not differing:
        return None
    rows = [[key, *(_setting(one.get(key, _MISSING)) for one in flat)] for key in differing]
    return ["setting", *(run.name for run in runs)], rows


def language_table(runs: Sequence[RunRecords], languages: Languages) -> Table | None:
    """Every language, those with the most training tokens first; None if none was scored."""
    codes = sorted({code for one in languages.scores for code in one})
    if not codes:
        return None
    several = len(runs) > 1
    heads = ["language", *(["training tokens"] if languages.sizes else [])]
    for run in runs:
        of = f"{run.name}: " if several else ""
        heads += [f"{of}{languages.unit}", f"{of}unigram", f"{of}epochs"]
    rows: list[list[str]] = []
    for code in sorted(codes, key=lambda code: (-languages.sizes.get(code, 0), code)):
        row = [code, *([whole(languages.sizes.get(code))] if languages.sizes else [])]
        for run, scores in zip(runs, languages.scores, strict=True):
            score = scores.get(code)
            epochs = number(run.train[-1], "epochs", code) if run.train else None
            row += [decimal(score and score.value), decimal(score and score.unigram), decimal(epochs, 2)]
        rows.append(row)
    return heads, rows


def text_lines(table: Table) -> list[str]:
    """A table as aligned lines for a terminal: the first column to the left, all others to the right."""
    from rich.cells import cell_len

    from lola_data.text_tables import as_it_is

    lines = [table[0], *([as_it_is(cell) for cell in row] for row in table[1])]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            " " * (width - cell_len(cell)) * (place > 0) + cell + " " * (width - cell_len(cell)) * (place == 0)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def whole(value: float | None) -> str:
    """A whole number with commas, or a dash."""
    return NOTHING if value is None else f"{value:,.0f}"


def decimal(value: float | None, places: int = 3) -> str:
    """A number with some decimals, or a dash."""
    return NOTHING if value is None else f"{value:,.{places}f}"


_MISSING = object()


def _setting(value: Any) -> str:
    if value is _MISSING:
        return NOTHING
    if value is None or value == {}:
        return "not set"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else f"{text[:16]}…{text[-16:]}"
