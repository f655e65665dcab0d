"""Command ``sample``: the stage, or with ``--plan`` what it would give every language."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from lola_data import storage
from lola_data.errors import RecipeError, ShardError
from lola_data.layout import Layout
from lola_data.section_options import section_options
from lola_data.sections import SampleSection, Section
from pipelines.stage_command import COMMON, recipe_of, run_alone

if TYPE_CHECKING:
    from lola_data.recipe import Recipe
    from lola_data.sampling.plan import PlannedSample
    from lola_data.sampling.sizes import KnownSizes

_SECTIONS: dict[str, type[Section]] = {"sample": SampleSection}
_NOT_OPENED = "not opened"


def _command(**options: Any) -> None:
    """Choose how much of each language goes on, and the weight it is trained with.

    INPUT is a tree of deduplicated shards [default: WORKDIR/deduped].

    With --plan nothing is read but footers, and nothing is written: a table says what each language would get. Sizes
    are those of INPUT or WORKDIR/deduped or, where there are no shards yet, CulturaX's published ones. Estimates have
    a ~ before them. --method lola-v1 counts documents by itself.

    \b
    Examples:
      lola-data sample --workdir work/mine --method unimax --total 2000000000 --max-epochs 2
      lola-data sample --plan --method temperature --alpha 0.3 --languages de,sw,yo
      lola-data sample --plan --method lola-v1 --csv plan.csv
      lola-data sample --plan --workdir work/mine --unit documents --total 1000000

    The JSON document of --plan is described in lola_data.sampling.plan.PlannedSample.to_json.
    """
    if options["method"] == "lola-v1" and options["unit"] is None:
        options["unit"] = "documents"
    _check_input(options["input"])
    csv_path = options.pop("csv_path")
    if options.pop("plan"):
        _plan(options, csv_path)
        return
    if csv_path is not None:
        raise RecipeError("sample: --csv writes the table of --plan; give both, or neither")
    recipe = recipe_of("sample", _SECTIONS, options)
    trees = {"dedup": options["input"]} if options["input"] else {}
    manifest = run_alone("sample", recipe, Layout(recipe.workdir, trees), redo=options["redo"])
    if options["as_json"]:
        click.echo(json.dumps(manifest.get("totals", {}), ensure_ascii=False, indent=1))


def _check_input(tree: str | None) -> None:
    if tree == "":
        raise RecipeError("sample: INPUT is empty; name a tree, or leave it out")
    layout = None if tree is None else Layout.found_at(tree)
    if layout is not None and not layout.hidden:
        raise RecipeError(
            f"sample: {tree} is a work folder: give it with --workdir, or name the tree in it, {layout.tree('dedup')}"
        )


def _plan(options: dict[str, Any], csv_path: str | None) -> None:
    from lola_data.sampling.plan import plan_sample

    recipe, has_workdir = _recipe_to_plan(options)
    known = _sizes(recipe, options["input"], has_workdir)
    planned = plan_sample(recipe.sample, known.languages)
    if csv_path is not None:
        from lola_data.sampling.plan_text import to_csv

        try:
            with storage.atomic_output(csv_path) as handle:
                handle.write(to_csv(planned))
        except OSError as error:
            raise ShardError(f"{csv_path}: cannot be written ({error.strerror or error}); name another file") from error
    if options["as_json"]:
        told = {"format": 1, "source": known.source, "place": known.place, "notes": list(known.notes.values())}
        click.echo(json.dumps({**told, **planned.to_json()}, ensure_ascii=False, indent=1))
    else:
        _print(planned, known)
    if csv_path is not None:
        click.echo(f"Wrote {csv_path}", err=True)


def _recipe_to_plan(options: dict[str, Any]) -> tuple[Recipe, bool]:
    """The recipe, and whether it has a work folder to look into."""
    has_workdir = options["workdir"] is not None or options["recipe_path"] is not None
    if not has_workdir:
        # A recipe has a work folder; this one is not looked at.
        options = {**options, "workdir": "corpus"}
    without_tokenizer = options["unit"] == "tokens" and options["tokenizer"] is None
    if without_tokenizer:
        # A recipe has a tokenizer to count with; a plan counts nothing.
        options = {**options, "tokenizer": _NOT_OPENED}
    recipe = recipe_of("sample", _SECTIONS, options)
    if without_tokenizer:
        recipe = recipe.model_copy(update={"sample": recipe.sample.model_copy(update={"tokenizer": None})})
    return recipe, has_workdir


def _sizes(recipe: Recipe, tree: str | None, has_workdir: bool) -> KnownSizes:
    from lola_data.sampling.sizes import tree_sizes
    from lola_data.shards import list_shards

    if tree is not None:
        return tree_sizes(tree, recipe.selected)
    if has_workdir:
        layout = Layout(recipe.workdir)
        place = layout.tree("dedup")
        if list_shards(place):
            known = tree_sizes(place, recipe.selected)
            if storage.exists(layout.manifest("dedup")):
                return known
            return _noted(known, f"unfinished: {place} has no manifest: the stage `dedup` has more to write")
        return _noted(_published(recipe), f"empty: {place} has no shards yet")
    return _published(recipe)


def _noted(known: KnownSizes, line: str) -> KnownSizes:
    return replace(known, notes={**known.notes, "folder": line})


def _published(recipe: Recipe) -> KnownSizes:
    from lola_data.languages import language
    from lola_data.sampling.sizes import published_sizes

    for code in recipe.sample.budgets:
        try:
            language(code)
        except RecipeError as error:
            raise RecipeError(f"sample.budgets: {error}") from error
    return published_sizes(recipe.selected)


def _print(planned: PlannedSample, known: KnownSizes) -> None:
    from lola_data.sampling.plan_text import plan_lines, table_cells
    from lola_data.text_tables import plain_table

    # How bytes were counted matters to no one who shares out documents.
    apart = {"documents", "bytes", "tokens"} - {planned.plan.unit}
    lines = [*plan_lines(planned), *(line for kind, line in known.notes.items() if kind not in apart)]
    if not sys.stdout.isatty():
        click.echo("\n".join([plain_table(*table_cells(planned)), "", *lines]))
        return
    from lola_data.terminal import print_table

    print_table(lambda width: table_cells(planned, width=width), lines)


def _decorated() -> click.Command:
    command: Any = section_options(SampleSection)(_command)
    for option in reversed(COMMON):
        command = option(command)
    command = click.option("--csv", "csv_path", type=click.Path(dir_okay=False), metavar="FILE",
                           help="With --plan: write all rows and columns as CSV.")(command)  # fmt: skip
    command = click.option("--plan", is_flag=True, help="Print what each language would get, and stop.")(command)
    command = click.argument("input", required=False)(command)
    return click.command("sample")(command)


sample = _decorated()
