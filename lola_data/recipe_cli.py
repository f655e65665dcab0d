"""Commands ``init`` and ``recipe``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from lola_data.errors import RecipeError


@click.command()
@click.option("--preset", "name", default="demo", show_default=True, help="demo, balanced or lola-v1.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write  [default: PRESET.yaml]; - for stdout.")
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
def init(name: str, out: Path | None, force: bool) -> None:
    """Write a commented recipe to start from.

    \b
    Example:
      lola-data init --preset balanced --out my.yaml
    """
    from lola_data import storage
    from lola_data.presets import preset_text

    text = preset_text(name)
    target = out or Path(f"{name}.yaml")
    if str(target) == "-":
        click.echo(text, nl=False)
        return
    if target.is_dir():
        raise RecipeError(f"{target}: is a folder; name a file in it with --out {target / f'{name}.yaml'}")
    if os.path.lexists(target) and not force:
        raise RecipeError(f"{target}: is there already; name another file with --out, or overwrite it with --force")
    # Where the file is a link, what it points to is replaced and the link stays.
    with storage.atomic_output(os.path.realpath(target)) as handle:
        handle.write(text.encode())
    click.echo(f"Wrote {target}. Next: lola-data run {target} --dry-run")


@click.group()
def recipe() -> None:
    """Check a recipe, or print its JSON Schema."""


@recipe.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors.

    \b
    Example:
      lola-data recipe schema > recipe.schema.json
      # first line of a recipe, for the YAML language server:
      # yaml-language-server: $schema=recipe.schema.json
    """
    from lola_data.recipe import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@recipe.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value, as `run` does.")
def check(path: Path, overrides: tuple[str, ...]) -> None:
    """Check a recipe without running it.

    \b
    Example:
      lola-data recipe check my.yaml
    """
    from lola_data.recipe import load_recipe

    load_recipe(path, overrides=list(overrides))
    click.echo(f"{path}: a valid recipe")
