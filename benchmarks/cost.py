"""Section ``cost``: what ``lola-data run --dry-run`` foretells, beside what the run then takes.

Two corpora, each with few tasks and with many: the embedded one with the recipe ``demo``, and the benchmark's. Every
run is the command of the user, in a process of its own, and its tasks tell what they took
(``logs/<stage>/timing.json``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.section import Bench, Section, Told
from benchmarks.summary import HELD, NOT_HELD, Entry
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "cost"
WITHIN = 0.30
"""Most that the whole of a run may be away from what was foretold, either way."""
STAGES = ("download", "identify", "dedup", "sample", "tokenizer", "tokenize", "balance")
TASKS = (2, 8)


@dataclass(frozen=True)
class Case:
    """A run. ``train``: with the training, too."""

    name: str
    tasks: int
    source: tuple[str, ...]
    train: bool = False

    def arguments(self, work: Path) -> list[str]:
        """Of ``lola-data run``."""
        values = [f"workdir={work}", f"executor.tasks={self.tasks}", *self.source]
        stages = (*STAGES, "train") if self.train else STAGES
        return [*(part for value in values for part in ("--set", value)), *(f"--only={name}" for name in stages)]


@dataclass(frozen=True)
class Cost:
    """Of a stage, or of a run: foretold, or taken."""

    tasks: int
    core_seconds: float
    peak_bytes: int
    disk_bytes: int


def cases(bench: Bench) -> Iterator[Case]:
    """What is run."""
    local = ("download.source=local", f"download.path={bench.corpus.raw}")
    for tasks in TASKS:
        yield Case(f"embedded corpus, {tasks} tasks", tasks, (), train=tasks == TASKS[0])
        yield Case(f"benchmark corpus, {tasks} tasks", tasks, local)


def lola(*arguments: str) -> str:
    """Run ``lola-data``; what it printed."""
    command = [sys.executable, "-m", "lola_data.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments[:2])}: exit code {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def foretold(plan: dict[str, Any]) -> dict[str, Cost]:
    """Stage -> cost, from the JSON of ``--dry-run``."""
    return {
        row["stage"]: Cost(row["tasks"], row["core_seconds"], row["peak_bytes"], row["disk_bytes"])
        for row in plan["stages"]
    }


def taken(work: Path, names: list[str]) -> dict[str, Cost]:
    """The same of a run that is over."""
    from lola_data.layout import TREES

    found: dict[str, Cost] = {}
    for name in names:
        logs = work / "logs" / name
        timing = json.loads((logs / "timing.json").read_text(encoding="utf-8"))
        ranks = {path.name[:5] for path in logs.glob("*/usage/*.json")}
        folders = [work / TREES[name], work / "removed" / name, work / "state" / name, logs]
        disk = sum(on_disk(folder) for folder in folders)
        found[name] = Cost(len(ranks), timing["core_seconds"], timing["peak_bytes"], disk)
    return found


def on_disk(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def whole(costs: dict[str, Cost]) -> Cost:
    """Of all stages together; the largest task."""
    return Cost(
        max(one.tasks for one in costs.values()),
        sum(one.core_seconds for one in costs.values()),
        max(one.peak_bytes for one in costs.values()),
        sum(one.disk_bytes for one in costs.values()),
    )


def ratios(told: Cost, took: Cost) -> list[float]:
    """Taken by foretold: tasks, core-seconds, memory, disk.

    >>> ratios(Cost(2, 10.0, 100, 100), Cost(2, 12.0, 90, 110))
    [1.0, 1.2, 0.9, 1.1]
    """
    pairs = zip(
        (took.tasks, took.core_seconds, took.peak_bytes, took.disk_bytes),
        (told.tasks, told.core_seconds, told.peak_bytes, told.disk_bytes),
        strict=True,
    )
    return [round(one / other, 3) if other else 1.0 for one, other in pairs]


def holds(found: list[float]) -> bool:
    """Whether a run was as it was foretold: as many tasks, and the rest within bounds either way."""
    return found[0] == 1 and all(abs(one - 1) <= WITHIN for one in found[1:])


def measure(bench: Bench) -> Told:
    """Foretell each run, run it, and compare."""
    import shutil

    recipe = bench.work / "demo.yaml"
    lola("init", "--preset", "demo", "--out", str(recipe), "--force")
    # Compiled kernels are there before anything is foretold or measured.
    warm = Case("", 2, ("languages=[sw, yo]", "tokenizer.vocab_size=1000"))
    lola("run", str(recipe), *warm.arguments(bench.work / "warm"))
    told: list[tuple[Case, dict[str, Cost], dict[str, Cost]]] = []
    for case in cases(bench):
        work = bench.work / "run"
        arguments = case.arguments(work)
        plan = json.loads(lola("run", str(recipe), *arguments, "--dry-run", "--json"))
        lola("run", str(recipe), *arguments)
        before = foretold(plan)
        told.append((case, before, taken(work, [*before])))
        bench.say(f"{NAME}: {case.name}: {ratios(whole(before), whole(told[-1][2]))}")
        shutil.rmtree(work)
    return tell(told)


def tell(found: list[tuple[Case, dict[str, Cost], dict[str, Cost]]]) -> Told:
    """Tables of runs and of their stages, and whether each was as foretold."""
    runs = [["run", "tasks", "core-seconds", "of foretold", "peak memory of a task, MB", "", "disk, MB", ""]]
    stages = [["run", "stage", "core-seconds", "of foretold", "peak memory, MB", "", "disk, MB", ""]]
    entries: list[Entry] = []
    for case, told, measured in found:
        for name, table in (("", runs), *((stage, stages) for stage in told)):
            foreseen, took = (told[name], measured[name]) if name else (whole(told), whole(measured))
            ratio = ratios(foreseen, took)
            shown = [f"{took.core_seconds:.1f}", f"{took.peak_bytes / 1e6:.0f}", f"{took.disk_bytes / 1e6:.1f}"]
            cells = [cell for number, value in enumerate(shown) for cell in (value, f"{ratio[number + 1]:.2f}")]
            table.append([case.name, name or str(took.tasks), *cells])
            if not name:
                said = f"core-hours {ratio[1]:.2f}, memory {ratio[2]:.2f}, disk {ratio[3]:.2f} of foretold"
                entries.append(Entry(NAME, case.name, f"within {WITHIN:.0%}", said, HELD if holds(ratio) else NOT_HELD))
    body = (
        f"`run --dry-run` beside the run, the recipe `demo`: what was taken, and its ratio to what was foretold. Of a "
        f"whole run, core-hours, memory and disk must be within {WITHIN:.0%} and the tasks as many.\n\n"
        f"{markdown_table(runs)}\n\n{markdown_table(stages)}"
    )
    values = {case.name: ratios(whole(told), whole(took)) for case, told, took in found}
    return Told(body, entries, values, all(entry.verdict == HELD for entry in entries))


SECTION = Section(name=NAME, title="what --dry-run foretells beside what a run takes", measure=measure)
