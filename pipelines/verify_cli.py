"""Command ``verify``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.verify import Verified


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--repair", "mend", is_flag=True, help="Fetch damaged and missing raw shards again.")
@click.option("--quick", is_flag=True, help="Compare sizes and read footers only: no digests, no UTF-8.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Files looked at at a time.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def verify(folder: str, mend: bool, quick: bool, workers: int, as_json: bool) -> None:
    """Check a tree of shards or a whole work folder: digests, footers, schema, row counts, UTF-8.

    DIR is what `lola-data download --dest` filled, a work folder, one tree of it, or any folder of <lang>/*.parquet
    with or without checksum.sha256 files; or the address of such a place on an object store. Nothing is changed without
    --repair. Exit code 1: something is wrong.

    \b
    Examples:
      lola-data verify shards
      lola-data verify shards --repair
      lola-data verify work/mine --json | jq .faults
      lola-data verify s3://bucket/corpus --workers 8
    """
    from lola_data.terminal import bytes_bar
    from pipelines.verify import verify as look

    with bytes_bar("verifying") as progress:
        found = look(folder, quick=quick, workers=workers, progress=progress)
    mended: list[str] = []
    if mend and found.faults:
        from pipelines.repair import repair

        mended, found.faults = repair(folder, found.faults)
    if as_json:
        click.echo(json.dumps({**found.to_json(), "repaired": mended}, ensure_ascii=False, indent=1))
    else:
        _print(found, mended, quick)
    if found.faults:
        sys.exit(1)


def _print(found: Verified, mended: list[str], quick: bool) -> None:
    from pipelines.progress import human_bytes

    for path in mended:
        click.echo(f"{path}: fetched again")
    for fault in found.faults:
        click.echo(f"{fault.path}: {fault.kind}: {fault.message}")
    looked = f"{found.files:,} files, {human_bytes(found.bytes)}"
    how = "sizes and footers only" if quick else f"{found.digests:,} with a digest on record"
    if not found.faults:
        click.echo(f"{looked} ({how}): all sound{' now' if mended else ''}")
        return
    files = len({fault.path for fault in found.faults})
    hint = "" if mended else "; --repair fetches raw shards again"
    are = "file is not as it" if files == 1 else "files are not as they"
    click.echo(f"{looked} ({how}): {files:,} {are} should be{hint}")
