"""Command ``download``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lola_data import storage
from lola_data.errors import RecipeError
from lola_data.layout import Layout
from lola_data.section_options import section_options
from lola_data.sections import DownloadSection, Section
from pipelines.stage_command import COMMON, recipe_of, run_alone

if TYPE_CHECKING:
    from lola_data.recipe import Recipe

_SECTIONS: dict[str, type[Section]] = {"download": DownloadSection}


def _command(**options: Any) -> None:
    """Bring shards in, into DEST/<lang>/ or WORKDIR/raw/<lang>/.

    Without --source, --path says where from, and without that it is the hub (or, with --workdir, what the recipe says).
    Which shards are taken does not depend on anything but the limits and the seed; a larger limit keeps what a smaller
    one took, so the same command with more languages or bytes goes on.

    \b
    Examples:
      lola-data download --languages de,sw,yo --max-bytes 20GB --dest shards
      lola-data download --languages de --max-shards 2 --dest shards --dry-run
      lola-data download --source sample --workdir work/mine
      lola-data download --path s3://bucket/culturax --languages is --workdir work/mine
      lola-data download --path /data/oscar --files '{lang}_meta/*' --languages yo --dest shards
    """
    layout = _place(options)
    _infer_source(options)
    recipe = recipe_of("download", _SECTIONS, options)
    layout = layout or Layout(recipe.workdir)
    if options["dry_run"]:
        _print_plan(recipe, layout, as_json=options["as_json"])
        return
    manifest = run_alone("download", recipe, layout, redo=options["redo"])
    if options["as_json"]:
        click.echo(json.dumps(manifest.get("totals", {}), ensure_ascii=False, indent=1))


def _place(options: dict[str, Any]) -> Layout | None:
    """The layout of ``--dest``, if that is given."""
    dest = options.pop("dest")
    if dest is None:
        return None
    if options["workdir"] is not None:
        raise RecipeError(
            "download: give --dest, for shards right in the folders of their languages, or --workdir; not both"
        )
    if not dest:
        raise RecipeError("download: --dest is empty; name a folder")
    if storage.is_remote(dest):
        raise RecipeError(f"download: --dest {dest}: a local folder is wanted; to fill a remote one, use --workdir")
    options["workdir"] = dest
    if options["source"] is None and options["path"] is None and options["recipe_path"] is None:
        options["source"] = "hub"
    return Layout.of_raw_tree(dest)


def _infer_source(options: dict[str, Any]) -> None:
    if options["source"] is None and options["path"]:
        options["source"] = "url" if storage.is_remote(options["path"]) else "local"
    elif options["source"] is None and options["repo"]:
        options["source"] = "hub"


def _print_plan(recipe: Recipe, layout: Layout, *, as_json: bool) -> None:
    from pipelines.download import scratch_folder
    from pipelines.download_plan import download_plan, plan_text

    plan = download_plan(recipe, layout, scratch_folder(layout))
    click.echo(json.dumps(plan, ensure_ascii=False, indent=1) if as_json else plan_text(plan))


def _decorated() -> click.Command:
    command: Any = section_options(DownloadSection)(_command)
    for option in reversed(COMMON):
        command = option(command)
    command = click.option("--dry-run", is_flag=True, help="Print what would be fetched, and stop.")(command)
    command = click.option("--dest", metavar="DIR", help="Write DIR/<lang>/<shard>.parquet, no work folder.")(command)
    made = click.command("download")(command)
    for option in made.params:
        if option.name == "source" and isinstance(option, click.Option) and option.help:
            said, _, _ = option.help.partition("  [default")
            option.help = f"{said}  [default: as --path says, else hub, or with --workdir the recipe's]"
    return made


download = _decorated()
