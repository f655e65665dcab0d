"""What the commands of single stages share: their options, the recipe these make, and the run of one stage alone.

In: the sections of the recipe that a stage goes by. Out: a click command with an option for every field of theirs, the
same code as ``run --only``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lola_data.errors import RecipeError
from lola_data.layout import Layout
from lola_data.section_options import section_options, section_values, split_codes
from pipelines.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from lola_data.recipe import Recipe
    from lola_data.sections import Section

COMMON: list[Callable[[Any], Any]] = [
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


def stage_command(
    name: str, sections: dict[str, type[Section]], *, reads: str | None, text: str, without: tuple[str, ...] = ()
) -> click.Command:
    """The command of one stage: its section's options, the same code as `run --only`."""

    def command(**options: Any) -> None:
        recipe = recipe_of(name, sections, options)
        given = options.get("input")
        if given == "":
            raise RecipeError(f"{name}: INPUT is empty; name a tree, or leave it out")
        trees = {reads: given} if reads and given else {}
        manifest = run_alone(name, recipe, Layout(recipe.workdir, trees), redo=options["redo"])
        if options["as_json"]:
            click.echo(json.dumps(manifest.get("totals", {}), ensure_ascii=False, indent=1))

    command.__doc__ = text
    decorated: Any = command
    for section in reversed(list(sections.values())):
        decorated = section_options(section, without=without)(decorated)
    for option in reversed(COMMON):
        decorated = option(decorated)
    if reads:
        decorated = click.argument("input", required=False)(decorated)
    return click.command(name)(decorated)


def recipe_of(name: str, sections: dict[str, type[Section]], options: dict[str, Any]) -> Recipe:
    """The recipe that the options of a stage's command make.

    Raises:
        RecipeError: neither a work folder nor a recipe is given, or a value does not fit.
    """
    from lola_data.recipe import load_recipe, parse_recipe

    overrides: list[str] = []
    if options["workdir"] is not None:
        overrides.append(f"workdir={json.dumps(options['workdir'], ensure_ascii=False)}")
    if options["codes"] is not None:
        codes = split_codes(options["codes"])
        overrides.append(f"languages={json.dumps('all' if codes == ['all'] else codes)}")
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
    if not options["recipe_path"] and options["workdir"] is None:
        raise RecipeError(f"{name}: give --workdir, the folder to write to, or --recipe")
    try:
        if options["recipe_path"]:
            return load_recipe(options["recipe_path"], overrides=overrides)
        return parse_recipe("", name=name, overrides=overrides)
    except RecipeError as error:
        raise RecipeError(_as_typed(str(error), overrides)) from error


def _as_typed(message: str, overrides: list[str]) -> str:
    """A message that names the option that was given, not the override that was made of it."""
    for override in overrides:
        key, _, value = override.partition("=")
        message = message.replace(f"--set {override}: ", f"--{key.rpartition('.')[2].replace('_', '-')} {value}: ")
    return message


def run_alone(name: str, recipe: Recipe, layout: Layout, *, redo: bool) -> dict[str, Any]:
    """Run one stage, alone in its work folder, and return its manifest.

    On Slurm it is submitted, and there is none yet.
    """
    from pipelines.corpus import build_stage
    from pipelines.run import redo as redo_stage
    from pipelines.run import run_stage
    from pipelines.workdir_lock import workdir_lock

    with workdir_lock(layout):
        stage = build_stage(name, recipe, layout)
        if redo:
            redo_stage(stage)
        if recipe.executor.kind == "slurm":
            from pipelines.slurm_run import closing_words
            from pipelines.slurm_submit import submit_corpus

            say(closing_words(recipe, submit_corpus(recipe, layout, [name])))
            return {}
        manifest = run_stage(stage, recipe.executor.of_stage(name))
    click.echo(f"Wrote {layout.tree(name)}", err=True)
    return manifest
