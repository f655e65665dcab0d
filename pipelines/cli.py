"""Commands ``run``, ``status``, and one per sharded stage: download, identify, dedup, sample, tokenize."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lola_data.errors import RecipeError
from lola_data.layout import TREES, Layout
from lola_data.section_options import section_options, section_values, split_codes
from lola_data.sections import (
    ChecksSection,
    DedupSection,
    DownloadSection,
    IdentifySection,
    SampleSection,
    Section,
    TokenizeSection,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lola_data.recipe import Recipe


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
    from lola_data import storage
    from pipelines.corpus import status as stage_status
    from pipelines.status_table import render

    layout = Layout(workdir)
    if not storage.exists(storage.join(workdir, "state")):
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


_COMMON: list[Callable[[Any], Any]] = [
    click.option("--workdir", help="Work folder that everything is written below  [default: the recipe's]."),
    click.option("--recipe", "recipe_path", type=click.Path(path_type=Path), help="Start from this recipe."),
    click.option("--languages", "codes", metavar="A,B,...", help="Only these languages  [default: all]."),
    click.option("--seed", type=int, help="Decides every hash-based choice  [default: 1234]."),
    click.option("--tasks", type=int, help="Tasks the work is split into  [default: 2]."),
    click.option("--workers", "processes", type=int, help="Tasks that run at the same time  [default: 2]."),
    click.option("--memory", "memory_mb", type=int, metavar="MB", help="Memory of a task  [default: 4000]."),
    click.option("--redo", is_flag=True, help="Delete the stage's output first."),
    click.option("--json", "as_json", is_flag=True, help="Print the manifest's totals as JSON on stdout."),
]


def _stage_command(
    name: str, sections: dict[str, type[Section]], *, reads: str | None, text: str, without: tuple[str, ...] = ()
) -> click.Command:
    """The command of one stage: its section's options, the same code as `run --only`."""

    def command(**options: Any) -> None:
        recipe = _recipe_of(name, sections, options)
        given = options.get("input")
        if given == "":
            raise RecipeError(f"{name}: INPUT is empty; name a tree, or leave it out")
        trees = {reads: given} if reads and given else {}
        manifest = _run_alone(name, recipe, Layout(recipe.workdir, trees), redo=options["redo"])
        if options["as_json"]:
            click.echo(json.dumps(manifest.get("totals", {}), ensure_ascii=False, indent=1))

    command.__doc__ = text
    decorated: Any = command
    for section in reversed(list(sections.values())):
        decorated = section_options(section, without=without)(decorated)
    for option in reversed(_COMMON):
        decorated = option(decorated)
    if reads:
        decorated = click.argument("input", required=False)(decorated)
    return click.command(name)(decorated)


def _recipe_of(name: str, sections: dict[str, type[Section]], options: dict[str, Any]) -> Recipe:
    from lola_data.recipe import load_recipe, parse_recipe

    overrides: list[str] = []
    if options["workdir"] is not None:
        overrides.append(f"workdir={json.dumps(options['workdir'], ensure_ascii=False)}")
    if options["codes"] is not None:
        overrides.append(f"languages={json.dumps(split_codes(options['codes']))}")
    if options["seed"] is not None:
        overrides.append(f"seed={options['seed']}")
    if options["tasks"] is not None:
        overrides.append(f"executor.tasks={options['tasks']}")
    if options["processes"] is not None:
        overrides.append(f"executor.workers={options['processes']}")
    if options["memory_mb"] is not None:
        overrides.append(f"executor.memory_mb={options['memory_mb']}")
    for key, section in sections.items():
        for field, value in section_values(section, options).items():
            overrides.append(f"{key}.{field}={json.dumps(value, ensure_ascii=False)}")
    if options["recipe_path"]:
        return load_recipe(options["recipe_path"], overrides=overrides)
    if options["workdir"] is None:
        raise RecipeError(f"{name}: give --workdir, the folder to write to, or --recipe")
    return parse_recipe("", name=name, overrides=overrides)


def _run_alone(name: str, recipe: Recipe, layout: Layout, *, redo: bool) -> dict[str, Any]:
    from pipelines.corpus import build_stage
    from pipelines.run import redo as redo_stage
    from pipelines.run import run_stage
    from pipelines.state import workdir_lock

    with workdir_lock(layout):
        stage = build_stage(name, recipe, layout)
        if redo:
            redo_stage(stage)
        manifest = run_stage(stage, recipe.executor)
    click.echo(f"Wrote {layout.tree(name)} (stage `{name}`, folder {TREES[name]}/)", err=True)
    return manifest


download = _stage_command(
    "download",
    {"download": DownloadSection},
    reads=None,
    text="""Bring shards in, into WORKDIR/raw/<lang>/.

    \b
    Examples:
      lola-data download --source sample --workdir work/mine
      lola-data download --source local --path /data/culturax --languages de,sw --workdir work/mine
    """,
)

identify = _stage_command(
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

dedup = _stage_command(
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

sample = _stage_command(
    "sample",
    {"sample": SampleSection},
    reads="dedup",
    text="""Choose how much of each language goes on, and the weight it is trained with.

    INPUT is a tree of deduplicated shards [default: WORKDIR/deduped].

    \b
    Example:
      lola-data sample --workdir work/mine --method unimax --total 2000000000 --max-epochs 2
    """,
)

tokenize = _stage_command(
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
