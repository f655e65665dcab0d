"""``lola-data train`` and ``lola-data generate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lola_data.errors import RecipeError
from lola_data.train_config import PRESETS, TrainConfig
from train.threads import let_threads_sleep

if TYPE_CHECKING:
    from train.loop import TrainResult


@click.command()
@click.argument("tokens", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), default="demo", show_default=True, help="Settings to start from."
)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="JSON file of settings, over the preset's."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting; over all others. model.KEY for the model's.",
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
def train(
    tokens: Path, run: Path, preset: str, config_file: Path | None, changes: tuple[str, ...], resume: Any,
    max_steps: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Train a mixture-of-experts model on the token tree TOKENS, in the run directory RUN.

    Stopped by Ctrl-C, SIGTERM or a crash, the same command goes on from the last checkpoint.

    \b
    Example:
      lola-data train work/demo/tokens runs/first --set tokens=2000000 --set model.layers=6
    """
    config = make_config(preset, config_file, changes)
    let_threads_sleep()
    from train.loop import train as run_training
    from train.progress import console_progress

    result = run_training(config, tokens, run, resume=resume, max_steps_this_run=max_steps, progress=console_progress())
    _print_result(result, as_json)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--prompt", default="", help="Text to continue; without one a new document is begun.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Most tokens made.")
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.8, show_default=True, help="0 takes the likeliest token."
)
@click.option("--top-k", type=click.IntRange(min=1), help="Draw among the k likeliest tokens alone.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same text.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="SentencePiece model, if RUN holds none.")
@click.option("--json", "as_json", is_flag=True, help="Print prompt, continuation, step and seed as JSON.")
def generate(
    run: Path, prompt: str, max_tokens: int, temperature: float, top_k: int | None, seed: int, tokenizer: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Continue a text with the newest checkpoint of RUN.

    \b
    Example:
      lola-data generate runs/first --prompt "Alle Menschen sind" --seed 3
    """
    let_threads_sleep()
    from train.generate import generate_text, load_run

    loaded = load_run(run, tokenizer=tokenizer)
    text = generate_text(loaded, prompt, max_tokens=max_tokens, temperature=temperature, top_k=top_k, seed=seed)
    if as_json:
        record = {"prompt": prompt, "continuation": text, "step": loaded.step, "seed": seed}
        click.echo(json.dumps(record, ensure_ascii=False))
    else:
        click.echo(prompt + text)


def make_config(preset: str, config_file: Path | None, changes: tuple[str, ...]) -> TrainConfig:
    """The preset's settings, under those of ``config_file``, under ``changes`` such as ``model.layers=6``.

    Raises:
        RecipeError: a file that cannot be read, or a key or value that :class:`TrainConfig` refuses.
    """
    config = PRESETS[preset]
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
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise RecipeError(f"--set {change}: expected KEY=VALUE")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *outer, last = key.split(".")
        nested: dict[str, Any] = {last: value}
        for part in reversed(outer):
            nested = {part: nested}
        config = config.replace(nested)
    return config


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
        cause = f" by {result.stopped_by}" if result.stopped_by else ""
        click.echo(
            f"stopped{cause} at step {result.step:,} of {result.steps:,}, with a checkpoint; "
            "the same command goes on from there",
            err=True,
        )
    elif as_json:
        click.echo(json.dumps(result.summary, ensure_ascii=False))
    else:
        click.echo(summary_table(result.summary))
        click.echo(f'\nrun: {result.run_dir}\nnext: lola-data generate {result.run_dir} --prompt "..."')
