"""What Slurm is asked on the command line: submit a script, which jobs are left, how a task ended, limits."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from lola_data.errors import StageError

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_ARRAY_SIZE = 1001
"""MaxArraySize where Slurm does not tell: its own default."""

GONE = {
    "CANCELLED": "was cancelled",
    "TIMEOUT": "came to its time limit: raise `executor.time`, or make the units smaller (`unit_mb`)",
    "OUT_OF_MEMORY": "ran out of memory: raise `executor.memory_mb` or `mem_per_cpu`",
    "NODE_FAIL": "lost its node",
    "PREEMPTED": "was preempted",
    "BOOT_FAIL": "lost its node at start",
    "DEADLINE": "came to its deadline",
    "FAILED": "ended with an error",
}
"""How Slurm says that a job has ended badly, and how we do."""


def _ask(*command: str) -> str:
    """The output of a command of Slurm.

    Raises:
        StageError: it is not here, or says no.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError:
        raise StageError(
            f"`{command[0]}` is not on this machine, which `executor.kind: slurm` needs. Run the command on a login "
            f"node of the cluster, or with --set executor.kind=local"
        ) from None
    except subprocess.TimeoutExpired:
        raise StageError(f"`{command[0]}` has not answered for two minutes; is the cluster up?") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise StageError(f"`{' '.join(command[:1])}`: {said}")
    return done.stdout


def submit(script: str, *options: str) -> str:
    """Submit a script that lies in a file; the job id."""
    told = _ask("sbatch", "--parsable", *options, script)
    found = re.search(r"^(\d+)(;\S+)?$", told.strip(), re.MULTILINE)
    if found is None:
        raise StageError(f"sbatch answered without a job id: {' '.join(told.split())[:200]}")
    return found[1]


def cancel(ids: Iterable[str]) -> None:
    """Cancel jobs; those that have ended are passed over."""
    _ask("scancel", *ids)


def max_array_size() -> int:
    """One more than the largest index of an array."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(found[1])) if found else DEFAULT_ARRAY_SIZE


def active(ids: Iterable[str]) -> dict[str, dict[str, int]]:
    """Jobs that have not ended: id -> state -> tasks in it. An array is one job."""
    wanted = {*ids}
    left: dict[str, dict[str, int]] = {}
    # All of this user's and not only those asked for: squeue refuses a list with an id that it has forgotten.
    for line in _ask("squeue", "--noheader", "--array", "--format=%A %F %T").splitlines():
        _, job, state = line.split()[:3]
        if job in wanted and state != "COMPLETING":
            counts = left.setdefault(job, {})
            counts[state] = counts.get(state, 0) + 1
    return left


def how_it_ended(job: str, task: int) -> str | None:
    """How a task of an array ended, in words, if it ended badly and Slurm still knows."""
    try:
        told = _ask("scontrol", "show", "job", f"{job}_{task}", "--oneliner")
    except StageError:
        return None
    for line in told.splitlines():
        if re.search(rf"\bArrayTaskId={task}\b", line) and (state := re.search(r"\bJobState=(\w+)", line)):
            return GONE.get(state[1])
    return None


def requeue(job: str) -> None:
    """Put the job that runs this back into the queue; Slurm then ends it."""
    _ask("scontrol", "requeue", job)
