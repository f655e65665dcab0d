"""The command ``python -m benchmarks``."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import report
from benchmarks.build import ensure
from benchmarks.harness import run_stage
from benchmarks.machine import this_machine, versions
from benchmarks.section import SECTIONS, Bench, load_section
from benchmarks.stages import MODULES, load_stage
from lola_data.errors import LolaError

if TYPE_CHECKING:
    from benchmarks.corpus import Corpus
    from benchmarks.harness import Row

RESULTS = Path(__file__).with_name("RESULTS.md")
LEAST_ROUNDS = 5
"""Fewer are a trial, which RESULTS.md is not for."""
NAMES = [*MODULES, *SECTIONS]
"""In the order of RESULTS.md."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"STAGE: {', '.join(NAMES)}.")
@click.argument("stages", nargs=-1, type=click.Choice(NAMES), metavar="[STAGE]...")
@click.option(
    "--runs", default=LEAST_ROUNDS, show_default=True, type=click.IntRange(1), help="Rounds of each contender."
)
@click.option("--megabytes", default=32.0, show_default=True, type=click.FloatRange(1), help="Text of the corpus.")
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
    not installed (pip install --no-deps -r benchmarks/requirements.txt brings them). Those from `quality` on are no
    races: quality scores deduplication on labelled copies, hard times documents out of the ordinary, memory shows the
    peaks as the corpus grows, scale matches in parts, limits shows how near the stages come to those of the machine,
    cost holds what --dry-run foretells against runs, and chaos kills and starves 200 runs.

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

    def corpus_of(times: int) -> Corpus:
        try:
            made = ensure(workdir.resolve(), megabytes=megabytes * times, languages=languages, data=data)
        except LolaError as error:
            raise click.ClickException(str(error)) from error
        _say(f"corpus: {report.corpus_line(made)}")
        return made

    corpus = corpus_of(1)
    # Sections come last, for they take up what was measured of the stages.
    names = [name for name in NAMES if not stages or name in stages]
    if results is None and runs >= LEAST_ROUNDS:
        results = RESULTS
    told, sound = {}, True
    measured: dict[str, list[Row]] = {}
    for name in names:
        command = f"python -m benchmarks {name} --runs {runs} --megabytes {megabytes:g} --languages {languages}"
        if data is not None:
            command += f" --data {shlex.quote(data.name)}"
        if name in SECTIONS:
            section = load_section(name)
            packages = versions(section.versions)
            work = workdir.resolve() / "out" / name
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            found = section.measure(Bench(corpus, work, runs, _say, measured))
            shutil.rmtree(work, ignore_errors=True)
            sound &= found.sound
            told[name] = {"found": found.values, "versions": packages}
            text = report.special_section(section, found, corpus, machine, packages, command)
            if not as_json:
                print(f"{name}: {section.title}\n\n{found.body}\n", flush=True)
        else:
            stage = load_stage(name)
            packages = versions(stage.versions)
            own = corpus if stage.times == 1 else corpus_of(stage.times)
            rows = run_stage(stage, own, workdir.resolve(), rounds=runs, say=_say)
            if own is corpus:
                measured[name] = rows
            sound &= rows[0].status == "measured"
            sound &= all(agreement.holds is not False for row in rows for agreement in row.agreements)
            told[name] = {"rows": report.to_json(rows, own.bytes), "versions": packages}
            text = report.section(stage, rows, own, machine, packages, command)
            if not as_json:
                report.show(f"{name}: {stage.title}", rows, own.bytes)
        if results is not None:
            report.update(results, name, text, NAMES)
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
