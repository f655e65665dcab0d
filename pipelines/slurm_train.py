"""The training as a job of Slurm: torchrun on every node, stopped before the time limit, requeued until it is complete.

Slurm's signal goes to every process of the step. torchrun is made to ignore it; the trainers save a checkpoint and end
with 0, and so torchrun does. The script then looks whether the run is complete.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import StageError
from pipelines import slurm_cluster
from pipelines.progress import say
from pipelines.slurm_run import SlurmRun, path_of
from pipelines.slurm_submit import MODULE, SlurmExecutor, python_of, script_of

if TYPE_CHECKING:
    from lola_data.layout import Layout
    from lola_data.sections import ExecutorSection
    from pipelines.slurm_graph import Job

RECIPE = "recipe.json"
MOST_IDLE = 3
"""Jobs in a row that add no step, after which training is not requeued: the signal may come before the first step."""
_PORTS = 20_000, 10_000
"""First port of a rendezvous, and how many there are: two jobs on a node take different ones."""


def train_script(run: SlurmRun, job: Job, section: ExecutorSection) -> str:
    """The script that trains."""
    own = run.recipe.executor.stages.get("train")
    nodes = (own and own.nodes) or 1
    gpus = (own and own.gpus_per_node) or 0
    processes = (own and own.processes_per_node) or max(1, gpus)
    recipe = run.layout.state("slurm", RECIPE)
    storage.write_json(recipe, run.recipe.model_dump(mode="json"))
    options = SlurmExecutor(job.name, section, logging_dir=run.logs, logs=run.logs).options(None)
    options |= {"nodes": nodes, "ntasks-per-node": 1, "cpus-per-task": section.cpus_per_task}
    if gpus:
        options["gpus-per-node"] = gpus
    options["signal"] = f"USR1@{section.grace_seconds}"
    options |= {key.replace("_", "-").lstrip("-"): value for key, value in section.sbatch.items()}
    python = python_of(run.recipe.executor)
    first, count = _PORTS
    torchrun = [
        '--nnodes="$SLURM_JOB_NUM_NODES"', f"--nproc-per-node={processes}", "--rdzv-backend=c10d",
        '--rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"',
        f'--rdzv-endpoint="$head:$(({first} + SLURM_JOB_ID % {count}))"',
        f"-m lola_data.cli train {shlex.quote(_absolute(recipe))}",
    ]  # fmt: skip
    lines = " \\\n    ".join(torchrun)
    return script_of(
        options,
        section.setup,
        f"""head=localhost
[ "$SLURM_JOB_NUM_NODES" = 1 ] || head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Of the signal before the time limit: torchrun ignores it, the processes that it starts save a checkpoint and end.
srun bash -c 'trap "" USR1; exec "$@"' train {shlex.quote(python)} -m torch.distributed.run \\
    {lines} || exit $?
{shlex.join(["exec", python, "-m", MODULE, _absolute(path_of(run.layout)), job.name])}""",
    )


def _absolute(path: str) -> str:
    return path if storage.is_remote(path) else str(Path(path).absolute())


def after_training(run: SlurmRun) -> int:
    """When torchrun has ended well: 0 if the run is complete; else the job is requeued, unless it stands still."""
    summary = storage.join(run.layout.run, "summary.json")
    if storage.exists(summary):
        return 0
    reached, (before, idle) = newest_step(run.layout), _seen(run.layout)
    idle = 0 if reached > before else idle + 1
    if idle >= MOST_IDLE:
        raise StageError(
            f"train: no step was added by {idle} jobs in a row, each stopped by its time limit (newest checkpoint: "
            f"step {reached:,}). Raise `executor.stages: train: time`"
        )
    storage.write_json(run.layout.state("train", "slurm.json"), {"step": reached, "idle": idle})
    say(f"train: stopped at step {reached:,}; requeued, to go on from there")
    from pipelines.slurm_task import REQUEUED, this_job

    slurm_cluster.requeue(this_job())
    sys.exit(REQUEUED)


def newest_step(layout: Layout) -> int:
    """Step of the newest checkpoint of the run; 0: there is none."""
    root = storage.join(layout.run, "checkpoints")
    found: list[int] = []
    for path, _ in storage.list_files(root, "checkpoint.json"):
        told: Any = storage.read_json(storage.join(root, path))
        found.append(int(told["step"]))
    return max(found, default=0)


def _seen(layout: Layout) -> tuple[int, int]:
    """The newest step when training was last requeued, and how many times in a row nothing was added before."""
    path = layout.state("train", "slurm.json")
    if not storage.exists(path):
        return 0, 0
    told: Any = storage.read_json(path)
    return int(told["step"]), int(told["idle"])
