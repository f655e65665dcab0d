"""Command ``languages``."""

from __future__ import annotations

import dataclasses
import json
import sys

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout.")
def languages(as_json: bool) -> None:
    """The 167 languages of CulturaX: code, name, ISO 639-3, script, family, documents and tokens as published.

    \b
    Example:
      lola-data languages --json | python -c "import json, sys; print(len(json.load(sys.stdin)))"
    """
    from lola_data.languages import LANGUAGES

    known = list(LANGUAGES.values())
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in known], ensure_ascii=False, indent=1))
        return
    rows = [("code", "name", "iso639-3", "script", "family", "documents", "tokens")]
    for one in known:
        tokens = "" if one.tokens is None else f"{one.tokens:,}"
        rows.append((one.code, one.name, one.iso639_3 or "", one.script, one.family, f"{one.documents:,}", tokens))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [
            cell.rjust(width) if column >= 5 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 and sys.stdout.isatty() else line)
