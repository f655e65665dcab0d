"""The command ``python -m benchmarks``."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from benchmarks import report
from benchmarks.build import ensure
from benchmarks.harness import run_stage
from benchmarks.machine import this_machine, versions
from benchmarks.stages import MODULES, load_stage
from lola_data.errors import LolaError

RESULTS = Path(__file__).with_name("RESULTS.md")
LEAST_ROUNDS = 5
"""Fewer are a trial, which RESULTS.md is not for."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"Stages: {', '.join(MODULES)}.")
@click.argument("stages", nargs=-1, type=click.Choice(list(MODULES)), metavar="[STAGE]...")
@click.option(
    "--runs", default=LEAST_ROUNDS, show_default=True, type=click.IntRange(1), help="Rounds of each contender."
)
@click.option("--megabytes", default=64.0, show_default=True, type=click.FloatRange(1), help="Text of the corpus.")
@click.option("--languages", default=32, show_default=True, type=click.IntRange(1), help="Languages of the corpus.")
@click.option(
    "--data",
    envvar="LOLA_BENCH_DATA",
    type=click.Path(path_type=Path),
    help="Tree <lang>/*.parquet of real text (also $LOLA_BENCH_DATA)  [default: the embedded sample].",
)
@click.option(
    "--workdir",
    default=Path("work/bench"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Corpora are kept here.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"File whose sections are rewritten  [default: RESULTS.md here, with --runs {LEAST_ROUNDS} or more].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def main(
    stages: tuple[str, ...],
    runs: int,
    megabytes: float,
    languages: int,
    data: Path | None,
    workdir: Path,
    results: Path | None,
    as_json: bool,
) -> None:
    """Measure stages of the corpus road against other ways to do the same work, one core each, and check that the
    results agree.

    STAGE is one of those named at the end; without any, all are run. A contender whose packages are missing is shown as
    not installed (pip install --no-deps -r benchmarks/requirements.txt brings them).

    \b
    Examples:
      python -m benchmarks
      python -m benchmarks identify tokenise --megabytes 256
      python -m benchmarks road --data /data/culturax --runs 7
      python -m benchmarks io --runs 1 --megabytes 4 --json

    Exit code 1: results that must agree do not, or our own stage failed. A goal that is missed is shown, no error.
    """
    if data is not None and not data.is_dir():
        raise click.BadParameter(f"{data}: no such folder", param_hint="--data")
    machine = this_machine()
    if not machine.idle:
        _say(f"the load is {machine.load}: other work shares the cores, and the figures will show it")
    try:
        corpus = ensure(workdir.resolve(), megabytes=megabytes, languages=languages, data=data)
    except LolaError as error:
        raise click.ClickException(str(error)) from error
    _say(f"corpus: {report.corpus_line(corpus)}")
    names = list(dict.fromkeys(stages)) or list(MODULES)
    if results is None and runs >= LEAST_ROUNDS:
        results = RESULTS
    told, sound = {}, True
    for name in names:
        stage = load_stage(name)
        rows = run_stage(stage, corpus, workdir.resolve(), rounds=runs, say=_say)
        sound &= rows[0].status == "measured"
        sound &= all(agreement.holds is not False for row in rows for agreement in row.agreements)
        packages = versions(stage.versions)
        told[name] = {"rows": report.to_json(rows, corpus.bytes), "versions": packages}
        if not as_json:
            report.show(f"{name}: {stage.title}", rows, corpus.bytes)
        if results is not None:
            command = f"python -m benchmarks {name} --runs {runs} --megabytes {megabytes:g} --languages {languages}"
            if data is not None:
                command += f" --data {shlex.quote(data.name)}"
            report.update(results, name, report.section(stage, rows, corpus, machine, packages, command), list(MODULES))
    if results is None:
        _say(f"a trial of {runs} rounds: RESULTS.md is left as it is")
    if as_json:
        facts = {key: value for key, value in corpus.facts.items() if key != "languages"}
        print(json.dumps({"machine": machine.to_json(), "corpus": facts, "stages": told}, ensure_ascii=False, indent=1))
    sys.exit(0 if sound else 1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
