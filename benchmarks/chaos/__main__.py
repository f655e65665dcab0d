"""The command ``python -m benchmarks.chaos``: single seeds, to look into one of them."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.chaos.seeds import Outcome, run_seeds


@click.command()
@click.argument("seeds", nargs=-1, required=True)
@click.option("--lanes", default=2, show_default=True, type=click.IntRange(1), help="Seeds at a time.")
@click.option(
    "--kept",
    default=Path("work/chaos"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Logs and work folders of seeds with which something is wrong.",
)
def main(seeds: tuple[str, ...], lanes: int, kept: Path) -> None:
    """Run SEEDS (numbers, or ranges as 0-19) as the section `chaos` does. Exit code 1: something is wrong.

    What is drawn for a seed is always the same; when a kill by the clock strikes is not.
    """
    wanted: list[int] = []
    for word in seeds:
        if (found := re.fullmatch(r"(\d+)(?:-(\d+))?", word)) is None:
            raise click.BadParameter(f"{word}: give numbers, or ranges as 0-19", param_hint="SEEDS")
        wanted += range(int(found[1]), int(found[2] or found[1]) + 1)

    def say(one: Outcome) -> None:
        told = f"seed {one.seed}, {one.kind}: {one.injected} faults, {one.starts} starts, {one.seconds:.1f} s"
        print("\n  ".join([told, *one.wrong]), flush=True)

    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        outcomes = run_seeds(wanted, folder, kept, lanes=lanes, say=say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if any(one.wrong for one in outcomes) else 0)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.chaos")
