"""What a job of Slurm runs: ``python -m pipelines.slurm_task RECORD JOB``.

A task of an array does its share of the units of a phase. Told that its time is about to end, it has itself requeued
and goes on later with the next unit; if no unit fitted into the time, it says so instead. A turn counts and plans.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lola_data.errors import LolaError
from pipelines import driver_stages, slurm_cluster
from pipelines.corpus import build_stage
from pipelines.executors import runner_of, task_log_alone
from pipelines.log_tail import with_tail
from pipelines.phases import check_phase, do_phase, plan_phase, works_of
from pipelines.progress import say
from pipelines.run import DRIVER, close_stage, leave_failure, open_stage, run_stage
from pipelines.slurm_graph import lineages
from pipelines.slurm_run import SlurmRun, load
from pipelines.slurm_submit import SlurmExecutor, log_path
from pipelines.stage import assign, shares
from pipelines.state import StageState
from pipelines.usage import leave_usage

if TYPE_CHECKING:
    from pipelines.slurm_graph import Action, Job
    from pipelines.stage import ShardStep, Stage

REQUEUED = 15
"""Exit code of a task that has itself requeued; Slurm ends it anyway."""


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 if the job's work is not done."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description="Runs one job of a submission.")
    parser.add_argument("record", help="state/slurm/run.json of the work folder")
    parser.add_argument("job", help="name of the job in it")
    parser.add_argument("--offset", type=int, default=0, help="added to the index in the array")
    asked = parser.parse_args(arguments)
    try:
        run = load(asked.record)
        job = run.jobs[asked.job]
        if job.kind == "tasks":
            return _tasks(run, job, int(os.environ["SLURM_ARRAY_TASK_ID"]) + asked.offset)
        if job.kind == "train":
            from pipelines.slurm_train import after_training

            return after_training(run)
        signal.signal(signal.SIGUSR1, lambda *_: _requeue("turn"))
        return _turn(run, job)
    except LolaError as error:
        say(f"error: {error}")
        return 1


def this_job() -> str:
    """The id by which Slurm knows the job that runs this, and no other task of its array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def _requeue(what: str) -> None:
    say(f"{what}: the time limit is near; requeued, to go on from here")
    slurm_cluster.requeue(this_job())
    sys.exit(REQUEUED)


def _tasks(run: SlurmRun, job: Job, rank: int) -> int:
    stage: Any = build_stage(job.stage, run.recipe, run.layout)
    step = run.step(stage, job.phase, run.lane(job))
    works = assign(works_of(step), rank, job.tasks)
    done = step.state.done_keys(step.phase)
    if all(work.key in done for work in works) or step.state.complete():
        say(f"{job.name}: task {rank}: nothing to do")
        return 0

    def told(*_: Any) -> None:
        if any(step.state.is_done(step.phase, work.key) for work in works if work.key not in done):
            _requeue(f"{job.name}: task {rank}")
        unit = next(work.key for work in works if work.key not in done)
        limit = run.recipe.executor.of_stage(job.stage).time
        message = (
            f"{unit}: not finished within the time limit of a job ({limit}): raise `executor.time`, or make the units "
            f"smaller (`unit_mb`)"
        )
        say(f"{job.name}: task {rank}: {message}")
        log = run.layout.logs(job.stage, step.phase, "logs", f"task_{rank:05d}.log")
        step.state.mark_failed(step.phase, unit, message=message, log=log)
        os._exit(1)

    signal.signal(signal.SIGUSR1, told)
    executor = SlurmExecutor(
        job.name, run.recipe.executor.of_stage(job.stage), tasks=job.tasks, pipeline=[step], logs=run.logs,
        logging_dir=run.layout.logs(job.stage, step.phase),
    )  # fmt: skip
    with task_log_alone():
        executor._run_for_rank(rank)
    left = [work.key for work in works if not step.state.is_done(step.phase, work.key)]
    say(f"{job.name}: task {rank}: {len(works) - len(left)} of {len(works)} units done")
    return int(bool(left))


def _turn(run: SlurmRun, job: Job) -> int:
    for action in job.actions:
        stage: Any = build_stage(action.stage, run.recipe, run.layout)
        began = time.time()
        try:
            _act(run, job, action, stage)
        except LolaError as error:
            leave_failure(stage, error)
            raise
        finally:
            leave_usage(run.layout, action.stage, DRIVER, 0, began, memory=False)
    return 0


def _act(run: SlurmRun, job: Job, action: Action, stage: Any) -> None:
    lineage = lineages(run.recipe, run.layout, [action.stage])
    section = run.recipe.executor.of_stage(action.stage)
    if action.do == "drive":
        if action.stage == "train":
            stage = driver_stages.train(run.recipe, run.layout, trained=True)
        run_stage(stage, section, lineage=lineage)
    elif action.do == "close":
        close_stage(stage, lineage=lineage, since=run.at)
    elif action.do == "begin" or not StageState(run.layout, action.stage).complete():
        if action.do == "begin" and not open_stage(stage, lineage=lineage)[0]:
            return
        step = run.step(stage, action.phase, run.lane(job))
        if action.do == "check":
            note_lost(run, stage, step)
            check_phase(stage, step, {})
        elif action.do == "inline":
            do_phase(stage, step, runner_of(section), section.workers)
        else:
            plan = plan_phase(stage, step)
            for line in step.announce(plan.left, section.max_running or section.tasks) if plan.left else []:
                say(line)


def note_lost(run: SlurmRun, stage: Stage, step: ShardStep) -> None:
    """Record as failed the units of tasks that ended without a word, with what Slurm says of them."""
    state = step.state
    lane = None if step.lane is None else step.lane.name
    job = next(
        one for one in run.graph.jobs
        if one.kind == "tasks" and (one.stage, one.lane) == (stage.name, lane) and stage.phases[one.phase] is step
    )  # fmt: skip
    ids, largest = run.ids[job.name], slurm_cluster.max_array_size() if len(run.ids[job.name]) > 1 else None
    told = {failure["key"] for failure in state.failures(step.phase)} | state.done_keys(step.phase)
    for rank, works in enumerate(shares(works_of(step), job.tasks)):
        missing = [work.key for work in works if work.key not in told]
        if not missing or rank not in job.ranks:
            continue
        offsets = sorted({one // largest for one in job.ranks}) if largest else [0]
        array = ids[offsets.index(rank // largest)] if largest else ids[0]
        index = rank % largest if largest else rank
        how = slurm_cluster.how_it_ended(array, index) or "ended early"
        log = run.layout.logs(stage.name, step.phase, "logs", f"task_{rank:05d}.log")
        printed = log_path(run.logs, job.name, f"{array}_{index}")
        for key in missing:
            with suppress(LolaError):
                state.mark_failed(
                    step.phase, key, message=f"{key}: task {rank} (job {array}_{index}) {how}",
                    # There Slurm, too, has its say.
                    log=printed if Path(printed).exists() else log,
                )  # fmt: skip
        for line in with_tail(printed):
            say(line)


if __name__ == "__main__":
    sys.exit(main())
