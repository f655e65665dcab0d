"""The record of a submission, ``state/slurm/run.json``: recipe, jobs with their ids, who submitted them from where.

Data alone: a job reads it, builds its stage anew from the recipe and does its part. No pickle lies in a work folder.
"""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import LolaError, StageError
from lola_data.layout import Layout
from lola_data.recipe import Recipe
from pipelines import slurm_cluster
from pipelines.slurm_graph import Graph, Job
from pipelines.state import Lane

if TYPE_CHECKING:
    from pipelines.stage import ShardStep

FOLDER = "slurm"
RECORD = "run.json"
FORMAT = 1
_DELETE = "make sure that no job of it is left in `squeue`, delete it, and run the command again"


@dataclass
class SlurmRun:
    """A submission.

    Args:
        recipe, layout: of the corpus.
        graph: its jobs.
        ids: job -> the ids that Slurm gave it; an array that is larger than the cluster takes has several.
        logs: local folder of what the jobs print.
        by: user and machine that submitted.
        at: when, in seconds since 1970.
    """

    recipe: Recipe
    layout: Layout
    graph: Graph
    logs: str
    ids: dict[str, list[str]] = field(default_factory=dict)
    by: str = ""
    at: float = 0.0

    @property
    def jobs(self) -> dict[str, Job]:
        """By name."""
        return {job.name: job for job in self.graph.jobs}

    def lane(self, job: Job) -> Lane | None:
        """The lane of a job."""
        return None if job.lane is None else Lane(job.lane, frozenset(self.graph.lanes[job.lane]))

    def step(self, stage: Any, number: int, lane: Lane | None) -> ShardStep:
        """A phase of a stage, limited to a lane."""
        step = stage.phases[number]
        step.lane = lane
        return step

    def save(self) -> None:
        """Write the record."""
        storage.write_json(
            path_of(self.layout),
            {
                "format": FORMAT,
                "recipe": self.recipe.model_dump(mode="json"),
                "layout": asdict(self.layout),
                "lanes": self.graph.lanes,
                "jobs": [job.to_json() for job in self.graph.jobs],
                "ids": self.ids,
                "logs": self.logs,
                "by": self.by,
                "at": self.at,
            },
        )


def path_of(layout: Layout) -> str:
    """Where the record lies."""
    return layout.state(FOLDER, RECORD)


def load(path: str) -> SlurmRun:
    """Read a record.

    Raises:
        StageError: it is no such record, or of another version of this package.
    """
    told = storage.read_json(path)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise StageError(f"{path}: no record of a submission by this version of lola-data; {_DELETE}")
    try:
        recipe = Recipe.model_validate(told["recipe"])
        graph = Graph([Job.from_json(job) for job in told["jobs"]], told["lanes"])
        layout = Layout(**told["layout"])
        return SlurmRun(recipe, layout, graph, told["logs"], told["ids"], told["by"], told["at"])
    except (LolaError, KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StageError(f"{path}: no whole record of a submission ({what}); {_DELETE}") from error


def submitted(layout: Layout) -> SlurmRun | None:
    """The last submission of a work folder, if there was one."""
    path = path_of(layout)
    return load(path) if storage.exists(path) else None


def refuse_while_active(layout: Layout) -> None:
    """Raise StageError while jobs of an earlier submission wait or run: two runs must never write at once."""
    run = submitted(layout)
    if run is None:
        return
    ids = [one for each in run.ids.values() for one in each]
    try:
        left = slurm_cluster.active(ids)
    except StageError as error:
        raise StageError(
            f"{layout.workdir}: was submitted to Slurm by {run.by}, and whether its jobs are over cannot be told here "
            f"({error}). Ask on that cluster; if they are, delete {path_of(layout)}"
        ) from None
    if left:
        jobs = sorted(left, key=int)
        few = ", ".join(jobs[:6]) + (", ..." if len(jobs) > 6 else "")
        raise StageError(
            f"{layout.workdir}: in use by jobs {few} of Slurm, submitted by {run.by}. Watch them with `lola-data "
            f"status {layout.workdir} --follow`, or end them with `scancel {' '.join(jobs)}`"
        )


def submitter() -> str:
    """User and machine, for people."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user} on {socket.gethostname()}"


def closing_words(recipe: Recipe, run: SlurmRun | None) -> str:
    """What to say when the command that submits is done."""
    if run is None:
        return f"{recipe.workdir}: up to date; nothing was submitted"
    return f"watch: lola-data status {recipe.workdir} --follow"
