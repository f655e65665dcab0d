"""``lola-data train``, with its subcommand ``plot``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lola_data.errors import RecipeError
from lola_data.layout import Layout
from lola_data.section_options import section_options, section_values
from lola_data.storage import is_remote
from lola_data.train_config import PRESETS, TrainConfig
from train.plot.cli import plot
from train.run_dir import StopSignal
from train.subcommands import CommandWithSubcommands
from train.threads import let_threads_sleep

if TYPE_CHECKING:
    from train.loop import TrainResult


@click.command(cls=CommandWithSubcommands)
@click.argument("tree", metavar="RECIPE|TREE", required=False)
@click.argument("run", metavar="[RUN]", required=False)
@click.option(
    "--recipe", "recipe_path", metavar="RECIPE", type=click.Path(path_type=Path),
    help="The recipe, where TREE is named too.",
)  # fmt: skip
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Settings to start from  [default: demo].")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="JSON file of settings, over the preset's."
)
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="auto: go on from the newest checkpoint, if any. never: refuse a RUN that has one.",
)
@click.option("--max-steps", type=click.IntRange(min=0), help="Stop, with a checkpoint, after so many steps.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@section_options(TrainConfig, show_defaults=False)
def train(
    tree: str | None, run: str | None, recipe_path: Path | None, preset: str | None, config_file: Path | None,
    resume: Any, max_steps: int | None, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Train a mixture-of-experts model on the token tree TREE, in the run directory RUN.

    A file in TREE's place is a recipe, which names both: TREE is `tokens` in its work folder, RUN `runs/moe` there
    unless it is given. Settings are those of the recipe or the preset, under those of --config, under the options.
    Stopped by Ctrl-C, SIGTERM or a crash, the same command goes on from the last checkpoint.

    TREE may lie on an object store: its shards are read through the folder --cache-dir of at most --cache-gb. RUN may
    as well: it is trained in a working copy below that folder, and each checkpoint is sent when it is whole.

    \b
    Examples:
      lola-data train my.yaml
      lola-data train my.yaml runs/second --learning-rate 0.001
      lola-data train work/demo/tokens runs/first --tokens 2000000 --layers 6
      lola-data train --recipe my.yaml other/tokens runs/third
      lola-data train s3://bucket/corpus/tokens runs/fourth --cache-gb 500
      lola-data train plot runs/first runs/second
    """
    if tree is not None and is_recipe(tree):
        if recipe_path is not None:
            raise click.UsageError(f"{tree} and --recipe {recipe_path} are two recipes; give one")
        recipe_path, tree = Path(tree), None
    if recipe_path is not None and preset is not None:
        raise click.UsageError("give a recipe or --preset, not both; the recipe has the settings to start from")
    if recipe_path is not None:
        from lola_data.recipe import load_recipe

        recipe = load_recipe(recipe_path)
        config, layout = recipe.train, Layout(recipe.workdir)
        tree, run = tree or layout.tree("tokenize"), run or layout.run
    else:
        config = PRESETS[preset or "demo"]
    if tree is None or run is None:
        raise click.UsageError("name TREE (token shards) and RUN (a folder for the run), or a recipe (my.yaml)")
    config = make_config(config, config_file, section_values(TrainConfig, settings))
    let_threads_sleep()
    # From here on, since a scheduler's signal may come while torch is imported.
    with StopSignal() as stop:
        from train.loop import train as run_training
        from train.progress import console_progress

        result = run_training(
            config, tree, run, resume=resume, max_steps_this_run=max_steps, progress=console_progress(), stop=stop
        )
    if result.is_first:
        _print_result(result, as_json)
        if is_remote(run) and not as_json:
            click.echo(f"sent to: {run}")


train.add_command(plot)


def is_recipe(given: str) -> bool:
    """Whether what stands in TREE's place is a recipe: it is a file, or nothing yet and called ``.yaml``."""
    if is_remote(given):
        return False
    path = Path(given)
    return path.is_file() or (path.suffix.lower() in (".yaml", ".yml") and not path.is_dir())


def make_config(config: TrainConfig, config_file: Path | None, settings: dict[str, Any]) -> TrainConfig:
    """``config``, under the settings in ``config_file``, under ``settings`` such as ``{"model": {"layers": 6}}``.

    Raises:
        RecipeError: a file that cannot be read, or a key or value that :class:`TrainConfig` refuses.
    """
    if config_file is not None:
        try:
            values = json.loads(config_file.read_text("utf-8"))
        except OSError as error:
            raise RecipeError(f"{config_file}: {error.strerror or error}") from error
        except ValueError as error:
            raise RecipeError(f"{config_file}: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise RecipeError(f"{config_file}: expected an object with settings")
        config = config.replace(values.get("config", values))
    return config.replace(settings)


def summary_table(summary: dict[str, Any]) -> str:
    """``summary.json`` as lines of text: the languages with the most training documents first."""
    lines = [
        f"{summary['parameters']:,} parameters, {summary['active_parameters']:,} active on a token; "
        f"{summary['tokens']:,} tokens in {summary['steps']:,} steps",
        f"{'language':<10}{'documents':>11}{'epochs':>8}{'loss':>8}{'unigram':>9}{'bits/byte':>11}",
    ]
    rows = sorted(summary["languages"].items(), key=lambda item: (-item[1]["train_documents"], item[0]))
    for name, row in rows:
        lines.append(
            f"{name:<10}{row['train_documents']:>11,}{row['epochs']:>8.2f}{_cell(row['held_out_loss'], 8)}"
            f"{_cell(row['unigram_loss'], 9)}{_cell(row['bits_per_byte'], 11)}"
        )
    lines.append(f"{'mean':<10}{'':>19}{_cell(summary['held_out_loss'], 8)}{_cell(summary['unigram_loss'], 9)}")
    return "\n".join(lines)


def _cell(value: float | None, width: int) -> str:
    return f"{value:>{width}.3f}" if value is not None else f"{'-':>{width}}"


def _print_result(result: TrainResult, as_json: bool) -> None:
    if result.summary is None:
        click.echo(f"{result.told()}; the same command goes on from there", err=True)
    elif as_json:
        click.echo(json.dumps(result.summary, ensure_ascii=False))
    else:
        click.echo(summary_table(result.summary))
        click.echo(f'\nrun: {result.run_dir}\nnext: lola-data generate {result.run_dir} --prompt "..."')
