"""Commands ``run``, ``status``, and one for each of the sharded stages identify, dedup, tokenize."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from lola_data.errors import RecipeError
from lola_data.layout import Layout
from lola_data.sections import ChecksSection, DedupSection, IdentifySection, TokenizeSection
from pipelines.stage_command import stage_command


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--only", multiple=True, metavar="STAGE", help="Run only this stage (may be repeated).")
@click.option("--from", "start", metavar="STAGE", help="Run this stage and all after it.")
@click.option("--redo", multiple=True, metavar="STAGE", help="Delete this stage's output, and all after it, first.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the recipe.")
@click.option("--memory", "memory_mb", type=int, metavar="MB", help="Memory of a task  [default: the recipe's].")
@click.option("--tasks", type=click.IntRange(min=1), help="Tasks of a stage  [default: the recipe's].")
@click.option("--rank-offset", type=click.IntRange(min=0), help="First task that this machine does (see --ranks).")
@click.option(
    "--ranks", type=click.IntRange(min=1), help="Tasks that this machine does; others do the rest at the same time."
)
@click.option("--dry-run", is_flag=True, help="Print the plan (stages, tasks, bytes, time, disk) and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan or the manifests' totals as JSON on stdout.")
def run(
    recipe: Path,
    only: tuple[str, ...],
    start: str | None,
    redo: tuple[str, ...],
    overrides: tuple[str, ...],
    memory_mb: int | None,
    tasks: int | None,
    rank_offset: int | None,
    ranks: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a recipe: shards in; tokens, model and report out.

    What is finished is not done again, so the same command goes on after a kill or a mended fault.

    \b
    Examples:
      lola-data run demo.yaml
      lola-data run my.yaml --dry-run --set executor.workers=16 --memory 8000
      lola-data run my.yaml --from sample --set sample.alpha=0.5 --redo sample
      lola-data run my.yaml --tasks 64 --rank-offset 16 --ranks 16   (docs/clusters.md)
    """
    from lola_data.recipe import load_recipe

    memory = [] if memory_mb is None else [f"executor.memory_mb={memory_mb}"]
    split = [] if tasks is None else [f"executor.tasks={tasks}"]
    loaded = load_recipe(recipe, overrides=[*overrides, *memory, *split])
    if dry_run:
        from pipelines.estimate import estimate, render

        plan = estimate(loaded, only=list(only), start=start, redo=list(redo))
        click.echo(json.dumps(plan, ensure_ascii=False, indent=1) if as_json else render(plan))
        return
    from pipelines.corpus import run_corpus

    share = None
    if ranks is not None or rank_offset is not None:
        share = _share(loaded.executor.kind, tasks, rank_offset, ranks, bool(redo))
    manifests = run_corpus(loaded, only=list(only), start=start, redo=list(redo), share=share)
    if share is not None and share[1].start > 0:
        return
    if loaded.executor.kind == "slurm":
        from pipelines.slurm_run import closing_words as submitted_words
        from pipelines.slurm_run import submitted

        record = submitted(Layout(loaded.workdir))
        ids = {} if record is None else record.ids
        click.echo(json.dumps({"jobs": ids}, indent=1) if as_json else submitted_words(loaded, record))
    elif as_json:
        shown = {name: manifest.get("totals", {}) for name, manifest in manifests.items()}
        click.echo(json.dumps(shown, ensure_ascii=False, indent=1))
    else:
        from pipelines.closing import closing_words

        click.echo(closing_words(loaded, recipe, manifests))


def _share(
    kind: str, tasks: int | None, offset: int | None, count: int | None, redo: bool
) -> tuple[int, range]:  # fmt: skip
    """Tasks of all machines, and those of this one."""
    from pipelines.shared_run import check_share

    if tasks is None or offset is None or count is None:
        raise click.UsageError("give --tasks, --rank-offset and --ranks, all three, on every machine")
    if kind != "local":
        raise click.UsageError(f"--ranks shares a run without a scheduler; with `executor.kind: {kind}` leave it out")
    if redo and offset:
        raise click.UsageError("--redo deletes; give it on the machine with --rank-offset 0 alone")
    return tasks, check_share(tasks, offset, count)


@click.command()
@click.argument("workdir")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--languages", "with_languages", is_flag=True, help="Show the counts of every language.")
@click.option("--follow", is_flag=True, help="Go on showing it until nothing works on the folder any more.")
def status(workdir: str, as_json: bool, with_languages: bool, follow: bool) -> None:
    """What each stage of a work folder has done: progress, counts per language, failures with the log to read.

    Exit code 1 if something has failed; with --follow, also if anything that was begun is not complete at the end.

    \b
    Examples:
      lola-data status work/demo --languages
      lola-data status work/demo --follow
    """
    if follow and (as_json or with_languages):
        raise click.UsageError("--follow shows the table alone; leave --json and --languages out")
    from pipelines.corpus import status as stage_status
    from pipelines.status_table import render

    layout = Layout.found_at(workdir)
    if layout is None:
        raise RecipeError(
            f"{workdir}: no work folder of `lola-data run` (it has no state/); name the recipe's `workdir`"
        )
    if follow:
        from pipelines.watch import follow as follow_status

        sys.exit(0 if follow_status(layout) else 1)
    rows = stage_status(layout)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        click.echo(render(rows, with_languages=with_languages))
    if any(row["failures"] for row in rows):
        sys.exit(1)


identify = stage_command(
    "identify",
    {"identify": IdentifySection, "checks": ChecksSection},
    reads="download",
    text="""Check every text and identify its language, script and score.

    INPUT is a tree <lang>/*.parquet of raw shards [default: WORKDIR/raw].

    \b
    Example:
      lola-data identify /data/culturax --workdir work/mine --policy relabel --languages de,nl
    """,
)

dedup = stage_command(
    "dedup",
    {"dedup": DedupSection},
    reads="identify",
    text="""Remove exact, same-URL and near-duplicate documents inside each language.

    INPUT is a tree of identified shards [default: WORKDIR/identified].

    \b
    Example:
      lola-data dedup --workdir work/mine --threshold 0.85 --survivor longest
    """,
)

tokenize = stage_command(
    "tokenize",
    {"tokenize": TokenizeSection},
    reads="sample",
    text="""Turn text into token shards (Megatron .bin/.idx), with a held-out split inside every language.

    INPUT is a tree of sampled shards [default: WORKDIR/sampled]; the tokenizer is WORKDIR/tokenizer's.

    \b
    Example:
      lola-data tokenize --workdir work/mine --valid-share 0.005
    """,
)
