"""Submits a corpus graph to Slurm in one go, as job arrays with dependencies, and returns.

In: a recipe and the stages to run. Out: jobs in the queue, their scripts in ``logs/slurm/``, and the record that they
read (:mod:`pipelines.slurm_run`). The scripts are datatrove's Slurm executor's, but for what they run: it would write
itself down as a pickle, read in each task; here a task reads the record, which is JSON.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatrove.executor.slurm import SlurmPipelineExecutor

from lola_data import storage
from lola_data.errors import LolaError, StageError
from pipelines import slurm_cluster
from pipelines.progress import say
from pipelines.slurm_graph import Job, build_graph
from pipelines.slurm_run import SlurmRun, path_of, submitter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from lola_data.sections import ExecutorSection

MODULE = "pipelines.slurm_task"
_HEADROOM = 1.25
"""Memory of a job over that which a task is told to keep to: the interpreter and its libraries."""


class SlurmExecutor(SlurmPipelineExecutor):
    """datatrove's executor for one phase: it makes the script and runs a rank, but submits nothing by itself.

    Args:
        name: of the job.
        executor: of the stage.
        logging_dir: datatrove's logs and statistics.
        logs: local folder of what the jobs print.
        pipeline: the phase, in a task.
        tasks: of the phase.
    """

    def __init__(
        self, name: str, executor: ExecutorSection, *, logging_dir: str, logs: str, pipeline: Sequence[Any] = (),
        tasks: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(
            pipeline=[*pipeline],
            tasks=tasks,
            time=executor.time,
            partition=executor.partition or "",
            cpus_per_task=executor.cpus_per_task,
            job_name=f"lola-{name}",
            qos=executor.qos or "",
            logging_dir=logging_dir,
            slurm_logs_folder=logs,
            # Units, not ranks, are what is finished or not.
            skip_completed=False,
        )
        self.section, self.name, self.logs = executor, name, logs

    def options(self, array: str | None) -> dict[str, Any]:
        """The options of sbatch; an empty value stands for a switch."""
        section = self.section
        options = {key: value for key, value in self.get_sbatch_args().items() if value or key == "requeue"}
        del options["array"]
        options["mem-per-cpu"] = section.mem_per_cpu or _memory(section)
        # A job that is requeued goes on in the same file.
        options |= {"open-mode": "append", "kill-on-invalid-dep": "yes"}
        options["signal"] = f"B:USR1@{section.grace_seconds}"
        if section.account:
            options["account"] = section.account
        if array is not None:
            options["array"] = array
        # Named by the job, for whoever looks into the folder.
        options["output"] = options["error"] = log_path(self.logs, self.name, "%A_%a" if array else "%j")
        return options | {key.replace("_", "-").lstrip("-"): value for key, value in section.sbatch.items()}

    def script(self, command: str, array: str | None) -> str:
        """The script of a job."""
        return script_of(self.options(array), self.section.setup, command)


def log_path(folder: str, name: str, number: str) -> str:
    """Where a job prints to; ``number``: as Slurm counts."""
    return f"{folder}/{name}.{number}.out"


def script_of(options: dict[str, Any], setup: str | None, command: str) -> str:
    """A script for sbatch."""
    lines = [f"#SBATCH --{key}={value}" if value != "" else f"#SBATCH --{key}" for key, value in options.items()]
    return "\n".join(["#!/bin/bash", *lines, *([setup] if setup else []), command, ""])


def _memory(section: ExecutorSection) -> str:
    return f"{round(section.memory_mb * _HEADROOM / section.cpus_per_task)}M"


def submit_corpus(recipe: Recipe, layout: Layout, names: Sequence[str]) -> SlurmRun | None:
    """Submit what is left to do of some stages. Hold the work folder's lock.

    Returns:
        The submission; None where nothing is left to do.

    Raises:
        LolaError: an input is missing, the recipe has changed, or Slurm refuses a job (then none stays submitted).
    """
    largest = slurm_cluster.max_array_size()
    graph = build_graph(recipe, layout, names)
    if not graph.jobs:
        storage.remove(path_of(layout))
        return None
    run = SlurmRun(recipe, layout, graph, _logs(layout), by=submitter(), at=time.time())
    Path(run.logs).mkdir(parents=True, exist_ok=True)
    # The jobs read it; that one begins before its id is written down does no harm.
    run.save()
    for job in graph.jobs:
        try:
            _submit(run, job, largest)
        except LolaError as error:
            if done := [one for ids in run.ids.values() for one in ids]:
                slurm_cluster.cancel(done)
            storage.remove(path_of(layout))
            raise StageError(
                f"{job.name}: not submitted: {error}. Mend `executor` (or `executor.stages: {job.stage}`) and run the "
                f"same command again; nothing of this run is left in the queue"
            ) from error
    run.save()
    for line in told(run):
        say(line)
    return run


def _submit(run: SlurmRun, job: Job, largest: int) -> None:
    run.ids[job.name] = []
    for number, script in enumerate(_scripts(run, job, largest)):
        path = Path(run.logs) / f"{job.name}{f'.{number}' if number else ''}.slurm"
        path.write_text(script, "utf-8")
        run.ids[job.name].append(slurm_cluster.submit(str(path), *_dependency(run, job)))


def told(run: SlurmRun) -> list[str]:
    """What was submitted, for people."""
    lines = [f"submitted {sum(map(len, run.ids.values()))} jobs to Slurm; logs in {run.logs}"]
    for job in run.graph.jobs:
        size = f", {len(job.ranks)} task{'s' if len(job.ranks) != 1 else ''}" if job.kind == "tasks" else ""
        lines.append(f"  {' '.join(run.ids[job.name])}  {job.name}{size}")
    if len(run.graph.lanes) > 1:
        lines.append("lanes of languages, none of which waits for another before `join`:")
        for name, languages in run.graph.lanes.items():
            few = ", ".join(languages[:8]) + (f", ... ({len(languages)})" if len(languages) > 8 else "")
            lines.append(f"  {name}: {few}")
    return lines


def _logs(layout: Layout) -> str:
    if storage.is_remote(layout.workdir):
        # Slurm itself writes here, and it knows no object stores.
        name = re.sub(r"[^\w.-]+", "-", layout.workdir.partition("://")[2]).strip("-")
        return str(Path.cwd() / "slurm-logs" / name)
    return str(storage.local_path(layout.logs("slurm")).absolute())


def _dependency(run: SlurmRun, job: Job) -> list[str]:
    kinds = {"afterok": job.after_ok, "afterany": job.after_any}
    ids = {kind: [one for name in names for one in run.ids[name]] for kind, names in kinds.items()}
    told = ",".join(f"{kind}:{':'.join(some)}" for kind, some in ids.items() if some)
    return [f"--dependency={told}"] if told else []


def _scripts(run: SlurmRun, job: Job, largest: int) -> list[str]:
    """The scripts of a job: one, but for an array that is larger than the cluster takes."""
    section = run.recipe.executor.of_stage(job.stage)
    if job.kind == "train":
        from pipelines.slurm_train import train_script

        return [train_script(run, job, section)]
    if job.kind == "turn":
        # A turn needs no GPU and none of what a task of the stage needs, unless it does the stage's work.
        drives = [action.stage for action in job.actions if action.do == "drive" and action.stage != "train"]
        section = section if drives else run.recipe.executor
        return [_executor(run, job, section).script(_command(run, job), None)]
    chunks = split(job.ranks, largest)
    limit = None if job.max_running is None else max(1, job.max_running // len(chunks))
    scripts: list[str] = []
    for offset, indices in chunks:
        array = spec(indices) + (f"%{limit}" if limit else "")
        command = _command(run, job, *([] if not offset else ["--offset", str(offset)]))
        scripts.append(_executor(run, job, section).script(command, array))
    return scripts


def _executor(run: SlurmRun, job: Job, section: ExecutorSection) -> SlurmExecutor:
    return SlurmExecutor(job.name, section, logging_dir=run.logs, logs=run.logs)


def python_of(section: ExecutorSection) -> str:
    """The interpreter of the jobs."""
    return str(Path(section.venv).expanduser().absolute() / "bin" / "python") if section.venv else sys.executable


def _command(run: SlurmRun, job: Job, *more: str) -> str:
    # `exec`, so that Slurm's signal reaches Python and not a shell that waits for it.
    record = path_of(run.layout)
    place = record if storage.is_remote(record) else os.path.abspath(record)  # noqa: PTH100
    return shlex.join(["exec", python_of(run.recipe.executor), "-m", MODULE, place, job.name, *more])


def split(ranks: list[int], largest: int) -> list[tuple[int, list[int]]]:
    """Ranks as arrays whose indices are below ``largest``: pairs of an offset and the indices that it is added to."""
    chunks: dict[int, list[int]] = {}
    for rank in ranks:
        chunks.setdefault(rank // largest * largest, []).append(rank % largest)
    return sorted(chunks.items())


def spec(indices: list[int]) -> str:
    """Indices as sbatch takes them: ``0-3,7``."""
    parts: list[str] = []
    start = last = indices[0]
    for index in [*indices[1:], None]:
        if index is not None and index == last + 1:
            last = index
            continue
        parts.append(str(start) if start == last else f"{start}-{last}")
        if index is not None:
            start = last = index
    return ",".join(parts)
