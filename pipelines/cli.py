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
@click.option("--dry-run", is_flag=True, help="Print the plan (stages, tasks, bytes, time, disk) and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan or the manifests' totals as JSON on stdout.")
def run(
    recipe: Path,
    only: tuple[str, ...],
    start: str | None,
    redo: tuple[str, ...],
    overrides: tuple[str, ...],
    memory_mb: int | None,
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
    """
    from lola_data.recipe import load_recipe

    memory = [] if memory_mb is None else [f"executor.memory_mb={memory_mb}"]
    loaded = load_recipe(recipe, overrides=[*overrides, *memory])
    if dry_run:
        from pipelines.estimate import estimate, render

        plan = estimate(loaded, only=list(only), start=start, redo=list(redo))
        click.echo(json.dumps(plan, ensure_ascii=False, indent=1) if as_json else render(plan))
        return
    from pipelines.corpus import run_corpus

    manifests = run_corpus(loaded, only=list(only), start=start, redo=list(redo))
    if as_json:
        shown = {name: manifest.get("totals", {}) for name, manifest in manifests.items()}
        click.echo(json.dumps(shown, ensure_ascii=False, indent=1))
    else:
        from pipelines.closing import closing_words

        click.echo(closing_words(loaded, recipe, manifests))


@click.command()
@click.argument("workdir")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--languages", "with_languages", is_flag=True, help="Show the counts of every language.")
def status(workdir: str, as_json: bool, with_languages: bool) -> None:
    """What each stage of a work folder has done: progress, counts per language, failures with the log to read.

    \b
    Example:
      lola-data status work/demo --languages
    """
    from pipelines.corpus import status as stage_status
    from pipelines.status_table import render

    layout = Layout.found_at(workdir)
    if layout is None:
        raise RecipeError(
            f"{workdir}: no work folder of `lola-data run` (it has no state/); name the recipe's `workdir`"
        )
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
