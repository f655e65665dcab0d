"""``lola-data export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from train.generate_cli import load, loading_options

if TYPE_CHECKING:
    from train.generate import Step


@click.command()
@click.argument("run")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True,
              help="Of all weights; bfloat16 rounds the router's too.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace an export that is there.")
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Print step, files and bytes as JSON.")
def export(
    run: str, out: Path, dtype: Any, force: bool, step: Step, tokenizer: Path | None, device: str, as_json: bool
) -> None:
    """Write the weights of a checkpoint of RUN to the folder OUT, for other programs.

    OUT gets model.safetensors (in several files beyond 5 GB), config.json, generation_config.json, tokenizer.model and
    a README.md that says how the model is computed. Names of tensors are those of LOLA's class for transformers. RUN
    may lie on an object store, OUT is a folder here.

    \b
    Example:
      lola-data export runs/first exported --step best --dtype bfloat16
    """
    loaded = load(run, tokenizer, step, device)
    from train.export import export_run, foreign_to_lola

    files = export_run(loaded, out, dtype=dtype, force=force)
    sizes = {path.name: path.stat().st_size for path in files}
    differences = foreign_to_lola(loaded)
    if as_json:
        record = {"out": str(out), "step": loaded.step, "dtype": dtype, "files": sizes, "foreign_to_lola": differences}
        click.echo(json.dumps(record, ensure_ascii=False))
        return
    for difference in differences:
        click.echo(f"LOLA's class for transformers cannot run this model: {difference}", err=True)
    for name, size in sizes.items():
        click.echo(f"{size:>16,}  {out / name}")
    click.echo(f"step {loaded.step:,}, {dtype}; {out / 'README.md'} says how to load it")
