"""``lola-data train plot``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command(short_help="Draw loss, languages and experts of runs.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Folder for the files  [default: `plots` in the first RUN].")  # fmt: skip
@click.option("--png", is_flag=True, help="Write the PNG files; without --html no page.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write the page to this file; without --png no PNG files.")  # fmt: skip
@click.option("--languages", metavar="A,B,...",
              help="Languages to draw  [default: the 40 with the most training tokens].")  # fmt: skip
@click.option("--x", type=click.Choice(["tokens", "step"]), default="tokens", show_default=True,
              help="What the curves run over.")  # fmt: skip
@click.option("--smooth", type=click.IntRange(min=0), metavar="N",
              help="A record N steps back counts 1/e in the smoothed loss; 0: no smoothing  "
              "[default: a fiftieth of the longest run].")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the table of runs as JSON.")
def plot(
    runs: tuple[str, ...], out: Path | None, png: bool, html: Path | None, languages: str | None, x: str,
    smooth: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Draw loss curves, held-out loss by language and the load of experts, of one RUN or of several side by side.

    RUN is the folder of a run, complete or still going on, or its address on an object store. Written are loss.png,
    languages.png and experts.png, and a page with the same figures and tables of the runs (training.html), which opens
    offline.

    \b
    Examples:
      lola-data train plot work/demo/runs/moe
      lola-data train plot runs/first runs/second --out figures --x step
      lola-data train plot runs/* --html runs.html --languages de,sw,yo
    """
    from lola_data import storage
    from lola_data.errors import RecipeError, TrainingError
    from lola_data.section_options import split_codes
    from lola_data.text_tables import as_it_is
    from train.plot.figures import NAMES, Figures
    from train.plot.languages import language_scores
    from train.plot.measures import smoothing_width
    from train.plot.page import page_html
    from train.plot.read import read_runs
    from train.plot.tables import run_rows, run_table, text_lines

    read = tuple(read_runs(runs))
    for run in read:
        for note in run.notes:
            click.echo(as_it_is(note), err=True)
    scores = language_scores(read, split_codes(languages) if languages is not None else ())
    width = smoothing_width(read) if smooth is None else smooth
    figures = Figures(read, scores, x, width)
    rows = run_rows(read, width)
    first = read[0].path
    if out is None and not isinstance(first, Path) and (png or html is None):
        raise RecipeError(f"{first}: lies on a store; name a folder of this machine for the figures with --out")
    folder = out or Path(first) / "plots"
    files: dict[Path, bytes] = {}
    if png or html is None:
        files |= {folder / f"{name}.png": figures.png(name) for name in NAMES}
    if html is not None or not png:
        files[html or folder / "training.html"] = page_html(figures, rows).encode()
    for path, content in files.items():
        try:
            with storage.atomic_output(str(path)) as handle:
                handle.write(content)
        except OSError as error:
            why = error.strerror or error
            raise TrainingError(f"{path}: cannot be written ({why}); name another place with --out") from error
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n".join(text_lines(run_table(rows))))
    sys.stdout.flush()
    for path in files:
        click.echo(as_it_is(f"written: {path}"), err=True)
