"""Contenders in turns, each in a process of its own on one core; their times, memory and outputs compared.

A :class:`Stage` names its :class:`Contender` objects, ours first. :func:`run_stage` starts a process per contender and
round, in the order A, B, C, A, B, C, ... so that what slows the machine for a while slows all of them. A contender
loads (imports, models, compiled kernels) and hands back its work, which alone is timed. The ratio is the median over
the rounds of the other's wall time divided by ours in the same round.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.corpus import Corpus

ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "RAYON_NUM_THREADS",
        "POLARS_MAX_THREADS",
    ),
    "1",
)
"""Environment of a contender: no library starts threads that would share the one core."""
OFFLINE = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"), "1")
"""No library looks for anything on the network."""
BYTECODE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lola-data" / "bench-bytecode"
"""Bytecode of all measured processes."""


@dataclass(frozen=True)
class Task:
    """What a contender is given."""

    corpus: Corpus
    """Its ``raw`` tree is what all contenders read."""
    out: Path
    """An empty folder for what it writes."""

    @property
    def inputs(self) -> Path:
        """What :attr:`Stage.prepare` has made."""
        return self.corpus.inputs


WITHOUT_GOAL = 3
"""Rounds of contenders against which no goal is set; they are there to be looked at."""

Finish = Callable[[], None]
Work = Callable[[], Finish | None]
"""The timed work. It may hand back a function that saves its results when the clock has stopped."""


@dataclass(frozen=True)
class Contender:
    """One way to do a stage's work.

    Attributes:
        name: shown in the table.
        load: imports, loads models, compiles kernels, and returns the work; not part of the timed work.
        needs: modules it imports that may be missing; it is then shown as not installed.
        goal: ratio to be reached against it, if any.
        rate_goal: for ours: MB/s to be reached, if any.
    """

    name: str
    load: Callable[[Task], Work]
    needs: tuple[str, ...] = ()
    goal: float | None = None
    rate_goal: float | None = None


@dataclass(frozen=True)
class Agreement:
    """How far a contender's results are the same as ours, or what they should be."""

    contender: str
    text: str
    """Said in the table: ``labels equal on 99.998 % of 17,000``."""
    holds: bool | None = None
    """Whether what must agree does; None where nothing was promised."""


@dataclass(frozen=True)
class Stage:
    """A table of the benchmark.

    Attributes:
        name: on the command line.
        title: above the table.
        contenders: ours first.
        agree: compares the outputs (contender's name -> its folder; those that failed are missing).
        prepare: makes what the contenders read beside the corpus, below ``corpus.inputs``; keeps what is there.
        versions: distributions whose versions are told, beside those of the harness.
        times: it is measured on so many times the text that is asked for.
    """

    name: str
    title: str
    contenders: tuple[Contender, ...]
    agree: Callable[[Corpus, Mapping[str, Path]], Sequence[Agreement]]
    prepare: Callable[[Corpus], None] | None = None
    versions: tuple[str, ...] = ()
    times: int = 1


@dataclass(frozen=True)
class Run:
    """What one process measured of one contender in one round. Seconds and bytes."""

    wall: float
    """Of the work."""
    cpu: float
    """Of the work: user and system time of the process, its threads and its children."""
    load: float
    """Imports, models, kernels."""
    loaded_rss: int
    """Memory resident when the work began."""
    peak_rss: int
    """Most memory resident at a time over the life of the process, imports included."""
    out_bytes: int
    """Written."""


@dataclass
class Row:
    """A contender in the table."""

    name: str
    ours: bool
    goal: float | None
    status: Literal["measured", "not installed", "failed"]
    reason: str = ""
    runs: list[Run] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    """Its wall time over ours, a round each."""
    cpu_ratios: list[float] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    rate_goal: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times as long as ours it takes."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def cpu_ratio(self) -> float | None:
        """The same in CPU time, which other work on the machine disturbs less."""
        return statistics.median(self.cpu_ratios) if self.cpu_ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches the goal; None where there is none."""
        return None if self.goal is None or self.ratio is None else self.ratio >= self.goal

    def median(self, name: str) -> float:
        """Median over the rounds of a field of :class:`Run`."""
        return statistics.median(getattr(run, name) for run in self.runs)

    def rate(self, text_bytes: int) -> float:
        """Megabytes (10^6 bytes of text) a second."""
        return text_bytes / 1e6 / self.median("wall")


def missing(contender: Contender) -> list[str]:
    """Modules the contender needs that are not installed."""
    return [name for name in contender.needs if importlib.util.find_spec(name) is None]


def compute_ratios(ours: Sequence[Run], other: Sequence[Run], name: str = "wall") -> list[float]:
    """The other's time over ours, round by round.

    The other may have done fewer rounds.

    >>> one, two = (Run(seconds, seconds, 0.0, 0, 0, 0) for seconds in (2.0, 6.0))
    >>> compute_ratios([one], [two])
    [3.0]
    """
    return [getattr(b, name) / getattr(a, name) for a, b in zip(ours, other, strict=False)]


def run_stage(
    stage: Stage, corpus: Corpus, workdir: Path, *, rounds: int, say: Callable[[str], None] = lambda line: None
) -> list[Row]:
    """Measure a stage; a row per contender, ours first."""
    rows = [_row(contender, ours=number == 0) for number, contender in enumerate(stage.contenders)]
    if rows[0].status != "measured":
        return rows
    if stage.prepare is not None:
        say(f"{stage.name}: preparing inputs")
        stage.prepare(corpus)
    outputs: dict[str, Path] = {}
    for number in range(rounds):
        for place, row in enumerate(rows):
            if row.status != "measured" or (number >= WITHOUT_GOAL and not row.ours and row.goal is None):
                continue
            out = workdir / "out" / stage.name / f"{place}-{number}"
            run = _run_once(stage, row, corpus, out)
            if isinstance(run, str):
                row.status, row.reason = "failed", run
                row.runs.clear()
                outputs.pop(row.name, None)
                say(f"{stage.name}: {row.name}: failed: {run}")
                continue
            row.runs.append(run)
            say(f"{stage.name}: round {number + 1} of {rounds}: {row.name}: {corpus.bytes / 1e6 / run.wall:.2f} MB/s")
            # The first round's results are compared, those of the others only timed. All are deleted at the end: a file
            # system may be slow to make files just after many were deleted.
            if number == 0:
                outputs[row.name] = out
    ours = rows[0]
    for row in rows:
        if row.status == "measured" and ours.status == "measured":
            row.ratios = compute_ratios(ours.runs, row.runs)
            row.cpu_ratios = compute_ratios(ours.runs, row.runs, "cpu")
    if ours.name in outputs:
        for agreement in stage.agree(corpus, outputs):
            next(row for row in rows if row.name == agreement.contender).agreements.append(agreement)
    shutil.rmtree(workdir / "out" / stage.name, ignore_errors=True)
    return rows


def _row(contender: Contender, *, ours: bool) -> Row:
    lacking = missing(contender)
    status = "not installed" if lacking else "measured"
    return Row(contender.name, ours, contender.goal, status, ", ".join(lacking), rate_goal=contender.rate_goal)


def _run_once(stage: Stage, row: Row, corpus: Corpus, out: Path) -> Run | str:
    """One process of a contender; what it measured, or the last line it said."""
    return _start({"stage": stage.name, "contender": row.name, "corpus": str(corpus.root)}, out)


def run_ours(stage: Stage, corpus: Corpus, out: Path) -> Run | str:
    """One process of our contender of a stage."""
    if stage.prepare is not None:
        stage.prepare(corpus)
    return _run_once(stage, _row(stage.contenders[0], ours=True), corpus, out)


def run_call(function: Callable[..., Work], out: Path, *, limit_s: float | None = None, **given: Any) -> Run | str:
    """The same for work outside of a stage: ``function(out, **given)`` loads it, in a process of its own.

    Args:
        function: of a module; told to the process by name.
        out: emptied first, as for a contender, and left as the work leaves it.
        limit_s: the process is ended after so many seconds.
        given: plain values.
    """
    return _start({"call": [function.__module__, function.__qualname__], "given": given}, out, limit_s)


def _start(what: dict[str, Any], out: Path, limit_s: float | None = None) -> Run | str:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    told = out.with_suffix(".json")
    told.unlink(missing_ok=True)
    log = out.with_suffix(".log")
    spec = {
        **what,
        "out": str(out),
        "told": str(told),
        # The last core: interrupts and other programs tend to be on the first.
        "core": max(os.sched_getaffinity(0)),
    }
    with log.open("wb") as handle:
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "benchmarks.worker", json.dumps(spec)],
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd=Path(__file__).resolve().parents[1],
                check=False,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired:
            return f"no end after {limit_s:.0f} s"
    if ended.returncode or not told.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'no output'} (exit code {ended.returncode}, log {log})"
    values: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    told.unlink()
    log.unlink()
    return Run(**values)


def _environment() -> dict[str, str]:
    """Of a measured process: one thread, no network, and bytecode that is kept, so that hundreds of processes do not
    compile the same modules again where packages were installed without it."""
    environment = {**os.environ, **ONE_THREAD, **OFFLINE, "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment.setdefault("PYTHONPYCACHEPREFIX", str(BYTECODE))
    return environment
